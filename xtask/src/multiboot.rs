// SPDX-License-Identifier: MIT OR Apache-2.0
//! The multiboot2 header as a loader looks for it: within the first 32 KiB, 8-byte aligned, checksum zero.

use anyhow::{Result, bail, ensure};

const MAGIC: u32 = 0xe852_50d6;
const SEARCH: usize = 32 << 10;

/// Finds the header and returns its offset.
///
/// # Errors
/// If no header with a right checksum lies where a loader searches.
pub(crate) fn find_header(image: &[u8]) -> Result<usize> {
    let searched = &image[..image.len().min(SEARCH)];
    for offset in (0..searched.len().saturating_sub(15)).step_by(8) {
        let word = |index: usize| {
            let at = offset + 4 * index;
            u32::from_le_bytes([searched[at], searched[at + 1], searched[at + 2], searched[at + 3]])
        };
        if word(0) != MAGIC {
            continue;
        }
        let sum = (0..4).fold(0u32, |sum, index| sum.wrapping_add(word(index)));
        ensure!(sum == 0, "the multiboot2 header at {offset:#x} has a wrong checksum");
        ensure!(
            offset + word(2) as usize <= SEARCH,
            "the multiboot2 header at {offset:#x} reaches beyond the first 32 KiB"
        );
        return Ok(offset);
    }
    bail!("no multiboot2 header in the first 32 KiB");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(offset: usize, checksum_error: u32) -> Vec<u8> {
        let mut image = vec![0; 64 << 10];
        let length = 24u32;
        let checksum = 0u32.wrapping_sub(MAGIC).wrapping_sub(length).wrapping_add(checksum_error);
        for (index, word) in [MAGIC, 0, length, checksum].into_iter().enumerate() {
            let at = offset + 4 * index;
            image[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        image
    }

    #[test]
    fn a_header_is_found_where_loaders_look() {
        assert_eq!(find_header(&image(0x1000, 0)).ok(), Some(0x1000));
    }

    #[test]
    fn a_header_too_late_is_refused() {
        assert!(find_header(&image(SEARCH, 0)).is_err());
        assert!(find_header(&image(SEARCH - 16, 0)).is_err());
    }

    #[test]
    fn a_wrong_checksum_is_refused() {
        assert!(find_header(&image(0x40, 1)).is_err());
    }

    #[test]
    fn a_short_file_is_refused() {
        assert!(find_header(&[]).is_err());
        assert!(find_header(&MAGIC.to_le_bytes()).is_err());
    }
}
