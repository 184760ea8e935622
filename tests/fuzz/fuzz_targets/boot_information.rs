// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fuzz target: see [`fuzz::boot_information`].
#![cfg_attr(fuzzing, no_main)]

fuzz::target!(fuzz::boot_information::run);
