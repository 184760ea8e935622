// SPDX-License-Identifier: MIT OR Apache-2.0
//! Command lines.

use boot::cmdline::{split_dom0_part, without_image_name};
use boot::options::parse;
use boot::static_domain;

/// The bytes are a loader's name, a line end, and a command line.
pub fn run(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (loader, line) = text.split_once('\n').unwrap_or(("GRUB 2.06", &text));
    let (own, dom0) = split_dom0_part(without_image_name(loader, line));
    assert!(own.len() + dom0.map_or(0, str::len) <= line.len(), "nothing is made up");
    let (options, complaints) = parse(own);
    let words = own.split_ascii_whitespace().count();
    assert!(complaints.list.len() + complaints.more <= words, "one complaint a word");
    for complaint in &complaints.list {
        assert!(own.contains(complaint.word) && complaint.to_string().contains(complaint.word));
    }
    for n in [0, 1, 4096, 1 << 20, 1 << 34] {
        assert!(options.dom0_mem.initial_pages(n) <= options.dom0_mem.max_pages(n).max(n));
        let _ = (options.dom0_max_vcpus.count(n as u32), options.cpu_limit(n as u32));
    }
    let _ = (options.com1.divisor(), options.com1.line_control());
    static_domains(line);
}

/// The same line, as that of a module.
fn static_domains(line: &str) {
    match static_domain::parse(line, 1, 3) {
        Ok(found) => {
            let name_ok = found.name.len() <= static_domain::MAX_NAME && found.name.is_ascii();
            assert!(name_ok && (!static_domain::describes(line) || !found.name.is_empty()));
            assert!(found.pages >= 256 && found.vcpus >= 1 && found.kernel < 3 && found.ramdisk.is_none_or(|n| n < 3));
            assert!(found.cpus.iter().all(|(first, last)| first <= last) && line.contains(found.cmdline));
        }
        Err(wrong) => assert!(line.contains(wrong.word) && wrong.to_string().contains(wrong.word)),
    }
}
