// SPDX-License-Identifier: MIT OR Apache-2.0
//
// How late a sleeper wakes up, on an idle machine and beside two busy processes a CPU.

#include "bench.h"

#define NAPS 300
#define BUSY 64

static int compare(const void *left, const void *right)
{
	int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
	return a < b ? -1 : a > b;
}

static void naps(const char *median, const char *late)
{
	static int64_t lateness[NAPS];
	for (int i = 0; i < NAPS; i++) {
		int64_t wake = now() + 1000000 + i * 3701;
		struct timespec time = { .tv_sec = wake / 1000000000, .tv_nsec = wake % 1000000000 };
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, 0);
		lateness[i] = now() - wake;
	}
	qsort(lateness, NAPS, sizeof *lateness, compare);
	row(median, lateness[NAPS / 2]);
	row(late, lateness[NAPS * 95 / 100]);
}

void wakeup_rows(void)
{
	pid_t busy[BUSY];
	int count = 2 * sysconf(_SC_NPROCESSORS_ONLN);
	if (!wanted("wakeup"))
		return;
	naps("wakeup-idle", "wakeup-idle-95th");
	for (int i = 0; i < count && i < BUSY; i++) {
		busy[i] = fork();
		CHECK(busy[i] >= 0);
		if (busy[i] == 0)
			for (volatile long spin = 0;; spin++)
				;
	}
	naps("wakeup-loaded", "wakeup-loaded-95th");
	for (int i = 0; i < count && i < BUSY; i++)
		kill(busy[i], SIGKILL), waitpid(busy[i], 0, 0);
}
