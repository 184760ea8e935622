// SPDX-License-Identifier: MIT OR Apache-2.0
//! Static domains: guests that the hypervisor builds at boot, each described by the command line of a module.
//!
//! A line that begins with `domain=NAME` describes one: words up to ` -- `, then the command line of the guest's kernel, which
//! is the module's file unless `kernel=` names another. The modules from the first such line on are the static domains' alone,
//! those before it dom0's as ever. A word that cannot be taken makes the whole line one that is not: a domain is built as it was
//! asked for, or not at all.

use core::fmt;

use arrayvec::ArrayVec;

use crate::options::parse::{boolean, size};

/// The longest name: it has to fit into the handle by which tools know a domain.
pub const MAX_NAME: usize = 16;
/// Ranges of CPUs in a list.
pub const MAX_RANGES: usize = 8;
/// vCPUs that a static domain may have.
const MAX_VCPUS: u64 = 128;
/// CPUs are numbered below this.
const MAX_CPUS: u64 = 256;

/// A static domain, as its line has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description<'a> {
    /// Its name.
    pub name: &'a str,
    /// Pages of memory.
    pub pages: u64,
    /// vCPUs.
    pub vcpus: u32,
    /// The CPUs that these may run on, in ranges from the first to the last; none for all.
    pub cpus: ArrayVec<(u16, u16), MAX_RANGES>,
    /// The number of its kernel's module.
    pub kernel: usize,
    /// The number of its initial ramdisk's module.
    pub ramdisk: Option<usize>,
    /// Its console is on the serial line.
    pub console: bool,
    /// Its kernel's command line.
    pub cmdline: &'a str,
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrong<'a> {
    /// The word.
    pub word: &'a str,
    /// What is accepted in its place; `None`: a word of another name.
    pub accepted: Option<&'static str>,
}

impl fmt::Display for Wrong<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.accepted {
            Some(accepted) => write!(f, "\"{}\" is malformed; accepted is {accepted}", self.word),
            None => {
                let names = "memory=, vcpus=, cpus=, kernel=, ramdisk=, console=, and -- before the kernel's own words";
                write!(f, "\"{}\" is not known; there are {names}", self.word)
            }
        }
    }
}

/// Words that come before the description: GRUB's scripts write one.
fn words(line: &str) -> &str {
    let line = line.trim_start_matches(' ');
    line.strip_prefix("placeholder ").unwrap_or(line).trim_start_matches(' ')
}

/// True when the line describes a domain.
#[must_use]
pub fn describes(line: &str) -> bool {
    words(line).starts_with("domain=")
}

/// Reads the line of module number `own`, of `modules` ones; the first has number 0.
///
/// # Errors
/// The first word that is wrong.
pub fn parse(line: &str, own: usize, modules: usize) -> Result<Description<'_>, Wrong<'_>> {
    let line = words(line);
    let (line, cmdline) = match line.split_once(" -- ") {
        Some((line, cmdline)) => (line, cmdline.trim_matches(' ')),
        None => (line.strip_suffix(" --").unwrap_or(line), ""),
    };
    let mut to = Description {
        name: "",
        pages: (128 << 20) >> 12,
        vcpus: 1,
        cpus: ArrayVec::new(),
        kernel: own,
        ramdisk: None,
        console: true,
        cmdline,
    };
    for word in line.split_ascii_whitespace() {
        take(&mut to, word, own, modules).map_err(|accepted| Wrong { word, accepted })?;
    }
    Ok(to)
}

/// Takes a word; says what is accepted in its place.
fn take<'a>(to: &mut Description<'a>, word: &'a str, own: usize, modules: usize) -> Result<(), Option<&'static str>> {
    let (key, value) = word.split_once('=').ok_or(None)?;
    match key {
        "domain" => {
            let accepted = "a name of up to 16 letters, digits, '-', '_' and '.', once";
            to.name = Some(value).filter(|name| to.name.is_empty() && is_name(name)).ok_or(Some(accepted))?;
        }
        "memory" => {
            let accepted = "a size of at least 1M, like 128M or 1G (a number alone counts KiB)";
            let bytes = size(value).ok().filter(|(bytes, rest)| *bytes >= 1 << 20 && rest.is_empty());
            to.pages = bytes.ok_or(Some(accepted))?.0 >> 12;
        }
        "vcpus" => {
            let vcpus = number(value).filter(|n| (1..=MAX_VCPUS).contains(n));
            to.vcpus = vcpus.ok_or(Some("a number from 1 to 128"))? as u32;
        }
        "cpus" => to.cpus = ranges(value).ok_or(Some("up to 8 CPU numbers or ranges of them, like 0-1,3"))?,
        "kernel" => {
            let module = number(value).filter(|n| *n < modules as u64);
            to.kernel = module.ok_or(Some("the number of a module, of which the first is 0"))? as usize;
        }
        "ramdisk" => {
            let module = number(value).filter(|n| *n < modules as u64 && *n != own as u64);
            to.ramdisk = Some(module.ok_or(Some("the number of another module, of which the first is 0"))? as usize);
        }
        "console" => {
            let is_on = Some(value).filter(|value| !value.is_empty()).and_then(|value| boolean(value).ok());
            to.console = is_on.ok_or(Some("yes or no"))?;
        }
        _ => return Err(None),
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    let ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=MAX_NAME).contains(&name.len()) && name.chars().all(ok)
}

/// A decimal number and nothing else.
fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
}

fn ranges(text: &str) -> Option<ArrayVec<(u16, u16), MAX_RANGES>> {
    let mut ranges = ArrayVec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last || last >= MAX_CPUS {
            return None;
        }
        ranges.try_push((first as u16, last as u16)).ok()?;
    }
    Some(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn a_whole_line() {
        let line =
            " placeholder domain=web-1 memory=64M vcpus=2 cpus=0-1,3 kernel=0 ramdisk=1 console=no -- quiet -- x=1 ";
        assert!(describes(line));
        let found = parse(line, 2, 3).expect("a good line");
        let cpus = ArrayVec::from_iter([(0, 1), (3, 3)]);
        let wanted = Description {
            name: "web-1",
            pages: 64 << 8,
            vcpus: 2,
            cpus,
            kernel: 0,
            ramdisk: Some(1),
            console: false,
            cmdline: "quiet -- x=1",
        };
        assert_eq!(found, wanted);
    }

    #[test]
    fn what_is_left_out_is_usual() {
        let found = parse("domain=a", 4, 5).expect("a good line");
        assert_eq!((found.pages, found.vcpus, found.kernel, found.ramdisk), (128 << 8, 1, 4, None));
        assert!(found.console && found.cpus.is_empty() && found.cmdline.is_empty());
        assert_eq!(parse("domain=a --", 0, 1).map(|d| d.cmdline), Ok(""));
    }

    #[test]
    fn the_wrong_word_is_named() {
        let words = "domain= domain=b domain=ä memory= memory=12X memory=-1M memory=1K memory=99999999999T vcpus=0 \
            vcpus=129 vcpus=0x2 vcpus= cpus= cpus=3-1 cpus=256 cpus=0,,1 cpus=0,1,2,3,4,5,6,7,8 kernel=3 kernel=x \
            ramdisk=2 ramdisk=3 ramdisk=+1 console= console=vga memroy=1M quiet";
        for word in words.split_ascii_whitespace() {
            let line = std::format!("domain=a {word} vcpus=1");
            let wrong = parse(&line, 2, 3).expect_err("a bad word");
            assert_eq!(wrong.word, word);
            assert!(wrong.to_string().starts_with(&std::format!("\"{word}\" is ")), "{wrong}");
        }
        let long = "domain=a2345678901234567";
        assert_eq!(parse(long, 0, 1).map_err(|wrong| wrong.word), Err(long));
    }

    #[test]
    fn other_lines_describe_nothing() {
        for line in ["", "placeholder", "root=/dev/sda domain=x", "xdomain=a", "placeholderdomain=a"] {
            assert!(!describes(line), "{line}");
        }
    }
}
