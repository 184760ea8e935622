// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lines that wait to be printed: of fixed size, because a dump must not need memory.

use arrayvec::ArrayString;
use core::fmt;

/// What one step may write.
const ROOM: usize = 4 << 10;

/// Lines on their way to the console. What does not fit is cut, and dots say so.
#[derive(Debug)]
pub struct Text {
    text: ArrayString<{ ROOM + 4 }>,
    printed: usize,
    is_cut: bool,
}

impl Text {
    pub(crate) const fn new() -> Self {
        Self { text: ArrayString::new_const(), printed: 0, is_cut: false }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Takes the next line out; forgets everything behind the last one.
    pub(crate) fn next_line(&mut self) -> Option<&str> {
        let rest = self.text.get(self.printed..).unwrap_or("");
        let Some(line) = rest.lines().next() else {
            *self = Self::new();
            return None;
        };
        let end = (self.printed + line.len() + 1).min(self.text.len());
        let start = core::mem::replace(&mut self.printed, end);
        self.text.get(start..start + line.len())
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        if self.is_cut {
            return Ok(());
        }
        let mut fits = s.len().min(ROOM - self.text.len().min(ROOM));
        while !s.is_char_boundary(fits) {
            fits -= 1;
        }
        self.text.push_str(s.get(..fits).unwrap_or(""));
        if fits < s.len() {
            self.text.push_str(" ...");
            self.is_cut = true;
        }
        Ok(())
    }
}

/// Writes a line; a [`Text`] takes everything.
macro_rules! line {
    ($to:expr, $($arg:tt)*) => {{
        let _ = writeln!($to, $($arg)*);
    }};
}

/// Writes a part of a line.
macro_rules! part {
    ($to:expr, $($arg:tt)*) => {{
        let _ = write!($to, $($arg)*);
    }};
}

pub(crate) use {line, part};

#[cfg(test)]
mod tests {
    use super::*;
    use core::fmt::Write as _;

    #[test]
    fn lines_come_out_one_by_one() {
        let mut text = Text::new();
        line!(text, "one");
        line!(text, "");
        part!(text, "three");
        assert_eq!(text.next_line(), Some("one"));
        assert_eq!(text.next_line(), Some(""));
        assert_eq!(text.next_line(), Some("three"));
        assert_eq!(text.next_line(), None);
        assert!(text.is_empty());
    }

    #[test]
    fn too_much_is_cut() {
        let mut text = Text::new();
        for n in 0..ROOM {
            line!(text, "häßlich {n}");
        }
        let mut last = std::string::String::new();
        while let Some(line) = text.next_line() {
            last = line.into();
        }
        assert!(last.ends_with(" ..."), "{last}");
        line!(text, "again");
        assert_eq!(text.next_line(), Some("again"));
    }
}
