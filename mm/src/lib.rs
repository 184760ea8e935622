// SPDX-License-Identifier: MIT OR Apache-2.0
//! Frames: who owns each, what it is used for, how often it is referenced; the allocators; guests' page tables.
//!
//! Key types: [`frame::Frame`] (the state of one frame), [`account::Account`] (what a domain owns), [`pt::PageTables`] (all
//! that changes a domain's page tables), [`refs`] (references as values), [`buddy`] and [`heap::Heap`] (the allocators).
//!
//! Order at boot: [`boot_alloc::BootAllocator`] finds room for the frame table and the M2P; [`init`] takes them over;
//! [`buddy::add_ram`] declares all RAM; [`buddy::free_range`] frees what the boot allocator has left; then the heap works;
//! [`pt::set_hypervisor_slots`] before the first guest table is validated.
#![no_std]

extern crate alloc;

pub mod absent;
pub mod account;
pub mod boot_alloc;
pub mod buddy;
mod entry;
pub mod flags;
pub mod frame;
pub mod heap;
#[cfg(not(target_os = "none"))]
pub mod hosted;
pub mod invariants;
pub mod lock;
pub mod m2p;
pub mod pt;
pub mod refs;
pub mod rwlock;
pub mod segdesc;
pub mod shared;
pub mod walk;

pub use absent::AbsentRule;
pub use account::Account;
pub use boot_alloc::BootAllocator;
pub use frame::{Frame, FrameState, PageType};
pub use heap::Heap;
pub use lock::{Lock, LockGuard};
pub use pt::{IoAccess, IoPolicy, NoIo, PageTables, PtCtx, RootRef, RootUse, Write};
pub use refs::{EntryRef, PageRef, SegDescRef, WritableRef};
pub use rwlock::RwLock;
pub use shared::{Share, SharedFrame};
pub use walk::{Walk, leaf, walk};

/// Where the tables over all frames are.
#[derive(Clone, Copy, Debug)]
pub struct Tables {
    /// Linear address of the frame table: 32 zeroed bytes for each frame.
    pub frame_table: usize,
    /// Linear address of the writable view of the M2P: 8 bytes for each frame.
    pub m2p: usize,
    /// How many frames both cover: one more than the highest frame number that is RAM.
    pub frames: u64,
}

/// Takes over the tables. On a hosted machine this may be done anew for a new machine.
///
/// # Safety
/// Both tables are mapped writable, for ever, used by nothing else, and the frame table is zeroed and aligned to 32.
/// Nothing refers to frames of an earlier machine.
#[expect(unsafe_code, reason = "the tables are raw memory")]
pub unsafe fn init(tables: Tables) {
    flags::init();
    buddy::reset();
    account::reset();
    // SAFETY: the caller's promise.
    unsafe {
        frame::init(tables.frame_table, tables.frames);
        m2p::init(tables.m2p, tables.frames);
    }
}

/// Returns the type and the pin of a frame that a domain owns, as `XEN_DOMCTL_getpageframeinfo3` reports them.
pub fn page_info(mfn: hypercalls::Mfn) -> Option<FrameState> {
    frame::get(mfn).map(Frame::state)
}
