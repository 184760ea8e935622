// SPDX-License-Identifier: MIT OR Apache-2.0
//! Building a PV domain from a kernel image: the pure part.
//!
//! Everything here turns bytes and numbers into bytes and numbers; frames, domains and page tables are the caller's. The
//! order of use: [`image::find`] names the payload of a boot module, [`decompress::Stream`] unpacks it on the fly,
//! [`elf::Loader`] feeds its segments to a [`elf::Sink`] and hands back the notes, [`notes::XenNotes`] reads them,
//! [`layout::Layout`] says where everything of the first address space lies, and [`start_info`] writes the page the kernel
//! is given.
//!
//! What must always hold: an image decides nothing before it was checked. All arithmetic on its numbers is checked, output
//! and memory have stated bounds, there is no recursion and no `unsafe`, and a bad image yields an error that names its problem.

pub mod decompress;
pub mod elf;
pub mod image;
pub mod layout;
pub mod notes;
pub mod start_info;

#[cfg(test)]
mod tests;
