// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks the life of another domain, as dom0's tools lead it: it is created, given memory and page tables, started, it says
//! one thing and is destroyed. Many times: nothing of it may stay.
#![no_std]
#![no_main]

use core::sync::atomic::Ordering::SeqCst;
use pv::abi::nr;
use pv::domain::{self, CODE, FRAMES, Image, Op, call, create, domctl, free_pages, gone, look, map, simple, wanted};
use pv::hypercall::hypercall2;
use pv::{check, equal, errno, mem};

pv::guest!(main);

/// Domains that are built and destroyed.
const ROUNDS: u64 = 150;
/// Where a domain runs in a circle.
const CIRCLE: u64 = CODE + 0x20;
/// Pauses of a domain that runs in a circle.
const PAUSES: u64 = 2000;
/// What the domain says last.
const WORD: u32 = 0x42;

/// Flags and pages of a domain, if there is one of that number.
fn info(domid: u64) -> Option<(u64, u64)> {
    look(domid).map(|op| (op[2] >> 32, op[3]))
}

const DYING: u64 = 1;
const SHUTDOWN: u64 = 1 << 2;
const PAUSED: u64 = 1 << 3;
const RUNNING: u64 = 1 << 5;

/// Waits until the domain has shut down; returns its flags then.
fn wait(domid: u64) -> u64 {
    for _ in 0..100_000 {
        match info(domid) {
            Some((flags, _)) if flags & SHUTDOWN != 0 => return flags,
            _ => hypercall2(nr::SCHED_OP, 0, 0),
        };
    }
    0
}

/// Builds a domain that runs from `at`; an error names what failed.
fn build(page: u64, context: u64, at: u64) -> Result<(u64, [u64; FRAMES]), &'static str> {
    // mov edi, 2; mov esi, DATA; mov eax, 29; syscall; jmp to the first: it says it again when it goes on.
    let bytes = *b"\xbf\x02\0\0\0\xbe\0\x10\x40\0\xb8\x1d\0\0\0\x0f\x05\xeb\xed\0\0\0\0\0";
    let word = |n: usize| u64::from_le_bytes(core::array::from_fn(|byte| bytes[8 * n + byte]));
    // The last is a jump to itself, at CIRCLE.
    let code = [word(0), word(1), word(2), 0, 0xfeeb];
    let domain = domain::build(page, context, &Image { code: &code, data: u64::from(WORD), start: at, upcall: 0 })?;
    if simple(domctl::UNPAUSE, domain.id, 0) == 0 { Ok((domain.id, domain.frames)) } else { Err("unpause") }
}

fn main() {
    refused();
    let (page, context) = (mem::alloc(), mem::alloc_contiguous(2));
    let Ok((id, frames)) = build(page, context, CODE).map_err(|what| check!(["build-{what}"], false)) else { return };
    one_life(id, page, context, &frames);
    busy(page, context);
    let before = free_pages();
    let mut failed = None;
    for round in 0..ROUNDS {
        failed = failed.or_else(|| life(page, context, round).err());
    }
    equal!("many-lives", failed.map_or(0, |(round, _)| round + 1), 0);
    if let Some((_, what)) = failed {
        check!(["many-lives-{what}"], false);
    }
    // What is freed is scrubbed at some time, and free then.
    let mut after = 0;
    for _ in 0..100_000 {
        after = free_pages();
        if after >= before {
            break;
        }
        hypercall2(nr::SCHED_OP, 0, 0);
    }
    equal!("many-lives-pages", after, before);
}

/// One domain from the first to the last; every fourth dies before it has said anything, every eighth before it is built.
fn life(page: u64, context: u64, round: u64) -> Result<(), (u64, &'static str)> {
    let failed = |what| (round, what);
    let id = if round % 8 == 3 {
        create(0).map_err(|_| failed("create"))?
    } else {
        let (id, _) = build(page, context, CODE).map_err(failed)?;
        if round % 4 != 1 && wait(id) >> 16 & 0xff != u64::from(WORD) {
            return Err(failed("word"));
        }
        id
    };
    if simple(domctl::DESTROY, id, 0) != 0 {
        return Err(failed("destroy"));
    }
    if gone(id) { Ok(()) } else { Err(failed("gone")) }
}

fn refused() {
    let with = |word: usize, value: u64| {
        let mut op = wanted();
        op[word] = value;
        call(domctl::CREATE, 0, &mut op)
    };
    errno!("create-own-number", create(0x7ff0).map_or_else(|error| error, |id| simple(domctl::DESTROY, id, 0)), 0);
    errno!("create-no-vcpus", with(5, 0), EINVAL);
    errno!("create-unknown-flag", with(4, 1 << 40), EINVAL);
    errno!("create-no-grant-version", with(7, u64::from(u32::MAX)), EINVAL);
    errno!("create-other-pool", with(8, 7 << 32), ESRCH);
    errno!("destroy-own", simple(domctl::DESTROY, 0, 0), EINVAL);
    errno!("destroy-nobody", simple(domctl::DESTROY, 7777, 0), ESRCH);
    errno!("pause-own", simple(domctl::PAUSE, 0, 0), EINVAL);
    errno!("unpause-own", simple(domctl::UNPAUSE, 0, 0), EINVAL);
}

/// Looks at one domain more closely.
fn one_life(id: u64, page: u64, context: u64, frames: &[u64; FRAMES]) {
    equal!("word", wait(id) >> 16 & 0xff, u64::from(WORD));
    errno!("create-same-number", create(id).map_or_else(|error| error, |_| 0), EEXIST);
    let mut op = Op::default();
    op[3] = context;
    errno!("state", call(domctl::GET_CONTEXT, id, &mut op), 0);
    let word = |offset: usize| mem::entry(context, offset / 8).load(SeqCst);
    // Behind the SYSCALL, with the result of the call in RAX.
    equal!("state-rip", word(648), CODE + 17);
    equal!("state-rax", word(520 + 80), 0);
    equal!("state-root", word(5008), frames[0] << 12);
    errno!("resume", simple(domctl::RESUME, id, 0), 0);
    equal!("word-again", wait(id) >> 16 & 0xff, u64::from(WORD));
    errno!("pause", simple(domctl::PAUSE, id, 0), 0);
    errno!("resume-paused", simple(domctl::RESUME, id, 0), 0);
    check!("paused", info(id).is_some_and(|(flags, _)| flags & (PAUSED | SHUTDOWN) == PAUSED));
    errno!("unpause", simple(domctl::UNPAUSE, id, 0), 0);
    errno!("unpause-again", simple(domctl::UNPAUSE, id, 0), EINVAL);
    equal!("word-at-last", wait(id) >> 16 & 0xff, u64::from(WORD));
    errno!("map", map(page, frames[5], id), 0);
    errno!("destroy", simple(domctl::DESTROY, id, 0), 0);
    let left = info(id);
    check!("dying", left.is_some_and(|(flags, pages)| flags & DYING != 0 && pages == 1), "{left:x?}");
    equal!("dying-data", mem::entry(page, 0).load(SeqCst), u64::from(WORD));
    mem::make_rw(page);
    check!("gone", gone(id));
    errno!("destroy-gone", simple(domctl::DESTROY, id, 0), ESRCH);
}

/// A domain that always runs is paused, looked at and let go on, again and again, and destroyed while it runs.
fn busy(page: u64, context: u64) {
    let Ok((id, _)) = build(page, context, CIRCLE).map_err(|what| check!(["busy-{what}"], false)) else { return };
    let time = |op: Option<Op>| op.map_or(0, |op| op[9]);
    let first = time(look(id));
    let mut good = 0;
    for _ in 0..PAUSES {
        hypercall2(nr::SCHED_OP, 0, 0);
        let paused = simple(domctl::PAUSE, id, 0) == 0;
        let seen = [look(id), look(id)];
        let stands = seen.iter().flatten().all(|op| op[2] >> 32 & (PAUSED | RUNNING) == PAUSED);
        let mut op = Op::default();
        op[3] = context;
        let told = call(domctl::GET_CONTEXT, id, &mut op) == 0;
        let there = mem::entry(context, 648 / 8).load(SeqCst) == CIRCLE;
        let goes_on = simple(domctl::UNPAUSE, id, 0) == 0;
        good += u64::from(paused && stands && time(seen[0]) == time(seen[1]) && told && there && goes_on);
    }
    equal!("busy-pauses", good, PAUSES);
    check!("busy-ran", time(look(id)) > first);
    errno!("busy-destroy", simple(domctl::DESTROY, id, 0), 0);
    check!("busy-gone", gone(id));
}
