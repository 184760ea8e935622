// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask iso`: one ISO that boots on BIOS and UEFI, with the lines GRUB's own generator writes.
//!
//! The lines are those of Debian's `20_linux_xen`, the word `placeholder` and the UEFI-only options included, so what
//! boots here boots from any installation whose `update-grub` found the hypervisor.

use crate::build::{self, Image};
use crate::debian::{self, Flavour};
use crate::disk::Disk;
use crate::project::{self, Project, made};
use crate::{initramfs, process, setup, tools};
use anyhow::{Context, Result, bail};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// What GRUB prints last before it hands over; boot times count from here, and a second one means a reset.
pub(crate) const HAND_OVER: &str = "Starting the machine";

/// Makes a bootable ISO (BIOS and UEFI) of hypervisor, kernel and initramfs.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to write it [default: target/xenith/xenith.iso]
    #[arg(long, short)]
    output: Option<PathBuf>,
    #[command(flatten)]
    payload: PayloadArgs,
}

/// What is booted.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct PayloadArgs {
    /// The kernel for dom0 [default: Debian's, downloaded once]
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,
    /// Which of Debian's kernels
    #[arg(long, value_enum, default_value = "amd64", conflicts_with = "kernel")]
    pub(crate) flavour: Flavour,
    /// What dom0 has
    #[arg(long, value_enum, default_value = "tools", value_name = "KIND")]
    pub(crate) dom0: Dom0,
    /// Another initial ramdisk for dom0
    #[arg(long, value_name = "FILE", conflicts_with = "dom0")]
    pub(crate) initrd: Option<PathBuf>,
    /// Text to append to the kernel's command line
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true, allow_hyphen_values = true)]
    pub(crate) cmdline: String,
    /// Text to append to the hypervisor's command line
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true, allow_hyphen_values = true)]
    pub(crate) hv_cmdline: String,
    /// Another hypervisor image, or "debian" for the C hypervisor of Debian 12
    #[arg(long, value_name = "FILE")]
    pub(crate) hypervisor: Option<PathBuf>,
    /// Boot the kernel without a hypervisor, for comparison
    #[arg(long, conflicts_with_all = ["hypervisor", "hv_cmdline"])]
    pub(crate) bare: bool,
    /// Add a static domain with dom0's kernel and a busybox shell, like "domain=web memory=128M vcpus=1" (may be repeated)
    #[arg(long = "static", value_name = "WORDS", conflicts_with = "bare", allow_hyphen_values = true)]
    pub(crate) statics: Vec<String>,
    /// Build the hypervisor with debug assertions
    #[arg(long)]
    pub(crate) debug: bool,
}

/// What dom0's initramfs is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Dom0 {
    /// The Xen tools, and a first guest that runs
    Tools,
    /// A busybox shell and the tests, nothing else
    Shell,
}

/// The files and command lines of one boot.
#[derive(Debug, Clone)]
pub(crate) struct Payload {
    /// The hypervisor; `None` boots the kernel alone.
    pub(crate) hypervisor: Option<PathBuf>,
    /// The hypervisor's options.
    pub(crate) hv_cmdline: String,
    /// Modules with their command lines: the kernel, the initrd, any others.
    pub(crate) modules: Vec<Module>,
}

/// A file that GRUB loads.
#[derive(Debug, Clone)]
pub(crate) struct Module {
    /// Its name below /boot.
    pub(crate) name: &'static str,
    /// The file on this machine.
    pub(crate) file: PathBuf,
    /// Its command line, if it is a kernel.
    pub(crate) cmdline: Option<String>,
}

/// The guest that a dom0 with tools starts, on its kernel's command line.
const FIRST_GUEST: &str = "xenith.guest=guest1 quiet";

/// The hypervisor options that put its console on the serial line, and its messages on the screen until dom0 has it.
pub(crate) const HV_CONSOLE: &str = "com1=115200,8n1 console=com1,vga loglvl=all guest_loglvl=all";

pub(crate) fn main(project: &Project, args: &Args) -> Result<ExitCode> {
    setup::ensure()?;
    let iso = match &args.output {
        Some(path) => path.clone(),
        None => project.out()?.join("xenith.iso"),
    };
    make(&resolve(project, &args.payload, None)?, &iso)?;
    println!("{:>9} bytes  {}", fs::metadata(&iso)?.len(), project.shown(&iso));
    Ok(ExitCode::SUCCESS)
}

/// Finds or makes every file that the arguments ask for; with a disk, the kernel is the one installed there.
pub(crate) fn resolve(project: &Project, args: &PayloadArgs, disk: Option<&Disk>) -> Result<Payload> {
    let hypervisor = if args.bare { None } else { Some(hypervisor(project, args.hypervisor.as_deref(), args.debug)?) };
    let kernel = match (&args.kernel, disk) {
        (Some(file), _) => file.clone(),
        (None, Some(disk)) => disk.kernel.clone(),
        (None, None) => debian::kernel(args.flavour)?,
    };
    let with_tools = disk.is_none() && args.initrd.is_none() && !args.bare && args.dom0 == Dom0::Tools;
    let initrd = match (&args.initrd, disk) {
        (Some(file), _) => file.clone(),
        (None, Some(disk)) => disk.initrd.clone(),
        (None, None) if with_tools => tools::make(project)?,
        (None, None) => initramfs::make(project)?,
    };
    let console = if args.bare { "console=ttyS0,115200" } else { "console=hvc0" };
    let root = match disk {
        Some(disk) => disk.root(),
        None if with_tools => FIRST_GUEST.to_owned(),
        None => String::new(),
    };
    // Guests need memory that dom0 does not have.
    let sized = !with_tools || args.hv_cmdline.contains("dom0_mem=");
    let dom0_mem = if sized { "" } else { "dom0_mem=512M" };
    let statics = if args.statics.is_empty() {
        Vec::new()
    } else {
        static_domains(2, &args.statics, &kernel, &initramfs::make(project)?)
    };
    let mut payload = Payload {
        hypervisor,
        hv_cmdline: format!("{HV_CONSOLE} {dom0_mem} {}", args.hv_cmdline),
        modules: vec![
            Module { name: "vmlinuz", file: kernel, cmdline: Some(format!("{console} {root} {}", args.cmdline)) },
            Module { name: "initrd.img", file: initrd, cmdline: None },
        ],
    };
    payload.modules.extend(statics);
    Ok(payload)
}

/// The modules of static domains, behind so many others: each with its line and the kernel, then the ramdisk of those that name
/// none. One whose line has no words for its kernel gets a host name.
pub(crate) fn static_domains(others: usize, lines: &[String], kernel: &Path, ramdisk: &Path) -> Vec<Module> {
    let ramdisk_number = others + lines.len();
    let module = |line: &String| {
        let (words, kernel_words) = line.split_once(" -- ").unwrap_or((line, ""));
        let name = words.split_whitespace().find_map(|word| word.strip_prefix("domain=")).unwrap_or_default();
        let usual = format!("quiet xenith.hostname={name}");
        let kernel_words = if kernel_words.is_empty() { &usual } else { kernel_words };
        let ramdisk = if words.contains("ramdisk=") { String::new() } else { format!("ramdisk={ramdisk_number}") };
        let cmdline = format!("{words} {ramdisk} -- {kernel_words}");
        Module { name: "guest", file: kernel.to_owned(), cmdline: Some(cmdline) }
    };
    let mut modules: Vec<Module> = lines.iter().map(module).collect();
    if !modules.is_empty() {
        modules.push(Module { name: "guest.img", file: ramdisk.to_owned(), cmdline: None });
    }
    modules
}

/// The hypervisor image to boot: ours, built now, unless another is asked for.
pub(crate) fn hypervisor(project: &Project, asked: Option<&Path>, debug: bool) -> Result<PathBuf> {
    match asked {
        None => {
            let Image { gz, .. } = build::build(project, debug)?;
            Ok(gz)
        }
        Some(name) if is_debian(name) => debian::c_hypervisor(),
        Some(file) => Ok(file.to_path_buf()),
    }
}

/// True for the word that stands for Debian's C hypervisor.
pub(crate) fn is_debian(name: &Path) -> bool {
    name.as_os_str() == "debian"
}

/// Writes the ISO.
pub(crate) fn make(payload: &Payload, iso: &Path) -> Result<()> {
    let tree = iso.with_extension("tree");
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    let boot = made(tree.join("boot"))?;
    let grub = made(boot.join("grub"))?;
    project::write(&grub.join("grub.cfg"), grub_cfg(payload)?)?;
    let hypervisor = payload.hypervisor.iter().map(|file| ("xenith.gz", file));
    for (name, file) in hypervisor.chain(payload.modules.iter().map(|module| (module.name, &module.file))) {
        if !file.is_file() {
            bail!("there is no file {}", file.display());
        }
        fs::copy(file, boot.join(name)).with_context(|| format!("cannot copy {}", file.display()))?;
    }
    let mut mkrescue = Command::new("grub-mkrescue");
    mkrescue
        .args(["--locales=", "--fonts=", "--themes=", "--compress=no"])
        .arg("--install-modules=multiboot2 linux normal serial echo test gzio terminal all_video part_gpt part_msdos iso9660")
        .arg("-o")
        .args([iso, &tree]);
    process::output(&mut mkrescue).context("cannot make the ISO")?;
    fs::remove_dir_all(&tree)?;
    Ok(())
}

/// GRUB's configuration: no menu, everything on the serial line.
fn grub_cfg(payload: &Payload) -> Result<String> {
    let mut text = String::from(
        "set timeout=0\nset default=0\nserial --unit=0 --speed=115200\nterminal_input serial\nterminal_output serial\n\
         menuentry 'Xenith' {\n",
    );
    if payload.hypervisor.is_some() {
        writeln!(
            text,
            "\techo 'Loading the hypervisor ...'\n\
             \tif [ \"$grub_platform\" = \"pc\" -o \"$grub_platform\" = \"\" ]; then\n\
             \t\txen_rm_opts=\n\
             \telse\n\
             \t\txen_rm_opts=\"no-real-mode edd=off\"\n\
             \t\tinsmod all_video\n\
             \tfi\n\
             \tmultiboot2 /boot/xenith.gz placeholder {} ${{xen_rm_opts}}",
            quoted(&payload.hv_cmdline)
        )?;
        // The command above asks for a screen of pixels. A PC's BIOS leaves one of text, which tests can read.
        text.push_str("\tif [ \"$grub_platform\" = \"pc\" ]; then set gfxpayload=text; fi\n");
    }
    for module in &payload.modules {
        let name = module.name;
        writeln!(text, "\techo 'Loading {name} ...'")?;
        match (&module.cmdline, payload.hypervisor.is_some()) {
            (Some(cmdline), true) => writeln!(text, "\tmodule2 /boot/{name} placeholder {}", quoted(cmdline))?,
            (None, true) => writeln!(text, "\tmodule2 --nounzip /boot/{name}")?,
            (Some(cmdline), false) => writeln!(text, "\tlinux /boot/{name} {}", quoted(cmdline))?,
            (None, false) => writeln!(text, "\tinitrd /boot/{name}")?,
        }
    }
    writeln!(text, "\techo '{HAND_OVER}'\n}}")?;
    Ok(text)
}

/// Quotes the words of a command line that GRUB's script language would otherwise interpret.
fn quoted(cmdline: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_=,.:/+-@%~^".contains(c);
    let words = cmdline.split_whitespace().map(|word| {
        if word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn static_domains_share_a_ramdisk_and_have_names() {
        let lines = ["domain=a memory=64M".to_owned(), "domain=b ramdisk=1 -- loud".to_owned()];
        let modules = static_domains(2, &lines, Path::new("k"), Path::new("r"));
        let lines: Vec<_> = modules.iter().map(|module| module.cmdline.as_deref()).collect();
        let a = "domain=a memory=64M ramdisk=4 -- quiet xenith.hostname=a";
        assert_eq!(lines, [Some(a), Some("domain=b ramdisk=1  -- loud"), None]);
    }

    #[test]
    fn the_lines_are_those_of_the_generator() {
        let module =
            |name, cmdline: Option<&str>| Module { name, file: PathBuf::new(), cmdline: cmdline.map(str::to_owned) };
        let payload = Payload {
            hypervisor: Some(PathBuf::new()),
            hv_cmdline: "com1=115200,8n1".to_owned(),
            modules: vec![module("vmlinuz", Some("console=hvc0 a;b")), module("initrd.img", None)],
        };
        let text = grub_cfg(&payload).expect("formatting cannot fail");
        assert!(text.contains("multiboot2 /boot/xenith.gz placeholder com1=115200,8n1 ${xen_rm_opts}\n"));
        assert!(text.contains("module2 /boot/vmlinuz placeholder console=hvc0 'a;b'\n"));
        assert!(text.contains("module2 --nounzip /boot/initrd.img\n"));
    }
}
