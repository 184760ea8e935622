// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Disks, past the page cache, one request at a time.

#include "bench.h"
#include <linux/fs.h>
#include <sys/ioctl.h>

#define LONG (256 << 10)

static int disk;
static uint64_t size;
static char *buffer;
static uint64_t position;
static uint32_t state = 1;

static uint64_t following(size_t length)
{
	position = position + 2 * length > size ? 0 : position + length;
	return position;
}

static uint64_t anywhere(void)
{
	return next(&state) % (size / PAGE) * PAGE;
}

static void read_next(long count)
{
	while (count--)
		CHECK(pread(disk, buffer, PAGE, following(PAGE)) == PAGE);
}

static void write_next(long count)
{
	while (count--)
		CHECK(pwrite(disk, buffer, PAGE, following(PAGE)) == PAGE);
}

static void read_random(long count)
{
	while (count--)
		CHECK(pread(disk, buffer, PAGE, anywhere()) == PAGE);
}

static void write_random(long count)
{
	while (count--)
		CHECK(pwrite(disk, buffer, PAGE, anywhere()) == PAGE);
}

static void read_long(long count)
{
	while (count--)
		CHECK(pread(disk, buffer, LONG, following(LONG)) == LONG);
}

static void rows_of(const char *bus)
{
	static const struct {
		const char *name;
		void (*run)(long);
	} rows[] = {
		{ "read-4k", read_next },
		{ "write-4k", write_next },
		{ "random-read-4k", read_random },
		{ "random-write-4k", write_random },
		{ "read-256k", read_long },
	};
	disk = open(setting(bus), O_RDWR | O_DIRECT);
	CHECK(disk >= 0);
	CHECK(ioctl(disk, BLKGETSIZE64, &size) == 0 && size >= 2 * LONG);
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		char name[64];
		snprintf(name, sizeof name, "%s-%s", bus, rows[i].name);
		measure(name, rows[i].run);
	}
	close(disk);
}

void disk_rows(void)
{
	static const char *const buses[] = { "virtio", "nvme" };
	buffer = mmap(0, LONG, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	CHECK(buffer != MAP_FAILED);
	for (size_t i = 0; i < sizeof buses / sizeof *buses; i++)
		if (setting(buses[i]))
			rows_of(buses[i]);
}
