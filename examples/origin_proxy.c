/* SPDX-License-Identifier: Apache-2.0 */
/*
 * example-proxy ADDRESS PORT EDGES - an echo server that says hello to the client named in a PROXY header, version 1 or
 * 2. Connections from elsewhere than EDGES are served without one. One connection at a time.
 */
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <tidegate-origin.h>
#include <unistd.h>

enum { PATIENCE_MS = 3000 };

static int open_listener(const char *address, const char *port)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICHOST }, *found;
	int fd;

	if (getaddrinfo(address, port, &hints, &found))
		return -1;
	fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int)) < 0 ||
		bind(fd, found->ai_addr, found->ai_addrlen) < 0 || listen(fd, 128) < 0)
		return -1;
	return fd;
}

/* Whom we talk to. Return: 0; what is below 0 ends the connection. */
static int find_client(
	int fd, const struct tgo_edges *edges, union tgo_addr *peer, socklen_t length, union tgo_addr *client)
{
	struct timespec deadline = tgo_deadline(PATIENCE_MS);
	struct tgo_header header;
	int r;

	*client = *peer;
	if (!tgo_edges_has(edges, &peer->sa, length))
		return 0;
	r = tgo_proxy_read(fd, &deadline, &header);
	if (r == 0 && header.client.sa.sa_family != AF_UNSPEC) /* else a health check of the proxy's own */
		*client = header.client;
	return r;
}

static void serve(int fd, const union tgo_addr *client)
{
	char text[TGO_TEXT_SIZE], bytes[4096];
	ssize_t n;

	dprintf(fd, "hello %s\n", tgo_format(client, text));
	while ((n = read(fd, bytes, sizeof(bytes))) > 0 && write(fd, bytes, (size_t)n) == n)
		;
}

int main(int argc, char **argv)
{
	union tgo_addr peer, client;
	struct tgo_edges *edges;
	int listener, fd, r;

	if (argc != 4) {
		fprintf(stderr, "usage: example-proxy ADDRESS PORT EDGES\n");
		return 2;
	}
	r = tgo_edges_new(argv[3], &edges);
	if (r) {
		fprintf(stderr, "example-proxy: %s: %s\n", argv[3], tgo_strerror(r));
		return 2;
	}
	listener = open_listener(argv[1], argv[2]);
	for (;;) {
		socklen_t length = sizeof(peer);

		fd = accept4(listener, &peer.sa, &length, SOCK_CLOEXEC);
		if (fd < 0)
			break;
		r = find_client(fd, edges, &peer, length, &client);
		if (r == 0)
			serve(fd, &client);
		else
			fprintf(stderr, "example-proxy: %s\n", tgo_strerror(r));
		close(fd);
	}
	perror("example-proxy");
	return 1;
}
