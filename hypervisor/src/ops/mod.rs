// SPDX-License-Identifier: MIT OR Apache-2.0
//! The hypercalls, a family a file, and the table that finds them.

pub mod bitmap;
pub mod console_io;
pub mod domctl;
pub mod event_channel;
pub mod grant_table;
pub mod hypfs;
pub mod mca;
pub mod memory;
pub mod mmu;
pub mod physdev;
pub mod platform;
pub mod pmu;
pub mod registers;
pub mod sched;
pub mod sysctl;
pub mod vcpu;
pub mod version;

use hypercalls::HypercallNr;

use crate::dispatch::{Args, Hypercall, Outcome};
use crate::vcpu::Vcpu;

/// A line of the table: the handler behind a function that takes the arguments in registers, and the family's sub-operations.
macro_rules! family {
    ($name:literal, $handler:path, $subops:expr) => {
        table_line!($name, $handler, Some($subops))
    };
}

/// As `family`, for a hypercall without sub-operations.
macro_rules! line {
    ($name:literal, $handler:path) => {
        table_line!($name, $handler, None)
    };
}

macro_rules! table_line {
    ($name:literal, $handler:path, $subops:expr) => {{
        #[cfg(target_os = "none")]
        extern "C" fn entry(vcpu: &Vcpu, a: u64, b: u64, c: u64, d: u64, e: u64) -> i64 {
            $handler(vcpu, &[a, b, c, d, e]).into_raw(vcpu)
        }
        #[cfg(not(target_os = "none"))]
        fn entry(vcpu: &Vcpu, a: u64, b: u64, c: u64, d: u64, e: u64) -> i64 {
            $handler(vcpu, &[a, b, c, d, e]).into_raw(vcpu)
        }
        Some(Hypercall { name: $name, handler: entry, subops: $subops })
    }};
}

/// `iret` and `multicall` change more than RAX; `dispatch` runs them itself, and neither may be nested here.
fn nested(_: &Vcpu, _: &Args) -> Outcome {
    Outcome::Done(hypercalls::Errno::EINVAL.to_ret())
}

/// The hypercalls by number.
pub static TABLE: [Option<Hypercall>; HypercallNr::COUNT] = {
    let mut t = [None; HypercallNr::COUNT];
    t[0] = line!("set_trap_table", registers::set_trap_table);
    t[1] = line!("mmu_update", mmu::mmu_update);
    t[2] = line!("set_gdt", registers::set_gdt);
    t[3] = line!("stack_switch", registers::stack_switch);
    t[4] = line!("set_callbacks", registers::set_callbacks);
    t[5] = line!("fpu_taskswitch", registers::fpu_taskswitch);
    t[6] = family!("sched_op_compat", sched::sched_op_compat, &sched::COMPAT);
    t[7] = family!("platform_op", platform::platform_op, &platform::OPS);
    t[8] = line!("set_debugreg", registers::set_debugreg);
    t[9] = line!("get_debugreg", registers::get_debugreg);
    t[10] = line!("update_descriptor", registers::update_descriptor);
    t[12] = family!("memory_op", memory::memory_op, &memory::OPS);
    t[13] = line!("multicall", nested);
    t[14] = line!("update_va_mapping", mmu::update_va_mapping);
    t[15] = line!("set_timer_op", vcpu::set_timer_op);
    t[16] = line!("event_channel_op_compat", event_channel::event_channel_op_compat);
    t[17] = family!("xen_version", version::xen_version, &version::OPS);
    t[18] = family!("console_io", console_io::console_io, &console_io::OPS);
    t[20] = family!("grant_table_op", grant_table::grant_table_op, &grant_table::OPS);
    t[21] = line!("vm_assist", registers::vm_assist);
    t[22] = line!("update_va_mapping_otherdomain", mmu::update_va_mapping_otherdomain);
    t[23] = line!("iret", nested);
    t[24] = family!("vcpu_op", vcpu::vcpu_op, &vcpu::OPS);
    t[25] = line!("set_segment_base", registers::set_segment_base);
    t[26] = family!("mmuext_op", mmu::mmuext_op, &mmu::EXTENDED);
    t[29] = family!("sched_op", sched::sched_op, &sched::OPS);
    t[30] = family!("callback_op", registers::callback_op, &registers::CALLBACKS);
    t[32] = family!("event_channel_op", event_channel::event_channel_op, &event_channel::OPS);
    t[33] = family!("physdev_op", physdev::physdev_op, &physdev::OPS);
    t[35] = family!("sysctl", sysctl::sysctl, &sysctl::OPS);
    t[36] = family!("domctl", domctl::domctl, &domctl::OPS);
    t[40] = family!("xenpmu_op", pmu::xenpmu_op, &pmu::OPS);
    t[42] = family!("hypfs_op", hypfs::hypfs_op, &hypfs::OPS);
    t[48] = family!("mca", mca::mca, &mca::OPS);
    t
};
