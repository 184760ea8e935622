// SPDX-License-Identifier: MIT OR Apache-2.0
//! `sched=`: how CPUs are shared.

use super::parse::Refusal;

/// What may be written for `sched`.
pub(super) const ACCEPTED: &str = "one of credit2, null";

/// How the CPUs are shared that are in no pool but the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// In proportion to weights.
    #[default]
    Credit2,
    /// Not at all: one vCPU a CPU, without a timer.
    Null,
}

pub(super) fn parse(name: &str) -> Result<Sharing, Refusal> {
    match name {
        "credit2" => Ok(Sharing::Credit2),
        "null" => Ok(Sharing::Null),
        _ => Err(Refusal::Malformed),
    }
}
