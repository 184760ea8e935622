// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Processes come and go: fork and exec, vfork, clone with shared and with copied memory.

#include "workload.h"
#include <sched.h>
#include <sys/wait.h>

static int exit_status(pid_t child)
{
	int status;
	if (waitpid(child, &status, __WALL) != child || !WIFEXITED(status))
		return -1;
	return WEXITSTATUS(status);
}

// A thousand fork and exec of this program (in 32 bits a tenth of that), each answering with the number it was given.
int part_exec(void)
{
	int rounds = scaled(sizeof(long) == 8 ? 1000 : 100);
	for (int i = 0; i < rounds; i++) {
		char number[16];
		snprintf(number, sizeof number, "%d", i % 200);
		pid_t child = fork();
		CHECK(child >= 0);
		if (child == 0) {
			execl(self, self, "--exit", number, (char *)0);
			_exit(255);
		}
		CHECK(exit_status(child) == i % 200);
	}
	return HELD;
}

// vfork: the parent waits, and sees what the child wrote.
int part_vfork(void)
{
	int rounds = scaled(100);
	volatile int shared = 0;
	for (int i = 0; i < rounds; i++) {
		pid_t child = vfork();
		CHECK(child >= 0);
		if (child == 0) {
			shared = i + 1;
			if (i % 2)
				_exit(i % 100);
			execl(self, self, "--exit", "7", (char *)0);
			_exit(255);
		}
		CHECK(shared == i + 1);
		CHECK(exit_status(child) == (i % 2 ? i % 100 : 7));
	}
	return HELD;
}

struct task {
	unsigned char *memory;
	pid_t parent;
	int number;
};

static int clone_body(void *argument)
{
	struct task *task = argument;
	if (!holds(task->memory, PAGE, 3) || getppid() != task->parent)
		return 1;
	fill(task->memory, PAGE, 4);
	return task->number % 50;
}

// clone with the memory shared (the write is seen) and not shared (it is not); many children at a time.
int part_clone(void)
{
	enum { STACK = 64 * 1024, AT_ONCE = 8 };
	int rounds = scaled(24);
	unsigned char *stacks = pages(AT_ONCE * STACK / PAGE);
	unsigned char *memory = pages(AT_ONCE);
	struct task task[AT_ONCE];
	pid_t child[AT_ONCE];
	CHECK(stacks != MAP_FAILED && memory != MAP_FAILED);
	for (int i = 0; i < rounds; i++) {
		int flags = i % 2 ? CLONE_VM | CLONE_FILES | CLONE_FS : 0;
		for (int k = 0; k < AT_ONCE; k++) {
			fill(memory + k * PAGE, PAGE, 3);
			task[k] = (struct task){ memory + k * PAGE, getpid(), i + k };
			child[k] = clone(clone_body, stacks + (k + 1) * STACK, flags | SIGCHLD, &task[k]);
			CHECK(child[k] > 0);
		}
		for (int k = 0; k < AT_ONCE; k++) {
			CHECK(exit_status(child[k]) == (i + k) % 50);
			CHECK(holds(memory + k * PAGE, PAGE, i % 2 ? 4 : 3));
		}
	}
	return HELD;
}
