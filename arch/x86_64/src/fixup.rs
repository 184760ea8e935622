// SPDX-License-Identifier: MIT OR Apache-2.0
//! Instructions of the hypervisor that may fault on a guest's account, each with the address to go on at.
//!
//! Entries are pairs of addresses in section `.fixup`, written beside the instructions. [`recovery`] is the one
//! lookup, asked first for any fault taken at CPL 0.
#![expect(unsafe_code, reason = "reads linker-made tables and patches code at boot")]

use crate::features;

#[repr(C)]
struct Entry {
    fault: u64,
    recovery: u64,
}

#[repr(C)]
struct Site {
    at: u64,
    stac: u64,
}

unsafe extern "C" {
    static __start_fixup: [Entry; 0];
    static __stop_fixup: [Entry; 0];
    static __start_smap_sites: [Site; 0];
    static __stop_smap_sites: [Site; 0];
}

fn entries() -> &'static [Entry] {
    let start = (&raw const __start_fixup).cast::<Entry>();
    let bytes = (&raw const __stop_fixup) as usize - start as usize;
    // SAFETY: the linker script puts the symbols around the section's entries, which are never written.
    unsafe { core::slice::from_raw_parts(start, bytes / size_of::<Entry>()) }
}

/// Returns where to go on after a fault at `rip`, if the instruction there is a known one.
pub fn recovery(rip: u64) -> Option<u64> {
    entries().iter().find(|e| e.fault == rip).map(|e| e.recovery)
}

/// Puts STAC and CLAC into their places where the CPU has SMAP.
///
/// # Safety
/// Only at boot, on the only running CPU, while the image is mapped writable.
pub(crate) unsafe fn patch_smap() {
    if !features::get().smap {
        return;
    }
    let start = (&raw const __start_smap_sites).cast::<Site>();
    let bytes = (&raw const __stop_smap_sites) as usize - start as usize;
    // SAFETY: as in `entries`.
    let sites = unsafe { core::slice::from_raw_parts(start, bytes / size_of::<Site>()) };
    for site in sites {
        let code: [u8; 3] = if site.stac != 0 { [0x0f, 0x01, 0xcb] } else { [0x0f, 0x01, 0xca] };
        // SAFETY: each site is three bytes of NOP in the image, writable now, and no CPU is executing them.
        unsafe { core::ptr::copy_nonoverlapping(code.as_ptr(), site.at as *mut u8, 3) };
    }
}
