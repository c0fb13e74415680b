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

enum { DATAGRAM_MAX = 65535, SESSIONS = 4096 };

static int open_socket(const char *address, const char *port)
{
	struct addrinfo hints = { .ai_socktype = SOCK_DGRAM, .ai_flags = AI_PASSIVE | AI_NUMERICHOST }, *found;
	int fd;

	if (getaddrinfo(address, port, &hints, &found))
		return -1;
	fd = socket(found->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	return fd < 0 || bind(fd, found->ai_addr, found->ai_addrlen) < 0 ? -1 : fd;
}

/* The last client of each peer; another peer with the same port takes its place. */
static struct {
	union tgo_addr peer;
	struct tgo_header header;
} sessions[SESSIONS];

/*
 * An edge that sends PROXY v2 may do so in the first datagram of a session only: those that follow, from the same
 * address and port, are of the same client. A payload that looks like a header is the risk of this.
 */
static int find_client(const unsigned char *datagram, size_t length, enum tgo_format format, const union tgo_addr *peer,
	struct tgo_header *header)
{
	size_t slot = peer->in.sin_port % SESSIONS; /* at the same place for both families */
	int r = tgo_datagram(datagram, length, format, header);

	if (format == TGO_SPP)
		return r;
	if (r == 0) {
		sessions[slot].peer = *peer;
		sessions[slot].header = *header;
	} else if (memcmp(&sessions[slot].peer, peer, sizeof(*peer)) == 0) {
		*header = sessions[slot].header;
		header->length = 0;
		r = 0;
	}
	return r;
}

static void answer(int fd, unsigned char *datagram, size_t length, enum tgo_format format, struct msghdr *message)
{
	char front[TGO_ANSWER_MAX], text[TGO_TEXT_SIZE];
	struct tgo_header header;

	if (find_client(datagram, length, format, message->msg_name, &header))
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
		ssize_t n;

		memset(&peer, 0, sizeof(peer));
		n = recvfrom(fd, datagram, sizeof(datagram), 0, &peer.sa, &message.msg_namelen);

		if (n < 0)
			break;
		answer(fd, datagram, (size_t)n, format, &message);
	}
	perror("example-datagram");
	return 1;
}
