// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fuzz target: see [`fuzz::policy`].
#![cfg_attr(fuzzing, no_main)]

fuzz::target!(fuzz::policy::run);
