/* SPDX-License-Identifier: Apache-2.0 */
/*
 * demo-origin TCP_PORT UDP_PORT - a small origin to try the edge with, on 127.0.0.1. It understands what the edge puts
 * in front (PROXY v1 and v2, SPP) and says whom it sees: over TCP as a page of HTTP, over UDP in front of an echo.
 * One connection at a time; it is a demonstration of the wire formats, not a server.
 */
#include "wire/proxy.h"
#include "wire/spp.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { REQUEST_MAX = 8192, DATAGRAM_MAX = 65535, PATIENCE_MS = 3000 };

static int open_port(const char *text, int type)
{
	union sockaddr_any sa = { .in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) } };
	unsigned long port = strtoul(text, NULL, 10);
	int fd = socket(AF_INET, type, 0);

	sa.in.sin_port = htons((uint16_t)port);
	if (port < 1 || port > 65535 || fd < 0 ||
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int)) < 0 ||
		bind(fd, &sa.sa, sizeof(sa.in)) < 0 || (type == SOCK_STREAM && listen(fd, 64) < 0)) {
		fprintf(stderr, "demo-origin: port %s: %s\n", text, strerror(errno));
		exit(1);
	}
	return fd;
}

/* Reads until the blank line that ends a request, or the client pauses or leaves. */
static size_t read_request(int fd, char *request)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	size_t length = 0;

	while (length < REQUEST_MAX && poll(&p, 1, PATIENCE_MS) > 0) {
		ssize_t n = recv(fd, request + length, REQUEST_MAX - length, 0);

		if (n <= 0)
			break;
		length += (size_t)n;
		if (memmem(request, length, "\r\n\r\n", 4) && memmem(request, length, "HTTP/", 5))
			break;
	}
	return length;
}

static void serve_tcp(int listener)
{
	char request[REQUEST_MAX], page[512], answer[768], who[ADDR_TEXT_SIZE] = "nobody", edge[ADDR_TEXT_SIZE] = "-";
	const char *why = "no PROXY header came";
	struct proxy_header header;
	int fd = accept(listener, NULL, NULL), n;
	size_t length;

	if (fd < 0)
		return;
	length = read_request(fd, request);
	if (proxy_decode(request, length, &header, &why) == PROXY_OK && header.has_addr) {
		addr_format(&header.client, who);
		addr_format(&header.edge, edge);
		why = header.version == 1 ? "PROXY v1" : "PROXY v2";
	}
	snprintf(page, sizeof(page), "Hello from the origin, through Tidegate.\nclient: %s\nedge:   %s\n(told by %s)\n",
		who, edge, why);
	n = snprintf(answer, sizeof(answer),
		"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s",
		strlen(page), page);
	if (send(fd, answer, (size_t)n, MSG_NOSIGNAL) == n)
		shutdown(fd, SHUT_WR);
	while (recv(fd, request, sizeof(request), 0) > 0)
		;
	close(fd);
}

static void serve_udp(int fd)
{
	static uint8_t datagram[DATAGRAM_MAX];
	char who[ADDR_TEXT_SIZE] = "somebody", hello[128];
	struct proxy_header header;
	struct addr client, edge;
	union sockaddr_any peer;
	socklen_t peer_length = sizeof(peer);
	size_t skip = 0, spp = 0;
	const char *why;
	ssize_t n = recvfrom(fd, datagram, sizeof(datagram), 0, &peer.sa, &peer_length);

	if (n < 0)
		return;
	if (spp_decode(datagram, (size_t)n, &client, &edge) == SPP_OK) {
		spp = skip = SPP_SIZE; /* goes back in front of the answer */
		addr_format(&client, who);
	} else if (proxy_decode(datagram, (size_t)n, &header, &why) == PROXY_OK) {
		skip = header.length;
		if (header.has_addr)
			addr_format(&header.client, who);
	}
	snprintf(hello, sizeof(hello), "%s said: ", who);
	struct iovec iov[] = { { datagram, spp }, { hello, strlen(hello) }, { datagram + skip, (size_t)n - skip } };
	struct msghdr message = { .msg_name = &peer, .msg_namelen = peer_length, .msg_iov = iov, .msg_iovlen = 3 };

	if (sendmsg(fd, &message, 0) < 0)
		perror("demo-origin: sendmsg");
}

int main(int argc, char **argv)
{
	struct pollfd fds[2] = { { .events = POLLIN }, { .events = POLLIN } };

	if (argc != 3) {
		fprintf(stderr, "usage: demo-origin TCP_PORT UDP_PORT\n");
		return 2;
	}
	fds[0].fd = open_port(argv[1], SOCK_STREAM);
	fds[1].fd = open_port(argv[2], SOCK_DGRAM);
	while (poll(fds, 2, -1) >= 0 || errno == EINTR) {
		if (fds[0].revents)
			serve_tcp(fds[0].fd);
		if (fds[1].revents)
			serve_udp(fds[1].fd);
	}
	return 1;
}
