// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages: reserved in a function's capability, programmed, masked, and given up.
//!
//! Whether a function sends messages at all is dom0's wish, which it writes to the capability ([`super::watch`]); the wish is
//! granted only while the hypervisor has programmed the message, and for MSI-X with everything masked otherwise.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;

use arch::{CpuId, cpu};
use hypercalls::{Errno, Result};

use super::capability::{self, CONTROL, MSI_COUNT, MSI_ENABLE, MSIX_ENABLE, MSIX_MASK_ALL, Space, bar, message};
use super::config;
use super::device::Device;
use super::table::{Entry, Table};
use crate::emulate::Width;

/// MSI in use.
#[derive(Clone, Copy, Debug)]
pub(super) struct MsiUse {
    count: u8,
    address: u64,
    data: u32,
    /// One bit a message.
    mask: u32,
    /// It came too often, and there is no other way to mask it.
    is_held: bool,
}

/// What the messages of a function are.
#[derive(Debug, Default)]
pub(super) struct State {
    msi: Option<MsiUse>,
    /// Where its MSI-X table is, once that is known.
    table: Option<Table>,
    /// Entries in use.
    entries: BTreeMap<u16, Entry>,
    /// MSI-X is kept ready for another domain.
    is_prepared: bool,
    /// What dom0 wrote to the capabilities' control words.
    pub(super) wants_msi: bool,
    pub(super) wants_msix: bool,
    pub(super) wants_mask_all: bool,
}

impl State {
    /// Forgets messages, and guards the table no more.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// True while the hypervisor has programmed MSI.
    pub(super) fn uses_msi(&self) -> bool {
        self.msi.is_some_and(|m| m.address != 0)
    }

    /// True when messages of MSI may be sent.
    pub(super) fn may_send_msi(&self) -> bool {
        self.wants_msi && self.msi.is_some_and(|m| m.address != 0 && !m.is_held)
    }

    /// True when all messages of MSI-X are to be masked.
    pub(super) fn masks_all(&self) -> bool {
        self.wants_mask_all || self.entries.is_empty()
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// So many messages by MSI.
    Msi(u8),
    /// An entry of the table of MSI-X, whose base-address register dom0 says holds this.
    Msix(u16, u64),
}

/// One message of a function.
#[derive(Clone, Debug)]
pub struct Message {
    device: Arc<Device>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// One of several.
    Msi {
        index: u8,
        count: u8,
    },
    Msix {
        entry: u16,
    },
}

impl Device {
    /// Switches its messages off, as whoever used it before may have left them.
    pub(super) fn silence(&self) {
        for (at, bit) in [(self.msi.map(|m| m.at), MSI_ENABLE), (self.msix.map(|m| m.at), MSIX_ENABLE)] {
            if let Some(at) = at {
                let control = self.config().word(at + CONTROL);
                if control & bit != 0 {
                    config::write(self.place, at + CONTROL, Width::Word, (control & !bit).into());
                }
            }
        }
    }

    /// Finds out where the table of MSI-X is, and guards it; when it moved, there. While messages are in use it does not
    /// move, whatever the function says.
    pub(super) fn find_table(&self) {
        let Some(capability) = self.msix else { return };
        if !self.decodes_memory() {
            return;
        }
        let space = self.config();
        let at = |(index, offset): (u8, u32)| bar(&space, index)?.checked_add(offset.into());
        let (Some(table), Some(pending)) = (at(capability.table), at(capability.pending)) else { return };
        let mut state = self.state.lock();
        if state.table.as_ref().is_some_and(|t| t.is_at(table, pending)) {
            return self.program_all(&state);
        }
        if !state.entries.is_empty() || state.is_prepared {
            log::warn!("d0: {}: the table of its messages was moved while it is in use", self.place);
            return;
        }
        state.table = None;
        match Table::take(table, pending, &capability) {
            Ok(found) => state.table = Some(found),
            Err(error) => log::warn!("d0: {}: no table of messages can be at {table:#x}: {error:?}", self.place),
        }
    }

    /// Writes all entries in use again: the function may have lost them.
    fn program_all(&self, state: &State) {
        if let Some(table) = &state.table {
            state.entries.iter().for_each(|(index, entry)| table.write(*index, entry));
        }
    }

    /// Reserves messages. They are programmed by [`Message::route`].
    ///
    /// # Errors
    /// `ENODEV` when the function has no such messages, `EINVAL` for an entry that it does not have, `EBUSY` when it uses
    /// the other kind, `EEXIST` when the message is in use, `ENXIO` when its registers cannot be reached, `ENFILE` when it
    /// cannot send so many.
    pub(super) fn reserve(self: &Arc<Self>, wanted: Wanted) -> Result<()> {
        let mut state = self.state.lock();
        match wanted {
            Wanted::Msi(count) => {
                let capability = self.msi.ok_or(Errno::ENODEV)?;
                if count > capability.most {
                    return Err(Errno::ENFILE);
                }
                if state.msi.is_some() {
                    return Err(Errno::EEXIST);
                }
                if !state.entries.is_empty() {
                    return Err(Errno::EBUSY);
                }
                state.msi = Some(MsiUse { count, address: 0, data: 0, mask: u32::MAX, is_held: false });
                self.apply_msi(&state);
            }
            Wanted::Msix(entry, base) => {
                let capability = self.msix.ok_or(Errno::ENODEV)?;
                if entry >= capability.entries {
                    return Err(Errno::EINVAL);
                }
                if state.msi.is_some() {
                    return Err(Errno::EBUSY);
                }
                if state.entries.contains_key(&entry) {
                    return Err(Errno::EEXIST);
                }
                if !self.decodes_memory() {
                    return Err(Errno::ENXIO);
                }
                if state.table.is_none() {
                    state.table = Some(self.table_of(base)?);
                }
                if state.entries.is_empty()
                    && let Some(table) = &state.table
                {
                    (0..capability.entries).for_each(|index| table.mask(index, true));
                }
                state.entries.insert(entry, Entry::EMPTY);
                self.apply_msix(&state);
            }
        }
        Ok(())
    }

    /// The table of a function whose own registers do not say where it is: a virtual one. dom0 knows.
    fn table_of(&self, base: u64) -> Result<Table> {
        let capability = self.msix.ok_or(Errno::ENODEV)?;
        if self.info.physfn.is_none() || base == 0 || capability.table.0 != capability.pending.0 {
            return Err(Errno::ENXIO);
        }
        let at = |offset: u32| base.checked_add(offset.into()).ok_or(Errno::EINVAL);
        Table::take(at(capability.table.1)?, at(capability.pending.1)?, &capability)
    }

    /// Gives up messages that were reserved.
    pub(super) fn give_up(&self, wanted: Wanted) {
        let mut state = self.state.lock();
        match wanted {
            Wanted::Msi(_) => {
                state.msi = None;
                self.apply_msi(&state);
            }
            Wanted::Msix(index, _) => {
                if let Some(table) = &state.table
                    && self.decodes_memory()
                {
                    table.mask(index, true);
                }
                state.entries.remove(&index);
                self.apply_msix(&state);
            }
        }
    }

    /// Writes the whole MSI capability as it is to be. It is off while its words do not fit together, unless only one of
    /// them changes.
    fn apply_msi(&self, state: &State) {
        let Some(capability) = self.msi else { return };
        let control = self.config().word(capability.at + CONTROL) & !(MSI_ENABLE | MSI_COUNT);
        let put = |at: u16, width, value| config::write(self.place, at, width, value);
        if let Some(used) = state.msi.filter(|m| m.address != 0) {
            if capability.maskable {
                put(capability.mask(), Width::Dword, u32::MAX);
            }
            put(capability.at + 4, Width::Dword, used.address as u32);
            if capability.is_64 {
                put(capability.at + 8, Width::Dword, (used.address >> 32) as u32);
            }
            put(capability.data(), Width::Word, used.data);
            if capability.maskable {
                put(capability.mask(), Width::Dword, used.mask);
            }
        }
        let count = state.msi.map_or(0, |m| m.count.trailing_zeros() as u16) << 4;
        let enable = if state.may_send_msi() { MSI_ENABLE } else { 0 };
        put(capability.at + CONTROL, Width::Word, (control | count | enable).into());
    }

    /// Writes the control word of MSI-X as it is to be.
    fn apply_msix(&self, state: &State) {
        let Some(capability) = self.msix else { return };
        let control = self.config().word(capability.at + CONTROL) & !(MSIX_ENABLE | MSIX_MASK_ALL);
        let enable = if state.wants_msix { MSIX_ENABLE } else { 0 };
        let mask = if state.masks_all() { MSIX_MASK_ALL } else { 0 };
        config::write(self.place, capability.at + CONTROL, Width::Word, (control | enable | mask).into());
    }

    /// Keeps MSI-X ready for another domain, or not any more.
    ///
    /// # Errors
    /// `ENODEV` when the function has none, `EBUSY` when it is so already or in use, `ENXIO` when its registers cannot be
    /// reached.
    pub fn prepare(&self, prepared: bool) -> Result<()> {
        self.msix.ok_or(Errno::ENODEV)?;
        let mut state = self.state.lock();
        if state.is_prepared == prepared || !state.entries.is_empty() {
            return Err(Errno::EBUSY);
        }
        if prepared && (state.table.is_none() || !self.decodes_memory()) {
            return Err(Errno::ENXIO);
        }
        state.is_prepared = prepared;
        Ok(())
    }

    /// Programs all messages in use again: the function was reset, or was without power.
    ///
    /// # Errors
    /// `ENXIO` when its registers cannot be reached.
    pub fn restore(&self) -> Result<()> {
        let state = self.state.lock();
        if state.msi.is_some() {
            self.apply_msi(&state);
        }
        if state.entries.is_empty() {
            return Ok(());
        }
        if !self.decodes_memory() {
            return Err(Errno::ENXIO);
        }
        self.program_all(&state);
        self.apply_msix(&state);
        Ok(())
    }

    /// Returns the machine addresses of the table of MSI-X and of its pending bits, if they are known.
    pub fn table(&self) -> Option<(u64, u64)> {
        self.state.lock().table.as_ref().map(Table::place)
    }
}

impl Message {
    /// The messages that were reserved, in order.
    pub(super) fn of(device: &Arc<Device>, wanted: Wanted) -> impl Iterator<Item = Self> {
        let count = if let Wanted::Msi(count) = wanted { count } else { 1 };
        let device = device.clone();
        (0..count).map(move |index| {
            let kind = match wanted {
                Wanted::Msi(count) => Kind::Msi { index, count },
                Wanted::Msix(entry, _) => Kind::Msix { entry },
            };
            Self { device: device.clone(), kind }
        })
    }

    /// What gives it up, together with the others that were reserved with it.
    pub fn wanted(&self) -> Wanted {
        match self.kind {
            Kind::Msi { count, .. } => Wanted::Msi(count),
            Kind::Msix { entry } => Wanted::Msix(entry, 0),
        }
    }

    /// The function.
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// True when it can be held back without switching all messages off.
    pub fn is_maskable(&self) -> bool {
        match self.kind {
            Kind::Msi { .. } => self.device.msi.is_some_and(|m| m.maskable),
            Kind::Msix { .. } => true,
        }
    }

    /// True when it can be sent elsewhere by itself: several of MSI have one address and consecutive vectors.
    pub fn may_move(&self) -> bool {
        !matches!(self.kind, Kind::Msi { count: 2.., .. })
    }

    /// Its number among those that were reserved with it.
    pub fn index(&self) -> u8 {
        if let Kind::Msi { index, .. } = self.kind { index } else { 0 }
    }

    /// Lets it arrive at a CPU as a vector; it stays masked if it is. False when it cannot name that CPU. Of several of MSI
    /// only the first is asked.
    pub fn route(&self, to: CpuId, vector: u8) -> bool {
        let Ok(apic_id) = u8::try_from(cpu::apic_id(to)) else { return false };
        let (address, data) = message(apic_id, vector);
        let device = &self.device;
        let mut state = device.state.lock();
        match self.kind {
            Kind::Msi { index: 0, .. } => {
                if let Some(used) = &mut state.msi {
                    (used.address, used.data) = (address, data);
                    device.apply_msi(&state);
                }
            }
            Kind::Msi { .. } => {}
            Kind::Msix { entry } => {
                let State { table, entries, .. } = &mut *state;
                if let (Some(table), Some(kept)) = (table, entries.get_mut(&entry)) {
                    *kept = Entry { address, data, ..*kept };
                    if device.decodes_memory() {
                        table.write(entry, kept);
                    }
                }
            }
        }
        true
    }

    /// Holds it back or lets it through. Where there is no bit for that, only `urgently`: all messages are switched off.
    pub fn set_masked(&self, masked: bool, urgently: bool) {
        let device = &self.device;
        let mut state = device.state.lock();
        match self.kind {
            Kind::Msi { index, .. } => {
                let Some(capability) = device.msi else { return };
                let Some(used) = &mut state.msi else { return };
                let bit = 1u32.checked_shl(index.into()).unwrap_or(0);
                used.mask = if masked { used.mask | bit } else { used.mask & !bit };
                let (mask, held) = (used.mask, !capability.maskable && masked && urgently);
                if capability.maskable {
                    config::write(device.place, capability.mask(), Width::Dword, mask);
                    let _ = config::read(device.place, capability.mask(), Width::Dword);
                } else if core::mem::replace(&mut used.is_held, held) != held {
                    device.apply_msi(&state);
                }
            }
            Kind::Msix { entry } => {
                let State { table, entries, .. } = &mut *state;
                if let (Some(table), Some(kept)) = (table, entries.get_mut(&entry)) {
                    kept.masked = masked;
                    if device.decodes_memory() {
                        table.mask(entry, masked);
                    }
                }
            }
        }
    }
}

impl core::fmt::Display for Message {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.kind {
            Kind::Msi { index, count } => write!(f, "MSI {index} of {count} of {}", self.device.place),
            Kind::Msix { entry } => write!(f, "MSI-X {entry} of {}", self.device.place),
        }
    }
}

impl PartialEq for Message {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.device, &other.device) && self.kind == other.kind
    }
}

/// What of the control word in the MSI-X capability is dom0's to decide.
pub(super) const MSIX_WISHES: u32 = (MSIX_ENABLE as u32 | MSIX_MASK_ALL as u32) << 16;

/// True when a write to these bytes concerns where registers are: the command register or a base-address register.
pub(super) const fn moves_registers(at: u16) -> bool {
    at & !3 == capability::COMMAND || capability::BARS <= at && at < capability::BARS_END
}
