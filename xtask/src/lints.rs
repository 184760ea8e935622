// SPDX-License-Identifier: MIT OR Apache-2.0
//! The repository's own rules, which neither rustfmt nor clippy knows: the licence line, the module's introduction, the
//! length of files and functions' homes, where `unsafe` may be used, and that a crate uses what its manifest names.

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
    for file in files.iter().filter(|file| file.ends_with("Cargo.toml")) {
        for name in idle_dependencies(file, &files)? {
            println!("{}: the dependency {name} is not used", project.shown(file));
            broken += 1;
        }
    }
    for file in files.iter().filter(|file| !file.ends_with("Cargo.toml")) {
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
            || entry.file_name() == "Cargo.toml"
        {
            files.push(path);
        }
    }
    Ok(())
}

/// The dependencies of a manifest that no source below it names, nor, if they are the workspace's, any member's manifest.
fn idle_dependencies(manifest: &Path, files: &[PathBuf]) -> Result<Vec<String>> {
    let dir = manifest.parent().unwrap_or(manifest);
    let table: toml::Table = fs::read_to_string(manifest)?.parse()?;
    let (mut sources, mut manifests) = (String::new(), String::new());
    for file in files.iter().filter(|file| file.starts_with(dir)) {
        let text = if file.ends_with("Cargo.toml") { &mut manifests } else { &mut sources };
        text.push_str(&fs::read_to_string(file)?);
    }
    // Files from elsewhere may be part of the crate.
    if sources.contains("#[path = \"../") {
        return Ok(Vec::new());
    }
    let mut idle = dependencies(&table);
    idle.retain(|name| !has_word(&sources, &name.replace('-', "_")));
    let mut shared = table.get("workspace").and_then(|inner| inner.as_table()).map(dependencies).unwrap_or_default();
    shared.retain(|name| !manifests.contains(&format!("\n{name}.workspace")));
    idle.append(&mut shared);
    Ok(idle)
}

/// The names in all tables of dependencies, those of single targets too.
fn dependencies(table: &toml::Table) -> Vec<String> {
    let own = ["dependencies", "dev-dependencies", "build-dependencies"].into_iter().filter_map(|key| table.get(key));
    let own = own.filter_map(|found| found.as_table()).flat_map(|found| found.keys().cloned());
    let targets = table.get("target").and_then(|targets| targets.as_table()).into_iter();
    let targets = targets.flat_map(|targets| targets.values().filter_map(|target| target.as_table()));
    own.chain(targets.flat_map(dependencies)).collect()
}

/// True when the text has this identifier, whole.
fn has_word(text: &str, word: &str) -> bool {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|found| found == word)
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
    fn an_idle_dependency_is_noticed() {
        let manifest =
            "[dependencies]\na-b = '1'\n[target.'cfg(unix)'.dependencies]\nc = '1'\n[dev-dependencies]\nd = '1'\n";
        let table: toml::Table = manifest.parse().expect("the manifest is well-formed");
        let mut names = dependencies(&table);
        names.sort();
        assert_eq!(names, ["a-b", "c", "d"]);
        assert!(has_word("use a_b::x;", "a_b") && !has_word("use xa_b::x;", "a_b"));
    }

    #[test]
    fn safe_rooms_cannot_opt_in() {
        let text = format!("// {LICENCE}\n//! Doc.\n#![{}, reason = \"x\")]\n", concat!("expect(unsafe", "_code"));
        assert_eq!(check("sched/src/a.rs", &text), 1);
        assert_eq!(check("arch/x86_64/src/a.rs", &text), 0);
    }
}
