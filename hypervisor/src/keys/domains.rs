// SPDX-License-Identifier: MIT OR Apache-2.0
//! The keys that tell about domains and their vCPUs.

use core::fmt::{self, Write as _};
use core::sync::atomic::Ordering::Relaxed;

use hypercalls::shared_info::vcpu_offset;
use hypercalls::vcpu::Runstate;
use hypercalls::{Mfn, VcpuId, Virq};

use super::memory::Limit;
use super::text::{line, part};
use super::{Place, Text, patiently};
use crate::domain::{self, Domain};
use crate::events;
use crate::vcpu::Vcpu;

/// Tells about every domain and each of its vCPUs, and asks their kernels to say something.
pub(super) fn all(at: u64, to: &mut Text) -> Option<u64> {
    let Place { domain: id, item } = Place::of(at);
    let domain = domain::next(id)?;
    // Item 0 is the domain, each further one a vCPU.
    let item = if domain.id == id { item } else { 0 };
    match item.checked_sub(1) {
        None => about_domain(&domain, to),
        Some(vcpu) => match domain.vcpu(VcpuId(vcpu)) {
            Some(vcpu) => {
                about_vcpu(vcpu, to);
                events::send_vcpu_virq(vcpu, Virq::DEBUG);
            }
            None => return Place::behind(domain.id),
        },
    }
    Place::at(domain.id, item + 1)
}

struct Flag(&'static str, bool);

/// Writes the names of what is so.
fn flags(to: &mut Text, all: &[Flag]) {
    for Flag(name, _) in all.iter().filter(|flag| flag.1) {
        part!(to, " {name}");
    }
}

fn about_domain(domain: &Domain, to: &mut Text) {
    part!(to, "domain {}:", domain.id.0);
    flags(
        to,
        &[
            Flag("privileged", domain.privileged),
            Flag("dying", domain.dying.load(Relaxed)),
            Flag("shut down", domain.is_shut_down.load(Relaxed)),
        ],
    );
    if domain.is_shut_down.load(Relaxed) {
        part!(to, " (reason {})", domain.shutdown_code.load(Relaxed));
    }
    line!(to, " pause count {}, {} vCPUs", domain.pause_count.load(Relaxed), domain.vcpus.len());
    line!(to, "  {} of {} pages", domain.account.owned(), Limit(domain.account.maximum()));
    line!(to, "  shared info in {}, assists {:#x}", domain.shared_info().mfn(), domain.assist.load(Relaxed));
    part!(to, "  CPUs that may hold translations:");
    line!(to, "{}", Cpus(domain.account.dirty.load()));
    line!(to, "  {} event channels", domain.events.iter().count());
    if domain.page_tables.is_locked() {
        line!(to, "  its page tables are being changed");
    }
}

/// CPU numbers, as a list.
struct Cpus(arch::CpuMask);

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str(" none");
        }
        self.0.iter().try_for_each(|cpu| write!(f, " {}", cpu.0))
    }
}

fn about_vcpu(vcpu: &Vcpu, to: &mut Text) {
    let status = &vcpu.status;
    part!(to, "  vCPU {} (unit {}) on CPU {}:", vcpu.id.0, vcpu.unit, status.cpu.load(Relaxed));
    flags(
        to,
        &[
            Flag("running", status.running.load(Relaxed)),
            Flag("blocked", status.blocked.load(Relaxed)),
            Flag("polling", status.polling.load(Relaxed)),
            Flag("down", status.down.load(Relaxed)),
            Flag("never initialised", !status.initialised.load(Relaxed)),
            Flag("NMI pending", vcpu.nmi_pending.load(Relaxed)),
            Flag("NMI masked", vcpu.nmi_masked.load(Relaxed)),
            Flag("failsafe due", vcpu.failsafe_due.load(Relaxed)),
        ],
    );
    let info = vcpu.vcpu_info();
    line!(
        to,
        " upcall pending {} masked {} selector {:#x}",
        info.u8(vcpu_offset::EVTCHN_UPCALL_PENDING).load(Relaxed),
        info.u8(vcpu_offset::EVTCHN_UPCALL_MASK).load(Relaxed),
        info.u64(vcpu_offset::EVTCHN_PENDING_SEL).load(Relaxed)
    );
    if status.down.load(Relaxed) {
        return;
    }
    line!(
        to,
        "    kernel root {} user root {} GDT {} LDT {} entries, IOPL {}",
        vcpu.kernel_mfn(),
        Mfn(vcpu.user_root.load(Relaxed)),
        vcpu.gdt_entries.load(Relaxed),
        vcpu.ldt_entries.load(Relaxed),
        vcpu.iopl.load(Relaxed)
    );
    match patiently(&vcpu.runstate) {
        Some(account) => {
            let info = account.info(arch::time::now());
            let ms = |state: Runstate| info.time.get(state.0 as usize).map_or(0, |ns| ns / 1_000_000);
            line!(
                to,
                "    {} ms running, {} ms waiting, {} ms blocked, {} ms down; periodic timer {} us",
                ms(Runstate::RUNNING),
                ms(Runstate::RUNNABLE),
                ms(Runstate::BLOCKED),
                ms(Runstate::OFFLINE),
                vcpu.period.load(Relaxed) / 1000
            );
        }
        None => line!(to, "    account of time: busy"),
    }
}

/// Tells about the grant table of every domain.
pub(super) fn grants(at: u64, to: &mut Text) -> Option<u64> {
    let domain = domain::next(Place::of(at).domain)?;
    let grants = &domain.grants;
    line!(
        to,
        "domain {}: grant table version {}, {} of {} frames",
        domain.id.0,
        grants.version(),
        grants.frames(),
        grants.limits().frames
    );
    Place::behind(domain.id)
}
