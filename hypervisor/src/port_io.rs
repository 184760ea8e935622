// SPDX-License-Identifier: MIT OR Apache-2.0
//! Port I/O of guests: the decision of [`emulate::io`] carried out.

use core::sync::atomic::Ordering::Relaxed;

use arch::{Regs, context, port};
use hypercalls::vm_assist::VmAssistType;
use hypercalls::{GuestPtr, GuestVa};
use mm::Lock;

use crate::emulate::Width;
use crate::emulate::decode::{Port, StringOp};
use crate::emulate::io::{ConfigLatch, Privilege, Target, pieces};
use crate::vcpu::Vcpu;
use crate::{guest, rank};

/// The guest has no right to this port: its own #GP.
#[derive(Clone, Copy, Debug)]
pub struct Refused;

/// How a string instruction stands after one element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// It is over.
    Last,
    /// It is to be executed again.
    More,
}

/// Registers behind ports that domains share: the index of the real-time clock, the PCI configuration address.
#[derive(Debug, Default)]
pub struct Latches {
    config: ConfigLatch,
    clock_index: u8,
}

/// Serialises accesses that take two steps in hardware (index, then data).
static TWO_STEPS: Lock<()> = Lock::new(rank::PORTS, ());

/// Returns what the vCPU's virtual I/O privilege is now.
pub fn privilege(vcpu: &Vcpu) -> Privilege {
    Privilege {
        kernel_mode: context::kernel_mode(),
        iopl: vcpu.iopl.load(Relaxed),
        architectural_iopl: vcpu.domain().assists(VmAssistType::ARCHITECTURAL_IOPL),
        bitmap_ports: vcpu.io_ports.load(Relaxed),
    }
}

fn allowed(vcpu: &Vcpu, port: u16, width: Width) -> bool {
    let bitmap = GuestPtr::<u8>::new(vcpu.io_bitmap.load(Relaxed));
    privilege(vcpu).allows(port, width, |byte| guest::read_at(bitmap, u64::from(byte)).ok())
}

fn number(regs: &Regs, port: Port) -> u16 {
    match port {
        Port::Imm(n) => u16::from(n),
        Port::Dx => regs.rdx as u16,
    }
}

/// Carries out IN.
///
/// # Errors
/// [`Refused`] when the fault is the guest's.
pub fn input(vcpu: &Vcpu, regs: &mut Regs, port: Port, width: Width) -> Result<(), Refused> {
    let at = number(regs, port);
    if !allowed(vcpu, at, width) {
        return Err(Refused);
    }
    let value = u64::from(read(vcpu, at, width));
    let mask = width.mask();
    // A 32-bit result clears the upper half; narrower ones keep the rest of RAX.
    regs.rax = if width == Width::Dword { value & mask } else { regs.rax & !mask | value & mask };
    Ok(())
}

/// Carries out OUT.
///
/// # Errors
/// [`Refused`] when the fault is the guest's.
pub fn output(vcpu: &Vcpu, regs: &mut Regs, port: Port, width: Width) -> Result<(), Refused> {
    let at = number(regs, port);
    if !allowed(vcpu, at, width) {
        return Err(Refused);
    }
    write(vcpu, at, width, regs.rax as u32);
    Ok(())
}

/// Carries out one element of INS.
///
/// # Errors
/// [`Refused`] when the fault is the guest's.
pub fn input_string(vcpu: &Vcpu, regs: &mut Regs, op: StringOp) -> Result<Element, Refused> {
    let at = regs.rdx as u16;
    if !allowed(vcpu, at, op.width) {
        return Err(Refused);
    }
    if op.rep && regs.rcx & op.address.mask() == 0 {
        return Ok(Element::Last);
    }
    let to = GuestVa(regs.rdi & op.address.mask());
    let bytes = op.width.bytes() as usize;
    // The memory is tried before the device is read: what a device gave cannot be given back.
    let mut old = [0; 4];
    let part = old.get_mut(..bytes).ok_or(Refused)?;
    arch::guest::copy_from(part, to).map_err(|_| Refused)?;
    let value = read(vcpu, at, op.width).to_le_bytes();
    arch::guest::copy_to(to, value.get(..bytes).ok_or(Refused)?).map_err(|_| Refused)?;
    Ok(advance(regs, op, |regs| &mut regs.rdi))
}

/// Carries out one element of OUTS.
///
/// # Errors
/// [`Refused`] when the fault is the guest's.
pub fn output_string(vcpu: &Vcpu, regs: &mut Regs, op: StringOp) -> Result<Element, Refused> {
    let at = regs.rdx as u16;
    if !allowed(vcpu, at, op.width) {
        return Err(Refused);
    }
    if op.rep && regs.rcx & op.address.mask() == 0 {
        return Ok(Element::Last);
    }
    let mut value = [0; 4];
    let part = value.get_mut(..op.width.bytes() as usize).ok_or(Refused)?;
    arch::guest::copy_from(part, GuestVa(regs.rsi & op.address.mask())).map_err(|_| Refused)?;
    write(vcpu, at, op.width, u32::from_le_bytes(value));
    Ok(advance(regs, op, |regs| &mut regs.rsi))
}

/// Moves the pointer and the counter of a string instruction by one element.
fn advance(regs: &mut Regs, op: StringOp, pointer: impl Fn(&mut Regs) -> &mut u64) -> Element {
    const DF: u64 = 1 << 10;
    let bytes = u64::from(op.width.bytes());
    let by = if regs.rflags & DF != 0 { bytes.wrapping_neg() } else { bytes };
    let mask = op.address.mask();
    let p = pointer(regs);
    *p = *p & !mask | p.wrapping_add(by) & mask;
    if !op.rep {
        return Element::Last;
    }
    regs.rcx = regs.rcx & !mask | regs.rcx.wrapping_sub(1) & mask;
    if regs.rcx & mask == 0 { Element::Last } else { Element::More }
}

fn read(vcpu: &Vcpu, at: u16, width: Width) -> u32 {
    let domain = vcpu.domain();
    let mut value = u32::MAX;
    for piece in pieces(at, width, domain.io.ports()) {
        let part = match piece.target {
            Target::Port => device_read(piece.port, piece.width),
            Target::ConfigAddress => domain.latches.lock().config.0,
            Target::ConfigData if domain.privileged => {
                let latch = domain.latches.lock().config;
                config(latch, |port| device_read(port, piece.width), piece.port).unwrap_or(u32::MAX)
            }
            Target::Clock if domain.privileged => clock_read(vcpu, piece.port),
            Target::Timer | Target::Clock | Target::ConfigData | Target::Nothing => u32::MAX,
        };
        value = piece.put(value, part);
    }
    value
}

fn write(vcpu: &Vcpu, at: u16, width: Width, value: u32) {
    let domain = vcpu.domain();
    for piece in pieces(at, width, domain.io.ports()) {
        let part = piece.part(value);
        match piece.target {
            Target::Port => device_write(piece.port, piece.width, part),
            Target::ConfigAddress => domain.latches.lock().config = ConfigLatch(part),
            Target::ConfigData if domain.privileged => {
                let latch = domain.latches.lock().config;
                let _ = config(latch, |port| device_write(port, piece.width, part), piece.port);
            }
            Target::Clock if domain.privileged => clock_write(vcpu, piece.port, part as u8),
            Target::Timer | Target::Clock | Target::ConfigData | Target::Nothing => {}
        }
    }
}

/// Makes a PCI configuration access through the hardware's pair of ports.
fn config<T>(latch: ConfigLatch, access: impl FnOnce(u16) -> T, data: u16) -> Option<T> {
    latch.place(data)?;
    let _both = TWO_STEPS.lock();
    device_write(0xcf8, Width::Dword, latch.0);
    Some(access(data))
}

fn clock_read(vcpu: &Vcpu, at: u16) -> u32 {
    let index = vcpu.domain().latches.lock().clock_index;
    if at == 0x70 {
        return u32::from(index);
    }
    let _both = TWO_STEPS.lock();
    device_write(0x70, Width::Byte, u32::from(index & 0x7f));
    device_read(0x71, Width::Byte)
}

fn clock_write(vcpu: &Vcpu, at: u16, value: u8) {
    if at == 0x70 {
        vcpu.domain().latches.lock().clock_index = value & 0x7f;
        return;
    }
    let index = vcpu.domain().latches.lock().clock_index;
    let _both = TWO_STEPS.lock();
    device_write(0x70, Width::Byte, u32::from(index));
    device_write(0x71, Width::Byte, u32::from(value));
}

fn device_read(at: u16, width: Width) -> u32 {
    match width {
        Width::Byte => u32::from(port::guest_read8(at)),
        Width::Word => u32::from(port::guest_read16(at)),
        _ => port::guest_read32(at),
    }
}

fn device_write(at: u16, width: Width, value: u32) {
    match width {
        Width::Byte => port::guest_write8(at, value as u8),
        Width::Word => port::guest_write16(at, value as u16),
        _ => port::guest_write32(at, value),
    }
}
