// SPDX-License-Identifier: MIT OR Apache-2.0
//! The screen as the loader left it, text or pixels: shows messages until dom0 takes it over.
//!
//! What is shown is kept as characters too, so that scrolling never reads the slow memory of the device: at the last line
//! the lower half moves up at once. A line that is too long goes on in the next one.
#![expect(unsafe_code, reason = "writes to the memory of the screen")]

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};
use spin::mutex::Mutex;

use super::port;
use crate::sync::Relax;

/// The most characters of a line, and lines, that are used.
const COLUMNS: usize = 160;
const LINES: usize = 68;
const WEIGHT: FontWeight = FontWeight::Regular;
const HEIGHT: RasterHeight = RasterHeight::Size16;
const CELL: (usize, usize) = (get_raster_width(WEIGHT, HEIGHT), HEIGHT.val());
/// Light grey on black, in text mode.
const ATTRIBUTE: u16 = 0x07 << 8;
/// The VGA's CRT controller: index port, and the register of the cursor's place (high byte first).
const CRTC: u16 = 0x3d4;
const CURSOR: u8 = 0x0e;

/// What the memory of the screen means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Characters with attributes, two bytes each.
    Text,
    /// Pixels of this many bytes (2 to 4); where red, green and blue are in them, as (position, width) in bits.
    Pixels(u8, [(u8, u8); 3]),
}

/// A screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// Bytes a line.
    pub pitch: usize,
    /// Characters or pixels a line.
    pub width: usize,
    /// Lines of them.
    pub height: usize,
    /// What its memory means.
    pub kind: Kind,
}

impl Mode {
    /// How many bytes of memory it has; `None` for a screen that cannot be written to.
    pub fn size(&self) -> Option<usize> {
        let bytes = match self.kind {
            Kind::Text => 2,
            Kind::Pixels(bytes @ 2..=4, _) => usize::from(bytes),
            Kind::Pixels(..) => return None,
        };
        let (columns, lines) = self.cells();
        let fits = self.width.checked_mul(bytes)? <= self.pitch && columns > 0 && lines > 1;
        self.pitch.checked_mul(self.height).filter(|_| fits)
    }

    /// Characters a line, and lines, that are used.
    fn cells(&self) -> (usize, usize) {
        let (wide, high) = if self.kind == Kind::Text { (1, 1) } else { CELL };
        ((self.width / wide).min(COLUMNS), (self.height / high).min(LINES))
    }
}

/// The number that shows a grey of this brightness.
fn grey(brightness: u8, colours: [(u8, u8); 3]) -> u32 {
    let part = |(position, width): (u8, u8)| {
        let level = u32::from(brightness) >> (8 - width.min(8));
        level.checked_shl(u32::from(position)).unwrap_or(0)
    };
    colours.map(part).iter().fold(0, |all, part| all | part)
}

struct Screen {
    /// Where its memory is mapped.
    memory: usize,
    mode: Mode,
    cells: [[u8; COLUMNS]; LINES],
    column: usize,
    line: usize,
}

static SCREEN: Mutex<Option<Screen>, Relax> = Mutex::new(None);

impl Screen {
    /// Writes bytes into the memory of the screen.
    fn store(&self, offset: usize, bytes: &[u8]) {
        debug_assert!(offset + bytes.len() <= self.mode.pitch * self.mode.height);
        for (index, byte) in bytes.iter().enumerate() {
            // SAFETY: `init`'s caller promised that much memory of a screen; `offset` follows from a cell within it.
            unsafe { ((self.memory + offset + index) as *mut u8).write_volatile(*byte) };
        }
    }

    fn draw(&self, line: usize, column: usize) {
        let character = self.cells[line][column];
        match self.mode.kind {
            Kind::Text => {
                self.store(line * self.mode.pitch + 2 * column, &(u16::from(character) | ATTRIBUTE).to_le_bytes());
            }
            Kind::Pixels(bytes, colours) => {
                let raster = get_raster(char::from(character), WEIGHT, HEIGHT);
                for y in 0..CELL.1 {
                    let row = raster.as_ref().and_then(|raster| raster.raster().get(y).copied());
                    for x in 0..CELL.0 {
                        let brightness = row.and_then(|row| row.get(x).copied()).unwrap_or(0);
                        let at = (line * CELL.1 + y) * self.mode.pitch + (column * CELL.0 + x) * usize::from(bytes);
                        self.store(at, &grey(brightness, colours).to_le_bytes()[..usize::from(bytes)]);
                    }
                }
            }
        }
    }

    fn set(&mut self, line: usize, column: usize, character: u8) {
        if core::mem::replace(&mut self.cells[line][column], character) != character {
            self.draw(line, column);
        }
    }

    /// Begins a new line.
    fn feed(&mut self) {
        let (columns, lines) = self.mode.cells();
        self.column = 0;
        self.line += 1;
        if self.line < lines {
            return;
        }
        let up = lines / 2;
        for line in 0..lines {
            for column in 0..columns {
                let below = if line + up < lines { self.cells[line + up][column] } else { b' ' };
                self.set(line, column, below);
            }
        }
        self.line = lines - up;
    }

    fn put(&mut self, byte: u8) {
        match byte {
            b'\n' => return self.feed(),
            b'\r' => return self.column = 0,
            _ => {}
        }
        if self.column == self.mode.cells().0 {
            self.feed();
        }
        let shown = if (b' '..=b'~').contains(&byte) { byte } else { b'?' };
        self.set(self.line, self.column, shown);
        self.column += 1;
    }
}

/// Clears the screen; what is written from now on appears there.
///
/// # Safety
/// `memory` is where [`Mode::size`] bytes of the screen's memory are mapped, for ever, and nobody else writes there until
/// [`release`].
pub unsafe fn init(memory: *mut u8, mode: Mode) {
    if mode.size().is_none() {
        return;
    }
    // No cell holds a zero afterwards, so each is drawn now.
    let mut screen = Screen { memory: memory as usize, mode, cells: [[0; COLUMNS]; LINES], column: 0, line: 0 };
    let (columns, lines) = mode.cells();
    for cell in 0..columns * lines {
        screen.set(cell / columns, cell % columns, b' ');
    }
    *SCREEN.lock() = Some(screen);
}

/// Shows text; nothing while there is no screen.
pub fn write(text: &[u8]) {
    if let Some(screen) = SCREEN.lock().as_mut() {
        text.iter().for_each(|byte| screen.put(*byte));
    }
}

/// Leaves the screen to somebody else, with the cursor of text mode behind the last character.
pub fn release() {
    let Some(screen) = SCREEN.lock().take() else { return };
    if screen.mode.kind == Kind::Text {
        let place = (screen.line * screen.mode.width + screen.column) as u16;
        for (index, byte) in (CURSOR..).zip(place.to_be_bytes()) {
            // SAFETY: the cursor's registers of the VGA that shows text.
            unsafe {
                port::write8(CRTC, index);
                port::write8(CRTC + 1, byte);
            }
        }
    }
}

/// Returns the cursor's place in text mode, in characters from the screen's start.
pub fn cursor() -> u16 {
    // SAFETY: as in `release`; reading changes nothing but which register is looked at.
    let byte = |index| unsafe {
        port::write8(CRTC, index);
        port::read8(CRTC + 1)
    };
    u16::from_be_bytes([byte(CURSOR), byte(CURSOR + 1)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(memory: &[u8], width: usize) -> Vec<String> {
        let line =
            |line: &[u8]| line.chunks(2).map(|cell| char::from(cell[0])).collect::<String>().trim_end().to_owned();
        memory.chunks(2 * width).map(line).collect()
    }

    #[test]
    fn text_scrolls_by_half_a_screen_and_pixels_show_characters() {
        let mode = Mode { pitch: 20, width: 10, height: 4, kind: Kind::Text };
        let mut memory = vec![0xffu8; mode.size().expect("usable")];
        // SAFETY: the memory outlives what is written below.
        unsafe { init(memory.as_mut_ptr(), mode) };
        write(b"one\r\ntwo\n0123456789abc\nfour\n\xc3");
        assert_eq!(text_of(&memory, 10), ["0123456789", "abc", "four", "?"]);
        let before = memory.clone();

        let colours = [(16, 8), (8, 8), (0, 8)];
        let mode = Mode { pitch: 40 * 4, width: 40, height: 40, kind: Kind::Pixels(4, colours) };
        let mut pixels = vec![0xffu8; mode.size().expect("usable")];
        // SAFETY: as above.
        unsafe { init(pixels.as_mut_ptr(), mode) };
        assert!(pixels[..CELL.0 * 4].iter().all(|byte| *byte == 0), "cleared");
        write(b" X");
        let bright = |cell: usize| {
            let pixel = |x: usize, y: usize| pixels[y * 160 + x * 4];
            (0..CELL.1).any(|y| (cell * CELL.0..(cell + 1) * CELL.0).any(|x| pixel(x, y) > 0x80))
        };
        assert_eq!([bright(0), bright(1), bright(2)], [false, true, false]);
        assert_eq!(memory, before, "the old screen is left alone");
        *SCREEN.lock() = None;
    }

    #[test]
    fn what_cannot_be_written_to_is_refused() {
        let text = Mode { pitch: 160, width: 80, height: 25, kind: Kind::Text };
        assert_eq!(text.size(), Some(4000));
        assert_eq!(Mode { width: 81, ..text }.size(), None, "lines overlap");
        assert_eq!(Mode { height: 1, ..text }.size(), None);
        let pixels = Mode { pitch: 4096, width: 1024, height: 768, kind: Kind::Pixels(4, [(0, 8); 3]) };
        assert_eq!(pixels.size(), Some(4096 * 768));
        assert_eq!(Mode { kind: Kind::Pixels(1, [(0, 8); 3]), ..pixels }.size(), None);
        assert_eq!(Mode { pitch: usize::MAX, ..pixels }.size(), None);
    }

    #[test]
    fn greys_fill_each_colour() {
        assert_eq!(grey(0xff, [(11, 5), (5, 6), (0, 5)]), 0xffff);
        assert_eq!(grey(0x80, [(16, 8), (8, 8), (0, 8)]), 0x80_8080);
        assert_eq!(grey(0xff, [(40, 8), (0, 8), (0, 12)]), 0xff, "positions beyond the pixel are ignored");
    }
}
