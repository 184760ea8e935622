// SPDX-License-Identifier: MIT OR Apache-2.0
//! Prints the table of hypercalls, for `cargo xtask abi`.

fn main() {
    print!("{}", hypervisor::abi_table());
}
