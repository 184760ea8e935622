// SPDX-License-Identifier: MIT OR Apache-2.0
//! The first address space of a PV domain, computed before anything is built.
//!
//! The *boot mapping* starts at `VIRT_BASE`, where PFN 0 lies, and maps PFNs one to one with 4 KiB pages: the kernel at its own
//! place, then page by page the initrd (only for kernels that want it mapped), the P2M array (only for kernels that name no place
//! for it), the start-info page, the page of the console's ring (for domains that have one), the page tables that map all this, and one page of stack; then at least 512 KiB of padding, up to
//! a multiple of 4 MiB. The PFNs that follow hold the initrd, if it is not mapped, and then the tables and frames of a P2M array
//! that is mapped elsewhere (the *P2M mapping*). All PFNs beyond are free memory.
//!
//! What always holds of a [`Layout`]: no two elements overlap, in PFNs or in linear addresses; in the boot mapping
//! `va - virt_base == pfn << 12`; every table's PFN is mapped read-only or not at all; all PFNs used are below `nr_pages`; the two
//! mappings share no L4 entry, and neither touches the hypervisor's.
//!
//! [`Layout::tables`] and [`Layout::entry`] say of each table and each of its 512 entries what it holds, so that building them
//! needs no arithmetic.

mod tables;

pub use tables::{ENTRIES, Entry, Mapping, Table};

use super::notes::{XenNotes, guest_range};
use core::fmt;
use hypercalls::Pfn;
use hypercalls::start_info::MAX_GUEST_CMDLINE;
use tables::{Tables, span_shift};

const PAGE: u64 = 4096;
/// What the end of the boot mapping is rounded up to.
const ROUND: u64 = 4 << 20;
/// Padding behind the stack, at least.
const PADDING: u64 = 512 << 10;
/// The boot mapping lies within one L2 table: Linux goes on using just that one.
const L2_SPAN: u64 = 1 << 30;
/// More pages than a P2M array is computed for (4 PiB of memory).
const MAX_PAGES: u64 = 1 << 40;

/// Why there is no layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutError {
    /// The domain is too small.
    TooFewPages {
        /// Pages given.
        given: u64,
        /// The smallest number of pages that does.
        needed: u64,
    },
    /// More pages than can be described.
    TooManyPages,
    /// The boot mapping does not fit into one gigabyte from where it starts.
    BootMappingTooLarge,
    /// The boot mapping would reach into the hypervisor's hole or beyond the canonical addresses.
    BadVirtBase(u64),
    /// The place wanted for the P2M array is not a page of its own L4 slots outside the hole.
    BadP2mBase(u64),
    /// The command line does not fit.
    CommandLineTooLong(usize),
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooFewPages { given, needed } => write!(
                f,
                "too little memory: {} KiB given, at least {} KiB needed to place kernel and initrd",
                given.saturating_mul(4),
                needed.saturating_mul(4)
            ),
            Self::TooManyPages => f.write_str("more memory than can be described"),
            Self::BootMappingTooLarge => {
                f.write_str("kernel, initrd and tables do not fit into the boot mapping of 1 GiB")
            }
            Self::BadVirtBase(base) => {
                write!(f, "the boot mapping at {base:#x} would reach into addresses it may not use")
            }
            Self::BadP2mBase(base) => write!(f, "the P2M array cannot be mapped at {base:#x}"),
            Self::CommandLineTooLong(len) => {
                write!(f, "the command line has {len} bytes, the kernel takes {}", MAX_GUEST_CMDLINE - 1)
            }
        }
    }
}

/// What there is to place.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The kernel.
    pub notes: &'a XenNotes,
    /// Bytes of initrd, 0 for none.
    pub initrd_bytes: u64,
    /// Pages of the domain.
    pub nr_pages: u64,
    /// Bytes of the command line, without a terminating zero.
    pub cmdline_len: usize,
    /// It shares a page with whoever serves its console.
    pub has_ring: bool,
}

/// Some pages of the boot mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Where they are mapped.
    pub va: u64,
    /// The first one.
    pub pfn: Pfn,
    /// How many.
    pub pages: u64,
}

impl Span {
    /// Returns the address one beyond the last byte (modulo 2^64).
    pub const fn end(&self) -> u64 {
        self.va.wrapping_add(self.pages * PAGE)
    }

    /// True when the page is one of these.
    pub const fn contains(&self, pfn: Pfn) -> bool {
        pfn.0 >= self.pfn.0 && pfn.0 - self.pfn.0 < self.pages
    }
}

/// Where the initrd goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Initrd {
    /// Its address in the boot mapping, if it is there.
    pub va: Option<u64>,
    /// Its first page.
    pub pfn: Pfn,
    /// How many pages.
    pub pages: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// Where the P2M array goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct P2m {
    /// Its address.
    pub va: u64,
    /// The first page of the array itself (not of its tables).
    pub pfn: Pfn,
    /// Pages of the array.
    pub pages: u64,
}

/// Where everything goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The boot mapping: all of it.
    pub boot: Span,
    /// The pages that the kernel's segments lie in.
    pub kernel: Span,
    /// The initrd.
    pub initrd: Option<Initrd>,
    /// The P2M array.
    pub p2m: P2m,
    /// The start-info page.
    pub start_info: Span,
    /// The page of the console's ring, if there is one.
    pub ring: Span,
    /// The page tables of the boot mapping; the first is the L4.
    pub page_tables: Span,
    /// The first stack.
    pub stack: Span,
    /// The first frame of P2M mapping and array, where these have their own PFNs; else 0.
    pub first_p2m_pfn: Pfn,
    /// The number of those frames; else 0.
    pub nr_p2m_frames: u64,
    /// The first instruction.
    pub entry: u64,
    /// Pages of the domain.
    pub nr_pages: u64,
    /// Pages used by the layout: PFNs from here on are free memory.
    pub required_pages: u64,
    boot_tables: Tables,
    p2m_tables: Option<Tables>,
}

fn pages(bytes: u64) -> u64 {
    bytes.div_ceil(PAGE)
}

impl Layout {
    /// Computes the layout.
    ///
    /// # Errors
    /// When the parts do not fit; see [`LayoutError`].
    pub fn compute(request: &Request<'_>) -> Result<Self, LayoutError> {
        if request.cmdline_len >= MAX_GUEST_CMDLINE {
            return Err(LayoutError::CommandLineTooLong(request.cmdline_len));
        }
        let layout = Self::place(request, request.nr_pages)?;
        if layout.required_pages > request.nr_pages {
            let (given, needed) = (request.nr_pages, Self::smallest(request)?);
            return Err(LayoutError::TooFewPages { given, needed });
        }
        Ok(layout)
    }

    /// Returns the smallest number of pages that there is a layout for.
    ///
    /// # Errors
    /// When there is none for any number.
    pub fn smallest(request: &Request<'_>) -> Result<u64, LayoutError> {
        // A larger domain never needs fewer pages, so that this climbs to the smallest fixed point.
        let mut nr_pages = 0;
        loop {
            let needed = Self::place(request, nr_pages)?.required_pages;
            if needed <= nr_pages {
                return Ok(nr_pages);
            }
            nr_pages = needed;
        }
    }

    /// Returns the number of pages asked for, or fewer for a kernel that has its P2M array in the boot mapping: the array and the
    /// tables that the kernel makes of it share what the boot mapping leaves.
    pub fn clip(request: &Request<'_>) -> u64 {
        let notes = request.notes;
        if notes.init_p2m.is_some() {
            return request.nr_pages;
        }
        let mapped_initrd = if notes.unmapped_initrd { 0 } else { request.initrd_bytes };
        let used = notes.kernel_end.wrapping_sub(notes.virt_base).saturating_add(mapped_initrd);
        let room = (L2_SPAN - notes.virt_base % L2_SPAN).saturating_sub(used);
        request.nr_pages.min(room / 16)
    }

    /// Places everything for a domain of this size, whether it fits into it or not.
    fn place(request: &Request<'_>, nr_pages: u64) -> Result<Self, LayoutError> {
        if nr_pages > MAX_PAGES {
            return Err(LayoutError::TooManyPages);
        }
        let notes = request.notes;
        let (mut boot, kernel) = Boot::new(notes)?;
        let mut initrd =
            Initrd { va: None, pfn: Pfn(0), pages: pages(request.initrd_bytes), bytes: request.initrd_bytes };
        if !notes.unmapped_initrd {
            let span = boot.take(initrd.pages)?;
            (initrd.va, initrd.pfn) = (Some(span.va), span.pfn);
        }
        let p2m_pages = pages(nr_pages * 8);
        let mapped_p2m = boot.take(notes.init_p2m.map_or(p2m_pages, |_| 0))?;
        let start_info = boot.take(1)?;
        let ring = boot.take(u64::from(request.has_ring))?;
        let (page_tables, stack, whole) = boot.finish()?;
        let mut next = whole.pages;
        if notes.unmapped_initrd {
            initrd.pfn = Pfn(next);
            next += initrd.pages;
        }
        if next > MAX_PAGES {
            return Err(LayoutError::TooManyPages);
        }
        let last = whole.end().wrapping_sub(1);
        let mut layout = Self {
            boot: whole,
            kernel,
            initrd: Some(initrd).filter(|initrd| initrd.pages > 0),
            p2m: P2m { va: mapped_p2m.va, pfn: mapped_p2m.pfn, pages: p2m_pages },
            start_info,
            ring,
            page_tables,
            stack,
            first_p2m_pfn: Pfn(0),
            nr_p2m_frames: 0,
            entry: notes.entry,
            nr_pages,
            required_pages: next,
            boot_tables: Tables::new(whole.va, last, page_tables.pfn.0 + 1),
            p2m_tables: None,
        };
        if let Some(va) = notes.init_p2m.filter(|_| p2m_pages > 0) {
            layout.place_p2m(va, p2m_pages)?;
        }
        Ok(layout)
    }

    /// Places the P2M array and its tables behind everything else.
    fn place_p2m(&mut self, va: u64, p2m_pages: u64) -> Result<(), LayoutError> {
        let bad = LayoutError::BadP2mBase(va);
        let end = va.checked_add(p2m_pages * PAGE).ok_or(bad)?;
        let slot = |va: u64| va >> span_shift(3);
        let shares_slot = slot(va) <= slot(self.boot_tables.last) && slot(end - 1) >= slot(self.boot.va);
        if !va.is_multiple_of(PAGE) || !guest_range(va, end) || shares_slot {
            return Err(bad);
        }
        let tables = Tables::new(va, end - 1, self.required_pages);
        self.first_p2m_pfn = Pfn(self.required_pages);
        self.nr_p2m_frames = tables.count() + p2m_pages;
        self.p2m = P2m { va, pfn: Pfn(self.required_pages + tables.count()), pages: p2m_pages };
        self.p2m_tables = Some(tables);
        self.required_pages += self.nr_p2m_frames;
        Ok(())
    }

    /// Returns where the stack pointer starts.
    pub const fn stack_pointer(&self) -> u64 {
        self.stack.end()
    }
}

/// The boot mapping while it is laid out.
struct Boot {
    base: u64,
    /// The next free PFN; never above what one L2 table maps.
    next: u64,
}

impl Boot {
    /// Starts with the kernel.
    fn new(notes: &XenNotes) -> Result<(Self, Span), LayoutError> {
        let base = notes.virt_base;
        let next = pages(notes.kernel_end.wrapping_sub(base));
        let first = notes.kernel_start.wrapping_sub(base) / PAGE;
        if next > L2_SPAN / PAGE || first > next {
            return Err(LayoutError::BootMappingTooLarge);
        }
        let kernel = Span { va: base.wrapping_add(first * PAGE), pfn: Pfn(first), pages: next - first };
        Ok((Self { base, next }, kernel))
    }

    fn take(&mut self, pages: u64) -> Result<Span, LayoutError> {
        let span = Span { va: self.base.wrapping_add(self.next * PAGE), pfn: Pfn(self.next), pages };
        self.next = self
            .next
            .checked_add(pages)
            .filter(|next| *next <= L2_SPAN / PAGE)
            .ok_or(LayoutError::BootMappingTooLarge)?;
        Ok(span)
    }

    /// Adds page tables, stack and padding. More tables make the mapping longer and a longer mapping takes more tables: the
    /// smallest number that does is found by trying.
    fn finish(mut self) -> Result<(Span, Span, Span), LayoutError> {
        let rest = self.next;
        for count in 4.. {
            self.next = rest;
            let page_tables = self.take(count)?;
            let stack = self.take(1)?;
            let pages = self.end()?;
            let last = self.base.wrapping_add(pages * PAGE).wrapping_sub(1);
            if Tables::new(self.base, last, 0).count() < count {
                return Ok((page_tables, stack, Span { va: self.base, pfn: Pfn(0), pages }));
            }
        }
        Err(LayoutError::BootMappingTooLarge)
    }

    /// Returns the number of pages with the padding.
    fn end(&self) -> Result<u64, LayoutError> {
        // Addresses from the base on never wrap here except to exactly 0 at the top: computed in 128 bits.
        let used = u128::from(self.base) + u128::from(self.next * PAGE);
        let mut end = used.next_multiple_of(u128::from(ROUND));
        if end - used < u128::from(PADDING) {
            end += u128::from(ROUND);
        }
        let pages = ((end - u128::from(self.base)) / u128::from(PAGE)) as u64;
        // At the very top of the addresses the end is 2^64.
        let last = u64::try_from(end - 1).map_err(|_| LayoutError::BadVirtBase(self.base))?;
        if last == u64::MAX || !guest_range(self.base, last + 1) {
            return Err(LayoutError::BadVirtBase(self.base));
        }
        if self.base >> 30 != last >> 30 {
            return Err(LayoutError::BootMappingTooLarge);
        }
        Ok(pages)
    }
}
