// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the code and the memory operands of an instruction that is emulated lie, and what the guest hears when they are
//! not there.
//!
//! Only FS and GS have a base in 64-bit code; everywhere else the descriptor that a selector names decides, read once
//! from the vCPU's own tables. All functions act on the vCPU that this CPU has loaded.

use core::sync::atomic::Ordering::Relaxed;

use arch::{Regs, context};
use hypercalls::segment::{FLAT_RING3_CS32, FLAT_RING3_CS64, FLAT_RING3_SS32};
use hypercalls::{GuestVa, Mfn};

use crate::emulate::descriptor::{Kind, SegmentDesc};
use crate::emulate::{CodeSize, MAX_INSN, Segment};
use crate::vcpu::Vcpu;
use crate::{bounce, guest, registers};

/// Page-fault error code: the page was present; it was a write; an instruction was fetched.
const PRESENT: u32 = 1;
const WRITE: u32 = 2;
const FETCH: u32 = 16;
/// Page-table entry: present, for ring 3; and writable.
const READABLE: u64 = 1 | 4;
const WRITABLE: u64 = READABLE | 2;
const PAGE: u64 = 4096;

/// What the guest hears instead of an instruction's effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// #GP with error code 0.
    Protection,
    /// #UD.
    Undefined,
    /// #PF.
    Page {
        /// At this address.
        address: u64,
        /// With this error code; its user bit does not count.
        code: u32,
    },
}

impl Fault {
    /// Delivers it to the guest in place of the #GP that it took; false when that #GP says it all.
    pub fn deliver(self, vcpu: &Vcpu, regs: &mut Regs) -> bool {
        match self {
            Self::Protection => return false,
            Self::Undefined => bounce::exception(vcpu, regs, 6, None),
            Self::Page { address, code } => bounce::page_fault(vcpu, regs, address, code),
        }
        true
    }
}

/// What an access to memory is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To read it.
    Read,
    /// To write it.
    Write,
    /// To execute it.
    Fetch,
}

/// The code that a vCPU is about to execute, fetched once.
#[derive(Clone, Copy, Debug)]
pub struct Code {
    bytes: [u8; MAX_INSN],
    len: usize,
    /// How it is read.
    pub size: CodeSize,
    /// What an instruction meets that needs more bytes than there are.
    pub end: Fault,
}

impl Code {
    /// The bytes from RIP on.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }
}

const fn flat(kind: Kind, limit: u64) -> SegmentDesc {
    SegmentDesc { base: 0, limit, kind, readable: true, writable: matches!(kind, Kind::Data) }
}

/// Reads the descriptor that a selector of the guest's names; `None` when the CPU could not have loaded it.
fn descriptor(vcpu: &Vcpu, selector: u16) -> Option<SegmentDesc> {
    match selector {
        FLAT_RING3_CS64 => return Some(flat(Kind::Code(CodeSize::Bits64), u64::MAX)),
        FLAT_RING3_CS32 => return Some(flat(Kind::Code(CodeSize::Bits32), 0xffff_ffff)),
        FLAT_RING3_SS32 => return Some(flat(Kind::Data, 0xffff_ffff)),
        0..=3 => return None,
        _ => {}
    }
    let read = || vcpu.window.descriptor(selector, vcpu.gdt_entries.load(Relaxed), vcpu.ldt_entries.load(Relaxed));
    // The LDT's mappings may have been dropped since the CPU loaded the selector.
    let raw = match read() {
        None if selector & 4 != 0 && registers::map_ldt_page(vcpu, u64::from(selector & !7)) => read()?,
        raw => raw?,
    };
    SegmentDesc::parse(raw)
}

/// Returns how the CPU decodes the code that runs; `None` when its selector names no code.
#[inline]
pub fn code_size(vcpu: &Vcpu, regs: &Regs) -> Option<CodeSize> {
    if regs.cs as u16 == FLAT_RING3_CS64 {
        return Some(CodeSize::Bits64);
    }
    descriptor(vcpu, regs.cs as u16)?.code_size()
}

/// Fetches the code at RIP; `None` when the selector names no code.
pub fn fetch(vcpu: &Vcpu, regs: &Regs) -> Option<Code> {
    if regs.cs as u16 == FLAT_RING3_CS64 {
        // Nearly always: flat, and all there.
        let mut code = Code { bytes: [0; MAX_INSN], len: MAX_INSN, size: CodeSize::Bits64, end: Fault::Protection };
        if guest::fetch_whole(GuestVa(regs.rip), &mut code.bytes) {
            return Some(code);
        }
    }
    fetch_slow(vcpu, regs)
}

#[cold]
fn fetch_slow(vcpu: &Vcpu, regs: &Regs) -> Option<Code> {
    let segment = descriptor(vcpu, regs.cs as u16)?;
    let mut code = Code { bytes: [0; MAX_INSN], len: 0, size: segment.code_size()?, end: Fault::Protection };
    let within = (1..=MAX_INSN as u32).rev().find_map(|n| Some((n as usize, segment.linear(regs.rip, n)?)));
    let Some((within, start)) = within else { return Some(code) };
    code.len = guest::fetch(GuestVa(start), code.bytes.get_mut(..within)?);
    if code.len < within {
        code.end = fault_at(vcpu, GuestVa(start.wrapping_add(code.len as u64)), Access::Fetch);
    }
    Some(code)
}

/// Returns the linear address of an operand of `bytes` bytes at an offset into a segment.
///
/// # Errors
/// When it is not within the segment.
pub fn linear(
    vcpu: &Vcpu,
    regs: &Regs,
    size: CodeSize,
    segment: Segment,
    offset: u64,
    bytes: u32,
) -> Result<GuestVa, Fault> {
    if size == CodeSize::Bits64 {
        let base = match segment {
            Segment::Fs => context::fs_base(),
            Segment::Gs => context::gs_base(),
            Segment::Es | Segment::Cs | Segment::Ss | Segment::Ds => 0,
        };
        return Ok(GuestVa(base.wrapping_add(offset)));
    }
    let [ds, es, fs, gs] = context::current_selectors();
    let selector = match segment {
        Segment::Es => es,
        Segment::Cs => regs.cs as u16,
        Segment::Ss => regs.ss as u16,
        Segment::Ds => ds,
        Segment::Fs => fs,
        Segment::Gs => gs,
    };
    let found = descriptor(vcpu, selector).and_then(|segment| segment.linear(offset, bytes));
    found.map(GuestVa).ok_or(Fault::Protection)
}

/// Returns the root of the address space that is in force.
fn root(vcpu: &Vcpu) -> Mfn {
    let root = if context::kernel_mode() { &vcpu.kernel_root } else { &vcpu.user_root };
    Mfn(root.load(Relaxed))
}

/// The fault that an access meets at an address that is not there for it.
pub fn fault_at(vcpu: &Vcpu, at: GuestVa, access: Access) -> Fault {
    if !at.is_canonical() {
        return Fault::Protection;
    }
    let present = if mm::walk(root(vcpu), at).mapped().is_some() { PRESENT } else { 0 };
    let code = match access {
        Access::Read => present,
        Access::Write => present | WRITE,
        Access::Fetch => present | FETCH,
    };
    Fault::Page { address: at.0, code }
}

/// Finds out, before anything is done, whether the guest may access its memory so.
///
/// # Errors
/// The fault of the first page of which it may not.
pub fn probe(vcpu: &Vcpu, at: GuestVa, bytes: u32, access: Access) -> Result<(), Fault> {
    let needed = if access == Access::Write { WRITABLE } else { READABLE };
    let last = GuestVa(at.0.wrapping_add(u64::from(bytes.saturating_sub(1))));
    let second = GuestVa(last.0 & !(PAGE - 1));
    let pages = [Some(at), (second.0 > at.0).then_some(second)];
    let root = root(vcpu);
    match pages.into_iter().flatten().find(|&page| !mm::walk(root, page).all(needed)) {
        Some(page) => Err(fault_at(vcpu, page, access)),
        None => Ok(()),
    }
}
