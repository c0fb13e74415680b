/* SPDX-License-Identifier: Apache-2.0 */
/*
 * example-datagram ADDRESS PORT spp|ppv2 - a UDP server that answers each datagram with its client's address and its
 * payload. SPP goes back in front of the answer, PROXY v2 does not.
 */
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <tidegate-origin.h>
#include <unistd.h>

enum { DATAGRAM_MAX = 65535 };

static int open_socket(const char *address, const char *port)
{
	struct addrinfo hints = { .ai_socktype = SOCK_DGRAM, .ai_flags = AI_PASSIVE | AI_NUMERICHOST }, *found;
	int fd;

	if (getaddrinfo(address, port, &hints, &found))
		return -1;
	fd = socket(found->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	return fd < 0 || bind(fd, found->ai_addr, found->ai_addrlen) < 0 ? -1 : fd;
}

static void answer(int fd, unsigned char *datagram, size_t length, enum tgo_format format, struct msghdr *message)
{
	char front[TGO_ANSWER_MAX], text[TGO_TEXT_SIZE];
	struct tgo_header header;

	if (tgo_datagram(datagram, length, format, &header))
		return; /* not of an edge that does as we were told */
	tgo_format(&header.client, text);
	message->msg_iov = (struct iovec[]){ { front, tgo_answer(&header, front) }, { text, strlen(text) }, { ": ", 2 },
		{ datagram + header.length, length - header.length } };
	message->msg_iovlen = 4;
	if (sendmsg(fd, message, 0) < 0)
		perror("example-datagram: sendmsg");
}

int main(int argc, char **argv)
{
	static unsigned char datagram[DATAGRAM_MAX];
	enum tgo_format format;
	union tgo_addr peer;
	int fd;

	if (argc != 4 || (strcmp(argv[3], "spp") != 0 && strcmp(argv[3], "ppv2") != 0)) {
		fprintf(stderr, "usage: example-datagram ADDRESS PORT spp|ppv2\n");
		return 2;
	}
	format = strcmp(argv[3], "spp") == 0 ? TGO_SPP : TGO_PROXY_V2;
	fd = open_socket(argv[1], argv[2]);
	for (;;) {
		struct msghdr message = { .msg_name = &peer, .msg_namelen = sizeof(peer) };
		ssize_t n = recvfrom(fd, datagram, sizeof(datagram), 0, &peer.sa, &message.msg_namelen);

		if (n < 0)
			break;
		answer(fd, datagram, (size_t)n, format, &message);
	}
	perror("example-datagram");
	return 1;
}
