// SPDX-License-Identifier: MIT OR Apache-2.0
//! Building domains: dom0 from a kernel image, and what its kernel finds when it starts.

use std::mem::offset_of;
use std::sync::atomic::Ordering::Relaxed;

use hypercalls::start_info::{StartInfo, VgaConsoleInfo};
use hypercalls::{GuestVa, HypercallNr, Mfn, Pfn};
use hypervisor::construct::{Dom0, Failure};
use hypervisor::io_rights::IoRights;
use hypervisor::testing::kernel::{self, ENTRY, HYPERCALL_PAGE, START, TEXT, VIRT_BASE};
use hypervisor::testing::{World, guest};

const PAGES: u64 = 2048;
const INITRD: [u8; 5000] = [0xa5; 5000];

fn dom0(kernel: &[u8], pages: u64) -> Result<World, Failure> {
    let from = Dom0 {
        kernel,
        initrd: &INITRD,
        cmdline: "root=/dev/none quiet",
        pages,
        max_pages: pages,
        vcpus: 2,
        screen: Some(VgaConsoleInfo::text(16, (3, 4), 25, 80)),
        io: IoRights::none(),
    };
    World::from_image(from, 2 * PAGES)
}

fn bytes<const N: usize>(at: u64) -> [u8; N] {
    let mut bytes = [0; N];
    arch::guest::copy_from(&mut bytes, GuestVa(at)).expect("mapped");
    bytes
}

#[test]
fn dom0_finds_its_kernel_and_all_that_it_was_told() {
    let mut world = dom0(&kernel::image(), PAGES).expect("a good image");
    world.check();
    world.go_back().expect("dom0 runs");
    let regs = world.registers();
    assert_eq!((regs.rip, regs.cs, regs.ss), (ENTRY, 0xe033, 0xe02b));
    for at in [0, 1, 0xfff, 0x2000, 0x2fff, TEXT - 1] {
        assert_eq!(bytes::<1>(VIRT_BASE + START + at as u64), [kernel::text(at)], "byte {at:#x} of the text");
    }
    assert_eq!(bytes::<4>(HYPERCALL_PAGE + 17 * 32), *b"\x51\x41\x53\xb8");
    assert_eq!(bytes::<64>(VIRT_BASE + START + TEXT as u64), [0; 64], "what is only in memory is zero");
    let info = regs.rsi;
    assert_eq!(bytes::<20>(info), *b"xen-3.0-x86_64p\0\0\0\0\0");
    let field = |offset: usize| guest::read(info + offset as u64);
    assert_eq!(field(offset_of!(StartInfo, nr_pages)), PAGES);
    assert_eq!(field(offset_of!(StartInfo, shared_info)), world.guests[0].domain.shared_info().mfn().maddr().0);
    assert_eq!(field(offset_of!(StartInfo, mod_len)), INITRD.len() as u64);
    assert_eq!(bytes::<21>(info + offset_of!(StartInfo, cmd_line) as u64), *b"root=/dev/none quiet\0");
    let [offset, size] = [0, 4].map(|at| bytes::<4>(info + offset_of!(StartInfo, console) as u64 + at));
    assert_eq!(size_of::<VgaConsoleInfo>() as u32, u32::from_le_bytes(size));
    let screen = info + u64::from(u32::from_le_bytes(offset));
    assert_eq!(bytes::<14>(screen), [3, 0, 0, 0, 16, 0, 3, 0, 4, 0, 25, 0, 80, 0], "text, as the C structure has it");
    let p2m = field(offset_of!(StartInfo, mfn_list));
    for pfn in [0, 1, START >> 12, PAGES - 1] {
        let mfn = Mfn(guest::read(p2m + pfn * 8));
        assert_eq!(mm::m2p::get(mfn), Some(Pfn(pfn)));
        assert!(world.guests[0].p2m.contains(&mfn));
    }
    assert!(guest::write(regs.rsp - 8, &[1; 8]), "the stack can be written");
    assert!(!guest::write(field(offset_of!(StartInfo, pt_base)), &[1; 8]), "page tables cannot");
    assert_eq!(world.call(HypercallNr::XEN_VERSION, [0; 5]), 4 << 16 | 17);
    world.check();
    world.finish();
}

/// Registers, events, assists and page tables as a kernel may count on at its first instruction.
#[test]
fn dom0_starts_as_kernels_expect() {
    let mut world = dom0(&kernel::image(), PAGES).expect("a good image");
    let vcpu = world.go_back().expect("dom0 runs");
    let regs = world.registers();
    assert_eq!(regs.rflags, 0x202);
    let others = [regs.rax, regs.rbx, regs.rcx, regs.rdx, regs.rdi, regs.rbp, regs.r8, regs.r9, regs.r10, regs.r11];
    assert_eq!((others, [regs.r12, regs.r13, regs.r14, regs.r15]), ([0; 10], [0; 4]));
    assert_eq!((arch::context::current_selectors(), arch::context::kernel_mode()), ([0; 4], true));
    assert_eq!(arch::fpu::guest_read(0), 0x7f, "FCW");
    assert_eq!([arch::fpu::guest_read(24), arch::fpu::guest_read(25)], [0x80, 0x1f], "MXCSR");
    let tables = vcpu.descriptors.lock();
    assert!(tables.gdt.iter().chain(&tables.ldt).all(Option::is_none), "no descriptor tables");
    drop(tables);
    assert!(vcpu.traps.iter().all(|trap| trap.entry.address.load(Relaxed) == 0), "no handlers");
    for entry in [&vcpu.event, &vcpu.failsafe, &vcpu.syscall, &vcpu.sysenter, &vcpu.syscall32] {
        assert_eq!(entry.address.load(Relaxed), 0);
    }
    assert_eq!(vcpu.user_root.load(Relaxed), Mfn::INVALID.0);
    assert_eq!(vcpu.period.load(Relaxed), 10_000_000, "a tick of 100 Hz");
    let domain = &world.guests[0].domain;
    assert_eq!(domain.assist.load(Relaxed), 1 << 3, "what the note PAE_MODE asks for");
    for vcpu in 0..32 {
        assert_eq!(domain.shared_info().u8(vcpu * 64 + 1).load(Relaxed), 1, "events of vCPU {vcpu} are masked");
    }
    let info = |offset: usize| guest::read(regs.rsi + offset as u64);
    assert_eq!(info(offset_of!(StartInfo, flags)) as u32, 1 | 2 | 8, "privileged, the first, the initrd by its PFN");
    for absent in [offset_of!(StartInfo, store_mfn), offset_of!(StartInfo, store_evtchn)] {
        assert_eq!(info(absent) as u32, 0);
    }
    // What maps the tables is read-only, all else of the boot mapping can be written; PFNs and addresses go together.
    let (pt_base, pt_frames) = (info(offset_of!(StartInfo, pt_base)), info(offset_of!(StartInfo, nr_pt_frames)));
    let first = Mfn(vcpu.kernel_root.load(Relaxed));
    assert_eq!(mm::m2p::get(first), Some(Pfn((pt_base - VIRT_BASE) >> 12)));
    let end = regs.rsp.next_multiple_of(4096) + 0x8_0000;
    for va in (VIRT_BASE..end).step_by(4096) {
        let is_table = (pt_base..pt_base + pt_frames * 4096).contains(&va);
        let walk = mm::walk(first, GuestVa(va));
        let mfn = walk.mapped().expect("mapped to half a MiB behind the stack");
        assert_eq!(mm::m2p::get(mfn), Some(Pfn((va - VIRT_BASE) >> 12)), "{va:#x}");
        assert_eq!(walk.entries[0] & 2 == 0, is_table, "{va:#x}");
        assert_eq!(walk.entries.map(|entry| entry & 0x84), [4; 4], "for ring 3, and no large page at {va:#x}");
    }
    assert!(guest::write(regs.rsp - 64, &[0; 8]));
    assert_eq!(world.call(HypercallNr::XEN_VERSION, [6, regs.rsp - 64, 0, 0, 0]), 0);
    let features: u64 = 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 11 | 1 << 13 | 1 << 17;
    assert_eq!(guest::read(regs.rsp - 64), features << 32);
    world.check();
    world.finish();
}

#[test]
fn images_that_are_none_are_refused_in_words() {
    for (image, words) in
        [(&b""[..], "truncated"), (&[0x5a; 4096], "not a kernel"), (&kernel::image()[..300], "cannot be")]
    {
        let failure = dom0(image, PAGES).expect_err("no kernel").to_string();
        assert!(failure.contains(words), "{failure}");
    }
    let failure = dom0(&kernel::image(), 64).expect_err("too small").to_string();
    assert!(failure.contains("too little memory"), "{failure}");
    let failure = dom0(&kernel::image(), 3 * PAGES).expect_err("too large").to_string();
    assert!(failure.contains("not enough memory"), "{failure}");
}

#[test]
fn kernels_register_handlers_and_start_their_second_vcpus() {
    for cpus in [1, 2, 3] {
        let mut world = World::new(cpus);
        world.check();
        world.boot_kernels();
        world.check();
        let mut seen = [[false; 2]; 2];
        for n in 0..200 {
            world.go_to(n % cpus);
            arch::entry::take_interrupts();
            if let Some(vcpu) = world.go_back() {
                seen[usize::from(vcpu.domid.0)][vcpu.id.0 as usize] = true;
                world.call(HypercallNr::SCHED_OP, [0; 5]);
            }
            world.check();
            arch::time::advance(10_000_000);
        }
        assert_eq!(seen, [[true; 2]; 2], "every vCPU runs on {cpus} CPUs");
        world.finish();
    }
}
