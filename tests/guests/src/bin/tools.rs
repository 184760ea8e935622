// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks what of `memory_op` and of foreign mappings the tools in dom0 use that can be asked by a domain alone: the M2P's
//! frames, claims, memory maps, and what is answered where a domain names itself or nobody.
#![no_std]
#![no_main]

use core::sync::atomic::Ordering::SeqCst;
use pv::abi::{self, MmuUpdate, nr, pte};
use pv::hypercall::*;
use pv::{check, equal, errno, mem};

pv::guest!(main);

/// Nobody has so many domains.
const NOBODY: u64 = 77;
/// What `mem_flags` and the other fields of a reservation's second half are when only the domain counts.
const NOTHING: u64 = 0;

mod op {
    pub const CURRENT_RESERVATION: u64 = 3;
    pub const MACHPHYS_MFN_LIST: u64 = 5;
    pub const ADD_TO_PHYSMAP: u64 = 7;
    pub const MEMORY_MAP: u64 = 9;
    pub const SET_MEMORY_MAP: u64 = 13;
    pub const REMOVE_FROM_PHYSMAP: u64 = 15;
    pub const CLAIM_PAGES: u64 = 24;
    pub const GET_VNUMAINFO: u64 = 26;
    pub const ACQUIRE_RESOURCE: u64 = 28;
}

fn main() {
    m2p_frames();
    claims();
    memory_maps();
    resources();
    refused();
    special_frames();
}

fn memory_op<T>(op: u64, argument: &mut T) -> i64 {
    hypercall2(nr::MEMORY_OP, op, core::ptr::from_mut(argument) as u64)
}

/// Maps a frame of `owner`'s where `page` is; the result is the call's.
fn map(page: u64, mfn: u64, flags: u64, owner: u64) -> i64 {
    let request = MmuUpdate { ptr: mem::l1_entry(page).maddr, val: mfn << 12 | flags };
    let result = hypercall4(nr::MMU_UPDATE, &raw const request as u64, 1, 0, owner);
    mmuext_op(abi::mmuext::INVLPG_LOCAL, page, 0);
    result
}

/// The first frames of the M2P: where they are, who may map them and how, and that they are what they say.
fn m2p_frames() {
    let mut list = [0u64; 4];
    let mut args = [4u64, list.as_mut_ptr() as u64, 0];
    errno!("m2p-frames", memory_op(op::MACHPHYS_MFN_LIST, &mut args), 0);
    check!("m2p-frames-some", (1..=4).contains(&args[2]) && list[0] != 0, "{args:x?} {list:x?}");
    let page = mem::alloc();
    errno!("m2p-map-own", map(page, list[0], pte::KERNEL_RO, abi::DOMID_SELF), EBUSY);
    errno!("m2p-map-writable", map(page, list[0], pte::KERNEL_RW, abi::DOMID_XEN), EBUSY);
    errno!("m2p-map", map(page, list[0] + 1, pte::KERNEL_RO, abi::DOMID_XEN), 0);
    let wrong = (0..512).filter(|&n| mem::entry(page, n).load(SeqCst) != mem::m2p(512 + n as u64)).count();
    equal!("m2p-map-content", wrong, 0);
    errno!("m2p-map-last-of-piece", map(page, list[0] + 511, pte::KERNEL_RO, abi::DOMID_XEN), 0);
    errno!("m2p-map-own-frame", map(page, mem::mfn(page), pte::KERNEL_RW, abi::DOMID_XEN), EBUSY);
    mem::make_rw(page);
    args = [0, 0, 9];
    errno!("m2p-frames-none", memory_op(op::MACHPHYS_MFN_LIST, &mut args), 0);
    equal!("m2p-frames-none-told", args[2], 0);
    args = [1, pv::user::NOWHERE, 0];
    errno!("m2p-frames-nowhere", memory_op(op::MACHPHYS_MFN_LIST, &mut args), EFAULT);
}

fn owned() -> u64 {
    memory_op(op::CURRENT_RESERVATION, &mut abi::DOMID_SELF.clone()).cast_unsigned()
}

fn claims() {
    let claim = |pages: u64, domid: u64| memory_op(op::CLAIM_PAGES, &mut [0, pages, NOTHING, domid]);
    let owned = owned();
    errno!("claim-what-is-there", claim(owned, 0), EINVAL);
    errno!("claim", claim(owned + 8, 0), 0);
    errno!("claim-twice", claim(owned + 8, 0), EINVAL);
    errno!("claim-cancel", claim(0, 0), 0);
    errno!("claim-cancel-twice", claim(0, 0), 0);
    errno!("claim-too-much", claim(owned + (1 << 30), 0), ENOMEM);
    errno!("claim-for-nobody", claim(owned + 8, NOBODY), EINVAL);
    errno!("claim-for-self", claim(owned + 8, abi::DOMID_SELF), EINVAL);
    let odd = |word: usize, value: u64| {
        let mut args = [0, owned + 8, NOTHING, 0];
        args[word] = value;
        memory_op(op::CLAIM_PAGES, &mut args)
    };
    errno!("claim-with-list", odd(0, 0x1000), EINVAL);
    errno!("claim-with-order", odd(2, 1), EINVAL);
    errno!("claim-with-flags", odd(2, 1 << 32), EINVAL);
}

fn memory_maps() {
    let mut buffer = [0u8; 64];
    let at = buffer.as_mut_ptr() as u64;
    errno!("map-none", memory_op(op::MEMORY_MAP, &mut [3, at]), ENOSYS);
    let entry: [u32; 5] = [0, 0, 0x40_0000, 0, 1];
    let mut set = [abi::DOMID_SELF, 1, entry.as_ptr() as u64];
    errno!("map-set", memory_op(op::SET_MEMORY_MAP, &mut set), 0);
    let mut args = [3, at];
    errno!("map-get", memory_op(op::MEMORY_MAP, &mut args), 0);
    let told: [u32; 5] = core::array::from_fn(|n| u32::from_le_bytes([0, 1, 2, 3].map(|byte| buffer[4 * n + byte])));
    check!("map-got", told == entry && args[0] as u32 == 1, "{told:x?} {args:x?}");
    set = [NOBODY, 1, entry.as_ptr() as u64];
    errno!("map-set-nobody", memory_op(op::SET_MEMORY_MAP, &mut set), ESRCH);
    set = [NOBODY, 1025, entry.as_ptr() as u64];
    errno!("map-set-too-long", memory_op(op::SET_MEMORY_MAP, &mut set), EINVAL);
    set = [abi::DOMID_SELF, 1, pv::user::NOWHERE];
    errno!("map-set-nowhere", memory_op(op::SET_MEMORY_MAP, &mut set), EFAULT);
    set = [abi::DOMID_SELF, 0, 0];
    errno!("map-unset", memory_op(op::SET_MEMORY_MAP, &mut set), 0);
    errno!("map-none-again", memory_op(op::MEMORY_MAP, &mut [3, at]), ENOSYS);
}

/// A domain cannot name itself here.
fn resources() {
    let mut frames = [0u64; 2];
    let list = frames.as_mut_ptr() as u64;
    // Domain and type, count and padding, first frame, list.
    let acquire = |domid: u64, count: u64, frame: u64| {
        memory_op(op::ACQUIRE_RESOURCE, &mut [domid | 1 << 16, count, frame, list])
    };
    errno!("acquire-own", acquire(0, 1, 0), EPERM);
    errno!("acquire-self", acquire(abi::DOMID_SELF, 1, 0), ESRCH);
    errno!("acquire-nobodys", acquire(NOBODY, 1, 0), ESRCH);
    errno!("acquire-padding", acquire(NOBODY, 1 << 32 | 1, 0), EINVAL);
    errno!("acquire-beyond", acquire(NOBODY, 1, 1 << 32), EINVAL);
    errno!("acquire-over-end", acquire(NOBODY, 1, u64::from(u32::MAX)), EINVAL);
}

/// What only translated guests have.
fn refused() {
    let add = |domid: u64, space: u64| memory_op(op::ADD_TO_PHYSMAP, &mut [domid | space << 32, 0, 0]);
    errno!("physmap-foreign", add(abi::DOMID_SELF, 4), ENOSYS);
    errno!("physmap-nobody", add(NOBODY, 0), ESRCH);
    errno!("physmap-add", add(abi::DOMID_SELF, 0), EACCES);
    errno!("physmap-remove", memory_op(op::REMOVE_FROM_PHYSMAP, &mut [abi::DOMID_SELF, 0]), EACCES);
    errno!("physmap-remove-nobody", memory_op(op::REMOVE_FROM_PHYSMAP, &mut [NOBODY, 0]), ESRCH);
    let nodes = |domid: u64| memory_op(op::GET_VNUMAINFO, &mut [domid, 0, 0, 0, 0]);
    errno!("nodes", nodes(abi::DOMID_SELF), EOPNOTSUPP);
    errno!("nodes-nobody", nodes(NOBODY), ESRCH);
    errno!("nodes-padding", nodes(abi::DOMID_SELF | 1 << 16), EINVAL);
}

/// Frames that are not the guest's to have, by other names.
fn special_frames() {
    let page = mem::alloc();
    let own = mem::mfn(page);
    for (name, owner) in [("io", abi::DOMID_IO), ("xen", abi::DOMID_XEN)] {
        errno!(["no-frame-as-{name}"], map(page, own, 0, owner), 0);
        errno!(["own-frame-as-{name}"], map(page, own, pte::KERNEL_RO, owner), EBUSY);
    }
    mem::make_rw(page);
    for kind in 4..8 {
        let request = MmuUpdate { ptr: mem::l1_entry(page).maddr | kind, val: 0 };
        let result = hypercall4(nr::MMU_UPDATE, &raw const request as u64, 1, 0, abi::DOMID_SELF);
        errno!(["update-kind-{kind}"], result, ENOSYS);
    }
}
