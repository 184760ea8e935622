// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls of UEFI firmware's runtime services.
//!
//! The firmware runs on page tables of its own: its runtime regions at their machine addresses (nobody called
//! `SetVirtualAddressMap`) in the lower half, the hypervisor's slots in the upper one. It runs with interrupts off, one call at
//! a time, which the caller sees to, and with the FPU in its initial state, whose contents the caller keeps. When it faults, the
//! call is abandoned and no further one is made.
//!
//! Buffers are the hypervisor's memory, which those tables map. That the firmware keeps to them is trusted, as it is with all
//! else that firmware does.
#![expect(unsafe_code, reason = "page tables for the firmware, and calls of it")]

use core::arch::global_asm;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arch_types::Regs;
use hypercalls::{Maddr, Mfn};
use spin::Once;

use crate::cpu_area::area;
use crate::paging::{self, NoTables, Pte, TableAlloc};
use crate::platform::efi::{RuntimeTable, SERVICES};
use crate::{context, fpu, layout, phys, tlb};

global_asm!(include_str!("efi.S"));

#[repr(C)]
struct Returned {
    status: u64,
    faulted: u64,
}

unsafe extern "C" {
    fn xenith_efi_call(function: u64, arguments: *const [u64; 5], stack: *mut u64) -> Returned;
    fn xenith_efi_fault();
}

/// A region that the firmware uses while the system runs.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    /// First machine address.
    pub start: u64,
    /// Bytes.
    pub len: u64,
    /// It holds code.
    pub executable: bool,
    /// It is to be cached.
    pub cached: bool,
}

struct Firmware {
    root: Mfn,
    services: [u64; SERVICES],
}

static FIRMWARE: Once<Firmware> = Once::new();
/// Stack pointer of the call under way, 0 when none is.
static STACK: AtomicU64 = AtomicU64::new(0);
/// A call has faulted: the firmware's state is unknown.
static BROKEN: AtomicBool = AtomicBool::new(false);

/// What a service returned, or why it was not called: there is no such service, or the firmware has faulted.
pub type Answer = Result<u64, Unavailable>;

/// A service cannot be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable;

/// Positions in the table of services.
const GET_TIME: usize = 0;
const SET_TIME: usize = 1;
const GET_WAKEUP_TIME: usize = 2;
const SET_WAKEUP_TIME: usize = 3;
const GET_VARIABLE: usize = 6;
const GET_NEXT_VARIABLE_NAME: usize = 7;
const SET_VARIABLE: usize = 8;
const GET_NEXT_HIGH_MONOTONIC_COUNT: usize = 9;
const QUERY_VARIABLE_INFO: usize = 13;

/// Makes the page tables for the firmware. Services that lie in no executable region are left out.
///
/// # Errors
/// [`NoTables`] when `alloc` has nothing left; there are no services then.
pub fn setup(table: &RuntimeTable, regions: &[Region], alloc: TableAlloc<'_>) -> Result<(), NoTables> {
    let root = alloc().ok_or(NoTables)?;
    for (slot, entry) in paging::hypervisor_slots().into_iter().enumerate() {
        // SAFETY: a fresh frame of ours.
        unsafe { phys::entry(root, layout::FIRST_SLOT + slot) }.store(entry, Ordering::Relaxed);
    }
    // Below the non-canonical hole, and with an end that is a page's.
    let aligned = |r: &Region| r.start.is_multiple_of(4096) && r.len.is_multiple_of(4096);
    let fits = |r: &&Region| aligned(r) && r.start.checked_add(r.len).is_some_and(|end| end <= 1 << 47);
    for region in regions.iter().filter(fits) {
        let mut flags = Pte::PRESENT | Pte::WRITE | Pte::ACCESSED | Pte::DIRTY;
        flags.set(Pte::NX, !region.executable);
        flags.set(Pte::PCD | Pte::PWT, !region.cached);
        paging::map_below(root, region.start, Maddr(region.start), region.len, flags, alloc)?;
    }
    let code = |at: u64| regions.iter().any(|r| r.executable && (r.start..r.start + r.len).contains(&at));
    let services = table.services.map(|at| if code(at) { at } else { 0 });
    FIRMWARE.call_once(|| Firmware { root, services });
    Ok(())
}

/// True when runtime services can be called.
pub fn available() -> bool {
    FIRMWARE.is_completed() && !BROKEN.load(Ordering::Relaxed)
}

/// Calls a service. The arguments are numbers or the addresses of buffers that live until it returns.
fn call(service: usize, arguments: [u64; 5]) -> Answer {
    let firmware = FIRMWARE.get().filter(|_| available()).ok_or(Unavailable)?;
    let function = firmware.services.get(service).copied().filter(|at| *at != 0).ok_or(Unavailable)?;
    tlb::load_cr3_flush_all(firmware.root.maddr().0);
    fpu::initialise();
    // SAFETY: the function lies in the firmware's runtime code, which the tables just loaded map where it wants to be, beside
    // all that the hypervisor uses; interrupts are off. `STACK` is written before the firmware runs.
    let returned = unsafe { xenith_efi_call(function, &raw const arguments, STACK.as_ptr()) };
    STACK.store(0, Ordering::Relaxed);
    context::reload_root();
    if returned.faulted != 0 {
        return Err(Unavailable);
    }
    Ok(returned.status)
}

/// Abandons the firmware's call if the fault in the frame is its own; true when it was.
pub fn recover(frame: &mut Regs) -> bool {
    let stack = STACK.load(Ordering::Relaxed);
    let here = core::ptr::from_ref(area()) as u64;
    // The call may be another CPU's.
    if stack == 0 || stack & !(layout::CPU_STRIDE - 1) != here & !(layout::CPU_STRIDE - 1) {
        return false;
    }
    BROKEN.store(true, Ordering::Relaxed);
    log::error!(
        "the firmware's runtime service faults at {:#x}, exception {} (error code {:#x}, cr2 {:#x}): none is called any more",
        frame.rip,
        frame.vector,
        frame.error_code,
        context::fault_address()
    );
    frame.rip = xenith_efi_fault as *const () as u64;
    frame.rsp = stack;
    true
}

fn address<T: ?Sized>(buffer: &mut T) -> u64 {
    core::ptr::from_mut(buffer).cast::<u8>() as u64
}

/// Reads the clock: its time, and what it can do (resolution, accuracy, whether setting it clears what is below a second).
pub fn get_time(time: &mut [u8; 16], capabilities: &mut [u8; 12]) -> Answer {
    call(GET_TIME, [address(time), address(capabilities), 0, 0, 0])
}

/// Sets the clock.
pub fn set_time(time: &mut [u8; 16]) -> Answer {
    call(SET_TIME, [address(time), 0, 0, 0, 0])
}

/// Reads the alarm: whether it is set, whether it has gone off, and for when it is.
pub fn get_wakeup_time(enabled: &mut u8, pending: &mut u8, time: &mut [u8; 16]) -> Answer {
    call(GET_WAKEUP_TIME, [address(enabled), address(pending), address(time), 0, 0])
}

/// Sets the alarm, or switches it on or off without a new time.
pub fn set_wakeup_time(enable: bool, time: Option<&mut [u8; 16]>) -> Answer {
    call(SET_WAKEUP_TIME, [enable.into(), time.map_or(0, address), 0, 0, 0])
}

/// Reads a variable. `name` ends with a zero. `size` says how long the value is, also when `data` is too short for it.
pub fn get_variable(
    name: &mut [u16],
    guid: &mut [u8; 16],
    attributes: &mut u32,
    size: &mut u64,
    data: &mut [u8],
) -> Answer {
    assert_eq!(name.last(), Some(&0), "the name ends");
    *size = data.len() as u64;
    let at = if data.is_empty() { 0 } else { address(data) };
    call(GET_VARIABLE, [address(name), address(guid), address(attributes), address(size), at])
}

/// Writes a variable. `name` ends with a zero.
pub fn set_variable(name: &mut [u16], guid: &mut [u8; 16], attributes: u32, data: &mut [u8]) -> Answer {
    assert_eq!(name.last(), Some(&0), "the name ends");
    call(SET_VARIABLE, [address(name), address(guid), attributes.into(), data.len() as u64, address(data)])
}

/// Replaces the name of a variable, which ends within the buffer, by that of the next one.
pub fn get_next_variable_name(size: &mut u64, name: &mut [u16], guid: &mut [u8; 16]) -> Answer {
    *size = (*size).min(size_of_val(name) as u64);
    call(GET_NEXT_VARIABLE_NAME, [address(size), address(name), address(guid), 0, 0])
}

/// Counts on, across restarts.
pub fn get_next_high_monotonic_count(count: &mut u32) -> Answer {
    call(GET_NEXT_HIGH_MONOTONIC_COUNT, [address(count), 0, 0, 0, 0])
}

/// Tells the room for variables with these attributes: in all, what is left, and for one.
pub fn query_variable_info(attributes: u32, sizes: &mut [u64; 3]) -> Answer {
    let [all, left, one] = sizes;
    call(QUERY_VARIABLE_INFO, [attributes.into(), address(all), address(left), address(one), 0])
}
