// SPDX-License-Identifier: MIT OR Apache-2.0
//! The rules of memory as functions: what tests call after every step, and a debug build may call on the machine.
//!
//! Counts are recomputed from everything that holds references: allocation, valid tables, interrupted tables, pins, and
//! what the caller names (roots of vCPUs, grants, reference values it holds). The world must stand still meanwhile.
