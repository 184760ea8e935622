// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fuzz target: see [`fuzz::options`].
#![cfg_attr(fuzzing, no_main)]

fuzz::target!(fuzz::options::run);
