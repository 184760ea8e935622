// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fuzz target: see [`fuzz::page_tables`].
#![cfg_attr(fuzzing, no_main)]

fuzz::target!(fuzz::page_tables::run);
