// SPDX-License-Identifier: MIT OR Apache-2.0
//! Event channels.
//!
//! A port is closed, or bound to a remote domain's port, a virtual interrupt, an interrupt of the machine or another vCPU
//! (`port`, `table`). `bind` makes and undoes such bindings, `send` raises ports. How a raised port reaches the guest is a
//! matter of the form that the domain uses, `two_level` or `fifo`; `form` changes it.
//!
//! Invariant: both ends of an interdomain channel name each other; a virtual interrupt of a vCPU has at most one port.

mod bind;
pub mod fifo;
mod form;
mod free;
mod listing;
mod port;
mod send;
mod table;
mod two_level;

pub use bind::{abandon_pirq, alloc_unbound, bind_interdomain, bind_ipi, bind_vcpu, bind_virq, close};
pub use bind::{open_console, open_pirq};
pub use form::{close_all, expand_array, init_control, reset, set_priority};
pub use listing::{HEADER, Listed, form_name, status};
pub use port::{Channel, State};
pub use send::{forget_virq_handler, is_masked, is_pending, mark_pending, raise, send};
pub use send::{send_global_virq, send_vcpu_virq, set_virq_handler, unmask};
pub use table::{Changes, Events};
