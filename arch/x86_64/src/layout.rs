// SPDX-License-Identifier: MIT OR Apache-2.0
//! The linear address space of the hypervisor: L4 slots 256 to 271, the same in every address space.

/// First of the L4 slots that are the hypervisor's.
pub const FIRST_SLOT: usize = 256;
/// How many L4 slots are the hypervisor's.
pub const SLOTS: usize = 16;

/// The machine-to-physical table as guest kernels see it: read-only.
pub const M2P_RO: u64 = 0xffff_8000_0000_0000;
/// The machine-to-physical table as the hypervisor writes it.
pub const M2P_RW: u64 = 0xffff_8080_0000_0000;
/// The frame table.
pub const FRAME_TABLE: u64 = 0xffff_8100_0000_0000;
/// Descriptor windows: [`WINDOW_SIZE`] bytes a vCPU.
pub const WINDOWS: u64 = 0xffff_8180_0000_0000;
/// Bytes of one vCPU's window: 64 KiB of GDT, then 64 KiB of LDT.
pub const WINDOW_SIZE: u64 = 128 * 1024;
/// How many windows the slot holds.
pub const MAX_WINDOWS: u32 = 1 << 20;
/// Device registers, uncached.
pub const DEVICES: u64 = 0xffff_82c0_0000_0000;
/// Where the image is linked.
pub const IMAGE: u64 = 0xffff_82d0_4000_0000;
/// Where the loader puts the image.
pub const IMAGE_MADDR: u64 = 0x20_0000;
/// Per-CPU areas: [`CPU_STRIDE`] bytes a CPU, within 2 GiB of the image.
pub const CPU_AREAS: u64 = 0xffff_82d0_6000_0000;
/// Bytes of one CPU's area; a power of two, so that the area is found from any stack in it.
pub const CPU_STRIDE: u64 = 256 * 1024;
/// Where machine address 0 is mapped.
pub const DIRECT_MAP: u64 = 0xffff_8300_0000_0000;
/// Bytes of machine memory that the direct map can hold.
pub const DIRECT_MAP_SIZE: u64 = 10 << 39;

/// First linear address that is the hypervisor's.
pub const HOLE_START: u64 = hypercalls::addr::HOLE_START;
/// First linear address behind the hypervisor's.
pub const HOLE_END: u64 = hypercalls::addr::HOLE_END;
