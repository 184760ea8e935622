// SPDX-License-Identifier: MIT OR Apache-2.0
//! The repository's own rules, which neither rustfmt nor clippy knows: the licence line, the module's introduction, the
//! length of files and functions' homes, and where `unsafe` may be used.

use crate::project::Project;
use crate::test::Tally;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

const LICENCE: &str = "SPDX-License-Identifier: MIT OR Apache-2.0";
const LONGEST: usize = 500;
/// Directories without sources of ours.
const PASSED_OVER: &[&str] = &["target", ".git", "corpus", "artifacts"];
/// Crates that may not even opt in to `unsafe`.
const SAFE: &[&str] = &["hypercalls/", "sched/", "xtask/"];

/// Checks every source file; each broken rule is printed and counted.
pub(crate) fn check(project: &Project) -> Result<Tally> {
    let mut files = Vec::new();
    collect(&project.root, &mut files)?;
    let mut broken = 0;
    for file in &files {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let relative = file.strip_prefix(&project.root).unwrap_or(file);
        for complaint in complaints(relative, &text) {
            println!("{}: {complaint}", relative.display());
            broken += 1;
        }
    }
    Ok(Tally { passed: usize::from(broken == 0), failed: broken, skipped: 0 })
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            if !PASSED_OVER.iter().any(|name| entry.file_name() == *name) {
                collect(&path, files)?;
            }
        } else if path
            .extension()
            .is_some_and(|extension| ["rs", "S", "c", "ld"].iter().any(|known| extension == *known))
        {
            files.push(path);
        }
    }
    Ok(())
}

/// What is wrong with this file.
fn complaints(path: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    if !lines.next().is_some_and(|line| line.contains(LICENCE)) {
        found.push(format!("the first line does not say '{LICENCE}'"));
    }
    let length = text.lines().count();
    if length > LONGEST {
        found.push(format!("{length} lines; a file stays under {LONGEST}"));
    }
    if path.extension().is_some_and(|extension| extension == "rs") {
        found.extend(complaints_of_rust(path, text));
    }
    found
}

fn complaints_of_rust(path: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let second = text.lines().nth(1).unwrap_or_default();
    if !second.starts_with("//!") {
        found.push("the licence is not followed by the module's introduction (//!)".to_owned());
    }
    let opts_in = concat!("expect(unsafe", "_code");
    let allows = concat!("allow(unsafe", "_code");
    if SAFE.iter().any(|room| path.starts_with(room)) && text.contains(opts_in) {
        found.push("this room uses no unsafe code".to_owned());
    }
    if text.contains(allows) {
        found.push(format!("write {opts_in}, reason = ...) instead of allow"));
    }
    for (index, line) in text.lines().enumerate() {
        let statement = line.trim_start();
        if statement.starts_with("static mut ") || statement.starts_with("pub static mut ") {
            found.push(format!("line {}: static mut", index + 1));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, text: &str) -> usize {
        complaints(Path::new(path), text).len()
    }

    #[test]
    fn a_proper_file_breaks_no_rule() {
        let text = format!("// {LICENCE}\n//! What it is.\n");
        assert_eq!(check("mm/src/a.rs", &text), 0);
    }

    #[test]
    fn each_rule_is_noticed() {
        assert_eq!(check("mm/src/a.rs", "//! No licence.\n//! Here.\n"), 1);
        assert_eq!(check("mm/src/a.rs", &format!("// {LICENCE}\nfn main() {{}}\n")), 1);
        assert_eq!(check("mm/src/a.S", &format!("// {LICENCE}\n{}", "\n".repeat(LONGEST))), 1);
        assert_eq!(check("mm/src/a.rs", &format!("// {LICENCE}\n//! Doc.\nstatic mut A: u8 = 0;\n")), 1);
    }

    #[test]
    fn safe_rooms_cannot_opt_in() {
        let text = format!("// {LICENCE}\n//! Doc.\n#![{}, reason = \"x\")]\n", concat!("expect(unsafe", "_code"));
        assert_eq!(check("sched/src/a.rs", &text), 1);
        assert_eq!(check("arch/x86_64/src/a.rs", &text), 0);
    }
}
