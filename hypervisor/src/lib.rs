//! Placeholder.
#![no_std]

extern crate alloc;

pub mod builder;
pub mod emulate;
