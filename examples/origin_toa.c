/* SPDX-License-Identifier: Apache-2.0 */
/*
 * example-toa ADDRESS PORT [EDGES] - an echo server that says hello to the client named in the TCP option.
 * EDGES are prefixes such as "192.0.2.0/24,2001:db8::/32": with them it also works where tidegate-origin is not
 * started, by what the kernel keeps of the SYN. One connection at a time.
 */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tidegate-origin.h>
#include <unistd.h>

static int open_listener(const char *address, const char *port, int save_syn)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICHOST }, *found;
	int fd;

	if (getaddrinfo(address, port, &hints, &found))
		return -1;
	fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int)) < 0 ||
		bind(fd, found->ai_addr, found->ai_addrlen) < 0)
		return -1;
	if (save_syn && tgo_save_syn(fd) < 0) /* before listen() */
		return -1;
	return listen(fd, 128) < 0 ? -1 : fd;
}

static void serve(int fd, const struct tgo_edges *edges)
{
	static const char *const sources[] = {
		[TGO_SOURCE_CONNECTION] = "the connection",
		[TGO_SOURCE_KERNEL] = "the kernel",
		[TGO_SOURCE_SYN] = "the SYN",
	};
	char text[TGO_TEXT_SIZE], bytes[4096];
	struct tgo_peer peer;
	ssize_t n;
	int r = tgo_peer(fd, edges, &peer); /* once, right after accept() */

	if (r)
		dprintf(fd, "hello whoever you are (%s)\n", tgo_strerror(r));
	else
		dprintf(fd, "hello %s (from %s)\n", tgo_format(&peer.addr, text), sources[peer.source]);
	while ((n = read(fd, bytes, sizeof(bytes))) > 0 && write(fd, bytes, (size_t)n) == n)
		;
	close(fd);
}

int main(int argc, char **argv)
{
	struct tgo_edges *edges = NULL;
	int listener, fd, r;

	if (argc < 3 || argc > 4) {
		fprintf(stderr, "usage: example-toa ADDRESS PORT [EDGES]\n");
		return 2;
	}
	if (argc == 4 && (r = tgo_edges_new(argv[3], &edges))) {
		fprintf(stderr, "example-toa: %s: %s\n", argv[3], tgo_strerror(r));
		return 2;
	}
	listener = open_listener(argv[1], argv[2], edges != NULL);
	if (listener < 0) {
		perror("example-toa");
		return 1;
	}
	while ((fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0)
		serve(fd, edges);
	return 1;
}
