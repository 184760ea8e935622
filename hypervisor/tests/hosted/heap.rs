// SPDX-License-Identifier: MIT OR Apache-2.0
//! How much of the process's heap a thread uses: a machine and all that happens on it belong to one.
#![expect(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

std::thread_local! {
    static USED: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

/// Returns how many bytes this thread has allocated more than it has freed.
pub(crate) fn used() -> isize {
    USED.get()
}

fn count(bytes: isize) {
    // A thread that ends frees what it has after the count is gone.
    let _ = USED.try_with(|used| used.set(used.get() + bytes));
}

// SAFETY: everything is the system allocator's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}
