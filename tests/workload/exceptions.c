// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Every exception that a program can raise reaches its handler as the right signal.

#include "workload.h"
#include <fcntl.h>

static void act_divide(volatile void *unused)
{
	unsigned low = 1, high = 0;
	(void)unused;
	__asm__ volatile("divl %2" : "+a"(low), "+d"(high) : "r"(0) : "cc");
}

static void act_x87(volatile void *unused)
{
	unsigned short control = 0x37b; // division by zero not masked
	(void)unused;
	__asm__ volatile("fldcw %0\n\tfld1\n\tfldz\n\tfdivrp\n\tfwait\n\tfstp %%st(0)" : : "m"(control));
}

__attribute__((target("sse2"))) static void act_simd(volatile void *unused)
{
	unsigned control = 0x1d80; // division by zero not masked
	(void)unused;
	__asm__ volatile("ldmxcsr %0\n\tcvtsi2sd %1, %%xmm0\n\tcvtsi2sd %2, %%xmm1\n\tdivsd %%xmm1, %%xmm0"
			 : : "m"(control), "r"(1), "r"(0) : "xmm0", "xmm1");
}

#define ACT(name, code) \
	static void act_##name(volatile void *unused) { (void)unused; __asm__ volatile(code : : : "memory", "cc"); }
ACT(ud2, "ud2")
ACT(hlt, "hlt")
ACT(cli, "cli")
ACT(in, "inb $0x80, %%al")
ACT(invlpg, "invlpg (%%esp)")
ACT(int3, "int3")
ACT(int1, ".byte 0xf1")
ACT(int_80h_plus, "int $0x81")
ACT(vm_prefix, "ud2; .ascii \"xen\"; movl $0xdead0000, %%eax")
#ifdef __x86_64__
ACT(cr3, "movq %%cr3, %%rax")
ACT(wrmsr, "wrmsr")
ACT(noncanonical, "movq $0x4141414141414141, %%rax\n\tmovb (%%rax), %%al")
ACT(selector, "movl $0x1234, %%eax\n\tmovw %%ax, %%es")
ACT(kernel_call, "movq $0xffffffff81000000, %%rax\n\tcall *%%rax")
ACT(kernel_read, "movq $0xffff888000000000, %%rax\n\tmovb (%%rax), %%al")
ACT(machine_read, "movq $0xffff800000000000, %%rax\n\tmovb (%%rax), %%al")
#else
ACT(cr3, "movl %%cr3, %%eax")
ACT(wrmsr, "wrmsr")
ACT(noncanonical, "movl $0xffffe000, %%eax\n\tmovb (%%eax), %%al")
ACT(selector, "movl $0x1234, %%eax\n\tmovw %%ax, %%es")
ACT(kernel_call, "movl $0xfffff000, %%eax\n\tcall *%%eax")
ACT(kernel_read, "movl $0xffffe000, %%eax\n\tmovb (%%eax), %%al")
ACT(machine_read, "movl $0xffffd000, %%eax\n\tmovb (%%eax), %%al")
ACT(into, "movl $0x7fffffff, %%eax\n\taddl $1, %%eax\n\tinto")
#endif

static const struct exception {
	void (*act)(volatile void *);
	int signal;
	int code; // 0: any
	int unless_emulated;
	const char *name;
} exceptions[] = {
	{ act_divide, SIGFPE, FPE_INTDIV, 0, "divide" },
	{ act_x87, SIGFPE, FPE_FLTDIV, 0, "x87" },
	{ act_simd, SIGFPE, FPE_FLTDIV, 1, "simd" },
	{ act_ud2, SIGILL, ILL_ILLOPN, 0, "ud2" },
	{ act_vm_prefix, SIGILL, 0, 0, "forced-emulation prefix of another leaf" },
	{ act_hlt, SIGSEGV, 0, 0, "hlt" },
	{ act_cli, SIGSEGV, 0, 0, "cli" },
	{ act_in, SIGSEGV, 0, 0, "in" },
	{ act_invlpg, SIGSEGV, 0, 0, "invlpg" },
	{ act_int3, SIGTRAP, 0, 0, "int3" },
	{ act_int1, SIGTRAP, 0, 1, "int1" },
	{ act_int_80h_plus, SIGSEGV, 0, 0, "int 0x81" },
	{ act_cr3, SIGSEGV, 0, 0, "mov from cr3" },
	{ act_wrmsr, SIGSEGV, 0, 0, "wrmsr" },
	{ act_noncanonical, SIGSEGV, 0, 0, "non-canonical address" },
	{ act_selector, SIGSEGV, 0, 0, "bad selector" },
	{ act_kernel_call, SIGSEGV, 0, 0, "call into the kernel" },
	{ act_kernel_read, SIGSEGV, 0, 0, "read of the kernel" },
	{ act_machine_read, SIGSEGV, 0, 0, "read of the hypervisor" },
#ifndef __x86_64__
	{ act_into, SIGSEGV, 0, 0, "into" },
#endif
};

static int bus_error(void)
{
	char name[] = "/tmp/workload-XXXXXX";
	int file = mkstemp(name);
	CHECK(file >= 0 && unlink(name) == 0 && ftruncate(file, PAGE) == 0);
	unsigned char *memory = mmap(0, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	CHECK(memory != MAP_FAILED && faulting(act_write, memory) == 0);
	CHECK(faulting(act_write, memory + PAGE) == SIGBUS && fault.code == BUS_ADRERR);
	CHECK(fault.address == (uintptr_t)memory + PAGE);
	close(file);
	return HELD;
}

int part_exceptions(void)
{
	int rounds = scaled(20);
	for (int round = 0; round < rounds; round++) {
		for (size_t i = 0; i < COUNT(exceptions); i++) {
			const struct exception *exception = &exceptions[i];
			if (exception->unless_emulated && emulated())
				continue;
			int signal = faulting(exception->act, 0);
			__asm__ volatile("fninit");
			if (signal == exception->signal && (!exception->code || fault.code == exception->code))
				continue;
			explain("%s: signal %d, code %d", exception->name, signal, fault.code);
			return FAILED;
		}
	}
	return bus_error();
}
