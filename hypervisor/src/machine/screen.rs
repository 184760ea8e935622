// SPDX-License-Identifier: MIT OR Apache-2.0
//! The screen that the loader left: messages appear on it until dom0 starts, which is told what it is.
#![expect(unsafe_code, reason = "takes over the screen's memory")]

use arch::platform::screen::{self, Kind, Mode};
use boot::BootInfo;
use boot::info::{Framebuffer, Pixels};
use hypercalls::start_info::{VgaConsoleInfo, XEN_VGATYPE_EFI_LFB, XEN_VGATYPE_VESA_LFB};
use hypervisor::console;

use super::memory;

/// Lines of a character of VGA text mode.
const FONT_HEIGHT: u16 = 16;

fn mode(left: &Framebuffer) -> Option<Mode> {
    let kind = match left.pixels {
        Pixels::Text => Kind::Text,
        Pixels::Rgb(colours) => Kind::Pixels(left.bits.div_ceil(8), colours),
        Pixels::Indexed => return None,
    };
    let mode = Mode { pitch: left.pitch as usize, width: left.width as usize, height: left.height as usize, kind };
    mode.size().map(|_| mode)
}

/// Shows messages on the screen from now on, those that were kept first.
pub(super) fn take(info: &BootInfo) {
    let Some(left) = &info.framebuffer else {
        return log::debug!("screen: the loader names none");
    };
    let Some(mode) = mode(left) else {
        return log::warn!("screen: {left:?} cannot be written to; messages appear on the serial line only");
    };
    let memory = memory::map_uncached(left.maddr, mode.size().unwrap_or(0));
    if memory.is_null() {
        return log::warn!("screen: no memory for its page tables");
    }
    // SAFETY: just mapped, uncached, for ever; nobody writes there until dom0 runs, when it is released.
    unsafe { screen::init(memory, mode) };
    console::show_on(Some(screen::write));
    log::info!("screen: {} x {} at {:#x}", left.width, left.height, left.maddr);
}

/// Leaves the screen to dom0.
pub(super) fn release() {
    console::show_on(None);
    screen::release();
}

/// What dom0 is told of the screen.
pub(super) fn for_dom0(info: &BootInfo) -> Option<VgaConsoleInfo> {
    let left = info.framebuffer.as_ref()?;
    let small = |n: u32| u16::try_from(n).ok();
    let (width, height) = (small(left.width)?, small(left.height)?);
    let colours = match left.pixels {
        Pixels::Text => {
            let cursor = screen::cursor();
            let columns = width.max(1);
            return Some(VgaConsoleInfo::text(FONT_HEIGHT, (cursor % columns, cursor / columns), height, columns));
        }
        Pixels::Rgb(colours) => colours,
        Pixels::Indexed => [(0, 0); 3],
    };
    let [(red_pos, red_size), (green_pos, green_size), (blue_pos, blue_size)] = colours;
    let used = red_size.saturating_add(green_size).saturating_add(blue_size);
    let size = u64::from(left.pitch) * u64::from(left.height);
    Some(VgaConsoleInfo {
        video_type: if info.efi.is_some() { XEN_VGATYPE_EFI_LFB } else { XEN_VGATYPE_VESA_LFB },
        width,
        height,
        bytes_per_line: small(left.pitch)?,
        bits_per_pixel: u16::from(left.bits),
        lfb_base: left.maddr as u32,
        lfb_size: u32::try_from(size.div_ceil(64 << 10)).ok()?,
        red_pos,
        red_size,
        green_pos,
        green_size,
        blue_pos,
        blue_size,
        rsvd_pos: used,
        rsvd_size: left.bits.saturating_sub(used),
        gbl_caps: VgaConsoleInfo::CAPABILITY_64BIT_BASE,
        ext_lfb_base: (left.maddr >> 32) as u32,
        ..VgaConsoleInfo::default()
    })
}
