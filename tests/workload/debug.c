// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Debugging: single steps, software and hardware breakpoints, watchpoints of one process that do not stop another.

#include "workload.h"
#include <sched.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>

#ifdef __x86_64__
#define IP rip
#define ENTER "movl $39, %eax\n\tsyscall\n"
#else
#define IP eip
#define ENTER "movl $20, %eax\n\tint $0x80\n"
#endif

// The code that is stepped through: a mark at each instruction.
void stepped(void);
extern const char steps_end[];
__asm__(".text\nstepped:\n\t"
	"nop\n\tincl %eax\n\tincl %eax\n\tpushf\n\t"
#ifdef __x86_64__
	"popq %rcx\n\t"
#else
	"popl %ecx\n\t"
#endif
	ENTER "\tnop\n"
	"steps_end:\n\tret\n");
enum { STEPS = 8 };

static volatile uint32_t watched[2];

static int tracee(void *unused)
{
	(void)unused;
	CHECK(ptrace(PTRACE_TRACEME, 0, 0, 0) == 0);
	raise(SIGSTOP);
	stepped();
	for (uint32_t i = 0; i < 100; i++) {
		watched[1] = i;
		sched_yield();
	}
	watched[0] = 7;
	return HELD;
}

static int stopped_by(pid_t child, int signal)
{
	int status;
	CHECK(waitpid(child, &status, 0) == child);
	if (!WIFSTOPPED(status) || WSTOPSIG(status) != signal)
		explain("the traced process has status %#x", status);
	CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == signal);
	return HELD;
}

static uintptr_t ip_of(pid_t child)
{
	struct user_regs_struct registers = { 0 };
	ptrace(PTRACE_GETREGS, child, 0, &registers);
	return (uintptr_t)registers.IP;
}

static int set_ip(pid_t child, uintptr_t ip)
{
	struct user_regs_struct registers;
	CHECK(ptrace(PTRACE_GETREGS, child, 0, &registers) == 0);
	registers.IP = ip;
	CHECK(ptrace(PTRACE_SETREGS, child, 0, &registers) == 0);
	return HELD;
}

static pid_t traced(void)
{
	pid_t child = start(tracee, 0);
	return child > 0 && stopped_by(child, SIGSTOP) == HELD ? child : -1;
}

// Runs to `at` by an int3 put there, and takes it away again.
static int run_to(pid_t child, uintptr_t at)
{
	errno = 0;
	long word = ptrace(PTRACE_PEEKTEXT, child, at, 0);
	CHECK(errno == 0 && ptrace(PTRACE_POKETEXT, child, at, (word & ~0xffL) | 0xcc) == 0);
	CHECK(ptrace(PTRACE_CONT, child, 0, 0) == 0 && stopped_by(child, SIGTRAP) == HELD);
	CHECK(ip_of(child) == at + 1 && set_ip(child, at) == HELD);
	CHECK(ptrace(PTRACE_POKETEXT, child, at, word) == 0);
	return HELD;
}

static int finish(pid_t child)
{
	CHECK(ptrace(PTRACE_CONT, child, 0, 0) == 0);
	return held(child);
}

int part_step(void)
{
	uintptr_t begin = (uintptr_t)stepped, end = (uintptr_t)steps_end;
	int rounds = scaled(10);
	for (int i = 0; i < rounds; i++) {
		int steps = 0;
		pid_t child = traced();
		CHECK(child > 0 && run_to(child, begin) == HELD);
		for (uintptr_t ip = begin, was; ip != end; steps++) {
			was = ip;
			CHECK(ptrace(PTRACE_SINGLESTEP, child, 0, 0) == 0 && stopped_by(child, SIGTRAP) == HELD);
			ip = ip_of(child);
			CHECK(ip > was && ip <= end);
		}
		CHECK(steps == STEPS);
		CHECK(finish(child) == HELD);
	}
	// Over a system call in the C library, for some hundred steps.
	pid_t child = traced();
	CHECK(child > 0);
	for (int i = 0; i < scaled(250); i++)
		CHECK(ptrace(PTRACE_SINGLESTEP, child, 0, 0) == 0 && stopped_by(child, SIGTRAP) == HELD);
	return finish(child);
}

static int set_debug(pid_t child, int number, uintptr_t value)
{
	size_t at = offsetof(struct user, u_debugreg) + (size_t)number * sizeof(long);
	return ptrace(PTRACE_POKEUSER, child, at, value) == 0;
}

static uintptr_t get_debug(pid_t child, int number)
{
	size_t at = offsetof(struct user, u_debugreg) + (size_t)number * sizeof(long);
	return (uintptr_t)ptrace(PTRACE_PEEKUSER, child, at, 0);
}

int part_breakpoint(void)
{
	int rounds = scaled(20);
	for (int i = 0; i < rounds; i++) {
		int number = i % 4;
		pid_t child = traced();
		CHECK(child > 0);
		CHECK(set_debug(child, number, (uintptr_t)steps_end) && set_debug(child, 7, 1u << 2 * number));
		CHECK(get_debug(child, number) == (uintptr_t)steps_end);
		CHECK(ptrace(PTRACE_CONT, child, 0, 0) == 0 && stopped_by(child, SIGTRAP) == HELD);
		CHECK(ip_of(child) == (uintptr_t)steps_end && get_debug(child, 6) & 1u << number);
		CHECK(set_debug(child, 7, 0) && finish(child) == HELD);
	}
	return HELD;
}

static int bystander(void *unused)
{
	(void)unused;
	for (uint32_t i = 0; i < 1000; i++) {
		watched[0] = i;
		stepped();
		sched_yield();
		CHECK(watched[0] == i);
	}
	return HELD;
}

// A write is caught in the traced process, after 100 context switches; the others write to the same address freely.
int part_watchpoint(void)
{
	int rounds = scaled(10);
	pid_t other[2] = { start(bystander, 0), start(bystander, 0) };
	for (int i = 0; i < rounds; i++) {
		pid_t child = traced();
		CHECK(child > 0);
		CHECK(set_debug(child, 1, (uintptr_t)&watched[0]) && set_debug(child, 7, 1u << 2 | 0xdu << 20));
		CHECK(ptrace(PTRACE_CONT, child, 0, 0) == 0 && stopped_by(child, SIGTRAP) == HELD);
		CHECK(get_debug(child, 6) & 2);
		CHECK(ptrace(PTRACE_PEEKDATA, child, &watched[0], 0) << (sizeof(long) - 4) * 8 == 7L << (sizeof(long) - 4) * 8);
		CHECK(finish(child) == HELD);
	}
	CHECK(held(other[0]) == HELD);
	return held(other[1]);
}

static volatile sig_atomic_t traps;
static void on_trap(int number) { traps += number == SIGTRAP; }

// A program that sets the trap flag for itself gets a signal for each instruction.
int part_trapflag(void)
{
	signal(SIGTRAP, on_trap);
	int rounds = scaled(300);
	for (int i = 1; i <= rounds; i++) {
#ifdef __x86_64__
		__asm__ volatile("subq $128, %%rsp\n\tpushfq\n\torl $0x100, (%%rsp)\n\tpopfq\n\tnop\n\tnop\n\tnop\n\tpushfq\n\t"
				 "andl $~0x100, (%%rsp)\n\tpopfq\n\taddq $128, %%rsp" : : : "memory", "cc");
#else
		__asm__ volatile("pushfl\n\torl $0x100, (%%esp)\n\tpopfl\n\tnop\n\tnop\n\tnop\n\tpushfl\n\t"
				 "andl $~0x100, (%%esp)\n\tpopfl" : : : "memory", "cc");
#endif
		CHECK(traps == 6 * i);
	}
	return HELD;
}
