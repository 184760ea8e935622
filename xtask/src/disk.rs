// SPDX-License-Identifier: MIT OR Apache-2.0
//! The disk of `cargo xtask run --disk`: an ordinary Debian 12, made once with the distribution's tools.
//!
//! It lies in the cache in a directory named for its recipe (the packages and the files of `tests/disk/root`), which
//! appears only when it is complete. What a person changes in the running system goes to an overlay beside the image;
//! tests write to nothing that outlives them.

use crate::process::{self, Scratch, Tracked};
use crate::project::{self, Project, made};
use crate::setup;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// A disk image and what boots it.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    /// The image, which nobody writes to.
    pub(crate) image: PathBuf,
    /// The kernel that is installed in it.
    pub(crate) kernel: PathBuf,
    /// That kernel's initial RAM disk, as the distribution makes it.
    pub(crate) initrd: PathBuf,
}

/// The root file system's UUID, as `tests/disk/root/etc/fstab` has it.
const ROOT: &str = "7b5c1f3e-6a0d-4c58-9d53-0d4f0c2e9a11";

/// What is installed besides the essential packages and what these depend on.
const PACKAGES: &str = "systemd-sysv,systemd-resolved,udev,dbus,libpam-systemd,linux-image-amd64,initramfs-tools,\
    iproute2,iputils-ping,pciutils,procps,util-linux-extra,e2fsprogs,logsave,kmod,less,ca-certificates";

/// Documentation and translations would be a third of the packages' files.
const LEFT_OUT: &[&str] = &[
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
];

/// The size of the disk; the image holds only what is used of it.
const MEBIBYTES: u64 = 6144;
/// Where the one partition starts; as much is left free behind it, for the second copy of the partition table.
const START: u64 = 1;

const TOOLS: &[(&str, &str)] = &[
    ("e2fsprogs", "makes the root file system of --disk"),
    ("fakeroot", "likewise, when not root"),
    ("fdisk", "partitions the disk of --disk"),
    ("mmdebstrap", "installs Debian into the disk of --disk"),
    ("qemu-utils", "keeps what is changed on the disk of --disk"),
    ("uidmap", "mmdebstrap when not root"),
];

/// The disk; makes it if the cache has none of this recipe, which takes some minutes and the distribution's mirror.
pub(crate) fn ensure(project: &Project) -> Result<Disk> {
    let files = project.root.join("tests/disk/root");
    let dir = project::cache()?.join(format!("disk-{:016x}", recipe(&files)?));
    if !dir.exists() {
        setup::ensure_these(TOOLS)?;
        make(&files, &dir).context("cannot make the disk")?;
    }
    let part = |name| dir.join(name);
    Ok(Disk { image: part("disk.img"), kernel: part("vmlinuz"), initrd: part("initrd.img") })
}

impl Disk {
    /// The kernel's option that names the root file system.
    pub(crate) fn root(&self) -> String {
        format!("root=UUID={ROOT} ro")
    }

    /// An image that keeps what the machine changes, on top of the untouched one; made afresh if it is missing or
    /// `fresh` says so.
    pub(crate) fn overlay(&self, fresh: bool) -> Result<PathBuf> {
        let overlay = self.image.with_file_name("changes.qcow2");
        if fresh && overlay.exists() {
            fs::remove_file(&overlay)?;
        }
        if !overlay.exists() {
            setup::ensure_these(TOOLS)?;
            let mut create = Command::new("qemu-img");
            create.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]).args([&self.image, &overlay]);
            process::output(&mut create)?;
        }
        Ok(overlay)
    }
}

/// A number that changes with anything that goes into the image.
fn recipe(files: &Path) -> Result<u64> {
    let mut text = format!("{PACKAGES} {LEFT_OUT:?} {MEBIBYTES} {START} {ROOT} {ASSEMBLE}").into_bytes();
    add_contents(files, &mut text)?;
    Ok(fnv(&text))
}

fn add_contents(dir: &Path, text: &mut Vec<u8>) -> Result<()> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        text.extend_from_slice(path.file_name().unwrap_or_default().as_encoded_bytes());
        if path.is_dir() {
            add_contents(&path, text)?;
        } else {
            text.extend_from_slice(&project::read(&path)?);
        }
    }
    Ok(())
}

/// The FNV-1a hash, which is the same with every compiler.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Unpacks the tree and makes the file system of it, as root or under fakeroot. A machine ID of its own spares the
/// system the work of a first boot.
const ASSEMBLE: &str = r#"
mkdir tree
tar --numeric-owner -xpf root.tar -C tree
tr -d - </proc/sys/kernel/random/uuid >tree/etc/machine-id
cp tree/boot/vmlinuz-* product/vmlinuz
cp tree/boot/initrd.img-* product/initrd.img
chmod 644 product/vmlinuz product/initrd.img
mkfs.ext4 -q -L root -U "$ROOT" -E "offset=$OFFSET,lazy_itable_init=1" -d tree product/disk.img "$SIZE"
"#;

/// Makes everything in a scratch directory beside `dir`, which is then renamed.
fn make(files: &Path, dir: &Path) -> Result<()> {
    let started = Instant::now();
    println!("making a Debian 12 disk in {} (once; some minutes)", dir.display());
    let scratch = Scratch::new(dir.with_extension(format!("partial-{}", std::process::id())))?;
    install(files, scratch.path())?;
    println!("making the file system");
    let product = made(scratch.path().join("product"))?;
    let image = product.join("disk.img");
    fs::File::create(&image)?.set_len(MEBIBYTES << 20)?;
    let mut assemble = Command::new(if setup::is_root()? { "sh" } else { "fakeroot" });
    if !setup::is_root()? {
        assemble.arg("sh");
    }
    assemble.args(["-ec", ASSEMBLE]).current_dir(scratch.path()).env("ROOT", ROOT);
    assemble.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    assemble.env("OFFSET", (START << 20).to_string()).env("SIZE", format!("{}m", MEBIBYTES - 2 * START));
    finish(&mut assemble)?;
    let table = format!("label: gpt\nstart={START}MiB, size={}MiB, type=linux, name=root\n", MEBIBYTES - 2 * START);
    let script = scratch.path().join("partitions");
    project::write(&script, table)?;
    let mut sfdisk = Command::new("/usr/sbin/sfdisk");
    sfdisk.args(["-q", "--no-reread", "--no-tell-kernel"]).arg(&image).stdin(fs::File::open(&script)?);
    finish(&mut sfdisk)?;
    if fs::rename(&product, dir).is_err() {
        ensure!(dir.exists(), "cannot move {} to {}", product.display(), dir.display());
    }
    println!("made the disk in {} s", started.elapsed().as_secs());
    Ok(())
}

/// Installs Debian into `root.tar` in this directory.
fn install(files: &Path, dir: &Path) -> Result<()> {
    // Mounts and processes of its own end with it, however it ends.
    let mut command = if setup::is_root()? {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "mmdebstrap", "--mode=root"]);
        command
    } else {
        let mut command = Command::new("mmdebstrap");
        command.arg("--mode=auto");
        command
    };
    command.args(["--variant=minbase", "--dpkgopt=force-unsafe-io"]).arg(format!("--include={PACKAGES}"));
    command.args(LEFT_OUT.iter().map(|line| format!("--dpkgopt={line}")));
    // The file system table comes first, since the initial RAM disk gets what checks those file systems.
    let copy = "tar -C \"$FILES\" --owner=0 --group=0 --mode=u=rwX,go=rX -c . | tar -C \"$1\" -xp";
    command.arg(format!("--essential-hook={copy}"));
    for hook in ["chroot \"$1\" passwd -qd root", "chroot \"$1\" systemctl -q enable systemd-networkd"] {
        command.arg(format!("--customize-hook={hook}"));
    }
    command.args(["bookworm", "root.tar"]).current_dir(dir);
    command.env("TMPDIR", dir).env("FILES", files).env("LC_ALL", "C");
    finish(&mut command)
}

/// Runs a command that is ended with us, with its output on the terminal.
fn finish(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = Tracked::spawn(command)?.wait()?;
    ensure!(status.success(), "{name} failed ({status})");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_system_table_names_the_root() {
        let table = include_str!("../../tests/disk/root/etc/fstab");
        assert!(table.contains(&format!("UUID={ROOT}")));
    }

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(fnv(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv(b"a"), 0xaf63_dc4c_8601_ec8c);
    }
}
