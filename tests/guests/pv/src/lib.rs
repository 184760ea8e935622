// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a tiny 64-bit PV kernel needs: entry, hypercalls, traps, page tables, user mode, a report.
//!
//! A guest is a binary of one purpose. It names its main function and its ELF notes with [`guest!`], and gets
//! control with the trap table, the callbacks and the shared info page in place and with events masked:
//!
//! ```ignore
//! #![no_std]
//! #![no_main]
//! pv::guest!(main);
//! fn main() {
//!     pv::equal!("version", pv::hypercall::xen_version(0, 0) >> 16, 4);
//! }
//! ```
//!
//! Each check prints one line, `ok NAME` or `not ok NAME: details` (or `skip NAME: why`); when `main` returns, or at
//! the first trap nobody expected, the last line is `done PASSED FAILED`, and the guest asks to be powered off.
//!
//! The ABI's numbers and layouts are stated here a second time, in [`abi`]: the guest is a witness, and one that reads
//! the hypervisor's own table of numbers would not notice a wrong one. Errors and frame numbers, where a mistake
//! cannot hide, come from `hypercalls`.
//!
//! What must always hold: the compiler uses no SSE and no red zone (the target sees to it), so a bounce frame may land
//! on the stack at any instruction; each vCPU's stack is [`vcpu::STACK_SIZE`] long and aligned to it, and its
//! lowest bytes are that vCPU's [`vcpu::Vcpu`].
#![no_std]

pub mod abi;
pub mod console;
pub mod domain;
mod entry;
pub mod events;
pub mod fifo;
pub mod grants;
pub mod hypercall;
pub mod measure;
pub mod mem;
pub mod report;
pub mod smp;
pub mod start;
pub mod time;
pub mod trap;
pub mod user;
pub mod vcpu;

pub use hypercalls::{Errno, Mfn};
