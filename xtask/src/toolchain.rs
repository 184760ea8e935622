// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which compiler builds bare-metal code, and how.
//!
//! First choice is the pinned rustup toolchain with its precompiled `x86_64-unknown-none`. Where rustup cannot supply
//! that target, the distribution's compiler builds `core` and `alloc` from their packaged source; that needs
//! `-Z build-std`, so it runs with `RUSTC_BOOTSTRAP=1`. The code itself uses stable features only.

use crate::{process, setup};
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The target of the hypervisor and of the test guests.
pub(crate) const BARE: &str = "x86_64-unknown-none";

/// A compiler that can build for [`BARE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// rustup's, with the precompiled target.
    Rustup,
    /// The distribution's, building `core` and `alloc` itself.
    Debian,
}

impl Toolchain {
    /// Chooses a compiler, reports the choice in one line, installs the distribution's packages if it needs them.
    pub(crate) fn choose() -> Result<Self> {
        static REPORTED: OnceLock<Toolchain> = OnceLock::new();
        if let Some(chosen) = REPORTED.get() {
            return Ok(*chosen);
        }
        let chosen = if std::env::var_os("XENITH_DEBIAN_RUSTC").is_none() && rustup_target_usable() {
            Self::Rustup
        } else {
            setup::ensure_these(setup::COMPILER)?;
            ensure!(
                Path::new("/usr/bin/cargo").exists(),
                "no compiler for {BARE}: rustup cannot supply it, and there is no /usr/bin/cargo"
            );
            Self::Debian
        };
        let version = process::output(chosen.rustc().arg("--version"))?;
        let how = match chosen {
            Self::Rustup => format!("rustup's, with its {BARE}"),
            Self::Debian => format!("Debian's, building core and alloc for {BARE}"),
        };
        println!("compiler: {} ({how})", version.trim());
        Ok(*REPORTED.get_or_init(|| chosen))
    }

    fn rustc(self) -> Command {
        match self {
            Self::Rustup => Command::new("rustc"),
            Self::Debian => {
                let mut command = Command::new("/usr/bin/rustc");
                process::forget_outer_cargo(&mut command);
                command
            }
        }
    }

    /// A cargo command for bare-metal code: `cargo VERB --target x86_64-unknown-none`, run in `workspace`, with its
    /// products below `target`.
    pub(crate) fn cargo(self, verb: &str, workspace: &Path, target: &Path) -> Command {
        let mut command = match self {
            Self::Rustup => Command::new("cargo"),
            Self::Debian => Command::new("/usr/bin/cargo"),
        };
        process::forget_outer_cargo(&mut command);
        command.current_dir(workspace).arg(verb);
        command.args(["--target", BARE]).arg("--target-dir").arg(target.join(self.target_dir()));
        if self == Self::Debian {
            command
                .args(["-Z", "build-std=core,alloc,compiler_builtins"])
                .env("RUSTC", "/usr/bin/rustc")
                .env("RUSTC_BOOTSTRAP", "1")
                .env("CARGO_TARGET_X86_64_UNKNOWN_NONE_LINKER", "ld.lld");
        }
        command
    }

    /// Each compiler has its own build directory, so that changing between them rebuilds nothing.
    fn target_dir(self) -> &'static str {
        match self {
            Self::Rustup => "bare-rustup",
            Self::Debian => "bare-debian",
        }
    }

    /// The directory where a build of `profile` leaves its programs.
    pub(crate) fn products(self, target: &Path, profile: &str) -> PathBuf {
        target.join(self.target_dir()).join(BARE).join(profile)
    }
}

/// True when the pinned rustup toolchain has the bare-metal target, or has it after one try to add it.
pub(crate) fn rustup_target_usable() -> bool {
    static USABLE: OnceLock<bool> = OnceLock::new();
    *USABLE.get_or_init(|| has_target().unwrap_or(false) || (add_target() && has_target().unwrap_or(false)))
}

fn has_target() -> Result<bool> {
    let sysroot = process::output(Command::new("rustc").args(["--print", "sysroot"]))
        .context("cannot ask rustc for its sysroot")?;
    Ok(Path::new(sysroot.trim()).join("lib/rustlib").join(BARE).join("lib").exists())
}

/// Asks rustup for the target, quietly: a machine without access to rustup's server is no error here.
fn add_target() -> bool {
    Command::new("timeout")
        .args(["60", "rustup", "target", "add", BARE])
        .env("RUSTUP_MAX_RETRIES", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
