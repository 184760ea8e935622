// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Page tables at work: first touches, copies on write, changed protections, mappings made and undone.

#include "bench.h"

#define PAGES 64

static char *map(size_t pages)
{
	char *memory = mmap(0, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(memory != MAP_FAILED);
	return memory;
}

static void map_and_touch(long count)
{
	while (count--) {
		volatile char *memory = map(1);
		*memory = 1;
		munmap((void *)memory, PAGE);
	}
}

// A page at a time out of a mapping of many.
static void page_fault(long count)
{
	while (count > 0) {
		volatile char *memory = map(PAGES);
		for (int page = 0; page < PAGES && count > 0; page++, count--)
			memory[page * PAGE] = 1;
		munmap((void *)memory, PAGES * PAGE);
	}
}

// Each operation is a child that writes to all pages of the mapping, and nothing else: its making is measured by another
// row, and small beside so many pages. The mapping stays, so that its making is no part of a short batch.
static void copy_on_write(long count)
{
	static volatile char *memory;
	if (!memory) {
		memory = map(PAGES);
		memset((void *)memory, 1, PAGES * PAGE);
	}
	while (count--) {
		pid_t child = fork();
		CHECK(child >= 0);
		if (child == 0) {
			for (int page = 0; page < PAGES; page++)
				memory[page * PAGE] = 2;
			_exit(0);
		}
		CHECK(waitpid(child, 0, 0) == child);
	}
}

static void protect_pair(long count)
{
	char *memory = map(16);
	memset(memory, 1, 16 * PAGE);
	while (count--) {
		mprotect(memory, 16 * PAGE, PROT_READ);
		mprotect(memory, 16 * PAGE, PROT_READ | PROT_WRITE);
	}
	munmap(memory, 16 * PAGE);
}

void memory_rows(void)
{
	measure("map-touch-unmap", map_and_touch);
	measure("page-fault", page_fault);
	measure_each("copy-on-write", copy_on_write, PAGES);
	measure("mprotect-16-pages", protect_pair);
}
