// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which module is what.
//!
//! Modules from the first one on that describes a static domain are not looked at here (see [`crate::static_domain`]). The first
//! module is dom0's kernel. Of the others, the first that looks like an initramfs is the initrd; failing that, the
//! first that is not known to be something else (an old file-system image has no mark we know). The rest is left alone.

use crate::bytes;

/// What a module's first bytes look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModuleKind {
    /// A cpio archive, or data compressed in a way that Linux unpacks.
    Archive,
    /// An ELF file or a Linux boot image.
    Kernel,
    /// CPU microcode, bare.
    Microcode,
    /// A FLASK policy.
    XsmPolicy,
    /// None of these.
    Unknown,
}

/// How many of a module's first bytes [`identify`] wants to see, if there are as many.
pub const HEAD: usize = 0x210;

const ARCHIVES: [&[u8]; 9] = [
    b"070701",
    b"070702",
    b"\x1f\x8b",
    b"\xfd7zXZ\0",
    b"\x28\xb5\x2f\xfd",
    b"BZh",
    b"\x5d\0\0",
    b"\x89LZO\0\r\n",
    b"\x02\x21\x4c\x18",
];
const XSM_MAGIC: u32 = 0xf97c_ff8c;
const AMD_UCODE_MAGIC: u32 = 0x0041_4d44;

/// Says what a module is, by its first bytes.
#[must_use]
pub fn identify(head: &[u8]) -> ModuleKind {
    if ARCHIVES.iter().any(|magic| head.starts_with(magic)) {
        return ModuleKind::Archive;
    }
    if head.starts_with(b"\x7fELF") || bytes::array(head, 0x202) == Some(*b"HdrS") {
        return ModuleKind::Kernel;
    }
    let word = |i: usize| bytes::u32_at(head, 4 * i);
    // Intel: header version 1, loader version 1, data in whole 32-bit words.
    let intel = word(0) == Some(1) && word(5) == Some(1) && word(7).is_some_and(|n| n % 4 == 0);
    match word(0) {
        Some(XSM_MAGIC) => ModuleKind::XsmPolicy,
        Some(AMD_UCODE_MAGIC) => ModuleKind::Microcode,
        Some(_) if intel => ModuleKind::Microcode,
        _ => ModuleKind::Unknown,
    }
}

/// The modules that dom0 is built from, by index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// Dom0's kernel; `None` if there are no modules.
    pub kernel: Option<usize>,
    /// Dom0's initial RAM disk.
    pub initrd: Option<usize>,
}

/// Gives the modules their roles.
#[must_use]
pub fn assign(kinds: &[ModuleKind]) -> Roles {
    let find = |wanted| kinds.iter().skip(1).position(|k| *k == wanted).map(|i| i + 1);
    Roles {
        kernel: (!kinds.is_empty()).then_some(0),
        initrd: find(ModuleKind::Archive).or_else(|| find(ModuleKind::Unknown)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ModuleKind::{Archive, Kernel, Microcode, Unknown, XsmPolicy};

    #[test]
    fn marks() {
        assert_eq!(identify(b"070701000000"), Archive);
        assert_eq!(identify(b"\x1f\x8b\x08"), Archive);
        assert_eq!(identify(b"\x28\xb5\x2f\xfd...."), Archive);
        assert_eq!(identify(b"\x7fELF\x02"), Kernel);
        let mut bz = [0_u8; HEAD];
        bz[0x202..0x206].copy_from_slice(b"HdrS");
        assert_eq!(identify(&bz), Kernel);
        assert_eq!(identify(&0xf97c_ff8c_u32.to_le_bytes()), XsmPolicy);
        assert_eq!(identify(b"DMA\0...."), Microcode);
        let mut intel = [0_u8; 48];
        intel[0] = 1;
        intel[20] = 1;
        assert_eq!(identify(&intel), Microcode);
        assert_eq!(identify(b""), Unknown);
        assert_eq!(identify(b"just some text"), Unknown);
    }

    #[test]
    fn roles() {
        let roles = |kernel, initrd| Roles { kernel, initrd };
        assert_eq!(assign(&[]), roles(None, None));
        assert_eq!(assign(&[Unknown]), roles(Some(0), None));
        assert_eq!(assign(&[Kernel, Archive]), roles(Some(0), Some(1)));
        assert_eq!(assign(&[Archive, Archive]), roles(Some(0), Some(1)));
        assert_eq!(assign(&[Kernel, Microcode, XsmPolicy]), roles(Some(0), None));
        assert_eq!(assign(&[Kernel, Unknown, XsmPolicy, Archive]), roles(Some(0), Some(3)));
        assert_eq!(assign(&[Kernel, Microcode, Unknown]), roles(Some(0), Some(2)));
    }
}
