// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Memory of one process after the other: copy on write, protection, moved and discarded mappings, written code.

#include "workload.h"
#include <sys/wait.h>

struct copy {
	unsigned char *memory;
	size_t length;
	int depth;
	uint32_t seed;
};

static int copy_child(void *argument);

// Forks, then both sides write: each must read only its own words, whoever was first.
static int copy_once(struct copy copy)
{
	struct copy below = copy;
	CHECK(holds(copy.memory, copy.length, copy.seed));
	below.seed = copy.seed * 2 + 1;
	below.depth--;
	pid_t child = start(copy_child, &below);
	CHECK(child > 0);
	if (copy.seed % 2) {
		fill(copy.memory, copy.length, copy.seed + 1000);
		CHECK(holds(copy.memory, copy.length, copy.seed + 1000));
	}
	CHECK(held(child) == HELD);
	CHECK(holds(copy.memory, copy.length, copy.seed % 2 ? copy.seed + 1000 : copy.seed));
	fill(copy.memory, copy.length, copy.seed);
	return HELD;
}

static int copy_child(void *argument)
{
	struct copy copy = *(struct copy *)argument;
	fill(copy.memory, copy.length, copy.seed);
	CHECK(holds(copy.memory, copy.length, copy.seed));
	return copy.depth > 0 ? copy_once(copy) : HELD;
}

int part_cow(void)
{
	struct copy copy = { .length = 192 * PAGE, .depth = 3, .seed = 2 };
	copy.memory = pages(copy.length / PAGE);
	CHECK(copy.memory != MAP_FAILED);
	fill(copy.memory, copy.length, copy.seed);
	int rounds = scaled(3);
	for (int i = 0; i < rounds; i++)
		CHECK(copy_once(copy) == HELD);
	return HELD;
}

// Every forbidden access faults at its own address with the right reason; contents stay.
int part_protect(void)
{
	enum { PAGES = 64 };
	int rounds = scaled(100);
	unsigned char *memory = pages(PAGES);
	CHECK(memory != MAP_FAILED);
	for (int round = 1; round <= rounds; round++) {
		unsigned char *victim = memory + round * 7 % PAGES * PAGE;
		fill(memory, PAGES * PAGE, round);
		CHECK(mprotect(victim, PAGE, PROT_READ) == 0);
		CHECK(faulting(act_read, victim + 9) == 0);
		CHECK(faulting(act_write, victim + 5) == SIGSEGV);
		CHECK(fault.address == (uintptr_t)victim + 5 && fault.code == SEGV_ACCERR);
		CHECK(mprotect(victim, PAGE, PROT_NONE) == 0);
		CHECK(faulting(act_read, victim + PAGE - 1) == SIGSEGV && fault.address == (uintptr_t)victim + PAGE - 1);
		CHECK(mprotect(memory, PAGES * PAGE, PROT_READ | PROT_WRITE) == 0);
		CHECK(holds(memory, PAGES * PAGE, round));
		CHECK(munmap(victim, PAGE) == 0);
		CHECK(faulting(act_write, victim) == SIGSEGV && fault.code == SEGV_MAPERR);
		CHECK(mmap(victim, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == victim);
		CHECK(victim[0] == 0 && victim[PAGE - 1] == 0);
	}
	return HELD;
}

// mremap keeps contents, madvise discards them, and a shared mapping is shared with children.
int part_remap(void)
{
	enum { PAGES = 96 };
	size_t length = PAGES * PAGE;
	int rounds = scaled(20);
	for (int round = 1; round <= rounds; round++) {
		unsigned char *memory = pages(PAGES);
		CHECK(memory != MAP_FAILED);
		fill(memory, length, round);
		unsigned char *moved = mremap(memory, length, 2 * length, MREMAP_MAYMOVE);
		CHECK(moved != MAP_FAILED && holds(moved, length, round));
		CHECK(moved[length] == 0 && moved[2 * length - 1] == 0);
		CHECK(madvise(moved + PAGE, PAGE, MADV_DONTNEED) == 0);
		CHECK(moved[PAGE] == 0 && moved[2 * PAGE - 1] == 0 && holds(moved, PAGE, round));
		fill(moved, length, round + 1);
		CHECK(mremap(moved, 2 * length, length, 0) == moved && holds(moved, length, round + 1));
		CHECK(faulting(act_read, moved + length) == SIGSEGV);
		CHECK(munmap(moved, length) == 0);
	}
	unsigned char *shared = mmap(0, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(shared != MAP_FAILED);
	for (uint32_t round = 1; round <= 8; round++) {
		pid_t child = fork();
		CHECK(child >= 0);
		if (child == 0) {
			fill(shared, length, round);
			_exit(0);
		}
		CHECK(held(child) == HELD && holds(shared, length, round));
	}
	return HELD;
}

// Code written at run time runs; data does not run where the processor can tell.
int part_code(void)
{
	// mov eax, imm32; ret
	static const unsigned char code[] = { 0xb8, 0, 0, 0, 0, 0xc3 };
	int rounds = scaled(300);
	unsigned char *memory = pages(1);
	CHECK(memory != MAP_FAILED);
	for (int i = 1; i <= rounds; i++) {
		CHECK(mprotect(memory, PAGE, PROT_READ | PROT_WRITE) == 0);
		unsigned char *at = memory + i * 16 % (PAGE - 16);
		memcpy(at, code, sizeof code);
		memcpy(at + 1, &i, sizeof i);
		if (i % 10 == 1 && strstr(text_of("/proc/cpuinfo"), " nx ")) {
			CHECK(faulting(act_call, at) == SIGSEGV && fault.address == (uintptr_t)at);
		}
		CHECK(mprotect(memory, PAGE, PROT_READ | PROT_EXEC) == 0);
		CHECK(((int (*)(void))(uintptr_t)at)() == i);
		CHECK(faulting(act_write, at) == SIGSEGV);
	}
	return HELD;
}

// A good part of the free memory, written and read again; pages arrive zeroed.
int part_fill(void)
{
	long kib = 0;
	const char *line = strstr(text_of("/proc/meminfo"), "MemAvailable:");
	CHECK(line && sscanf(line, "MemAvailable: %ld", &kib) == 1);
	size_t count = (size_t)kib / 4 / 2;
	if (count > (size_t)scaled(12 * 1024 * 1024 / PAGE))
		count = (size_t)scaled(12 * 1024 * 1024 / PAGE);
	for (uint32_t round = 1; round < 3; round++) {
		unsigned char *memory = pages(count);
		CHECK(memory != MAP_FAILED);
		for (size_t i = 0; i < count; i++)
			for (size_t k = 0; k < PAGE; k += 512)
				CHECK(memory[i * PAGE + k] == 0);
		for (size_t i = 0; i < count; i++)
			fill(memory + i * PAGE, PAGE, (uint32_t)i * round);
		for (size_t i = 0; i < count; i++)
			CHECK(holds(memory + i * PAGE, PAGE, (uint32_t)i * round));
		CHECK(munmap(memory, count * PAGE) == 0);
	}
	return HELD;
}
