// SPDX-License-Identifier: MIT OR Apache-2.0
//
// A userland workload that verifies its own results: what a kernel's memory management, traps, context switches and
// timers have to get right, asked from outside. Built for 64 and for 32 bits.
//
//     workload [--scale PERCENT] [--loaded] [PART...]
//
// Runs the parts named (all, if none) one after the other, each in a process group of its own under a time limit.
// With --loaded, other programs keep the CPUs busy, and what waits may be late.
// Prints "ok NAME (time)", "skip NAME: why" or "not ok NAME: why" for each; exit status 0 when none failed.

#include "workload.h"
#include <sys/wait.h>

#define LIMIT ((int)late(200))
#define BITS ((int)(8 * sizeof(long)))

const char *self;

static const struct part {
	const char *name;
	int (*run)(void);
} parts[] = {
#define LIST(name) { #name, part_##name },
	PARTS(LIST)
#undef LIST
};

static int percent = 100;
static int loaded;

int scaled(int full)
{
	long long value = (long long)full * percent / 100;
	return value < 1 ? 1 : value > 1 << 30 ? 1 << 30 : (int)value;
}

int64_t late(int64_t limit) { return loaded ? 20 * limit : limit; }

void shorten(int divisor) { percent = percent < divisor ? 1 : percent / divisor; }

// Waits for the part's process; kills the whole group when the time is up.
static int await(pid_t child)
{
	int status;
	int64_t end = now(CLOCK_MONOTONIC) + LIMIT * SECOND;
	sigset_t done;
	sigemptyset(&done);
	sigaddset(&done, SIGCHLD);
	while (waitpid(child, &status, WNOHANG) == 0) {
		struct timespec left = { .tv_sec = 1 };
		if (now(CLOCK_MONOTONIC) > end) {
			explain("not done after %d s", LIMIT);
			kill(-child, SIGKILL);
			waitpid(child, &status, 0);
			return FAILED;
		}
		sigtimedwait(&done, 0, &left);
	}
	kill(-child, SIGKILL);
	if (WIFEXITED(status))
		return WEXITSTATUS(status) == 0 ? HELD : WEXITSTATUS(status) == SKIPPED ? SKIPPED : FAILED;
	explain("died of signal %d", WTERMSIG(status));
	return FAILED;
}

static int run(const struct part *part)
{
	int64_t before = now(CLOCK_MONOTONIC);
	why[0] = remark[0] = 0;
	fflush(stdout);
	pid_t child = fork();
	if (child == 0) {
		sigset_t none;
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, 0);
		setpgid(0, 0);
		_exit((unsigned char)part->run());
	}
	if (child > 0)
		setpgid(child, child);
	int result = child < 0 ? failed("fork", __FILE__, __LINE__) : await(child);
	int took = (int)((now(CLOCK_MONOTONIC) - before) / MS);
	if (result == HELD)
		printf("ok %s-%d (%d ms)%s%s\n", part->name, BITS, took, remark[0] ? ": " : "", remark);
	else
		printf("%s %s-%d: %s\n", result == SKIPPED ? "skip" : "not ok", part->name, BITS, why[0] ? why : "no reason given");
	return result;
}

static int wanted(const struct part *part, int count, char **names)
{
	for (int i = 0; i < count; i++)
		if (strcmp(names[i], part->name) == 0)
			return 1;
	return count == 0;
}

int main(int argc, char **argv)
{
	int tally[3] = { 0 };
	sigset_t done;
	if (argc == 3 && strcmp(argv[1], "--exit") == 0)
		return atoi(argv[2]);
	self = argv[0];
	argc--, argv++;
	if (argc > 1 && strcmp(argv[0], "--scale") == 0) {
		percent = atoi(argv[1]);
		argc -= 2, argv += 2;
	}
	if (argc > 0 && strcmp(argv[0], "--loaded") == 0) {
		loaded = 1;
		argc--, argv++;
	}
	if (percent < 1 || percent > 100000) {
		fprintf(stderr, "--scale takes a percentage from 1 to 100000\n");
		return 2;
	}
	why = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (why == MAP_FAILED)
		return 2;
	remark = why + PAGE / 2;
	sigemptyset(&done);
	sigaddset(&done, SIGCHLD);
	sigprocmask(SIG_BLOCK, &done, 0);
	for (size_t i = 0; i < COUNT(parts); i++)
		if (wanted(&parts[i], argc, argv))
			tally[run(&parts[i]) + 1]++;
	printf("workload-%d: %d held, %d failed, %d skipped\n", BITS, tally[1], tally[0], tally[2]);
	return tally[0] || !tally[1];
}
