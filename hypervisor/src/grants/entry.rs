// SPDX-License-Identifier: MIT OR Apache-2.0
//! A grant entry as its owner writes it, who may change it at any moment.
//!
//! Each word is read once. Flags and domain are one word, so both are checked and marked in one step; a guest that changes
//! the word all the time makes the operation fail, not the hypervisor wait.

use core::sync::atomic::Ordering::SeqCst;
use core::sync::atomic::fence;

use hypercalls::DomId;
use hypercalls::grant::*;

use crate::shared::SharedFrame;

/// How often a change of flags is tried again.
const TRIES: u32 = 5;
/// Bytes of an entry.
pub(super) const V1_BYTES: usize = size_of::<GrantEntryV1>();
/// As above.
pub(super) const V2_BYTES: usize = size_of::<GrantEntryV2>();

/// Where the parts of an entry are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Entry {
    /// Flags of the owner's and of ours are in one word.
    V1(SharedFrame),
    /// The entry, and our flags.
    V2(SharedFrame, SharedFrame),
}

/// What is granted, as the entry says now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// This part of a frame.
    Frame { frame: u64, start: u16, end: u16 },
    /// What another domain granted to the owner.
    Through { domid: DomId, gref: u32 },
}

/// What an entry is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    /// By whom.
    pub(super) user: DomId,
    /// To write.
    pub(super) writable: bool,
    /// To map it: all of a frame of the owner's.
    pub(super) whole: bool,
    /// It is in use by the same domain already, so that flags and domain were checked.
    pub(super) in_use: bool,
}

impl Claim {
    fn check(&self, word: u32, may_pass_on: bool) -> Result<(), GrantStatus> {
        let (flags, domid) = (word as u16, DomId((word >> 16) as u16));
        let kind = flags & if self.whole { GTF_TYPE_MASK | GTF_SUB_PAGE } else { GTF_TYPE_MASK };
        let fits = kind == GTF_PERMIT_ACCESS || kind == GTF_TRANSITIVE && may_pass_on && !self.whole;
        let allowed = self.in_use || fits && domid == self.user;
        if !allowed || self.writable && flags & GTF_READONLY != 0 {
            return Err(GrantStatus::GENERAL_ERROR);
        }
        Ok(())
    }
    const fn marks(&self) -> u16 {
        if self.writable { GTF_READING | GTF_WRITING } else { GTF_READING }
    }
}

impl Entry {
    const fn header(&self) -> SharedFrame {
        match self {
            Self::V1(entry) | Self::V2(entry, _) => *entry,
        }
    }

    /// Checks that the entry allows a use, and marks it as used so.
    pub(super) fn claim(&self, claim: Claim) -> Result<(), GrantStatus> {
        match self {
            Self::V1(entry) => claim_v1(*entry, claim),
            Self::V2(entry, status) => claim_v2(*entry, *status, claim),
        }
    }

    /// Takes marks away that no use justifies any more.
    pub(super) fn unmark(&self, reading: bool, writing: bool) {
        let gone = if reading { GTF_READING } else { 0 } | if writing { GTF_WRITING } else { 0 };
        if gone != 0 {
            let word = match self {
                Self::V1(entry) => entry.u16(0),
                Self::V2(_, status) => status.u16(0),
            };
            word.fetch_and(!gone, SeqCst);
        }
    }

    /// Reads what is granted.
    pub(super) fn what(&self) -> What {
        let whole = |frame| What::Frame { frame, start: 0, end: super::active::WHOLE.end };
        match self {
            Self::V1(entry) => whole(u64::from(entry.u32(4).load(SeqCst))),
            Self::V2(entry, _) => {
                let flags = entry.u16(0).load(SeqCst);
                let (second, frame) = (entry.u32(4).load(SeqCst), entry.u64(8).load(SeqCst));
                if flags & GTF_TYPE_MASK == GTF_TRANSITIVE {
                    What::Through { domid: DomId(second as u16), gref: frame as u32 }
                } else if flags & GTF_SUB_PAGE != 0 {
                    part(frame, second as u16, (second >> 16) as u16)
                } else {
                    whole(frame)
                }
            }
        }
    }

    /// Reads the whole entry as a version 1 one, marks included; `None` when version 1 cannot say it.
    pub(super) fn to_v1(self) -> Option<u64> {
        let (entry, status) = match self {
            Self::V1(entry) => return Some(entry.u64(0).load(SeqCst)),
            Self::V2(entry, status) => (entry, status),
        };
        let header = entry.u32(0).load(SeqCst);
        match header as u16 & GTF_TYPE_MASK {
            GTF_PERMIT_ACCESS => {
                let frame = u32::try_from(entry.u64(8).load(SeqCst)).ok()?;
                let marks = status.u16(0).load(SeqCst) & (GTF_READING | GTF_WRITING);
                Some(u64::from(header | u32::from(marks)) | u64::from(frame) << 32)
            }
            GTF_TRANSITIVE => None,
            _ => Some(0),
        }
    }

    /// Writes what [`Entry::to_v1`] read.
    pub(super) fn set_from_v1(&self, value: u64) {
        match self {
            Self::V1(entry) => entry.u64(0).store(value, SeqCst),
            Self::V2(entry, status) => {
                let marks = GTF_READING | GTF_WRITING;
                status.u16(0).store(value as u16 & marks, SeqCst);
                entry.u64(8).store(value >> 32, SeqCst);
                entry.u64(0).store(value & 0xffff_ffff & !u64::from(marks), SeqCst);
            }
        }
    }

    /// Exchanges two entries, which nobody uses.
    pub(super) fn swap(&self, other: &Self) {
        let words = |a: &SharedFrame, b: &SharedFrame, at| {
            let was = a.u64(at).load(SeqCst);
            a.u64(at).store(b.u64(at).swap(was, SeqCst), SeqCst);
        };
        match (self, other) {
            (Self::V2(a, a_status), Self::V2(b, b_status)) => {
                words(a, b, 0);
                words(a, b, 8);
                let was = a_status.u16(0).load(SeqCst);
                a_status.u16(0).store(b_status.u16(0).swap(was, SeqCst), SeqCst);
            }
            _ => words(&self.header(), &other.header(), 0),
        }
    }
}

/// A part of a frame; what would lie beyond its end does not.
fn part(frame: u64, start: u16, length: u16) -> What {
    let most = super::active::WHOLE.end;
    let start = start.min(most);
    What::Frame { frame, start, end: start.saturating_add(length).min(most) }
}

fn claim_v1(entry: SharedFrame, claim: Claim) -> Result<(), GrantStatus> {
    let word = entry.u32(0);
    let mut seen = word.load(SeqCst);
    for _ in 0..TRIES {
        claim.check(seen, false)?;
        match word.compare_exchange(seen, seen | u32::from(claim.marks()), SeqCst, SeqCst) {
            Ok(_) => return Ok(()),
            Err(now) => seen = now,
        }
    }
    Err(GrantStatus::GENERAL_ERROR)
}

/// The marks are in a word of their own here, so the entry is looked at again when the guest can see them.
fn claim_v2(entry: SharedFrame, status: SharedFrame, claim: Claim) -> Result<(), GrantStatus> {
    let word = entry.u32(0);
    claim.check(word.load(SeqCst), true)?;
    let before = status.u16(0).fetch_or(claim.marks(), SeqCst);
    fence(SeqCst);
    claim.check(word.load(SeqCst), true).inspect_err(|_| {
        // Marks that stood there before are other uses'.
        status.u16(0).fetch_and(!(claim.marks() & !before), SeqCst);
    })
}
