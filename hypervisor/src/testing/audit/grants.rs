// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must hold of grants: both ends of each use agree, and nothing is mapped that is not granted.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;

use hypercalls::{DomId, Mfn};
use mm::invariants::{Foreign, Held};

use super::{Checked, is_privileged};
use crate::domain::Domain;
use crate::grants::active::{Pins, Use};

/// Returns the references that a domain's grants and mappings hold, those in its page tables aside.
pub(super) fn held_by(domain: &Domain) -> Vec<Held> {
    let mut held = Vec::new();
    domain.grants.for_each_active(|_, active| held.extend(active.page.iter().map(|p| Held::general(p.mfn()))));
    let devices = domain.grants.maptrack.lock();
    let devices = devices.iter().filter_map(|(_, m)| m.device.as_ref());
    held.extend(devices.map(
        |(_, refs)| {
            if refs.is_writable() { Held::typed(refs.mfn()) } else { Held::general(refs.mfn()) }
        },
    ));
    held
}

/// True when the domain has the frame mapped by a grant.
pub(super) fn are_mapped(id: DomId, mfn: Mfn) -> bool {
    crate::domain::find(id)
        .is_some_and(|d| d.grants.maptrack.lock().iter().any(|(_, m)| m.mfn == mfn && m.host.is_some()))
}

/// 3: of each frame of another's, a domain has no more entries than it has mappings of grants, nor more rights. It may have
/// fewer: it can overwrite an entry, and its handle is good for nothing then.
pub(super) fn check_entries(domains: &[Arc<Domain>], entries: Vec<Foreign>) -> Checked {
    let mut left: BTreeMap<(DomId, Mfn, bool), i64> = BTreeMap::new();
    for domain in domains {
        for (_, mapping) in domain.grants.maptrack.lock().iter() {
            if let Some(pin) = &mapping.host {
                *left.entry((domain.id, mapping.mfn, true)).or_default() += i64::from(pin.is_writable());
                *left.entry((domain.id, mapping.mfn, false)).or_default() += 1;
            }
        }
    }
    for entry in entries.into_iter().filter(|e| !is_privileged(e.tables)) {
        for writable in [true, false] {
            let count = left.entry((entry.tables, entry.mfn, writable)).or_default();
            *count -= i64::from(entry.writable || !writable);
            ensure!(*count >= 0, "3: not granted: {entry:?}");
        }
    }
    Ok(())
}

/// 6: the pins of every entry are those of the mappings that there are, and of nobody else.
pub(super) fn check_pins(domains: &[Arc<Domain>]) -> Checked {
    let mut expected: BTreeMap<(DomId, u32), (Pins, DomId, Mfn)> = BTreeMap::new();
    for domain in domains {
        ensure!(!domain.grants.maptrack.is_locked(), "handles of {} are locked", domain.id);
        for (handle, mapping) in domain.grants.maptrack.lock().iter() {
            ensure!(!mapping.is_over(), "6: {}: handle {handle} stands for nothing", domain.id);
            let device = mapping.device.as_ref().map(|(pin, _)| (pin, Use::device(pin.is_writable())));
            let host = mapping.host.as_ref().map(|pin| (pin, Use::host(pin.is_writable())));
            for (pin, how) in host.into_iter().chain(device) {
                let new = (Pins::default(), domain.id, mapping.mfn);
                let (pins, user, mfn) = expected.entry(pin.of()).or_insert(new);
                ensure!((*user, *mfn) == (domain.id, mapping.mfn), "6: {:?} is used by two", pin.of());
                ensure!(pins.add(how), "6: {:?} is used too often", pin.of());
            }
        }
    }
    for domain in domains {
        let mut found = Ok(());
        domain.grants.for_each_active(|gref, active| {
            let wanted = expected.remove(&(domain.id, gref));
            // The record of a table that is retired holds no frame any more.
            let frame = active.page.as_ref().map(|p| p.mfn());
            let fits = |mfn| frame == Some(mfn) || frame.is_none() && domain.dying.load(Relaxed);
            if wanted.is_none_or(|(pins, user, mfn)| (pins, user) != (active.pins, active.user) || !fits(mfn)) {
                found = Err(format!("6: {}: entry {gref} is {active:?}, but used as {wanted:?}", domain.id));
            }
        });
        found?;
    }
    ensure!(expected.is_empty(), "6: used, but nobody knows: {expected:?}");
    Ok(())
}
