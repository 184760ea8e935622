// SPDX-License-Identifier: MIT OR Apache-2.0
//! The first instructions, the ELF notes, and what is set up before a guest's `main`.

use crate::{events, report, start, trap, vcpu};

core::arch::global_asm!(
    // Entry as the PV ABI has it: RSI holds the start_info's address, the stack is the builder's.
    // Called with nothing set up; never returns.
    ".pushsection .text.entry, \"ax\"",
    ".globl _start",
    "_start:",
    "cld",
    "lea rsp, [rip + pv_boot_stack + {size}]",
    "xor ebp, ebp",
    "mov rdi, rsi",
    "call {begin}",
    "ud2",
    ".popsection",
    ".pushsection .bss.stack, \"aw\", @nobits",
    ".balign {size}",
    ".globl pv_boot_stack",
    "pv_boot_stack: .skip {size}",
    ".popsection",
    size = const vcpu::STACK_SIZE,
    begin = sym begin,
);

unsafe extern "Rust" {
    /// The guest's main function, named by [`crate::guest!`].
    safe fn pv_main();
}

/// Sets up traps, callbacks and the shared info page, runs the guest and reports.
extern "C" fn begin(start_info: u64) -> ! {
    start::init(start_info);
    vcpu::current().id.set(0);
    trap::install();
    events::map_shared_info();
    pv_main();
    report::finish()
}

/// Names a guest's main function and its ELF notes.
///
/// `guest!(main)` gives the notes every guest has; `guest!(main, hypercall_page)` adds a hypercall page (at the symbol
/// `pv_hypercall_page`); `guest!(main, init_p2m)` asks for the P2M at [`crate::abi::INIT_P2M`] and leaves the initial
/// RAM disk unmapped, as Linux does. Both may be given.
#[macro_export]
macro_rules! guest {
    ($main:path $(, $option:ident)*) => {
        #[unsafe(no_mangle)]
        extern "Rust" fn pv_main() {
            $main()
        }
        $crate::note!(1, ".quad _start");
        $crate::note!(3, ".quad 0xffffffff80000000");
        $crate::note!(4, ".quad 0");
        $crate::note!(5, ".asciz \"xen-3.0\"");
        $crate::note!(6, ".asciz \"pvtest\"");
        $crate::note!(7, ".asciz \"1\"");
        $crate::note!(8, ".asciz \"generic\"");
        $crate::note!(9, ".asciz \"yes\"");
        $crate::note!(10, ".asciz \"!writable_page_tables|pae_pgdir_above_4gb\"");
        $crate::note!(12, ".quad 0xffff800000000000");
        $crate::note!(13, ".quad 1, 1");
        $crate::note!(17, ".long 0x8801");
        $($crate::guest!(@$option);)*
    };
    (@hypercall_page) => {
        $crate::note!(2, ".quad pv_hypercall_page");
        core::arch::global_asm!(
            ".pushsection .hypercall_page, \"ax\"",
            ".balign 4096",
            ".globl pv_hypercall_page",
            "pv_hypercall_page: .skip 4096",
            ".popsection",
        );
    };
    (@init_p2m) => {
        $crate::note!(15, ".quad 0x0000008000000000");
        $crate::note!(16, ".quad 1");
    };
}

/// Emits one ELF note named `Xen`.
#[macro_export]
macro_rules! note {
    ($kind:literal, $content:literal) => {
        core::arch::global_asm!(
            ".pushsection .note.Xen, \"a\", @note",
            ".balign 4",
            ".long 4, 7772f - 7771f",
            concat!(".long ", $kind),
            ".asciz \"Xen\"",
            "7771:",
            $content,
            "7772:",
            ".balign 4",
            ".popsection",
        );
    };
}
