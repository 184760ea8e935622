// SPDX-License-Identifier: MIT OR Apache-2.0
//! The functions that dom0 has told of.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;

use hypercalls::{Errno, Result};
use mm::Lock;
use spin::rwlock::RwLock;

use super::Place;
use super::capability::{self, Msi, Msix, Space};
use super::config;
use super::msi::State;
use crate::emulate::Width;
use crate::{irq, pirq, rank};

/// More functions than any machine has.
const MOST: usize = 1 << 16;

/// What dom0 says of a function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// An extended function, beyond the eighth.
    pub is_extfn: bool,
    /// A virtual function of the one at this bus and device and function.
    pub physfn: Option<(u8, u8)>,
    /// Where it is nearest to.
    pub node: Option<u32>,
}

/// A function.
#[derive(Debug)]
pub struct Device {
    /// Where it is.
    pub place: Place,
    /// What dom0 said of it.
    pub info: Info,
    pub(super) msi: Option<Msi>,
    pub(super) msix: Option<Msix>,
    pub(super) state: Lock<State>,
}

/// The configuration space of a function.
pub(super) struct Config(pub(super) Place);

impl Space for Config {
    fn read(&self, at: u16, width: Width) -> u32 {
        config::read(self.0, at, width)
    }
}

static DEVICES: RwLock<BTreeMap<Place, Arc<Device>>, arch::sync::Relax> = RwLock::new(BTreeMap::new());

/// Returns a function that was told of.
pub fn find(place: Place) -> Option<Arc<Device>> {
    DEVICES.read().get(&place).cloned()
}

/// Takes note of a function. Its messages are off, and the table of its MSI-X is found and guarded. One that is known stays
/// as it is.
///
/// # Errors
/// `EINVAL` when there is nothing at that place, `ENOMEM`.
pub fn add(place: Place, info: Info) -> Result<()> {
    if find(place).is_some() {
        return Ok(());
    }
    let space = Config(place);
    if space.dword(0) == u32::MAX && info.physfn.is_none() {
        return Err(Errno::ENODEV);
    }
    let (msi, msix) = (Msi::read(&space), Msix::read(&space));
    let device = Arc::new(Device { place, info, msi, msix, state: Lock::new(rank::PCI, State::default()) });
    device.silence();
    device.find_table();
    let mut devices = DEVICES.write();
    if devices.len() >= MOST {
        return Err(Errno::ENOMEM);
    }
    devices.entry(place).or_insert(device);
    Ok(())
}

/// Forgets a function, with all its messages.
///
/// # Errors
/// `ENODEV` when it is not known.
pub fn remove(place: Place) -> Result<()> {
    let device = find(place).ok_or(Errno::ENODEV)?;
    for number in irq::of_device(&device) {
        pirq::unmap_everywhere(number);
    }
    device.state.lock().forget();
    DEVICES.write().remove(&place);
    Ok(())
}

/// Returns the function that comes so many places behind the first.
pub(super) fn nth(n: usize) -> Option<Arc<Device>> {
    DEVICES.read().values().nth(n).cloned()
}

impl Device {
    pub(super) fn config(&self) -> Config {
        Config(self.place)
    }

    /// Returns how many messages of MSI it can send.
    pub fn most_msi(&self) -> u8 {
        self.msi.map_or(0, |msi| msi.most)
    }

    /// True while the function answers to memory accesses.
    pub(super) fn decodes_memory(&self) -> bool {
        let command = self.config().word(capability::COMMAND);
        command != 0xffff && command & capability::COMMAND_MEMORY != 0
    }
}

/// Forgets all, for a new machine.
#[cfg(not(target_os = "none"))]
pub(super) fn forget_all() {
    DEVICES.write().clear();
}
