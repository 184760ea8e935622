// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the machine is, found once at boot, for those who decide what guests see of it.

use spin::once::Once;

use crate::emulate::cpuid::{Config, Policy};
use crate::emulate::msr::HostMsrs;
use crate::shared::SharedFrame;
use crate::vcpu::Vcpu;

static MSRS: Once<HostMsrs, arch::sync::Relax> = Once::new();
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

/// Makes the CPUID policy of a domain.
pub fn policy(hardware_domain: bool) -> Policy {
    let features = arch::features::get();
    let scale = arch::time::scale();
    let config = Config {
        hardware_domain,
        maddr_width: features.maddr_bits as u8,
        xcr0: features.xcr0,
        spec_ctrl: false,
        ibpb: false,
        breakpoint_masks: false,
        arch_caps: None,
        invariant_tsc: arch::time::tsc_is_stable(),
        tsc: crate::emulate::cpuid::TscInfo::native(&scale, arch::time::tsc_is_stable()),
    };
    Policy::new(arch::features::cpuid, &config)
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
