// SPDX-License-Identifier: MIT OR Apache-2.0
//! The start of the machine.
#![expect(
    unsafe_code,
    reason = "the entry from assembly, and the first serial port"
)]

use arrayvec::ArrayVec;
use boot::BootInfo;
use boot::modules::{self, ModuleKind};
use core::fmt::{self, Write};

/// The first serial port by plain port writes.
struct Com1;

fn outb(port: u16, value: u8) {
    // SAFETY: only the ports of the first serial port are passed, whose device touches no memory.
    unsafe {
        core::arch::asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack))
    };
}

fn inb(port: u16) -> u8 {
    let value;
    // SAFETY: as in `outb`.
    unsafe {
        core::arch::asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack))
    };
    value
}

impl Com1 {
    fn new() -> Self {
        for (reg, value) in [(1, 0), (3, 0x80), (0, 1), (1, 0), (3, 3), (2, 7), (4, 3)] {
            outb(0x3f8 + reg, value);
        }
        Self
    }

    fn put(byte: u8) {
        while inb(0x3fd) & 0x20 == 0 {}
        outb(0x3f8, byte);
    }
}

impl Write for Com1 {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for byte in s.bytes() {
            if byte == b'\n' {
                Self::put(b'\r');
            }
            Self::put(byte);
        }
        Ok(())
    }
}

fn halt() -> ! {
    loop {
        // SAFETY: interrupts are off: this waits for ever, which is the intention.
        unsafe { core::arch::asm!("cli; hlt", options(nomem, nostack)) };
    }
}

/// Machine memory below 4 GiB through the direct map of the boot page tables.
fn memory(start: u64, len: usize) -> &'static [u8] {
    let end = start.saturating_add(len as u64).min(1 << 32);
    let len = usize::try_from(end.saturating_sub(start)).unwrap_or(0);
    // SAFETY: all below 4 GiB is mapped, and what is asked for (modules, firmware tables) nobody writes to yet.
    unsafe { core::slice::from_raw_parts((boot::entry::DIRECTMAP + start) as *const u8, len) }
}

fn report(out: &mut Com1, info: &BootInfo) -> fmt::Result {
    writeln!(out, "Loader: {}", info.loader())?;
    writeln!(out, "Command line: {}", info.cmdline())?;
    for warning in &info.warnings {
        writeln!(out, "Warning: {warning}")?;
    }
    writeln!(out, "Image: {:#x?}", boot::entry::image())?;
    writeln!(
        out,
        "Memory map, {} KiB usable:",
        boot::memory_map::usable_bytes(&info.memory) >> 10
    )?;
    for region in &info.memory {
        writeln!(out, "  {region}")?;
    }
    let rsdp = info
        .rsdp
        .or_else(|| boot::rsdp::scan(memory(0, 1 << 20)).map(|found| found.1));
    match rsdp {
        Some(rsdp) => writeln!(
            out,
            "ACPI: revision {}, RSDT {:#x}, XSDT {:#x?}",
            rsdp.revision(),
            rsdp.rsdt(),
            rsdp.xsdt()
        )?,
        None => writeln!(out, "Warning: no ACPI root pointer")?,
    }
    writeln!(out, "EFI: {:x?}, screen: {:x?}", info.efi, info.framebuffer)
}

fn report_modules(out: &mut Com1, info: &BootInfo) -> fmt::Result {
    let kinds: ArrayVec<ModuleKind, { boot::info::MAX_MODULES }> = info
        .modules
        .iter()
        .map(|m| {
            let len = usize::try_from(m.end - m.start).unwrap_or(0);
            modules::identify(memory(m.start, len.min(modules::HEAD)))
        })
        .collect();
    let roles = modules::assign(&kinds);
    for (index, (module, kind)) in info.modules.iter().zip(&kinds).enumerate() {
        let role = match Some(index) {
            i if i == roles.kernel => "kernel",
            i if i == roles.initrd => "initrd",
            _ => "unused",
        };
        let (start, end) = (module.start, module.end);
        let line = info.module_cmdline(module);
        writeln!(
            out,
            "Module {index}: {start:#x}-{end:#x} {kind:?}, {role}, {} bytes of command line: {line}",
            line.len()
        )?;
    }
    let Some(kernel) = roles.kernel.and_then(|i| info.modules.get(i)) else {
        return writeln!(
            out,
            "Error: no modules: the first module2 line must load dom0's kernel"
        );
    };
    writeln!(out, "Dom0's line: {}", info.dom0_cmdline(kernel))
}

fn report_options(out: &mut Com1, line: &str) -> fmt::Result {
    let (options, complaints) = boot::options::parse(line);
    for complaint in &complaints.list {
        let severity = if complaint.is_error() {
            "Error"
        } else {
            "Warning"
        };
        writeln!(out, "{severity}: {complaint}")?;
    }
    if complaints.more > 0 {
        writeln!(
            out,
            "Warning: {} more options were not taken",
            complaints.more
        )?;
    }
    writeln!(out, "{options:x?}")
}

/// What the loader said.
static INFO: spin::Mutex<BootInfo> = spin::Mutex::new(BootInfo::new());

/// Where the boot entry ends. See `boot::entry` for the state of the machine.
#[unsafe(no_mangle)]
extern "C" fn xenith_start(magic: u32, info_maddr: u32) -> ! {
    let mut out = Com1::new();
    let _ = writeln!(out, "Xenith {}", env!("CARGO_PKG_VERSION"));
    let mut info = INFO.lock();
    // SAFETY: these are the entry's arguments, and the boot page tables have the direct map.
    let bytes = unsafe { boot::entry::info_bytes(info_maddr) };
    let result = bytes.and_then(|bytes| info.parse(magic, bytes));
    let _ = report(&mut out, &info);
    let _ = match result {
        Ok(()) => {
            report_modules(&mut out, &info).and_then(|()| report_options(&mut out, info.cmdline()))
        }
        Err(error) => writeln!(out, "Fatal: {error}"),
    };
    let _ = writeln!(out, "Halted.");
    halt()
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let _ = writeln!(Com1, "{info}");
    halt()
}
