// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tearing domains down, so that a test can see whether every frame comes back.

use core::sync::atomic::Ordering::SeqCst;

use arch::cpu;
use hypercalls::Errno;

use crate::current;
use crate::domain::Domain;
use crate::vcpu::{Descriptors, Vcpu};

/// Takes the vCPU that this CPU runs off it, for good.
pub(super) fn unload() {
    let Some(vcpu) = current::vcpu() else { return };
    vcpu.context.lock().save();
    vcpu.domain().account.dirty.remove(cpu::this_cpu());
    vcpu.status.running.store(false, SeqCst);
}

/// Gives up everything that a domain owns. None of its vCPUs runs.
pub(super) fn relinquish(domain: &Domain) {
    domain.account.begin_dying();
    crate::pirq::relinquish(domain);
    while domain.grants.release_mappings().is_err() {}
    while domain.grants.retire().is_err() {}
    // No CPU runs any more: one look at each ends the grace period.
    while crate::events::close_all(domain) == Err(Errno::ERESTART) {
        let here = cpu::this_cpu();
        for cpu in cpu::online().iter() {
            cpu::set_this_cpu(cpu);
            crate::grace::pass();
        }
        cpu::set_this_cpu(here);
    }
    domain.vcpus.iter().for_each(|vcpu| give_back(domain, vcpu));
    let ctx = domain.tables_ctx();
    let mut tables = domain.page_tables.lock();
    while let Err(error) = tables.relinquish(&ctx) {
        assert_eq!(error, Errno::ERESTART, "only for want of time is relinquishing put off");
    }
    tables.finish(&ctx);
}

fn give_back(domain: &Domain, vcpu: &Vcpu) {
    let mut tables = domain.page_tables.lock();
    let ctx = domain.tables_ctx();
    let mut roots = vcpu.roots.lock();
    let held = [roots.kernel.take(), roots.user.take()];
    drop(roots);
    for root in held.into_iter().flatten() {
        tables.put_root(&ctx, root);
    }
    tables.finish(&ctx);
    *vcpu.descriptors.lock() = Descriptors::default();
    vcpu.info.set(crate::host::dummy_info());
    vcpu.info_frame.lock().take();
}
