// SPDX-License-Identifier: MIT OR Apache-2.0
//! A tiny guest: its frames, what each is for, and the address space in which its kernel runs.
//!
//! All frames are mapped at [`va`], the tables read-only. The kernel of each vCPU has two pages for arguments and one for its
//! stack; the other frames are for the player to do with as it likes.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use arch::Regs;
use hypercalls::segment::{FLAT_RING3_CS64, FLAT_RING3_SS64};
use hypercalls::{DomId, Errno, GuestVa, Mfn, PAGE_SIZE, Pfn, VcpuId};
use mm::flags::{GUEST_KERNEL, P, RW, US, entry_for};
use mm::hosted::poke;
use mm::pt::RootUse;
use mm::{buddy, m2p};

use crate::create::{self, Config};
use crate::domain::Domain;
use crate::{schedule, time};

/// Frames of each guest.
pub const FRAMES: usize = 64;
/// Where PFN 0 is mapped.
pub const BASE: u64 = 0xffff_8880_0000_0000;
/// The L4 index of [`BASE`].
pub const SLOT: usize = (BASE >> 39 & 511) as usize;
/// vCPUs of each guest.
pub const VCPUS: u32 = 2;

/// The tables, level 4 to 1, and a second L4 for user mode.
pub const TABLES: [usize; 5] = [0, 1, 2, 3, 4];
/// Where a frame may register its `vcpu_info` and other areas.
pub const INFO: usize = 11;
/// Runstate and time areas.
pub const AREAS: usize = 12;
/// Descriptors.
pub const DESCRIPTORS: [usize; 2] = [13, 14];
/// Instructions to be emulated.
pub const CODE: usize = 15;
/// The address at which the kernel's SYSCALL instruction is.
pub const CALL: u64 = BASE + 0xf80;
/// The handlers of everything: nobody executes what is there.
pub const HANDLER: u64 = BASE + 0xf000;
/// First frame, by level, of those that the player makes tables of; data is at level 0.
pub const POOL: [core::ops::Range<usize>; 5] = [38..FRAMES, 16..24, 24..29, 29..33, 33..38];

/// Returns where a frame is mapped.
pub const fn va(pfn: usize) -> u64 {
    BASE + pfn as u64 * PAGE_SIZE as u64
}

/// Returns the first of the two frames in which a vCPU's kernel puts arguments.
pub const fn args_of(vcpu: VcpuId) -> usize {
    5 + 2 * (vcpu.0 as usize & 1)
}

/// Returns the initial stack pointer of a vCPU's kernel.
pub const fn stack_of(vcpu: VcpuId) -> u64 {
    va(10 + (vcpu.0 as usize & 1)) - 64
}

/// A domain and what its kernel knows.
#[derive(Debug)]
pub struct Guest {
    /// The domain.
    pub domain: Arc<Domain>,
    /// Its frames by PFN, `Mfn::INVALID` where it has none.
    pub p2m: Vec<Mfn>,
}

impl Guest {
    /// Builds a domain whose first vCPU is ready to run.
    ///
    /// # Errors
    /// What creating a domain or validating its tables says.
    pub fn build(config: Config) -> Result<Self, Errno> {
        let guest = Self::furnish(create::domain(config)?)?;
        guest.start()?;
        Ok(guest)
    }

    /// Gives a domain its memory and the tables in it, which nothing has validated yet.
    ///
    /// # Errors
    /// What giving it memory says.
    pub fn furnish(domain: Arc<Domain>) -> Result<Self, Errno> {
        let mut p2m = Vec::new();
        for pfn in 0..FRAMES {
            let mfn = domain.account.populate(0, buddy::ANYWHERE)?;
            m2p::set(mfn, Pfn(pfn as u64));
            p2m.push(mfn);
        }
        let guest = Self { domain, p2m };
        guest.write_tables();
        Ok(guest)
    }

    /// Takes a domain that has no memory.
    pub fn furnish_nothing(domain: Arc<Domain>) -> Self {
        Self { domain, p2m: Vec::new() }
    }

    fn write_tables(&self) {
        let [l4, l3, l2, l1, _] = TABLES.map(|pfn| self.p2m[pfn]);
        for (table, index, next) in [(l4, SLOT, l3), (l3, 0, l2), (l2, 0, l1)] {
            poke(table, index, entry_for(next, P | RW | US));
        }
        for (pfn, mfn) in self.p2m.iter().enumerate() {
            let writable = if TABLES.contains(&pfn) { 0 } else { RW };
            poke(l1, pfn, entry_for(*mfn, P | US | GUEST_KERNEL | writable));
        }
    }

    fn start(&self) -> Result<(), Errno> {
        let vcpu = self.domain.vcpu(VcpuId(0)).ok_or(Errno::ENOENT)?;
        let ctx = self.domain.tables_ctx();
        let mut tables = self.domain.page_tables.lock();
        tables.pin(&ctx, self.p2m[0], 4)?;
        let root = tables.get_root(&ctx, self.p2m[0], RootUse::Kernel)?;
        drop(tables);
        vcpu.kernel_root.store(root.mfn().0, Relaxed);
        vcpu.roots.lock().kernel = Some(root);
        vcpu.kernel_sp.store(stack_of(vcpu.id), Relaxed);
        {
            let mut saved = vcpu.context.lock();
            saved.regs = Regs {
                rip: HANDLER,
                rsp: stack_of(vcpu.id),
                cs: u64::from(FLAT_RING3_CS64),
                ss: u64::from(FLAT_RING3_SS64),
                rflags: 0x202,
                ..Regs::default()
            };
            saved.kernel_mode = true;
        }
        time::update(vcpu);
        vcpu.status.initialised.store(true, SeqCst);
        vcpu.status.down.store(false, SeqCst);
        schedule::wake(vcpu);
        Ok(())
    }

    /// Returns its number.
    pub fn id(&self) -> DomId {
        self.domain.id
    }

    /// Brings the list of frames up to date with what the domain owns now: what is gone leaves a hole, what is new fills one.
    pub fn take_stock(&mut self) {
        let mut new = Vec::new();
        self.domain.account.for_each(|mfn| {
            let lives = mm::page_info(mfn).is_some_and(|s| s.allocated);
            if lives && !self.p2m.contains(&mfn) {
                new.push(mfn);
            }
        });
        let (id, mut new) = (self.id(), new.into_iter());
        for mfn in &mut self.p2m {
            let lives = mm::page_info(*mfn).is_some_and(|s| s.allocated && s.owner == id);
            if !lives {
                *mfn = new.next().unwrap_or(Mfn::INVALID);
            }
        }
    }
}

/// Writes bytes as the kernel that runs on this CPU; false when its memory is not mapped so.
pub fn write(at: u64, bytes: &[u8]) -> bool {
    arch::guest::copy_to(GuestVa(at), bytes).is_ok()
}

/// Reads a word as the kernel that runs on this CPU, 0 where nothing is mapped.
pub fn read(at: u64) -> u64 {
    arch::guest::read_u64(GuestVa(at)).unwrap_or(0)
}
