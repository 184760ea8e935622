// SPDX-License-Identifier: MIT OR Apache-2.0
//! The small file system, as the tools' library reads and writes it.

use hypercalls::hypfs::{DIRLISTENTRY_NAME, HypfsDirentry, HypfsOp, HypfsType};
use hypercalls::{Errno, HypercallNr};
use hypervisor::testing::{guest, tools};
use zerocopy::FromBytes;

use crate::pair::Pair;

const HEADER: u64 = size_of::<HypfsDirentry>() as u64;

/// A caller with its two pages for arguments: the path in the one, contents in the other.
struct Caller(Pair);

impl Caller {
    fn on(cpu: u16) -> Self {
        let mut pair = Pair::new();
        pair.on(cpu);
        Self(pair)
    }

    fn call(&mut self, op: HypfsOp, path: &[u8], length: u64) -> Result<(), Errno> {
        assert!(guest::write(tools::ARGUMENT, path));
        let args = [u64::from(op.0), tools::ARGUMENT, path.len() as u64, tools::BUFFER, length];
        match self.0.call(HypercallNr::HYPFS_OP, args) {
            0 => Ok(()),
            errno => Err(Errno::from_ret(errno).expect("0 or an error")),
        }
    }

    fn read(&mut self, path: &str) -> Result<(HypfsDirentry, Vec<u8>), Errno> {
        self.call(HypfsOp::READ, format!("{path}\0").as_bytes(), 4096)?;
        let page: [u8; 4096] = tools::read(tools::BUFFER);
        let (entry, rest) = HypfsDirentry::read_from_prefix(&page).expect("a page is longer");
        Ok((entry, rest[..entry.content_len as usize].to_vec()))
    }

    fn text(&mut self, path: &str) -> String {
        let (entry, contents) = self.read(path).expect("it is there");
        assert_eq!(entry.entry_type, HypfsType::STRING);
        String::from_utf8(contents).expect("text").trim_end_matches('\0').to_owned()
    }

    fn write(&mut self, path: &str, contents: &[u8]) -> Result<(), Errno> {
        assert!(guest::write(tools::BUFFER, contents));
        self.call(HypfsOp::WRITE_CONTENTS, format!("{path}\0").as_bytes(), contents.len() as u64)
    }

    /// Names and entries of a directory.
    fn list(&mut self, path: &str) -> Vec<(String, HypfsDirentry)> {
        let (entry, contents) = self.read(path).expect("it is there");
        assert_eq!((entry.entry_type, entry.max_write_len), (HypfsType::DIR, 0));
        let (mut all, mut rest) = (Vec::new(), &contents[..]);
        loop {
            let (entry, behind) = HypfsDirentry::read_from_prefix(rest).expect("an entry");
            let next = usize::from(u16::from_le_bytes([behind[0], behind[1]]));
            let name = rest[DIRLISTENTRY_NAME..].split(|byte| *byte == 0).next().expect("a name");
            all.push((String::from_utf8(name.to_vec()).expect("text"), entry));
            if next == 0 {
                return all;
            }
            rest = &rest[next..];
        }
    }
}

#[test]
fn every_entry_is_found_from_the_root_and_reads_as_it_is_listed() {
    let mut c = Caller::on(0);
    let (mut waiting, mut leaves) = (vec![String::from("/")], 0);
    while let Some(dir) = waiting.pop() {
        let list = c.list(&dir);
        assert!(list.is_sorted_by(|a, b| a.0 < b.0), "{dir}");
        for (name, listed) in list {
            let path = format!("{dir}{name}");
            let (entry, contents) = c.read(&path).expect("it is listed");
            assert_eq!((entry.entry_type, entry.content_len), (listed.entry_type, contents.len() as u32), "{path}");
            assert_eq!(entry.max_write_len, listed.max_write_len, "{path}");
            if entry.entry_type == HypfsType::DIR {
                waiting.push(format!("{path}/"));
            } else {
                leaves += 1;
            }
            // What may be written takes what it reads.
            let refused = Err(if entry.max_write_len == 0 { Errno::EACCES } else { Errno::EBUSY });
            let expected = if path.starts_with("/params/") { Ok(()) } else { refused };
            assert_eq!(c.write(&path, &contents[..contents.len().min(16)]), expected, "{path}");
        }
    }
    assert!(leaves >= 10);
    c.0.0.finish();
}

#[test]
fn settings_are_set() {
    let mut c = Caller::on(0);
    let before = c.text("/params/loglvl");
    for (wanted, shown) in [("error", "error/error"), ("none/warning", "warning/warning"), (before.as_str(), &before)] {
        assert_eq!(c.write("/params/loglvl", format!("{wanted}\0").as_bytes()), Ok(()));
        assert_eq!(c.text("/params/loglvl"), shown);
    }
    assert_eq!(c.write("/params/gnttab_max_frames", b"70\0"), Ok(()));
    assert_eq!((hypervisor::grants::Limits::most().frames, c.text("/params/gnttab_max_frames").as_str()), (70, "70"));
    assert_eq!(c.write("/params/gnttab_max_frames", b"64\0"), Ok(()));
    for (value, errno) in [
        (&b"loud\0"[..], Errno::EINVAL),
        (b"\xff\0", Errno::EINVAL),
        (b"info", Errno::EDOM),
        (b"in\0fo\0", Errno::EDOM),
        (b"", Errno::EDOM),
        (&[b'a'; 17], Errno::ENOSPC),
        (&[0; 4096], Errno::ENOSPC),
    ] {
        assert_eq!(c.write("/params/loglvl", value), Err(errno), "{value:?}");
    }
    assert_eq!(c.write("/params/gnttab_max_frames", b"5000\0"), Err(Errno::ERANGE));
    assert_eq!(c.write("/params/gnttab_max_frames", b"0\0"), Err(Errno::EINVAL));
    assert_eq!(c.text("/params/loglvl"), before);
    c.0.0.finish();
}

#[test]
fn what_is_wrong_is_refused() {
    let mut c = Caller::on(0);
    let version = |c: &mut Caller, args| c.0.call(HypercallNr::HYPFS_OP, args);
    assert_eq!(version(&mut c, [0; 5]), 1);
    assert_eq!(version(&mut c, [0, 0, 1, 0, 0]), Errno::EINVAL.to_ret());
    for path in ["", "params", "//", "/params/loglvl/", "/params//loglvl", "/nothing", "/cpupool/1", "/paramsx"] {
        assert_eq!(c.read(path).map(|_| ()), Err(Errno::ENOENT), "{path}");
    }
    for path in [&b""[..], b"/params", b"/\0params\0", &[b'/'; 1025]] {
        assert_eq!(c.call(HypfsOp::READ, path, 4096), Err(Errno::EINVAL));
    }
    assert_eq!(c.call(HypfsOp(3), b"/\0", 4096), Err(Errno::EOPNOTSUPP));
    assert_eq!(c.call(HypfsOp::READ, b"/\0", HEADER - 1), Err(Errno::EINVAL));
    // Too little room: it says how much is needed.
    assert_eq!(c.call(HypfsOp::READ, b"/params\0", HEADER), Err(Errno::ENOBUFS));
    let entry: HypfsDirentry = tools::read(tools::BUFFER);
    assert_eq!(c.call(HypfsOp::READ, b"/params\0", HEADER + u64::from(entry.content_len) - 1), Err(Errno::ENOBUFS));
    assert_eq!(c.call(HypfsOp::READ, b"/params\0", HEADER + u64::from(entry.content_len)), Ok(()));
    let nowhere = [1, tools::ARGUMENT, 2, 0xffff_8000_0000_0000, 4096];
    assert!(guest::write(nowhere[1], b"/\0"));
    assert_eq!(c.0.call(HypercallNr::HYPFS_OP, nowhere), Errno::EFAULT.to_ret());
    c.0.on(1);
    assert_eq!(c.read("/").map(|_| ()), Err(Errno::EPERM), "it is for dom0");
    c.0.0.finish();
}
