// SPDX-License-Identifier: MIT OR Apache-2.0
//! dom0's tools on the hosted machine: their hypercalls, with arguments and buffers in dom0's memory.

use core::sync::atomic::Ordering::Relaxed;

use hypercalls::domctl::{Domctl, DomctlCmd, XEN_DOMCTL_INTERFACE_VERSION};
use hypercalls::domctl_args::{CreateDomain, DomctlVcpuContext, MaxMem, MaxVcpus};
use hypercalls::shared_info::{VcpuInfo, shared_offset, vcpu_offset};
use hypercalls::sysctl::{Sysctl, SysctlCmd, XEN_SYSCTL_INTERFACE_VERSION};
use hypercalls::vcpu::VGCF_ONLINE;
use hypercalls::{DomId, Errno, GuestPtr, HypercallNr, PAGE_SIZE, VcpuGuestContext, VcpuId};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::guest::{self, Guest, args_of, va};
use super::vcpus;
use super::world::World;
use crate::domain::Domain;

/// Where the argument of a call lies: the first page for arguments of a vCPU 0.
pub const ARGUMENT: u64 = va(args_of(VcpuId(0)));
/// Where large buffers may lie: two pages that nothing else needs.
pub const CONTEXT: u64 = va(40);
/// Where buffers may lie: the second one.
pub const BUFFER: u64 = va(args_of(VcpuId(0)) + 1);

/// Builds a world with one CPU in which dom0's first vCPU runs.
pub fn world() -> World {
    let mut world = World::new(1);
    world.boot_kernels();
    as_domain(&mut world, 0);
    world
}

/// Lets time pass until vCPU 0 of a domain runs.
///
/// # Panics
/// When it never does.
pub fn as_domain(world: &mut World, id: u16) {
    for _ in 0..100 {
        if world.go_back().is_some_and(|vcpu| vcpu.domid == DomId(id) && vcpu.id == VcpuId(0)) {
            return;
        }
        arch::time::advance(20_000_000);
        arch::entry::take_interrupts();
        arch::cpu::raise_here(arch::cpu::Work::SCHEDULE);
    }
    panic!("domain {id} never runs");
}

/// Makes a call with its argument in memory; returns the result and what has become of the argument.
pub fn raw<T: IntoBytes + Immutable + FromBytes>(world: &mut World, number: HypercallNr, argument: &T) -> (i64, T) {
    assert!(guest::write(ARGUMENT, argument.as_bytes()), "the page for arguments is mapped");
    let result = world.call(number, [ARGUMENT, 0, 0, 0, 0]);
    (result, read(ARGUMENT))
}

/// Reads what a call has left in memory.
pub fn read<T: FromBytes + IntoBytes>(at: u64) -> T {
    crate::guest::read(GuestPtr::new(at)).expect("the page is mapped")
}

fn answer<T>(result: i64, argument: T) -> Result<T, Errno> {
    if result == 0 { Ok(argument) } else { Err(Errno::from_ret(result).expect("0 or an error")) }
}

/// Returns a `sysctl`'s argument without its union.
pub fn sysctl_op(cmd: SysctlCmd) -> Sysctl {
    Sysctl { cmd, interface_version: XEN_SYSCTL_INTERFACE_VERSION, ..Sysctl::default() }
}

/// Makes a `sysctl`; returns what has become of the union.
///
/// # Errors
/// The call's.
pub fn sysctl<T>(world: &mut World, cmd: SysctlCmd, argument: &T) -> Result<T, Errno>
where
    T: IntoBytes + Immutable + FromBytes,
{
    let mut op = sysctl_op(cmd);
    op.u.put(argument);
    let (result, back) = raw(world, HypercallNr::SYSCTL, &op);
    answer(result, back.u.get())
}

/// Returns a `domctl`'s argument without its union.
pub fn domctl_op(cmd: DomctlCmd, domain: u16) -> Domctl {
    Domctl { cmd, interface_version: XEN_DOMCTL_INTERFACE_VERSION, domain: DomId(domain), ..Domctl::default() }
}

/// Makes a `domctl`; returns what has become of the union.
///
/// # Errors
/// The call's.
pub fn domctl<T>(world: &mut World, cmd: DomctlCmd, domain: u16, argument: &T) -> Result<T, Errno>
where
    T: IntoBytes + Immutable + FromBytes,
{
    let mut op = domctl_op(cmd, domain);
    op.u.put(argument);
    let (result, back) = raw(world, HypercallNr::DOMCTL, &op);
    answer(result, back.u.get())
}

/// What tools say of the domain that [`create`] makes.
pub fn wanted() -> CreateDomain {
    CreateDomain {
        handle: *b"a name for tests",
        max_vcpus: 2,
        max_evtchn_port: 1023,
        max_grant_frames: -1,
        max_maptrack_frames: -1,
        grant_opts: 2,
        ..CreateDomain::default()
    }
}

/// Creates a domain; returns its number.
///
/// # Errors
/// The call's.
pub fn create(world: &mut World, number: u16, wanted: &CreateDomain) -> Result<u16, Errno> {
    let mut op = domctl_op(DomctlCmd::CREATEDOMAIN, number);
    op.u.put(wanted);
    let (result, back) = raw(world, HypercallNr::DOMCTL, &op);
    answer(result, back.domain.0)
}

/// Sets a vCPU's state, `None` for none; the state lies where buffers do, and in the page behind.
///
/// # Errors
/// The call's.
pub fn set_context(world: &mut World, id: u16, vcpu: u32, context: Option<&VcpuGuestContext>) -> Result<(), Errno> {
    let at = if context.is_some() { CONTEXT } else { 0 };
    if let Some(context) = context {
        assert!(guest::write(at, context.as_bytes()), "the pages are mapped");
    }
    let a = DomctlVcpuContext { vcpu, ctxt: GuestPtr::new(at), ..DomctlVcpuContext::default() };
    domctl(world, DomctlCmd::SETVCPUCONTEXT, id, &a).map(|_| ())
}

/// Creates a domain with memory and tables, as tools do, and lets it run. It is the world's last guest.
///
/// # Errors
/// The calls'.
pub fn build(world: &mut World, wanted: &CreateDomain) -> Result<u16, Errno> {
    build_as(world, 0, wanted)
}

/// Writes a new domain's shared page as libxenguest does: nothing but masks.
fn clear_shared_page(domain: &Domain) {
    let shared = domain.shared_info();
    (0..PAGE_SIZE).step_by(8).for_each(|at| shared.u64(at).store(0, Relaxed));
    for at in (0..32 * size_of::<VcpuInfo>()).step_by(size_of::<VcpuInfo>()) {
        shared.u8(shared_offset::VCPU_INFO + at + vcpu_offset::EVTCHN_UPCALL_MASK).store(1, Relaxed);
    }
}

/// As [`build`], with a number of the caller's choice.
///
/// # Errors
/// The calls'.
pub fn build_as(world: &mut World, number: u16, wanted: &CreateDomain) -> Result<u16, Errno> {
    let id = create(world, number, wanted)?;
    domctl(world, DomctlCmd::MAX_VCPUS, id, &MaxVcpus { max: wanted.max_vcpus })?;
    let max_memkb = guest::FRAMES as u64 * 4;
    domctl(world, DomctlCmd::MAX_MEM, id, &MaxMem { max_memkb })?;
    let domain = crate::domain::find(DomId(id)).ok_or(Errno::ESRCH)?;
    clear_shared_page(&domain);
    world.guests.push(Guest::furnish(domain)?);
    let mut context = world.guests.last().map(|guest| vcpus::context(guest, VcpuId(0))).ok_or(Errno::ESRCH)?;
    context.flags |= VGCF_ONLINE;
    set_context(world, id, 0, Some(&context))?;
    domctl(world, DomctlCmd::UNPAUSEDOMAIN, id, &0u64)?;
    Ok(id)
}
