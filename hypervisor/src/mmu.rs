// SPDX-License-Identifier: MIT OR Apache-2.0
//! Between hypercalls and `mm`: whose tables, whose frames, which CPUs to flush, and writes to page tables by instruction.

use alloc::sync::Arc;
use core::sync::atomic::Ordering::Relaxed;

use arch::{CpuId, CpuMask, Flush, Regs, context, tlb};
use hypercalls::segment::FLAT_RING3_CS64;
use hypercalls::{DomId, Errno, GuestPtr, GuestVa, Maddr, Mfn, Result, VcpuId};
use mm::{PageType, Write};

use crate::domain::{self, Domain};
use crate::emulate::{CodeSize, MAX_INSN, Segment, ptwr};
use crate::io_rights::IoRights;
use crate::pci::guard;
use crate::vcpu::Vcpu;
use crate::{guest, lingering, operand};

const PRESENT: u64 = 1;
const WRITABLE: u64 = 2;

/// Whose frames a page-table update may map.
#[derive(Debug)]
pub enum Frames {
    /// The caller's own.
    Own,
    /// Another domain's, which the caller controls.
    Other(Arc<Domain>),
    /// Nobody's: what is not RAM.
    Io,
    /// The hypervisor's, as far as it shares them.
    Hypervisor,
}

impl Frames {
    /// The owner by which `mm` knows them.
    #[inline]
    pub fn owner(&self, caller: &Vcpu) -> DomId {
        match self {
            Self::Own => caller.domid,
            Self::Other(domain) => domain.id,
            Self::Io => DomId::IO,
            Self::Hypervisor => DomId::XEN,
        }
    }

    /// The domain whose rights to devices count beside those of the tables' owner.
    #[inline]
    pub fn rights<'a>(&'a self, caller: &'a Vcpu) -> &'a IoRights {
        match self {
            Self::Other(domain) => &domain.io,
            _ => &caller.domain().io,
        }
    }
}

/// Resolves the owner of frames that the caller wants to map. Its own number is no name for itself here.
///
/// # Errors
/// `ESRCH` when there is no such domain, `EPERM` when the caller may not map its frames.
#[inline]
pub fn frames_of(vcpu: &Vcpu, id: DomId) -> Result<Frames> {
    if id == DomId::SELF { Ok(Frames::Own) } else { foreign_frames_of(vcpu, id) }
}

#[cold]
fn foreign_frames_of(vcpu: &Vcpu, id: DomId) -> Result<Frames> {
    let frames = match id {
        DomId::IO => Frames::Io,
        DomId::XEN => Frames::Hypervisor,
        _ if id == vcpu.domid => return Err(Errno::ESRCH),
        _ => Frames::Other(domain::find(id).ok_or(Errno::ESRCH)?),
    };
    let caller = vcpu.domain();
    let may = caller.privileged || id == DomId::IO && caller.io.any_memory();
    if may { Ok(frames) } else { Err(Errno::EPERM) }
}

/// Returns another domain that the caller controls, or `None` when it names itself.
///
/// # Errors
/// `ESRCH` when there is no such domain, `EPERM` when the caller does not control it.
pub fn other_domain(vcpu: &Vcpu, id: DomId) -> Result<Option<Arc<Domain>>> {
    if id == DomId::SELF || id == vcpu.domid {
        return Ok(None);
    }
    let other = domain::find(id).ok_or(Errno::ESRCH)?;
    if vcpu.domain().privileged { Ok(Some(other)) } else { Err(Errno::EPERM) }
}

/// Checks that the domain exists that a call names, whoever may do what with it.
///
/// # Errors
/// `ESRCH` when there is no such domain.
pub fn existing(vcpu: &Vcpu, id: DomId) -> Result<()> {
    let exists = id == DomId::SELF || id == vcpu.domid || domain::with(id, |_| ()).is_some();
    if exists { Ok(()) } else { Err(Errno::ESRCH) }
}

/// Returns the CPUs on which the vCPUs of a guest's bitmap run now. Those that do not run flush before they do again.
///
/// # Errors
/// `EINVAL` when the bitmap cannot be read.
pub fn cpus_of(domain: &Domain, bitmap: GuestPtr<u64>) -> Result<CpuMask> {
    let mut cpus = CpuMask::EMPTY;
    for (index, chunk) in (0u64..).zip(domain.vcpus.chunks(64)) {
        let word = guest::read_at(bitmap, index).map_err(|_| Errno::EINVAL)?;
        for vcpu in chunk.iter().filter(|v| word >> (v.id.0 % 64) & 1 != 0) {
            if !lingering::flush_if_waiting(vcpu) {
                cpus.insert(CpuId(vcpu.status.cpu.load(Relaxed)));
            }
        }
    }
    Ok(cpus)
}

/// Flushes on every CPU that may have translations of the domain.
pub fn flush_all_of(domain: &Domain, what: Flush) {
    tlb::flush(&domain.account.dirty.load(), what);
}

/// Makes `mfn` the kernel root of the current vCPU, with a full flush.
///
/// # Errors
/// `EINVAL` when it is no root table, `ERESTART` to be called again.
pub fn set_kernel_root(vcpu: &Vcpu, tables: &mut mm::PageTables, mfn: Mfn) -> Result<()> {
    if vcpu.kernel_mfn() == mfn {
        context::set_kernel_root(mfn.maddr());
        return Ok(());
    }
    let ctx = vcpu.domain().tables_ctx();
    let new = tables.get_root(&ctx, mfn, mm::pt::RootUse::Kernel)?;
    crate::registers::drop_ldt(vcpu);
    vcpu.kernel_root.store(mfn.0, Relaxed);
    context::set_kernel_root(mfn.maddr());
    let old = vcpu.roots.lock().kernel.replace(new);
    if let Some(old) = old {
        tables.put_root(&ctx, old);
    }
    Ok(())
}

/// Makes `mfn` (0: none) the user root of the current vCPU.
///
/// # Errors
/// As [`set_kernel_root`].
pub fn set_user_root(vcpu: &Vcpu, tables: &mut mm::PageTables, mfn: Mfn) -> Result<()> {
    if vcpu.user_root.load(Relaxed) == mfn.0 {
        return Ok(());
    }
    let ctx = vcpu.domain().tables_ctx();
    let new = if mfn.0 == 0 { None } else { Some(tables.get_root(&ctx, mfn, mm::pt::RootUse::User)?) };
    let (stored, maddr) = if new.is_some() { (mfn, mfn.maddr()) } else { (Mfn::INVALID, Maddr(0)) };
    vcpu.user_root.store(stored.0, Relaxed);
    context::set_user_root(maddr);
    let old = core::mem::replace(&mut vcpu.roots.lock().user, new);
    if let Some(old) = old {
        tables.put_root(&ctx, old);
    }
    Ok(())
}

/// Calls `line` with each level of the walk of `va`, for the log.
pub fn describe_walk(vcpu: &Vcpu, va: GuestVa, mut line: impl FnMut(u8, Mfn, u64)) {
    let walk = mm::walk(vcpu.kernel_mfn(), va);
    let mut table = vcpu.kernel_mfn();
    for level in (1..=4u8).rev() {
        let entry = walk.entries[usize::from(level) - 1];
        line(level, table, entry);
        if entry & PRESENT == 0 {
            return;
        }
        table = Maddr(entry & 0x000f_ffff_ffff_f000).mfn();
    }
}

/// Carries out a write by instruction to a page table of the guest's, if that is what faulted at `address`.
/// The registers are advanced only when all has been done.
#[inline]
pub fn emulate_table_write(vcpu: &Vcpu, regs: &mut Regs, address: u64) -> bool {
    let va = GuestVa(address);
    let l1 = mm::leaf(vcpu.kernel_mfn(), va);
    if l1 & (PRESENT | WRITABLE) != PRESENT {
        return false;
    }
    let target = mm::flags::mfn_of(l1);
    let is_table = mm::frame::get(target).is_some_and(|f| f.owner() == vcpu.domid && f.is_valid(PageType::L1));
    if !is_table {
        return guard::is_read_only(target) && emulate_device_write(vcpu, regs, va, target);
    }
    let at = Maddr(target.maddr().0 | address & 0xff8);
    match plain_write(regs, address) {
        Some(write) => carry_out_plain(vcpu, regs, at, &write),
        None => carry_out_any(vcpu, regs, va, at),
    }
}

/// Reads the write that faulted if it is of the kind that nearly all are.
#[inline(always)]
fn plain_write(regs: &Regs, address: u64) -> Option<ptwr::Plain> {
    if regs.cs as u16 != FLAT_RING3_CS64 {
        return None;
    }
    let code = arch::guest::read_u64(GuestVa(regs.rip)).ok()?;
    ptwr::Plain::decode(code, regs).filter(|write| write.addr == address && address & 7 == 0)
}

#[inline(always)]
fn carry_out_plain(vcpu: &Vcpu, regs: &mut Regs, at: Maddr, write: &ptwr::Plain) -> bool {
    let domain = vcpu.domain();
    let ctx = domain.tables_ctx();
    let mut tables = domain.page_tables.lock();
    let result = if write.exchanges {
        tables.swap_l1(&ctx, at, write.value).map(|old| write.register.set(regs, old))
    } else {
        tables.mod_l1(&ctx, at, write.value, Write::Plain)
    };
    if result.is_ok() {
        write.commit(regs);
    }
    result.is_ok()
}

#[inline(never)]
fn carry_out_any(vcpu: &Vcpu, regs: &mut Regs, va: GuestVa, at: Maddr) -> bool {
    let Some(write) = decode_write(vcpu, regs, va) else { return false };
    let domain = vcpu.domain();
    let ctx = domain.tables_ctx();
    let mut tables = domain.page_tables.lock();
    loop {
        let Ok(old) = tables.read_l1(&ctx, at) else { return false };
        let Some(outcome) = write.apply(old, regs) else { return false };
        let done = match outcome.entry {
            None => true,
            Some(new) if write.is_plain_store() => tables.mod_l1(&ctx, at, new, Write::Plain).is_ok(),
            Some(new) => match tables.cmpxchg_l1(&ctx, at, old, new) {
                Ok(seen) if seen == old => true,
                Ok(_) => continue,
                Err(_) => return false,
            },
        };
        if done {
            outcome.commit(regs);
        }
        return done;
    }
}

/// Decodes the write that faulted, and reads the source of a copy.
fn decode_write(vcpu: &Vcpu, regs: &Regs, va: GuestVa) -> Option<ptwr::Write> {
    if operand::code_size(vcpu, regs) != Some(CodeSize::Bits64) {
        return None;
    }
    let mut code = [0; MAX_INSN];
    let whole = guest::fetch_whole(GuestVa(regs.rip), &mut code);
    let len = if whole { code.len() } else { guest::fetch(GuestVa(regs.rip), &mut code) };
    let bytes = code.get(..len).unwrap_or(&[]);
    let base = |segment| if segment == Segment::Fs { context::fs_base() } else { context::gs_base() };
    let write = ptwr::decode(bytes, regs, base).ok()?;
    if write.addr & !7 != va.0 & !7 {
        return None;
    }
    let Some(source) = write.load() else { return Some(write) };
    let mut value = [0; 8];
    let wanted = value.get_mut(..write.width.bytes() as usize).unwrap_or(&mut []);
    arch::guest::copy_from(wanted, GuestVa(source)).ok()?;
    Some(write.loaded(u64::from_le_bytes(value)))
}

/// Carries out a write by instruction to device registers that are mapped read-only: a plain store of at most 4 bytes.
#[cold]
fn emulate_device_write(vcpu: &Vcpu, regs: &mut Regs, va: GuestVa, target: Mfn) -> bool {
    if !vcpu.domain().privileged {
        return false;
    }
    let Some(write) = decode_write(vcpu, regs, va).filter(|w| w.width.bytes() <= 4 && w.is_store()) else {
        return false;
    };
    let Some(outcome) = write.apply(0, regs) else { return false };
    let value = outcome.entry.unwrap_or(0) >> ((write.addr & 7) * 8);
    let done = guard::write(target.maddr().0 | write.addr & 0xfff, write.width, value as u32);
    if done {
        outcome.commit(regs);
    }
    done
}

/// Returns a vCPU of the caller's domain.
///
/// # Errors
/// `ENOENT` when there is none of that number.
pub fn vcpu_of(domain: &Domain, id: u64) -> Result<&Vcpu> {
    u32::try_from(id).ok().and_then(|n| domain.vcpu(VcpuId(n))).ok_or(Errno::ENOENT)
}
