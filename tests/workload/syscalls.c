// SPDX-License-Identifier: MIT OR Apache-2.0
//
// System calls by every instruction that makes them. Where one is not to be had on this processor (a fault says so) the
// others must still do; which ones were used is noted in the result.

#include "workload.h"
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <sys/time.h>

#define GETPID32 20
#define CALLS 10000

static long last;

#ifdef __x86_64__

// Makes getpid with known values in all registers; returns how many of them changed.
static long syscall_keeps(void)
{
	long wrong;
	__asm__ volatile("movq $1, %%rbx\n\tmovq $2, %%rdx\n\tmovq $3, %%rsi\n\tmovq $4, %%rdi\n\t"
			 "movq $5, %%r8\n\tmovq $6, %%r9\n\tmovq $7, %%r10\n\tmovq $8, %%r12\n\tmovq $9, %%r15\n\t"
			 "movl $39, %%eax\n\tstc\n\tsyscall\n\t"
			 "movq %%rax, %1\n\t"
			 "sbbl %%eax, %%eax\n\tnegl %%eax\n\tmovl $1, %%ecx\n\tsubl %%eax, %%ecx\n\t"
			 "cmpq $1, %%rbx\n\tsetne %%al\n\tmovzbl %%al, %%eax\n\taddl %%eax, %%ecx\n\t"
			 "cmpq $2, %%rdx\n\tsetne %%al\n\tmovzbl %%al, %%eax\n\taddl %%eax, %%ecx\n\t"
			 "cmpq $3, %%rsi\n\tsetne %%al\n\tmovzbl %%al, %%eax\n\taddl %%eax, %%ecx\n\t"
			 "cmpq $4, %%rdi\n\tsetne %%al\n\tmovzbl %%al, %%eax\n\taddl %%eax, %%ecx\n\t"
			 "cmpq $5, %%r8\n\tsetne %%al\n\tmovzbl %%al, %%eax\n\taddl %%eax, %%ecx\n\t"
			 "cmpq $6, %%r9\n\tsetne %%al\n\tmovzbl %%al, %%eax\n\taddl %%eax, %%ecx\n\t"
			 "cmpq $7, %%r10\n\tsetne %%al\n\tmovzbl %%al, %%eax\n\taddl %%eax, %%ecx\n\t"
			 "cmpq $8, %%r12\n\tsetne %%al\n\tmovzbl %%al, %%eax\n\taddl %%eax, %%ecx\n\t"
			 "cmpq $9, %%r15\n\tsetne %%al\n\tmovzbl %%al, %%eax\n\taddl %%eax, %%ecx\n\t"
			 "movq %%rcx, %0"
			 : "=m"(wrong), "=m"(last)
			 :
			 : "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r15", "cc",
			   "memory");
	return wrong;
}

int part_syscalls(void)
{
	long pid = getpid();
	int calls = scaled(CALLS);
	for (int i = 0; i < calls; i++) {
		CHECK(syscall_keeps() == 0);
		CHECK(last == pid);
	}
	CHECK(syscall(100000) == -1 && errno == ENOSYS);
	CHECK(syscall(SYS_write, 99, 0, 0) == -1 && errno == EBADF);
	return HELD;
}

static void act_int80(volatile void *unused)
{
	long result;
	(void)unused;
	__asm__ volatile("int $0x80" : "=a"(result) : "0"(GETPID32) : "memory", "r8", "r9", "r10", "r11");
	last = result;
}

// The 32-bit calls made from a 64-bit program.
int part_compat(void)
{
	long pid = getpid();
	int calls = scaled(CALLS);
	if (faulting(act_int80, 0) || last == -ENOSYS)
		SKIP("no int 0x80 here");
	for (int i = 0; i < calls; i++) {
		last = 0;
		act_int80(0);
		CHECK(last == pid);
	}
	return HELD;
}

static void act_vsyscall(volatile void *unused)
{
	(void)unused;
	last = ((long (*)(long *))0xffffffffff600400)(0);
}

#else

static void act_int80(volatile void *unused)
{
	(void)unused;
	__asm__ volatile("int $0x80" : "=a"(last) : "0"(GETPID32) : "memory");
}

static void act_vdso_call(volatile void *unused)
{
	(void)unused;
	__asm__ volatile("call *%1" : "=a"(last) : "r"(getauxval(AT_SYSINFO)), "0"(GETPID32) : "memory");
}

// Both come back at the vDSO's landing pad, which pops three registers and returns.
static void act_sysenter(volatile void *unused)
{
	(void)unused;
	__asm__ volatile("call 1f\n\tjmp 2f\n"
			 "1:\tpushl %%ecx\n\tpushl %%edx\n\tpushl %%ebp\n\tmovl %%esp, %%ebp\n\tsysenter\n\tud2\n"
			 "2:"
			 : "=a"(last) : "0"(GETPID32) : "memory", "cc");
}

static void act_syscall(volatile void *unused)
{
	(void)unused;
	__asm__ volatile("call 1f\n\tjmp 2f\n"
			 "1:\tpushl %%ecx\n\tpushl %%edx\n\tpushl %%ebp\n\tmovl %%ecx, %%ebp\n\tsyscall\n\tud2\n"
			 "2:"
			 : "=a"(last) : "0"(GETPID32) : "memory", "cc");
}

static const struct way {
	const char *name;
	void (*call)(volatile void *);
	int needed;
} ways[] = {
	{ "int80", act_int80, 1 },
	{ "vdso", act_vdso_call, 1 },
	{ "sysenter", act_sysenter, 0 },
	{ "syscall", act_syscall, 0 },
};

// Each way there is, many times, and all ways in turn.
int part_syscalls(void)
{
	long pid = getpid();
	int calls = scaled(CALLS);
	int usable[COUNT(ways)];
	char used[100] = "by";
	for (size_t i = 0; i < COUNT(ways); i++) {
		last = 0;
		usable[i] = faulting(ways[i].call, 0) == 0;
		CHECK(usable[i] || !ways[i].needed);
		CHECK(!usable[i] || last == pid);
		if (usable[i])
			strcat(strcat(used, " "), ways[i].name);
	}
	for (int k = 0; k < calls; k++) {
		size_t i = (size_t)k % COUNT(ways);
		if (!usable[i])
			continue;
		last = 0;
		ways[i].call(0);
		CHECK(last == pid);
	}
	CHECK(syscall(100000) == -1 && errno == ENOSYS);
	note("%s", used);
	return HELD;
}

// Makes a system call with six arguments through this entry.
long call_with_six(unsigned long entry, const long *arguments, long number);
__asm__(".text\ncall_with_six:\n\t"
	"pushl %ebp\n\tpushl %ebx\n\tpushl %esi\n\tpushl %edi\n\t"
	"movl 24(%esp), %ebp\n\tmovl 28(%esp), %eax\n\t"
	"movl (%ebp), %ebx\n\tmovl 4(%ebp), %ecx\n\tmovl 8(%ebp), %edx\n\t"
	"movl 12(%ebp), %esi\n\tmovl 16(%ebp), %edi\n\tmovl 20(%ebp), %ebp\n\t"
	"call *20(%esp)\n\t"
	"popl %edi\n\tpopl %esi\n\tpopl %ebx\n\tpopl %ebp\n\tret\n");

// Six arguments: the sixth travels on the stack when sysenter is used.
int part_compat(void)
{
	char name[] = "/tmp/workload-XXXXXX";
	int file = mkstemp(name);
	CHECK(file >= 0 && unlink(name) == 0 && ftruncate(file, 8 * PAGE) == 0);
	CHECK(pwrite(file, "seventh", 8, 7 * PAGE) == 8);
	int calls = scaled(500);
	for (int i = 0; i < calls; i++) {
		const long arguments[] = { 0, PAGE, PROT_READ, MAP_PRIVATE, file, 7 };
		long at = call_with_six(getauxval(AT_SYSINFO), arguments, SYS_mmap2);
		CHECK(at < -4095 || at > 0);
		CHECK(strcmp((char *)at, "seventh") == 0 && munmap((void *)at, PAGE) == 0);
	}
	return HELD;
}

#endif

// Calls that the vDSO answers without the kernel agree with those that enter it.
int part_vdso(void)
{
	int calls = scaled(CALLS);
	CHECK(getauxval(AT_SYSINFO_EHDR) != 0);
	for (int i = 0; i < calls; i++) {
		struct timespec before, kernel, after;
		CHECK(clock_gettime(CLOCK_MONOTONIC, &before) == 0);
		CHECK(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &kernel) == 0);
		CHECK(clock_gettime(CLOCK_MONOTONIC, &after) == 0);
		int64_t a = before.tv_sec * SECOND + before.tv_nsec, b = kernel.tv_sec * SECOND + kernel.tv_nsec;
		int64_t c = after.tv_sec * SECOND + after.tv_nsec;
		CHECK(a <= b && b <= c);
	}
	struct timeval time;
	CHECK(gettimeofday(&time, 0) == 0 && llabs(time.tv_sec - (long long)(now(CLOCK_REALTIME) / SECOND)) <= 1);
	unsigned cpu, node;
	CHECK(syscall(SYS_getcpu, &cpu, &node, 0) == 0 && cpu < 4096);
#ifdef __x86_64__
	if (strstr(text_of("/proc/self/maps"), "[vsyscall]")) {
		CHECK(faulting(act_vsyscall, 0) == 0);
		CHECK(llabs(last - (long long)(now(CLOCK_REALTIME) / SECOND)) <= 1);
		note("with vsyscall");
	}
#endif
	return HELD;
}
