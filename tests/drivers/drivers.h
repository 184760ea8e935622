// SPDX-License-Identifier: MIT OR Apache-2.0
//
// What the driver tests share: how they report, and the pattern that they write, which the host checks too.

#pragma once
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define BLOCK 4096

// Says what did not hold, and ends the program.
_Noreturn void fail(const char *condition, const char *file, int line);
#define CHECK(condition)                                                                                              \
	do {                                                                                                          \
		if (!(condition))                                                                                     \
			fail(#condition, __FILE__, __LINE__);                                                         \
	} while (0)

// The pattern: one 64-bit word for each index, given by the seed. xtask/src/devices.rs has the same.
uint64_t word_of(uint64_t seed, uint64_t index);
// Fills memory with the pattern from this byte offset, a multiple of 8.
void fill(void *memory, size_t length, uint64_t seed, uint64_t offset);
// Ends the program if the memory does not hold it.
void verify(const void *memory, size_t length, uint64_t seed, uint64_t offset);
uint32_t next(uint32_t *state);
double seconds(void);

// Each takes the words after its name.
int test_disk(int argc, char **argv);
int test_net(int argc, char **argv);
int test_keys(int argc, char **argv);
int test_rtc(int argc, char **argv);
int test_framebuffer(int argc, char **argv);
