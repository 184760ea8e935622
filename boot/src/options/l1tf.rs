// SPDX-License-Identifier: MIT OR Apache-2.0
//! `pv-l1tf=`: whose absent page-table entries are looked at.

use super::parse::{Refusal, boolean};

/// What may be written for it.
pub(super) const ACCEPTED: &str = "a boolean, or a list of [no-]dom0, dom0=BOOLEAN, [no-]domu, domu=BOOLEAN";

/// For which domains `pv-l1tf` is on; `None`: as the CPU needs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PvL1tf {
    /// dom0.
    pub dom0: Option<bool>,
    /// All others.
    pub domu: Option<bool>,
}

/// Later words count over earlier ones; a bare boolean is for both.
pub(super) fn parse(mut chosen: PvL1tf, value: &str) -> Result<PvL1tf, Refusal> {
    for word in value.split(',') {
        if word.is_empty() != value.is_empty() {
            return Err(Refusal::Malformed);
        }
        if let Ok(on) = boolean(word) {
            chosen = PvL1tf { dom0: Some(on), domu: Some(on) };
            continue;
        }
        let (name, on) = match (word.strip_prefix("no-"), word.split_once('=')) {
            (Some(name), _) => (name, false),
            (None, Some((name, value))) => (name, boolean(value)?),
            (None, None) => (word, true),
        };
        match name {
            "dom0" => chosen.dom0 = Some(on),
            "domu" => chosen.domu = Some(on),
            _ => return Err(Refusal::Malformed),
        }
    }
    Ok(chosen)
}
