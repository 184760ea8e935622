// SPDX-License-Identifier: MIT OR Apache-2.0
//! Compares every structure and number of the crate with what the C compiler makes of the
//! distribution's public headers (package `libxen-dev`). One C program prints all sizes, offsets and
//! values; what differs is listed whole, not one at a time.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use hypercalls::layout::{Codes, Field, Record};

/// A structure's C type, Rust size and fields.
type RecordRow = (&'static str, usize, &'static [Field]);

fn record<T: Record>() -> RecordRow {
    (T::C_NAME, size_of::<T>(), T::FIELDS)
}

macro_rules! records {
    ($($module:ident: $($name:ident),+;)*) => {
        vec![$($(record::<hypercalls::$module::$name>()),+),*]
    };
}

macro_rules! codes {
    ($($module:ident: $($name:ident),+;)*) => {
        [$($(<hypercalls::$module::$name as Codes>::C_NAMES),+),*].concat()
    };
}

fn all_records() -> Vec<RecordRow> {
    records! {
        console: ConsoleRing;
        cpuid: CpuidLeaf, MsrEntry;
        domctl: Domctl;
        domctl_args: Bitmap, ArchDomainConfig, CreateDomain, GetDomainInfo, GetPageFrameInfo3,
            DomctlShadowOp, MaxMem, DomctlVcpuContext, GetVcpuInfo, NodeAffinity, VcpuAffinity,
            MaxVcpus, DomctlSchedulerOp, SetDomainHandle, IrqPermission, IomemPermission,
            IoportPermission, HypercallInit, SetTimeOffset, AddressSize, SendTrigger,
            MemoryMapping, ExtVcpuContext, DomctlCpuPolicy, Subscribe, TscInfo, SetVirqHandler,
            VcpuExtState, VcpuMsr, VcpuMsrs, DomctlVnuma, PagingMempool;
        event: EvtchnAllocUnbound, EvtchnBindInterdomain, EvtchnBindVirq, EvtchnBindPirq,
            EvtchnBindIpi, EvtchnClose, EvtchnSend, EvtchnStatus, EvtchnBindVcpu, EvtchnUnmask,
            EvtchnReset, EvtchnInitControl, EvtchnExpandArray, EvtchnSetPriority,
            EvtchnFifoControlBlock, EvtchnOpCompat;
        grant: GrantEntryV1, GrantEntryV2, GrantEntryV2Transitive, GnttabMap, GnttabUnmap,
            GnttabSetupTable, GnttabTransfer, GnttabCopyPtr, GnttabCopy, GnttabQuerySize,
            GnttabUnmapAndReplace, GnttabSetVersion, GnttabGetStatusFrames, GnttabGetVersion,
            GnttabSwapGrantRef;
        hypfs: HypfsDirentry;
        mca: McaOp, McFetch, McPhysCpuInfo, McMsrInject, McMceInject, McInjectV2, McMsr,
            McLogicalCpu, McCommon, McGlobal, McBank, McInfo;
        memory: MemoryReservation, MemoryExchange, MemoryDomain, MachphysMfnList, MachphysMapping,
            AddToPhysmap, AddToPhysmapBatch, RemoveFromPhysmap, MemoryMap, ForeignMemoryMap,
            PodTarget, AcquireResource, ReservedDeviceMemory, ReservedDeviceMemoryMap, Vmemrange,
            VnumaTopologyInfo;
        mmu: MmuUpdate, MmuextOp;
        multicall: MulticallEntry;
        physdev: PhysdevEoi, PhysdevPirqEoiGmfn, PhysdevIrqStatusQuery, PhysdevSetIopl,
            PhysdevSetIobitmap, PhysdevApic, PhysdevIrq, PhysdevMapPirq, PhysdevUnmapPirq,
            PhysdevManagePci, PhysdevManagePciExt, PhysdevSetupGsi, PhysdevGetFreePirq,
            PhysdevPciMmcfgReserved, PhysdevPciDeviceAdd, PhysdevPciDevice, PhysdevDbgpOp,
            PhysdevOpCompat;
        platform: PlatformOp, Settime32, Settime64, FirmwareInfo, FirmwareDiskInfo,
            FirmwareMbrSignature, FirmwareVbeDdc, FirmwareKbd, ReadMemtype, PlatformQuirk,
            ChangeFreq, CpuHotadd, MemHotadd, CoreParking, ResourceEntry, ResourceOp, PcpuInfo,
            PcpuVersion, CpuOnlineOffline, GetIdleTime, MicrocodeUpdate, SymData;
        platform_efi: FirmwareEfiVersion, FirmwareEfiConfig, FirmwareEfiVendor, FirmwareEfiMem,
            EfiTime, EfiGuid, EfiRuntimeCall, EfiTimeCall, EfiVariableCall, EfiNextNameCall,
            EfiVariableInfoCall;
        platform_power: EnterAcpiSleep, SetProcessorPminfo, PowerInfo, PerformanceInfo,
            PowerRegister, ProcessorCx, ProcessorCsd, PctRegister, ProcessorPx, PsdPackage;
        sched: SchedShutdown, SchedPoll, SchedRemoteShutdown, SchedWatchdog, SchedPinOverride;
        shared_info: VcpuTimeInfo, ArchVcpuInfo, VcpuInfo, ArchSharedInfo, SharedInfo;
        start_info: StartInfoConsole, StartInfo, VgaConsoleInfo;
        sysctl: Sysctl;
        sysctl_args: ReadConsole, Physinfo, SchedId, GetDomainInfoList, DebugKeys, GetCpuInfo,
            AvailHeap, CpuTopo, CpuTopoInfo, MemInfo, NumaInfo, CpupoolOp, SysctlSchedulerOp,
            PciTopoInfo, CpuLevellingCaps, CpuFeatureset, SysctlCpuPolicy;
        trap: TrapInfo, CallbackRegister, CallbackUnregister, NmiCallback, IretContext;
        vcpu: RunstateInfo, RegisterArea, SetPeriodicTimer, SetSingleshotTimer, RegisterVcpuInfo,
            GetPhysid, CpuUserRegs, VcpuGuestContext;
        version: CompileInfo, PlatformParameters, FeatureInfo, BuildId;
    }
}

fn all_codes() -> Vec<(&'static str, i128)> {
    let mut all = codes! {
        console: ConsoleIo;
        cpuid: Constants;
        domctl: Constants, DomctlCmd;
        domctl_args: Constants, SchedulerId, DomctlSchedOp, ShadowOp, Trigger;
        elfnote: ElfNote;
        errno: Errno;
        event: Constants, EvtchnOp, EvtchnStat, Virq;
        grant: Constants, GnttabOp, GrantStatus;
        hypfs: Constants, HypfsOp, HypfsType;
        mca: Constants, McaCmd, McKind;
        memory: Constants, MemoryOp, ResourceType, E820Type;
        mmu: Constants, MmuUpdateKind, MmuextCmd;
        number: HypercallNr;
        physdev: Constants, PhysdevOp, MapPirqType;
        platform: Constants, PlatformCmd, FirmwareType;
        platform_efi: Constants, EfiInfo, EfiFunction;
        platform_power: Constants, PmInfoType;
        sched: SchedOp, ShutdownReason;
        segment: Constants, SegmentBase;
        shared_info: Constants;
        start_info: Constants;
        sysctl: Constants, SysctlCmd;
        sysctl_args: Constants, CpupoolCmd, SysctlSchedOp, FeaturesetIndex, CpuPolicyIndex;
        trap: Constants, CallbackOp, CallbackType, NmiOp;
        vcpu: Constants, VcpuOp, Runstate;
        version: Constants, VersionOp, Feature;
        vm_assist: VmAssistCmd, VmAssistType;
    };
    all.extend(place_constants());
    all.retain(|(name, _)| !name.is_empty());
    all
}

fn place_constants() -> Vec<(&'static str, i128)> {
    use hypercalls::DomId;
    use hypercalls::addr::{HOLE_END, HOLE_START, M2P_VIRT_START};
    vec![
        ("DOMID_SELF", DomId::SELF.0.into()),
        ("DOMID_IO", DomId::IO.0.into()),
        ("DOMID_XEN", DomId::XEN.0.into()),
        ("DOMID_COW", DomId::COW.0.into()),
        ("DOMID_INVALID", DomId::INVALID.0.into()),
        ("DOMID_IDLE", DomId::IDLE.0.into()),
        ("DOMID_FIRST_RESERVED", DomId::FIRST_RESERVED.0.into()),
        ("HYPERVISOR_VIRT_START", HOLE_START.into()),
        ("HYPERVISOR_VIRT_END", HOLE_END.into()),
        ("MACH2PHYS_VIRT_START", M2P_VIRT_START.into()),
        ("SHUTDOWN_MAX", hypercalls::sched::ShutdownReason::MAX.into()),
    ]
}

const PROLOGUE: &str = "\
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#define __XEN_TOOLS__ 1
#define __XEN_INTERFACE_VERSION__ 0x00041100
#include <xen/xen.h>
#include <xen/arch-x86/cpuid.h>
#include <xen/arch-x86/xen-mca.h>
#include <xen/callback.h>
#include <xen/domctl.h>
#include <xen/elfnote.h>
#define __XEN__ 1 /* for the errors that guests never see */
#include <xen/errno.h>
#undef __XEN__
#include <xen/event_channel.h>
#include <xen/grant_table.h>
#include <xen/hypfs.h>
#include <xen/io/console.h>
#include <xen/memory.h>
#include <xen/nmi.h>
#include <xen/physdev.h>
#include <xen/platform.h>
#include <xen/sched.h>
#include <xen/sysctl.h>
#include <xen/vcpu.h>
#include <xen/version.h>
#define SIZE(t) printf(\"sizeof(\" #t \") %llx\\n\", (unsigned long long)sizeof(t))
#define FIELD(t, f) printf(#t \".\" #f \" %llx\\n\", \\
    (unsigned long long)(offsetof(t, f) << 32 | sizeof(((t *)0)->f)))
#define VALUE(c) printf(\"%s %llx\\n\", #c, (unsigned long long)(c))
#define NAMED(n, c) printf(\"%s %llx\\n\", n, (unsigned long long)(c))
int main(void) {
";

/// Returns the C program and what it ought to print, by name.
fn program() -> (String, HashMap<String, u64>) {
    let mut text = String::from(PROLOGUE);
    let mut expected = HashMap::new();
    for (c_name, size, fields) in all_records() {
        if c_name.is_empty() {
            continue;
        }
        writeln!(text, "SIZE({c_name});").unwrap();
        expected.insert(format!("sizeof({c_name})"), size as u64);
        for field in fields.iter().filter(|f| !f.c_name.starts_with('_')) {
            // The opaque unions keep their C name but are not all one size.
            if field.c_name == "u" {
                continue;
            }
            writeln!(text, "FIELD({c_name}, {});", field.c_name).unwrap();
            let place = (field.offset as u64) << 32 | field.size as u64;
            expected.insert(format!("{c_name}.{}", field.c_name), place);
        }
    }
    for (name, value) in all_codes() {
        writeln!(text, "NAMED(\"{name}\", {name});").unwrap();
        expected.insert(name.to_owned(), value as u64);
    }
    text.push_str("return 0; }\n");
    (text, expected)
}

/// Compiles and runs the program, or returns None when the compiler or the headers are missing.
fn run_c(text: &str) -> Option<String> {
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let found = Command::new(&compiler).arg("--version").output().is_ok();
    if !found || !Path::new("/usr/include/xen/xen.h").exists() {
        return None;
    }
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let (source, binary) = (dir.join("layout.c"), dir.join("layout"));
    std::fs::write(&source, text).expect("the test's directory is writable");
    let compiled = Command::new(&compiler)
        .args(["-std=gnu99", "-w", "-o"])
        .arg(&binary)
        .arg(&source)
        .output()
        .expect("the C compiler starts");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let output = Command::new(&binary).output().expect("the C program starts");
    assert!(output.status.success());
    Some(String::from_utf8(output.stdout).expect("the C program prints text"))
}

#[test]
fn layouts_and_numbers_are_those_of_the_c_headers() {
    let (text, expected) = program();
    let Some(printed) = run_c(&text) else {
        eprintln!("skipped: install gcc libxen-dev");
        assert!(
            std::env::var_os("XENITH_REQUIRE_LAYOUT").is_none(),
            "XENITH_REQUIRE_LAYOUT is set, but the C compiler or its headers are missing"
        );
        return;
    };
    let mut wrong = Vec::new();
    let mut seen = 0;
    for line in printed.lines() {
        let (name, value) = line.rsplit_once(' ').expect("each line is a name and a number");
        let value = u64::from_str_radix(value, 16).expect("each number is hexadecimal");
        seen += 1;
        if expected.get(name) != Some(&value) {
            wrong.push(format!("{name}: C {value:#x}, Rust {:#x?}", expected.get(name)));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(seen >= expected.len(), "the C program printed {seen} of {}", expected.len());
    println!("{} sizes, places and numbers agree with the C headers", expected.len());
}
