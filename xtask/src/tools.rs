// SPDX-License-Identifier: MIT OR Apache-2.0
//! A dom0 that has the Xen tools, and what it needs to run guests: its initramfs.
//!
//! Everything in it but the files of `tests/initramfs/root` and `tests/tools` is the distribution's, unpacked and never
//! installed: the tools with their libraries, the modules of the kernel that dom0 serves guests with, and the kernel for
//! guests. What does not get smaller by compression stands in an archive of its own in front of the other, for speed.

use crate::cpio::Archive;
use crate::debian::{self, Flavour};
use crate::initramfs::{self, LOADER};
use crate::project::{self, Project};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// The modules of dom0: the tools' devices, the back ends, and what these stand on.
const DOM0_MODULES: &[&str] = &[
    "xenfs",
    "xen_privcmd",
    "xen_evtchn",
    "xen_gntdev",
    "xen_gntalloc",
    "xen_blkback",
    "xen_netback",
    "loop",
    "bridge",
];

/// The modules of a guest: the front ends, and a file system for its disks.
const GUEST_MODULES: &[&str] = &["xen_blkfront", "xen_netfront", "crc32c_generic", "ext4"];

/// Where programs of the tools lie, in the packages that have some.
const PROGRAMS: &[(&str, &[&str])] = &[
    ("bash", &["bin"]),
    ("util-linux", &["usr/bin/flock"]),
    ("xen-utils-4.17", &["usr/lib/xen-4.17/bin"]),
    ("xen-utils-common", &["etc/xen", "usr/lib/xen-common", "usr/sbin"]),
    ("xenstore-utils", &["usr/bin"]),
    ("xz-utils", &["usr/bin/xz"]),
];

/// What is left out of them: what wants Python or OCaml's run time, or serves guests of other kinds.
const LEFT_OUT: &[&str] = &[
    "convert-legacy-stream",
    "depriv-fd-checker",
    "gdbsx",
    "init-xenstore-domain",
    "oxenstored",
    "pygrub",
    "test-",
    "verify-stream-v2",
    "xen-access",
    "xen-hvm",
    "xen-kdd",
    "xen-memshare",
    "xen-vmtrace",
    "xenpaging",
    "xenpvnetboot",
];

/// The packages of their libraries.
const LIBRARIES: &[&str] = &[
    "libc6",
    "liblzma5",
    "libncurses6",
    "libtinfo6",
    "libuuid1",
    "libxencall1",
    "libxendevicemodel1",
    "libxenevtchn1",
    "libxenforeignmemory1",
    "libxengnttab1",
    "libxenhypfs1",
    "libxenmisc4.17",
    "libxenstore4",
    "libxentoolcore1",
    "libxentoollog1",
    "libyajl2",
    "libzstd1",
    "zlib1g",
];

/// The library that ends threads.
const UNWINDER: &str = "libgcc_s.so.1";

/// Makes dom0's initramfs (only if its bytes changed) and returns its path.
pub(crate) fn make(project: &Project) -> Result<PathBuf> {
    let mut incompressible = Archive::default();
    incompressible.directory("guest", 0o755);
    incompressible.file("guest/vmlinuz", 0o644, &project::read(&debian::kernel(Flavour::Amd64)?)?);
    incompressible.file("guest/initrd.gz", 0o644, &guest(project)?);
    let mut bytes = incompressible.finish();
    bytes.extend(initramfs::packed(dom0(project)?)?);
    initramfs::store_bytes(project, "initrd-tools.img", &bytes)
}

/// The guests' initramfs, compressed.
fn guest(project: &Project) -> Result<Vec<u8>> {
    let mut archive = initramfs::basis(project)?;
    initramfs::add_modules(&mut archive, GUEST_MODULES)?;
    initramfs::add_program(&mut archive, project, "drivers", initramfs::DRIVER_TEST)?;
    initramfs::add_tree(&mut archive, &project.root.join("tests/tools/guest"), "")?;
    initramfs::packed(archive)
}

fn dom0(project: &Project) -> Result<Archive> {
    let mut archive = initramfs::shell(project)?;
    initramfs::add_modules(&mut archive, DOM0_MODULES)?;
    for dir in ["etc", "lib", "lib/x86_64-linux-gnu", "lib64", "usr/lib", "usr/share", "var"] {
        archive.directory(dir, 0o755);
    }
    let mut programs = Vec::new();
    for (package, places) in PROGRAMS {
        let tree = debian::tree(package)?;
        for place in *places {
            add(&mut archive, &tree, Path::new(place), &mut programs)?;
        }
    }
    archive.file(LOADER, 0o755, &project::read(&debian::file("libc6", "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")?)?);
    let mut libraries = debian::libraries(&programs, LIBRARIES)?;
    // No program names it, but the C library loads it when a thread is ended.
    libraries.insert(UNWINDER.to_owned(), debian::file("libgcc-s1", &format!("lib/x86_64-linux-gnu/{UNWINDER}"))?);
    for (name, file) in libraries {
        archive.file(&format!("lib/x86_64-linux-gnu/{name}"), 0o644, &project::read(&file)?);
    }
    initramfs::add_tree(&mut archive, &project.root.join("tests/tools/dom0"), "")?;
    Ok(archive)
}

/// Adds a file, a link or a directory of a package, and notes which files are programs.
fn add(archive: &mut Archive, tree: &Path, place: &Path, programs: &mut Vec<PathBuf>) -> Result<()> {
    let file = tree.join(place);
    let name = place.to_string_lossy();
    let base = place.file_name().unwrap_or_default().to_string_lossy();
    if LEFT_OUT.iter().any(|left_out| base.starts_with(left_out)) {
        return Ok(());
    }
    let metadata = fs::symlink_metadata(&file).with_context(|| format!("cannot read {}", file.display()))?;
    if metadata.is_symlink() {
        archive.symlink(&name, &fs::read_link(&file)?.to_string_lossy());
    } else if metadata.is_dir() {
        add_parents(archive, place);
        let mut entries: Vec<_> = fs::read_dir(&file)?.collect::<Result<_, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            add(archive, tree, &place.join(entry.file_name()), programs)?;
        }
    } else {
        let contents = project::read(&file)?;
        if contents.starts_with(b"\x7fELF") {
            programs.push(file);
        }
        let script = contents.starts_with(b"#!") || contents.starts_with(b"\x7fELF");
        archive.file(&name, if script { 0o755 } else { 0o644 }, &contents);
    }
    Ok(())
}

/// Adds a directory after those that it lies in; adding one twice does no harm.
fn add_parents(archive: &mut Archive, dir: &Path) {
    let mut above: Vec<_> = dir.ancestors().filter(|part| !part.as_os_str().is_empty()).collect();
    above.reverse();
    for part in above {
        archive.directory(&part.to_string_lossy(), 0o755);
    }
}
