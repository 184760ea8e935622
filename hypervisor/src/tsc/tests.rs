// SPDX-License-Identifier: MIT OR Apache-2.0
//! A counter of a domain's own. The simulated machine's runs at 1 GHz.

use super::*;

fn asked(mode: u32, khz: u32, elapsed: u64) -> Record {
    Record { tsc_mode: mode, gtsc_khz: khz, incarnation: 4, elapsed_nsec: elapsed, ..Record::default() }
}

fn own(khz: u32, elapsed: u64) -> Tsc {
    let tsc = Tsc::native();
    tsc.set(&asked(EMULATED, khz, elapsed)).expect("there is such a mode");
    assert!(tsc.is_emulated() && tsc.cr4(0) == CR4_TSD);
    tsc
}

#[test]
fn the_machines_counter_unless_the_rate_differs() {
    let tsc = Tsc::native();
    for (mode, khz, emulated) in [
        (DEFAULT, 0, false),
        (DEFAULT, 1_000_000, false),
        (DEFAULT, 999_999, true),
        (EMULATED, 0, true),
        (EMULATED, 1_000_000, true),
        (NATIVE, 0, false),
        (NATIVE, 999_999, false),
    ] {
        tsc.set(&asked(mode, khz, 0)).expect("there is such a mode");
        assert_eq!(tsc.is_emulated(), emulated, "mode {mode}, {khz} kHz");
        assert_eq!(tsc.cr4(1 << 3), if emulated { 1 << 3 | CR4_TSD } else { 1 << 3 });
        let told = tsc.told();
        assert_eq!((told.emulated, told.mode, told.incarnation), (emulated, mode, 5));
        assert_eq!(told.khz, if emulated && khz != 0 { khz } else { 1_000_000 });
    }
    assert_eq!(tsc.set(&asked(3, 0, 0)), Err(Errno::EINVAL));
    assert_eq!(tsc.told().mode, NATIVE, "nothing is changed");
}

#[test]
fn an_own_counter_goes_on_at_its_rate_and_never_back() {
    for khz in [1000, 999_999, 2_596_122, u32::MAX] {
        let tsc = own(khz, 5_000_000_000);
        let ticks = |seconds: u64| seconds * u64::from(khz) * 1000;
        let (mut last, start) = (0, tsc.read());
        assert!(start.abs_diff(ticks(5)) <= ticks(5) / 1_000_000, "{khz} kHz: {start}");
        for _ in 0..1000 {
            let now = tsc.read();
            // Slow counters read the same for a while.
            assert!(now >= last && (khz < 1_000_000 || now > last), "{khz} kHz: {now} after {last}");
            last = now;
        }
        // A machine that has run for a hundred years.
        assert!(tsc.at(arch::time::now() + 3_153_600_000_000_000_000) > last);
    }
}

#[test]
fn time_made_of_an_own_counter_is_system_time() {
    for khz in [1000, 999_999, 2_596_122, u32::MAX] {
        let tsc = own(khz, 77);
        let (stamp, system, scale) = tsc.moment();
        for later in [0, 1, 999, 1_000_000, 1_000_000_000, 4_000_000_000] {
            let made = system + scale.ns(tsc.at(system + later) - stamp);
            let tick = 1_000_000 / u64::from(khz) + 2;
            assert!(
                made.abs_diff(system + later) <= tick,
                "{khz} kHz, {later} ns later: {made}, not {}",
                system + later
            );
        }
    }
}

#[test]
fn a_record_has_the_same_seen_elsewhere() {
    let tsc = own(2_596_122, 5_000_000_000);
    let record = tsc.record();
    assert_eq!((record.tsc_mode, record.gtsc_khz, record.incarnation), (EMULATED, 2_596_122, 5));
    let elsewhere = Tsc::native();
    elsewhere.set(&record).expect("what was told can be set");
    let (here, there) = (tsc.read(), elsewhere.read());
    assert!(there.abs_diff(here) < 2_596_122, "within a millisecond: {here} and {there}");
    assert_eq!(elsewhere.told().incarnation, 6);
    let native = Tsc::native();
    native.set(&asked(NATIVE, 0, 0)).expect("there is such a mode");
    assert_eq!((native.record().gtsc_khz, native.record().elapsed_nsec), (0, 0));
    native.set(&asked(DEFAULT, 0, 0)).expect("there is such a mode");
    assert_eq!(native.record().gtsc_khz, 1_000_000);
}
