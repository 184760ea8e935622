// SPDX-License-Identifier: MIT OR Apache-2.0
//! Privilege, the set of ports against a plain bitmap, and how accesses split.

use super::super::std::{vec, vec::Vec};
use super::super::testing::Rng;
use super::*;

const USER: Privilege = Privilege { kernel_mode: false, iopl: 0, architectural_iopl: false, bitmap_ports: 0 };

#[test]
fn privilege_levels() {
    let ok =
        |kernel_mode, iopl, architectural_iopl| Privilege { kernel_mode, iopl, architectural_iopl, ..USER }.iopl_ok();
    for iopl in 0..4 {
        assert_eq!(ok(true, iopl, false), iopl >= 1);
        assert!(ok(true, iopl, true));
        assert_eq!(ok(false, iopl, false), iopl == 3);
        assert_eq!(ok(false, iopl, true), iopl == 3);
    }
}

#[test]
fn the_bitmap_decides_for_users() {
    let bits = [0xff, 0b0000_1111, 0b1111_1110, 0xff];
    let with = |ports| Privilege { bitmap_ports: ports, ..USER };
    let read = |n: u32| bits.get(n as usize).copied();
    assert!(with(32).allows(12, Width::Dword, read));
    assert!(!with(32).allows(11, Width::Word, read));
    assert!(with(32).allows(15, Width::Word, read));
    assert!(!with(32).allows(15, Width::Dword, read));
    assert!(with(13).allows(12, Width::Byte, read));
    assert!(!with(12).allows(12, Width::Byte, read));
    assert!(!with(13).allows(12, Width::Word, read));
    assert!(!with(65536).allows(0xffff, Width::Word, |_| Some(0)));
    assert!(with(65536).allows(0xffff, Width::Byte, |_| Some(0)));
    assert!(!with(65536).allows(0xffff, Width::Byte, |_| None));
    // A byte that is not needed may be unreadable, and no byte is read twice.
    let mut asked = Vec::new();
    let second = |n| {
        asked.push(n);
        (n == 1).then_some(0)
    };
    assert!(with(64).allows(8, Width::Dword, second));
    assert_eq!(asked, [1]);
}

#[test]
fn the_set_is_a_bitmap_with_fewer_words() {
    let mut rng = Rng::new();
    let mut set = PortSet::new();
    let mut plain = vec![false; 0x10000];
    for _ in 0..3000 {
        let first = if rng.below(2) == 0 { rng.below(64) } else { rng.below(0x10000) } as u16;
        let most = if rng.below(20) == 0 { 0x8000 } else { 16 };
        let last = first.saturating_add(rng.below(most) as u16);
        let add = rng.below(2) == 0;
        if add { set.insert(first..=last) } else { set.remove(first..=last) }.unwrap();
        plain[usize::from(first)..=usize::from(last)].fill(add);
        for _ in 0..40 {
            let a = if rng.below(2) == 0 { u32::from(first) } else { rng.below(0x10000) as u32 };
            let b = a + rng.below(5) as u32;
            let wanted = (a..=b).all(|p| plain.get(p as usize).copied().unwrap_or(false));
            assert_eq!(set.contains(a, b), wanted, "{a:#x}-{b:#x}");
        }
        let ranges: Vec<_> = set.iter().collect();
        assert!(ranges.iter().all(|r| r.start() <= r.end()));
        assert!(ranges.windows(2).all(|w| u32::from(*w[0].end()) + 1 < u32::from(*w[1].start())));
    }
}

#[test]
fn the_hardware_domains_ports() {
    let set = PortSet::hardware_domain(Some(0x608)).unwrap();
    let denied =
        [0x20, 0x21, 0x40, 0x41, 0x42, 0x43, 0x61, 0xa0, 0xa1, 0x608, 0x609, 0x60a, 0x60b, 0xcfc, 0xcfd, 0xcfe, 0xcff];
    for port in 0..0x10000 {
        assert_eq!(set.contains(port, port), !denied.contains(&port), "{port:#x}");
    }
    assert!(!set.contains(0x10000, 0x10000));
    assert!(!set.contains(5, 4));
    assert_eq!(PortSet::hardware_domain(Some(0xfffe)).map(|s| s.contains(0xffff, 0xffff)), Ok(false));
}

fn split(port: u16, width: Width, set: &PortSet) -> Vec<(u16, u32, Width, Target)> {
    pieces(port, width, set).map(|p| (p.port, p.shift, p.width, p.target)).collect()
}

#[test]
fn permitted_accesses_stay_whole() {
    let dom0 = PortSet::hardware_domain(None).unwrap();
    for width in [Width::Byte, Width::Word, Width::Dword] {
        assert_eq!(split(0x3f8, width, &dom0), [(0x3f8, 0, width, Target::Port)]);
        assert_eq!(split(0x3f9, width, &dom0), [(0x3f9, 0, width, Target::Port)]);
    }
    assert_eq!(split(0xcf9, Width::Byte, &dom0), [(0xcf9, 0, Width::Byte, Target::Port)]);
}

#[test]
fn special_ports() {
    use Target::*;
    use Width::*;
    let dom0 = PortSet::hardware_domain(None).unwrap();
    let none = PortSet::new();
    for set in [&dom0, &none] {
        assert_eq!(split(0x61, Byte, set), [(0x61, 0, Byte, Timer)]);
        assert_eq!(split(0x42, Word, set), [(0x42, 0, Byte, Timer), (0x43, 8, Byte, Timer)]);
        assert_eq!(split(0x70, Word, set), [(0x70, 0, Byte, Clock), (0x71, 8, Byte, Clock)]);
        assert_eq!(split(0xcf8, Dword, set), [(0xcf8, 0, Dword, ConfigAddress)]);
        assert_eq!(split(0xcfc, Dword, set), [(0xcfc, 0, Dword, ConfigData)]);
        assert_eq!(split(0xcfe, Word, set), [(0xcfe, 0, Word, ConfigData)]);
        assert_eq!(split(0xcfd, Dword, set)[..2], [(0xcfd, 0, Word, ConfigData), (0xcff, 16, Byte, ConfigData)]);
    }
    assert_eq!(split(0x6f, Word, &dom0), [(0x6f, 0, Byte, Port), (0x70, 8, Byte, Clock)]);
    assert_eq!(split(0x60, Word, &dom0), [(0x60, 0, Byte, Port), (0x61, 8, Byte, Timer)]);
    let both = [(0x1e, 0, Word, Port), (0x20, 16, Byte, Nothing), (0x21, 24, Byte, Nothing)];
    assert_eq!(split(0x1e, Dword, &dom0), both);
    assert_eq!(split(0xffff, Word, &dom0), [(0xffff, 0, Byte, Port), (0, 8, Byte, Nothing)]);
    assert_eq!(split(0x3f8, Word, &none), [(0x3f8, 0, Byte, Nothing), (0x3f9, 8, Byte, Nothing)]);
}

/// Pieces cover the access exactly once, and none reaches a port that is not permitted.
#[test]
fn pieces_cover_every_access() {
    let mut rng = Rng::new();
    let mut set = PortSet::hardware_domain(Some(0x608)).unwrap();
    for _ in 0..200 {
        let port = rng.below(0x1000) as u16;
        set.remove(port..=port).unwrap();
    }
    for port in 0..=0xffffu16 {
        for width in [Width::Byte, Width::Word, Width::Dword] {
            let mut at = 0;
            for piece in pieces(port, width, &set) {
                assert_eq!((piece.shift, piece.port), (at * 8, port.wrapping_add(at as u16)));
                let first = u32::from(piece.port);
                if piece.target == Target::Port {
                    assert!(set.contains(first, first + piece.width.bytes() - 1));
                }
                at += piece.width.bytes();
            }
            assert_eq!(at, width.bytes());
        }
    }
}

#[test]
fn values_are_put_together() {
    let piece = Piece { port: 0, shift: 8, width: Width::Word, target: Target::Port };
    assert_eq!(piece.part(0x1234_5678), 0x3456);
    assert_eq!(piece.put(u32::MAX, 0xff_1234), 0xff12_34ff);
    let whole = Piece { shift: 0, width: Width::Dword, ..piece };
    assert_eq!((whole.part(u32::MAX), whole.put(0, u32::MAX)), (u32::MAX, u32::MAX));
}

#[test]
fn configuration_addresses() {
    let latch = ConfigLatch(0x8012_3b54);
    let place = ConfigPlace { bus: 0x12, device: 7, function: 3, offset: 0x56 };
    assert_eq!(latch.place(0xcfe), Some(place));
    assert_eq!(ConfigLatch(0x0012_3b54).place(0xcfc), None);
    assert_eq!(ConfigLatch(0xffff_ffff).place(0xcfc).map(|p| p.offset), Some(0xfc));
}
