// SPDX-License-Identifier: MIT OR Apache-2.0
//
// A large file in memory, by every way to its bytes, and its checksum.

#include "workload.h"
#include <fcntl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/wait.h>

enum { BLOCK = 64 * 1024 };

static int open_file(void)
{
	char name[] = "/dev/shm/workload-XXXXXX", other[] = "/tmp/workload-XXXXXX";
	int file = mkstemp(name);
	if (file >= 0) {
		unlink(name);
		return file;
	}
	file = mkstemp(other);
	if (file >= 0)
		unlink(other);
	return file;
}

static uint64_t checksum(uint64_t sum, const unsigned char *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++)
		sum = (sum ^ bytes[i]) * 0x100000001b3ULL;
	return sum;
}

static int read_checksum(int file, uint64_t *sum)
{
	static unsigned char buffer[BLOCK];
	ssize_t got;
	*sum = 0xcbf29ce484222325ULL;
	CHECK(lseek(file, 0, SEEK_SET) == 0);
	while ((got = read(file, buffer, sizeof buffer)) > 0)
		*sum = checksum(*sum, buffer, (size_t)got);
	CHECK(got == 0);
	return HELD;
}

static int patch(void *argument)
{
	unsigned char *memory = argument;
	for (size_t i = 0; i < BLOCK; i += 97)
		memory[i] ^= 0x55;
	return HELD;
}

int part_file(void)
{
	static unsigned char buffer[BLOCK];
	size_t blocks = (size_t)scaled(64), length = blocks * BLOCK;
	uint64_t written = 0xcbf29ce484222325ULL, sum;
	int file = open_file(), copy = open_file();
	CHECK(file >= 0 && copy >= 0);
	for (uint32_t i = 0; i < blocks; i++) {
		fill(buffer, BLOCK, i);
		written = checksum(written, buffer, BLOCK);
		CHECK(write(file, buffer, BLOCK) == BLOCK);
	}
	CHECK(read_checksum(file, &sum) == HELD && sum == written);
	unsigned char *memory = mmap(0, length, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	CHECK(memory != MAP_FAILED && checksum(0xcbf29ce484222325ULL, memory, length) == written);
	off_t from = 0;
	while (from < (off_t)length)
		CHECK(sendfile(copy, file, &from, length - (size_t)from) > 0);
	CHECK(read_checksum(copy, &sum) == HELD && sum == written);
	// Another process changes the shared mapping: seen by read and by the mapping, not by the copy.
	CHECK(held(start(patch, memory)) == HELD);
	CHECK(read_checksum(file, &sum) == HELD && sum != written);
	CHECK(checksum(0xcbf29ce484222325ULL, memory, length) == sum);
	CHECK(patch(memory) == HELD && read_checksum(file, &sum) == HELD && sum == written);
	CHECK(read_checksum(copy, &sum) == HELD && sum == written);
	return HELD;
}

// Holes read as zeros, a shortened file loses its end, private mappings keep their own.
int part_truncate(void)
{
	size_t length = 256 * PAGE;
	unsigned char byte = 1;
	struct stat status;
	int file = open_file();
	CHECK(file >= 0 && ftruncate(file, (off_t)length) == 0);
	unsigned char *shared = mmap(0, length, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	unsigned char *private = mmap(0, length, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
	CHECK(shared != MAP_FAILED && private != MAP_FAILED);
	for (int round = 1; round <= scaled(10); round++) {
		CHECK(ftruncate(file, (off_t)length) == 0);
		fill(shared, length, round);
		CHECK(holds(private + PAGE, PAGE, 0) == holds(shared + PAGE, PAGE, 0));
		private[10 * PAGE] = shared[10 * PAGE] ^ 0xff;
		CHECK(private[10 * PAGE] != shared[10 * PAGE] && holds(shared, length, round));
		CHECK(fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 5 * PAGE, PAGE) == 0);
		CHECK(pread(file, &byte, 1, 5 * PAGE + 7) == 1 && byte == 0 && shared[5 * PAGE] == 0);
		CHECK(ftruncate(file, (off_t)length / 2) == 0 && fstat(file, &status) == 0);
		CHECK(status.st_size == (off_t)length / 2);
		CHECK(faulting(act_read, shared + length / 2) == SIGBUS);
		CHECK(holds(shared, PAGE, round));
	}
	return HELD;
}
