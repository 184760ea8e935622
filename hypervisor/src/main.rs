// SPDX-License-Identifier: MIT OR Apache-2.0
//! The hypervisor binary: what the boot entry calls, on the machine; a word of advice, as a process.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod machine;

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    eprintln!(
        "xenith is a hypervisor: GRUB starts it with `multiboot2 /boot/xenith.gz`; `cargo xtask run` does so under QEMU."
    );
    std::process::ExitCode::FAILURE
}
