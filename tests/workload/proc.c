// SPDX-License-Identifier: MIT OR Apache-2.0
//
// What /proc says of the machine and of this process is consistent with what the process knows.

#include "workload.h"
#include <fcntl.h>
#include <sched.h>

static long number_after(const char *text, const char *key)
{
	const char *at = strstr(text, key);
	long value = -1;
	if (at)
		sscanf(at + strlen(key), " %ld", &value);
	return value;
}

static int count_of(const char *text, const char *word)
{
	int count = 0;
	for (const char *at = text; (at = strstr(at, word)); at++)
		count++;
	return count;
}

static int mapped(const void *address, const char *rights)
{
	unsigned long from, to;
	char found[8];
	for (const char *line = text_of("/proc/self/maps"); line && *line; line = strchr(line, '\n'), line += line != 0)
		if (sscanf(line, "%lx-%lx %4s", &from, &to, found) == 3 && from <= (unsigned long)address &&
		    (unsigned long)address < to)
			return strcmp(found, rights) == 0;
	return 0;
}

static long long context_switches(void) { return number_after(text_of("/proc/stat"), "\nctxt"); }

int part_proc(void)
{
	int on_stack;
	static int in_data = 1;
	CHECK(mapped(&on_stack, "rw-p") && mapped(&in_data, "rw-p") && mapped((void *)(uintptr_t)part_proc, "r-xp"));
	unsigned char *memory = pages(3);
	CHECK(memory != MAP_FAILED && mprotect(memory + PAGE, PAGE, PROT_READ) == 0);
	CHECK(mapped(memory + PAGE, "r--p") && mapped(memory + 2 * PAGE, "rw-p"));

	const char *text = text_of("/proc/cpuinfo");
	CHECK(count_of(text, "processor\t:") == online());
	CHECK(strstr(text, " sse2 ") && strstr(text, " fpu "));
	text = text_of("/proc/meminfo");
	long total = number_after(text, "MemTotal:"), available = number_after(text, "MemAvailable:");
	CHECK(total > 64 * 1024 && available > 0 && available <= total);

	text = text_of("/proc/stat");
	int64_t booted = number_after(text, "btime") * SECOND;
	CHECK(llabs(now(CLOCK_REALTIME) - now(CLOCK_BOOTTIME) - booted) < 3 * SECOND);
	long long switches = context_switches();
	for (int i = 0; i < 20; i++)
		pause_ns(MS);
	CHECK(context_switches() > switches);
	CHECK(number_after(text_of("/proc/self/status"), "Pid:") == getpid());
	CHECK(number_after(text_of("/proc/self/status"), "VmRSS:") > 0);
	CHECK(text_of("/proc/version")[0] && strstr(text_of("/proc/self/cmdline"), "workload"));
	return HELD;
}

// /proc/self/mem reads and writes this process's memory, also where the process itself may not write.
int part_memfile(void)
{
	int file = open("/proc/self/mem", O_RDWR);
	unsigned char *memory = pages(16), buffer[PAGE];
	CHECK(file >= 0 && memory != MAP_FAILED);
	for (uint32_t i = 0; i < 16; i++)
		fill(memory + i * PAGE, PAGE, i);
	CHECK(mprotect(memory, 16 * PAGE, PROT_READ) == 0);
	for (uint32_t i = 0; i < 16; i++) {
		off64_t at = (off64_t)(uintptr_t)(memory + i * PAGE);
		CHECK(pread64(file, buffer, PAGE, at) == PAGE && holds(buffer, PAGE, i));
		fill(buffer, PAGE, i + 100);
		CHECK(pwrite64(file, buffer, PAGE, at) == PAGE && holds(memory + i * PAGE, PAGE, i + 100));
	}
	return HELD;
}
