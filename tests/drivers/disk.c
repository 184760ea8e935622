// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Fills a whole disk with the pattern, from several threads and past the page cache; one block in sixteen goes through
// the cache instead. Then everything is dropped and read back both ways.

#include "drivers.h"
#include <linux/fs.h>
#include <pthread.h>

#define THREADS 4
#define LONGEST (512 << 10)

static int direct, cached;
static uint64_t seed, share;

static int through_cache(uint64_t offset)
{
	return offset / BLOCK % 16 == 5;
}

// The next request's length: whole blocks, on one side of the cache.
static size_t request(uint64_t offset, uint64_t end, uint32_t *state)
{
	size_t wanted = (1 + next(state) % (LONGEST / BLOCK)) * BLOCK, length = BLOCK;
	while (length < wanted && offset + length < end && through_cache(offset) == through_cache(offset + length))
		length += BLOCK;
	return length;
}

static void *write_share(void *argument)
{
	uint64_t offset = (uintptr_t)argument * share, end = offset + share;
	uint32_t state = 2654435761u * ((uintptr_t)argument + 1);
	char *buffer = mmap(0, LONGEST, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(buffer != MAP_FAILED);
	while (offset < end) {
		size_t length = request(offset, end, &state);
		fill(buffer, length, seed, offset);
		CHECK(pwrite(through_cache(offset) ? cached : direct, buffer, length, offset) == (ssize_t)length);
		offset += length;
	}
	return 0;
}

static void *read_share(void *argument)
{
	uint64_t offset = (uintptr_t)argument * share, end = offset + share;
	uint32_t state = 40503u * ((uintptr_t)argument + 1);
	char *buffer = mmap(0, LONGEST, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(buffer != MAP_FAILED);
	while (offset < end) {
		size_t length = (1 + next(&state) % (LONGEST / BLOCK)) * BLOCK;
		if (length > end - offset)
			length = end - offset;
		memset(buffer, 0, length);
		CHECK(pread(next(&state) % 2 ? cached : direct, buffer, length, offset) == (ssize_t)length);
		verify(buffer, length, seed, offset);
		offset += length;
	}
	return 0;
}

static void on_all(void *(*body)(void *))
{
	pthread_t threads[THREADS];
	for (uintptr_t i = 0; i < THREADS; i++)
		CHECK(pthread_create(&threads[i], 0, body, (void *)i) == 0);
	for (int i = 0; i < THREADS; i++)
		CHECK(pthread_join(threads[i], 0) == 0);
}

// DEVICE SEED
int test_disk(int argc, char **argv)
{
	(void)argc;
	uint64_t size;
	seed = strtoull(argv[1], 0, 0);
	direct = open(argv[0], O_RDWR | O_DIRECT);
	CHECK(direct >= 0);
	cached = open(argv[0], O_RDWR);
	CHECK(cached >= 0);
	CHECK(ioctl(direct, BLKGETSIZE64, &size) == 0);
	CHECK(size > 0 && size % (THREADS * BLOCK) == 0);
	share = size / THREADS;
	double start = seconds();
	on_all(write_share);
	CHECK(fsync(cached) == 0);
	CHECK(fsync(direct) == 0);
	double written = seconds();
	CHECK(ioctl(cached, BLKFLSBUF, 0) == 0);
	on_all(read_share);
	printf("%llu KiB, written in %.2f s, read in %.2f s\n", (unsigned long long)size >> 10, written - start,
	       seconds() - written);
	return 0;
}
