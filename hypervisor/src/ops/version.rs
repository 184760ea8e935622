// SPDX-License-Identifier: MIT OR Apache-2.0
//! `xen_version`: what hypervisor this is and which features it has.
//!
//! Guests also call `version` for its side effect: on the way back pending events are delivered. So it must be fast.

use alloc::string::String;

use hypercalls::addr::{HOLE_START, PAGE_SIZE};
use hypercalls::version::*;
use hypercalls::vm_assist::VmAssistType;
use hypercalls::{Errno, GuestPtr, HypercallNr, Result};
use zerocopy::{Immutable, IntoBytes};

use crate::dispatch::{Args, Outcome, SubOp, run_sub, sub};
use crate::guest;
use crate::vcpu::Vcpu;

/// The version of Xen whose interface this is.
pub const MAJOR: u32 = 4;
/// Its second number.
pub const MINOR: u32 = 17;
const VERSION: i64 = (MAJOR << 16 | MINOR) as i64;
/// What stands behind the version's numbers.
pub const EXTRAVERSION: &str = ".xenith";
const CAPABILITIES: &str = "xen-3.0-x86_64 ";
/// The revision that this was built from; the build says it.
pub const COMMIT: &str = match option_env!("XENITH_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};
/// What compiled it.
pub const COMPILER: &str = match option_env!("XENITH_RUSTC") {
    Some(compiler) => compiler,
    None => "rustc",
};
/// What those who may not know are told.
const DENIED: &str = "<denied>";

/// The hypervisor's command line; set once, at boot.
pub static COMMAND_LINE: spin::Once<String> = spin::Once::new();

/// The sub-operations.
pub static OPS: [SubOp; 11] = [
    sub("version", |_, _| Ok(VERSION)),
    sub("extraversion", |_, arg| tell(arg, &text::<EXTRAVERSION_LEN>(EXTRAVERSION))),
    sub("compile_info", |_, arg| tell(arg, &CompileInfo { compiler: text(COMPILER), ..CompileInfo::default() })),
    sub("capabilities", |_, arg| tell(arg, &text::<CAPABILITIES_INFO_LEN>(CAPABILITIES))),
    sub("changeset", |_, arg| tell(arg, &text::<CHANGESET_INFO_LEN>(COMMIT))),
    sub("platform_parameters", |_, arg| tell(arg, &PlatformParameters { virt_start: HOLE_START })),
    sub("get_features", get_features),
    sub("pagesize", |_, arg| if arg == 0 { Ok(PAGE_SIZE as i64) } else { Err(Errno::EINVAL) }),
    // The tools name domains with it; the one that is built at boot has no name.
    sub("guest_handle", |vcpu, arg| {
        let handle = *vcpu.domain().handle.lock();
        tell(arg, &handle)
    }),
    sub("commandline", command_line),
    sub("build_id", build_id),
];

/// Hypercall 17.
#[inline]
pub fn xen_version(vcpu: &Vcpu, args: &Args) -> Outcome {
    // A C `int` in the interface.
    let cmd = args[0] & 0xffff_ffff;
    if cmd == 0 {
        return Outcome::Done(VERSION);
    }
    run_sub(vcpu, HypercallNr::XEN_VERSION, &OPS, cmd, args[1]).into()
}

fn tell<T: IntoBytes + Immutable>(arg: u64, value: &T) -> Result<i64> {
    guest::write(GuestPtr::new(arg), value)?;
    Ok(0)
}

/// Returns text as the interface has it: in a field of fixed size, ended by a zero, cut where it does not fit.
fn text<const N: usize>(from: &str) -> [u8; N] {
    let mut to = [0; N];
    for (to, from) in to.iter_mut().take(N - 1).zip(from.bytes()) {
        *to = from;
    }
    to
}

fn get_features(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    let ptr = GuestPtr::<FeatureInfo>::new(arg);
    let mut info = guest::read(ptr)?;
    if info.submap_idx >= XENFEAT_NR_SUBMAPS {
        return Err(Errno::EINVAL);
    }
    let domain = vcpu.domain();
    info.submap = features(domain.privileged, domain.assists(VmAssistType::PAE_EXTENDED_CR3));
    guest::write(ptr, &info)?;
    Ok(0)
}

/// What every PV guest has, and what depends.
fn features(is_dom0: bool, extended_cr3: bool) -> u32 {
    let mut set = Feature::MMU_PT_UPDATE_PRESERVE_AD.mask()
        | Feature::HIGHMEM_ASSIST.mask()
        | Feature::GNTTAB_MAP_AVAIL_BITS.mask()
        | Feature::MEMORY_OP_VNODE_SUPPORTED.mask()
        | Feature::DIRECT_MAPPED.mask();
    if is_dom0 {
        set |= Feature::DOM0.mask();
    }
    if extended_cr3 {
        set |= Feature::PAE_PGDIR_ABOVE_4GB.mask();
    }
    set
}

fn command_line(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    if !vcpu.domain().privileged {
        guest::write(GuestPtr::new(arg), &text::<{ DENIED.len() + 1 }>(DENIED))?;
        return Ok(0);
    }
    let line = COMMAND_LINE.get().map_or("", String::as_str);
    tell(arg, &text::<COMMANDLINE_LEN>(line))
}

fn build_id(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    if !vcpu.domain().privileged {
        return Err(Errno::EPERM);
    }
    let ptr = GuestPtr::<BuildId>::new(arg);
    if !ptr.is_null() && guest::read(ptr)?.len == 0 {
        return Err(Errno::EINVAL);
    }
    Err(Errno::ENODATA)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_end_in_a_zero() {
        assert_eq!(text::<4>("ab"), *b"ab\0\0");
        assert_eq!(text::<4>("abcdef"), *b"abc\0");
        assert_eq!(text::<1>("a"), [0]);
        assert!(EXTRAVERSION.len() < EXTRAVERSION_LEN);
    }

    #[test]
    fn feature_bits() {
        assert_eq!(features(false, false), 1 << 5 | 1 << 6 | 1 << 7 | 1 << 13 | 1 << 17);
        assert_eq!(features(true, true), features(false, false) | 1 << 11 | 1 << 4);
    }
}
