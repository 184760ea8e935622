// SPDX-License-Identifier: MIT OR Apache-2.0
//! What dom0 writes to configuration space, by ports or through a window.
//!
//! Everything goes to the device but what would change its messages: those are the hypervisor's. Of the control words dom0's
//! wish is noted, and granted as far as [`State`](super::msi) allows.

use alloc::sync::Arc;

use super::capability::{MSI_COUNT, MSI_ENABLE, MSIX_ENABLE, MSIX_MASK_ALL, Msi, Space};
use super::device::{self, Device};
use super::msi::{MSIX_WISHES, moves_registers};
use super::{Place, config};
use crate::emulate::Width;

/// Carries out a write of dom0's.
pub fn write(place: Place, at: u16, width: Width, value: u32) {
    let Some(device) = device::find(place) else {
        return config::write(place, at, width, value);
    };
    let word = at & !3;
    let msi = device.msi.filter(|m| (m.at..m.end()).contains(&word));
    let msix = device.msix.filter(|m| word == m.at);
    if msi.is_some() || msix.is_some() {
        let (shift, mask) = (u32::from(at & 3) * 8, width.mask() as u32);
        let old = device.config().dword(word);
        let new = old & !(mask << shift) | (value & mask) << shift;
        if let Some(capability) = msi {
            write_msi(&device, &capability, word, old, new);
        } else if msix.is_some() {
            write_msix(&device, word, new);
        }
        return;
    }
    config::write(place, at, width, value);
    if device.msix.is_some() && moves_registers(at) {
        device.find_table();
    }
}

/// A word of the MSI capability.
fn write_msi(device: &Arc<Device>, capability: &Msi, word: u16, old: u32, mut new: u32) {
    let mut state = device.state.lock();
    if word == capability.at {
        state.wants_msi = new >> 16 & u32::from(MSI_ENABLE) != 0;
        new &= !(u32::from(MSI_ENABLE) << 16);
        if state.may_send_msi() {
            new |= u32::from(MSI_ENABLE) << 16;
        }
        if state.uses_msi() {
            let count = u32::from(MSI_COUNT) << 16;
            new = new & !count | old & count;
        }
    } else if state.uses_msi() {
        return;
    }
    config::write(device.place, word, Width::Dword, new);
}

/// The word of the MSI-X capability in which its control is; the others cannot be written.
fn write_msix(device: &Arc<Device>, word: u16, new: u32) {
    let mut state = device.state.lock();
    state.wants_msix = new >> 16 & u32::from(MSIX_ENABLE) != 0;
    state.wants_mask_all = new >> 16 & u32::from(MSIX_MASK_ALL) != 0;
    let mask = if state.masks_all() { u32::from(MSIX_MASK_ALL) << 16 } else { 0 };
    let enable = if state.wants_msix { u32::from(MSIX_ENABLE) << 16 } else { 0 };
    config::write(device.place, word, Width::Dword, new & !MSIX_WISHES | enable | mask);
}
