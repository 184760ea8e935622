// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fuzz target: see [`fuzz::page_table_writes`].
#![cfg_attr(fuzzing, no_main)]

fuzz::target!(fuzz::page_table_writes::run);
