// SPDX-License-Identifier: MIT OR Apache-2.0
//! What of the interface exists, read from the tables that dispatch it.
//!
//! `cargo xtask abi` writes [`table`] to `docs/abi.md`.

use alloc::format;
use alloc::string::String;
use core::fmt::{self, Write as _};

use hypercalls::HypercallNr;

use crate::dispatch::{Answer, Hypercall, SubOp};
use crate::ops;

/// A family's table, whatever runs its lines.
pub trait Listing: fmt::Debug + Sync {
    /// Returns name and answer of a line; `None` behind the last one.
    fn line(&self, number: usize) -> Option<SubOp<()>>;
}

impl<F: Copy + fmt::Debug + Sync, const N: usize> Listing for [SubOp<F>; N] {
    fn line(&self, number: usize) -> Option<SubOp<()>> {
        let SubOp { name, answer } = *self.get(number)?;
        let answer = match answer {
            Answer::Run(_) => Answer::Run(()),
            Answer::ByFamily => Answer::ByFamily,
            Answer::Refused(errno) => Answer::Refused(errno),
            Answer::Absent => Answer::Absent,
        };
        Some(SubOp { name, answer })
    }
}

/// The lines of a table whose numbers are assigned.
fn assigned(subops: &dyn Listing) -> impl Iterator<Item = (usize, SubOp<()>)> {
    let lines = (0..).map_while(|number| Some((number, subops.line(number)?)));
    lines.filter(|(_, line)| !line.name.is_empty())
}

fn is_implemented(line: SubOp<()>) -> bool {
    matches!(line.answer, Answer::Run(()) | Answer::ByFamily)
}

struct Shown(Answer<()>);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Answer::Run(()) | Answer::ByFamily => f.write_str("implemented"),
            Answer::Refused(errno) => write!(f, "answers `{errno:?}`"),
            Answer::Absent => f.write_str("answers `ENOSYS`"),
        }
    }
}

const HEAD: &str = "\
# The hypercalls

What a guest gets from each hypercall of the PV ABI and from each of its sub-operations. \"Implemented\" is what runs;
everything else answers the error that is named. Made by `cargo xtask abi` from the tables that dispatch the calls.

| Number | Hypercall | Answer |
|-------:|-----------|--------|
";

/// Returns the hypercalls and their sub-operations as a document in Markdown.
pub fn table() -> String {
    let mut text = String::from(HEAD);
    for (number, call) in (0u64..).zip(&ops::TABLE) {
        let Some(name) = HypercallNr(number).name() else { continue };
        let answer = call.as_ref().map_or_else(|| format!("{}", Shown(Answer::Absent)), whole);
        let name = call.as_ref().map_or_else(|| name.to_ascii_lowercase(), |call| call.name.into());
        // Writing to a string does not fail.
        let _ = writeln!(text, "| {number} | `{name}` | {answer} |");
    }
    for (number, call) in ops::TABLE.iter().enumerate() {
        if let Some(Hypercall { name, subops: Some(subops), .. }) = call {
            let _ = write!(text, "\n## `{name}` ({number})\n\n| Number | Sub-operation | Answer |\n");
            text.push_str("|-------:|---------------|--------|\n");
            for (number, line) in assigned(*subops) {
                let _ = writeln!(text, "| {number} | `{}` | {} |", line.name, Shown(line.answer));
            }
        }
    }
    text
}

/// What a hypercall that exists answers, as a whole.
fn whole(call: &Hypercall) -> String {
    let Some(subops) = call.subops else { return format!("{}", Shown(Answer::Run(()))) };
    let all = assigned(subops).count();
    let there = assigned(subops).filter(|&(_, line)| is_implemented(line)).count();
    format!("{there} of {all} sub-operations implemented")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_and_every_kind_of_answer_is_there() {
        let text = table();
        for line in [
            "| 0 | `set_trap_table` | implemented |",
            "| 37 | `kexec_op` | answers `ENOSYS` |",
            "| 48 | `mca` | 5 of 6 sub-operations implemented |",
            "## `mmuext_op` (26)",
            "| 0 | `pin_l1_table` | implemented |",
            "| 19 | `mark_super` | answers `EOPNOTSUPP` |",
            "| 20 | `paging_op` | answers `ENOSYS` |",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}");
        }
        assert!(!text.contains("``"), "a number without a name is listed");
    }

    #[test]
    fn tables_are_as_long_as_the_interface() {
        use hypercalls::vcpu::VcpuOp;
        let subops = ops::TABLE[24].and_then(|call| call.subops).expect("a family");
        for (number, line) in assigned(subops) {
            let name = VcpuOp(number as u32).name().expect("a name in the interface");
            assert!(name.eq_ignore_ascii_case(line.name), "{name} is not {}", line.name);
        }
    }
}
