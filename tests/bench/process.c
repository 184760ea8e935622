// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Processes: made, replaced, switched between; and a compiler at work.

#include "bench.h"

static void fork_exit(long count)
{
	while (count--) {
		pid_t child = fork();
		CHECK(child >= 0);
		if (child == 0)
			_exit(0);
		CHECK(waitpid(child, 0, 0) == child);
	}
}

static void run_program(char **words)
{
	int status;
	pid_t child = fork();
	CHECK(child >= 0);
	if (child == 0) {
		execv(words[0], words);
		_exit(127);
	}
	CHECK(waitpid(child, &status, 0) == child && status == 0);
}

static void fork_exec(long count)
{
	while (count--)
		run_program((char *[]){ "/proc/self/exe", "exit", 0 });
}

// Two switches an operation, on one CPU or two.
static void pipe_round_trip(long count)
{
	int there[2], back[2];
	char byte = 0;
	CHECK(pipe(there) == 0 && pipe(back) == 0);
	pid_t child = fork();
	CHECK(child >= 0);
	if (child == 0) {
		close(there[1]);
		while (read(there[0], &byte, 1) == 1)
			CHECK(write(back[1], &byte, 1) == 1);
		_exit(0);
	}
	while (count--)
		CHECK(write(there[1], &byte, 1) == 1 && read(back[0], &byte, 1) == 1);
	close(there[1]), close(there[0]), close(back[0]), close(back[1]);
	CHECK(waitpid(child, 0, 0) == child);
}

#define UNIT "/tmp/unit.c"

// A program of many functions, the same each time.
static void write_unit(void)
{
	FILE *unit = fopen(UNIT, "w");
	CHECK(unit);
	for (int i = 0; i < 1500; i++)
		fprintf(unit,
			"struct s%d { int a, b[%d]; char *name; };\n"
			"static int f%d(struct s%d *s, int n)\n{\n\tint i, sum = 0;\n"
			"\tfor (i = 0; i < n; i++) {\n\t\tif (s->b[i %% %d] > s->a)\n\t\t\tsum += i * %d;\n"
			"\t\telse\n\t\t\tsum ^= s->b[(i + 1) %% %d] << %d;\n\t}\n\treturn sum + s->name[0];\n}\n"
			"int g%d(void) { struct s%d s = { %d, { 1, 2 }, \"n%d\" }; return f%d(&s, %d); }\n",
			i, 2 + i % 30, i, i, 2 + i % 30, i, 2 + i % 30, i % 20, i, i, i, i, i, i);
	CHECK(fclose(unit) == 0);
}

static void compile(long count)
{
	while (count--)
		run_program((char *[]){ "/bin/tcc", "-c", "-o", "/tmp/unit.o", UNIT, 0 });
}

void process_rows(void)
{
	measure("fork-exit", fork_exit);
	measure("fork-exec", fork_exec);
	measure("pipe-round-trip", pipe_round_trip);
	if (wanted("compile") && access("/bin/tcc", X_OK) == 0) {
		write_unit();
		measure("compile", compile);
	}
}
