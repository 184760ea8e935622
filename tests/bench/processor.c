// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Into the kernel and back: system calls, signals, the clock; and a loop that stays outside, as a scale.

#include "bench.h"
#include <sys/syscall.h>

static int zero;

static void loop(long count)
{
	for (volatile long i = 0; i < 1000 * count; i++)
		;
}

static void null_syscall(long count)
{
	while (count--)
		syscall(SYS_getppid);
}

static void read_byte(long count)
{
	char byte;
	while (count--)
		CHECK(read(zero, &byte, 1) == 1);
}

static void read_clock(long count)
{
	while (count--)
		now();
}

static void nothing(int number) { (void)number; }

static void self_signal(long count)
{
	signal(SIGUSR1, nothing);
	pid_t self = getpid();
	while (count--)
		kill(self, SIGUSR1);
}

static void *guarded;

static void unguard(int number, siginfo_t *info, void *context)
{
	(void)number, (void)info, (void)context;
	mprotect(guarded, PAGE, PROT_READ | PROT_WRITE);
}

static void fault_signal(long count)
{
	struct sigaction action = { .sa_sigaction = unguard, .sa_flags = SA_SIGINFO };
	sigaction(SIGSEGV, &action, 0);
	guarded = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	while (count--) {
		mprotect(guarded, PAGE, PROT_READ);
		*(volatile char *)guarded = 1;
	}
	munmap(guarded, PAGE);
	signal(SIGSEGV, SIG_DFL);
}

void processor_rows(void)
{
	zero = open("/dev/zero", O_RDONLY);
	CHECK(zero >= 0);
	measure("loop", loop);
	measure("syscall", null_syscall);
	measure("read-byte", read_byte);
	measure("clock", read_clock);
	measure("signal", self_signal);
	measure("fault-signal", fault_signal);
}
