// SPDX-License-Identifier: MIT OR Apache-2.0
//! The feature words of CPUID: which bits a 64-bit PV guest is shown.
//!
//! Each word names the bits that are known. What is shown of the host's word is what is known and not hidden, so that
//! a bit nobody has thought about stays invisible.
#![expect(missing_docs, reason = "the bits have the names of the processor manuals")]

use bitflags::bitflags;

/// Defines a feature word: its shown bits, then its hidden ones.
macro_rules! word {
    ($(#[$doc:meta])* $name:ident: shown { $($shown:ident = $s:literal),* $(,)? } hidden { $($hidden:ident = $h:literal),* $(,)? }) => {
        bitflags! {
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub struct $name: u32 {
                $(const $shown = 1 << $s;)*
                $(const $hidden = 1 << $h;)*
            }
        }
        impl $name {
            /// Known, and not for a PV guest.
            pub const HIDDEN: Self = Self::from_bits_truncate(0 $(| 1 << $h)*);
            /// Returns what a guest may see of the host's word.
            pub const fn shown(host: u32) -> Self {
                Self::from_bits_truncate(host & !Self::HIDDEN.bits())
            }
        }
    };
}

word! {
    /// Leaf 1, EDX.
    Leaf1Edx: shown {
        FPU = 0, DE = 2, TSC = 4, MSR = 5, PAE = 6, MCE = 7, CX8 = 8, APIC = 9, SEP = 11, MCA = 14, CMOV = 15, PAT = 16,
        CLFLUSH = 19, ACPI = 22, MMX = 23, FXSR = 24, SSE = 25, SSE2 = 26, SS = 27,
    } hidden {
        VME = 1, PSE = 3, MTRR = 12, PGE = 13, PSE36 = 17, PSN = 18, DS = 21, HTT = 28, ACC = 29, PBE = 31,
    }
}

word! {
    /// Leaf 1, ECX.
    Leaf1Ecx: shown {
        SSE3 = 0, PCLMULQDQ = 1, SSSE3 = 9, FMA = 12, CX16 = 13, SSE4_1 = 19, SSE4_2 = 20, MOVBE = 22, POPCNT = 23,
        AESNI = 25, XSAVE = 26, AVX = 28, F16C = 29, RDRAND = 30, HYPERVISOR = 31,
    } hidden {
        DTES64 = 2, MONITOR = 3, DSCPL = 4, VMX = 5, SMX = 6, EIST = 7, TM2 = 8, CNXT_ID = 10, SDBG = 11, XTPR = 14,
        PDCM = 15, PCID = 17, DCA = 18, X2APIC = 21, TSC_DEADLINE = 24, OSXSAVE = 27,
    }
}

word! {
    /// Leaf 7 subleaf 0, EBX.
    Leaf7Ebx: shown {
        FSGSBASE = 0, BMI1 = 3, AVX2 = 5, FDP_EXCP_ONLY = 6, BMI2 = 8, ERMS = 9, RTM = 11, NO_FPU_SEL = 13,
        AVX512F = 16, AVX512DQ = 17, RDSEED = 18, ADX = 19, AVX512_IFMA = 21, CLFLUSHOPT = 23, CLWB = 24, AVX512PF = 26,
        AVX512ER = 27, AVX512CD = 28, SHA = 29, AVX512BW = 30, AVX512VL = 31,
    } hidden {
        TSC_ADJUST = 1, SGX = 2, HLE = 4, SMEP = 7, INVPCID = 10, PQM = 12, MPX = 14, PQE = 15, SMAP = 20, PROC_TRACE = 25,
    }
}

word! {
    /// Leaf 7 subleaf 0, ECX.
    Leaf7Ecx: shown {
        PREFETCHWT1 = 0, AVX512_VBMI = 1, AVX512_VBMI2 = 6, GFNI = 8, VAES = 9, VPCLMULQDQ = 10, AVX512_VNNI = 11,
        AVX512_BITALG = 12, AVX512_VPOPCNTDQ = 14, RDPID = 22, CLDEMOTE = 25,
    } hidden {
        UMIP = 2, PKU = 3, OSPKE = 4, WAITPKG = 5, CET_SS = 7, TME = 13, LA57 = 16, KEY_LOCKER = 23, MOVDIRI = 27, MOVDIR64B = 28, ENQCMD = 29,
        SGX_LC = 30, PKS = 31,
    }
}

word! {
    /// Leaf 7 subleaf 0, EDX. The speculation controls are added where they are virtualised.
    Leaf7Edx: shown {
        AVX512_4VNNIW = 2, AVX512_4FMAPS = 3, FSRM = 4, MD_CLEAR = 10, RTM_ALWAYS_ABORT = 11,
        SERIALIZE = 14,
    } hidden {
        SGX_KEYS = 1, UINTR = 5, AVX512_VP2INTERSECT = 8, SRBDS_CTRL = 9, TSX_FORCE_ABORT = 13, HYBRID = 15, TSXLDTRK = 16, PCONFIG = 18,
        ARCH_LBR = 19, CET_IBT = 20, AMX_BF16 = 22, AVX512_FP16 = 23, AMX_TILE = 24, AMX_INT8 = 25, IBRSB = 26, STIBP = 27,
        L1D_FLUSH = 28, ARCH_CAPS = 29, CORE_CAPS = 30, SSBD = 31,
    }
}

word! {
    /// Leaf 7 subleaf 1, EAX.
    Leaf7Sub1Eax: shown {
        AVX_VNNI = 4, AVX512_BF16 = 5, FZRM = 10, FSRS = 11, FSRCS = 12,
    } hidden {
        FRED = 17, LKGS = 18, WRMSRNS = 19, LAM = 26,
    }
}

word! {
    /// Leaf 7 subleaf 2, EDX.
    Leaf7Sub2Edx: shown { MCDT_NO = 5 } hidden { INTEL_PSFD = 0, IPRED_CTRL = 1, RRSBA_CTRL = 2, BHI_CTRL = 4 }
}

word! {
    /// Leaf 0xd subleaf 1, EAX.
    XsaveEax: shown { XSAVEOPT = 0, XSAVEC = 1, XGETBV1 = 2 } hidden { XSAVES = 3, XFD = 4 }
}

word! {
    /// Leaf 0x80000001, EDX, without the copies of leaf 1 that one vendor has there.
    ExtEdx: shown {
        SYSCALL = 11, NX = 20, MMXEXT = 22, FFXSR = 25, RDTSCP = 27, LM = 29, AMD3DNOWEXT = 30, AMD3DNOW = 31,
    } hidden {
        PAGE1GB = 26,
    }
}

impl ExtEdx {
    /// The bits that repeat leaf 1's on AMD.
    pub const COPIES: u32 = 0x0183_f3ff;
}

word! {
    /// Leaf 0x80000001, ECX. DBEXT is added where it works.
    ExtEcx: shown {
        LAHF_LM = 0, ABM = 5, SSE4A = 6, MISALIGNSSE = 7, PREFETCHW = 8, XOP = 11, FMA4 = 16, TBM = 21,
    } hidden {
        CMP_LEGACY = 1, SVM = 2, EXTAPIC = 3, CR8_LEGACY = 4, OSVW = 9, IBS = 10, SKINIT = 12, WDT = 13, LWP = 15,
        NODEID_MSR = 19, TOPOEXT = 22, PERFCTR_CORE = 23, PERFCTR_NB = 24, DBEXT = 26, MONITORX = 29,
    }
}

word! {
    /// Leaf 0x80000007, EDX. The invariant TSC is added for domains that never move.
    PowerEdx: shown {} hidden { HW_PSTATE = 7, ITSC = 8, CPB = 9, EFRO = 10 }
}

word! {
    /// Leaf 0x80000008, EBX. The speculation controls are added where they are virtualised.
    ExtSpecEbx: shown {
        CLZERO = 0, RSTR_FP_ERR_PTRS = 2, SSB_NO = 26, BTC_NO = 29, IBPB_RET = 30,
    } hidden {
        RDPRU = 4, WBNOINVD = 9, IBPB = 12, IBRS = 14, STIBP = 15, IBRS_ALWAYS = 16, STIBP_ALWAYS = 17, IBRS_FAST = 18,
        IBRS_SAME_MODE = 19, NO_LMSL = 20, PPIN = 23, SSBD = 24, VIRT_SSBD = 25, PSFD = 28,
    }
}

word! {
    /// Leaf 0x80000021, EAX.
    Ext21Eax: shown {
        LFENCE_DISPATCH = 2, VERW_CLEAR = 5, NSCB = 6, IBPB_BRTYPE = 28, SRSO_NO = 29,
    } hidden {
        AUTO_IBRS = 8, SBPB = 27, SRSO_US_NO = 30, SRSO_MSR_FIX = 31,
    }
}

/// Features that need AVX state.
pub(super) mod needs_avx {
    use super::{ExtEcx, Leaf1Ecx, Leaf7Ebx, Leaf7Ecx, Leaf7Sub1Eax};

    pub(in super::super) const LEAF1: Leaf1Ecx = Leaf1Ecx::AVX.union(Leaf1Ecx::FMA).union(Leaf1Ecx::F16C);
    pub(in super::super) const LEAF7_EBX: Leaf7Ebx = Leaf7Ebx::AVX2;
    pub(in super::super) const LEAF7_ECX: Leaf7Ecx = Leaf7Ecx::VAES.union(Leaf7Ecx::VPCLMULQDQ);
    pub(in super::super) const LEAF7_1_EAX: Leaf7Sub1Eax = Leaf7Sub1Eax::AVX_VNNI;
    pub(in super::super) const EXT_ECX: ExtEcx = ExtEcx::XOP.union(ExtEcx::FMA4);
}

/// Features that need AVX-512 state.
pub(super) mod needs_avx512 {
    use super::{Leaf7Ebx, Leaf7Ecx, Leaf7Edx, Leaf7Sub1Eax};

    pub(in super::super) const LEAF7_EBX: Leaf7Ebx = Leaf7Ebx::AVX512F
        .union(Leaf7Ebx::AVX512DQ)
        .union(Leaf7Ebx::AVX512_IFMA)
        .union(Leaf7Ebx::AVX512PF)
        .union(Leaf7Ebx::AVX512ER)
        .union(Leaf7Ebx::AVX512CD)
        .union(Leaf7Ebx::AVX512BW)
        .union(Leaf7Ebx::AVX512VL);
    pub(in super::super) const LEAF7_ECX: Leaf7Ecx = Leaf7Ecx::AVX512_VBMI
        .union(Leaf7Ecx::AVX512_VBMI2)
        .union(Leaf7Ecx::AVX512_VNNI)
        .union(Leaf7Ecx::AVX512_BITALG)
        .union(Leaf7Ecx::AVX512_VPOPCNTDQ);
    pub(in super::super) const LEAF7_EDX: Leaf7Edx = Leaf7Edx::AVX512_4VNNIW.union(Leaf7Edx::AVX512_4FMAPS);
    pub(in super::super) const LEAF7_1_EAX: Leaf7Sub1Eax = Leaf7Sub1Eax::AVX512_BF16;
}
