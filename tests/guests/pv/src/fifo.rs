// SPDX-License-Identifier: MIT OR Apache-2.0
//! FIFO event channels: control blocks, the array of event words, and taking events off the queues.

use crate::hypercall::event_channel_op;
use crate::{events, mem, vcpu};
use core::cell::Cell;
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst};

/// Bits of an event word.
pub mod bits {
    /// It is pending.
    pub const PENDING: u32 = 1 << 31;
    /// It is masked.
    pub const MASKED: u32 = 1 << 30;
    /// It is in a queue.
    pub const LINKED: u32 = 1 << 29;
    /// It must not be unmasked just now.
    pub const BUSY: u32 = 1 << 28;
    /// The port behind it in the queue.
    pub const LINK: u32 = (1 << 17) - 1;
}

const INIT_CONTROL: u64 = 11;
const EXPAND_ARRAY: u64 = 12;
/// Most vCPUs, pages of the array, and events whose order is remembered.
const VCPUS: usize = 64;
const PAGES: usize = 128;
const SEEN: usize = 64;

static BLOCKS: [AtomicU64; VCPUS] = [const { AtomicU64::new(0) }; VCPUS];
static ARRAY: [AtomicU64; PAGES] = [const { AtomicU64::new(0) }; PAGES];
static LENGTH: AtomicUsize = AtomicUsize::new(0);
static ORDER: [AtomicU32; SEEN] = [const { AtomicU32::new(0) }; SEEN];
static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// Where a vCPU goes on in each queue.
#[derive(Debug, Default)]
pub(crate) struct Heads([Cell<u32>; 16]);

/// Gives a vCPU's control block at an offset of a page.
pub fn init_control(vcpu: u32, page: u64, offset: u32) -> i64 {
    // { control_gfn: u64, offset: u32, vcpu: u32, link_bits: u8 }.
    let mut argument = [mem::mfn(page), u64::from(offset) | u64::from(vcpu) << 32, 0xaa];
    let result = event_channel_op(INIT_CONTROL, &mut argument);
    if result == 0 {
        BLOCKS[vcpu as usize % VCPUS].store(page + u64::from(offset), SeqCst);
        if argument[2] & 0xff != 17 {
            return -1;
        }
    }
    result
}

/// Gives a page of the array.
pub fn expand(page: u64) -> i64 {
    let result = event_channel_op(EXPAND_ARRAY, &mut { mem::mfn(page) });
    if result == 0 {
        ARRAY[LENGTH.fetch_add(1, SeqCst) % PAGES].store(page, SeqCst);
    }
    result
}

/// Forgets everything after a reset.
pub fn forget() {
    LENGTH.store(0, SeqCst);
    BLOCKS.iter().for_each(|block| block.store(0, SeqCst));
    vcpu::current().fifo.0.iter().for_each(|head| head.set(0));
}

fn at(address: u64) -> &'static AtomicU32 {
    // SAFETY: pages of the pool, mapped for ever; offsets are multiples of four within them.
    unsafe { &*(address as *const AtomicU32) }
}

/// True once the domain uses this form.
pub fn is_on() -> bool {
    BLOCKS[0].load(SeqCst) != 0
}

/// Returns a port's word.
pub fn word(port: u32) -> &'static AtomicU32 {
    at(ARRAY[port as usize / 1024].load(SeqCst) + u64::from(port % 1024) * 4)
}

/// Returns the ready word of the current vCPU's control block.
pub fn ready() -> &'static AtomicU32 {
    at(BLOCKS[vcpu::current().id.get() as usize].load(SeqCst))
}

/// Returns the head of a queue in the current vCPU's control block.
pub fn head(priority: u32) -> &'static AtomicU32 {
    at(BLOCKS[vcpu::current().id.get() as usize].load(SeqCst) + 8 + 4 * u64::from(priority))
}

/// The upcall: takes all events, the most urgent first.
pub(crate) fn upcall() {
    let mut work = ready().swap(0, SeqCst);
    while work != 0 {
        let priority = work.trailing_zeros();
        if take(priority) {
            work &= !(1 << priority);
        }
        work |= ready().swap(0, SeqCst);
    }
}

/// Takes an event off a queue; true when it was the last.
fn take(priority: u32) -> bool {
    let ours = &vcpu::current().fifo.0[priority as usize % 16];
    let port = if ours.get() == 0 { head(priority).load(SeqCst) } else { ours.get() };
    let mut seen = word(port).load(SeqCst);
    while let Err(now) = word(port).compare_exchange(seen, seen & !(bits::LINKED | bits::LINK), SeqCst, SeqCst) {
        seen = now;
    }
    ours.set(seen & bits::LINK);
    if word(port).load(SeqCst) & (bits::PENDING | bits::MASKED) == bits::PENDING {
        word(port).fetch_and(!bits::PENDING, SeqCst);
        ORDER[TAKEN.fetch_add(1, SeqCst) % SEEN].store(port, SeqCst);
        events::note(port);
    }
    seen & bits::LINK == 0
}

/// Returns how many events were taken on all vCPUs.
pub fn taken() -> usize {
    TAKEN.load(SeqCst)
}

/// True when the last events taken were these, in this order.
pub fn took_last(ports: &[u32]) -> bool {
    let first = taken().wrapping_sub(ports.len());
    ports.iter().enumerate().all(|(n, port)| ORDER[first.wrapping_add(n) % SEEN].load(SeqCst) == *port)
}

/// Returns the last event taken but `back`.
pub fn seen(back: usize) -> u32 {
    ORDER[taken().wrapping_sub(1 + back) % SEEN].load(SeqCst)
}
