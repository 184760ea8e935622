// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is attached to a machine besides its boot medium: disks on each kind of controller, network cards. Test disks get a
//! pattern written to them, which is looked for when the machine has ended.

use crate::project;
use anyhow::{Result, ensure};
use serde::Deserialize;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The controller that a disk is attached to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Bus {
    /// virtio-blk
    #[default]
    Virtio,
    /// A SATA disk behind an AHCI controller
    Ahci,
    /// NVMe
    Nvme,
    /// A SCSI disk behind virtio-scsi
    Scsi,
    /// An IDE disk (with --machine pc)
    Ide,
    /// A stick behind an xHCI controller
    Usb,
}

/// The model of a network card.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Card {
    /// virtio-net
    #[default]
    Virtio,
    /// Intel's 82540EM, which reaches 4 GiB of memory
    E1000,
    /// Intel's 82574L
    E1000e,
    /// No network card
    None,
}

/// What becomes of what the machine writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writes {
    /// It is kept in the image, which is in QEMU's own format.
    Kept,
    /// It is kept in the image, byte for byte.
    Raw,
    /// It is forgotten when the machine ends.
    Forgotten,
}

impl Bus {
    /// Fails where a machine of this type has no such controller.
    pub(crate) fn check(self, machine: &str) -> Result<()> {
        ensure!(self != Self::Ide || machine.starts_with("pc"), "IDE disks need --machine pc");
        Ok(())
    }
}

/// Attaches a disk image under a name that no other has.
pub(crate) fn attach_disk(command: &mut Command, name: &str, image: &Path, bus: Bus, writes: Writes) {
    let (format, snapshot) = match writes {
        Writes::Kept => ("qcow2", "off"),
        Writes::Raw => ("raw", "off"),
        Writes::Forgotten => ("raw", "on"),
    };
    // A comma within an option is written twice.
    let file = image.display().to_string().replace(',', ",,");
    command.arg("-drive").arg(format!("if=none,id={name},file={file},format={format},snapshot={snapshot}"));
    let devices = match bus {
        Bus::Virtio => vec![format!("virtio-blk-pci,drive={name}")],
        Bus::Ahci => vec![format!("ich9-ahci,id=bus-{name}"), format!("ide-hd,drive={name},bus=bus-{name}.0")],
        Bus::Nvme => vec![format!("nvme,drive={name},serial={name}")],
        Bus::Scsi => vec![format!("virtio-scsi-pci,id=bus-{name}"), format!("scsi-hd,drive={name},bus=bus-{name}.0")],
        Bus::Usb => vec![format!("qemu-xhci,id=bus-{name}"), format!("usb-storage,drive={name},bus=bus-{name}.0")],
        Bus::Ide => vec![format!("ide-hd,drive={name},bus=ide.0")],
    };
    for device in devices {
        command.args(["-device", &device]);
    }
}

/// Attaches a network card to a user network of QEMU's, in which the host is 10.0.N.2.
pub(crate) fn attach_card(command: &mut Command, card: Card, network: usize) {
    let model = match card {
        Card::Virtio => "virtio-net-pci",
        Card::E1000 => "e1000",
        Card::E1000e => "e1000e",
        Card::None => return,
    };
    command.args(["-netdev", &format!("user,id=net{network},net=10.0.{network}.0/24")]);
    // No option ROM: nothing boots from the network.
    command.args(["-device", &format!("{model},netdev=net{network},romfile=")]);
}

/// The number of QEMU's first user network, by its own habit.
pub(crate) const FIRST_NETWORK: usize = 2;

/// The size of a test disk.
const TEST_DISK: u64 = 16 << 20;

/// The disks that a machine's drivers are tested with: one image a bus, filled by the machine with the pattern of its place
/// in the list.
#[derive(Debug)]
pub(crate) struct TestDisks(Vec<PathBuf>);

impl TestDisks {
    /// Makes empty images and attaches them.
    pub(crate) fn attach(command: &mut Command, stem: &Path, buses: &[Bus]) -> Result<Self> {
        let mut images = Vec::new();
        for (index, bus) in buses.iter().enumerate() {
            let image = stem.with_extension(format!("disk{index}"));
            File::create(&image)?.set_len(TEST_DISK)?;
            attach_disk(command, &format!("test{index}"), &image, *bus, Writes::Raw);
            images.push(image);
        }
        Ok(Self(images))
    }

    /// Fails unless each image holds its pattern.
    pub(crate) fn verify(&self) -> Result<()> {
        for (image, seed) in self.0.iter().zip(1..) {
            let contents = project::read(image)?;
            ensure!(contents.len() as u64 == TEST_DISK, "{} has another size", image.display());
            for (word, index) in contents.chunks_exact(8).zip(0..) {
                ensure!(
                    word == word_of(seed, index).to_le_bytes(),
                    "{} does not hold at {:#x} what the machine wrote",
                    image.display(),
                    8 * index
                );
            }
        }
        Ok(())
    }
}

impl Drop for TestDisks {
    fn drop(&mut self) {
        for image in &self.0 {
            // What is left is only a file in the directory of the logs.
            let _ = std::fs::remove_file(image);
        }
    }
}

/// A word of the pattern (splitmix64); tests/drivers/main.c has the same.
fn word_of(seed: u64, index: u64) -> u64 {
    let word = (seed << 48 ^ index).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_is_splitmix64() {
        // The published first output for the state 0.
        assert_eq!(word_of(0, 0), 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn ide_disks_need_a_pc() {
        assert!(Bus::Ide.check("q35").is_err());
        assert!(Bus::Ide.check("pc").is_ok());
        assert!(Bus::Nvme.check("q35").is_ok());
    }
}
