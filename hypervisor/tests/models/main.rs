// SPDX-License-Identifier: MIT OR Apache-2.0
//! Models of what CPUs and guests do at the same time without a lock between them: every interleaving with few preemptions is
//! tried. What runs is the hypervisor's own code, on words that yield before each access.

mod explore;
mod fifo;
