// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Sends the pattern over TCP to a peer that sends everything back, through one network card, and checks what returns.

#include "drivers.h"
#include <arpa/inet.h>
#include <pthread.h>
#include <sys/socket.h>

#define CHUNK (64 << 10)

static int peer;
static uint64_t seed, total;

static void *sender(void *unused)
{
	static char buffer[CHUNK];
	uint32_t state = 7;
	for (uint64_t offset = 0; offset < total;) {
		size_t length = (1 + next(&state) % (CHUNK / 8)) * 8;
		if (length > total - offset)
			length = total - offset;
		fill(buffer, length, seed, offset);
		for (size_t done = 0; done < length;) {
			ssize_t sent = send(peer, buffer + done, length - done, MSG_NOSIGNAL);
			CHECK(sent > 0);
			done += sent;
		}
		offset += length;
	}
	CHECK(shutdown(peer, SHUT_WR) == 0);
	return unused;
}

// INTERFACE ADDRESS PORT SEED MEBIBYTES
int test_net(int argc, char **argv)
{
	(void)argc;
	static char buffer[CHUNK];
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(atoi(argv[2])) };
	pthread_t thread;
	seed = strtoull(argv[3], 0, 0);
	total = strtoull(argv[4], 0, 0) << 20;
	peer = socket(AF_INET, SOCK_STREAM, 0);
	CHECK(peer >= 0);
	CHECK(setsockopt(peer, SOL_SOCKET, SO_BINDTODEVICE, argv[0], strlen(argv[0]) + 1) == 0);
	CHECK(inet_pton(AF_INET, argv[1], &to.sin_addr) == 1);
	CHECK(connect(peer, (struct sockaddr *)&to, sizeof to) == 0);
	// The peer takes the first letter for what it is to do: echo.
	CHECK(send(peer, "E", 1, MSG_NOSIGNAL) == 1);
	double start = seconds();
	CHECK(pthread_create(&thread, 0, sender, 0) == 0);
	for (uint64_t offset = 0; offset < total; offset += CHUNK) {
		CHECK(recv(peer, buffer, CHUNK, MSG_WAITALL) == CHUNK);
		verify(buffer, CHUNK, seed, offset);
	}
	CHECK(recv(peer, buffer, 1, 0) == 0);
	CHECK(pthread_join(thread, 0) == 0);
	printf("%llu KiB there and back in %.2f s\n", (unsigned long long)total >> 10, seconds() - start);
	return 0;
}
