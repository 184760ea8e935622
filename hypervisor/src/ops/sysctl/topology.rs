// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where things are: CPUs in cores and sockets, memory and devices in nodes. There is one node.

use arch::{CpuId, cpu};
use hypercalls::sysctl_args::*;
use hypercalls::{Mfn, Payload, Result};
use mm::{buddy, frame};

use super::Answer;
use crate::guest;
use crate::host;
use crate::topology::Location;
use crate::vcpu::Vcpu;

const NODE: u32 = 0;
/// The distance from a node to itself.
const LOCAL: u32 = 10;

fn location(cpu: CpuId) -> Location {
    host::topology().locate(cpu::state(cpu).apic_id)
}

/// Returns how many threads a core has, and how many cores a socket, as far as CPUs are on line; by the first CPU.
pub(in crate::ops) fn shape() -> (u32, u32) {
    let first = location(CpuId(0));
    let all = cpu::online();
    let on_line = || all.iter().map(location).filter(|l| l.socket == first.socket);
    let threads = on_line().filter(|l| l.core == first.core).count().max(1);
    ((threads as u32), (on_line().count() / threads).max(1) as u32)
}

/// Says where each CPU is, or only how many there are when there is nowhere to say it.
pub(super) fn cpus(_: &Vcpu, payload: &mut Payload) -> Result<Answer> {
    let mut a: CpuTopoInfo = payload.get();
    let online = cpu::online();
    let mut count = online.iter().last().map_or(0, |last| u32::from(last.0) + 1);
    if !a.cputopo.is_null() {
        count = count.min(a.num_cpus);
        for number in 0..count {
            let cpu = CpuId(number as u16);
            let topo = if online.contains(cpu) {
                let Location { core, socket } = location(cpu);
                CpuTopo { core, socket, node: NODE }
            } else {
                CpuTopo { core: XEN_INVALID_CORE_ID, socket: XEN_INVALID_SOCKET_ID, node: XEN_INVALID_NODE_ID }
            };
            guest::write_at(a.cputopo, u64::from(number), &topo)?;
        }
    }
    a.num_cpus = count;
    payload.put(&a);
    Ok(Answer::Back)
}

/// Says what memory each node has and how far it is to the others, or only how many nodes there are.
pub(super) fn nodes(_: &Vcpu, payload: &mut Payload) -> Result<Answer> {
    let mut a: NumaInfo = payload.get();
    let mut count = 1;
    if !a.meminfo.is_null() || !a.distance.is_null() {
        count = count.min(a.num_nodes);
    }
    if count == 1 && !a.meminfo.is_null() {
        let bytes = |frames| Mfn(frames).maddr().0;
        let memory = MemInfo { memsize: bytes(frame::end()), memfree: bytes(buddy::frames_for_domains()) };
        guest::write(a.meminfo, &memory)?;
    }
    if count == 1 && !a.distance.is_null() {
        guest::write(a.distance, &LOCAL)?;
    }
    a.num_nodes = count;
    payload.put(&a);
    Ok(Answer::Back)
}

/// Devices that are looked at in one call; the caller asks again for the rest.
const DEVICES: u32 = 256;

/// Says in which node each of a list of devices is.
pub(super) fn devices(_: &Vcpu, payload: &mut Payload) -> Result<Answer> {
    let mut a: PciTopoInfo = payload.get();
    let count = a.num_devs.min(DEVICES);
    for index in 0..u64::from(count) {
        let _device = guest::read_at(a.devs, index)?;
        // None has been announced as belonging to a node.
        guest::write_at(a.nodes, index, &XEN_INVALID_DEV)?;
    }
    a.num_devs = count;
    payload.put(&a);
    Ok(Answer::Back)
}
