// SPDX-License-Identifier: MIT OR Apache-2.0
//! A guest that the hypervisor builds itself, and its console.

use std::mem::offset_of;

use hypercalls::console::ConsoleRing;
use hypercalls::event::{EvtchnOp, EvtchnSend, EvtchnStatus};
use hypercalls::start_info::StartInfo;
use hypercalls::{DomId, HypercallNr, Mfn};
use hypervisor::construct::{self, Guest};
use hypervisor::testing::world::new_machine;
use hypervisor::testing::{World, guest, kernel};
use hypervisor::{console, domain, events};
use mm::hosted::{peek, poke};
use zerocopy::IntoBytes;

const PAGES: u64 = 2048;

fn described<'a>(kernel: &'a [u8], name: &'a str) -> Guest<'a> {
    Guest { id: DomId(1), name, kernel, initrd: &[7; 5000], cmdline: "x=1", pages: PAGES, vcpus: 2, console: true }
}

/// Has the guest say something and send on its port. Returns what appeared.
fn say(world: &mut World, ring: Mfn, (from, to): (u32, u32), text: &[u8], argument: u64, port: u32) -> String {
    for (at, byte) in (from..).zip(text) {
        let at = offset_of!(ConsoleRing, output) + at as usize % 2048;
        let (word, shift) = (at / 8, at % 8 * 8);
        poke(ring, word, peek(ring, word) & !(0xff << shift) | u64::from(*byte) << shift);
    }
    let word = offset_of!(ConsoleRing, out_cons) / 8;
    poke(ring, word, peek(ring, word) & 0xffff_ffff | u64::from(to) << 32);
    assert!(guest::write(argument, EvtchnSend { port }.as_bytes()));
    assert_eq!(world.call(HypercallNr::EVENT_CHANNEL_OP, [u64::from(EvtchnOp::SEND.0), argument, 0, 0, 0]), 0);
    String::from_utf8(arch::console::take_output()).expect("text")
}

#[test]
fn a_static_guest_has_a_console() {
    let image = kernel::image();
    let mut world = World::from_guest(&described(&image, "web"), 2 * PAGES).expect("a good image");
    world.check();
    world.go_back().expect("it runs");
    let regs = world.registers();
    let field = |offset: usize| guest::read(regs.rsi + offset as u64);
    assert_eq!(field(offset_of!(StartInfo, flags)) as u32, 8, "no rights; the initrd by its PFN");
    assert_eq!(field(offset_of!(StartInfo, store_evtchn)) as u32, 0);
    let ring = Mfn(field(offset_of!(StartInfo, console)));
    let port = field(offset_of!(StartInfo, console) + 8) as u32;
    assert_eq!(*world.guests[0].domain.handle.lock(), *b"web\0\0\0\0\0\0\0\0\0\0\0\0\0");
    let argument = regs.rsp - 64;
    let _ = arch::console::take_output();

    // Heard in whole lines of text as long as the input is not its.
    assert_eq!(say(&mut world, ring, (0, 9), b"one\ntw\x1bo", argument, port), "(web) one\n");
    arch::time::advance(1_000_000);
    assert_eq!(say(&mut world, ring, (9, 11), b"\r\n", argument, port), "(web) two\n");
    assert_eq!(peek(ring, offset_of!(ConsoleRing, out_cons) / 8) as u32, 11);
    // Indices that mean nothing say nothing.
    arch::time::advance(1_000_000);
    assert_eq!(say(&mut world, ring, (0, 0x8000_0000), b"", argument, port), "");
    world.check();

    // There is no dom0: the input is its, and it is heard at once.
    console::start_input(false, true);
    assert!(arch::console::take_output().starts_with(b"(xenith) *** serial input to web (type"));
    arch::time::advance(1_000_000);
    let from = 0x8000_0000;
    assert_eq!(say(&mut world, ring, (from, from + 2), b"$ ", argument, port), "(web) $ ");
    arch::console::type_in(b"ls");
    console::work();
    assert_eq!(peek(ring, 0) as u16, u16::from_le_bytes(*b"ls"));
    assert_eq!(peek(ring, offset_of!(ConsoleRing, in_cons) / 8) >> 32, 2);
    assert!(events::is_pending(&world.guests[0].domain, port));
    // More than a part takes several, and is all printed in the end.
    let flood = [b'x'; 300];
    arch::time::advance(1_000_000);
    let mut seen = say(&mut world, ring, (from + 2, from + 302), &flood, argument, port);
    assert!(seen.len() < 200, "{seen}");
    for _ in 0..3 {
        arch::time::advance(1_000_000);
        console::work();
        seen.push_str(&String::from_utf8(arch::console::take_output()).expect("text"));
    }
    assert_eq!(seen.matches('x').count(), 300);
    let status = EvtchnStatus { dom: DomId::SELF, port, ..EvtchnStatus::default() };
    assert!(guest::write(argument, status.as_bytes()));
    let number = u64::from(EvtchnOp::STATUS.0);
    assert_eq!(world.call(HypercallNr::EVENT_CHANNEL_OP, [number, argument, 0, 0, 0]), 0);
    assert_eq!(guest::read(argument + 8) as u32, 2, "a channel to another domain, as far as it is told");
    world.check();
    world.finish();
}

#[test]
fn of_one_that_cannot_be_built_nothing_stays() {
    let image = kernel::image();
    let _machine = new_machine(2 * PAGES, 1);
    // What the first domain of all leaves: tables that grow.
    drop(construct::guest(&Guest { pages: 64, ..described(&image, "small") }));
    let free = mm::buddy::free_frames();
    for (from, words) in [
        (Guest { kernel: &image[..300], ..described(&image, "cut") }, "the kernel cannot be loaded"),
        (Guest { pages: 64, ..described(&image, "small") }, "too little memory"),
        (Guest { pages: 4 * PAGES, ..described(&image, "large") }, "not enough memory"),
    ] {
        let failure = construct::guest(&from).expect_err("it cannot").to_string();
        assert!(failure.contains(words), "{failure}");
        assert!(domain::find(DomId(1)).is_none());
        assert_eq!(mm::buddy::free_frames(), free, "{words}");
    }
}
