// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Many of the parts at the same time, so that their switches, faults and alarms meet.

#include "workload.h"

static int (*const mixed[])(void) = {
	part_cow,   part_protect, part_vectors, part_ldt,   part_storm, part_mutex, part_shootdown, part_step,
	part_clone, part_pipe,    part_replace, part_syscalls,
};

static int run_one(void *argument)
{
	shorten(4);
	return mixed[(intptr_t)argument]() == FAILED ? FAILED : HELD;
}

int part_together(void)
{
	pid_t child[COUNT(mixed)];
	for (size_t i = 0; i < COUNT(mixed); i++)
		child[i] = start(run_one, (void *)(intptr_t)i);
	for (size_t i = 0; i < COUNT(mixed); i++)
		CHECK(held(child[i]) == HELD);
	return HELD;
}
