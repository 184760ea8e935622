// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Signals: alternate and overflowing stacks, nesting, queues, storms between processes, periodic alarms.

#include "workload.h"
#include <pthread.h>
#include <sys/signalfd.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>

static volatile sig_atomic_t depth, deepest, received;
static unsigned char *alternate;
static volatile int misplaced;

enum { STACK = 256 * 1024 };

static void on_nested(int number)
{
	unsigned char here;
	depth++;
	received++;
	if (&here < alternate || &here >= alternate + STACK)
		misplaced = 1;
	if (depth > deepest)
		deepest = depth;
	if (depth < 20)
		raise(number);
	depth--;
}

static int __attribute__((noinline)) overflow(volatile int level)
{
	volatile char frame[1024];
	frame[level % 1024] = 1;
	return level < 0 ? 0 : overflow(level + 1) + frame[0];
}

static void act_overflow(volatile void *unused)
{
	(void)unused;
	overflow(0);
}

static int install(int number, void (*handler)(int), int flags)
{
	struct sigaction action = { .sa_handler = handler, .sa_flags = flags };
	return sigaction(number, &action, 0);
}

// Nested signals on an alternate stack, and a stack overflow that is survived on it.
int part_altstack(void)
{
	alternate = pages(STACK / PAGE);
	CHECK(alternate != MAP_FAILED);
	stack_t stack = { .ss_sp = alternate, .ss_size = STACK };
	CHECK(sigaltstack(&stack, 0) == 0);
	CHECK(install(SIGUSR1, on_nested, SA_ONSTACK | SA_NODEFER) == 0);
	int rounds = scaled(200);
	for (int i = 0; i < rounds; i++)
		raise(SIGUSR1);
	CHECK(received == 20 * rounds && deepest == 20 && depth == 0 && !misplaced);
	for (int i = 0; i < 3; i++) {
		CHECK(faulting(act_overflow, 0) == SIGSEGV);
		CHECK(sigaltstack(0, &stack) == 0 && stack.ss_flags == 0);
	}
	return HELD;
}

static volatile long sum, arrived, order;

static void on_queued(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)context;
	if (info->si_code != SI_QUEUE || info->si_pid != getpid())
		order = -1;
	if (order >= 0 && info->si_value.sival_int != order++)
		order = -1;
	sum += info->si_value.sival_int;
	arrived++;
}

// Real-time signals queue up while blocked and arrive in order with their values; signalfd reads them too.
int part_queue(void)
{
	struct sigaction action = { .sa_sigaction = on_queued, .sa_flags = SA_SIGINFO };
	int count = scaled(300) < 500 ? scaled(300) : 500;
	sigset_t set;
	CHECK(sigaction(SIGRTMIN, &action, 0) == 0);
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN);
	CHECK(sigprocmask(SIG_BLOCK, &set, 0) == 0);
	for (int i = 0; i < count; i++)
		CHECK(sigqueue(getpid(), SIGRTMIN, (union sigval){ .sival_int = i }) == 0);
	CHECK(arrived == 0);
	CHECK(sigprocmask(SIG_UNBLOCK, &set, 0) == 0);
	CHECK(arrived == count && order == count && sum == count * (count - 1) / 2);
	CHECK(sigprocmask(SIG_BLOCK, &set, 0) == 0);
	int file = signalfd(-1, &set, SFD_CLOEXEC);
	CHECK(file >= 0);
	for (int i = 0; i < count; i++) {
		struct signalfd_siginfo info;
		CHECK(sigqueue(getpid(), SIGRTMIN, (union sigval){ .sival_int = i }) == 0);
		CHECK(read(file, &info, sizeof info) == sizeof info && info.ssi_int == i);
	}
	return HELD;
}

static void on_plain(int number)
{
	(void)number;
	received++;
}

static volatile uintptr_t registers_wrong;

// Counts in a register and checks it against memory while signals come in.
static void count_along(long limit)
{
	for (volatile long i = 0; i < limit; i++) {
		unsigned long in = 0x5a5a0000u + (unsigned long)i, out = in;
		for (int spin = 0; spin < 50; spin++)
			__asm__ volatile("not %0\n\tnot %0" : "+r"(out) : : "cc");
		if (in != out)
			registers_wrong = 1;
	}
}

// Another process shoots signals at this one, which keeps its registers.
int part_storm(void)
{
	enum { SHOTS = 3000 };
	pid_t parent = getpid();
	CHECK(install(SIGUSR1, on_plain, SA_RESTART) == 0);
	pid_t child = fork();
	CHECK(child >= 0);
	if (child == 0) {
		for (int i = 0; i < scaled(SHOTS); i++) {
			kill(parent, SIGUSR1);
			if (i % 50 == 0)
				pause_ns(MS / 10);
		}
		_exit(0);
	}
	int status;
	while (waitpid(child, &status, WNOHANG) == 0)
		count_along(2000);
	CHECK(status == 0 && received > 0 && !registers_wrong);
	return HELD;
}

static volatile long beats;

static void on_alarm(int number, siginfo_t *info, void *context)
{
	ucontext_t *where = context;
	(void)info;
	if (number == SIGALRM && where->uc_stack.ss_size < (1u << 30))
		beats++;
}

// Alarms beat at their pace, in real time and in time used; alarm(1) takes a second.
int part_alarm(void)
{
	struct sigaction action = { .sa_sigaction = on_alarm, .sa_flags = SA_SIGINFO | SA_RESTART };
	struct itimerval beat = { { 0, 10000 }, { 0, 10000 } }, off = { { 0, 0 }, { 0, 0 } };
	CHECK(sigaction(SIGALRM, &action, 0) == 0);
	int64_t before = now(CLOCK_MONOTONIC);
	CHECK(setitimer(ITIMER_REAL, &beat, 0) == 0);
	while (beats < 30 && now(CLOCK_MONOTONIC) - before < late(20 * SECOND))
		count_along(100);
	CHECK(setitimer(ITIMER_REAL, &off, 0) == 0);
	CHECK(beats >= 30 && !registers_wrong);
	CHECK(now(CLOCK_MONOTONIC) - before >= 295 * MS);
	beats = 0;
	before = now(CLOCK_MONOTONIC);
	alarm(1);
	while (beats == 0 && now(CLOCK_MONOTONIC) - before < late(20 * SECOND))
		pause();
	int64_t took = now(CLOCK_MONOTONIC) - before;
	CHECK(beats == 1 && took >= 990 * MS && took < late(5 * SECOND));
	received = 0;
	CHECK(install(SIGVTALRM, on_plain, SA_RESTART) == 0);
	CHECK(setitimer(ITIMER_VIRTUAL, &beat, 0) == 0);
	before = now(CLOCK_MONOTONIC);
	while (received < 5 && now(CLOCK_MONOTONIC) - before < late(20 * SECOND))
		count_along(100);
	CHECK(setitimer(ITIMER_VIRTUAL, &off, 0) == 0);
	CHECK(received >= 5 && !registers_wrong);
	return HELD;
}
