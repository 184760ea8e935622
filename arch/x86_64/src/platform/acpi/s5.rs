// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds the sleep types of "off" in AML bytecode, without an interpreter.
//!
//! Firmware declares them as `Name (_S5_, Package { typ_a, typ_b, ... })`, so the bytes are a name
//! operator, the name, a package operator, and constants.

const NAME_OP: u8 = 0x08;
const PACKAGE_OP: u8 = 0x12;

/// Returns the sleep types for the two PM1 control registers.
pub(super) fn find(aml: &[u8]) -> Option<(u8, u8)> {
    (0..aml.len()).find_map(|at| {
        let rest = aml.get(at..)?.strip_prefix(b"_S5_")?;
        let before = aml.get(..at)?;
        let named = before.ends_with(&[NAME_OP]) || before.ends_with(&[NAME_OP, b'\\']);
        if named { package(rest) } else { None }
    })
}

/// Reads the first two integers of a package.
fn package(aml: &[u8]) -> Option<(u8, u8)> {
    let [PACKAGE_OP, length, rest @ ..] = aml else {
        return None;
    };
    // The top two bits say how many further bytes the length has.
    let [elements, rest @ ..] = rest.get(usize::from(length >> 6)..)? else {
        return None;
    };
    let (a, rest) = integer(rest)?;
    // Some firmware gives one value for both registers.
    let b = if *elements >= 2 { integer(rest)?.0 } else { a };
    (*elements >= 1 && a < 8 && b < 8).then_some((a, b))
}

/// Reads a constant; of a wider one, its low byte, when the rest is zero.
fn integer(aml: &[u8]) -> Option<(u8, &[u8])> {
    let [op, rest @ ..] = aml else { return None };
    let width = match op {
        0x00 => return Some((0, rest)),
        0x01 => return Some((1, rest)),
        0x0a => 1,
        0x0b => 2,
        0x0c => 4,
        0x0e => 8,
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(width)?;
    let [low, high @ ..] = value else { return None };
    high.iter().all(|b| *b == 0).then_some((*low, rest))
}

#[cfg(test)]
mod tests {
    use super::find;

    #[test]
    fn forms() {
        let zeros = *b"xx\x08_S5_\x12\x06\x04\x00\x00\x00\x00";
        assert_eq!(find(&zeros), Some((0, 0)));
        let bytes = *b"\x08\\_S5_\x12\x0a\x04\x0a\x05\x0a\x07\x0a\x00\x0a\x00";
        assert_eq!(find(&bytes), Some((5, 7)));
        let long = *b"\x08_S5_\x12\x47\x00\x02\x0b\x03\x00\x01";
        assert_eq!(find(&long), Some((3, 1)));
        let one = *b"\x08_S5_\x12\x03\x01\x01";
        assert_eq!(find(&one), Some((1, 1)));
        // A mention that is no declaration, then the declaration.
        let later = *b"_S5_\x08_S5_\x12\x06\x02\x01\x00";
        assert_eq!(find(&later), Some((1, 0)));
    }

    #[test]
    fn broken() {
        let whole = *b"\x08_S5_\x12\x0a\x04\x0a\x05\x0a\x07";
        for len in 0..whole.len() {
            assert_eq!(find(&whole[..len]), None, "{len} bytes");
        }
        assert_eq!(find(b"\x08_S5_\x12\x0a\x04\x0a\x55\x0a\x07"), None);
        assert_eq!(find(b"\x08_S5_\x12\xff\x04"), None);
    }
}
