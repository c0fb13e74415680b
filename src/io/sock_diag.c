/* SPDX-License-Identifier: Apache-2.0 */
#include "io/sock_diag.h"
#include "base/error.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ANSWER_SIZE = 64 << 10 };

struct request {
	struct nlmsghdr header;
	struct inet_diag_req_v2 diag;
};

static int send_request(int fd, uint8_t family, bool tcp)
{
	struct request request = {
		.header = {
			.nlmsg_len = sizeof(request),
			.nlmsg_type = SOCK_DIAG_BY_FAMILY,
			.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP,
		},
		.diag = {
			.sdiag_family = family,
			.sdiag_protocol = tcp ? IPPROTO_TCP : IPPROTO_UDP,
			.idiag_states = 1u << (tcp ? TCP_LISTEN : TCP_CLOSE),
		},
	};
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };

	if (sendto(fd, &request, sizeof(request), 0, (struct sockaddr *)&kernel, sizeof(kernel)) < 0)
		return fault(-errno);
	return 0;
}

static struct sock_diag_entry entry_of(const struct inet_diag_msg *m)
{
	struct sock_diag_entry e = { .inode = m->idiag_inode, .uid = m->idiag_uid };

	e.local.port = (uint16_t)(m->id.idiag_sport >> 8 | m->id.idiag_sport << 8);
	if (m->idiag_family == AF_INET)
		e.local.ip = ip_from_v4(m->id.idiag_src);
	else
		memcpy(e.local.ip.bytes, m->id.idiag_src, 16);
	return e;
}

/* Reads one dump to its end. */
static int read_dump(int fd, char *buffer, void (*each)(const struct sock_diag_entry *entry, void *arg), void *arg)
{
	for (;;) {
		ssize_t n = recv(fd, buffer, ANSWER_SIZE, 0);
		size_t left;

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return fault(n < 0 ? -errno : -EPROTO);
		left = (size_t)n;
		for (struct nlmsghdr *h = (struct nlmsghdr *)(void *)buffer; NLMSG_OK(h, left);
			h = NLMSG_NEXT(h, left)) {
			struct sock_diag_entry e;

			if (h->nlmsg_type == NLMSG_DONE)
				return 0;
			if (h->nlmsg_type == NLMSG_ERROR)
				return fault(((struct nlmsgerr *)NLMSG_DATA(h))->error);
			e = entry_of(NLMSG_DATA(h));
			if (e.local.port)
				each(&e, arg);
		}
	}
}

int sock_diag_listeners(bool tcp, void (*each)(const struct sock_diag_entry *entry, void *arg), void *arg)
{
	char *buffer = malloc(ANSWER_SIZE);
	int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	int r = 0;

	if (!buffer || fd < 0) {
		r = fault(!buffer ? -ENOMEM : -errno);
		goto out;
	}
	for (int i = 0; i < 2 && r == 0; i++) {
		r = send_request(fd, i == 0 ? AF_INET : AF_INET6, tcp);
		if (r == 0)
			r = read_dump(fd, buffer, each, arg);
	}
out:
	free(buffer);
	if (fd >= 0)
		close(fd);
	return r;
}

/* Whether one of the process's descriptors is the socket. */
static bool process_has(const char *pid, const char *socket_link)
{
	char path[300], link[64];
	struct dirent *d;
	bool found = false;
	DIR *fds;

	snprintf(path, sizeof(path), "/proc/%s/fd", pid);
	fds = opendir(path);
	if (!fds)
		return false;
	while (!found && (d = readdir(fds))) {
		ssize_t n = readlinkat(dirfd(fds), d->d_name, link, sizeof(link) - 1);

		if (n <= 0)
			continue;
		link[n] = 0;
		found = strcmp(link, socket_link) == 0;
	}
	closedir(fds);
	return found;
}

static void process_name(const char *pid, char ret_name[static 32])
{
	char path[300];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%s/comm", pid);
	f = fopen(path, "re");
	if (!f || !fgets(ret_name, 32, f))
		memcpy(ret_name, "?", 2);
	ret_name[strcspn(ret_name, "\n")] = 0;
	if (f)
		fclose(f);
}

void sock_owner(const struct sock_diag_entry *entry, char ret_text[static SOCK_OWNER_SIZE])
{
	DIR *proc = opendir("/proc");
	char socket_link[64], name[32];
	struct dirent *d;

	snprintf(socket_link, sizeof(socket_link), "socket:[%u]", entry->inode);
	snprintf(ret_text, SOCK_OWNER_SIZE, "another program (uid %u)", entry->uid);
	while (proc && (d = readdir(proc))) {
		if (!isdigit((unsigned char)d->d_name[0]) || !process_has(d->d_name, socket_link))
			continue;
		process_name(d->d_name, name);
		snprintf(ret_text, SOCK_OWNER_SIZE, "%s (pid %.10s)", name, d->d_name);
		break;
	}
	if (proc)
		closedir(proc);
}
