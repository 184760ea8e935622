// SPDX-License-Identifier: MIT OR Apache-2.0
//! The hypercall page: 128 stubs of 32 bytes for kernels that call instead of executing SYSCALL themselves.

use hypercalls::{Errno, Mfn, PAGE_SIZE, Result};
use mm::WritableRef;

use crate::domain::Domain;
use crate::shared;

const STUB: usize = 32;
const IRET: u32 = 23;

/// Returns the code of one stub, padded with INT3.
fn stub(number: u32) -> [u8; STUB] {
    let mut code = [0xcc; STUB];
    let [a, b, c, d] = number.to_le_bytes();
    let text: &[u8] = if number == IRET {
        // push rcx; push r11; push rax; mov eax, 23; syscall: does not return
        &[0x51, 0x41, 0x53, 0x50, 0xb8, a, b, c, d, 0x0f, 0x05]
    } else {
        // push rcx; push r11; mov eax, number; syscall; pop r11; pop rcx; ret
        &[0x51, 0x41, 0x53, 0xb8, a, b, c, d, 0x0f, 0x05, 0x41, 0x5b, 0x59, 0xc3]
    };
    for (to, from) in code.iter_mut().zip(text) {
        *to = *from;
    }
    code
}

/// Returns the page.
pub fn page() -> [u8; PAGE_SIZE] {
    let mut page = [0; PAGE_SIZE];
    for (number, slot) in (0u32..).zip(page.chunks_exact_mut(STUB)) {
        slot.copy_from_slice(&stub(number));
    }
    page
}

/// Writes the page into a frame of a domain's.
///
/// # Errors
/// `EINVAL` when the domain cannot write the frame itself.
pub fn fill(domain: &Domain, mfn: Mfn) -> Result<()> {
    let frame = WritableRef::get(mfn, domain.id).map_err(|_| Errno::EINVAL)?;
    let view = shared::of_guest(&frame, 0);
    for (index, word) in page().chunks_exact(8).enumerate() {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(word);
        view.u64(index * 8).store(u64::from_le_bytes(bytes), core::sync::atomic::Ordering::Relaxed);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stub_loads_its_number_and_iret_does_not_return() {
        let page = page();
        assert_eq!(page[17 * 32..17 * 32 + 14], *b"\x51\x41\x53\xb8\x11\0\0\0\x0f\x05\x41\x5b\x59\xc3");
        assert_eq!(page[23 * 32..23 * 32 + 12], *b"\x51\x41\x53\x50\xb8\x17\0\0\0\x0f\x05\xcc");
    }
}
