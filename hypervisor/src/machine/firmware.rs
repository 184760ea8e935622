// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the firmware left: a BIOS's data area, or UEFI's tables and runtime services.
#![expect(unsafe_code, reason = "reads what the firmware left in memory")]

use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;

use arch::efi::{self, Region};
use arch::platform::efi::{RuntimeTable, Tables, discover};
use boot::BootInfo;
use boot::efi_map::EfiRegion;
use hypervisor::create;
use hypervisor::firmware::{self, Efi, KEYBOARD_FLAGS};

use super::memory;

/// Where a BIOS keeps the state of the keyboard's locks and shift keys.
const BIOS_KEYBOARD_FLAGS: u64 = 0x417;
/// The longest vendor's name, in units of UTF-16.
const LONGEST_NAME: usize = 100;

/// Returns bytes of machine memory.
fn bytes(maddr: u64, len: usize) -> Option<&'static [u8]> {
    maddr.checked_add(len as u64)?;
    let at = memory::map(maddr, len);
    // SAFETY: `map` maps RAM and what the firmware keeps, for ever, and nobody writes to the firmware's tables.
    (!at.is_null()).then(|| unsafe { core::slice::from_raw_parts(at.cast_const(), len) })
}

/// Finds out what the firmware left. `services`: its runtime services are to be used.
pub(super) fn look(info: &BootInfo, services: bool) {
    let Some(left) = info.efi else {
        let flags = bytes(BIOS_KEYBOARD_FLAGS, 1).and_then(|b| b.first()).copied();
        KEYBOARD_FLAGS.store(flags.unwrap_or(0), Relaxed);
        return;
    };
    if !left.wide {
        log::warn!("UEFI firmware of 32 bits: it cannot be called, and nothing is told of it");
        return;
    }
    match discover(left.system_table, &bytes) {
        Ok(tables) => note(info, &tables, services),
        Err(error) => log::warn!("UEFI: the system table cannot be used: {error:?}"),
    }
}

fn note(info: &BootInfo, tables: &Tables, services: bool) {
    let runtime = tables.runtime.filter(|_| services && prepare(info, tables.runtime.as_ref()));
    let (major, minor) = (tables.revision >> 16, tables.revision & 0xffff);
    let what = if runtime.is_some() { "runtime services in use" } else { "no runtime services" };
    log::info!("UEFI {major}.{}.{}: {} configuration tables, {what}", minor / 10, minor % 10, tables.config_entries);
    let region = |r: &EfiRegion| firmware::EfiRegion {
        start: r.start,
        end: r.start + r.len(),
        kind: r.kind,
        attributes: r.attributes,
    };
    firmware::note_efi(Some(Efi {
        revision: tables.revision,
        runtime_revision: runtime.map(|table| table.revision),
        vendor: vendor(tables.vendor),
        firmware_revision: tables.firmware_revision,
        config: tables.config,
        config_entries: tables.config_entries,
        map: info.efi_map.iter().map(region).collect(),
    }));
}

/// Makes page tables for the runtime services; false when they cannot be called.
fn prepare(info: &BootInfo, table: Option<&RuntimeTable>) -> bool {
    let Some(table) = table else {
        log::warn!("UEFI: the table of runtime services is broken");
        return false;
    };
    let runtime = info.efi_map.iter().filter(|r| r.attributes & EfiRegion::RUNTIME != 0 && !r.is_empty());
    let region = |r: &EfiRegion| Region {
        start: r.start,
        len: r.len(),
        executable: r.kind == EfiRegion::RUNTIME_CODE,
        cached: r.attributes & EfiRegion::WRITE_BACK != 0,
    };
    let regions: Vec<Region> = runtime.map(region).collect();
    if regions.is_empty() {
        log::warn!("UEFI: the loader gave no memory map of the firmware");
        return false;
    }
    match efi::setup(table, &regions, &mut create::table_frame) {
        Ok(()) => true,
        Err(_) => {
            log::warn!("UEFI: no memory for its page tables");
            false
        }
    }
}

/// Reads the vendor's name, with the zero at its end.
fn vendor(maddr: u64) -> Vec<u16> {
    let Some(text) = bytes(maddr, LONGEST_NAME * 2).filter(|_| maddr != 0) else { return Vec::new() };
    let units = text.chunks_exact(2).filter_map(|pair| pair.first_chunk().copied()).map(u16::from_le_bytes);
    units.take_while(|unit| *unit != 0).chain([0]).collect()
}
