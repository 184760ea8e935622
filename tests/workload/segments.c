// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Segments of a program's own: a local descriptor table, code in it, thread-local segments, FS and GS bases.

#include "workload.h"
#include <asm/ldt.h>
#include <pthread.h>
#include <sched.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <sys/wait.h>

// The segment register that the C library leaves alone, and the kernel's selectors for programs.
#ifdef __x86_64__
#define SEGMENT "gs"
#include <asm/prctl.h>
#else
#define SEGMENT "fs"
#endif
#define LDT_SELECTOR(index) ((unsigned short)((index) << 3 | 7))
#define GDT_SELECTOR(index) ((unsigned short)((index) << 3 | 3))

static void load_segment(unsigned selector) { __asm__ volatile("mov %0, %%" SEGMENT : : "r"(selector) : "memory"); }

static uint32_t read_segment(unsigned long offset)
{
	uint32_t value;
	__asm__ volatile("movl %%" SEGMENT ":(%1), %0" : "=r"(value) : "r"(offset) : "memory");
	return value;
}

static void act_load(volatile void *selector) { load_segment((unsigned)(uintptr_t)selector); }
static void act_segment_read(volatile void *offset) { read_segment((uintptr_t)offset); }

static int set_ldt(unsigned index, void *base, unsigned bytes, unsigned contents)
{
	struct user_desc entry = { .entry_number = index, .base_addr = (unsigned)(uintptr_t)base, .limit = bytes - 1,
				   .seg_32bit = 1, .contents = contents, .useable = 1 };
	return (int)syscall(SYS_modify_ldt, 0x11, &entry, sizeof entry);
}

// One page below 4 GiB, whose words all have this value.
static uint32_t *low_page(uint32_t value)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS;
#ifdef MAP_32BIT
	flags |= MAP_32BIT;
#endif
	uint32_t *page = mmap(0, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, flags, -1, 0);
	for (size_t i = 0; page != MAP_FAILED && i < PAGE / sizeof *page; i++)
		page[i] = value;
	return page;
}

// Another process with another table: the same selector leads elsewhere, at each of many context switches.
static int other_table(void *argument)
{
	uint32_t value = (uint32_t)(uintptr_t)argument, *page = low_page(value);
	unsigned index = value % 2 ? 8191 : 3;
	CHECK(page != MAP_FAILED && set_ldt(index, page, PAGE, 0) == 0);
	load_segment(LDT_SELECTOR(index));
	int rounds = scaled(800);
	for (int i = 0; i < rounds; i++) {
		CHECK(read_segment((unsigned long)i * 4 % PAGE) == value);
		sched_yield();
	}
	load_segment(0);
	return HELD;
}

int part_ldt(void)
{
	uint32_t *page = low_page(0x1d700001);
	pid_t child[4];
	unsigned limit = 0;
	CHECK(page != MAP_FAILED);
	CHECK(faulting(act_load, (void *)(uintptr_t)LDT_SELECTOR(5)) == SIGSEGV);
	if (set_ldt(5, page, 64, 0) < 0 && errno == ENOSYS)
		SKIP("no modify_ldt in this kernel");
	CHECK(faulting(act_load, (void *)(uintptr_t)LDT_SELECTOR(5)) == 0 && read_segment(60) == 0x1d700001);
	__asm__("lsl %1, %0" : "=r"(limit) : "r"((unsigned)LDT_SELECTOR(5)) : "cc");
	CHECK(limit == 63);
#ifndef __x86_64__
	CHECK(emulated() || faulting(act_segment_read, (void *)64) == SIGSEGV);
#endif
	for (uintptr_t i = 0; i < COUNT(child); i++)
		child[i] = start(other_table, (void *)(0x1d700010 + i));
	int rounds = scaled(800);
	for (int i = 0; i < rounds; i++) {
		CHECK(read_segment((unsigned long)i % 16 * 4) == 0x1d700001);
		sched_yield();
	}
	for (size_t i = 0; i < COUNT(child); i++)
		CHECK(held(child[i]) == HELD);
	CHECK(set_ldt(8191, page, PAGE, 0) == 0 && faulting(act_load, (void *)(uintptr_t)LDT_SELECTOR(8191)) == 0);
	CHECK(read_segment(PAGE - 4) == 0x1d700001);
	load_segment(0);
	struct user_desc empty = { .entry_number = 5, .read_exec_only = 1, .seg_not_present = 1 };
	CHECK(syscall(SYS_modify_ldt, 0x11, &empty, sizeof empty) == 0);
	CHECK(faulting(act_load, (void *)(uintptr_t)LDT_SELECTOR(5)) == SIGSEGV);
	static unsigned char table[64 * 1024];
	CHECK(syscall(SYS_modify_ldt, 0, table, sizeof table) == sizeof table);
	CHECK(table[8191 * 8 + 5] & 0x80 && !(table[5 * 8 + 5] & 0x80));
	(void)act_segment_read;
	return HELD;
}

// mov eax, 20; int 0x80 (getpid); jmp far to where it came from. Jumps, because an emulated far call reaches for the
// stack with the kernel's rights.
static const unsigned char far_code[] = { 0xb8, 20, 0, 0, 0, 0xcd, 0x80, 0xea };
enum { CODE_AT = 256 };

struct far_pointer {
	uint32_t offset;
	uint16_t selector;
} __attribute__((packed));
static struct far_pointer target;
static long far_result;

static void act_far_jump(volatile void *code)
{
	struct far_pointer *back = (struct far_pointer *)((uintptr_t)code + sizeof far_code);
	unsigned selector;
	__asm__("mov %%cs, %0" : "=r"(selector));
	back->selector = (uint16_t)selector;
#ifdef __x86_64__
	static uint64_t stack;
	__asm__ volatile("movq %%rsp, %[stack]\n\tmovl $1f, (%[back])\n\tljmp *%[target]\n1:\tmovq %[stack], %%rsp"
			 : "=a"(far_result), [stack] "+m"(stack)
			 : [back] "r"(&back->offset), [target] "m"(target)
			 : "memory", "cc", "r8", "r9", "r10", "r11");
#else
	__asm__ volatile("movl $1f, (%[back])\n\tljmp *%[target]\n1:"
			 : "=a"(far_result) : [back] "r"(&back->offset), [target] "m"(target) : "memory", "cc");
#endif
}

static int jump_far(uint16_t selector, uint32_t offset, void *code)
{
	int rounds = scaled(500);
	target = (struct far_pointer){ offset, selector };
	for (int i = 0; i < rounds; i++) {
		far_result = 0;
		int signal = faulting(act_far_jump, code);
		if (signal) {
			explain("far jump to selector %#x: signal %d", selector, signal);
			return FAILED;
		}
		CHECK(far_result == getpid());
		if (i % 16 == 0)
			sched_yield();
	}
	return HELD;
}

// 32-bit code, entered by far jumps, that makes system calls: through the local table and the kernel's own selector.
int part_ldt_code(void)
{
	unsigned char *page = (unsigned char *)low_page(0);
	unsigned kernel_cs = 0x23;
	CHECK(page != MAP_FAILED);
	memcpy(page + CODE_AT, far_code, sizeof far_code);
	if (set_ldt(9, page, PAGE, 2) < 0 && errno == ENOSYS)
		SKIP("no modify_ldt in this kernel");
#ifndef __x86_64__
	__asm__("mov %%cs, %0" : "=r"(kernel_cs));
#endif
	CHECK(jump_far(LDT_SELECTOR(9), CODE_AT, page + CODE_AT) == HELD);
	CHECK(jump_far((uint16_t)kernel_cs, (uint32_t)(uintptr_t)page + CODE_AT, page + CODE_AT) == HELD);
	return HELD;
}

#ifdef __x86_64__

// Thread-local segments of 64-bit threads are FS bases; see `bases`. Here: each thread's own errno and the like.
static void *own_errno(void *argument)
{
	for (int i = 0; i < 500; i++) {
		errno = (int)(intptr_t)argument;
		sched_yield();
		if (errno != (int)(intptr_t)argument)
			return 0;
	}
	return argument;
}

static int own_segment(void) { return HELD; }

#else

static struct user_desc tls_entry(void *page)
{
	return (struct user_desc){ .entry_number = -1u, .base_addr = (unsigned)(uintptr_t)page, .limit = PAGE - 1,
				   .seg_32bit = 1, .useable = 1 };
}

// A segment from set_thread_area, in the same slot of each thread, leading to a page of its own.
static void *own_errno(void *argument)
{
	uint32_t value = (uint32_t)(uintptr_t)argument, *page = low_page(value);
	struct user_desc entry = tls_entry(page);
	if (syscall(SYS_set_thread_area, &entry) != 0)
		return 0;
	load_segment(GDT_SELECTOR(entry.entry_number));
	for (int i = 0; i < 500; i++) {
		errno = (int)value;
		sched_yield();
		if (errno != (int)value || read_segment((unsigned)i * 4 % PAGE) != value)
			return 0;
	}
	load_segment(0);
	return argument;
}

static int own_segment(void)
{
	uint32_t *page = low_page(4711);
	struct user_desc entry = tls_entry(page), copy;
	CHECK(page != MAP_FAILED && syscall(SYS_set_thread_area, &entry) == 0);
	copy = (struct user_desc){ .entry_number = entry.entry_number };
	CHECK(syscall(SYS_get_thread_area, &copy) == 0 && copy.base_addr == (unsigned)(uintptr_t)page);
	load_segment(GDT_SELECTOR(entry.entry_number));
	CHECK(read_segment(16) == 4711);
	CHECK(emulated() || faulting(act_segment_read, (void *)PAGE) == SIGSEGV);
	load_segment(0);
	return HELD;
}

#endif

// Each of many threads keeps its thread-local storage across switches.
int part_tls(void)
{
	pthread_t thread[8];
	CHECK(own_segment() == HELD);
	for (intptr_t i = 0; i < (intptr_t)COUNT(thread); i++)
		CHECK(pthread_create(&thread[i], 0, own_errno, (void *)(i + 100)) == 0);
	for (size_t i = 0; i < COUNT(thread); i++) {
		void *fine;
		CHECK(pthread_join(thread[i], &fine) == 0);
		CHECK(fine);
	}
	return HELD;
}

#ifdef __x86_64__

static uint64_t gs_base(void)
{
	uint64_t base;
	return syscall(SYS_arch_prctl, ARCH_GET_GS, &base) == 0 ? base : 0;
}

static int keeps_base(uint32_t seed)
{
	uint64_t *page = pages(1), value = 0;
	int instruction = getauxval(AT_HWCAP2) & 2 && seed % 2;
	CHECK(page != MAP_FAILED);
	page[1] = seed * 0x0123456789ULL;
	if (instruction)
		__asm__ volatile("wrgsbase %0" : : "r"(page));
	else
		CHECK(syscall(SYS_arch_prctl, ARCH_SET_GS, page) == 0);
	int rounds = scaled(800);
	for (int i = 0; i < rounds; i++) {
		__asm__ volatile("movq %%gs:8, %0" : "=r"(value));
		CHECK(value == page[1]);
		sched_yield();
	}
	CHECK(gs_base() == (uint64_t)(uintptr_t)page);
	if (instruction) {
		__asm__ volatile("rdgsbase %0" : "=r"(value));
		CHECK(value == (uint64_t)(uintptr_t)page);
	}
	uint64_t fs;
	CHECK(syscall(SYS_arch_prctl, ARCH_GET_FS, &fs) == 0);
	__asm__ volatile("movq %%fs:0, %0" : "=r"(value));
	CHECK(value == fs);
	load_segment(0);
	return HELD;
}

static void *base_thread(void *argument)
{
	return (void *)(intptr_t)(keeps_base((uint32_t)(uintptr_t)argument) == HELD);
}

static int base_process(void *argument)
{
	pthread_t thread[2];
	for (uintptr_t i = 0; i < COUNT(thread); i++)
		CHECK(pthread_create(&thread[i], 0, base_thread, (char *)argument + i) == 0);
	for (size_t i = 0; i < COUNT(thread); i++) {
		void *fine;
		CHECK(pthread_join(thread[i], &fine) == 0);
		CHECK(fine);
	}
	return HELD;
}

// GS bases above 4 GiB, set by system call and (where allowed) by instruction, in threads of several processes.
int part_bases(void)
{
	pid_t child[3];
	CHECK(syscall(SYS_arch_prctl, ARCH_SET_GS, 1ULL << 63) == -1);
	for (uintptr_t i = 0; i < COUNT(child); i++)
		child[i] = start(base_process, (void *)(i * 2 + 1));
	for (size_t i = 0; i < COUNT(child); i++)
		CHECK(held(child[i]) == HELD);
	note(getauxval(AT_HWCAP2) & 2 ? "arch_prctl and wrgsbase" : "arch_prctl");
	return HELD;
}

#else

int part_bases(void) { SKIP("FS and GS have no bases of their own in 32 bits"); }

#endif
