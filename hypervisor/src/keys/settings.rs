// SPDX-License-Identifier: MIT OR Apache-2.0
//! The keys that change something: what is printed, how CPUs are asked, and the machine's end.

use core::fmt::Write as _;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use log::LevelFilter;

use super::Text;
use super::text::line;
use crate::{console, snapshot};

/// Whether `+` and `-` change what guests cause instead of what the hypervisor does.
static OF_GUESTS: AtomicBool = AtomicBool::new(false);

fn whose() -> &'static str {
    if OF_GUESTS.load(Relaxed) { "messages that guests cause" } else { "the hypervisor's messages" }
}

/// Changes a log level by so many steps.
fn change(by: isize, to: &mut Text) -> Option<u64> {
    let mut levels = console::levels();
    let changed = &mut levels[usize::from(OF_GUESTS.load(Relaxed))];
    let number = (*changed as usize).saturating_add_signed(by).min(LevelFilter::max() as usize);
    *changed = LevelFilter::iter().nth(number).unwrap_or(*changed);
    let level = *changed;
    let [own, guests] = levels;
    console::init(own, guests);
    line!(to, "{} appear up to level {level}", whose());
    None
}

/// Lets more messages appear.
pub(super) fn more(_at: u64, to: &mut Text) -> Option<u64> {
    change(1, to)
}

/// Lets fewer messages appear.
pub(super) fn less(_at: u64, to: &mut Text) -> Option<u64> {
    change(-1, to)
}

/// Chooses whose messages the others are about.
pub(super) fn toggle_guest(_at: u64, to: &mut Text) -> Option<u64> {
    OF_GUESTS.fetch_xor(true, Relaxed);
    line!(to, "+ and - change the level of {}", whose());
    None
}

/// Chooses how CPUs are asked for their registers.
pub(super) fn toggle_nmi(_at: u64, to: &mut Text) -> Option<u64> {
    let how = if snapshot::toggle_nmi() {
        "by NMI, wherever they are"
    } else {
        "by interrupt, and by NMI where that is not taken"
    };
    line!(to, "CPUs are asked for their registers {how}");
    None
}

/// Ends as a defect of the hypervisor's does, to see its report.
///
/// # Panics
/// Always: that is what it is for.
pub(super) fn crash(_at: u64, _to: &mut Text) -> Option<u64> {
    panic!("asked for by the debug key C")
}

/// Resets the machine.
pub(super) fn reset(_at: u64, _to: &mut Text) -> Option<u64> {
    console::print(format_args!("resetting the machine"));
    console::flush();
    arch::machine::reset()
}
