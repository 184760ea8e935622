// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is found by a small number: units by their own, groups by their place.

use alloc::vec::Vec;

use crate::budget::Group;
use crate::unit::Unit;
use crate::{GroupId, UnitId};

/// All units.
#[derive(Debug, Default)]
pub(crate) struct Units(Vec<Option<Unit>>);

impl Units {
    #[inline]
    pub(crate) fn get(&self, id: &UnitId) -> Option<&Unit> {
        self.0.get(id.0 as usize)?.as_ref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: &UnitId) -> Option<&mut Unit> {
        self.0.get_mut(id.0 as usize)?.as_mut()
    }

    pub(crate) fn insert(&mut self, id: UnitId, unit: Unit) {
        let index = id.0 as usize;
        if self.0.len() <= index {
            self.0.resize_with(index + 1, || None);
        }
        self.0[index] = Some(unit);
    }

    pub(crate) fn remove(&mut self, id: &UnitId) -> Option<Unit> {
        self.0.get_mut(id.0 as usize)?.take()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (UnitId, &Unit)> {
        (0..).map(UnitId).zip(&self.0).filter_map(|(id, unit)| Some((id, unit.as_ref()?)))
    }
}

/// A group's place in the table. It is the group's as long as the group has members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(usize);

/// All groups.
#[derive(Debug, Default)]
pub(crate) struct Groups(Vec<Option<(GroupId, Group)>>);

impl Groups {
    #[inline]
    pub(crate) fn get(&self, slot: &Slot) -> Option<&Group> {
        self.0.get(slot.0)?.as_ref().map(|(_, group)| group)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, slot: &Slot) -> Option<&mut Group> {
        self.0.get_mut(slot.0)?.as_mut().map(|(_, group)| group)
    }

    /// Finds a group by its number.
    pub(crate) fn find(&self, id: GroupId) -> Option<Slot> {
        self.0.iter().position(|entry| entry.as_ref().is_some_and(|(known, _)| *known == id)).map(Slot)
    }

    /// Finds a group or makes a new one.
    pub(crate) fn find_or_add(&mut self, id: GroupId) -> Slot {
        if let Some(slot) = self.find(id) {
            return slot;
        }
        let free = self.0.iter().position(Option::is_none).unwrap_or(self.0.len());
        if free == self.0.len() {
            self.0.push(None);
        }
        self.0[free] = Some((id, Group::default()));
        Slot(free)
    }

    pub(crate) fn remove(&mut self, slot: &Slot) {
        if let Some(entry) = self.0.get_mut(slot.0) {
            *entry = None;
        }
    }
}
