// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Reporting, child processes, provoked faults, patterns and clocks for all parts.

#include "workload.h"
#include <cpuid.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/wait.h>

char *why, *remark;
_Thread_local struct fault fault;
static _Thread_local sigjmp_buf fault_return;

static void say(char *where, const char *format, va_list arguments)
{
	if (!where[0])
		vsnprintf(where, 300, format, arguments);
}

void explain(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	say(why, format, arguments);
	va_end(arguments);
}

void note(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	say(remark, format, arguments);
	va_end(arguments);
}

int failed(const char *condition, const char *file, int line)
{
	int error = errno;
	const char *name = strrchr(file, '/');
	explain("%s (%s:%d, errno %d)", condition, name ? name + 1 : file, line, error);
	return FAILED;
}

pid_t start(int (*body)(void *), void *argument)
{
	pid_t child = fork();
	if (child == 0)
		_exit(body(argument) == HELD ? 0 : 1);
	return child;
}

int held(pid_t child)
{
	int status;
	pid_t result;
	CHECK(child > 0);
	while ((result = waitpid(child, &status, 0)) < 0 && errno == EINTR)
		;
	CHECK(result == child);
	if (WIFSIGNALED(status))
		explain("a child died of signal %d", WTERMSIG(status));
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	return HELD;
}

static void on_fault(int number, siginfo_t *info, void *context)
{
	(void)context;
	fault = (struct fault){ number, info->si_code, (uintptr_t)info->si_addr };
	siglongjmp(fault_return, 1);
}

int faulting(void (*act)(volatile void *), volatile void *argument)
{
	static const int faults[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP };
	struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	for (size_t i = 0; i < COUNT(faults); i++)
		sigaction(faults[i], &action, 0);
	fault = (struct fault){ 0 };
	if (sigsetjmp(fault_return, 1) == 0)
		act(argument);
	return fault.signal;
}

void act_read(volatile void *at) { (void)*(volatile unsigned char *)at; }
void act_write(volatile void *at) { *(volatile unsigned char *)at = 0xa5; }
void act_call(volatile void *at) { ((void (*)(void))(uintptr_t)at)(); }

uint32_t next(uint32_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	*state ^= *state << 5;
	return *state;
}

void fill(void *memory, size_t length, uint32_t seed)
{
	uint32_t state = seed * 2654435761u | 1;
	for (uint32_t *at = memory; length >= sizeof *at; length -= sizeof *at)
		*at++ = next(&state);
}

int holds(const void *memory, size_t length, uint32_t seed)
{
	uint32_t state = seed * 2654435761u | 1;
	for (const uint32_t *at = memory; length >= sizeof *at; length -= sizeof *at, at++)
		if (*at != next(&state))
			return 0;
	return 1;
}

void *pages(size_t count)
{
	return mmap(0, count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

int64_t now(clockid_t clock)
{
	struct timespec time;
	clock_gettime(clock, &time);
	return (int64_t)time.tv_sec * SECOND + time.tv_nsec;
}

void pause_ns(int64_t time)
{
	struct timespec left = { .tv_sec = (time_t)(time / SECOND), .tv_nsec = (long)(time % SECOND) };
	while (nanosleep(&left, &left) < 0 && errno == EINTR)
		;
}

int online(void) { return (int)sysconf(_SC_NPROCESSORS_ONLN); }

int run_on(int cpu)
{
	cpu_set_t set;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	int result = sched_setaffinity(0, sizeof set, &set);
	return result != 0 && errno == EINVAL && cpu < sysconf(_SC_NPROCESSORS_CONF) ? 0 : result;
}

int emulated(void)
{
	unsigned a, b, c, d;
	char name[13] = { 0 };
	__cpuid(1, a, b, c, d);
	if (!(c & 1u << 31))
		return 0;
	__cpuid(0x40000000, a, b, c, d);
	memcpy(name, &b, 4);
	memcpy(name + 4, &c, 4);
	memcpy(name + 8, &d, 4);
	return strcmp(name, "TCGTCGTCGTCG") == 0;
}

const char *text_of(const char *path)
{
	static char text[256 * 1024];
	size_t length = 0;
	ssize_t got;
	int file = open(path, O_RDONLY);
	while (file >= 0 && (got = read(file, text + length, sizeof text - 1 - length)) > 0)
		length += (size_t)got;
	if (file >= 0)
		close(file);
	text[length] = 0;
	return text;
}
