// SPDX-License-Identifier: MIT OR Apache-2.0
//! The rules of `docs/architecture.md`, checked over a whole world that stands still.
//!
//! Memory's are `mm`'s to check; here are what holds references from outside of it, grants, what the CPUs have loaded, and
//! events. A report begins with the number of the rule that is broken.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::sync::atomic::Ordering::Relaxed;

use arch::{CpuId, context, cpu};
use hypercalls::event::{FIFO_NR_CHANNELS, VirqScope};
use hypercalls::{DomId, Mfn, Virq};
use mm::invariants::{self, Held};

use crate::domain::Domain;
use crate::events::{Channel, State};
use crate::vcpu::Vcpu;
use crate::{current, domain, irq, lingering};

type Checked = Result<(), String>;

macro_rules! ensure {
    ($cond:expr, $($arg:tt)*) => {
        if !$cond {
            return Err(format!($($arg)*));
        }
    };
}

mod grants;

/// Checks every rule.
///
/// # Errors
/// The first that is broken, in words.
pub fn check(cpus: u16) -> Checked {
    let all: Vec<Arc<Domain>> = domain::from(DomId(0)).collect();
    let mut held: Vec<Held> = all.iter().flat_map(|d| &d.vcpus).flat_map(held_by).collect();
    held.extend(all.iter().filter_map(|d| d.pirqs.eoi_frame()).map(Held::typed));
    all.iter().for_each(|d| d.events.for_each_frame(|mfn| held.push(Held::typed(mfn))));
    held.extend(all.iter().filter_map(|d| d.console.with(|console| console.frame())).map(Held::typed));
    held.extend(all.iter().flat_map(|d| grants::held_by(d)));
    let foreign = RefCell::new(Vec::new());
    invariants::check(held, &|entry| {
        foreign.borrow_mut().push(entry);
        true
    })?;
    grants::check_entries(&all, foreign.take())?;
    grants::check_pins(&all)?;
    invariants::check_tlb()?;
    check_translations(cpus)?;
    for domain in &all {
        check_domain(domain)?;
    }
    let claims: u64 = all.iter().map(|d| d.account.claimed()).sum();
    ensure!(
        claims == mm::buddy::claimed_frames(),
        "{claims} frames are claimed, {} counted",
        mm::buddy::claimed_frames()
    );
    let here = cpu::this_cpu();
    let loaded = (0..cpus).map(|n| {
        cpu::set_this_cpu(CpuId(n));
        check_cpu().map(|()| u32::from(context::current() != 0))
    });
    let loaded: Result<Vec<u32>, String> = loaded.collect();
    cpu::set_this_cpu(here);
    let running = all.iter().flat_map(|d| &d.vcpus).filter(|v| v.status.running.load(Relaxed)).count();
    ensure!(
        running as u32 == loaded?.iter().sum::<u32>(),
        "{running} vCPUs say that they run, and the CPUs run others"
    );
    Ok(())
}

/// True when the domain may map all frames of others.
fn is_privileged(id: DomId) -> bool {
    domain::find(id).is_some_and(|d| d.privileged)
}

/// Returns the references that a vCPU holds.
fn held_by(vcpu: &Vcpu) -> Vec<Held> {
    let mut held: Vec<Mfn> = vcpu.info_frame.lock().iter().map(|f| f.mfn()).collect();
    let roots = vcpu.roots.lock();
    held.extend([&roots.kernel, &roots.user].into_iter().flatten().map(|r| r.mfn()));
    let tables = vcpu.descriptors.lock();
    held.extend(tables.gdt.iter().chain(&tables.ldt).flatten().map(|d| d.mfn()));
    held.into_iter().map(Held::typed).collect()
}

/// 5: what a CPU has cached leads to frames of the domain whose vCPU it runs, or to free ones.
fn check_translations(cpus: u16) -> Checked {
    let here = cpu::this_cpu();
    let runs: Vec<Option<DomId>> = (0..cpus)
        .map(|n| {
            cpu::set_this_cpu(CpuId(n));
            current::vcpu().map(|v| v.domid).or_else(|| lingering_in().map(|(domid, _)| domid))
        })
        .collect();
    cpu::set_this_cpu(here);
    for (on, va, cached) in arch::tlb::cached() {
        let Some(frame) = mm::page_info(cached.mfn).filter(|s| s.ram) else {
            continue;
        };
        let Some(domid) = runs.get(usize::from(on.0)).copied().flatten() else {
            return Err(format!("5: idle CPU {} has {va} cached", on.0));
        };
        let ours = frame.owner == domid || frame.owner == DomId::INVALID || is_privileged(domid);
        ensure!(
            ours || grants::are_mapped(domid, cached.mfn),
            "5: CPU {} runs d{domid} and reaches {} of {} at {va}",
            on.0,
            cached.mfn,
            frame.owner
        );
    }
    Ok(())
}

/// Follows cached translations from step to step.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Those that led to a free frame when they were looked at last.
    to_free: BTreeSet<u64>,
}

impl Watch {
    /// 5: a translation that led to a free frame is gone when that is used again.
    pub(super) fn check(&mut self) -> Checked {
        let mut to_free = BTreeSet::new();
        for (cpu, va, cached) in arch::tlb::cached() {
            let Some(frame) = mm::page_info(cached.mfn).filter(|s| s.ram) else {
                continue;
            };
            if frame.owner == DomId::INVALID {
                to_free.insert(cached.serial);
            } else {
                ensure!(
                    !self.to_free.contains(&cached.serial),
                    "5: CPU {} has {va} cached since {} was another's: {frame:?}",
                    cpu.0,
                    cached.mfn
                );
            }
        }
        self.to_free = to_free;
        Ok(())
    }
}

/// Checks what this CPU has loaded.
fn check_cpu() -> Checked {
    let me = cpu::this_cpu().0;
    let Some(vcpu) = current::vcpu() else {
        return check_idle(me);
    };
    let name = format!("d{}v{} on CPU {me}", vcpu.domid.0, vcpu.id.0);
    let roots = vcpu.roots.lock();
    let wanted = if context::kernel_mode() { &roots.kernel } else { &roots.user };
    let wanted = wanted.as_ref().map(|r| r.mfn());
    ensure!(Some(arch::guest::root()) == wanted, "2: {name}: CR3 is {}, held is {wanted:?}", arch::guest::root());
    ensure!(vcpu.status.running.load(Relaxed), "{name} does not know that it runs");
    ensure!(vcpu.status.cpu.load(Relaxed) == me, "{name} believes to run elsewhere");
    ensure!(cpu::vcpu_info() == vcpu.vcpu_info().address(), "{name}: the exit path looks at another vcpu_info");
    ensure!(vcpu.domain().account.dirty.load().contains(CpuId(me)), "5: {name} is not among the CPUs to flush");
    Ok(())
}

/// The domain, and the roots that its vCPU holds, in whose address space this idle CPU lingers.
fn lingering_in() -> Option<(DomId, [Mfn; 2])> {
    let unit = lingering::unit_of(cpu::this_cpu()).filter(|_| context::lingers())?;
    let mut found = None;
    crate::schedule::with_unit(unit, |vcpu| {
        let roots = vcpu.roots.lock();
        let held = |root: &Option<mm::RootRef>| root.as_ref().map_or(Mfn::INVALID, |root| root.mfn());
        found = Some((vcpu.domid, [held(&roots.kernel), held(&roots.user)]));
    });
    found
}

/// Checks what this CPU has loaded, which runs nothing.
fn check_idle(me: u16) -> Checked {
    let root = arch::guest::root();
    if !context::lingers() {
        ensure!(root == Mfn::INVALID, "idle CPU {me} has a guest's address space");
        return Ok(());
    }
    let Some((domid, held)) = lingering_in() else {
        return Err(format!("2: CPU {me} lingers in {root}, and nobody knows whose it is"));
    };
    ensure!(held.contains(&root), "2: CPU {me} lingers in {root} of d{}, held is {held:?}", domid.0);
    let is_dirty = domain::with(domid, |domain| domain.account.dirty.load().contains(CpuId(me)));
    ensure!(is_dirty == Some(true), "5: CPU {me} lingers in d{} and is not among the CPUs to flush", domid.0);
    Ok(())
}

fn check_domain(domain: &Domain) -> Checked {
    ensure!(!domain.page_tables.is_locked() && !domain.events.is_locked(), "a lock of {} is held", domain.id);
    let mut owned = 0;
    for n in 0..mm::frame::end() {
        let mine = mm::page_info(Mfn(n)).is_some_and(|s| s.ram && s.owner == domain.id && !s.special);
        owned += u64::from(mine);
    }
    ensure!(owned == domain.account.owned(), "7: {} owns {owned} frames, not {}", domain.id, domain.account.owned());
    let pollers = domain.vcpus.iter().filter(|v| v.status.polling.load(Relaxed)).count() as u64;
    ensure!(pollers == domain.pollers.load(Relaxed), "{}: {pollers} poll, {:?} are counted", domain.id, domain.pollers);
    for vcpu in &domain.vcpus {
        check_vcpu(vcpu)?;
    }
    check_pirqs(domain)?;
    check_events(domain)
}

fn check_vcpu(vcpu: &Vcpu) -> Checked {
    let name = format!("d{}v{}", vcpu.domid.0, vcpu.id.0);
    let roots = vcpu.roots.lock();
    for (what, word, held) in [("kernel", &vcpu.kernel_root, &roots.kernel), ("user", &vcpu.user_root, &roots.user)] {
        let held = held.as_ref().map_or(Mfn::INVALID, |r| r.mfn());
        ensure!(word.load(Relaxed) == held.0, "2: {name}: {what} root {word:?}, but {held} is held");
    }
    let tables = vcpu.descriptors.lock();
    for (page, held) in tables.gdt.iter().enumerate() {
        let (mapped, held) = (vcpu.window.gdt_page(page), held.as_ref().map(|h| h.mfn()));
        ensure!(mapped == held, "2: {name}: GDT page {page} is {mapped:?}, but {held:?} is held");
    }
    for (page, held) in tables.ldt.iter().enumerate() {
        let (mapped, held) = (vcpu.window.ldt_page(page), held.as_ref().map(|h| h.mfn()));
        ensure!(mapped == held, "2: {name}: LDT page {page} is {mapped:?}, but {held:?} is held");
    }
    for number in 0..hypercalls::event::NR_VIRQS {
        check_virq(vcpu, Virq(number))?;
    }
    Ok(())
}

fn check_virq(vcpu: &Vcpu, virq: Virq) -> Checked {
    let port = vcpu.virq_port(virq).load(Relaxed);
    if port == 0 {
        return Ok(());
    }
    let channel = vcpu.domain().events.get(port);
    let bound = channel.is_some_and(|c| c.state == State::Virq(virq));
    ensure!(bound, "6: d{}v{}: port {port} should be {virq:?}, but is {channel:?}", vcpu.domid.0, vcpu.id.0);
    Ok(())
}

/// 6: every interrupt that is bound has its port.
fn check_pirqs(domain: &Domain) -> Checked {
    let mut checked = Ok(());
    domain.pirqs.for_each(|pirq, irq, port| {
        let channel = domain.events.get(port);
        let listeners = irq::get(irq).map_or(0, |i| i.listeners().filter(|l| *l == (domain.id, pirq)).count());
        let bound = channel.is_some_and(|c| c.state == State::Pirq(pirq)) && listeners == 1;
        if checked.is_ok() && !(bound || port == 0 && listeners == 0) {
            checked = Err(format!("6: {}: PIRQ {pirq} (IRQ {irq}) has port {port} ({channel:?})", domain.id));
        }
    });
    checked
}

/// 6: every port has one state, and both ends agree.
fn check_events(domain: &Domain) -> Checked {
    let all: Vec<(u32, Channel)> = domain.events.iter().collect();
    for (port, channel) in all {
        let name = format!("6: {}: port {port} ({channel:?})", domain.id);
        ensure!(port != 0 && port < FIFO_NR_CHANNELS, "{name}: no such port");
        let Some(vcpu) = domain.vcpu(channel.vcpu) else {
            return Err(format!("{name}: no such vCPU"));
        };
        match channel.state {
            State::Interdomain { remote, port: there } => {
                let other = domain::find(remote).and_then(|d| d.events.get(there));
                let back = State::Interdomain { remote: domain.id, port };
                ensure!(other.is_some_and(|o| o.state == back), "{name}: the other end is {other:?}");
            }
            State::Virq(virq) => {
                let holder = if virq.scope() == Some(VirqScope::Vcpu) { Some(vcpu) } else { domain.vcpus.first() };
                let known = holder.is_some_and(|v| v.virq_port(virq).load(Relaxed) == port);
                ensure!(known, "{name}: its vCPU does not know");
            }
            State::Pirq(pirq) => {
                // A port whose PIRQ was unmapped stays, silent.
                let listens = domain.pirqs.irq(pirq).is_some_and(|irq| irq.listeners().any(|l| l == (domain.id, pirq)));
                ensure!(domain.pirqs.port(pirq) != port || listens, "{name}: the interrupt does not know");
            }
            State::Closed => return Err(format!("{name}: closed, yet found")),
            State::Unbound { .. } | State::Ipi | State::Console => {}
        }
    }
    Ok(())
}
