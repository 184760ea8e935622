// SPDX-License-Identifier: MIT OR Apache-2.0
//! Measures what domains cost that have to do with each other, in instructions, as `bench` does for one.
//!
//! The other domain is a few instructions long and runs on the same CPU. Where both run, a figure is the least mean of many
//! batches, less the instructions of the two guests: it holds all that the hypervisor executes in a whole turn.
#![no_std]
#![no_main]

use core::sync::atomic::Ordering::SeqCst;
use pv::abi::{MmuUpdate, nr, pte};
use pv::domain::{self, CODE, Domain, Image, domctl, simple};
use pv::grants::{self, COPY_DEST_GREF, COPY_SOURCE_GREF, Copy, End, Map, Setup, Unmap, gtf, map, status};
use pv::hypercall::*;
use pv::measure::{RUNS, calibrate, raw, show, ticks};
use pv::time::tsc;
use pv::{equal, errno, events, mem, report, trap};

pv::guest!(main, init_p2m);

/// Entries of a list.
const BATCH: usize = 16;
/// Pages of the domain that is given memory and loses it.
const PAGES: usize = 1024;
/// The first grant that is used.
const FIRST: usize = 8;

core::arch::global_asm!(
    ".pushsection .text.benchdomains, \"ax\"",
    // What the other domain executes, at `CODE`: it blocks, and answers each event. 12 instructions a turn, and the two
    // hypercalls.
    "bench_answer:",
    "mov edi, 1",
    "xor esi, esi",
    "mov eax, 29",
    "syscall",
    "jmp bench_answer",
    "bench_answer_upcall:",
    "mov byte ptr [0x402000], 0",
    "xor eax, eax",
    "xchg [0x402008], rax",
    "lock btr qword ptr [0x402800], 1",
    "mov edi, 4",
    "mov esi, 0x401000",
    "mov eax, 32",
    "syscall",
    "mov esp, 0x402000",
    "jmp bench_answer",
    // Or it counts its turns in the word at `DATA` + 8. 5 instructions, and the hypercall.
    "bench_turn:",
    "inc qword ptr [0x401008]",
    "xor edi, edi",
    "xor esi, esi",
    "mov eax, 29",
    "syscall",
    "jmp bench_turn",
    "bench_code_end:",
    // bench_ask(turns, port, shared info, the port's bit): sends an event and blocks until the answer is there. 13
    // instructions a turn, and two hypercalls.
    "bench_ask:",
    "push rbx",
    "push r12",
    "push r13",
    "push r14",
    "mov rbx, rdi",
    "mov r12, rsi",
    "mov r13, rdx",
    "mov r14, rcx",
    "2: mov edi, 4",
    "mov rsi, r12",
    "mov eax, 32",
    "syscall",
    "3: mov edi, 1",
    "xor esi, esi",
    "mov eax, 29",
    "syscall",
    "jmp 3b",
    "bench_ask_upcall:",
    "mov rsp, [rsp + 40]",
    "mov byte ptr [r13], 0",
    "xor eax, eax",
    "xchg [r13 + 8], rax",
    "lock btr [r13 + 0x800], r14",
    "dec rbx",
    "jnz 2b",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbx",
    "ret",
    // bench_yield(turns). 5 instructions a turn, and the hypercall.
    "bench_yield:",
    "push rbx",
    "mov rbx, rdi",
    "2: xor edi, edi",
    "xor esi, esi",
    "mov eax, 29",
    "syscall",
    "dec rbx",
    "jnz 2b",
    "pop rbx",
    "ret",
    ".popsection",
);

unsafe extern "C" {
    static bench_answer: u64;
    static bench_answer_upcall: u8;
    static bench_turn: u8;
    static bench_code_end: u8;
    static bench_ask_upcall: u8;
    fn bench_ask(turns: u64, port: *const u32, shared_info: u64, bit: u64);
    fn bench_yield(turns: u64);
}

fn main() {
    calibrate();
    let (page, context) = (mem::alloc(), mem::alloc_contiguous(2));
    round_trips(page, context);
    turns(page, context);
    let domain = built(page, context, &raw const bench_turn);
    let mut frames: [u64; BATCH] = core::array::from_fn(|n| 100 + n as u64);
    equal!("populate", domain::populate(domain.id, &mut frames), BATCH as i64);
    foreign(domain.id, &frames);
    grant_maps(page, domain.id, &frames);
    grant_copies(domain.id);
    mem::make_rw(page);
    end(domain.id);
    lives();
}

/// Builds the other domain.
fn built(page: u64, context: u64, start: *const u8) -> Domain {
    let first = &raw const bench_answer as u64;
    let at = |symbol: *const u8| symbol as u64 - first + CODE;
    let words = (&raw const bench_code_end as u64 - first).div_ceil(8) as usize;
    // SAFETY: the instructions above, and a few bytes of those behind them.
    let code = unsafe { core::slice::from_raw_parts(first as *const u64, words) };
    let image = Image { code, data: 1, start: at(start), upcall: at(&raw const bench_answer_upcall) };
    match domain::build(page, context, &image) {
        Ok(domain) => domain,
        Err(what) => report::abort("build", format_args!("{what} failed")),
    }
}

fn end(id: u64) {
    errno!("destroy", simple(domctl::DESTROY, id, 0), 0);
    equal!("gone", u8::from(domain::gone(id)), 1);
}

/// An event to the other domain and its answer, both domains blocking in between: two sends, two blocks, two switches and two
/// upcalls.
fn round_trips(page: u64, context: u64) {
    const TURNS: u64 = 16;
    let domain = built(page, context, (&raw const bench_answer).cast());
    // EVTCHNOP_alloc_unbound: { dom, remote_dom, port }.
    let mut unbound = [domain.id as u32, 0];
    errno!("alloc-unbound", event_channel_op(6, &mut unbound), 0);
    equal!("port-of-the-other", unbound[1], 1);
    // EVTCHNOP_bind_interdomain: { remote_dom, remote_port, local_port }.
    let mut bind = [domain.id as u32, unbound[1], 0];
    errno!("bind-interdomain", event_channel_op(0, &mut bind), 0);
    let port = bind[2];
    errno!("register-event", trap::register(0, 0, &raw const bench_ask_upcall as u64), 0);
    errno!("unpause", simple(domctl::UNPAUSE, domain.id, 0), 0);
    for _ in 0..100 {
        hypercall2(nr::SCHED_OP, 0, 0);
    }
    events::pending().store(0, SeqCst);
    events::selector().store(0, SeqCst);
    events::port_pending(port).store(0, SeqCst);
    events::unmask_port(port);
    let word = events::shared_info() + u64::from(port / 64) * 8;
    // SAFETY: sends through a port that is bound and waits for events on no other.
    let ask = |turns| raw(|| unsafe { bench_ask(turns, &raw const port, word, u64::from(port % 64)) });
    let cost = ask(2 * TURNS) - ask(TURNS);
    show("event-round-trip", cost * 10 / TURNS - 250);
    events::mask_port(port);
    trap::install();
    end(domain.id);
}

/// Both domains yield: half of what lies between two turns of the other.
fn turns(page: u64, context: u64) {
    let domain = built(page, context, &raw const bench_turn);
    errno!("map-data", domain::map(page, domain.frames[5], domain.id), 0);
    errno!("unpause", simple(domctl::UNPAUSE, domain.id, 0), 0);
    let counter = mem::entry(page, 1);
    let mut least = u64::MAX;
    let base = raw(|| ());
    for _ in 0..RUNS {
        let (first, start) = (counter.load(SeqCst), tsc());
        // SAFETY: calls the hypervisor only.
        unsafe { bench_yield(BATCH as u64) };
        let end = tsc();
        let turns = counter.load(SeqCst) - first;
        if turns != 0 {
            let own = 5 * (BATCH as u64 + turns);
            least = least.min((end - start - base - own) * 10 / (2 * turns));
        }
    }
    show("domain-switch", least);
    mem::make_rw(page);
    end(domain.id);
}

/// Maps and unmaps frames of the other domain by `mmu_update`.
fn foreign(id: u64, frames: &[u64; BATCH]) {
    let window = mem::alloc_contiguous(BATCH);
    let requests = |value: &dyn Fn(usize) -> u64| {
        core::array::from_fn::<_, BATCH, _>(|n| {
            let ptr = mem::l1_entry(window + n as u64 * mem::PAGE).maddr;
            MmuUpdate { ptr, val: value(n) }
        })
    };
    let (none, all) = (requests(&|_| 0), requests(&|n| frames[n] << 12 | pte::KERNEL_RW));
    let call = |list: &[MmuUpdate; BATCH]| hypercall4(nr::MMU_UPDATE, list.as_ptr() as u64, BATCH as u64, 0, id);
    errno!("foreign-clear", call(&none), 0);
    let (mapped, unmapped) = pair(|| call(&all) == 0, || call(&none) == 0);
    show("foreign-map-entry", mapped * 10 / BATCH as u64);
    show("foreign-unmap-entry", unmapped * 10 / BATCH as u64);
}

/// Returns the least ticks of two steps that undo each other.
fn pair(mut there: impl FnMut() -> bool, mut back: impl FnMut() -> bool) -> (u64, u64) {
    let (mut first, mut second) = (u64::MAX, u64::MAX);
    let base = raw(|| ());
    for _ in 0..RUNS {
        let start = tsc();
        let went = there();
        let middle = tsc();
        let came = back();
        let end = tsc();
        if !went || !came {
            report::abort("pair", format_args!("refused: {went} {came}"));
        }
        first = first.min(middle - start - base);
        second = second.min(end - middle - base);
    }
    (first, second)
}

/// Writes the other domain's grants of these frames, and maps them by host address where nothing is mapped.
fn grant_maps(page: u64, id: u64, frames: &[u64; BATCH]) {
    let mut table = [0u64; 1];
    let mut setup = Setup { dom: id as u16, nr_frames: 1, status: 9, list: table.as_mut_ptr() as u64 };
    errno!("setup-table", grants::one(grants::op::SETUP_TABLE, &mut setup), 0);
    errno!("map-table", domain::map(page, table[0], id), 0);
    for (n, frame) in frames.iter().enumerate() {
        mem::entry(page, FIRST + n).store(frame << 32 | gtf::PERMIT_ACCESS, SeqCst);
    }
    let window = mem::alloc_contiguous(BATCH);
    let place = |n: usize| window + n as u64 * mem::PAGE;
    (0..BATCH).for_each(|n| mem::remap(place(n), 0));
    for (name, count) in [("1", 1), ("entry", BATCH)] {
        let mut maps: [Map; BATCH] = core::array::from_fn(|n| Map {
            host_addr: place(n),
            flags: map::HOST,
            gref: (FIRST + n) as u32,
            dom: id as u16,
            status: 9,
            ..Map::default()
        });
        let (mut map, mut unmap) = (u64::MAX, u64::MAX);
        let base = raw(|| ());
        for _ in 0..RUNS {
            let start = tsc();
            let mapped = grants::list(grants::op::MAP, &mut maps[..count]);
            let end = tsc();
            map = map.min(end - start - base);
            let mut unmaps: [Unmap; BATCH] = core::array::from_fn(|n| Unmap {
                host_addr: place(n),
                handle: maps[n].handle,
                status: 9,
                ..Unmap::default()
            });
            let start = tsc();
            let unmapped = grants::list(grants::op::UNMAP, &mut unmaps[..count]);
            let end = tsc();
            unmap = unmap.min(end - start - base);
            let good = maps[..count].iter().all(|m| m.status == status::OKAY)
                && unmaps[..count].iter().all(|u| u.status == status::OKAY);
            if mapped != 0 || unmapped != 0 || !good {
                report::abort("grant-map", format_args!("{mapped} {unmapped} {:?}", maps[0]));
            }
        }
        show(format_args!("grant-map-{name}"), map * 10 / count as u64);
        show(format_args!("grant-unmap-{name}"), unmap * 10 / count as u64);
    }
}

/// Copies out of the other domain's grants, and into them.
fn grant_copies(id: u64) {
    let own = mem::alloc();
    let (here, there) =
        (End { frame: mem::mfn(own), dom: 0x7ff0, ..End::default() }, End { dom: id as u16, ..End::default() });
    for (name, count, len, flags) in [
        ("from-64-bytes-1", 1, 64, COPY_SOURCE_GREF),
        ("from-64-bytes-entry", BATCH, 64, COPY_SOURCE_GREF),
        ("to-64-bytes-entry", BATCH, 64, COPY_DEST_GREF),
        ("from-1500-bytes-entry", BATCH, 1500, COPY_SOURCE_GREF),
        ("from-4096-bytes-entry", BATCH, 4096, COPY_SOURCE_GREF),
    ] {
        let mut list: [Copy; BATCH] = core::array::from_fn(|n| {
            let granted = End { frame: (FIRST + n) as u64, ..there };
            let (source, dest) = if flags == COPY_SOURCE_GREF { (granted, here) } else { (here, granted) };
            Copy { source, dest, len, flags, status: 9, pad: 0 }
        });
        let cost = ticks(|| {
            grants::list(grants::op::COPY, &mut list[..count]);
        });
        equal!(["copy-{name}"], list[..count].iter().filter(|copy| copy.status != status::OKAY).count(), 0);
        show(format_args!("grant-copy-{name}"), cost * 10 / count as u64);
    }
}

/// Domains that never run: created with a vCPU, given pages, destroyed.
fn lives() {
    let mut list = [0u64; PAGES];
    let [mut create, mut populate, mut empty, mut full] = [u64::MAX; 4];
    let base = raw(|| ());
    for round in 0..16 {
        let start = tsc();
        let id = domain::create(0).unwrap_or_else(|error| report::abort("create", format_args!("{error}")));
        let vcpus = simple(domctl::MAX_VCPUS, id, 1);
        let end = tsc();
        create = create.min(end - start - base);
        let mut pages = 0;
        let memory = simple(domctl::MAX_MEM, id, 1 << 20);
        if round % 2 == 1 {
            list.iter_mut().enumerate().for_each(|(n, frame)| *frame = n as u64);
            let start = tsc();
            pages = domain::populate(id, &mut list);
            let end = tsc();
            populate = populate.min(end - start - base);
        }
        let start = tsc();
        let destroyed = simple(domctl::DESTROY, id, 0);
        let end = tsc();
        let least = if round % 2 == 1 { &mut full } else { &mut empty };
        *least = (*least).min(end - start - base);
        let expected = if round % 2 == 1 { PAGES as i64 } else { 0 };
        if vcpus != 0 || memory != 0 || destroyed != 0 || pages != expected || !domain::gone(id) {
            report::abort("life", format_args!("{vcpus} {memory} {destroyed} {pages}"));
        }
    }
    show("domain-create", 10 * create);
    show("domain-destroy", 10 * empty);
    show("populate-page", populate * 10 / PAGES as u64);
    show("destroy-page", full.saturating_sub(empty) * 10 / PAGES as u64);
}
