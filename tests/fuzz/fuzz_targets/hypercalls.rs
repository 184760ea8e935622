// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fuzz target: see [`fuzz::hypercalls`].
#![cfg_attr(fuzzing, no_main)]

fuzz::target!(fuzz::hypercalls::run);
