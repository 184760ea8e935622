// SPDX-License-Identifier: MIT OR Apache-2.0
//! The death of a domain: everything that it has is given back, in steps between which others run.
//!
//! First its vCPUs are stopped for good, and nothing more is taken in its name: memory, page tables, ports and grants say so
//! to whoever tries. Then what it has goes, in an order in which nobody is left with something that is gone: interrupts,
//! channels, roots and descriptors, its memory and with it its page tables, its mappings of others' grants, its grant table, the
//! pages that the hypervisor writes for it. Then it is *dead*; the tools are told. What others have mapped of it keeps it, as a number and as an account
//! of frames. With the last frame it is taken away from those that can be found, a grace period later it is buried: its units
//! and its number can be used again, and the tools are told once more.
//!
//! What must hold: whatever can be taken in a domain's name is refused before the step that gives it back.

use alloc::sync::Arc;
use core::sync::atomic::Ordering::SeqCst;

use hypercalls::{DomId, Errno, Result, Virq};

use crate::domain::{self, Domain};
use crate::grace::Ticket;
use crate::{console, events, host, initialise, pirq, schedule, timers};

/// How far a domain's death has got: what is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It is not dying.
    Alive,
    /// Its interrupts and channels.
    Channels,
    /// Roots and descriptors of the vCPUs from this one on.
    Vcpus(usize),
    /// Its memory.
    Memory,
    /// Its mappings of grants, whose page-table entries are gone.
    Mappings,
    /// Its grant table.
    Grants,
    /// The pages that are written for it.
    Pages,
    /// As soon as nobody writes them any more.
    Written(Option<Ticket>),
    /// It is dead.
    Dead,
}

/// Destroys a domain, or goes on with that. The caller's is another one.
///
/// # Errors
/// `ERESTART`: to be called again.
pub fn destroy(domain: &Domain) -> Result<()> {
    // Somebody else is at it: each step is done once.
    let mut stage = domain.death.try_lock().ok_or(Errno::ERESTART)?;
    while *stage != Stage::Dead {
        *stage = step(domain, *stage)?;
        if arch::cpu::preempt_pending() {
            return Err(Errno::ERESTART);
        }
    }
    Ok(())
}

/// Takes one step and returns the next.
fn step(domain: &Domain, stage: Stage) -> Result<Stage> {
    match stage {
        Stage::Alive => {
            stop(domain);
            Ok(Stage::Channels)
        }
        Stage::Channels => {
            pirq::relinquish(domain);
            events::close_all(domain)?;
            Ok(Stage::Vcpus(0))
        }
        Stage::Vcpus(index) => match domain.vcpus.get(index) {
            Some(vcpu) => {
                initialise::give_up_tables(vcpu)?;
                Ok(Stage::Vcpus(index + 1))
            }
            None => Ok(Stage::Memory),
        },
        Stage::Memory => {
            let ctx = domain.tables_ctx();
            let mut tables = domain.page_tables.lock();
            let result = tables.relinquish(&ctx);
            tables.finish(&ctx);
            result.map(|()| Stage::Mappings)
        }
        Stage::Mappings => {
            domain.grants.release_mappings()?;
            Ok(Stage::Grants)
        }
        Stage::Grants => {
            domain.grants.retire()?;
            Ok(Stage::Pages)
        }
        Stage::Pages => Ok(Stage::Written(leave_pages(domain))),
        Stage::Written(Some(ticket)) if !ticket.is_over() => Err(Errno::ERESTART),
        Stage::Written(_) => {
            finish(domain);
            Ok(Stage::Dead)
        }
        Stage::Dead => Ok(Stage::Dead),
    }
}

/// Stops the vCPUs for good, and lets nothing be taken in the domain's name.
fn stop(domain: &Domain) {
    log::debug!("d{} is being destroyed", domain.id.0);
    domain.dying.store(true, SeqCst);
    // Never taken back.
    domain.pause();
    domain.vcpus.iter().for_each(timers::stop_all);
    events::forget_virq_handler(domain.id);
    domain.account.begin_dying();
    domain.page_tables.lock().close();
}

/// Lets nobody write the pages any more that the hypervisor writes for the domain. Says when the last one has.
fn leave_pages(domain: &Domain) -> Option<Ticket> {
    let nobodys = host::dummy_info();
    // The page of its console may still be written until the later ticket's time.
    console::forget_guest(domain);
    domain.shared_slot.set(nobodys);
    domain.vcpus.iter().for_each(|vcpu| vcpu.info.set(nobodys));
    domain.shared_frame.replace(None)
}

fn finish(domain: &Domain) {
    for vcpu in &domain.vcpus {
        let frame = vcpu.info_frame.lock().take();
        drop(frame);
    }
    domain.dead.store(true, SeqCst);
    events::send_global_virq(Virq::DOM_EXC);
    // Its last frame may be gone already.
    arch::cpu::raise_here(arch::cpu::Work::BURY);
}

/// Takes dead domains that have no frame left away from those that can be found. Called with no lock held.
#[cold]
pub fn look() {
    for domain in domain::from(DomId(0)).filter(|domain| domain.dead.load(SeqCst)) {
        // Nobody who finds the same domain here has passed the grace period after which its number is free again.
        if !domain.account.has_frames() {
            domain::unpublish(domain.id);
        }
    }
}

/// Ends a domain that nobody can find any more, if it is dead: the units of its vCPUs and its number are free.
pub fn bury(domain: &Arc<Domain>) {
    if !domain.dead.load(SeqCst) {
        return;
    }
    // One that fired while it was stopped may have been armed again.
    domain.vcpus.iter().for_each(timers::stop_all);
    schedule::disown(domain);
    match domain.account.close() {
        Ok(()) => log::debug!("d{} is gone", domain.id.0),
        Err(error) => debug_assert!(false, "d{} is gone, its memory is not: {error:?}", domain.id.0),
    }
    events::send_global_virq(Virq::DOM_EXC);
}
