// SPDX-License-Identifier: MIT OR Apache-2.0
//
// TCP to the peer that xtask runs (see xtask/src/peer.rs): round trips of a byte, and throughput each way.

#include "bench.h"
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#define UNIT (64 << 10)

static char buffer[UNIT];

static int connected(const char *service)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(atoi(setting("peer"))) };
	int on = 1, peer = socket(AF_INET, SOCK_STREAM, 0);
	CHECK(peer >= 0);
	CHECK(inet_pton(AF_INET, "10.0.2.2", &to.sin_addr) == 1);
	CHECK(connect(peer, (struct sockaddr *)&to, sizeof to) == 0);
	CHECK(setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0);
	CHECK(send(peer, service, 1, 0) == 1);
	return peer;
}

static int echo;

static void round_trip(long count)
{
	while (count--)
		CHECK(send(echo, buffer, 1, 0) == 1 && recv(echo, buffer, 1, 0) == 1);
}

// Counts until the peer has said that it got everything.
static void send_all(long count)
{
	uint64_t answer;
	int peer = connected("D");
	for (long i = 0; i < count; i++)
		for (size_t done = 0; done < UNIT;) {
			ssize_t sent = send(peer, buffer + done, UNIT - done, 0);
			CHECK(sent > 0);
			done += sent;
		}
	CHECK(shutdown(peer, SHUT_WR) == 0);
	CHECK(recv(peer, &answer, sizeof answer, MSG_WAITALL) == sizeof answer);
	CHECK(answer == (uint64_t)count * UNIT);
	close(peer);
}

static void receive_all(long count)
{
	uint64_t length = (uint64_t)count * UNIT;
	int peer = connected("S");
	CHECK(send(peer, &length, sizeof length, 0) == sizeof length);
	while (count--)
		CHECK(recv(peer, buffer, UNIT, MSG_WAITALL) == UNIT);
	close(peer);
}

void net_rows(void)
{
	if (!setting("peer"))
		return;
	echo = connected("E");
	measure("tcp-round-trip", round_trip);
	close(echo);
	measure("tcp-send-64k", send_all);
	measure("tcp-receive-64k", receive_all);
}
