// SPDX-License-Identifier: MIT OR Apache-2.0
//! Port I/O of guests: the decision of [`emulate::io`] carried out.

use core::sync::atomic::Ordering::Relaxed;

use arch::{Regs, context, port};
use arrayvec::ArrayVec;
use hypercalls::GuestPtr;
use hypercalls::vm_assist::VmAssistType;
use mm::Lock;

use crate::domain::Domain;
use crate::emulate::decode::{Port, StringOp};
use crate::emulate::io::{ConfigLatch, Piece, Privilege, Target, pieces};
use crate::emulate::{CodeSize, Gpr, Insn, Width};
use crate::operand::{self, Access, Fault};
use crate::vcpu::Vcpu;
use crate::{guest, pci, rank};

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

/// Does something that uses the same devices as those accesses.
pub fn exclusively<T>(f: impl FnOnce() -> T) -> T {
    let _both = TWO_STEPS.lock();
    f()
}

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
    privilege(vcpu).allows(port, width, |byte| guest::in_kernel(|| guest::read_at(bitmap, u64::from(byte)).ok()))
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
/// The fault that is the guest's own.
pub fn input(vcpu: &Vcpu, regs: &mut Regs, port: Port, width: Width) -> Result<(), Fault> {
    let at = number(regs, port);
    if !allowed(vcpu, at, width) {
        return Err(Fault::Protection);
    }
    let value = u64::from(read(vcpu, at, width));
    Gpr::Rax.set_width(regs, width, value);
    Ok(())
}

/// Carries out OUT.
///
/// # Errors
/// The fault that is the guest's own.
pub fn output(vcpu: &Vcpu, regs: &mut Regs, port: Port, width: Width) -> Result<(), Fault> {
    let at = number(regs, port);
    if !allowed(vcpu, at, width) {
        return Err(Fault::Protection);
    }
    write(vcpu, at, width, regs.rax as u32);
    Ok(())
}

/// Returns the ports that an instruction of the guest's is about to access: the first one and how many.
pub fn accessed(regs: &Regs, insn: Insn) -> Option<(u16, u32)> {
    match insn {
        Insn::In { port, width } | Insn::Out { port, width } => Some((number(regs, port), width.bytes())),
        Insn::Ins(op) | Insn::Outs(op) if !exhausted(regs, op) => Some((regs.rdx as u16, op.width.bytes())),
        _ => None,
    }
}

/// True when a repeated instruction has no element left.
fn exhausted(regs: &Regs, op: StringOp) -> bool {
    op.rep && regs.rcx & op.address.mask() == 0
}

/// Carries out one element of INS.
///
/// # Errors
/// The fault that is the guest's own.
pub fn input_string(vcpu: &Vcpu, regs: &mut Regs, op: StringOp, size: CodeSize) -> Result<Element, Fault> {
    let at = regs.rdx as u16;
    if !allowed(vcpu, at, op.width) {
        return Err(Fault::Protection);
    }
    if exhausted(regs, op) {
        return Ok(Element::Last);
    }
    let bytes = op.width.bytes();
    let to = operand::linear(vcpu, regs, size, op.segment, regs.rdi & op.address.mask(), bytes)?;
    // The memory is tried before the device is read: what a device gave cannot be given back.
    operand::probe(vcpu, to, bytes, Access::Write)?;
    let value = read(vcpu, at, op.width).to_le_bytes();
    let part = value.get(..bytes as usize).unwrap_or(&value);
    arch::guest::copy_to(to, part).map_err(|_| operand::fault_at(vcpu, to, Access::Write))?;
    Ok(advance(regs, op, Gpr::Rdi))
}

/// Carries out one element of OUTS.
///
/// # Errors
/// The fault that is the guest's own.
pub fn output_string(vcpu: &Vcpu, regs: &mut Regs, op: StringOp, size: CodeSize) -> Result<Element, Fault> {
    let at = regs.rdx as u16;
    if !allowed(vcpu, at, op.width) {
        return Err(Fault::Protection);
    }
    if exhausted(regs, op) {
        return Ok(Element::Last);
    }
    let bytes = op.width.bytes();
    let from = operand::linear(vcpu, regs, size, op.segment, regs.rsi & op.address.mask(), bytes)?;
    operand::probe(vcpu, from, bytes, Access::Read)?;
    let mut value = [0; 4];
    let part = value.get_mut(..bytes as usize).unwrap_or(&mut []);
    arch::guest::copy_from(part, from).map_err(|_| operand::fault_at(vcpu, from, Access::Read))?;
    write(vcpu, at, op.width, u32::from_le_bytes(value));
    Ok(advance(regs, op, Gpr::Rsi))
}

/// Moves the pointer and the counter of a string instruction by one element.
fn advance(regs: &mut Regs, op: StringOp, pointer: Gpr) -> Element {
    const DF: u64 = 1 << 10;
    let bytes = u64::from(op.width.bytes());
    let by = if regs.rflags & DF != 0 { bytes.wrapping_neg() } else { bytes };
    let next = pointer.get(regs).wrapping_add(by);
    pointer.set_width(regs, op.address, next);
    if !op.rep {
        return Element::Last;
    }
    let left = regs.rcx.wrapping_sub(1);
    Gpr::Rcx.set_width(regs, op.address, left);
    if exhausted(regs, op) { Element::Last } else { Element::More }
}

/// The pieces of an access, at most one a byte.
fn pieces_of(domain: &Domain, at: u16, width: Width) -> ArrayVec<Piece, 4> {
    domain.io.with_ports(|ports| pieces(at, width, ports).collect())
}

fn read(vcpu: &Vcpu, at: u16, width: Width) -> u32 {
    let domain = vcpu.domain();
    let mut value = u32::MAX;
    for piece in pieces_of(domain, at, width) {
        let part = match piece.target {
            Target::Port => device_read(piece.port, piece.width),
            Target::ConfigAddress => domain.latches.lock().config.0,
            Target::ConfigData if domain.privileged => {
                let latch = domain.latches.lock().config;
                place(latch, piece.port).map_or(u32::MAX, |(place, at)| pci::config::read(place, at, piece.width))
            }
            Target::Clock if domain.privileged => clock_read(vcpu, piece.port),
            Target::Timer | Target::Clock | Target::ConfigData | Target::Nothing => {
                refused(domain, piece.port);
                u32::MAX
            }
        };
        value = piece.put(value, part);
    }
    value
}

fn write(vcpu: &Vcpu, at: u16, width: Width, value: u32) {
    let domain = vcpu.domain();
    for piece in pieces_of(domain, at, width) {
        let part = piece.part(value);
        match piece.target {
            Target::Port => device_write(piece.port, piece.width, part),
            Target::ConfigAddress => domain.latches.lock().config = ConfigLatch(part),
            Target::ConfigData if domain.privileged => {
                let latch = domain.latches.lock().config;
                if let Some((place, at)) = place(latch, piece.port) {
                    pci::watch::write(place, at, piece.width, part);
                }
            }
            Target::Clock if domain.privileged => clock_write(vcpu, piece.port, part as u8),
            Target::Timer | Target::Clock | Target::ConfigData | Target::Nothing => refused(domain, piece.port),
        }
    }
}

/// Notes, once a port, that a domain used one that is not for it: it reads as ones, and what is written is dropped.
#[cold]
fn refused(domain: &Domain, port: u16) {
    if domain.account.first_time(u64::from(port) << 32 | 0x10) {
        log::debug!("d{}: port {port:#x} is not for this domain", domain.id.0);
    }
}

/// Where an access to the configuration data port goes.
fn place(latch: ConfigLatch, data: u16) -> Option<(pci::Place, u16)> {
    let place = latch.place(data)?;
    let devfn = place.device << 3 | place.function;
    Some((pci::Place { segment: 0, bus: place.bus, devfn }, place.offset.into()))
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
