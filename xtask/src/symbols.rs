// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names for the addresses of the hypervisor's backtraces, from `xenith-syms`; and `cargo xtask backtrace`.
//!
//! A report has one line a caller, an address behind the prefix and two spaces: `(xenith)   0xffff82d040012345`. With
//! `failed` behind it the instruction itself is meant; otherwise it is the one that the call returns to.

use crate::project::Project;
use addr2line::Loader;
use anyhow::{Context, Result, anyhow};
use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Adds names of functions to a report of the hypervisor's failure.
///
/// Prints the log with the functions and lines behind each address of a backtrace. "run" and "test" do so by themselves.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The log [default: standard input]
    log: Option<PathBuf>,
    /// The hypervisor with symbols [default: the one built last]
    #[arg(long, value_name = "FILE")]
    symbols: Option<PathBuf>,
}

pub(crate) fn main(project: &Project, args: &Args) -> Result<ExitCode> {
    let text = match &args.log {
        Some(file) => crate::project::read(file)?,
        None => {
            let mut text = Vec::new();
            std::io::stdin().read_to_end(&mut text)?;
            text
        }
    };
    let file = match &args.symbols {
        Some(file) => file.clone(),
        None => project.out()?.join(FILE),
    };
    let mut names = Names::new(file);
    names.load()?;
    for line in String::from_utf8_lossy(&text).lines() {
        println!("{line}");
        print!("{}", names.behind(line));
    }
    Ok(ExitCode::SUCCESS)
}

/// The hypervisor with symbols, beside the one without.
const FILE: &str = "xenith-syms";
/// What a line of a backtrace begins with.
const PREFIX: &str = "(xenith)   0x";

/// The functions of one build, read when the first address is asked for.
pub(crate) struct Names {
    file: PathBuf,
    loader: Option<Loader>,
}

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Names").field(&self.file).finish()
    }
}

impl Names {
    fn new(file: PathBuf) -> Self {
        Self { file, loader: None }
    }

    /// Those of a hypervisor image, whose file with symbols lies beside it.
    pub(crate) fn of(image: &Path) -> Self {
        Self::new(image.with_file_name(FILE))
    }

    fn load(&mut self) -> Result<&Loader> {
        if self.loader.is_none() {
            let loader = Loader::new(&self.file).map_err(|error| anyhow!("{error}"));
            self.loader = Some(loader.with_context(|| format!("cannot read {}", self.file.display()))?);
        }
        self.loader.as_ref().context("just loaded")
    }

    /// Returns the lines to be shown behind this one: none, unless it is one of a backtrace whose names are known.
    pub(crate) fn behind(&mut self, line: &str) -> String {
        let Some(address) = address(line) else { return String::new() };
        let Ok(loader) = self.load() else { return String::new() };
        let mut found = frames(loader, address);
        if let Some(symbol) = loader.find_symbol(address) {
            // The tables name a function without its path; the symbol is that of the one the others are inlined into.
            let name = without_hash(&addr2line::demangle_auto(symbol.into(), None)).to_owned();
            match found.last_mut() {
                Some((outermost, _)) => *outermost = name,
                None => found.push((name, None)),
            }
        }
        let mut text = String::new();
        for (name, place) in found {
            // Writing to a string does not fail.
            let _ = match place {
                Some(place) => writeln!(text, "             {name} at {place}"),
                None => writeln!(text, "             {name}"),
            };
        }
        text
    }
}

/// The functions that an address lies in, the innermost first, and where in the source.
fn frames(loader: &Loader, address: u64) -> Vec<(String, Option<String>)> {
    let mut found = Vec::new();
    let Ok(mut frames) = loader.find_frames(address) else { return found };
    while let Ok(Some(frame)) = frames.next() {
        let name = frame.function.as_ref().and_then(|name| Some(name.demangle().ok()?.into_owned()));
        let place = frame.location.and_then(|place| Some(format!("{}:{}", place.file?, place.line?)));
        if let Some(name) = name {
            found.push((without_hash(&name).to_owned(), place));
        }
    }
    found
}

/// The address to look up for a line of a backtrace.
fn address(line: &str) -> Option<u64> {
    let start = line.find(PREFIX)? + PREFIX.len();
    let rest = line[start..].trim_end();
    let end = rest.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(rest.len());
    let address = u64::from_str_radix(&rest[..end], 16).ok()?;
    match &rest[end..] {
        // A call's return address may belong to what follows the function.
        "" => Some(address.wrapping_sub(1)),
        " failed" | " interrupted" => Some(address),
        _ => None,
    }
}

/// A demangled name without the hash that tells instances apart.
fn without_hash(name: &str) -> &str {
    match name.rsplit_once("::h") {
        Some((path, hash)) if hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => path,
        _ => name,
    }
}

/// Adds names to a stream of output that is passed on as it comes.
#[derive(Debug)]
pub(crate) struct Filter {
    names: Names,
    line: Vec<u8>,
}

impl Filter {
    /// For the output of a machine that this image runs on.
    pub(crate) fn new(image: &Path) -> Self {
        Self { names: Names::of(image), line: Vec::new() }
    }

    /// Takes a part of the output; returns it with the names behind the lines that end in it.
    pub(crate) fn pass(&mut self, part: &[u8]) -> Vec<u8> {
        let mut shown = Vec::with_capacity(part.len());
        for &byte in part {
            shown.push(byte);
            self.line.push(byte);
            if byte == b'\n' {
                let names = self.names.behind(&String::from_utf8_lossy(&self.line));
                shown.extend_from_slice(names.replace('\n', "\r\n").as_bytes());
                self.line.clear();
            }
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_backtraces_and_no_others() {
        assert_eq!(address("(xenith)   0xffff82d040012346"), Some(0xffff_82d0_4001_2345));
        assert_eq!(address("(xenith)   0xffff82d040012346\r\n"), Some(0xffff_82d0_4001_2345));
        assert_eq!(address("(xenith)   0xffff82d040012346 failed\r\n"), Some(0xffff_82d0_4001_2346));
        assert_eq!(address("(xenith)   0x000000000000-0x00000009fbff usable"), None);
        assert_eq!(address("(xenith) rip 0xffff82d040012346"), None);
        assert_eq!(address("(xenith)   0x"), None);
    }

    #[test]
    fn hashes_are_left_out() {
        assert_eq!(without_hash("a::b::h0123456789abcdef"), "a::b");
        assert_eq!(without_hash("a::b::hello"), "a::b::hello");
    }

    #[test]
    fn output_without_backtraces_passes_unchanged() {
        let mut filter = Filter::new(Path::new("/nonexistent/xenith.gz"));
        assert_eq!(filter.pass(b"dom0:/# ec"), b"dom0:/# ec");
        assert_eq!(filter.pass(b"ho\r\n(xenith)   0x1234\r\n"), b"ho\r\n(xenith)   0x1234\r\n");
    }
}
