// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Sets the machine's clock, reads it back, and waits for its alarm interrupt.

#include "drivers.h"
#include <linux/rtc.h>

#define HOUR 3600

static time_t read_clock(int device)
{
	struct rtc_time now;
	CHECK(ioctl(device, RTC_RD_TIME, &now) == 0);
	struct tm fields = { .tm_sec = now.tm_sec, .tm_min = now.tm_min, .tm_hour = now.tm_hour,
			     .tm_mday = now.tm_mday, .tm_mon = now.tm_mon, .tm_year = now.tm_year };
	return timegm(&fields);
}

static struct rtc_time split(time_t time)
{
	struct tm fields;
	gmtime_r(&time, &fields);
	return (struct rtc_time){ .tm_sec = fields.tm_sec, .tm_min = fields.tm_min, .tm_hour = fields.tm_hour,
				  .tm_mday = fields.tm_mday, .tm_mon = fields.tm_mon, .tm_year = fields.tm_year };
}

static void set_clock(int device, time_t to)
{
	struct rtc_time time = split(to);
	CHECK(ioctl(device, RTC_SET_TIME, &time) == 0);
}

static void await_alarm(int device)
{
	struct rtc_wkalrm alarm = { .enabled = 1, .time = split(read_clock(device) + 3) };
	struct pollfd poller = { .fd = device, .events = POLLIN };
	unsigned long interrupts = 0;
	double start = seconds();
	CHECK(ioctl(device, RTC_WKALM_SET, &alarm) == 0);
	CHECK(poll(&poller, 1, 20000) == 1);
	CHECK(read(device, &interrupts, sizeof interrupts) == sizeof interrupts);
	CHECK(interrupts & RTC_AF);
	printf("alarm after %.1f s\n", seconds() - start);
}

// DEVICE
int test_rtc(int argc, char **argv)
{
	(void)argc;
	int device = open(argv[0], O_RDWR);
	CHECK(device >= 0);
	time_t before = read_clock(device), system = time(0);
	CHECK(before > system - 30 && before < system + 30);
	double start = seconds();
	set_clock(device, before + HOUR);
	time_t after = read_clock(device);
	CHECK(after >= before + HOUR && after <= before + HOUR + 5);
	await_alarm(device);
	set_clock(device, before + (time_t)(seconds() - start));
	return 0;
}
