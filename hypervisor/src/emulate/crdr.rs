// SPDX-License-Identifier: MIT OR Apache-2.0
//! Control registers, debug registers and XCR0 as a PV guest has them.
//!
//! A guest's value reaches a real register only after every bit of it was checked here, so that loading it cannot
//! fault and cannot reach the hypervisor.

#[cfg(test)]
mod tests;

use super::cpuid::Policy;
use super::cpuid::features::{Leaf1Ecx, Leaf1Edx, Leaf7Ebx};
use super::decode::Cr;
use hypercalls::addr::HOLE_END;
use hypercalls::{Errno, Mfn, Result};

const CR0_TS: u64 = 1 << 3;
/// CR4.TSD: reading the time stamp counter traps.
pub const CR4_TSD: u64 = 1 << 2;
/// CR4.DE: breakpoints on ports.
pub const CR4_DE: u64 = 1 << 3;
/// CR4.FSGSBASE: instructions for the FS and GS bases.
pub const CR4_FSGSBASE: u64 = 1 << 16;
/// CR4.OSXSAVE.
pub const CR4_OSXSAVE: u64 = 1 << 18;
/// PAE, MCE, OSFXSR, OSXMMEXCPT: shown as they are on the host.
const CR4_VISIBLE: u64 = 1 << 5 | 1 << 6 | 1 << 9 | 1 << 10;

/// What the virtual control registers are made of.
#[derive(Clone, Copy, Debug)]
pub struct CrView<'a> {
    /// The domain's policy.
    pub policy: &'a Policy,
    /// The real CR0 that guests run with.
    pub host_cr0: u64,
    /// The real CR4 that the hypervisor chose at boot.
    pub host_cr4: u64,
    /// The virtual CR0.TS.
    pub task_switched: bool,
    /// The virtual CR2.
    pub cr2: u64,
    /// The kernel's L4 table.
    pub kernel_base: Mfn,
    /// The virtual CR4, as [`guest_cr4`] made it.
    pub cr4: u64,
}

/// What a write to a control register does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrWrite {
    /// Sets the virtual CR0.TS.
    TaskSwitched(bool),
    /// Sets the virtual CR2.
    Cr2(u64),
    /// Makes this frame, which is still to be checked, the kernel's L4 table.
    NewBase(Mfn),
    /// Sets the virtual CR4, and what of it is real while the guest runs.
    Cr4(u64),
}

/// Returns what the register reads as; `None` is a fault.
pub const fn read_cr(cr: Cr, view: &CrView<'_>) -> Option<u64> {
    match cr {
        Cr::Cr0 => Some(view.host_cr0 & !CR0_TS | if view.task_switched { CR0_TS } else { 0 }),
        Cr::Cr2 => Some(view.cr2),
        Cr::Cr3 => Some(view.kernel_base.0 << 12),
        Cr::Cr4 => Some(view.cr4),
        Cr::Cr8 => None,
    }
}

/// Decides a write; `None` is a fault.
pub const fn write_cr(cr: Cr, value: u64, view: &CrView<'_>) -> Option<CrWrite> {
    match cr {
        Cr::Cr0 if (value ^ view.host_cr0) & !CR0_TS == 0 => Some(CrWrite::TaskSwitched(value & CR0_TS != 0)),
        Cr::Cr2 => Some(CrWrite::Cr2(value)),
        Cr::Cr3 => Some(CrWrite::NewBase(Mfn(value >> 12))),
        Cr::Cr4 => Some(CrWrite::Cr4(guest_cr4(value, view.policy, view.host_cr4))),
        Cr::Cr0 | Cr::Cr8 => None,
    }
}

/// Returns the virtual CR4 of a guest that asked for these bits: what it may choose and the policy has, and what it is
/// shown. The rest is dropped without a fault. A new vCPU has the value for 0.
pub const fn guest_cr4(wanted: u64, policy: &Policy, host_cr4: u64) -> u64 {
    let offered = [
        (CR4_TSD, policy.leaf1_edx().contains(Leaf1Edx::TSC)),
        (CR4_DE, policy.leaf1_edx().contains(Leaf1Edx::DE)),
        (CR4_FSGSBASE, policy.leaf7_ebx().contains(Leaf7Ebx::FSGSBASE)),
        (CR4_OSXSAVE, policy.leaf1_ecx().contains(Leaf1Ecx::XSAVE)),
    ];
    let mut allowed = 0;
    let mut i = 0;
    while i < offered.len() {
        if offered[i].1 {
            allowed |= offered[i].0;
        }
        i += 1;
    }
    wanted & allowed | host_cr4 & CR4_VISIBLE
}

/// True when XCR0 may be set to this value, and the processor will take it. `allowed` are the policy's bits.
pub const fn xcr0_ok(value: u64, allowed: u64) -> bool {
    const X87: u64 = 1 << 0;
    const SSE: u64 = 1 << 1;
    const AVX: u64 = 1 << 2;
    const BOUNDS: u64 = 3 << 3;
    const AVX512: u64 = 7 << 5;
    let avx512 = value & AVX512;
    value & !allowed == 0
        && value & X87 != 0
        && (value & AVX == 0 || value & SSE != 0)
        && (avx512 == 0 || avx512 == AVX512 && value & AVX != 0)
        && (value & BOUNDS == 0 || value & BOUNDS == BOUNDS)
}

/// Bits of DR6 that are always 1.
const DR6_ONES: u64 = 0xffff_0ff0;
/// Bits of DR6 that can be 1.
const DR6_MASK: u64 = 0xffff_efff;
/// Bits of DR7 that are always 1.
const DR7_ONES: u64 = 0x400;
/// Bits of DR7 that can be 1.
const DR7_MASK: u64 = 0xffff_27ff;
/// DR7.GD.
const DR7_DETECT: u64 = 1 << 13;
/// The enable bits of the four breakpoints.
const DR7_ENABLES: u64 = 0xff;

/// The virtual debug registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DebugRegs {
    /// DR0 to DR3: never in the hypervisor's range.
    pub address: [u64; 4],
    /// DR6.
    pub dr6: u64,
    /// DR7 as it is loaded: without the breakpoints on ports.
    pub dr7: u64,
    /// The enable bits of DR7 for breakpoints on ports, which the emulation of port access serves.
    pub ports: u64,
}

impl Default for DebugRegs {
    fn default() -> Self {
        Self { address: [0; 4], dr6: DR6_ONES, dr7: DR7_ONES, ports: 0 }
    }
}

impl DebugRegs {
    /// Returns what a register reads as.
    ///
    /// # Errors
    /// `ENODEV` for one that does not exist: an undefined-instruction fault.
    pub fn read(&self, number: u64, cr4: u64) -> Result<u64> {
        match aliased(number, cr4)? {
            6 => Ok(self.dr6),
            7 => Ok(self.dr7 | self.ports),
            n => self.address.get(n).copied().ok_or(Errno::ENODEV),
        }
    }

    /// Writes a register. While [`DebugRegs::active`] all of them have to be loaded.
    ///
    /// # Errors
    /// `ENODEV` for one that does not exist (an undefined-instruction fault); `EINVAL` for reserved bits and `EPERM`
    /// for what is not allowed (both are general protection faults).
    pub fn write(&mut self, number: u64, value: u64, cr4: u64) -> Result<()> {
        match aliased(number, cr4)? {
            6 => {
                u32::try_from(value).map_err(|_| Errno::EINVAL)?;
                self.dr6 = value & DR6_MASK | DR6_ONES;
            }
            7 => self.write_dr7(value, cr4)?,
            n => {
                if !breakpoint_ok(value) {
                    return Err(Errno::EPERM);
                }
                *self.address.get_mut(n).ok_or(Errno::ENODEV)? = value;
            }
        }
        Ok(())
    }

    fn write_dr7(&mut self, value: u64, cr4: u64) -> Result<()> {
        u32::try_from(value).map_err(|_| Errno::EINVAL)?;
        let value = value & DR7_MASK | DR7_ONES;
        if value & DR7_DETECT != 0 {
            return Err(Errno::EPERM);
        }
        let mut ports = 0;
        if value & DR7_ENABLES != 0 {
            for n in (0..4).filter(|&n| kind(value, n) == PORT) {
                if cr4 & CR4_DE == 0 {
                    return Err(Errno::EPERM);
                }
                ports |= value & enables(n);
            }
        }
        self.ports = ports;
        self.dr7 = value & !ports;
        Ok(())
    }

    /// Returns what the registers of these numbers are loaded with; 4 and 5 are nothing.
    pub const fn loaded(&self) -> [u64; 8] {
        let [a, b, c, d] = self.address;
        [a, b, c, d, 0, 0, self.dr6, self.dr7]
    }

    /// True when a breakpoint is enabled that the processor has to know of.
    pub const fn active(&self) -> bool {
        self.dr7 & DR7_ENABLES != 0
    }

    /// Returns the DR6 bits of the breakpoints that an access to these ports meets.
    pub fn port_hits(&self, port: u16, bytes: u32, cr4: u64) -> u64 {
        if self.ports == 0 || cr4 & CR4_DE == 0 {
            return 0;
        }
        let (first, end) = (u64::from(port), u64::from(port) + u64::from(bytes));
        let meets = |&(n, &address): &(u32, &u64)| {
            let width = [1, 2, 8, 4][(self.dr7 >> (18 + 4 * n) & 3) as usize];
            let start = address & !(width - 1);
            self.ports & enables(n) != 0 && start < end && start.saturating_add(width) > first
        };
        (0..).zip(&self.address).filter(meets).map(|(n, _)| 1 << n).sum()
    }
}

/// DR7's kind of breakpoint: on port access.
const PORT: u64 = 2;

const fn kind(dr7: u64, n: u32) -> u64 {
    dr7 >> (16 + 4 * n) & 3
}

const fn enables(n: u32) -> u64 {
    3 << (2 * n)
}

/// DR4 and DR5 are DR6 and DR7 unless CR4.DE is set; then they do not exist.
fn aliased(number: u64, cr4: u64) -> Result<usize> {
    match number {
        0..=3 | 6 | 7 => Ok(number as usize),
        4 | 5 if cr4 & CR4_DE == 0 => Ok(number as usize + 2),
        _ => Err(Errno::ENODEV),
    }
}

/// A breakpoint address is canonical and not the hypervisor's. An address mask reaches 4 GiB at most, and the
/// hypervisor's range begins and ends at a multiple of that, so no mask reaches into it.
const fn breakpoint_ok(address: u64) -> bool {
    address < 1 << 47 || address >= HOLE_END
}
