// SPDX-License-Identifier: MIT OR Apache-2.0
//! The shared info page, two-level event channels and the upcall.

use crate::abi::{pte, shared};
use crate::hypercall::update_va_mapping;
use crate::{fifo, mem, report, start, vcpu};
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering::SeqCst};

static SHARED: AtomicU64 = AtomicU64::new(0);

/// Number of ports whose events are counted.
pub const PORTS: usize = 64;
static COUNTS: [AtomicU64; PORTS] = [const { AtomicU64::new(0) }; PORTS];

/// Maps the shared info page over a page of the pool.
pub(crate) fn map_shared_info() {
    let va = mem::alloc();
    let result = update_va_mapping(va, start::info().shared_info | pte::KERNEL_RW, 2);
    if result != 0 {
        report::abort("map-shared-info", format_args!("got {result}"));
    }
    SHARED.store(va, SeqCst);
}

/// Returns the address of the shared info page.
pub fn shared_info() -> u64 {
    SHARED.load(SeqCst)
}

/// Returns a word of the shared info page.
pub fn word(offset: u64) -> &'static AtomicU64 {
    // SAFETY: the page was mapped at start and stays; offsets are multiples of eight within it.
    unsafe { &*((shared_info() + offset) as *const AtomicU64) }
}

fn byte(offset: u64) -> &'static AtomicU8 {
    // SAFETY: the page was mapped at start and stays; offsets are within it.
    unsafe { &*((shared_info() + offset) as *const AtomicU8) }
}

fn info_offset() -> u64 {
    shared::VCPU_INFO.0 + shared::VCPU_INFO.1 * u64::from(vcpu::current().id.get())
}

/// Returns the current vCPU's pending byte.
pub fn pending() -> &'static AtomicU8 {
    byte(info_offset() + shared::PENDING)
}

/// Returns the current vCPU's mask byte.
pub fn mask() -> &'static AtomicU8 {
    byte(info_offset() + shared::MASK)
}

/// Returns the current vCPU's selector word.
pub fn selector() -> &'static AtomicU64 {
    word(info_offset() + shared::SEL)
}

/// Returns the faulting address of the last page fault; 0 before the page is mapped.
pub fn cr2() -> u64 {
    if shared_info() == 0 { 0 } else { word(info_offset() + shared::CR2).load(SeqCst) }
}

/// Returns the address of the current vCPU's `vcpu_time_info`.
pub fn time_info() -> u64 {
    shared_info() + info_offset() + shared::TIME
}

/// Returns the pending word of a port.
pub fn port_pending(port: u32) -> &'static AtomicU64 {
    word(shared::EVTCHN_PENDING + u64::from(port / 64) * 8)
}

/// Returns the mask word of a port.
pub fn port_mask(port: u32) -> &'static AtomicU64 {
    word(shared::EVTCHN_MASK + u64::from(port / 64) * 8)
}

/// True when the port is pending.
pub fn is_pending(port: u32) -> bool {
    port_pending(port).load(SeqCst) & bit(port) != 0
}

/// Returns a port's bit within its word.
pub fn bit(port: u32) -> u64 {
    1 << (port % 64)
}

/// Masks a port in the shared page.
pub fn mask_port(port: u32) {
    port_mask(port).fetch_or(bit(port), SeqCst);
}

/// Unmasks a port in the shared page only, without asking for what is pending.
pub fn unmask_port(port: u32) {
    port_mask(port).fetch_and(!bit(port), SeqCst);
}

/// Returns how often a port was seen by the upcall.
pub fn count(port: u32) -> u64 {
    COUNTS[port as usize % PORTS].load(SeqCst)
}

/// Counts an event that the upcall has taken.
pub(crate) fn note(port: u32) {
    COUNTS[port as usize % PORTS].fetch_add(1, SeqCst);
}

/// Masks upcalls on this vCPU; returns whether they were masked.
pub fn disable() -> bool {
    mask().swap(1, SeqCst) != 0
}

/// Unmasks upcalls on this vCPU, and takes one if one is due, as a guest must.
pub fn enable() {
    mask().store(0, SeqCst);
    if pending().load(SeqCst) != 0 {
        // Any hypercall will do: the upcall comes on its way back.
        let _ = crate::hypercall::xen_version(0, 0);
    }
}

/// The upcall: clears pending, then takes all ports that are pending and not masked.
pub(crate) fn upcall() {
    let cpu = vcpu::current();
    cpu.upcalls.set(cpu.upcalls.get() + 1);
    pending().store(0, SeqCst);
    if fifo::is_on() {
        return fifo::upcall();
    }
    let mut words = selector().swap(0, SeqCst);
    while words != 0 {
        let index = words.trailing_zeros();
        words &= words - 1;
        let mut ports = port_pending(index * 64).load(SeqCst) & !port_mask(index * 64).load(SeqCst);
        while ports != 0 {
            let port = index * 64 + ports.trailing_zeros();
            ports &= ports - 1;
            port_pending(port).fetch_and(!bit(port), SeqCst);
            note(port);
        }
    }
}
