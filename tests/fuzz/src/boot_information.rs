// SPDX-License-Identifier: MIT OR Apache-2.0
//! The block that a multiboot2 loader leaves.

use boot::info::{BootInfo, MAX_LINE};
use boot::memory_map::{RegionKind, usable_bytes};
use boot::modules;

/// The bytes are the tags of a block, whose header is made for them.
pub fn run(bytes: &[u8]) {
    let mut block = ((bytes.len() + 8) as u32).to_le_bytes().to_vec();
    block.extend([0; 4]);
    block.extend(bytes);
    let mut info = Box::new(BootInfo::new());
    let parsed = info.parse(multiboot2::MAGIC, &block);
    let ordered = info.memory.windows(2).all(|pair| pair[0].end <= pair[1].start);
    assert!(ordered && info.memory.iter().all(|region| region.start < region.end), "{:?}", info.memory);
    assert!(info.cmdline().len() <= MAX_LINE && info.loader().len() <= MAX_LINE);
    for module in &info.modules {
        assert!(module.start <= module.end);
        let line = info.module_cmdline(module);
        assert!(info.dom0_cmdline(module).starts_with(line));
    }
    info.warnings.iter().for_each(|warning| assert!(!warning.to_string().is_empty()));
    if parsed.is_ok() {
        assert_ne!(usable_bytes(&info.memory), 0);
        // A page for the trampoline is free memory and nothing else.
        let taken = 0x8000..0x9001;
        if let Some(page) = info.low_page(std::slice::from_ref(&taken)) {
            let clash = |start: u64, end: u64| start < page + 4096 && page < end;
            assert!(page != 0 && !clash(taken.start, taken.end));
            assert!(!info.modules.iter().any(|module| clash(module.start, module.end)));
            let whole = |start: u64, end: u64| start <= page && page + 4096 <= end;
            assert!(info.memory.iter().any(|r| r.kind == RegionKind::Usable && whole(r.start, r.end)));
        }
    }
    let _ = modules::identify(bytes);
}
