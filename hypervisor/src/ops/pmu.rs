// SPDX-License-Identifier: MIT OR Apache-2.0
//! `xenpmu_op`: performance counters, of which guests have none. Linux asks on each vCPU.

use hypercalls::{Errno, HypercallNr};

use crate::dispatch::{Args, Outcome, SubOp, refused, run_sub};
use crate::vcpu::Vcpu;

const NONE: Errno = Errno::EOPNOTSUPP;

/// The sub-operations.
pub static OPS: [SubOp; 8] = [
    refused("mode_get", NONE),
    refused("mode_set", NONE),
    refused("feature_get", NONE),
    refused("feature_set", NONE),
    refused("init", NONE),
    refused("finish", NONE),
    refused("lvtpc_set", NONE),
    refused("flush", NONE),
];

/// Hypercall 40.
pub fn xenpmu_op(vcpu: &Vcpu, args: &Args) -> Outcome {
    run_sub(vcpu, HypercallNr::XENPMU_OP, &OPS, args[0] & 0xffff_ffff, args[1]).into()
}
