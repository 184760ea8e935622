// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest's side of the FIFO form, as the ABI demands it.

use std::sync::Arc;

use hypercalls::event::{FIFO_LINK_MASK, FIFO_LINKED, FIFO_MASKED, FIFO_PENDING};
use hypercalls::{Errno, Mfn, VcpuId};
use hypervisor::domain::Domain;
use hypervisor::events;
use mm::buddy;
use mm::hosted::{peek, poke};

pub(crate) const PENDING: u32 = 1 << FIFO_PENDING;
pub(crate) const MASKED: u32 = 1 << FIFO_MASKED;
pub(crate) const LINKED: u32 = 1 << FIFO_LINKED;

/// Frames of a guest: two for control blocks, the rest for the array.
const FRAMES: usize = 131;
/// Offset of the control blocks in their pages, in 4-byte words.
const BLOCK: usize = 2 * 13;

/// A domain's kernel.
pub(crate) struct Guest {
    pub(crate) domain: Arc<Domain>,
    frames: Vec<Mfn>,
    /// Pages of the array.
    pub(crate) pages: usize,
    /// Which vCPUs have control blocks.
    pub(crate) controls: [bool; 2],
    heads: [[u32; 16]; 2],
}

fn get(mfn: Mfn, word: usize) -> u32 {
    (peek(mfn, word / 2) >> (word % 2 * 32)) as u32
}

fn set(mfn: Mfn, word: usize, value: u32) {
    let shift = word % 2 * 32;
    poke(mfn, word / 2, peek(mfn, word / 2) & !(0xffff_ffff << shift) | u64::from(value) << shift);
}

impl Guest {
    pub(crate) fn new(domain: &Arc<Domain>) -> Self {
        let frame = || domain.account.populate(0, buddy::ANYWHERE).expect("the machine has memory");
        let frames = (0..FRAMES).map(|_| frame()).collect();
        Self { domain: domain.clone(), frames, pages: 0, controls: [false; 2], heads: [[0; 16]; 2] }
    }

    pub(crate) fn frame(&self, n: usize) -> Mfn {
        self.frames[n]
    }

    pub(crate) fn frames(&self) -> impl Iterator<Item = Mfn> {
        self.frames.iter().copied()
    }

    /// Gives a vCPU's control block.
    pub(crate) fn init_control(&mut self, vcpu: VcpuId) -> Result<(), Errno> {
        let n = vcpu.0 as usize;
        events::init_control(&self.domain, vcpu, self.frames[n], BLOCK as u32 * 4)?;
        self.controls[n] = true;
        Ok(())
    }

    /// Gives the next page of the array.
    pub(crate) fn expand(&mut self) -> Result<(), Errno> {
        events::expand_array(&self.domain, self.frames[(2 + self.pages).min(FRAMES - 1)])?;
        self.pages += 1;
        Ok(())
    }

    /// Starts anew after a reset.
    pub(crate) fn forget(&mut self) {
        (self.pages, self.controls, self.heads) = (0, [false; 2], [[0; 16]; 2]);
        for mfn in &self.frames {
            (0..512).for_each(|n| poke(*mfn, n, 0));
        }
    }

    /// Returns a port's word, if it has one.
    pub(crate) fn word(&self, port: u32) -> Option<u32> {
        let (page, at) = (port as usize / 1024, port as usize % 1024);
        (page < self.pages).then(|| get(self.frames[2 + page], at))
    }

    pub(crate) fn set_word(&self, port: u32, value: u32) {
        let (page, at) = (port as usize / 1024, port as usize % 1024);
        if page < self.pages {
            set(self.frames[2 + page], at, value);
        }
    }

    /// Writes word `at` of a control block: 0 is the ready word, then one reserved, then the heads.
    pub(crate) fn set_control(&self, vcpu: VcpuId, at: usize, value: u32) {
        set(self.frames[vcpu.0 as usize], BLOCK + at, value);
    }

    fn control(&self, vcpu: VcpuId, at: usize) -> u32 {
        get(self.frames[vcpu.0 as usize], BLOCK + at)
    }

    /// Takes up to `count` events, the most urgent first, and returns those that were pending and not masked.
    pub(crate) fn take(&mut self, vcpu: VcpuId, count: usize) -> Vec<u32> {
        let n = vcpu.0 as usize;
        let mut handled = Vec::new();
        for _ in 0..count.min(1000) {
            let ready = self.control(vcpu, 0);
            let priority = ready.trailing_zeros() as usize;
            if priority >= 16 {
                break;
            }
            let head = match self.heads[n][priority] {
                0 => self.control(vcpu, 2 + priority),
                head => head,
            };
            let word = self.word(head).unwrap_or(0);
            self.set_word(head, word & !(LINKED | FIFO_LINK_MASK));
            self.heads[n][priority] = word & FIFO_LINK_MASK;
            if word & FIFO_LINK_MASK == 0 {
                self.set_control(vcpu, 0, ready & !(1 << priority));
            }
            if word & (PENDING | MASKED) == PENDING {
                self.set_word(head, word & !(LINKED | FIFO_LINK_MASK | PENDING));
                handled.push(head);
            }
        }
        handled
    }
}
