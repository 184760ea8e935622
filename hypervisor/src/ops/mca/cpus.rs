// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the CPUs are, for whoever interprets records.

use arch::machine_check as registers;
use arch::{CpuId, cpu};
use hypercalls::mca::{McLogicalCpu, McMsr, McPhysCpuInfo};
use hypercalls::{Errno, Result};
use zerocopy::IntoBytes;

use super::Union;
use crate::cpus::Model;
use crate::ops::sysctl::{Answer, topology};
use crate::vcpu::Vcpu;
use crate::{guest, host, mca};

/// Says how many CPUs run, and what they are where there is a place for that.
pub(super) fn physcpuinfo(_: &Vcpu, payload: &mut Union) -> Result<Answer> {
    let mut a: McPhysCpuInfo = payload.get();
    let online = cpu::online();
    let mut count = online.count() as u32;
    if !a.info.is_null() {
        if a.ncpus == 0 {
            return Err(Errno::EINVAL);
        }
        count = count.min(a.ncpus);
        for (index, cpu) in online.iter().take(count as usize).enumerate() {
            guest::write_at(a.info, index as u64, &describe(cpu))?;
        }
    }
    a.ncpus = count;
    payload.put(&a);
    Ok(Answer::Back)
}

fn describe(cpu: CpuId) -> McLogicalCpu {
    let apic_id = cpu::apic_id(cpu);
    let place = host::topology().locate(apic_id);
    let (threads, cores) = topology::shape();
    let model = Model::here();
    let features = host::capabilities();
    let mut info = McLogicalCpu {
        cpunr: cpu.0.into(),
        chipid: place.socket,
        coreid: place.core as u16,
        threadid: host::topology().thread(apic_id) as u16,
        apicid: apic_id,
        // The number that the CPU had at reset.
        clusterid: apic_id & 0xff,
        ncores: cores,
        ncores_active: cores,
        nthreads: threads,
        cpuid_level: host::leaf(0, 0)[0].cast_signed(),
        family: model.family,
        vendor: vendor(&model.vendor),
        model: model.model,
        step: model.stepping,
        brandid: brand(),
        cpu_caps: features.first_chunk().copied().unwrap_or_default(),
        cache_size: cache_kib(),
        cache_alignment: (host::leaf(1, 0)[1] >> 8 & 0xff) * 8,
        nmsrvals: 1,
        ..McLogicalCpu::default()
    };
    info.vendorid.iter_mut().zip(model.vendor).for_each(|(to, from)| *to = from);
    info.msrvalues[0] = McMsr { reg: registers::CAPABILITIES.into(), value: mca::capabilities(cpu) };
    info
}

/// The vendor's number in this interface.
fn vendor(name: &[u8; 12]) -> u32 {
    match name {
        b"GenuineIntel" => 1,
        b"AuthenticAMD" => 2,
        b"CentaurHauls" => 4,
        b"  Shanghai  " => 8,
        b"HygonGenuine" => 16,
        _ => 0,
    }
}

/// The CPU's name, without the blanks before it.
fn brand() -> [u8; 64] {
    let words = [2, 3, 4].map(|n| host::leaf(0x8000_0000 + n, 0));
    let bytes = words.as_bytes();
    let blanks = bytes.iter().take_while(|byte| **byte == b' ').count();
    let mut name = [0; 64];
    name.iter_mut().zip(bytes.iter().skip(blanks)).for_each(|(to, from)| *to = *from);
    name
}

/// The size of the last level of caches, in KiB.
fn cache_kib() -> u32 {
    let level = |n| {
        let [a, b, c, _] = host::leaf(4, n);
        let size = u64::from((b >> 22) + 1) * u64::from((b >> 12 & 0x3ff) + 1) * u64::from((b & 0xfff) + 1);
        (a & 0x1f != 0).then(|| ((size * (u64::from(c) + 1)) >> 10) as u32)
    };
    // Where they are not listed, the second level's is told.
    (0..8).map_while(level).last().unwrap_or_else(|| host::leaf(0x8000_0006, 0)[2] >> 16)
}
