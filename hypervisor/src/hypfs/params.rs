// SPDX-License-Identifier: MIT OR Apache-2.0
//! The boot options that can be changed while the machine runs, under their own names and in their own form.

use alloc::string::{String, ToString};

use boot::options::{Conswitch, Levels};
use hypercalls::{Errno, Result};
use log::LevelFilter;

use super::{Node, setting};
use crate::console;
use crate::grants::Limits;

/// All of them, by name.
pub(super) const ALL: &[(&str, Node)] = &[
    ("conswitch", setting(conswitch, 4, set_conswitch)),
    ("gnttab_max_frames", setting(|| Limits::most().frames.to_string(), 12, set_frames)),
    ("gnttab_max_maptrack_frames", setting(|| Limits::most().maptrack_frames.to_string(), 12, set_maptrack)),
    ("guest_loglvl", setting(|| level(console::levels()[1]), 16, |text| set_level(text, 1))),
    ("loglvl", setting(|| level(console::levels()[0]), 16, |text| set_level(text, 0))),
];

/// A level as the option has it: messages are limited in number at every level, so both its parts are the same.
fn level(of: LevelFilter) -> String {
    let name = match of {
        LevelFilter::Off => "none",
        LevelFilter::Error => "error",
        LevelFilter::Warn => "warning",
        LevelFilter::Info => "info",
        LevelFilter::Debug | LevelFilter::Trace => "all",
    };
    [name, "/", name].concat()
}

fn set_level(text: &str, whose: usize) -> Result<()> {
    let wanted = Levels::parse(text).ok_or(Errno::EINVAL)?;
    let mut levels = console::levels();
    levels[whose] = console::filter(wanted.limited);
    let [own, guests] = levels;
    console::init(own, guests);
    Ok(())
}

fn conswitch() -> String {
    console::switch_letter().map_or_else(|| "no".to_string(), |letter| char::from(letter).to_string())
}

fn set_conswitch(text: &str) -> Result<()> {
    console::set_switch(Conswitch::parse(text).ok_or(Errno::EINVAL)?.letter);
    Ok(())
}

fn number(text: &str) -> Result<u32> {
    text.parse().map_err(|_| Errno::EINVAL)
}

fn set_frames(text: &str) -> Result<()> {
    Limits::set_most(Limits { frames: number(text)?, ..Limits::most() })
}

fn set_maptrack(text: &str) -> Result<()> {
    Limits::set_most(Limits { maptrack_frames: number(text)?, ..Limits::most() })
}
