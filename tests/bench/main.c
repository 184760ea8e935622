// SPDX-License-Identifier: MIT OR Apache-2.0
//
// What a program costs on this kernel, on this machine: prints `bench NAME NANOSECONDS` for each row. Words on the
// command line pick rows (`rows=TEXT,TEXT`) and name what they need (`virtio=DEVICE`, `peer=PORT`).

#include "bench.h"

#define BATCHES 7
#define SHORTEST 10000000LL

static char **settings;

_Noreturn void fail(const char *condition, const char *file, int line)
{
	printf("not ok %s (%s:%d, errno %d)\n", condition, file, line, errno);
	exit(1);
}

const char *setting(const char *name)
{
	size_t length = strlen(name);
	for (char **word = settings; *word; word++)
		if (strncmp(*word, name, length) == 0 && (*word)[length] == '=' && (*word)[length + 1])
			return *word + length + 1;
	return 0;
}

int wanted(const char *name)
{
	const char *rows = setting("rows");
	char list[512], *rest = list, *text;
	if (!rows)
		return 1;
	snprintf(list, sizeof list, "%s", rows);
	while ((text = strsep(&rest, ",")))
		if (*text && strstr(name, text))
			return 1;
	return 0;
}

int64_t now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

uint32_t next(uint32_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	*state ^= *state << 5;
	return *state;
}

void row(const char *name, double ns)
{
	printf("bench %s %.0f\n", name, ns);
	fflush(stdout);
}

// Instructions that do nothing, but tests/profile sees them: 1 where a batch begins, 2 where it ends, 3 where a row does.
#define MARK(what) __asm__ volatile(".byte 0x0f, 0x1f, 0x80, " #what ", 'r', 'a', 'm'" ::: "memory")

static long operations;

static int64_t timed(void (*run)(long), long count)
{
	int64_t start = now();
	MARK(1);
	run(count);
	MARK(2);
	operations += count;
	return now() - start;
}

void measure(const char *name, void (*run)(long count))
{
	measure_each(name, run, 1);
}

void measure_each(const char *name, void (*run)(long count), int parts)
{
	long count = 1;
	int64_t best;
	if (!wanted(name))
		return;
	operations = 0;
	while ((best = timed(run, count)) < SHORTEST)
		count *= 2;
	for (int batch = 1; batch < BATCHES; batch++) {
		int64_t time = timed(run, count);
		if (time < best)
			best = time;
	}
	MARK(3);
	row(name, (double)best / count / parts);
	printf("operations %s %ld\n", name, operations * parts);
}

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "exit") == 0)
		return 0;
	settings = argv + 1;
	processor_rows();
	memory_rows();
	process_rows();
	disk_rows();
	net_rows();
	wakeup_rows();
	puts("bench-done");
	return 0;
}
