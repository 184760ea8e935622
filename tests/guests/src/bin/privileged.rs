// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks the emulation of privileged instructions for a kernel in ring 3: CPUID by its forced prefix, the model-specific
//! registers a PV kernel may use, control and debug registers.
//!
//! What is on the list has its effect and RIP moves on; what is not is #GP(0) with nothing changed. CPUID hides what a
//! ring-3 kernel cannot use. Changes of control registers beyond the virtual ones are refused or dropped.
#![no_std]
#![no_main]

use core::sync::atomic::Ordering::SeqCst;
use pv::abi::{self, nr};
use pv::hypercall::*;
use pv::trap::Frame;
use pv::{check, equal, errno, mem, probe, report, user, vcpu};

pv::guest!(main);

fn main() {
    cpuid_leaves();
    cpuid_features();
    msrs();
    msr_refusals();
    control();
    debug();
    breakpoints();
    other();
    hypercall_page();
}

/// CPUID by the forced-emulation prefix: eax, ebx, ecx, edx.
fn cpuid(leaf: u32, sub: u32) -> [u32; 4] {
    let (a, b, c, d): (u64, u64, u64, u64);
    // SAFETY: the form that the hypervisor emulates.
    unsafe {
        core::arch::asm!(
            "mov {save}, rbx", "ud2", ".ascii \"xen\"", "cpuid", "xchg {save}, rbx",
            save = out(reg) b, inout("rax") 0xffff_ffff_0000_0000 | u64::from(leaf) => a,
            inout("rcx") 0xffff_ffff_0000_0000 | u64::from(sub) => c, out("rdx") d,
        );
    }
    check!(["cpuid-{leaf:#x}-upper-halves"], (a | b | c | d) >> 32 == 0, "{a:x} {b:x} {c:x} {d:x}");
    [a as u32, b as u32, c as u32, d as u32]
}

fn cpuid_leaves() {
    let [max, b, c, d] = cpuid(0x4000_0000, 0);
    check!("xen-leaf-signature", [b, c, d] == [0x566e_6558, 0x6558_4d4d, 0x4d4d_566e], "{b:x} {c:x} {d:x}");
    check!("xen-leaf-max", (0x4000_0002..=0x4000_00ff).contains(&max), "{max:#x}");
    equal!("xen-leaf-version", cpuid(0x4000_0001, 0)[0], 0x40011);
    let [a, b, c, _] = cpuid(0x4000_0002, 0);
    check!("xen-leaf-features", (a, b, c & 1) == (1, 0x4000_0000, 1), "{a:x} {b:x} {c:x}");
    let [_, b, _, _] = cpuid(0x4000_0005, 0);
    check!("xen-leaf-width", (20..=52).contains(&(b & 0xff)), "{b}");
    let [max, ..] = cpuid(0, 0);
    check!("basic-leaves", max >= 1, "{max:#x}");
    let [max, ..] = cpuid(0x8000_0000, 0);
    check!("extended-leaves", max >= 0x8000_0008, "{max:#x}");
    let [widths, ..] = cpuid(0x8000_0008, 0);
    check!("address-widths", (32..=52).contains(&(widths & 0xff)) && widths >> 8 & 0xff == 48, "{widths:#x}");
    let end = probe!("push rbx", "pushfq", "or qword ptr [rsp], 0x100", "popfq", "ud2", ".ascii \"xen\"", "cpuid";
        inout("eax") 0 => _, inout("ecx") 0 => _, out("edx") _);
    let right = end.is_some_and(|f| f.vector == 1 && f.rip == vcpu::current().resumed.get());
    check!("single-step-over-cpuid", right, "{end:x?}");
}

/// Bits that must be clear and bits that must be set.
fn cpuid_features() {
    let [_, _, c, d] = cpuid(1, 0);
    let ecx1 = [("monitor", 3), ("vmx", 5), ("smx", 6), ("pcid", 17), ("x2apic", 21), ("tsc-deadline", 24)];
    for (name, bit) in ecx1 {
        equal!(["hidden-{name}"], c >> bit & 1, 0);
    }
    for (name, bit) in [("vme", 1), ("pse", 3), ("pge", 13), ("pse36", 17)] {
        equal!(["hidden-{name}"], d >> bit & 1, 0);
    }
    equal!("shown-hypervisor", c >> 31, 1);
    for (name, bit) in [
        ("fpu", 0),
        ("tsc", 4),
        ("msr", 5),
        ("pae", 6),
        ("cx8", 8),
        ("apic", 9),
        ("cmov", 15),
        ("fxsr", 24),
        ("sse", 25),
        ("sse2", 26),
    ] {
        equal!(["shown-{name}"], d >> bit & 1, 1);
    }
    equal!("osxsave-like-xsave", c >> 27 & 1, c >> 26 & 1);
    let [_, b, c, _] = cpuid(7, 0);
    for (name, bit) in [("smep", 7), ("invpcid", 10), ("smap", 20)] {
        equal!(["hidden-{name}"], b >> bit & 1, 0);
    }
    for (name, bit) in [("umip", 2), ("pku", 3), ("ospke", 4), ("la57", 16)] {
        equal!(["hidden-{name}"], c >> bit & 1, 0);
    }
    let [_, _, c, d] = cpuid(0x8000_0001, 0);
    equal!("hidden-svm", c >> 2 & 1, 0);
    equal!("hidden-page1gb", d >> 26 & 1, 0);
    check!("shown-long-mode", d >> 29 & 1 == 1 && d >> 11 & 1 == 1 && d >> 20 & 1 == 1, "{d:#x}");
}

/// RDMSR; none when it traps.
fn rdmsr(msr: u32) -> Option<u64> {
    let (mut low, mut high) = (0u32, 0u32);
    let frame = probe!("rdmsr"; in("ecx") msr, inout("eax") low, inout("edx") high);
    frame.is_none().then_some(u64::from(high) << 32 | u64::from(low))
}

/// WRMSR; the trap, if there was one.
fn wrmsr(msr: u32, value: u64) -> Option<Frame> {
    probe!("wrmsr"; in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32)
}

fn is_gp(frame: Option<Frame>) -> bool {
    frame.is_some_and(|f| f.vector == 13 && f.error == 0)
}

fn msrs() {
    let page = mem::alloc();
    mem::entry(page, 0).store(0x1234, SeqCst);
    for (name, msr) in [("fs-base", 0xc000_0100), ("gs-base", 0xc000_0101), ("shadow-gs-base", 0xc000_0102)] {
        check!(["msr-{name}-write"], wrmsr(msr, page).is_none());
        equal!(["msr-{name}-read"], rdmsr(msr).unwrap_or(0), page);
        check!(["msr-{name}-non-canonical"], is_gp(wrmsr(msr, 1 << 63)));
        equal!(["msr-{name}-kept"], rdmsr(msr).unwrap_or(0), page);
    }
    let (fs, gs): (u64, u64);
    // SAFETY: both bases were set to a mapped page above.
    unsafe { core::arch::asm!("mov {}, fs:[0]", "mov {}, gs:[0]", out(reg) fs, out(reg) gs) };
    check!("msr-bases-used", (fs, gs) == (0x1234, 0x1234), "{fs:#x} {gs:#x}");
    let efer = rdmsr(0xc000_0080).unwrap_or(0);
    equal!("msr-efer", efer & 0x1d01, 0xd01);
    check!("msr-efer-unchanged", wrmsr(0xc000_0080, efer).is_none());
    equal!("msr-apic-base", rdmsr(0x1b).unwrap_or(0) & !0x400, 0xfee0_0900);
    equal!("msr-pat", rdmsr(0x277).unwrap_or(0), 0x0501_0007_0406);
    let (before, tsc, after) = (pv::time::tsc(), rdmsr(0x10).unwrap_or(0), pv::time::tsc());
    check!("msr-tsc", before <= tsc && tsc <= after, "{before} {tsc} {after}");
}

fn msr_refusals() {
    for msr in [0x1234_5678u32, 0xc000_0081, 0xc000_0082, 0xc000_0083, 0xc000_0084, 0x174, 0x175, 0x176, 0xc001_0117] {
        check!(["msr-{msr:#x}-write"], is_gp(wrmsr(msr, 0x1234)));
    }
    for msr in [0x1234_5678u32, 0x4000_1000, 0xda0, 0x802] {
        check!(["msr-{msr:#x}-read"], rdmsr(msr).is_none());
    }
    check!("msr-apic-base-write", is_gp(wrmsr(0x1b, 0)));
    check!("msr-pat-change", is_gp(wrmsr(0x277, 0)));
}

macro_rules! read_cr {
    ($cr:literal) => {{
        let mut value = u64::MAX;
        let frame = probe!(concat!("mov {v}, ", $cr); v = inout(reg) value);
        check!(["read-{}", $cr], frame.is_none(), "{frame:x?}");
        value
    }};
}

macro_rules! write_cr {
    ($cr:literal, $value:expr) => {
        probe!(concat!("mov ", $cr, ", {v}"); v = in(reg) $value)
    };
}

fn control() {
    let cr0 = read_cr!("cr0");
    equal!("cr0-bits", cr0 & 0x8001_0021, 0x8001_0021);
    equal!("cr0-ts-clear", cr0 & 8, 0);
    check!("cr0-set-ts", write_cr!("cr0", cr0 | 8).is_none());
    equal!("cr0-ts-set", read_cr!("cr0") & 8, 8);
    check!("cr0-ts-works", probe!("fnop").is_some_and(|f| f.vector == 7));
    check!("cr0-set-ts-again", write_cr!("cr0", cr0 | 8).is_none());
    check!("clts", probe!("clts").is_none());
    equal!("clts-cleared", read_cr!("cr0") & 8, 0);
    check!("clts-works", probe!("fnop").is_none());
    check!("cr0-other-bits", is_gp(write_cr!("cr0", cr0 & !(1 << 16))));
    equal!("cr0-unchanged", read_cr!("cr0"), cr0);
    check!("cr2-write", write_cr!("cr2", 0x1234_5000u64).is_none());
    equal!("cr2-value", read_cr!("cr2"), 0x1234_5000);
    let cr3 = mem::mfn(mem::l4()) << 12;
    equal!("cr3-value", read_cr!("cr3"), cr3);
    check!("cr3-write", write_cr!("cr3", cr3).is_none());
    let cr4 = read_cr!("cr4");
    equal!("cr4-bits", cr4 & 0x620, 0x620);
    check!("cr4-write", write_cr!("cr4", cr4 | 1 << 7 | 1 << 20 | 1 << 21).is_none());
    equal!("cr4-others-dropped", read_cr!("cr4") & (1 << 7 | 1 << 20 | 1 << 21), cr4 & (1 << 7 | 1 << 20 | 1 << 21));
    check!("cr4-restore", write_cr!("cr4", cr4).is_none());
    check!("cr8-refused", is_gp(probe!("mov {v}, cr8"; v = out(reg) _)));
    check!("lmsw-refused", is_gp(probe!("lmsw ax"; in("eax") 1)));
}

fn debug() {
    let mut dr7 = 0u64;
    check!("read-dr7", probe!("mov {v}, dr7"; v = inout(reg) dr7).is_none());
    equal!("dr7-at-start", dr7 & !0x400, 0);
    check!("write-dr0", probe!("mov dr0, {v}"; v = in(reg) 0x1234_5678u64).is_none());
    let mut dr0 = 0u64;
    check!("read-dr0", probe!("mov {v}, dr0"; v = inout(reg) dr0).is_none());
    equal!("dr0-value", dr0, 0x1234_5678);
    equal!("get-debugreg", hypercall1(nr::GET_DEBUGREG, 0), 0x1234_5678);
    errno!("set-debugreg-hole", hypercall2(nr::SET_DEBUGREG, 0, abi::HOLE.0), EPERM);
    errno!("set-debugreg-private", hypercall2(nr::SET_DEBUGREG, 1, 0xffff_8300_0000_0000), EPERM);
    errno!("set-debugreg-number", hypercall2(nr::SET_DEBUGREG, 9, 0), ENODEV);
    errno!("get-debugreg-number", hypercall1(nr::GET_DEBUGREG, 9), ENODEV);
    errno!("set-dr7-upper", hypercall2(nr::SET_DEBUGREG, 7, 1 << 32), EINVAL);
    errno!("set-dr7-gd", hypercall2(nr::SET_DEBUGREG, 7, 1 << 13), EPERM);
    errno!("set-dr6-upper", hypercall2(nr::SET_DEBUGREG, 6, 1 << 32), EINVAL);
    equal!("dr0-kept", hypercall1(nr::GET_DEBUGREG, 0), 0x1234_5678);
}

fn breakpoints() {
    let word = 0u64;
    let address = &raw const word as u64;
    errno!("breakpoint-address", hypercall2(nr::SET_DEBUGREG, 1, address), 0);
    errno!("breakpoint-dr6", hypercall2(nr::SET_DEBUGREG, 6, 0), 0);
    // L1; on a write of one of two bytes.
    errno!("breakpoint-dr7", hypercall2(nr::SET_DEBUGREG, 7, 0x0050_0004), 0);
    let frame = probe!("mov byte ptr [{p}], 1"; p = in(reg) address);
    check!("write-breakpoint", frame.is_some_and(|f| f.vector == 1), "{frame:x?}");
    let dr6 = hypercall1(nr::GET_DEBUGREG, 6);
    equal!("write-breakpoint-dr6", dr6 & 0xf, 2);
    errno!("breakpoint-off", hypercall2(nr::SET_DEBUGREG, 7, 0), 0);
    check!("write-breakpoint-off", probe!("mov byte ptr [{p}], 2"; p = in(reg) address).is_none());
}

fn other() {
    check!("wbinvd", probe!("wbinvd").is_none());
    check!("rdtsc", probe!("rdtsc"; out("eax") _, out("edx") _).is_none());
    for (name, frame) in [
        ("invd", probe!("invd")),
        ("rdpmc", probe!("rdpmc"; in("ecx") 0, out("eax") _, out("edx") _)),
        ("sysretq", probe!("sysretq"; in("rcx") user::NOWHERE, in("r11") 2)),
        ("mov-to-cr8", probe!("mov cr8, {v}"; v = in(reg) 0u64)),
        ("lidt", probe!("lidt [rax]"; in("rax") user::NOWHERE)),
        ("lldt", probe!("lldt ax"; in("eax") 0)),
    ] {
        check!(["refused-{name}"], frame.is_some_and(|f| matches!(f.vector, 6 | 13) && f.error == 0), "{frame:x?}");
    }
}

/// The hypercall page by its MSR, where the hypervisor has it for PV.
fn hypercall_page() {
    let page = mem::alloc();
    if wrmsr(0x4000_0000, mem::mfn(page) << 12).is_some() {
        return report::skip("hypercall-page-msr", "not offered");
    }
    check!("hypercall-page-msr", mem::entry(page, 4).load(SeqCst) != 0);
}
