// SPDX-License-Identifier: MIT OR Apache-2.0
//! Local APICs: what has arrived at each CPU, and what it has taken and not ended.

use crate::area::locked;
use crate::{cpu, ioapic};
use arch_types::{CpuId, MAX_CPUS};
use std::sync::Mutex;

/// One bit a vector.
#[derive(Clone, Copy, Debug, Default)]
struct Vectors([u64; 4]);

impl Vectors {
    fn contains(&self, vector: u8) -> bool {
        self.0[usize::from(vector / 64)] >> (vector % 64) & 1 != 0
    }
    fn insert(&mut self, vector: u8) {
        self.0[usize::from(vector / 64)] |= 1 << (vector % 64);
    }
    fn remove(&mut self, vector: u8) {
        self.0[usize::from(vector / 64)] &= !(1 << (vector % 64));
    }
    /// The one that comes first: the highest.
    fn first(&self) -> Option<u8> {
        (0..=u8::MAX).rev().find(|v| self.contains(*v))
    }
}

#[derive(Clone, Copy, Debug)]
struct Local {
    requested: Vectors,
    in_service: Vectors,
}

const EMPTY: Local = Local { requested: Vectors([0; 4]), in_service: Vectors([0; 4]) };
static LOCAL: Mutex<[Local; MAX_CPUS]> = Mutex::new([EMPTY; MAX_CPUS]);

fn with<T>(cpu: CpuId, act: impl FnOnce(&mut Local) -> T) -> T {
    act(&mut locked(&LOCAL)[usize::from(cpu.0) % MAX_CPUS])
}

pub(crate) fn reset() {
    locked(&LOCAL).fill(EMPTY);
}

/// Lets an interrupt arrive at a CPU: what a line or a message does.
pub fn send(cpu: CpuId, vector: u8) {
    with(cpu, |local| local.requested.insert(vector));
}

/// Takes the interrupt that is due on this CPU, as the CPU does when interrupts are on: `None` when there is none, or a higher
/// one has not been ended.
pub fn take() -> Option<u8> {
    with(cpu::this_cpu(), |local| {
        let vector = local.requested.first()?;
        // Vectors of one class of 16 do not interrupt each other.
        if local.in_service.first().is_some_and(|busy| busy / 16 >= vector / 16) {
            return None;
        }
        local.requested.remove(vector);
        local.in_service.insert(vector);
        Some(vector)
    })
}

/// Ends the interrupt in service: the highest.
pub fn end_of_interrupt() {
    let ended = with(cpu::this_cpu(), |local| {
        let ended = local.in_service.first();
        ended.into_iter().for_each(|vector| local.in_service.remove(vector));
        ended
    });
    if let Some(vector) = ended {
        ioapic::ended(vector);
    }
}

/// True when the vector's interrupt is in service on this CPU.
pub fn in_service(vector: u8) -> bool {
    with(cpu::this_cpu(), |local| local.in_service.contains(vector))
}

/// True when the vector's interrupt has come to this CPU and was not taken yet.
pub fn is_requested(vector: u8) -> bool {
    with(cpu::this_cpu(), |local| local.requested.contains(vector))
}

/// True when lines and messages can be sent to a CPU.
pub fn can_target(cpu: CpuId) -> bool {
    cpu::is_online(cpu)
}
