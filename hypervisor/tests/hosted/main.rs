// SPDX-License-Identifier: MIT OR Apache-2.0
//! The hypervisor as a process: domains are built, their kernels call, and every rule is checked after each step.

mod boot;
mod channels;
mod continuations;
mod death;
mod ends;
mod entry_points;
mod grants;
mod heap;
mod hypfs;
mod interrupts;
mod life;
mod lingering;
mod machine_checks;
mod messages;
mod pair;
mod platform;
mod published;
mod questions;
mod random;
mod random_interrupts;
mod rights;
mod rings;
mod segments;
mod static_guest;
mod stuck;
mod timers;
mod uefi;
mod ways;
