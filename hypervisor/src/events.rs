// SPDX-License-Identifier: MIT OR Apache-2.0
//! Event channels.
//!
//! A port is closed, or bound to a remote domain's port, a virtual interrupt, an interrupt of the machine
//! or another vCPU (`port`). `bind` makes and
//! undoes such bindings, `send` raises ports. How a raised port reaches the guest is a matter of the form that the domain
//! uses: `two_level`.
//!
//! Invariant: both ends of an interdomain channel name each other; a virtual interrupt of a vCPU has at most one port.

mod bind;
mod port;
mod send;
mod two_level;

pub use bind::{abandon_pirq, alloc_unbound, bind_interdomain, bind_ipi, bind_vcpu, bind_virq, close, open_pirq};
pub use port::{Channel, Events, State, status};
pub use send::{mark_pending, send, send_global_virq, send_vcpu_virq, unmask};
pub use two_level::{is_masked, is_pending, raise};
