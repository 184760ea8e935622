// SPDX-License-Identifier: MIT OR Apache-2.0
//! The page a PV domain is started with.

use super::layout::Layout;
use super::notes::XenNotes;
use hypercalls::start_info::{
    MAGIC, MAX_GUEST_CMDLINE, SIF_INITDOMAIN, SIF_MOD_START_PFN, SIF_PRIVILEGED, StartInfo, StartInfoConsole,
    VgaConsoleInfo,
};
use hypercalls::{Maddr, Mfn};

/// Where in the page the description of the screen lies.
pub const SCREEN: usize = size_of::<StartInfo>();

/// What a domain is in the machine, as far as it is told at its start.
#[derive(Clone, Copy, Debug)]
pub enum Role {
    /// It drives the devices, and has a screen if there is one: the description lies at [`SCREEN`].
    Dom0(Option<VgaConsoleInfo>),
    /// It has nothing but a console.
    Guest(StartInfoConsole),
}

/// Returns the start information of a domain.
///
/// The command line is what [`Layout::compute`] was told the length of; a longer one is cut.
pub fn page(layout: &Layout, notes: &XenNotes, shared_info: Maddr, cmdline: &[u8], role: &Role) -> StartInfo {
    let mut magic = [0; 32];
    magic[..MAGIC.len()].copy_from_slice(MAGIC);
    if notes.extended_cr3 {
        magic[MAGIC.len()] = b'p';
    }
    let mut cmd_line = [0; MAX_GUEST_CMDLINE];
    for (to, from) in cmd_line[..MAX_GUEST_CMDLINE - 1].iter_mut().zip(cmdline) {
        *to = *from;
    }
    let (console, mut flags) = match role {
        Role::Dom0(screen) => {
            let (offset, size) = screen.map_or((0, 0), |_| (SCREEN as u32, size_of::<VgaConsoleInfo>() as u32));
            (StartInfoConsole::dom0(offset, size), SIF_PRIVILEGED | SIF_INITDOMAIN)
        }
        Role::Guest(console) => (*console, 0),
    };
    let (mut mod_start, mut mod_len) = (0, 0);
    if let Some(initrd) = layout.initrd {
        mod_len = initrd.bytes;
        mod_start = initrd.va.unwrap_or(initrd.pfn.0);
        if initrd.va.is_none() {
            flags |= SIF_MOD_START_PFN;
        }
    }
    StartInfo {
        magic,
        nr_pages: layout.nr_pages,
        shared_info,
        flags,
        _pad0: 0,
        store_mfn: Mfn(0),
        store_evtchn: 0,
        _pad1: 0,
        console,
        pt_base: layout.page_tables.va,
        nr_pt_frames: layout.page_tables.pages,
        mfn_list: layout.p2m.va,
        mod_start,
        mod_len,
        cmd_line,
        first_p2m_pfn: layout.first_p2m_pfn,
        nr_p2m_frames: layout.nr_p2m_frames,
    }
}
