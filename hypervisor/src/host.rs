// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the machine is, found once at boot, for those who decide what guests see of it.

use spin::once::Once;

use crate::emulate::cpuid::{Config, Leaf, Policy, leaves};
use crate::emulate::msr::HostMsrs;
use crate::shared::SharedFrame;
use crate::topology::Topology;
use crate::vcpu::Vcpu;

static MSRS: Once<HostMsrs, arch::sync::Relax> = Once::new();
static TOPOLOGY: Once<Topology, arch::sync::Relax> = Once::new();
static DUMMY_INFO: spin::mutex::Mutex<Option<mm::SharedFrame>, arch::sync::Relax> = spin::mutex::Mutex::new(None);

/// Returns the host registers that guests see something of.
pub fn msrs() -> &'static HostMsrs {
    MSRS.call_once(|| {
        const MISC_ENABLE: u32 = 0x1a0;
        const PLATFORM_ID: u32 = 0x17;
        const MICROCODE: u32 = 0x8b;
        HostMsrs {
            efer: arch::msr::read_safe(arch::msr::EFER).unwrap_or(0),
            misc_enable: arch::msr::read_safe(MISC_ENABLE),
            platform_id: arch::msr::read_safe(PLATFORM_ID),
            microcode: arch::msr::read_safe(MICROCODE),
            cpuid_faulting: false,
            lfence_serialises: false,
        }
    })
}

/// Returns how the numbers of the machine's CPUs are made.
pub fn topology() -> &'static Topology {
    TOPOLOGY.call_once(|| Topology::new(arch::features::cpuid))
}

/// Returns a leaf of the machine's CPUID, empty where there is none.
pub fn leaf(number: u32, subleaf: u32) -> Leaf {
    let last = arch::features::cpuid(number & 0x8000_0000, 0)[0];
    if number <= last { arch::features::cpuid(number, subleaf) } else { [0; 4] }
}

/// Returns words of CPUID's feature bits, in the order in which the tools show them.
pub fn capabilities() -> [u32; 8] {
    leaves::featureset(leaf, 0).first_chunk().copied().unwrap_or_default()
}

/// Returns what the hypervisor can do for a domain, of which tools may want less.
pub fn cpuid_config(hardware_domain: bool) -> Config {
    let features = arch::features::get();
    let stable = arch::time::tsc_is_stable();
    Config {
        hardware_domain,
        maddr_width: features.maddr_bits as u8,
        xcr0: features.xcr0,
        spec_ctrl: false,
        ibpb: false,
        breakpoint_masks: false,
        arch_caps: None,
        invariant_tsc: stable,
    }
}

/// Makes the CPUID policy of a domain for which tools want nothing else.
pub fn policy(hardware_domain: bool) -> Policy {
    // Other domains may be moved, to where the counter has another rate.
    let mut config = cpuid_config(hardware_domain);
    config.invariant_tsc &= hardware_domain;
    Policy::new(leaf, &config)
}

/// Makes the CPUID policy that has all that a domain besides dom0 can have.
pub fn most_policy() -> Policy {
    Policy::new(leaf, &cpuid_config(false))
}

/// Returns the `vcpu_info` of vCPUs that have none yet: nothing pending, upcalls masked.
///
/// # Panics
/// When there is no memory for it at boot.
pub fn dummy_info() -> SharedFrame {
    let mut slot = DUMMY_INFO.lock();
    let frame = slot.get_or_insert_with(|| {
        let frame = mm::SharedFrame::alloc(hypercalls::DomId::XEN, mm::Share::ReadOnly)
            .expect("one frame at boot, before any domain can use memory up");
        crate::shared::kept(&frame).u8(1).store(1, core::sync::atomic::Ordering::Relaxed);
        frame
    });
    crate::shared::kept(frame)
}

/// Forgets the frame behind [`dummy_info`], for a new machine; it is the caller's to drop.
#[cfg(not(target_os = "none"))]
pub fn take_dummy_info() -> Option<mm::SharedFrame> {
    DUMMY_INFO.lock().take()
}

/// True while the vCPU has no `vcpu_info` of its own.
pub fn is_dummy_info(vcpu: &Vcpu) -> bool {
    vcpu.vcpu_info() == dummy_info()
}
