// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Waiting for each other: poll, epoll and eventfd, pipes, local sockets with passed files, TCP over the loopback.

#include "workload.h"
#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

enum { PIPES = 32 };

static int ends[PIPES][2];
static long messages;

static int poll_writer(void *unused)
{
	(void)unused;
	for (int i = 0; i < messages; i++) {
		unsigned char byte = (unsigned char)i;
		CHECK(write(ends[i % PIPES][1], &byte, 1) == 1);
	}
	return HELD;
}

// poll over many pipes: a time-out, and exactly the pipe that was written becomes readable.
int part_poll(void)
{
	struct pollfd wait[PIPES];
	int seen[PIPES] = { 0 };
	messages = scaled(1000);
	for (int i = 0; i < PIPES; i++) {
		CHECK(pipe(ends[i]) == 0);
		wait[i] = (struct pollfd){ .fd = ends[i][0], .events = POLLIN };
	}
	int64_t before = now(CLOCK_MONOTONIC);
	CHECK(poll(wait, PIPES, 50) == 0);
	CHECK(now(CLOCK_MONOTONIC) - before >= 50 * MS);
	pid_t child = start(poll_writer, 0);
	for (long left = messages; left > 0;) {
		CHECK(poll(wait, PIPES, 20000) > 0);
		for (int i = 0; i < PIPES; i++) {
			unsigned char byte;
			if (!(wait[i].revents & POLLIN))
				continue;
			CHECK(read(ends[i][0], &byte, 1) == 1);
			CHECK(byte == (unsigned char)(i + PIPES * seen[i]));
			seen[i]++;
			left--;
		}
	}
	return held(child);
}

static int counters[8];

static int epoll_adder(void *argument)
{
	uint64_t value = (uint64_t)(intptr_t)argument + 1;
	for (int i = 0; i < messages; i++)
		CHECK(write(counters[(intptr_t)argument], &value, sizeof value) == sizeof value);
	return HELD;
}

// Eight processes add to eventfds, edge-triggered epoll tells which; the sums are exact.
int part_epoll(void)
{
	uint64_t sums[COUNT(counters)] = { 0 }, left = 0;
	pid_t child[COUNT(counters)];
	int set = epoll_create1(EPOLL_CLOEXEC);
	messages = scaled(500);
	CHECK(set >= 0);
	for (size_t i = 0; i < COUNT(counters); i++) {
		struct epoll_event event = { .events = EPOLLIN | EPOLLET, .data.u32 = (uint32_t)i };
		counters[i] = eventfd(0, EFD_NONBLOCK);
		CHECK(counters[i] >= 0 && epoll_ctl(set, EPOLL_CTL_ADD, counters[i], &event) == 0);
		left += (uint64_t)messages * (i + 1);
	}
	for (size_t i = 0; i < COUNT(counters); i++)
		child[i] = start(epoll_adder, (void *)(intptr_t)i);
	while (left > 0) {
		struct epoll_event event[4];
		int got = epoll_wait(set, event, 4, 20000);
		CHECK(got > 0);
		for (int k = 0; k < got; k++) {
			uint64_t value;
			uint32_t i = event[k].data.u32;
			if (read(counters[i], &value, sizeof value) != sizeof value)
				continue;
			sums[i] += value;
			left -= value;
		}
	}
	for (size_t i = 0; i < COUNT(counters); i++) {
		CHECK(held(child[i]) == HELD);
		CHECK(sums[i] == (uint64_t)messages * (i + 1));
	}
	return HELD;
}

static int send_all(int file, size_t length)
{
	static unsigned char buffer[64 * 1024];
	for (uint32_t block = 1; length; block++) {
		size_t size = length < sizeof buffer ? length : sizeof buffer, done = 0;
		fill(buffer, sizeof buffer, block);
		while (done < size) {
			size_t piece = size - done < 1 + block * 977 % 9000 ? size - done : 1 + block * 977 % 9000;
			ssize_t wrote = write(file, buffer + done, piece);
			CHECK(wrote > 0);
			done += (size_t)wrote;
		}
		length -= size;
	}
	close(file);
	return HELD;
}

static int receive_all(int file, size_t length)
{
	static unsigned char buffer[64 * 1024];
	for (uint32_t block = 1; length; block++) {
		size_t size = length < sizeof buffer ? length : sizeof buffer, done = 0;
		memset(buffer, 0, sizeof buffer);
		while (done < size) {
			ssize_t got = read(file, buffer + done, size - done);
			CHECK(got > 0);
			done += (size_t)got;
		}
		CHECK(holds(buffer, size, block));
		length -= size;
	}
	unsigned char more;
	CHECK(read(file, &more, 1) == 0);
	return HELD;
}

static size_t stream_length;

static int stream_writer(void *argument)
{
	int *pair = argument;
	if (pair[0] >= 0)
		close(pair[0]);
	return send_all(pair[1], stream_length);
}

static int stream(int *pair, size_t length)
{
	stream_length = length & ~(size_t)3;
	pid_t child = start(stream_writer, pair);
	close(pair[1]);
	CHECK(receive_all(pair[0], stream_length) == HELD);
	close(pair[0]);
	return held(child);
}

// Some megabytes through a pipe arrive as they were sent; a broken pipe says so.
int part_pipe(void)
{
	int pair[2];
	CHECK(pipe(pair) == 0 && stream(pair, (size_t)scaled(4 << 20)) == HELD);
	signal(SIGPIPE, SIG_IGN);
	CHECK(pipe(pair) == 0 && close(pair[0]) == 0);
	CHECK(write(pair[1], "x", 1) == -1 && errno == EPIPE);
	return HELD;
}

static int pass(int socket, int file)
{
	char space[CMSG_SPACE(sizeof file)] = { 0 }, byte = 'f';
	struct iovec data = { &byte, 1 };
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space };
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof file);
	memcpy(CMSG_DATA(header), &file, sizeof file);
	return sendmsg(socket, &message, 0) == 1 ? HELD : FAILED;
}

static int receive(int socket)
{
	int file = -1;
	char space[CMSG_SPACE(sizeof file)], byte;
	struct iovec data = { &byte, 1 };
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space };
	if (recvmsg(socket, &message, 0) == 1 && CMSG_FIRSTHDR(&message))
		memcpy(&file, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof file);
	return file;
}

static int passer(void *argument)
{
	int *pair = argument, through[2];
	for (int i = 0; i < messages; i++) {
		CHECK(pipe(through) == 0 && pass(pair[1], through[0]) == HELD);
		CHECK(write(through[1], &i, sizeof i) == sizeof i);
		close(through[0]);
		close(through[1]);
	}
	return HELD;
}

// Local sockets: a stream, and open files passed from one process to another.
int part_socket(void)
{
	int pair[2];
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0 && stream(pair, (size_t)scaled(2 << 20)) == HELD);
	CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0);
	messages = scaled(200);
	pid_t child = start(passer, pair);
	for (int i = 0; i < messages; i++) {
		int value = -1, file = receive(pair[0]);
		CHECK(file >= 0 && read(file, &value, sizeof value) == sizeof value && value == i);
		close(file);
	}
	return held(child);
}

static int loopback_up(void)
{
	struct ifreq request = { .ifr_name = "lo" };
	int file = socket(AF_INET, SOCK_DGRAM, 0);
	if (file < 0 || ioctl(file, SIOCGIFFLAGS, &request) < 0)
		return 0;
	request.ifr_flags |= IFF_UP;
	int up = ioctl(file, SIOCSIFFLAGS, &request) == 0 || (request.ifr_flags & IFF_RUNNING);
	close(file);
	return up;
}

// TCP over the loopback.
int part_tcp(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof address;
	if (!loopback_up())
		SKIP("no loopback interface");
	int listener = socket(AF_INET, SOCK_STREAM, 0), pair[2] = { -1, socket(AF_INET, SOCK_STREAM, 0) };
	CHECK(listener >= 0 && pair[1] >= 0);
	CHECK(bind(listener, (struct sockaddr *)&address, sizeof address) == 0 && listen(listener, 1) == 0);
	CHECK(getsockname(listener, (struct sockaddr *)&address, &length) == 0);
	CHECK(connect(pair[1], (struct sockaddr *)&address, sizeof address) == 0);
	pair[0] = accept(listener, 0, 0);
	CHECK(pair[0] >= 0);
	return stream(pair, (size_t)scaled(2 << 20));
}
