// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks the emulation of writes to page tables: with the assist `writable_pagetables` on, an instruction that writes
//! to a read-only mapped L1 table has the effect it would have on ordinary memory, on the entry, on registers and on
//! flags, provided that the new entry is one the domain may have.
//!
//! Each form is executed twice with the same operands, on an ordinary word and on a page-table entry, and the outcomes
//! are compared. What cannot be emulated (a bad new entry, a misaligned or too wide write, a table above L1) is a page fault of the guest with error code 3, and changes nothing.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
use pv::abi::{index, mmuext, nr, pte};
use pv::hypercall::*;
use pv::{check, equal, errno, events, mem, probe};

pv::guest!(main);

/// vm_assist type of the emulation; commands enable and disable.
const WRITABLE_PAGETABLES: u64 = 2;

fn main() {
    errno!("assist-on", hypercall2(nr::VM_ASSIST, 0, WRITABLE_PAGETABLES), 0);
    let bench = Bench::new();
    stores(&bench);
    logic(&bench);
    bits(&bench);
    exchanges(&bench);
    strings(&bench);
    effects(&bench);
    refused(&bench);
}

/// Registers and flags after an instruction.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Outcome {
    memory: u64,
    rax: u64,
    rdx: u64,
    rdi: u64,
    flags: u64,
}

/// An L1 table of our own, one of its slots, and two pages to map there.
struct Bench {
    window: u64,
    table: u64,
    slot: usize,
    pages: [u64; 2],
}

impl Bench {
    fn new() -> Self {
        let window = mem::alloc();
        let entry = mem::l1_entry(window);
        Self { window, table: entry.table, slot: index(window, 1), pages: [mem::alloc(), mem::alloc()] }
    }
    fn entry(&self) -> &'static AtomicU64 {
        mem::entry(self.table, self.slot)
    }
    /// An entry as the hypervisor would leave it, so that it reads back as written.
    fn value(&self, page: usize, flags: u64) -> u64 {
        mem::reference(self.pages[page], pte::P | pte::U | pte::A | pte::GUEST_KERNEL | flags)
    }
    /// Executes `code` on an ordinary word and on the entry, both holding `old`, and compares.
    fn compare(
        &self,
        name: &str,
        old: u64,
        rax: u64,
        rdx: u64,
        mask: u64,
        code: impl Fn(&AtomicU64, u64, u64) -> Outcome,
    ) {
        let ordinary = AtomicU64::new(old);
        mem::remap(self.window, old);
        let place = |word: &AtomicU64, outcome: Outcome| Outcome {
            memory: word.load(SeqCst),
            rdi: outcome.rdi.wrapping_sub(word.as_ptr() as u64),
            flags: outcome.flags & mask,
            ..outcome
        };
        let wanted = place(&ordinary, code(&ordinary, rax, rdx));
        let got = place(self.entry(), code(self.entry(), rax, rdx));
        check!(["{name}"], got == wanted, "got {got:x?}, expected {wanted:x?}");
    }
}

/// Status flags that every form below defines.
const ALL: u64 = 0x8d5;
/// Without AF, which the logic instructions leave undefined.
const LOGIC: u64 = 0x8c5;
/// CF alone, which is what the bit tests define.
const CARRY: u64 = 1;

macro_rules! form {
    ($bench:expr, $code:literal, $old:expr, $rax:expr, $rdx:expr, $mask:expr) => {
        $bench.compare($code, $old, $rax, $rdx, $mask, |word, rax, rdx| {
            let (mut rax, mut rdx, mut rdi, mut flags) = (rax, rdx, word.as_ptr() as u64, 0x2d5u64);
            let source = rdx;
            // SAFETY: writes the word behind RDI, directly or through the hypervisor.
            unsafe {
                core::arch::asm!(
                    "push {f}", "popfq", $code, "pushfq", "pop {f}",
                    f = inout(reg) flags, inout("rax") rax, inout("rdx") rdx, inout("rdi") rdi,
                    inout("rsi") &raw const source => _,
                );
            }
            Outcome { memory: 0, rax, rdx, rdi, flags }
        })
    };
}

fn stores(bench: &Bench) {
    let old = bench.value(0, pte::RW | pte::D);
    let new = bench.value(1, 0);
    let gone = old & !pte::P;
    form!(bench, "mov [rdi], rax", old, new, 0, ALL);
    form!(bench, "mov [rdi], rdx", 0, 0, new, ALL);
    form!(bench, "mov [rdi], eax", old, old & !pte::RW, 0, ALL);
    form!(bench, "mov [rdi], ax", old, old & !pte::RW, 0, ALL);
    form!(bench, "mov [rdi], al", old, old & !pte::RW, 0, ALL);
    form!(bench, "mov [rdi], ah", gone, 0x6600, 0, ALL);
    form!(bench, "mov qword ptr [rdi], 0", old, 0, 0, ALL);
    form!(bench, "mov dword ptr [rdi], 0x1230", gone, 0, 0, ALL);
    form!(bench, "mov word ptr [rdi], 0x4560", gone, 0, 0, ALL);
    form!(bench, "mov byte ptr [rdi], 0x64", old, 0, 0, ALL);
    form!(bench, "mov [rdi + 4], eax", old, old >> 32 | 1 << 31, 0, ALL);
    form!(bench, "mov [rdi + 6], ax", old, old >> 48 | 1 << 15, 0, ALL);
    form!(bench, "mov [rdi + 7], al", old, old >> 56 | 1 << 7, 0, ALL);
    form!(bench, "mov [rdi + 1], al", old, old >> 8 | 2, 0, ALL);
    form!(bench, "mov [rdi + rdx * 8 - 8], rax", old, new, 1, ALL);
}

fn logic(bench: &Bench) {
    let old = bench.value(0, pte::RW | pte::D);
    let gone = 0x0123_4567_89ab_cde8;
    form!(bench, "and [rdi], rax", old, !pte::RW, 0, LOGIC);
    form!(bench, "lock and [rdi], rax", old, !pte::RW, 0, LOGIC);
    form!(bench, "lock and qword ptr [rdi], -3", old, 0, 0, LOGIC);
    form!(bench, "and dword ptr [rdi], 0xfffffffd", old, 0, 0, LOGIC);
    form!(bench, "and byte ptr [rdi], 0xfd", old, 0, 0, LOGIC);
    form!(bench, "or [rdi], rax", old, pte::NX, 0, LOGIC);
    form!(bench, "lock or dword ptr [rdi], 0x200", old, 0, 0, LOGIC);
    form!(bench, "or word ptr [rdi], ax", old, 0x400, 0, LOGIC);
    form!(bench, "xor [rdi], rax", old, pte::RW | pte::D, 0, LOGIC);
    form!(bench, "lock xor byte ptr [rdi], 2", old, 0, 0, LOGIC);
    form!(bench, "add [rdi], rax", gone, 0xffff_ffff_0000_0000, 0, ALL);
    form!(bench, "lock add [rdi], rax", gone, 0x1000, 0, ALL);
    form!(bench, "add byte ptr [rdi], 2", gone, 0, 0, ALL);
    form!(bench, "adc [rdi], rax", gone, 0x1001, 0, ALL);
    form!(bench, "sub [rdi], rax", gone, 0x1000, 0, ALL);
    form!(bench, "lock sub dword ptr [rdi], 0x10", gone, 0, 0, ALL);
    form!(bench, "sbb [rdi], rax", gone, 0x1001, 0, ALL);
    form!(bench, "inc word ptr [rdi + 2]", gone, 0, 0, ALL);
    form!(bench, "lock dec word ptr [rdi + 2]", gone, 0, 0, ALL);
    form!(bench, "not dword ptr [rdi + 4]", gone, 0, 0, ALL);
    form!(bench, "neg word ptr [rdi + 4]", gone, 0, 0, ALL);
}

fn bits(bench: &Bench) {
    let old = bench.value(0, pte::RW | pte::D);
    form!(bench, "bts qword ptr [rdi], 9", old, 0, 0, CARRY);
    form!(bench, "lock bts qword ptr [rdi], 63", old, 0, 0, CARRY);
    form!(bench, "lock bts [rdi], rax", old, 10, 0, CARRY);
    form!(bench, "btr qword ptr [rdi], 1", old, 0, 0, CARRY);
    form!(bench, "lock btr qword ptr [rdi], 1", old, 0, 0, CARRY);
    form!(bench, "lock btr [rdi], rax", old, 6, 0, CARRY);
    form!(bench, "lock btr dword ptr [rdi], 5", old, 0, 0, CARRY);
    form!(bench, "lock btr qword ptr [rdi], 0", old, 0, 0, CARRY);
    form!(bench, "btc qword ptr [rdi], 11", old, 0, 0, CARRY);
    form!(bench, "lock btc [rdi], rax", old, 1, 0, CARRY);
}

fn exchanges(bench: &Bench) {
    let old = bench.value(0, pte::RW | pte::D);
    let new = bench.value(1, pte::RW);
    let gone = old & !pte::P;
    form!(bench, "xchg [rdi], rax", old, 0, 0, ALL);
    form!(bench, "xchg [rdi], rdx", 0, 0, new, ALL);
    form!(bench, "xchg [rdi], eax", old, old & !pte::RW, 0, ALL);
    form!(bench, "xchg [rdi], al", old, old & !pte::RW, 0, ALL);
    form!(bench, "cmpxchg [rdi], rdx", old, old, new, ALL);
    form!(bench, "lock cmpxchg [rdi], rdx", old, old, 0, ALL);
    form!(bench, "lock cmpxchg [rdi], rdx", old, old ^ pte::A, new, ALL);
    form!(bench, "cmpxchg [rdi], rdx", old, 0, new, ALL);
    form!(bench, "lock cmpxchg [rdi], edx", old, old & 0xffff_ffff, old & !pte::RW, ALL);
    form!(bench, "lock cmpxchg [rdi], edx", old, 0x1111, old & !pte::RW, ALL);
    form!(bench, "lock cmpxchg byte ptr [rdi], dl", old, old & 0xff, old & !pte::RW, ALL);
    form!(bench, "xadd [rdi], rax", gone, 0x1000, 0, ALL);
    form!(bench, "lock xadd [rdi], rax", gone, 0x1_0000_0000, 0, ALL);
    form!(bench, "lock xadd [rdi], eax", gone, 0x1000, 0, ALL);
}

fn strings(bench: &Bench) {
    let old = bench.value(0, pte::RW | pte::D);
    let new = bench.value(1, pte::RW);
    form!(bench, "stosq", old, new, 0, ALL);
    form!(bench, "stosd", old, old & !pte::RW, 0, ALL);
    form!(bench, "stosb", old, old & !pte::RW, 0, ALL);
    form!(bench, "movsq", old, 0, new, ALL);
}

/// An emulated write counts references like any other update.
fn effects(bench: &Bench) {
    let [one, two] = bench.pages;
    mem::entry(one, 0).store(1, SeqCst);
    mem::entry(two, 0).store(2, SeqCst);
    bench.entry().store(bench.value(1, pte::RW | pte::D), SeqCst);
    errno!("effect-flush", mmuext_op(mmuext::INVLPG_LOCAL, bench.window, 0), 0);
    equal!("effect-mapped", mem::entry(bench.window, 0).load(SeqCst), 2);
    // The page is mapped writable twice now: without its own mapping it still is.
    mem::make_ro(two);
    errno!("effect-counted", mmuext_op(mmuext::PIN_L1, mem::mfn(two), 0), EINVAL);
    bench.entry().store(bench.value(1, 0), SeqCst);
    mem::entry(two, 0).load(SeqCst);
    errno!("effect-dropped-flush", mmuext_op(mmuext::INVLPG_LOCAL, bench.window, 0), 0);
    let frame = probe!("mov [{p}], al"; p = in(reg) bench.window);
    check!("effect-read-only", frame.is_some_and(|f| f.vector == 14 && f.error == 3), "{frame:x?}");
    errno!("effect-clear-page", mmuext_op(mmuext::CLEAR_PAGE, mem::mfn(two), 0), 0);
    errno!("effect-uncounted", mmuext_op(mmuext::PIN_L1, mem::mfn(two), 0), 0);
    errno!("effect-unpin", mmuext_op(mmuext::UNPIN, mem::mfn(two), 0), 0);
    mem::make_rw(two);
    bench.entry().store(bench.value(0, pte::RW) & !(pte::U | pte::GUEST_KERNEL), SeqCst);
    let adjusted = bench.entry().load(SeqCst) & (pte::U | pte::GUEST_KERNEL | pte::G);
    equal!("effect-adjusted", adjusted, pte::U | pte::GUEST_KERNEL);
}

macro_rules! fault {
    ($name:literal, $address:expr, $($probe:tt)+) => {{
        let address: u64 = $address;
        let frame = $($probe)+;
        let right = frame.is_some_and(|f| f.vector == 14 && f.error == 3) && events::cr2() == address;
        check!($name, right, "cr2 {:#x} {:x?}", events::cr2(), frame);
    }};
}

fn refused(bench: &Bench) {
    let old = bench.value(0, pte::RW | pte::D);
    mem::remap(bench.window, old);
    let at = bench.entry().as_ptr() as u64;
    let table = mem::reference(bench.table, pte::P | pte::RW | pte::U);
    fault!("refused-writable-table", at, probe!("mov [{p}], {v}"; p = in(reg) at, v = in(reg) table));
    fault!("refused-lock-or", at, probe!("lock or [{p}], {v}"; p = in(reg) at, v = in(reg) 1u64 << 51));
    fault!("refused-misaligned", at + 4, probe!("mov [{p} + 4], rax"; p = in(reg) at, in("rax") 0));
    fault!("refused-misaligned-word", at + 1, probe!("mov [{p} + 1], ax"; p = in(reg) at, in("ax") 0));
    fault!("refused-16-bytes", at & !15, probe!("movups [{p}], xmm0"; p = in(reg) at & !15));
    equal!("refused-unchanged", bench.entry().load(SeqCst), old);
    let l2 = mem::walk_from(mem::l4(), bench.window, 2).map_or(0, |e| e.table + 8 * index(bench.window, 2) as u64);
    fault!("refused-l2", l2, probe!("mov [{p}], {v}"; p = in(reg) l2, v = in(reg) 0u64));
    let l4 = mem::l4() + 8 * 300;
    fault!("refused-l4", l4, probe!("mov [{p}], {v}"; p = in(reg) l4, v = in(reg) 0u64));
    let page = mem::alloc();
    mem::make_ro(page);
    fault!("refused-no-table", page, probe!("mov [{p}], {v}"; p = in(reg) page, v = in(reg) 0u64));
    check!("allowed-again", probe!("mov [{p}], {v}"; p = in(reg) at, v = in(reg) old).is_none());
}
