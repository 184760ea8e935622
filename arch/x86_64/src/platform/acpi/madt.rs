// SPDX-License-Identifier: MIT OR Apache-2.0
//! The MADT: CPUs and interrupt controllers.

use acpi::madt::{
    InterruptSourceOverrideEntry, IoApicEntry, LocalApicAddressOverrideEntry, LocalApicEntry, LocalX2ApicEntry,
};

use arch_types::LineMode;

use super::{AcpiError, CpuEntry, HEADER, IoApicInfo, IsaOverride, Platform, u32_at, view_whole};

/// Reads the table into the platform.
pub(super) fn read(table: &[u8], out: &mut Platform) {
    if let Some(base) = u32_at(table, HEADER).filter(|b| *b != 0) {
        out.lapic_base = base.into();
    }
    let entries = table.get(HEADER + 8..).unwrap_or(&[]);
    // Twice, so that slots without a CPU take no room from CPUs.
    for enabled in [true, false] {
        let whole = for_each(entries, |kind, entry| cpu(kind, entry, enabled, out));
        if enabled && !whole {
            out.problem(AcpiError::BadEntry(*b"APIC"));
        }
    }
    for_each(entries, |kind, entry| controller(kind, entry, out));
}

/// Calls a function with each entry's type and bytes; false when the list is broken.
fn for_each(mut rest: &[u8], mut each: impl FnMut(u8, &[u8])) -> bool {
    while let [kind, len, ..] = *rest {
        let len = usize::from(len);
        match rest.split_at_checked(len) {
            Some((entry, next)) if len >= 2 => {
                each(kind, entry);
                rest = next;
            }
            _ => return false,
        }
    }
    rest.is_empty()
}

fn cpu(kind: u8, entry: &[u8], enabled: bool, out: &mut Platform) {
    let found = match kind {
        0 => view_whole::<LocalApicEntry>(entry)
            .filter(|e| e.apic_id != 0xff)
            .map(|e| (e.apic_id.into(), e.processor_id.into(), e.flags)),
        9 => view_whole::<LocalX2ApicEntry>(entry)
            .filter(|e| e.x2apic_id != u32::MAX)
            .map(|e| (e.x2apic_id, e.processor_uid, e.flags)),
        _ => None,
    };
    let Some((apic_id, acpi_id, flags)) = found else {
        return;
    };
    if (flags & 1 != 0) != enabled || out.cpus.iter().any(|c| c.apic_id == apic_id) {
        return;
    }
    if out.cpus.try_push(CpuEntry { apic_id, acpi_id, enabled }).is_err() && enabled {
        out.cpus_left_out += 1;
    }
}

fn controller(kind: u8, entry: &[u8], out: &mut Platform) {
    match kind {
        1 => {
            if let Some(e) = view_whole::<IoApicEntry>(entry) {
                let (maddr, gsi_base) = (e.io_apic_address.into(), e.global_system_interrupt_base);
                let _ = out.ioapics.try_push(IoApicInfo { id: e.io_apic_id, maddr, gsi_base });
            }
        }
        2 => {
            if let Some(e) = view_whole::<InterruptSourceOverrideEntry>(entry).filter(|e| e.bus == 0) {
                let (gsi, mode) = (e.global_system_interrupt, line_mode(e.flags));
                let _ = out.overrides.try_push(IsaOverride { irq: e.irq, gsi, mode });
            }
        }
        5 => {
            if let Some(e) = view_whole::<LocalApicAddressOverrideEntry>(entry) {
                out.lapic_base = e.local_apic_address;
            }
        }
        _ => {}
    }
}

/// Reads the flags of an override. What conforms to the bus is as the ISA bus: high and edge.
fn line_mode(flags: u16) -> LineMode {
    LineMode { active_low: flags & 3 == 3, level: flags >> 2 & 3 == 3 }
}
