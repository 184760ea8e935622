// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Waits for a word to be typed on one keyboard.

#include "drivers.h"
#include <linux/input.h>

#define PATIENCE 60

static const char keys[][2] = {
	{ KEY_X, 'x' }, { KEY_E, 'e' }, { KEY_N, 'n' }, { KEY_I, 'i' }, { KEY_T, 't' }, { KEY_H, 'h' },
};

static char letter_of(int code)
{
	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
		if (keys[i][0] == code)
			return keys[i][1];
	return '?';
}

// The event device whose name holds this text.
static int keyboard(const char *name)
{
	for (int number = 0; number < 32; number++) {
		char path[64], found[128] = "";
		snprintf(path, sizeof path, "/dev/input/event%d", number);
		int device = open(path, O_RDONLY | O_NONBLOCK);
		if (device < 0)
			continue;
		if (ioctl(device, EVIOCGNAME(sizeof found - 1), found) > 0 && strstr(found, name))
			return device;
		close(device);
	}
	errno = 0;
	return -1;
}

// NAME LETTERS
int test_keys(int argc, char **argv)
{
	(void)argc;
	const char *wanted = argv[1];
	int device = keyboard(argv[0]);
	double end = seconds() + PATIENCE;
	CHECK(device >= 0);
	printf("waiting for %s on %s\n", wanted, argv[0]);
	fflush(stdout);
	while (*wanted) {
		struct pollfd poller = { .fd = device, .events = POLLIN };
		struct input_event event;
		CHECK(seconds() < end);
		poll(&poller, 1, 1000);
		while (*wanted && read(device, &event, sizeof event) == sizeof event) {
			if (event.type != EV_KEY || event.value != 1)
				continue;
			CHECK(letter_of(event.code) == *wanted);
			wanted++;
		}
	}
	printf("%s typed on %s\n", argv[1], argv[0]);
	return 0;
}
