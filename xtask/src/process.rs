// SPDX-License-Identifier: MIT OR Apache-2.0
//! Child processes: run one, read what it says, and leave none behind.
//!
//! Long-lived children (QEMU) are registered in one list. Ctrl-C, SIGTERM and the normal end of a scenario all end
//! them through that list, so no machine outlives the command that started it. Scratch directories are in another list.

use crate::project::made;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

/// Runs a command with inherited output and fails unless it succeeds.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = status(command)?;
    if !status.success() {
        bail!("{} failed ({status})", name(command));
    }
    Ok(())
}

/// Runs a command with inherited output and returns how it ended.
pub(crate) fn status(command: &mut Command) -> Result<ExitStatus> {
    command.status().with_context(|| format!("cannot run {}", name(command)))
}

/// Runs a command and returns its standard output; on failure the error holds its standard error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {}", name(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} failed ({}): {}", name(command), output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Removes what an outer `cargo run` leaves in the environment, so that another cargo starts afresh.
pub(crate) fn forget_outer_cargo(command: &mut Command) {
    for (key, _) in std::env::vars_os() {
        let key = key.to_string_lossy();
        let outer = key.starts_with("CARGO_PKG_")
            || key.starts_with("CARGO_MANIFEST_")
            || matches!(
                &*key,
                "CARGO" | "RUSTC" | "RUSTDOC" | "RUSTUP_TOOLCHAIN" | "RUST_RECURSION_COUNT" | "LD_LIBRARY_PATH"
            );
        if outer {
            command.env_remove(&*key);
        }
    }
}

fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

/// A child that is ended when this value is dropped or the program is interrupted.
#[derive(Debug)]
pub(crate) struct Tracked(Arc<Mutex<Child>>);

static CHILDREN: Mutex<Vec<Arc<Mutex<Child>>>> = Mutex::new(Vec::new());
static HANDLER: Once = Once::new();

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on, an interruption ends the children and removes the scratch directories.
fn handle_interrupts() {
    HANDLER.call_once(|| {
        // A second handler cannot exist, since this is the only place that sets one.
        let _ = ctrlc::set_handler(|| {
            for child in lock(&CHILDREN).iter() {
                let _ = lock(child).kill();
                let _ = lock(child).wait();
            }
            lock(&SCRATCH).iter().for_each(|dir| remove(dir));
            std::process::exit(130);
        });
    });
}

/// A directory that is removed when this value is dropped or the program is interrupted.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

static SCRATCH: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

impl Scratch {
    /// Makes it, empty.
    pub(crate) fn new(dir: PathBuf) -> Result<Self> {
        handle_interrupts();
        remove(&dir);
        lock(&SCRATCH).push(dir.clone());
        made(dir).map(Self)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.0);
        lock(&SCRATCH).retain(|other| *other != self.0);
    }
}

/// Removes a directory. What a killed child leaves behind may write to it for a moment longer.
fn remove(dir: &Path) {
    for _ in 0..20 {
        if fs::remove_dir_all(dir).is_ok() || !dir.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    eprintln!("{} could not be removed", dir.display());
}

impl Tracked {
    /// Starts the command as a tracked child.
    pub(crate) fn spawn(command: &mut Command) -> Result<Self> {
        handle_interrupts();
        let mut children = lock(&CHILDREN);
        let child = command.spawn().with_context(|| format!("cannot run {}", name(command)))?;
        let child = Arc::new(Mutex::new(child));
        children.push(Arc::clone(&child));
        Ok(Self(child))
    }

    /// Gives access to the child's pipes.
    pub(crate) fn with<R>(&self, access: impl FnOnce(&mut Child) -> R) -> R {
        access(&mut lock(&self.0))
    }

    /// How the child ended, if it has.
    pub(crate) fn ended(&self) -> Result<Option<ExitStatus>> {
        Ok(lock(&self.0).try_wait()?)
    }

    /// Waits until the child ends by itself.
    pub(crate) fn wait(&self) -> Result<ExitStatus> {
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        {
            let mut child = lock(&self.0);
            let _ = child.kill();
            let _ = child.wait();
        }
        lock(&CHILDREN).retain(|other| !Arc::ptr_eq(other, &self.0));
    }
}
