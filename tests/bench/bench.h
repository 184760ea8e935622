// SPDX-License-Identifier: MIT OR Apache-2.0
//
// What all rows of the benchmark share: each is a function that does its operation so many times.

#pragma once
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096

// Ends the program and says why.
_Noreturn void fail(const char *condition, const char *file, int line);
#define CHECK(condition)                                                                                              \
	do {                                                                                                          \
		if (!(condition))                                                                                     \
			fail(#condition, __FILE__, __LINE__);                                                         \
	} while (0)

// The words `NAME=VALUE` of the command line; null when there is none.
const char *setting(const char *name);
// Prints a row: nanoseconds for one operation.
void row(const char *name, double ns);
// True when this row was asked for.
int wanted(const char *name);
// Measures an operation that `run` does `count` times: the best of several batches, each long enough for the clock.
void measure(const char *name, void (*run)(long count));
// The same for an operation of so many equal parts: the figure is one part's.
void measure_each(const char *name, void (*run)(long count), int parts);
int64_t now(void);
uint32_t next(uint32_t *state);

void processor_rows(void);
void process_rows(void);
void memory_rows(void);
void disk_rows(void);
void net_rows(void);
void wakeup_rows(void);
