// SPDX-License-Identifier: MIT OR Apache-2.0
//! `multicall`: a list of hypercalls.

use crate::HypercallNr;
use crate::layout::record;

record! {
    /// One entry of a multicall; the hypervisor writes `result`.
    pub struct MulticallEntry = "struct multicall_entry", 64 {
        0 op: HypercallNr,
        8 result: i64,
        16 args: [u64; 6],
    }
}
