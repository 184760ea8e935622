// SPDX-License-Identifier: MIT OR Apache-2.0
//! Frames that the hypervisor and a guest both write, accessed through the direct map.
//!
//! Every access is one atomic load or store of a field, because the guest may change it at any moment; no reference
//! to the contents exists. Whoever makes a [`SharedFrame`] holds a reference to the frame for as long as it lives.
#![expect(unsafe_code, reason = "views of frames that a guest writes too")]

use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use hypercalls::Mfn;
use hypercalls::addr::PAGE_SIZE;

/// A part of a frame that is shared with a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedFrame {
    /// The frame's linear address.
    frame: usize,
    offset: usize,
}

macro_rules! field {
    ($(#[$doc:meta])* $name:ident, $atomic:ty) => {
        $(#[$doc])*
        #[inline(always)]
        pub fn $name(&self, at: usize) -> &'static $atomic {
            debug_assert!((self.offset + at).is_multiple_of(size_of::<$atomic>()) && self.offset + at < PAGE_SIZE);
            // One AND keeps the access within the frame and aligned, whatever was asked for.
            let at = self.offset.wrapping_add(at) & (PAGE_SIZE - size_of::<$atomic>());
            // SAFETY: `new` was promised a RAM frame that stays; the access is aligned, within the frame, and atomic,
            // and no plain reference to the frame's contents is ever made.
            unsafe { &*((self.frame | at) as *const $atomic) }
        }
    };
}

impl SharedFrame {
    /// Makes a view of `mfn` from byte `offset` on.
    ///
    /// # Safety
    /// The frame is RAM, and the caller keeps it from being freed while any copy of the view is used.
    pub unsafe fn new(mfn: Mfn, offset: usize) -> Self {
        // SAFETY: the caller's promise; only a number is made of it.
        Self { frame: unsafe { arch::phys::frame_ptr(mfn) } as usize, offset }
    }

    /// Returns a view of the same frame, `offset` bytes further on.
    #[must_use]
    pub const fn at(self, offset: usize) -> Self {
        Self { frame: self.frame, offset: self.offset + offset }
    }

    /// Returns the frame.
    pub fn mfn(&self) -> Mfn {
        Mfn((self.frame.wrapping_sub(arch::phys::directmap()) / PAGE_SIZE) as u64)
    }

    /// Returns the linear address of the view, for the exit path.
    pub fn address(&self) -> usize {
        self.frame + self.offset
    }

    field!(/// Returns the byte at an offset.
        u8, AtomicU8);
    field!(/// Returns the 2-byte word at an offset.
        u16, AtomicU16);
    field!(/// Returns the 4-byte word at an offset.
        u32, AtomicU32);
    field!(/// Returns the 8-byte word at an offset.
        u64, AtomicU64);
}

/// Returns a view of a frame that the hypervisor shares. The owner keeps the [`mm::SharedFrame`] as long as the view is used:
/// all of them live as long as their domain.
pub fn kept(frame: &mm::SharedFrame) -> SharedFrame {
    // SAFETY: an mm::SharedFrame is RAM and is not freed while it exists; domains keep theirs until they are gone.
    unsafe { SharedFrame::new(frame.mfn(), 0) }
}

/// Returns a view of guest memory that is kept writable by a reference, which its holder keeps as long as the view is used.
pub fn of_guest(frame: &mm::WritableRef, offset: usize) -> SharedFrame {
    // SAFETY: the reference proves that the frame is RAM and keeps it.
    unsafe { SharedFrame::new(frame.mfn(), offset) }
}

/// Copies `bytes` (a multiple of 8) from one view to another, word by word.
pub fn copy_words(from: SharedFrame, to: SharedFrame, bytes: usize) {
    for at in (0..bytes).step_by(8) {
        to.u64(at).store(from.u64(at).load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// Fills a frame of guest memory with zeros.
pub fn zero(frame: &mm::WritableRef) {
    fill_with_zeros(of_guest(frame, 0));
}

/// Fills a frame that the hypervisor shares with zeros.
pub fn clear(frame: &mm::SharedFrame) {
    fill_with_zeros(kept(frame));
}

fn fill_with_zeros(view: SharedFrame) {
    (0..PAGE_SIZE).step_by(8).for_each(|at| view.u64(at).store(0, Ordering::Relaxed));
}

/// Copies a frame of guest memory.
pub fn copy(to: &mm::WritableRef, from: &mm::PageRef) {
    // SAFETY: the reference proves that the frame is RAM and keeps it during the copy.
    let source = unsafe { SharedFrame::new(from.mfn(), 0) };
    copy_words(source, of_guest(to, 0), PAGE_SIZE);
}

/// Copies bytes of one frame of guest memory to another or the same; what would lie beyond a frame's end is left out.
pub fn copy_bytes(to: &mm::EntryRef, to_offset: usize, from: &mm::PageRef, from_offset: usize, bytes: usize) {
    let room = PAGE_SIZE.saturating_sub(to_offset.max(from_offset));
    debug_assert!(to.is_writable() && bytes <= room);
    let (to, from) = (to.mfn().maddr(), from.mfn().maddr());
    let (to, from) = (to.0 + to_offset as u64, from.0 + from_offset as u64);
    // SAFETY: the references prove that both frames are RAM of guests', which holds no Rust value, and keep them; the
    // ranges stay within the frames, or are empty.
    unsafe { arch::phys::copy_bytes(hypercalls::Maddr(to), hypercalls::Maddr(from), bytes.min(room)) };
}

/// Writes bytes into a frame that belongs to a guest, at boot, before the guest runs.
///
/// # Panics
/// When the range leaves the frame: the builder's own numbers are wrong then.
pub fn write_guest_frame(frame: &mm::PageRef, offset: usize, bytes: &[u8]) {
    assert!(offset + bytes.len() <= PAGE_SIZE);
    // SAFETY: the reference proves that the frame is RAM of a guest's, which holds no Rust value, and keeps it; the
    // range lies within the frame; no vCPU of the guest runs yet.
    unsafe {
        let to = arch::phys::frame_ptr(frame.mfn()).add(offset);
        core::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
    }
}

/// Reads the word of a guest's frame at an offset, which is rounded down to a multiple of 8.
pub fn read_guest_frame(frame: &mm::PageRef, offset: usize) -> u64 {
    // SAFETY: the reference proves that the frame is RAM and keeps it during the access.
    let view = unsafe { SharedFrame::new(frame.mfn(), 0) };
    view.u64(offset & (PAGE_SIZE - 8)).load(Ordering::Relaxed)
}

/// A place that holds a [`SharedFrame`], by its linear address, and may be pointed at another one.
#[derive(Debug)]
pub struct SharedSlot(AtomicUsize);

impl SharedSlot {
    /// Makes a slot that holds `view`.
    pub fn new(view: SharedFrame) -> Self {
        Self(AtomicUsize::new(view.address()))
    }

    /// Returns the view that the slot holds.
    #[inline(always)]
    pub fn get(&self) -> SharedFrame {
        let address = self.0.load(Ordering::Acquire);
        SharedFrame { frame: address & !(PAGE_SIZE - 1), offset: address & (PAGE_SIZE - 1) }
    }

    /// Makes the slot hold `view`.
    pub fn set(&self, view: SharedFrame) {
        self.0.store(view.address(), Ordering::Release);
    }
}
