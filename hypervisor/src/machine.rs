// SPDX-License-Identifier: MIT OR Apache-2.0
//! The start of the machine, and the functions that the entry stubs call.
//!
//! Two halves. [`xenith_start`] runs on the loader's terms: it reads what the loader left, makes page tables for
//! all memory and moves onto them. [`on_own_tables`] goes on from there with allocators and a heap: devices, the other
//! CPUs, dom0.
#![expect(unsafe_code, reason = "entry points called from assembly, and the machine's hand-over")]

mod devices;
mod dom0;
mod firmware;
mod memory;
mod processors;
mod screen;
mod static_domains;

use arch::Regs;
use boot::options::{Failure, Options, Sharing};
use boot::{BootInfo, options};
use hypercalls::HypercallNr;
use hypervisor::dispatch::{HANDLERS, Handler};
use hypervisor::{console, crash, interrupts, keys, panic, schedule, traps};
use spin::{Mutex, Once};

#[global_allocator]
static HEAP: mm::Heap = mm::Heap::new();

/// What the loader left. Written once, by the boot CPU.
static INFO: Mutex<BootInfo> = Mutex::new(BootInfo::new());
static OPTIONS: Once<Options> = Once::new();

fn command_line_options() -> &'static Options {
    OPTIONS.get().expect("the options are read before anything asks for them")
}

/// The version and the commit, as the banner and the tools show them.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Ends the boot with a message: there is nothing to run.
fn give_up(what: core::fmt::Arguments<'_>) -> ! {
    log::error!("{what}");
    log::error!("the machine is halted");
    console::flush();
    arch::machine::halt()
}

/// Reads the command line, sets the console up by it, and says what is started and what is wrong with the line.
fn read_options(info: &BootInfo) {
    let (parsed, complaints) = options::parse(info.cmdline());
    let parsed = OPTIONS.call_once(|| parsed);
    devices::configured_console(parsed);
    log::info!("Xenith {VERSION} ({})", hypervisor::ops::version::COMMIT);
    log::info!("loader: {}", info.loader());
    log::info!("command line: {}", info.cmdline());
    crash::NO_REBOOT.store(parsed.noreboot, core::sync::atomic::Ordering::Relaxed);
    for complaint in &complaints.list {
        if complaint.is_error() {
            log::error!("{complaint}");
        } else {
            log::warn!("{complaint}");
        }
    }
    for warning in &info.warnings {
        log::warn!("{warning}");
    }
}

/// From assembly, in the state that `boot::entry` describes.
#[unsafe(no_mangle)]
extern "C" fn xenith_start(magic: u32, info_maddr: u32) -> ! {
    arch::platform::clock::mark_boot();
    devices::early_console();
    // SAFETY: the loader's block, which nothing has overwritten yet.
    let bytes = unsafe { boot::entry::info_bytes(info_maddr) };
    let bytes = bytes.unwrap_or_else(|e| give_up(format_args!("the loader's information cannot be read: {e}")));
    let mut info = INFO.lock();
    if let Err(error) = info.parse(magic, bytes) {
        give_up(format_args!("the loader's information cannot be used: {error}"));
    }
    read_options(&info);
    let info_range = u64::from(info_maddr)..u64::from(info_maddr) + bytes.len() as u64;
    if let Err(error) = memory::make_tables(&info, info_range) {
        give_up(format_args!("{error}"));
    }
    drop(info);
    // SAFETY: the only call, on the boot CPU; `make_tables` mapped image, direct map and CPU 0's area.
    unsafe { arch::cpu::enter_boot_cpu(on_own_tables) }
}

extern "C" fn on_own_tables() -> ! {
    memory::start_allocators();
    HEAP.announce();
    devices::complete_console(command_line_options());
    devices::limit_grants(command_line_options());
    keys::HEAP_USAGE.call_once(|| || HEAP.usage());
    let info = INFO.lock();
    if command_line_options().console.vga {
        screen::take(&info);
    }
    firmware::look(&info, command_line_options().efi_services);
    hypervisor::ops::version::COMMAND_LINE.call_once(|| info.cmdline().into());
    let platform = devices::discover(&info);
    hypervisor::mca::init_cpu();
    processors::watch_heat();
    share_cpus(command_line_options());
    processors::start_all(&platform, &info);
    devices::interrupts(&platform);
    devices::config_space(&info, &platform);
    devices::admit_nmi();
    fail_if_asked();
    dom0::prepare(&info);
    let dom0_modules = static_domains::first_module(&info);
    let guests = static_domains::build(&info, dom0_modules);
    let has_dom0 = dom0_modules > 0 || guests.is_empty();
    if has_dom0 && let Err(error) = dom0::build(&info, dom0_modules, &platform) {
        give_up(error);
    }
    drop(info);
    memory::free_modules();
    let (used, size) = HEAP.usage();
    log::info!("{} MiB free, heap {} of {} KiB used", mm::buddy::free_frames() >> 8, used >> 10, size >> 10);
    measure_stack();
    console::start_input(has_dom0, command_line_options().conswitch.to_dom0);
    let first = if has_dom0 { "dom0" } else { "the static domains, with no dom0," };
    log::info!("starting {first} after {} ms", arch::time::now() / 1_000_000);
    if has_dom0 {
        screen::release();
    }
    watch_cpus();
    static_domains::start(&guests);
    schedule::cpu_online(arch::cpu::this_cpu());
    arch::entry::start_running()
}

/// Says how CPUs are shared, before there are any to share.
fn share_cpus(options: &Options) {
    let (kind, name) = match options.sched {
        Sharing::Credit2 => (sched::Kind::Fair, "credit2"),
        Sharing::Null => (sched::Kind::Null, "null"),
    };
    let _ = schedule::set_up(kind);
    log::info!("scheduler: {name}");
}

/// Tells how much stack the work at boot took, which is more than any later: what unpacks a kernel needs most.
fn measure_stack() {
    let (used, size) = (arch::cpu::deepest_stack(arch::cpu::this_cpu()), arch::cpu::STACK_BYTES);
    let [used_kib, size_kib] = [used.div_ceil(1024), size >> 10];
    log::debug!("at most {used_kib} of {size_kib} KiB of the stack used");
    if used > size / 4 * 3 {
        log::warn!("the stack is nearly used up: {used_kib} of {size_kib} KiB");
    }
}

/// Sets the watchdog on all CPUs, now that none works for long any more.
fn watch_cpus() {
    let options = command_line_options();
    if options.watchdog && options.watchdog_timeout != 0 {
        hypervisor::stuck::watch(options.watchdog_timeout);
    }
}

/// Fails where an administrator who tests the report wants it.
fn fail_if_asked() {
    match command_line_options().debug {
        Some(Failure::Panic) => panic!("asked for by debug=panic-at-boot"),
        // SAFETY: never comes back.
        Some(Failure::Trap) => unsafe { core::arch::asm!("ud2", options(noreturn)) },
        Some(Failure::Hang) => {
            watch_cpus();
            loop {
                core::hint::spin_loop();
            }
        }
        None => {}
    }
}

#[panic_handler]
fn panicked(info: &core::panic::PanicInfo<'_>) -> ! {
    panic::report(info)
}

/// What the entry code calls for a hypercall with its arguments in registers.
#[unsafe(no_mangle)]
static XENITH_HANDLERS: [Option<Handler>; HypercallNr::COUNT] = HANDLERS;

/// A hypercall that one of these has cut short.
#[unsafe(no_mangle)]
extern "C" fn xenith_hypercall_again(regs: &mut Regs) {
    if let Some(vcpu) = hypervisor::current::vcpu() {
        hypervisor::dispatch::made_again(vcpu, regs);
    }
}

/// Any other SYSCALL from guest kernel mode.
#[unsafe(no_mangle)]
extern "C" fn xenith_hypercall(regs: &mut Regs) {
    if let Some(vcpu) = hypervisor::current::vcpu() {
        hypervisor::dispatch::hypercall(vcpu, regs);
    }
}

/// SYSCALL from guest user mode.
#[unsafe(no_mangle)]
extern "C" fn xenith_guest_syscall(regs: &mut Regs) {
    traps::guest_syscall(regs);
}

/// An exception that interrupted a guest.
#[unsafe(no_mangle)]
extern "C" fn xenith_guest_exception(regs: &mut Regs) {
    traps::guest_exception(regs);
}

/// A page fault that interrupted a guest; false when all its registers are needed.
#[unsafe(no_mangle)]
extern "C" fn xenith_page_fault(regs: &mut Regs) -> bool {
    traps::page_fault_only(regs)
}

/// A page fault of a guest kernel's write.
#[unsafe(no_mangle)]
extern "C" fn xenith_kernel_write_fault(regs: &mut Regs) {
    traps::kernel_write_fault(regs);
}

/// An exception that interrupted the hypervisor.
#[unsafe(no_mangle)]
extern "C" fn xenith_hypervisor_exception(regs: &mut Regs) -> u32 {
    interrupts::hypervisor_exception(regs) as u32
}

/// An interrupt.
#[unsafe(no_mangle)]
extern "C" fn xenith_interrupt(regs: &mut Regs) {
    interrupts::interrupt(regs);
}

/// An event that is pending for the guest, with nothing else to do.
#[unsafe(no_mangle)]
extern "C" fn xenith_event(regs: &mut Regs) {
    if let Some(vcpu) = hypervisor::current::vcpu() {
        hypervisor::bounce::event(vcpu, regs);
    }
}

/// Work that is due before the return to a guest.
#[unsafe(no_mangle)]
extern "C" fn xenith_exit_work(regs: &mut Regs) {
    traps::exit_work(regs);
}
