// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Page tables change under running threads: once a call that takes a right away has returned, no thread on any CPU
// may use it any more.

#include "workload.h"
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/wait.h>

enum { THREADS = 4 };

static volatile long *counters;
static atomic_int stop;

static void act_count(volatile void *at)
{
	while (!atomic_load_explicit(&stop, memory_order_relaxed))
		++*(volatile long *)at;
}

static void *counting(void *argument)
{
	while (!atomic_load(&stop))
		if (faulting(act_count, argument))
			sched_yield();
	return 0;
}

static int count_threads(pthread_t *thread, size_t stride)
{
	atomic_store(&stop, 0);
	for (size_t i = 0; i < THREADS; i++)
		CHECK(pthread_create(&thread[i], 0, counting, (char *)counters + i * stride) == 0);
	return HELD;
}

static void stop_threads(pthread_t *thread)
{
	atomic_store(&stop, 1);
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], 0);
}

static int frozen(int round)
{
	long before[THREADS];
	for (int i = 0; i < THREADS; i++)
		before[i] = counters[i];
	if (round % 8 == 0)
		pause_ns(MS);
	for (int spin = 0; spin < 200; spin++)
		for (int i = 0; i < THREADS; i++)
			CHECK(counters[i] == before[i]);
	return HELD;
}

// Threads count in a page that is made read-only again and again: then the numbers stand still.
int part_shootdown(void)
{
	pthread_t thread[THREADS];
	int64_t end = now(CLOCK_MONOTONIC) + scaled(500) * MS;
	long moved = 0;
	counters = pages(1);
	CHECK(counters != MAP_FAILED);
	CHECK(count_threads(thread, sizeof *counters) == HELD);
	for (int round = 0; now(CLOCK_MONOTONIC) < end || !moved; round++) {
		long before = counters[0];
		CHECK(mprotect((void *)counters, PAGE, PROT_READ) == 0);
		CHECK(frozen(round) == HELD);
		CHECK(mprotect((void *)counters, PAGE, PROT_READ | PROT_WRITE) == 0);
		if (round % 4 == 0)
			pause_ns(MS);
		moved += counters[0] != before;
	}
	stop_threads(thread);
	return HELD;
}

static _Atomic uint32_t generation;
static atomic_int stale;

static void act_compare(volatile void *at)
{
	while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
		uint32_t least = atomic_load(&generation);
		if (*(volatile uint32_t *)at < least)
			atomic_store(&stale, 1);
	}
}

static void *comparing(void *argument)
{
	while (!atomic_load(&stop))
		faulting(act_compare, argument);
	return 0;
}

// A page is replaced by a newer one at the same place: nobody reads the old one afterwards.
int part_replace(void)
{
	pthread_t thread[THREADS];
	int64_t end = now(CLOCK_MONOTONIC) + scaled(500) * MS;
	uint32_t *place = pages(1);
	CHECK(place != MAP_FAILED);
	atomic_store(&stop, 0);
	for (size_t i = 0; i < THREADS; i++)
		CHECK(pthread_create(&thread[i], 0, comparing, place + i) == 0);
	for (uint32_t round = 1; now(CLOCK_MONOTONIC) < end && !atomic_load(&stale); round++) {
		uint32_t *fresh = pages(1);
		CHECK(fresh != MAP_FAILED);
		for (size_t i = 0; i < PAGE / sizeof *fresh; i++)
			fresh[i] = round;
		CHECK(mremap(fresh, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, place) == place);
		atomic_store(&generation, round);
		if (round % 16 == 0)
			pause_ns(MS);
	}
	stop_threads(thread);
	CHECK(!atomic_load(&stale));
	return HELD;
}

static int still(void *argument)
{
	(void)argument;
	return frozen(8);
}

// A fork amid writing threads: the child's copy stands still.
int part_snapshot(void)
{
	pthread_t thread[THREADS];
	int rounds = scaled(10);
	counters = pages(1);
	CHECK(counters != MAP_FAILED);
	CHECK(count_threads(thread, sizeof *counters) == HELD);
	for (int round = 0; round < rounds; round++) {
		pid_t child[2] = { start(still, 0), start(still, 0) };
		CHECK(held(child[0]) == HELD);
		CHECK(held(child[1]) == HELD);
	}
	stop_threads(thread);
	return HELD;
}
