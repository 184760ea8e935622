// SPDX-License-Identifier: MIT OR Apache-2.0
//! Building domains: from a kernel image to a vCPU that is ready to run.
//!
//! [`builder`](crate::builder) computes, here it is carried out. Kernel bytes go straight from the decompressor into
//! the domain's frames, so unpacking needs the decoder's window and nothing else; it is gone before the rest of its memory
//! is allocated. The page tables are written as plain memory and then validated like any guest's.

mod frames;

use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use arch::Regs;
use hypercalls::segment::{FLAT_RING3_CS64, FLAT_RING3_SS64};
use hypercalls::vm_assist::VmAssistType;
use hypercalls::{DomId, Errno, Mfn, PAGE_SIZE, Pfn, VcpuId};
use mm::pt::RootUse;
use mm::{Account, WritableRef, m2p};
use zerocopy::IntoBytes;

use hypercalls::start_info::{StartInfoConsole, VgaConsoleInfo};

use crate::builder::decompress::Stream;
use crate::builder::elf::{LoadError, Loader, Sink};
use crate::builder::image::{self, ImageError};
use crate::builder::layout::{Entry, Layout, LayoutError, Request};
use crate::builder::notes::XenNotes;
use crate::builder::start_info::{self, Role};
use crate::create::{self, Config, Tools};
use crate::domain::Domain;
use crate::{console, death, events, grace, hypercall_page, schedule, shared, time};
use frames::Frames;

/// What dom0 is made of.
#[derive(Debug)]
pub struct Dom0<'a> {
    /// The kernel's module.
    pub kernel: &'a [u8],
    /// The initrd's module.
    pub initrd: &'a [u8],
    /// The command line.
    pub cmdline: &'a str,
    /// Frames to begin with.
    pub pages: u64,
    /// Frames it may ever have.
    pub max_pages: u64,
    /// vCPUs.
    pub vcpus: u32,
    /// The screen, if there is one.
    pub screen: Option<VgaConsoleInfo>,
    /// Ports and frames it may use.
    pub io: crate::io_rights::IoRights,
}

/// What a guest is made of that has no tools.
#[derive(Debug)]
pub struct Guest<'a> {
    /// Its number.
    pub id: DomId,
    /// Its name, at most 16 bytes: the handle by which tools know it, too.
    pub name: &'a str,
    /// The kernel's module.
    pub kernel: &'a [u8],
    /// The initrd's module.
    pub initrd: &'a [u8],
    /// The command line.
    pub cmdline: &'a str,
    /// Frames.
    pub pages: u64,
    /// vCPUs.
    pub vcpus: u32,
    /// The hypervisor serves its console.
    pub console: bool,
}

/// Why a domain cannot be built.
#[derive(Debug)]
pub enum Failure {
    /// The kernel's file.
    Image(ImageError),
    /// What the kernel demands of memory.
    Layout(LayoutError),
    /// Memory ran out.
    Memory,
    /// The page tables that were built are not valid: a defect.
    Tables(Errno),
    /// The domain could not be created.
    Create(Errno),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(error) => write!(f, "the kernel cannot be loaded: {error}"),
            Self::Layout(error) => error.fmt(f),
            Self::Memory => f.write_str("there is not enough memory"),
            Self::Tables(error) => write!(f, "its first page tables are not valid: {error:?}"),
            Self::Create(error) => write!(f, "it cannot be created: {error:?}"),
        }
    }
}

/// Takes the kernel's bytes: `base` is the physical address of the first page in `frames`.
struct KernelSink<'a, 'b> {
    frames: &'a Frames<'b>,
    name: &'a str,
    base: u64,
    shown: u64,
}

impl Sink for KernelSink<'_, '_> {
    type Error = Failure;

    fn write(&mut self, paddr: u64, bytes: &[u8]) -> Result<(), Failure> {
        let mut at = paddr - self.base;
        let mut rest = bytes;
        while !rest.is_empty() {
            let offset = (at % PAGE_SIZE as u64) as usize;
            let (now, later) = rest.split_at(rest.len().min(PAGE_SIZE - offset));
            self.frames.write(Pfn(at / PAGE_SIZE as u64), offset, now)?;
            at += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    fn progress(&mut self, unpacked: u64) {
        const STEP: u64 = 16 << 20;
        if unpacked / STEP > self.shown {
            self.shown = unpacked / STEP;
            log::info!("{}: {} MiB of the kernel unpacked", self.name, self.shown * 16);
        }
    }
}

/// What a domain begins with.
struct Contents<'a> {
    /// What the log calls the domain.
    name: &'a str,
    kernel: &'a [u8],
    initrd: &'a [u8],
    cmdline: &'a str,
    pages: u64,
    kind: Kind,
}

/// What it is.
enum Kind {
    Dom0(Option<VgaConsoleInfo>),
    Guest { has_console: bool },
}

/// Unpacks the kernel into frames and returns them, by page from the image's first one on, with its notes.
fn load_kernel<'a>(account: &'a Account, name: &str, module: &[u8]) -> Result<(Frames<'a>, XenNotes), Failure> {
    let payload = image::find(module).map_err(Failure::Image)?;
    log::info!("{name}: kernel of {} KiB, {}", payload.bytes.len() >> 10, payload.format.name());
    let stream = Stream::open(&payload).map_err(Failure::Image)?;
    let loader = Loader::open(stream).map_err(Failure::Image)?;
    let (range, entry) = (loader.range(), loader.entry());
    let base = range.start & !(PAGE_SIZE as u64 - 1);
    let pages = (range.end - base).div_ceil(PAGE_SIZE as u64);
    let mut frames = Frames::none(account, pages);
    frames.fill(pages)?;
    let mut sink = KernelSink { frames: &frames, name, base, shown: 0 };
    let segments = loader.load(&mut sink).map_err(|error| match error {
        LoadError::Image(error) => Failure::Image(error),
        LoadError::Sink(failure) => failure,
    })?;
    let notes = XenNotes::read(&segments, range, entry).map_err(|e| Failure::Image(ImageError::Notes(e)))?;
    Ok((frames, notes))
}

/// Builds dom0 and makes it ready to run.
///
/// # Errors
/// [`Failure`] says what is wrong, in words for the person at the console.
pub fn dom0(from: Dom0<'_>) -> Result<Arc<Domain>, Failure> {
    let config = Config {
        id: DomId(0),
        privileged: true,
        vcpus: from.vcpus,
        max_pages: from.max_pages.max(from.pages),
        max_port: u32::MAX,
        io: from.io,
        grants: crate::grants::Limits::most(),
        tools: Tools::default(),
    };
    let domain = create::domain(config).map_err(Failure::Create)?;
    let Dom0 { kernel, initrd, cmdline, pages, .. } = from;
    let kind = Kind::Dom0(from.screen);
    fill(&domain, &Contents { name: "dom0", kernel, initrd, cmdline, pages, kind })?;
    Ok(domain)
}

/// Builds a guest, paused once. Of one that cannot be built nothing stays.
///
/// # Errors
/// [`Failure`] says what is wrong, in words for the person at the console.
pub fn guest(from: &Guest<'_>) -> Result<Arc<Domain>, Failure> {
    let mut handle = [0; 16];
    handle.iter_mut().zip(from.name.bytes()).for_each(|(to, byte)| *to = byte);
    let config = Config {
        id: from.id,
        privileged: false,
        vcpus: from.vcpus,
        max_pages: from.pages,
        max_port: GUEST_PORTS,
        io: crate::io_rights::IoRights::none(),
        grants: crate::grants::Limits::most(),
        tools: Tools { paused: true, handle, ..Tools::default() },
    };
    let domain = create::domain(config).map_err(Failure::Create)?;
    let Guest { name, kernel, initrd, cmdline, pages, .. } = *from;
    let kind = Kind::Guest { has_console: from.console };
    match fill(&domain, &Contents { name, kernel, initrd, cmdline, pages, kind }) {
        Ok(()) => Ok(domain),
        Err(failure) => {
            take_back(&domain);
            Err(failure)
        }
    }
}

/// The highest port of a guest: what tools give one, too.
const GUEST_PORTS: u32 = 1023;

/// Destroys a domain that has not run. Were a CPU in the way of that, tools could do what is left.
fn take_back(domain: &Domain) {
    for _ in 0..100_000 {
        let destroyed = death::destroy(domain);
        arch::cpu::reset_budget();
        // Nothing that was found in a published place is held here.
        grace::pass();
        if destroyed.is_ok() {
            break;
        }
    }
    death::look();
    grace::pass();
}

/// Fills an empty domain and makes it ready to run.
fn fill(domain: &Arc<Domain>, from: &Contents<'_>) -> Result<(), Failure> {
    let (image, notes) = load_kernel(&domain.account, from.name, from.kernel)?;
    let mut request = Request {
        notes: &notes,
        initrd_bytes: from.initrd.len() as u64,
        nr_pages: from.pages,
        cmdline_len: from.cmdline.len(),
        has_ring: matches!(from.kind, Kind::Guest { .. }),
    };
    request.nr_pages = Layout::clip(&request);
    let layout = Layout::compute(&request).map_err(Failure::Layout)?;
    describe(from.name, &layout);
    let mut frames = Frames::none(&domain.account, request.nr_pages);
    let first = layout.kernel.pfn.0 as usize;
    for (slot, mfn) in frames.p2m.iter_mut().skip(first).zip(&image.p2m) {
        *slot = *mfn;
    }
    drop(image);
    if notes.extended_cr3 {
        domain.assist.fetch_or(VmAssistType::PAE_EXTENDED_CR3.mask().unwrap_or(0), SeqCst);
    }
    frames.fill(request.nr_pages)?;
    for (pfn, mfn) in (0u64..).zip(&frames.p2m) {
        m2p::set(Mfn(*mfn), Pfn(pfn));
    }
    if let Some(initrd) = layout.initrd {
        frames.write_all(initrd.pfn, from.initrd)?;
    }
    frames.write_all(layout.p2m.pfn, frames.p2m.as_bytes())?;
    tell(domain, from, &layout, &notes, &frames)?;
    if let Some(va) = notes.hypercall_page {
        let pfn = Pfn(va.wrapping_sub(layout.boot.va) / PAGE_SIZE as u64);
        frames.write(pfn, 0, &hypercall_page::page())?;
    }
    write_tables(&layout, &frames)?;
    start(domain, &layout, &frames)
}

/// Writes the start information.
fn tell(
    domain: &Domain,
    from: &Contents<'_>,
    layout: &Layout,
    notes: &XenNotes,
    frames: &Frames<'_>,
) -> Result<(), Failure> {
    let shared_info = domain.shared_info().mfn().maddr();
    let role = match from.kind {
        Kind::Dom0(screen) => Role::Dom0(screen),
        Kind::Guest { has_console } => {
            Role::Guest(console_of(domain, from.name, frames.mfn(layout.ring.pfn)?, has_console)?)
        }
    };
    let info = start_info::page(layout, notes, shared_info, from.cmdline.as_bytes(), &role);
    frames.write(layout.start_info.pfn, 0, info.as_bytes())?;
    if let Role::Dom0(Some(screen)) = role {
        frames.write(layout.start_info.pfn, start_info::SCREEN, screen.as_bytes())?;
    }
    Ok(())
}

/// Makes the page a ring, and serves it if that is wanted. A kernel without a port has no console.
fn console_of(domain: &Domain, name: &str, page: Mfn, is_served: bool) -> Result<StartInfoConsole, Failure> {
    let frame = WritableRef::get(page, domain.id).map_err(Failure::Create)?;
    shared::zero(&frame);
    if !is_served {
        return Ok(StartInfoConsole::domu(page, 0));
    }
    let port = events::open_console(domain).map_err(Failure::Create)?;
    console::serve(domain, name, frame, port).map_err(Failure::Create)?;
    Ok(StartInfoConsole::domu(page, port))
}

fn describe(name: &str, layout: &Layout) {
    log::info!("{name}: {} pages ({} MiB)", layout.nr_pages, layout.nr_pages >> 8);
    let line = |what: &str, start: u64, pages: u64| {
        log::info!("{name}:   {what:<12} {start:#018x}-{:#018x}", start.wrapping_add(pages * PAGE_SIZE as u64));
    };
    line("kernel", layout.kernel.va, layout.kernel.pages);
    if let Some(initrd) = layout.initrd {
        log::info!("{name}:   initrd       PFN {:#x}, {} pages", initrd.pfn.0, initrd.pages);
    }
    line("P2M", layout.p2m.va, layout.p2m.pages);
    line("start info", layout.start_info.va, layout.start_info.pages);
    line("page tables", layout.page_tables.va, layout.page_tables.pages);
    line("stack", layout.stack.va, layout.stack.pages);
    log::info!("{name}:   entry        {:#018x}", layout.entry);
}

/// Present, writable, accessed, user, and the software bit of the guest kernel's mappings, which must not be global.
const LEAF: u64 = 1 | 1 << 1 | 1 << 2 | 1 << 5 | 1 << 52;
/// Present, writable, accessed, user, dirty.
const TABLE: u64 = 1 | 1 << 1 | 1 << 2 | 1 << 5 | 1 << 6;

fn write_tables(layout: &Layout, frames: &Frames<'_>) -> Result<(), Failure> {
    for table in layout.tables() {
        let mut words = [0u64; 512];
        for (index, word) in (0u64..).zip(words.iter_mut()) {
            *word = match layout.entry(&table, index) {
                Entry::Empty => 0,
                Entry::Table(pfn) => frames.mfn(pfn)?.maddr().0 | TABLE,
                Entry::Page { pfn, writable } => frames.mfn(pfn)?.maddr().0 | if writable { LEAF } else { LEAF & !2 },
            };
        }
        frames.write(table.pfn, 0, words.as_bytes())?;
    }
    Ok(())
}

/// Validates the tables, sets vCPU 0's registers and lets it run.
fn start(domain: &Arc<Domain>, layout: &Layout, frames: &Frames<'_>) -> Result<(), Failure> {
    let root = frames.mfn(layout.page_tables.pfn)?;
    let vcpu = domain.vcpu(VcpuId(0)).ok_or(Failure::Memory)?;
    let ctx = domain.tables_ctx();
    let mut tables = domain.page_tables.lock();
    loop {
        match tables.pin(&ctx, root, 4) {
            Ok(()) => break,
            Err(Errno::ERESTART) => arch::cpu::reset_budget(),
            Err(error) => return Err(Failure::Tables(error)),
        }
    }
    let reference = tables.get_root(&ctx, root, RootUse::Kernel).map_err(Failure::Tables)?;
    drop(tables);
    vcpu.kernel_root.store(root.0, Relaxed);
    vcpu.roots.lock().kernel = Some(reference);
    {
        let mut saved = vcpu.context.lock();
        saved.regs = Regs {
            rip: layout.entry,
            rsp: layout.stack_pointer(),
            rsi: layout.start_info.va,
            cs: u64::from(FLAT_RING3_CS64),
            ss: u64::from(FLAT_RING3_SS64),
            rflags: 0x202,
            ..Regs::default()
        };
        saved.kernel_mode = true;
    }
    vcpu.kernel_sp.store(layout.stack_pointer(), Relaxed);
    time::update(vcpu);
    time::publish_wall_clock(domain);
    vcpu.status.initialised.store(true, SeqCst);
    vcpu.status.down.store(false, SeqCst);
    // A PV vCPU starts with a 100 Hz tick; kernels switch it off.
    let _ = crate::ops::vcpu::set_periodic(vcpu, 10_000_000);
    schedule::wake(vcpu);
    Ok(())
}
