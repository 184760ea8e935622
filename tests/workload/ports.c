// SPDX-License-Identifier: MIT OR Apache-2.0
//
// I/O ports that a privileged process was given: it alone may use them, at every moment.

#include "workload.h"
#include <sched.h>
#include <sys/io.h>

// Port 0x80 takes the firmware's progress codes; nothing listens to it.
static void act_out(volatile void *port)
{
	__asm__ volatile("outb %%al, %%dx" : : "a"(0), "d"((unsigned short)(uintptr_t)port));
}

static int refused(void *unused)
{
	(void)unused;
	for (int i = 0; i < scaled(300); i++) {
		CHECK(faulting(act_out, (void *)0x80) == SIGSEGV);
		sched_yield();
	}
	return HELD;
}

int part_ports(void)
{
	pid_t child = start(refused, 0);
	if (ioperm(0x80, 1, 1) < 0 && (errno == EPERM || errno == ENOSYS)) {
		CHECK(held(child) == HELD);
		SKIP("not allowed to have ports here");
	}
	for (int i = 0; i < scaled(300); i++) {
		CHECK(faulting(act_out, (void *)0x80) == 0);
		CHECK(faulting(act_out, (void *)0x81) == SIGSEGV);
		sched_yield();
	}
	CHECK(held(child) == HELD);
	CHECK(ioperm(0x80, 1, 0) == 0 && faulting(act_out, (void *)0x80) == SIGSEGV);
	if (iopl(3) == 0) {
		CHECK(faulting(act_out, (void *)0x80) == 0);
		CHECK(iopl(0) == 0 && faulting(act_out, (void *)0x80) == SIGSEGV);
	}
	return HELD;
}
