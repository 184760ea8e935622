// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ring that a guest's console and the hypervisor share: a page of the guest's.
//!
//! The guest may write anything anywhere in it at any moment. Each index of the guest's is read once; our own are kept here and only
//! written there; bytes are found by indices cut to the size of the ring.

use core::mem::offset_of;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use hypercalls::Mfn;
use hypercalls::console::ConsoleRing;
use mm::WritableRef;

use crate::shared::{self, SharedFrame};

/// Bytes from the guest.
const OUTPUT: u32 = 2048;
/// Bytes to the guest.
const INPUT: u32 = 1024;

/// Our side of a ring.
#[derive(Debug)]
pub(super) struct Ring {
    view: SharedFrame,
    frame: WritableRef,
    out_cons: u32,
    in_prod: u32,
}

impl Ring {
    /// Takes up a ring in a page of zeros.
    pub(super) fn new(frame: WritableRef) -> Self {
        Self { view: shared::of_guest(&frame, 0), frame, out_cons: 0, in_prod: 0 }
    }

    /// Returns the page.
    pub(super) fn frame(&self) -> Mfn {
        self.frame.mfn()
    }

    /// Takes what the guest wrote, as much as there is room for. Returns how much, and whether there is more.
    pub(super) fn take(&mut self, to: &mut [u8]) -> (usize, bool) {
        let prod = self.view.u32(offset_of!(ConsoleRing, out_prod)).load(SeqCst);
        let mut held = prod.wrapping_sub(self.out_cons);
        if held > OUTPUT {
            // No more than that fits: the index means nothing, and is taken for one that ends what there is.
            self.out_cons = prod;
            held = 0;
        }
        let count = to.len().min(held as usize);
        for byte in to.iter_mut().take(count) {
            let at = (self.out_cons % OUTPUT) as usize;
            *byte = self.view.u8(offset_of!(ConsoleRing, output) + at).load(Relaxed);
            self.out_cons = self.out_cons.wrapping_add(1);
        }
        self.view.u32(offset_of!(ConsoleRing, out_cons)).store(self.out_cons, SeqCst);
        (count, count < held as usize)
    }

    /// Gives the guest bytes as far as there is room; the rest is lost.
    pub(super) fn give(&mut self, bytes: &[u8]) {
        let cons = self.view.u32(offset_of!(ConsoleRing, in_cons)).load(SeqCst);
        let room = INPUT.saturating_sub(self.in_prod.wrapping_sub(cons));
        for byte in bytes.iter().take(room as usize) {
            let at = (self.in_prod % INPUT) as usize;
            self.view.u8(offset_of!(ConsoleRing, input) + at).store(*byte, Relaxed);
            self.in_prod = self.in_prod.wrapping_add(1);
        }
        self.view.u32(offset_of!(ConsoleRing, in_prod)).store(self.in_prod, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::VecDeque;
    use alloc::vec::Vec;
    use hypercalls::DomId;
    use mm::Account;
    use mm::hosted::Random;

    /// A ring, and the guest's view of it.
    fn ring() -> (arch::hosted::Machine, alloc::sync::Arc<Account>, Ring, SharedFrame) {
        let machine = mm::hosted::boot(4096, 1);
        let account = Account::open(DomId(1), 16).expect("no such domain yet");
        let mfn = account.populate(0, 64).expect("memory");
        let frame = WritableRef::get(mfn, DomId(1)).expect("its frame");
        shared::zero(&frame);
        let view = shared::of_guest(&frame, 0);
        (machine, account, Ring::new(frame), view)
    }

    #[test]
    fn what_is_written_is_read_whatever_the_indices() {
        let (_machine, _account, mut ring, guest) = ring();
        let mut random = Random::from_env(11);
        let index = |at: usize| guest.u32(at);
        let (out_prod, in_cons) = (index(offset_of!(ConsoleRing, out_prod)), index(offset_of!(ConsoleRing, in_cons)));
        // Close to where 32 bits wrap.
        ring.out_cons = 0xffff_ff00;
        ring.in_prod = 0xffff_ff00;
        [out_prod, in_cons].iter().for_each(|index| index.store(0xffff_ff00, SeqCst));
        let (mut said, mut typed) = (VecDeque::new(), VecDeque::new());
        for _ in 0..3000 {
            let bytes: Vec<u8> = (0..random.below(300)).map(|_| random.below(256) as u8).collect();
            match random.below(4) {
                0 => {
                    for byte in bytes.iter().take(OUTPUT as usize - said.len()) {
                        let at = out_prod.load(SeqCst);
                        guest.u8(offset_of!(ConsoleRing, output) + (at % OUTPUT) as usize).store(*byte, SeqCst);
                        out_prod.store(at.wrapping_add(1), SeqCst);
                        said.push_back(*byte);
                    }
                }
                1 => {
                    let mut to = bytes.clone();
                    let (count, has_more) = ring.take(&mut to);
                    let expected: Vec<u8> = said.drain(..count).collect();
                    assert_eq!(to[..count], expected, "{random:?}");
                    assert_eq!((count, has_more), (to.len().min(count + said.len()), !said.is_empty()), "{random:?}");
                    let shown = index(offset_of!(ConsoleRing, out_cons)).load(SeqCst);
                    assert_eq!(out_prod.load(SeqCst).wrapping_sub(shown) as usize, said.len());
                }
                2 => {
                    let room = INPUT as usize - typed.len();
                    ring.give(&bytes);
                    typed.extend(bytes.iter().take(room));
                }
                _ => {
                    let prod = index(offset_of!(ConsoleRing, in_prod)).load(SeqCst);
                    while in_cons.load(SeqCst) != prod {
                        let at = in_cons.load(SeqCst);
                        let byte = guest.u8(offset_of!(ConsoleRing, input) + (at % INPUT) as usize).load(SeqCst);
                        assert_eq!(Some(byte), typed.pop_front(), "{random:?}");
                        in_cons.store(at.wrapping_add(1), SeqCst);
                    }
                    assert!(typed.is_empty(), "{random:?}");
                }
            }
        }
    }

    #[test]
    fn indices_that_mean_nothing_give_nothing() {
        let (_machine, _account, mut ring, guest) = ring();
        let mut buffer = [0; 128];
        for prod in [OUTPUT + 1, 1 << 31, u32::MAX, 0] {
            guest.u32(offset_of!(ConsoleRing, out_prod)).store(prod, SeqCst);
            let held = prod.wrapping_sub(ring.out_cons);
            let (count, has_more) = ring.take(&mut buffer);
            assert!(held <= OUTPUT || (count, has_more) == (0, false));
            assert!(!ring.take(&mut buffer).1);
        }
        // Neither a reader far behind nor one ahead of us has room, and no other field changes.
        for cons in [1, 2000, u32::MAX - INPUT] {
            guest.u32(offset_of!(ConsoleRing, in_cons)).store(cons, SeqCst);
            ring.give(b"x");
            assert_eq!(guest.u32(offset_of!(ConsoleRing, in_prod)).load(SeqCst), 0);
        }
    }
}
