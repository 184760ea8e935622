// SPDX-License-Identifier: MIT OR Apache-2.0
//
// What all parts of the workload share: how a part reports, how it starts processes and how it provokes faults.

#pragma once
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define MS 1000000LL
#define SECOND 1000000000LL
#define COUNT(array) (sizeof(array) / sizeof *(array))

// What a part answers. Details of the latter two are in `why`.
enum { HELD = 0, FAILED = -1, SKIPPED = 1 };

// All parts, in the order in which they run.
#define PARTS(X)                                                                                                      \
	X(exec) X(vfork) X(clone)                                                                                     \
	X(cow) X(protect) X(remap) X(code) X(fill) X(shootdown) X(replace) X(snapshot)                                \
	X(mutex) X(atomic) X(futex) X(condition) X(churn) X(robust)                                                   \
	X(exceptions) X(altstack) X(queue) X(storm) X(alarm)                                                          \
	X(syscalls) X(compat) X(vdso)                                                                                 \
	X(vectors) X(vectors_signals)                                                                                 \
	X(sleep) X(monotonic) X(wallclock) X(timerfd) X(cputime)                                                      \
	X(poll) X(epoll) X(pipe) X(socket) X(tcp)                                                                     \
	X(ldt) X(ldt_code) X(tls) X(bases)                                                                            \
	X(step) X(breakpoint) X(watchpoint) X(trapflag)                                                               \
	X(file) X(truncate) X(proc) X(memfile) X(ports) X(together)

#define DECLARE(name) int part_##name(void);
PARTS(DECLARE)
#undef DECLARE

// Why a part did not hold, and what else there is to say; shared with all processes of the part. The first text stays.
extern char *why, *remark;
// The path of this program.
extern const char *self;

void explain(const char *format, ...) __attribute__((format(printf, 1, 2)));
void note(const char *format, ...) __attribute__((format(printf, 1, 2)));
int failed(const char *condition, const char *file, int line);

#define CHECK(condition)                                                                                              \
	do {                                                                                                          \
		if (!(condition))                                                                                     \
			return failed(#condition, __FILE__, __LINE__);                                                \
	} while (0)
#define SKIP(...)                                                                                                     \
	do {                                                                                                          \
		explain(__VA_ARGS__);                                                                                 \
		return SKIPPED;                                                                                       \
	} while (0)

// A count or a time, scaled as the command line asks; at least 1.
int scaled(int full);
// By how much something may be late, on a machine that is busy with other things if the command line says so.
int64_t late(int64_t limit);
// Makes the rest of this process that much shorter.
void shorten(int divisor);

// Runs `body` in a process of its own; `held` waits for it and answers what it answered.
pid_t start(int (*body)(void *), void *argument);
int held(pid_t child);

// Does `act`; returns the signal of the fault that stopped it, or 0. Details of the last one are in `fault`.
struct fault {
	int signal;
	int code;
	uintptr_t address;
};
extern _Thread_local struct fault fault;
int faulting(void (*act)(volatile void *), volatile void *argument);
void act_read(volatile void *at);
void act_write(volatile void *at);
void act_call(volatile void *at);

// Pseudo-random contents, made and checked.
uint32_t next(uint32_t *state);
void fill(void *memory, size_t length, uint32_t seed);
int holds(const void *memory, size_t length, uint32_t seed);

void *pages(size_t count);
int64_t now(clockid_t clock);
void pause_ns(int64_t time);
int online(void);
// Moves the thread to a CPU; one that is off line at the moment leaves it where it is.
int run_on(int cpu);
// Whether the processor is QEMU's own emulation, which checks no segment limits, raises no SIMD exceptions and does not
// know INT1.
int emulated(void);
// The whole text of a (small) file; empty when it cannot be read.
const char *text_of(const char *path);
