// SPDX-License-Identifier: MIT OR Apache-2.0
//! The two-level form: a bit a port in the shared page, a bit a word of them in each vCPU's selector.
//!
//! Raising a port sets its bit in the domain's bitmap, then (unless masked) the bit of its word in the vCPU's selector, then
//! the vCPU's pending flag: each step only on a transition from 0 to 1, so that a port that is pending already costs one
//! atomic operation.

use core::sync::atomic::Ordering::SeqCst;

use hypercalls::VcpuId;
use hypercalls::shared_info::{EVTCHN_2L_NR_CHANNELS, shared_offset, vcpu_offset};

use super::send::{mark_pending, wake_pollers};
use crate::domain::Domain;

/// Returns the offset of a port's word in a bitmap, and its bit there.
#[inline(always)]
fn place(port: u32) -> (usize, u64) {
    (port as usize / 64 * 8, 1 << (port % 64))
}

/// True when the port's bit is set in the bitmap at `base` of the shared page.
fn is_set(domain: &Domain, base: usize, port: u32) -> bool {
    let (word, bit) = place(port);
    port < EVTCHN_2L_NR_CHANNELS && domain.shared_info().u64(base + word).load(SeqCst) & bit != 0
}

/// True when the port is pending, masked or not.
pub(super) fn is_pending(domain: &Domain, port: u32) -> bool {
    is_set(domain, shared_offset::EVTCHN_PENDING, port)
}

/// True when the port is masked.
pub(super) fn is_masked(domain: &Domain, port: u32) -> bool {
    is_set(domain, shared_offset::EVTCHN_MASK, port)
}

/// Raises a port, to be delivered to `vcpu`.
#[inline(always)]
pub(super) fn raise(domain: &Domain, port: u32, vcpu: VcpuId) {
    if port >= EVTCHN_2L_NR_CHANNELS {
        return;
    }
    let (word, bit) = place(port);
    if domain.shared_info().u64(shared_offset::EVTCHN_PENDING + word).fetch_or(bit, SeqCst) & bit != 0 {
        return;
    }
    if domain.shared_info().u64(shared_offset::EVTCHN_MASK + word).load(SeqCst) & bit == 0 {
        select(domain, port, vcpu);
    }
    wake_pollers(domain, port);
}

#[inline(always)]
fn select(domain: &Domain, port: u32, vcpu: VcpuId) {
    let Some(vcpu) = domain.vcpu(vcpu) else { return };
    let bit = 1u64 << (port / 64);
    if vcpu.vcpu_info().u64(vcpu_offset::EVTCHN_PENDING_SEL).fetch_or(bit, SeqCst) & bit == 0 {
        mark_pending(vcpu);
    }
}

/// Unmasks a port and delivers it if it is pending.
pub(super) fn unmask(domain: &Domain, port: u32, vcpu: VcpuId) {
    let (word, bit) = place(port);
    if port < EVTCHN_2L_NR_CHANNELS
        && domain.shared_info().u64(shared_offset::EVTCHN_MASK + word).fetch_and(!bit, SeqCst) & bit != 0
        && is_pending(domain, port)
    {
        select(domain, port, vcpu);
    }
}

/// Forgets that a port is pending.
pub(super) fn clear_pending(domain: &Domain, port: u32) {
    let (word, bit) = place(port);
    if port < EVTCHN_2L_NR_CHANNELS {
        domain.shared_info().u64(shared_offset::EVTCHN_PENDING + word).fetch_and(!bit, SeqCst);
    }
}

/// Iterates over the ports whose pending bit is set.
pub(super) fn all_pending(domain: &Domain) -> impl Iterator<Item = u32> + '_ {
    let words = (0..EVTCHN_2L_NR_CHANNELS / 64).map(|n| {
        let word = domain.shared_info().u64(shared_offset::EVTCHN_PENDING + n as usize * 8);
        (n, word.load(SeqCst))
    });
    words.flat_map(|(n, word)| (0..64).filter(move |bit| word >> bit & 1 != 0).map(move |bit| n * 64 + bit))
}
