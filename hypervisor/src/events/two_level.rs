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

/// True when the port's bit is set in the bitmap at `base` of the shared page.
fn bit(domain: &Domain, base: usize, port: u32) -> bool {
    domain.shared_info.u64(base + port as usize / 64 * 8).load(SeqCst) >> (port % 64) & 1 != 0
}

/// True when the port is pending, masked or not.
pub fn is_pending(domain: &Domain, port: u32) -> bool {
    port < EVTCHN_2L_NR_CHANNELS && bit(domain, shared_offset::EVTCHN_PENDING, port)
}

/// True when the port is masked.
pub fn is_masked(domain: &Domain, port: u32) -> bool {
    port < EVTCHN_2L_NR_CHANNELS && bit(domain, shared_offset::EVTCHN_MASK, port)
}

/// Raises a port, to be delivered to `vcpu`.
pub fn raise(domain: &Domain, port: u32, vcpu: VcpuId) {
    let (word, mask) = (port as usize / 64 * 8, 1u64 << (port % 64));
    if port >= EVTCHN_2L_NR_CHANNELS {
        return;
    }
    if domain.shared_info.u64(shared_offset::EVTCHN_PENDING + word).fetch_or(mask, SeqCst) & mask != 0 {
        return;
    }
    if domain.shared_info.u64(shared_offset::EVTCHN_MASK + word).load(SeqCst) & mask == 0 {
        select(domain, port, vcpu);
    }
    if domain.pollers.load(SeqCst) != 0 {
        wake_pollers(domain);
    }
}

fn select(domain: &Domain, port: u32, vcpu: VcpuId) {
    let Some(vcpu) = domain.vcpu(vcpu) else { return };
    let bit = 1u64 << (port / 64);
    if vcpu.vcpu_info().u64(vcpu_offset::EVTCHN_PENDING_SEL).fetch_or(bit, SeqCst) & bit == 0 {
        mark_pending(vcpu);
    }
}

/// Unmasks a port and delivers it if it is pending.
pub(super) fn unmask(domain: &Domain, port: u32, vcpu: VcpuId) {
    let (word, mask) = (port as usize / 64 * 8, 1u64 << (port % 64));
    let was = domain.shared_info.u64(shared_offset::EVTCHN_MASK + word).fetch_and(!mask, SeqCst);
    if was & mask != 0 && is_pending(domain, port) {
        select(domain, port, vcpu);
    }
}

/// Forgets that a port is pending.
pub(super) fn clear_pending(domain: &Domain, port: u32) {
    let word = shared_offset::EVTCHN_PENDING + port as usize / 64 * 8;
    domain.shared_info.u64(word).fetch_and(!(1 << (port % 64)), SeqCst);
}
