// SPDX-License-Identifier: MIT OR Apache-2.0
//! A small file system in which tools read what this hypervisor is and set what it does: the tree, and what its entries
//! hold on the wire.
//!
//! The tree is a constant; entries are read and written by functions, so nothing is kept here that could grow old. The
//! names are the C hypervisor's, and what it has that we do not is not there.

mod params;

use alloc::borrow::Cow;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use hypercalls::hypfs::{DIRLISTENTRY_NAME, HypfsDirentry, HypfsType};
use hypercalls::{Errno, Result};
use zerocopy::IntoBytes;

use crate::ops::version;
use crate::pools;

/// How a text is set: the most bytes, its zero included, and what takes it.
#[derive(Clone, Copy, Debug)]
struct Setter {
    most: u32,
    set: fn(&str) -> Result<()>,
}

/// An entry.
#[derive(Clone, Copy, Debug)]
pub struct Node(Kind);

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// A directory; its names are in ascending order.
    Dir(&'static [(&'static str, Node)]),
    /// A directory with an equal one for each pool of CPUs, named by its number.
    Pools(&'static [(&'static str, Node)]),
    /// A text, which may be set.
    Text(fn() -> String, Option<Setter>),
    /// A number.
    Uint(fn() -> u32),
}

const fn dir(entries: &'static [(&'static str, Node)]) -> Node {
    Node(Kind::Dir(entries))
}
const fn fixed(read: fn() -> String) -> Node {
    Node(Kind::Text(read, None))
}
const fn setting(read: fn() -> String, most: u32, set: fn(&str) -> Result<()>) -> Node {
    Node(Kind::Text(read, Some(Setter { most, set })))
}

/// The root.
pub static ROOT: Node = dir(&[
    (
        "buildinfo",
        dir(&[
            ("changeset", fixed(|| version::COMMIT.to_string())),
            ("compileinfo", dir(&[("compiler", fixed(|| version::COMPILER.to_string()))])),
            (
                "version",
                dir(&[
                    ("extra", fixed(|| version::EXTRAVERSION.to_string())),
                    ("major", Node(Kind::Uint(|| version::MAJOR))),
                    ("minor", Node(Kind::Uint(|| version::MINOR))),
                ]),
            ),
        ]),
    ),
    ("cpupool", Node(Kind::Pools(&[("sched-gran", setting(|| GRANULARITY.to_string(), 16, set_granularity))]))),
    ("params", dir(params::ALL)),
]);

/// What is scheduled as one: each CPU for itself.
const GRANULARITY: &str = "cpu";

/// As the C hypervisor: a pool that has CPUs keeps its granularity. There is no other for those that have none.
fn set_granularity(name: &str) -> Result<()> {
    if ["cpu", "core", "socket"].contains(&name) { Err(Errno::EBUSY) } else { Err(Errno::EINVAL) }
}

impl Node {
    /// Finds the entry of a path; `None` when there is none.
    pub fn at(path: &str) -> Option<Self> {
        let mut node = ROOT;
        let mut rest = path.strip_prefix('/')?;
        while !rest.is_empty() {
            let (name, below) = rest.split_once('/').unwrap_or((rest, ""));
            let has_below = name.len() < rest.len();
            node = node.child(name)?;
            if has_below && !node.is_dir() {
                return None;
            }
            rest = below;
        }
        Some(node)
    }

    fn is_dir(self) -> bool {
        matches!(self.0, Kind::Dir(_) | Kind::Pools(_))
    }

    fn children(self) -> Vec<(Cow<'static, str>, Self)> {
        match self.0 {
            Kind::Dir(entries) => entries.iter().map(|(name, node)| (Cow::from(*name), *node)).collect(),
            Kind::Pools(of_each) => {
                pools::all().into_iter().map(|id| (id.0.to_string().into(), dir(of_each))).collect()
            }
            Kind::Text(..) | Kind::Uint(_) => Vec::new(),
        }
    }

    fn child(self, name: &str) -> Option<Self> {
        self.children().into_iter().find(|(n, _)| *n == name).map(|(_, node)| node)
    }

    /// Returns the entry as the interface describes it, and its contents.
    pub fn read(self) -> (HypfsDirentry, Vec<u8>) {
        let (entry_type, contents) = match self.0 {
            Kind::Dir(_) | Kind::Pools(_) => (HypfsType::DIR, self.listing()),
            Kind::Text(read, _) => (HypfsType::STRING, [read().as_bytes(), &[0]].concat()),
            Kind::Uint(read) => (HypfsType::UINT, read().to_le_bytes().to_vec()),
        };
        let max_write_len = self.setter().map_or(0, |setter| setter.most);
        let entry =
            HypfsDirentry { entry_type, encoding: 0, pad: 0, content_len: contents.len() as u32, max_write_len };
        (entry, contents)
    }

    /// Returns a directory's contents: entry, distance to the next one, name, and zeros up to a multiple of four.
    fn listing(self) -> Vec<u8> {
        let children = self.children();
        let mut all = Vec::new();
        for (n, (name, node)) in children.iter().enumerate() {
            let length = DIRLISTENTRY_NAME + (name.len() + 1).next_multiple_of(4);
            let next = if n + 1 == children.len() { 0 } else { length as u16 };
            let end = all.len() + length;
            all.extend_from_slice(node.read().0.as_bytes());
            all.extend_from_slice(&next.to_le_bytes());
            all.extend_from_slice(name.as_bytes());
            all.resize(end, 0);
        }
        all
    }

    fn setter(self) -> Option<Setter> {
        match self.0 {
            Kind::Text(_, setter) => setter,
            _ => None,
        }
    }

    /// Returns the most bytes that may be written.
    ///
    /// # Errors
    /// `EACCES`: nothing may be.
    pub fn writable(self) -> Result<u32> {
        self.setter().map(|setter| setter.most).ok_or(Errno::EACCES)
    }

    /// Sets a text, which ends in its only zero.
    ///
    /// # Errors
    /// `EACCES`: it is not for writing. `EDOM`: it does not end so. What the setting says.
    pub fn write(self, bytes: &[u8]) -> Result<()> {
        let setter = self.setter().ok_or(Errno::EACCES)?;
        let text = core::ffi::CStr::from_bytes_with_nul(bytes).map_err(|_| Errno::EDOM)?;
        (setter.set)(text.to_str().map_err(|_| Errno::EINVAL)?)
    }
}
