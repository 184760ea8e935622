// SPDX-License-Identifier: MIT OR Apache-2.0
//! Changing between the forms: a domain enters the FIFO form by giving a control block, and leaves it by a reset.
//!
//! Events are raised without a lock, so a change is seen by whoever raises one at the same time: entering publishes the new
//! form before it looks for what the old one has pending, and who raises looks again after setting a bit of the old one.

use hypercalls::event::{EvtchnFifoControlBlock, FIFO_PRIORITY_MIN};
use hypercalls::{Errno, Mfn, PAGE_SIZE, Result, VcpuId};
use mm::WritableRef;

use super::bind::close;
use super::fifo::Fifo;
use super::port::{Channel, State};
use super::send::raise;
use super::table::Reset;
use super::two_level;
use crate::domain::Domain;
use crate::grace::Node;

/// Gives a vCPU's control block; the first one brings the domain into the FIFO form.
///
/// # Errors
/// `ENOENT` for an unknown vCPU; `EINVAL` for a place that is not aligned to 8 or crosses the page, a page that is not the
/// domain's writable memory, and a vCPU that has a control block; `ENOMEM`.
pub fn init_control(domain: &Domain, vcpu: VcpuId, mfn: Mfn, offset: u32) -> Result<()> {
    domain.vcpu(vcpu).ok_or(Errno::ENOENT)?;
    let offset = offset as usize;
    if offset > PAGE_SIZE - size_of::<EvtchnFifoControlBlock>() || !offset.is_multiple_of(8) {
        return Err(Errno::EINVAL);
    }
    let frame = WritableRef::get(mfn, domain.id).map_err(|_| Errno::EINVAL)?;
    let events = domain.events.lock();
    if domain.events.fifo.is_some() {
        let added = domain.events.fifo.with(|fifo| fifo.add_control(vcpu, frame, offset));
        return added.unwrap_or(Err(Errno::EINVAL));
    }
    let fifo = Fifo::new(domain.vcpus.len())?;
    fifo.add_control(vcpu, frame, offset)?;
    domain.events.fifo.replace(Some(Node::new(fifo)?));
    drop(events);
    for port in two_level::all_pending(domain).filter(|port| domain.events.get(*port).is_some()) {
        two_level::clear_pending(domain, port);
        raise(domain, port);
    }
    Ok(())
}

/// Gives the next page of event words.
///
/// # Errors
/// `EOPNOTSUPP` in the two-level form, `ENOSPC` when all are there, `EINVAL` for a page that is not the domain's writable
/// memory.
pub fn expand_array(domain: &Domain, mfn: Mfn) -> Result<()> {
    let first = {
        let _events = domain.events.lock();
        let add = |fifo: &Fifo| {
            if fifo.is_full() {
                return Err(Errno::ENOSPC);
            }
            fifo.add_page(WritableRef::get(mfn, domain.id).map_err(|_| Errno::EINVAL)?)
        };
        domain.events.fifo.with(add).unwrap_or(Err(Errno::EOPNOTSUPP))?
    };
    domain.events.fifo.with(|fifo| fifo.raise_remembered(domain, first));
    Ok(())
}

/// Sets how urgent a port's future events are.
///
/// # Errors
/// `EINVAL` for an unknown port or priority, `ENOSYS` in the two-level form, `EACCES` for a closed port.
pub fn set_priority(domain: &Domain, port: u32, priority: u32) -> Result<()> {
    let mut events = domain.events.lock();
    domain.events.valid(port)?;
    if !domain.events.fifo.is_some() {
        return Err(Errno::ENOSYS);
    }
    let channel = events.get(port).ok_or(Errno::EACCES)?;
    if priority > FIFO_PRIORITY_MIN {
        return Err(Errno::EINVAL);
    }
    events.set(port, Channel { priority: priority as u8, ..channel });
    Ok(())
}

/// Closes all ports and goes back to the two-level form. `goes_on` says that it was begun before.
///
/// # Errors
/// `ERESTART` when it is to go on later; `EBUSY` when another one is under way, or none that could go on; `EAGAIN` when ports
/// were opened meanwhile.
pub fn reset(domain: &Domain, goes_on: bool) -> Result<()> {
    {
        let mut events = domain.events.lock();
        let progress = events.reset();
        match progress {
            Some(at) if at.is_over() && goes_on => {
                *progress = None;
                return Ok(());
            }
            Some(at) if !at.is_over() && !goes_on => return Err(Errno::EBUSY),
            None if goes_on => return Err(Errno::EBUSY),
            Some(_) if goes_on => {}
            _ => *progress = Some(Reset::Closing(1)),
        }
    }
    advance(domain)
}

/// Closes all ports of a domain that is dying and lets go of its pages; nobody opens a port any more.
///
/// # Errors
/// `ERESTART` when it is to go on later.
pub fn close_all(domain: &Domain) -> Result<()> {
    {
        let mut events = domain.events.lock();
        events.refuse();
        events.reset().get_or_insert(Reset::Closing(1));
    }
    // A reset that was under way may have passed ports that were opened behind it: the next round finds them.
    advance(domain).map_err(|error| if error == Errno::EAGAIN { Errno::ERESTART } else { error })
}

/// Goes on with a reset.
fn advance(domain: &Domain) -> Result<()> {
    let from = match *domain.events.lock().reset() {
        Some(Reset::Closing(from)) => from,
        Some(at) => return if at.is_over() { Ok(()) } else { Err(Errno::ERESTART) },
        None => return Ok(()),
    };
    close_from(domain, from)?;
    let mut events = domain.events.lock();
    if let Some(Reset::Closing(_)) = events.reset().take()
        && let Some(ticket) = events.leave_fifo()?
    {
        // The guest must have its pages back when the call returns.
        *events.reset() = Some(Reset::Leaving(ticket));
        return Err(Errno::ERESTART);
    }
    Ok(())
}

/// Ports between two questions whether to go on later.
const STRIDE: u32 = 16;

/// Closes a domain's ports from one on.
fn close_from(domain: &Domain, from: u32) -> Result<()> {
    let there = (from..).map_while(|number| domain.events.port(number).map(|port| (number, port)));
    for (number, port) in there {
        let is_open = port.channel().state != State::Closed;
        if (is_open || number % STRIDE == 0) && arch::cpu::preempt_pending() {
            *domain.events.lock().reset() = Some(Reset::Closing(number));
            return Err(Errno::ERESTART);
        }
        if is_open {
            // One that another CPU has closed meanwhile is closed just as well.
            let _ = close(domain, number);
        }
    }
    Ok(())
}
