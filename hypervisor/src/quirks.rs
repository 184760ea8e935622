// SPDX-License-Identifier: MIT OR Apache-2.0
//! Machines that do not behave like a CPU: recognised, worked around, and named once on the log.
//!
//! Both are defects of QEMU's software emulation before version 8, and neither can be mistaken for what a correct CPU does.

use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use arch::{Regs, entry};
use hypercalls::GuestVa;

use crate::emulate::{self, CodeSize, Insn, Width};
use crate::operand;
use crate::vcpu::Vcpu;

fn once(flag: &AtomicBool, what: &str) {
    if !flag.swap(true, Relaxed) {
        log::warn!("{what}; worked around");
    }
}

/// Returns the vector of the INT n instruction that a #GP was taken for.
///
/// The error code should be vector * 8 + 2 (SDM volume 3, 6.13). Some versions of QEMU give vector * 16 + 2, so the
/// instruction itself decides.
pub fn int_vector(vcpu: &Vcpu, regs: &Regs) -> Option<u8> {
    static SEEN: AtomicBool = AtomicBool::new(false);
    let code = operand::fetch(vcpu, regs)?;
    let &[0xcd, vector, ..] = code.bytes() else { return None };
    let told = regs.error_code >> 3;
    if told == u32::from(vector) {
        return Some(vector);
    }
    if regs.error_code == u32::from(vector) * 16 + 2 {
        once(&SEEN, "this machine reports INT n with a wrong error code (QEMU before 8)");
        return Some(vector);
    }
    None
}

/// Carries out an IRET of ring 3 that faulted on its own stack as if ring 0 had touched it.
///
/// With SMAP on, some versions of QEMU read the frame with supervisor rights and fault with the error code's user bit clear,
/// which a CPU never gives for an access by ring 3 code. An IRET to the same ring does nothing that needs privilege.
pub fn user_iret(vcpu: &Vcpu, regs: &mut Regs, address: u64) -> bool {
    static SEEN: AtomicBool = AtomicBool::new(false);
    const PRESENT_SUPERVISOR_READ: u32 = 1;
    if regs.error_code != PRESENT_SUPERVISOR_READ || !arch::features::get().smap {
        return false;
    }
    let Some(width) = decode_iret(vcpu, regs) else { return false };
    let size = u64::from(width.bytes());
    if address.wrapping_sub(regs.rsp) >= size * 5 {
        return false;
    }
    let mut words = [0u64; 5];
    for (index, word) in (0u64..).zip(words.iter_mut()) {
        let mut bytes = [0; 8];
        let part = bytes.get_mut(..size as usize).unwrap_or(&mut []);
        if arch::guest::copy_from(part, GuestVa(regs.rsp.wrapping_add(index * size))).is_err() {
            return false;
        }
        *word = u64::from_le_bytes(bytes);
    }
    let [rip, cs, rflags, rsp, ss] = words;
    if cs & 3 != 3 || ss & 3 != 3 {
        return false;
    }
    once(&SEEN, "this machine faults on IRET in ring 3 under SMAP (QEMU before 8)");
    // IOPL, VM, VIF, VIP and IF are not ring 3's to change.
    const KEPT: u64 = 3 << 12 | 1 << 17 | 1 << 19 | 1 << 20 | 1 << 9;
    regs.rip = rip;
    regs.cs = cs & 0xffff;
    regs.rflags = regs.rflags & KEPT | rflags & 0x0025_4dd5 & !KEPT | 2;
    regs.rsp = rsp;
    regs.ss = ss & 0xffff;
    entry::want_iret(regs);
    true
}

/// Returns how wide the words of the frame are, if an IRET of 64-bit code is what runs.
fn decode_iret(vcpu: &Vcpu, regs: &Regs) -> Option<Width> {
    let code = operand::fetch(vcpu, regs).filter(|code| code.size == CodeSize::Bits64)?;
    match emulate::decode(code.bytes(), code.size).ok()?.insn {
        Insn::Iret(width @ (Width::Dword | Width::Qword)) => Some(width),
        _ => None,
    }
}
