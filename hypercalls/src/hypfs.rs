// SPDX-License-Identifier: MIT OR Apache-2.0
//! `hypfs_op`: a small file system in which the hypervisor's tools read what it is and set what it does.

use crate::layout::{codes, constants, record};

codes! {
    /// An operation of `hypfs_op`.
    pub struct HypfsOp(u32) {
        GET_VERSION(XEN_HYPFS_OP_get_version) = 0,
        READ(XEN_HYPFS_OP_read) = 1,
        WRITE_CONTENTS(XEN_HYPFS_OP_write_contents) = 2,
    }
}

codes! {
    /// What an entry holds.
    pub struct HypfsType(u8) {
        DIR(XEN_HYPFS_TYPE_DIR) = 0,
        BLOB(XEN_HYPFS_TYPE_BLOB) = 1,
        STRING(XEN_HYPFS_TYPE_STRING) = 2,
        UINT(XEN_HYPFS_TYPE_UINT) = 3,
        INT(XEN_HYPFS_TYPE_INT) = 4,
        BOOL(XEN_HYPFS_TYPE_BOOL) = 5,
    }
}

constants! {
    Constants {
        /// The version of the interface.
        XEN_HYPFS_VERSION(XEN_HYPFS_VERSION): i64 = 1,
        /// The longest path, its zero included.
        XEN_HYPFS_MAX_PATHLEN(XEN_HYPFS_MAX_PATHLEN): usize = 1024,
    }
}

record! {
    /// An entry, in front of its contents.
    pub struct HypfsDirentry = "struct xen_hypfs_direntry", 12 {
        0 entry_type: HypfsType = "type",
        1 encoding: u8,
        2 pad: u16,
        4 content_len: u32,
        8 max_write_len: u32,
    }
}

/// Where the name of an entry in a directory's contents begins: behind the entry and the distance to the next one.
pub const DIRLISTENTRY_NAME: usize = size_of::<HypfsDirentry>() + size_of::<u16>();
