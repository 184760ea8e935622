// SPDX-License-Identifier: MIT OR Apache-2.0
//! Grants of the domain to itself: its table, and the operations on lists.

use crate::abi::{self, nr, pte};
use crate::hypercall::hypercall3;
use crate::mem;
use core::sync::atomic::{AtomicU16, AtomicU64, Ordering::SeqCst};

/// Sub-operations.
#[expect(missing_docs, reason = "names of the public header")]
pub mod op {
    pub const MAP: u64 = 0;
    pub const UNMAP: u64 = 1;
    pub const SETUP_TABLE: u64 = 2;
    pub const DUMP_TABLE: u64 = 3;
    pub const COPY: u64 = 5;
    pub const QUERY_SIZE: u64 = 6;
    pub const UNMAP_AND_REPLACE: u64 = 7;
    pub const SET_VERSION: u64 = 8;
    pub const GET_STATUS_FRAMES: u64 = 9;
    pub const GET_VERSION: u64 = 10;
    pub const SWAP: u64 = 11;
}

/// Statuses.
#[expect(missing_docs, reason = "names of the public header")]
pub mod status {
    pub const OKAY: i16 = 0;
    pub const GENERAL_ERROR: i16 = -1;
    pub const BAD_DOMAIN: i16 = -2;
    pub const BAD_GNTREF: i16 = -3;
    pub const BAD_HANDLE: i16 = -4;
    pub const BAD_VIRT_ADDR: i16 = -5;
    pub const BAD_DEV_ADDR: i16 = -6;
    pub const PERMISSION_DENIED: i16 = -8;
    pub const BAD_PAGE: i16 = -9;
    pub const BAD_COPY_ARG: i16 = -10;
    pub const EAGAIN: i16 = -12;
}

/// Flags of entries.
#[expect(missing_docs, reason = "names of the public header")]
pub mod gtf {
    pub const PERMIT_ACCESS: u64 = 1;
    pub const ACCEPT_TRANSFER: u64 = 2;
    pub const TRANSITIVE: u64 = 3;
    pub const READONLY: u64 = 1 << 2;
    pub const READING: u64 = 1 << 3;
    pub const WRITING: u64 = 1 << 4;
    pub const SUB_PAGE: u64 = 1 << 8;
}

/// Flags of mappings.
#[expect(missing_docs, reason = "names of the public header")]
pub mod map {
    pub const DEVICE: u32 = 1 << 0;
    pub const HOST: u32 = 1 << 1;
    pub const READONLY: u32 = 1 << 2;
    pub const APPLICATION: u32 = 1 << 3;
    pub const CONTAINS_PTE: u32 = 1 << 4;
}

/// The source or the destination of a copy is a grant.
pub const COPY_SOURCE_GREF: u16 = 1;
/// As above.
pub const COPY_DEST_GREF: u16 = 2;

/// `map_grant_ref`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "names of the public header")]
pub struct Map {
    pub host_addr: u64,
    pub flags: u32,
    pub gref: u32,
    pub dom: u16,
    pub status: i16,
    pub handle: u32,
    pub dev_bus_addr: u64,
}

/// `unmap_grant_ref`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "names of the public header")]
pub struct Unmap {
    pub host_addr: u64,
    pub dev_bus_addr: u64,
    pub handle: u32,
    pub status: i16,
    pub pad: u16,
}

/// `unmap_and_replace`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "names of the public header")]
pub struct Replace {
    pub host_addr: u64,
    pub new_addr: u64,
    pub handle: u32,
    pub status: i16,
    pub pad: u16,
}

/// One end of a copy.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct End {
    /// A grant or a frame.
    pub frame: u64,
    /// Whose.
    pub dom: u16,
    /// Where in it.
    pub offset: u16,
    /// Nothing.
    pub pad: u32,
}

/// `copy`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "names of the public header")]
pub struct Copy {
    pub source: End,
    pub dest: End,
    pub len: u16,
    pub flags: u16,
    pub status: i16,
    pub pad: u16,
}

/// `setup_table` and, with other fields, `get_status_frames`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "names of the public header")]
pub struct Setup {
    pub dom: u16,
    pub nr_frames: u32,
    pub status: i16,
    pub list: u64,
}

/// `get_status_frames`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "names of the public header")]
pub struct Status {
    pub nr_frames: u32,
    pub dom: u16,
    pub status: i16,
    pub list: u64,
}

/// `query_size`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "names of the public header")]
pub struct Size {
    pub dom: u16,
    pub nr_frames: u32,
    pub max_nr_frames: u32,
    pub status: i16,
}

/// `swap_grant_ref`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "names of the public header")]
pub struct Swap {
    pub a: u32,
    pub b: u32,
    pub status: i16,
}

const _: () = {
    use core::mem::{offset_of, size_of};
    assert!(size_of::<Map>() == 32 && size_of::<Unmap>() == 24 && size_of::<Copy>() == 40 && size_of::<Swap>() == 12);
    assert!(size_of::<Setup>() == 24 && offset_of!(Setup, list) == 16 && size_of::<Size>() == 16);
    assert!(size_of::<Status>() == 16 && offset_of!(Map, dev_bus_addr) == 24 && offset_of!(Copy, status) == 36);
};

/// Makes a `grant_table_op` call on a list.
pub fn list<T>(op: u64, list: &mut [T]) -> i64 {
    hypercall3(nr::GRANT_TABLE_OP, op, list.as_mut_ptr() as u64, list.len() as u64)
}

/// Makes a `grant_table_op` call on one argument.
pub fn one<T>(op: u64, arg: &mut T) -> i64 {
    list(op, core::slice::from_mut(arg))
}

/// The domain's grant table.
#[derive(Clone, Copy, Debug)]
pub struct Table(u64);

impl Table {
    /// Maps the first frame of the table.
    pub fn map() -> Option<Self> {
        let mut frames = [0u64; 1];
        let mut setup =
            Setup { dom: abi::DOMID_SELF as u16, nr_frames: 1, status: 9, list: frames.as_mut_ptr() as u64 };
        let done = one(op::SETUP_TABLE, &mut setup) == 0 && setup.status == status::OKAY;
        done.then(|| Self(map_frame(frames[0])))
    }

    /// Writes an entry of version 1 that grants a page of the initial mapping to the domain itself.
    pub fn grant(&self, gref: u32, page: u64, flags: u64) {
        self.write(gref, mem::mfn(page) << 32 | flags);
    }

    /// Writes an entry of version 1.
    pub fn write(&self, gref: u32, value: u64) {
        self.word(gref).store(value, SeqCst);
    }

    /// Returns the flags of an entry of version 1.
    pub fn flags(&self, gref: u32) -> u64 {
        self.word(gref).load(SeqCst) & 0xffff
    }

    /// Writes an entry of version 2: flags and domain, the word behind them, the frame.
    pub fn write_v2(&self, gref: u32, flags: u64, second: u32, frame: u64) {
        self.word(2 * gref + 1).store(frame, SeqCst);
        self.word(2 * gref).store(u64::from(second) << 32 | flags, SeqCst);
    }

    fn word(&self, index: u32) -> &AtomicU64 {
        mem::entry(self.0, index as usize)
    }
}

/// The status words of a version 2 table.
#[derive(Clone, Copy, Debug)]
pub struct StatusWords(u64);

impl StatusWords {
    /// Maps the first frame of them.
    pub fn map() -> Option<Self> {
        let mut frames = [0u64; 1];
        let mut args =
            Status { dom: abi::DOMID_SELF as u16, nr_frames: 1, status: 9, list: frames.as_mut_ptr() as u64 };
        let done = one(op::GET_STATUS_FRAMES, &mut args) == 0 && args.status == status::OKAY;
        done.then(|| Self(map_frame(frames[0])))
    }

    /// Returns the word of an entry.
    pub fn get(&self, gref: u32) -> u64 {
        // SAFETY: a page that `map` mapped has 2048 words.
        let word = unsafe { &*((self.0 + 2 * u64::from(gref)) as *const AtomicU16) };
        u64::from(word.load(SeqCst))
    }

    /// Lets go of the page.
    pub fn unmap(self) {
        mem::remap(self.0, 0);
    }
}

/// Maps a frame of the hypervisor's in the place of a page of the pool.
fn map_frame(mfn: u64) -> u64 {
    let at = mem::alloc();
    mem::remap(at, mfn << 12 | pte::KERNEL_RW);
    at
}
