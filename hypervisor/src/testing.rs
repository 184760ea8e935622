// SPDX-License-Identifier: MIT OR Apache-2.0
//! The whole hypervisor in a process: a machine, two domains on it, and somebody who plays their kernels.
//!
//! [`World`] starts a hosted machine with dom0 and one unprivileged domain, each with two vCPUs, and takes its CPUs the ways
//! that the entry stubs take them. [`Player`] lets whatever vCPU a CPU runs do what a kernel does, sensible or not, as a
//! [`Source`] of numbers says: random ones in tests, a fuzzer's bytes. [`audit`] checks the rules of `docs/architecture.md`
//! after each step. [`kernel`] makes an ELF file that the dom0 builder accepts.
//!
//! What must hold: guests reach the hypervisor only as on the machine, through registers, memory and faults; everything is
//! repeatable from the seed.

pub mod audit;
mod calls;
mod channels;
mod end;
mod foreign;
mod grants;
pub mod guest;
pub mod kernel;
mod memory;
mod player;
mod steering;
mod tables;
pub mod tools;
mod traps;
pub mod vcpus;
pub mod world;

pub use mm::hosted::Source;
pub use player::{Player, Tally};
pub use world::World;

/// Plays random steps in a new world until the numbers or the machine come to their end; every rule is checked after each.
/// Returns how many steps there were, and what happened in them.
///
/// # Panics
/// When a rule is broken.
pub fn play(source: Source<'_>, steps: usize) -> (usize, Tally) {
    let mut world = World::new(2);
    world.boot_kernels();
    world.check();
    let mut player = Player::new(source);
    let mut done = 0;
    while done < steps && !player.is_over() && player.step(&mut world) {
        world.check();
        done += 1;
    }
    world.finish();
    (done, player.tally)
}
