// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the hardware domain asks about the firmware.

use core::sync::atomic::Ordering::Relaxed;

use hypercalls::platform::*;
use hypercalls::{Errno, Result};
use zerocopy::transmute;

use super::{read, write};
use crate::firmware::KEYBOARD_FLAGS;
use crate::vcpu::Vcpu;

/// Nothing that wants a call of the BIOS was asked before it was gone.
pub(super) fn firmware_info(_: &Vcpu, arg: u64) -> Result<i64> {
    let a: FirmwareInfo = read(arg)?;
    match a.kind {
        FirmwareType::DISK_INFO | FirmwareType::DISK_MBR_SIGNATURE | FirmwareType::VBEDDC_INFO => Err(Errno::ESRCH),
        FirmwareType::KBD_SHIFT_FLAGS if a.index == 0 => {
            let kbd: FirmwareKbd = transmute!(a);
            write(arg, &FirmwareKbd { shift_flags: KEYBOARD_FLAGS.load(Relaxed), ..kbd })?;
            Ok(0)
        }
        FirmwareType::KBD_SHIFT_FLAGS => Err(Errno::ESRCH),
        FirmwareType::EFI_INFO => super::efi::info(&a, arg),
        _ => Err(Errno::EINVAL),
    }
}
