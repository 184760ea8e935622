// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Clocks and timers: sleeps last as long as asked, time never runs backwards on any CPU, clocks agree with each other.

#include "workload.h"
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/timerfd.h>

// Sleeps are never too short; the best of each length is close to it.
int part_sleep(void)
{
	static const long lengths[] = { 1, 3, 10, 50 };
	int64_t worst = 0;
	for (size_t k = 0; k < COUNT(lengths); k++) {
		int64_t best = INT64_MAX;
		for (int i = 0; i < 10; i++) {
			int64_t before = now(CLOCK_MONOTONIC);
			pause_ns(lengths[k] * MS);
			int64_t over = now(CLOCK_MONOTONIC) - before - lengths[k] * MS;
			CHECK(over >= 0 && over < late(3 * SECOND));
			best = over < best ? over : best;
		}
		CHECK(best < late(10 * MS));
		worst = best > worst ? best : worst;
	}
	int64_t before = now(CLOCK_MONOTONIC);
	struct timespec end = { .tv_sec = (time_t)(before / SECOND) + 1, .tv_nsec = (long)(before % SECOND) };
	CHECK(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &end, 0) == 0);
	int64_t took = now(CLOCK_MONOTONIC) - before;
	CHECK(took >= SECOND && took < late(4 * SECOND));
	note("late by %ld us at best", (long)(worst / 1000));
	return HELD;
}

static _Atomic int64_t newest;
static atomic_int behind;
static int64_t sampling_end;
static _Atomic long samples;

static void *sampling(void *argument)
{
	long taken = 0;
	if (run_on((int)(intptr_t)argument) != 0)
		return 0;
	for (;;) {
		int64_t least = atomic_load(&newest), time = now(CLOCK_MONOTONIC);
		if (time < least) {
			explain("%ld ns behind another CPU's clock", (long)(least - time));
			atomic_store(&behind, 1);
		}
		while (least < time && !atomic_compare_exchange_weak(&newest, &least, time))
			;
		taken++;
		if (time > sampling_end || atomic_load(&behind))
			break;
		if (taken % 1000 == 0)
			sched_yield();
	}
	atomic_fetch_add(&samples, taken);
	return (void *)1;
}

// A second of sampling on every CPU at once: no clock is behind what any CPU has seen. Then one thread moves about.
int part_monotonic(void)
{
	pthread_t thread[64];
	int cpus = online() < 64 ? online() : 64;
	sampling_end = now(CLOCK_MONOTONIC) + scaled(1000) * MS;
	for (intptr_t i = 0; i < cpus; i++)
		CHECK(pthread_create(&thread[i], 0, sampling, (void *)i) == 0);
	for (int i = 0; i < cpus; i++) {
		void *fine;
		CHECK(pthread_join(thread[i], &fine) == 0);
		CHECK(fine);
	}
	if (atomic_load(&behind))
		return FAILED;
	CHECK(atomic_load(&samples) >= cpus);
	int64_t last = now(CLOCK_MONOTONIC);
	for (int i = 0; i < scaled(100); i++) {
		CHECK(run_on(i % cpus) == 0);
		for (int k = 0; k < 20; k++) {
			int64_t time = now(CLOCK_MONOTONIC);
			CHECK(time >= last);
			last = time;
		}
	}
	note("%ld samples on %d CPU(s)", atomic_load(&samples), cpus);
	return HELD;
}

// The date is plausible, and wall clock, boot clock, raw clock and TSC advance together.
int part_wallclock(void)
{
	static const clockid_t clocks[] = { CLOCK_REALTIME, CLOCK_BOOTTIME, CLOCK_MONOTONIC_RAW, CLOCK_MONOTONIC_COARSE };
	int64_t before[COUNT(clocks)], year2024 = 1704067200 * SECOND;
	CHECK(now(CLOCK_REALTIME) > year2024 && now(CLOCK_REALTIME) < year2024 + 80 * 366 * 86400LL * SECOND);
	int64_t start = now(CLOCK_MONOTONIC);
	uint64_t tsc = __builtin_ia32_rdtsc();
	for (size_t i = 0; i < COUNT(clocks); i++)
		before[i] = now(clocks[i]);
	pause_ns(500 * MS);
	for (size_t i = 0; i < COUNT(clocks); i++) {
		int64_t advanced = now(clocks[i]) - before[i], elapsed = now(CLOCK_MONOTONIC) - start;
		if (llabs(advanced - elapsed) > late(50 * MS)) {
			explain("clock %d advanced %ld us in %ld us", (int)clocks[i], (long)(advanced / 1000), (long)(elapsed / 1000));
			return FAILED;
		}
	}
	CHECK(__builtin_ia32_rdtsc() > tsc);
	long uptime = 0;
	CHECK(sscanf(text_of("/proc/uptime"), "%ld", &uptime) == 1);
	CHECK(llabs(uptime - (long long)(now(CLOCK_BOOTTIME) / SECOND)) <= 2);
	return HELD;
}

// Periodic timerfds count their expirations; several at different paces; POSIX timers likewise.
int part_timerfd(void)
{
	enum { TIMERS = 8 };
	struct pollfd wait[TIMERS];
	uint64_t fired[TIMERS] = { 0 };
	int64_t set[TIMERS], before = now(CLOCK_MONOTONIC);
	for (int i = 0; i < TIMERS; i++) {
		struct itimerspec pace = { .it_interval = { 0, (i + 2) * 5 * MS }, .it_value = { 0, (i + 2) * 5 * MS } };
		wait[i] = (struct pollfd){ .fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK), .events = POLLIN };
		CHECK(wait[i].fd >= 0 && timerfd_settime(wait[i].fd, 0, &pace, 0) == 0);
		set[i] = now(CLOCK_MONOTONIC);
	}
	while (now(CLOCK_MONOTONIC) - before < 600 * MS) {
		CHECK(poll(wait, TIMERS, 5000) > 0);
		for (int i = 0; i < TIMERS; i++) {
			uint64_t times;
			if (wait[i].revents & POLLIN && read(wait[i].fd, &times, sizeof times) == sizeof times)
				fired[i] += times;
		}
	}
	for (int i = 0; i < TIMERS; i++) {
		uint64_t times;
		// What is read after the next expiration counts every period up to the moment of reading.
		CHECK(poll(&wait[i], 1, 5000) == 1);
		int64_t earliest = now(CLOCK_MONOTONIC);
		CHECK(read(wait[i].fd, &times, sizeof times) == sizeof times);
		fired[i] += times;
		uint64_t least = (uint64_t)((earliest - set[i]) / ((i + 2) * 5 * MS));
		uint64_t most = (uint64_t)((now(CLOCK_MONOTONIC) - before) / ((i + 2) * 5 * MS));
		CHECK(fired[i] >= least && fired[i] <= most);
		close(wait[i].fd);
	}
	return HELD;
}

// Time used: a sleeper uses none, one who works uses no more than passes.
int part_cputime(void)
{
	int64_t used = now(CLOCK_PROCESS_CPUTIME_ID);
	pause_ns(200 * MS);
	CHECK(now(CLOCK_PROCESS_CPUTIME_ID) - used < late(100 * MS));
	int64_t start = now(CLOCK_MONOTONIC);
	used = now(CLOCK_PROCESS_CPUTIME_ID);
	while (now(CLOCK_MONOTONIC) - start < 200 * MS)
		;
	used = now(CLOCK_PROCESS_CPUTIME_ID) - used;
	CHECK(used > 0 && used <= now(CLOCK_MONOTONIC) - start + 10 * MS);
	return HELD;
}
