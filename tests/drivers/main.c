// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Moves data through a device and checks it. The shell script of the test initramfs calls one test a device.

#include "drivers.h"

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
	int words;
	const char *usage;
} tests[] = {
	{ "disk", test_disk, 2, "DEVICE SEED" },
	{ "net", test_net, 5, "INTERFACE ADDRESS PORT SEED MEBIBYTES" },
	{ "keys", test_keys, 2, "NAME LETTERS" },
	{ "rtc", test_rtc, 1, "DEVICE" },
	{ "framebuffer", test_framebuffer, 2, "DEVICE COLOUR" },
};

_Noreturn void fail(const char *condition, const char *file, int line)
{
	int error = errno;
	const char *name = strrchr(file, '/');
	printf("%s (%s:%d, errno %d)\n", condition, name ? name + 1 : file, line, error);
	exit(1);
}

// The finalizer of splitmix64.
uint64_t word_of(uint64_t seed, uint64_t index)
{
	uint64_t word = (seed << 48 ^ index) + 0x9e3779b97f4a7c15;
	word = (word ^ word >> 30) * 0xbf58476d1ce4e5b9;
	word = (word ^ word >> 27) * 0x94d049bb133111eb;
	return word ^ word >> 31;
}

void fill(void *memory, size_t length, uint64_t seed, uint64_t offset)
{
	uint64_t *words = memory;
	for (size_t i = 0; i < length / sizeof *words; i++)
		words[i] = word_of(seed, offset / sizeof *words + i);
}

void verify(const void *memory, size_t length, uint64_t seed, uint64_t offset)
{
	const uint64_t *words = memory;
	for (size_t i = 0; i < length / sizeof *words; i++)
		if (words[i] != word_of(seed, offset / sizeof *words + i)) {
			printf("offset %#llx has %#llx. ", (unsigned long long)offset + i * sizeof *words,
			       (unsigned long long)words[i]);
			CHECK(!"the pattern is there");
		}
}

uint32_t next(uint32_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	*state ^= *state << 5;
	return *state;
}

double seconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + now.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
		if (argc > 1 && strcmp(argv[1], tests[i].name) == 0 && argc == 2 + tests[i].words)
			return tests[i].run(argc - 2, argv + 2);
	for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
		fprintf(stderr, "usage: %s %s %s\n", argv[0], tests[i].name, tests[i].usage);
	return 2;
}
