// SPDX-License-Identifier: MIT OR Apache-2.0
//! Absent entries of domains that are kept from using L1TF: harmless ones pass, others are refused wherever they come from.

mod world;

use hypercalls::Errno;
use mm::AbsentRule;
use mm::flags::PSE;
use mm::hosted::poke;
use world::*;

const RULE: AbsentRule = AbsentRule { mask: (1 << 46) - 4096, safe: 3 << 44 };
/// An inverted address, as Linux writes them; and one that is not.
const HARMLESS: u64 = !(0x1234_5000u64) & !P;
const UNSAFE: u64 = 0x1234_5000;

#[test]
fn xsa_273_absent_entries_that_name_memory_are_refused() {
    let mut w = World::one();
    w.domains.push(Domain::with_rule(7, 32, Some(RULE)));
    let d = &mut w.domains[1];
    let data = d.frames[10];
    let [l4, l3, l2, l1] = tree(d, to(data, P | RW));
    poke(l1, 9, HARMLESS);
    d.pin(l4, 4).unwrap();
    for (table, level) in [(l1, 1), (l2, 2), (l3, 3), (l4, 4)] {
        for (value, is_fine) in [(0, true), (0xffe & !PSE, true), (HARMLESS & !PSE, true), (UNSAFE, false)] {
            let before = read(table, 5);
            let result = d.set(table, 5, value);
            assert_eq!(result, if is_fine { Ok(()) } else { Err(Errno::EINVAL) }, "{value:#x} at level {level}");
            assert_eq!(read(table, 5), if is_fine { value } else { before });
        }
        assert_eq!(d.set(table, 6, PSE).is_ok(), level == 1, "a large page at level {level}");
    }
    let exchanged = d.once(|t, c| t.cmpxchg_l1(c, slot(l1, 0), read(l1, 0), UNSAFE));
    assert_eq!(exchanged, Err(Errno::EINVAL));
    assert_eq!(read(l1, 0) & !0xfff & !mm::flags::AVAIL_HIGH, data.maddr().0, "what is mapped stays mapped");
    let present = read(l1, 0);
    assert_eq!(d.once(|t, c| t.cmpxchg_l1(c, slot(l1, 0), present, HARMLESS)), Ok(present));
    w.check();
}

#[test]
fn xsa_273_tables_with_such_entries_are_not_validated() {
    let mut w = World::one();
    w.domains.push(Domain::with_rule(7, 32, Some(RULE)));
    for level in 0..4 {
        let d = &mut w.domains[1];
        let tables = tree(d, to(d.frames[10], P | RW));
        poke(tables[level], 77, UNSAFE);
        assert_eq!(d.pin(tables[0], 4), Err(Errno::EINVAL));
        poke(tables[level], 77, HARMLESS & !PSE);
        assert_eq!(d.pin(tables[0], 4), Ok(()));
        assert_eq!(d.unpin(tables[0]), Ok(()));
        tables.iter().for_each(|table| poke(*table, 77, 0));
        w.check();
    }
    // Nobody else is asked.
    let other = w.d();
    let [l4, _, _, l1] = tree(other, 0);
    poke(l1, 77, UNSAFE);
    assert_eq!(other.pin(l4, 4), Ok(()));
}
