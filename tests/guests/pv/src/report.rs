// SPDX-License-Identifier: MIT OR Apache-2.0
//! The report: one line a check, and the count at the end.

use crate::abi::nr;
use crate::hypercall::hypercall2;
use crate::println;
use core::fmt;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU32, Ordering};

static PASSED: AtomicU32 = AtomicU32::new(0);
static FAILED: AtomicU32 = AtomicU32::new(0);

/// Reports one check; `details` are printed when it failed.
pub fn check(name: fmt::Arguments<'_>, passed: bool, details: fmt::Arguments<'_>) {
    if passed {
        PASSED.fetch_add(1, Ordering::Relaxed);
        println!("ok {name}");
    } else {
        FAILED.fetch_add(1, Ordering::Relaxed);
        println!("not ok {name}: {details}");
    }
}

/// Reports a check that cannot be made here.
pub fn skip(name: &str, why: &str) {
    println!("skip {name}: {why}");
}

/// Prints the count and powers the machine off.
///
/// The C hypervisor halts instead of switching off when it has no ACPI; a runner ends the machine at the `done` line.
pub fn finish() -> ! {
    println!("done {} {}", PASSED.load(Ordering::Relaxed), FAILED.load(Ordering::Relaxed));
    loop {
        // SCHEDOP_shutdown with SHUTDOWN_poweroff.
        let reason = 0u32;
        let _ = hypercall2(nr::SCHED_OP, 2, &raw const reason as u64);
    }
}

/// Ends the guest with one failed check more.
pub fn abort(name: &str, details: fmt::Arguments<'_>) -> ! {
    check(format_args!("{name}"), false, details);
    finish()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    abort("panic", format_args!("{info}"))
}

/// Checks a condition: `check!("name", condition)` or `check!("name", condition, "details {}", x)`.
///
/// The name may be a literal or `[format, arguments]`.
#[macro_export]
macro_rules! check {
    ([$($name:tt)+], $condition:expr) => {
        $crate::report::check(format_args!($($name)+), $condition, format_args!("{}", stringify!($condition)))
    };
    ([$($name:tt)+], $condition:expr, $($details:tt)+) => {
        $crate::report::check(format_args!($($name)+), $condition, format_args!($($details)+))
    };
    ($name:literal, $($rest:tt)+) => { $crate::check!([$name], $($rest)+) };
}

/// Checks that two numbers are equal.
#[macro_export]
macro_rules! equal {
    ([$($name:tt)+], $got:expr, $want:expr $(,)?) => {{
        let (got, want) = ($got, $want);
        $crate::report::check(
            format_args!($($name)+),
            got == want,
            format_args!("got {got:#x}, expected {want:#x}"),
        )
    }};
    ($name:literal, $got:expr, $want:expr $(,)?) => { $crate::equal!([$name], $got, $want) };
}

/// Checks that a hypercall gave this error, or 0: `errno!("name", result, EINVAL)`, `errno!("name", result, 0)`.
#[macro_export]
macro_rules! errno {
    ([$($name:tt)+], $got:expr, 0) => {{
        let got: i64 = $got;
        $crate::report::check(format_args!($($name)+), got == 0, format_args!("got {got}, expected 0"))
    }};
    ([$($name:tt)+], $got:expr, $want:ident) => {{
        let got: i64 = $got;
        $crate::report::check(
            format_args!($($name)+),
            got == $crate::Errno::$want.to_ret(),
            format_args!("got {got}, expected -{}", stringify!($want)),
        )
    }};
    ($name:literal, $got:expr, $want:tt) => { $crate::errno!([$name], $got, $want) };
}
