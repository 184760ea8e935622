// SPDX-License-Identifier: MIT OR Apache-2.0
//! The scheduler in a simulated machine. Random tests print their seed; `XENITH_SEED` sets it.

mod fairness;
mod mixed;
mod null;
mod pools;
mod simulation;
mod storm;
mod turns;
