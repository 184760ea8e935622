// SPDX-License-Identifier: MIT OR Apache-2.0
//! `hypfs_op`: the tools' way to the small file system of [`crate::hypfs`].

use arch::guest::{copy_from, copy_to};
use hypercalls::hypfs::{HypfsDirentry, HypfsOp, XEN_HYPFS_MAX_PATHLEN, XEN_HYPFS_VERSION};
use hypercalls::{Errno, GuestPtr, Result};

use crate::dispatch::{Args, Outcome, SubOp, by_family};
use crate::guest;
use crate::hypfs::Node;
use crate::vcpu::Vcpu;

/// The operations. They take four arguments, so [`hypfs_op`] runs them itself.
pub static OPS: [SubOp; 3] = [by_family("get_version"), by_family("read"), by_family("write_contents")];

/// The longest text that any entry takes.
const LONGEST: usize = 64;

/// Hypercall 42.
pub fn hypfs_op(vcpu: &Vcpu, args: &Args) -> Outcome {
    if !vcpu.domain().privileged {
        return Err(Errno::EPERM).into();
    }
    operate(args).into()
}

fn operate(args: &Args) -> Result<i64> {
    let [op, path, path_len, buffer, length] = *args;
    let op = HypfsOp(op as u32);
    if op == HypfsOp::GET_VERSION {
        let unused = [path, path_len, buffer, length] == [0; 4];
        return if unused { Ok(XEN_HYPFS_VERSION) } else { Err(Errno::EINVAL) };
    }
    let node = find(GuestPtr::new(path), path_len)?;
    match op {
        HypfsOp::READ => read(node, GuestPtr::new(buffer), length)?,
        HypfsOp::WRITE_CONTENTS => write(node, GuestPtr::new(buffer), length)?,
        _ => return Err(Errno::EOPNOTSUPP),
    }
    Ok(0)
}

/// Finds the entry of a path, whose length counts the zero at its end.
fn find(path: GuestPtr<u8>, length: u64) -> Result<Node> {
    let mut bytes = [0; XEN_HYPFS_MAX_PATHLEN];
    let bytes = usize::try_from(length).ok().and_then(|length| bytes.get_mut(..length)).ok_or(Errno::EINVAL)?;
    copy_from(bytes, path.first())?;
    let path = core::ffi::CStr::from_bytes_with_nul(bytes).map_err(|_| Errno::EINVAL)?;
    path.to_str().ok().and_then(Node::at).ok_or(Errno::ENOENT)
}

/// Tells what the entry is, and, where there is room, what it holds.
fn read(node: Node, buffer: GuestPtr<HypfsDirentry>, length: u64) -> Result<()> {
    let size = size_of::<HypfsDirentry>() as u64;
    if length < size {
        return Err(Errno::EINVAL);
    }
    let (entry, contents) = node.read();
    guest::write(buffer, &entry)?;
    if length - size < contents.len() as u64 {
        return Err(Errno::ENOBUFS);
    }
    Ok(copy_to(buffer.va(1).ok_or(Errno::EFAULT)?, &contents)?)
}

fn write(node: Node, buffer: GuestPtr<u8>, length: u64) -> Result<()> {
    let most = node.writable()?;
    let mut bytes = [0; LONGEST];
    let wanted = usize::try_from(length).ok().filter(|_| length <= u64::from(most));
    let bytes = wanted.and_then(|length| bytes.get_mut(..length)).ok_or(Errno::ENOSPC)?;
    copy_from(bytes, buffer.first())?;
    node.write(bytes)
}
