// SPDX-License-Identifier: MIT OR Apache-2.0
//! What surrounds the options on a command line: the image's name, `placeholder`, and the part meant for dom0.

/// Whether the loader leaves the image's name out of command lines, as GRUB 2 does and others do not.
fn leaves_name_out(loader: &str) -> bool {
    // GRUB 1 calls itself "GNU GRUB 0.9x", GRUB 2 "GRUB 2.06".
    loader.split_once("GRUB ").is_some_and(|(_, version)| !version.starts_with('0'))
}

/// The line without leading blanks and, unless the loader has left it out, without the image's name.
#[must_use]
pub fn without_image_name<'a>(loader: &str, line: &'a str) -> &'a str {
    let line = line.trim_start_matches(' ');
    if leaves_name_out(loader) {
        return line;
    }
    line.split_once(' ').map_or("", |(_, rest)| rest.trim_start_matches(' '))
}

/// Cuts the hypervisor's line at ` -- `: what follows belongs to dom0.
#[must_use]
pub fn split_dom0_part(line: &str) -> (&str, Option<&str>) {
    match line.split_once(" -- ") {
        Some((ours, dom0)) => (ours, Some(dom0.trim_start_matches(' '))),
        None => (line, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_name() {
        let grub2 = "GRUB 2.06-13+deb12u1";
        assert_eq!(without_image_name(grub2, " placeholder ro"), "placeholder ro");
        assert_eq!(without_image_name("GNU GRUB 0.97", "/boot/vmlinuz  ro quiet"), "ro quiet");
        assert_eq!(without_image_name("", "/boot/vmlinuz"), "");
        assert_eq!(without_image_name("unknown", ""), "");
    }

    #[test]
    fn dom0_part() {
        assert_eq!(split_dom0_part("a b"), ("a b", None));
        assert_eq!(split_dom0_part("a --  c d"), ("a", Some("c d")));
        assert_eq!(split_dom0_part("a --b"), ("a --b", None));
    }
}
