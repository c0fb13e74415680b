/* SPDX-License-Identifier: Apache-2.0 */
#include "bpf/fastpath/private.h"
#include "base/error.h"
#include "bpf/quiet.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	TCX_INGRESS = 46, /* BPF_TCX_INGRESS of Linux 6.6, younger than Debian 12's headers */
	TRIAL_MS = 500,
	COUNTERS_BYTES = FAST_SESSIONS_MAX * sizeof(struct fast_counters),
};

/* --- sessions --- */

struct fast_tuple fast_tuple_of(const struct addr *from, const struct addr *to)
{
	struct fast_tuple t = { .sport = htons(from->port), .dport = htons(to->port) };

	memcpy(t.saddr, from->ip.bytes, 16);
	memcpy(t.daddr, to->ip.bytes, 16);
	return t;
}

static int add_direction(struct fastpath *fp, const struct fast_tuple *arrives, const struct fast_tuple *leaves,
	uint32_t direction, const struct fastpath_session *session)
{
	struct fast_target target = {
		.to = *leaves,
		.slot = session->slot,
		.direction = direction,
		.local = session->out_to_origin == 0,
		.ifindex = direction == FAST_TO_ORIGIN ? session->out_to_origin : session->out_to_client,
		.max_length = direction == FAST_TO_ORIGIN ? session->max_to_origin : session->max_to_client,
		.observe = session->observe,
	};

	return bpf_map_update_elem(fp->sessions_fd, arrives, &target, BPF_ANY) ? fault(-errno) : 0;
}

int fastpath_update(struct fastpath *fp, const struct fastpath_session *session)
{
	struct fast_tuple from_client = fast_tuple_of(&session->client, &session->edge);
	struct fast_tuple to_origin = fast_tuple_of(&session->local, &session->origin);
	struct fast_tuple from_origin = fast_tuple_of(&session->origin, &session->local);
	struct fast_tuple to_client = fast_tuple_of(&session->edge, &session->client);
	int r;

	/* answers first, so that none of those to the first datagram carried takes another way than the later ones */
	r = add_direction(fp, &from_origin, &to_client, FAST_TO_CLIENT, session);
	if (r == 0)
		r = add_direction(fp, &from_client, &to_origin, FAST_TO_ORIGIN, session);
	if (r)
		fastpath_remove(fp, session);
	return r;
}

int fastpath_add(struct fastpath *fp, const struct fastpath_session *session)
{
	memset(&fp->counters[session->slot], 0, sizeof(fp->counters[0]));
	return fastpath_update(fp, session);
}

void fastpath_remove(struct fastpath *fp, const struct fastpath_session *session)
{
	struct fast_tuple from_client = fast_tuple_of(&session->client, &session->edge);
	struct fast_tuple from_origin = fast_tuple_of(&session->origin, &session->local);

	/* the only error there can be is that an entry is not there */
	(void)bpf_map_delete_elem(fp->sessions_fd, &from_client);
	(void)bpf_map_delete_elem(fp->sessions_fd, &from_origin);
}

const struct fast_counters *fastpath_counters(const struct fastpath *fp, uint32_t slot)
{
	return &fp->counters[slot];
}

/* --- the trial --- */

struct trial {
	int client, edge, local, origin;
	struct fastpath_session session;
};

/* A UDP socket on 127.0.0.1 with a port of its own. */
static int trial_socket(struct addr *ret_addr)
{
	union sockaddr_any sa = { .in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) } };
	socklen_t length = sizeof(sa.in);
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, &sa.sa, length) < 0 || getsockname(fd, &sa.sa, &length) < 0) {
		if (fd >= 0)
			close(fd);
		return -1;
	}
	*ret_addr = addr_from_sockaddr(&sa);
	return fd;
}

static bool trial_connect(int fd, const struct addr *to)
{
	union sockaddr_any sa;

	return connect(fd, &sa.sa, addr_to_sockaddr(to, &sa)) == 0;
}

/* One datagram from @from, which must reach @at with @source as its sender. */
static bool trial_pass(int from, int at, const struct addr *source)
{
	struct pollfd p = { .fd = at, .events = POLLIN };
	union sockaddr_any sa;
	socklen_t length = sizeof(sa);
	struct addr sender;
	char byte = 't';

	if (send(from, &byte, 1, 0) != 1 || poll(&p, 1, TRIAL_MS) != 1 ||
		recvfrom(at, &byte, 1, MSG_DONTWAIT, &sa.sa, &length) != 1)
		return false;
	sender = addr_from_sockaddr(&sa);
	return addr_equal(&sender, source);
}

/* What a session does, with sockets of our own at all four ends: nothing may arrive at the edge's and the local one. */
static bool trial_run(struct fastpath *fp, struct trial *t)
{
	const struct fast_counters *c = fastpath_counters(fp, t->session.slot);

	if (!trial_connect(t->local, &t->session.origin) || !trial_connect(t->client, &t->session.edge) ||
		fastpath_add(fp, &t->session))
		return false;
	if (!trial_pass(t->client, t->origin, &t->session.local) || !trial_connect(t->origin, &t->session.local) ||
		!trial_pass(t->origin, t->client, &t->session.edge))
		return false;
	return c->datagrams[FAST_TO_ORIGIN] == 1 && c->datagrams[FAST_TO_CLIENT] == 1 && c->bytes[FAST_TO_ORIGIN] == 1;
}

static int trial(struct fastpath *fp)
{
	struct trial t = { 0 };
	bool passed;

	t.client = trial_socket(&t.session.client);
	t.edge = trial_socket(&t.session.edge);
	t.local = trial_socket(&t.session.local);
	t.origin = trial_socket(&t.session.origin);
	passed = t.client >= 0 && t.edge >= 0 && t.local >= 0 && t.origin >= 0 && trial_run(fp, &t);
	fastpath_remove(fp, &t.session);
	for (size_t i = 0; i < 4; i++) {
		int fd = (int[]){ t.client, t.edge, t.local, t.origin }[i];

		if (fd >= 0)
			close(fd);
	}
	return passed ? 0 : fault(-EIO);
}

/* --- loading --- */

/* Whether the device has the Ethernet header that the program expects. @fd: any socket of this network namespace. */
static bool has_ethernet_header(int fd, const char *name)
{
	struct ifreq request = { 0 };

	memccpy(request.ifr_name, name, 0, sizeof(request.ifr_name) - 1);
	return ioctl(fd, SIOCGIFHWADDR, &request) == 0 &&
		(request.ifr_hwaddr.sa_family == ARPHRD_ETHER || request.ifr_hwaddr.sa_family == ARPHRD_LOOPBACK);
}

static int attach_all(struct fastpath *fp)
{
	struct if_nameindex *devices = if_nameindex();
	int program = bpf_program__fd(fp->skeleton->progs.fastpath);
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int r = 0;

	if (!devices || fd < 0)
		r = fault(-errno);
	for (struct if_nameindex *d = devices; r == 0 && d->if_index && fp->link_count < DEVICES_MAX; d++) {
		int link;

		if (!has_ethernet_header(fd, d->if_name))
			continue;
		link = bpf_link_create(program, (int)d->if_index, (enum bpf_attach_type)TCX_INGRESS, NULL);
		if (link < 0)
			r = fault(-errno);
		else
			fp->links[fp->link_count++] = link;
	}
	if (devices)
		if_freenameindex(devices);
	if (fd >= 0)
		close(fd);
	return r;
}

static int load(struct fastpath *fp, bool tcp)
{
	int r;

	fp->skeleton = fastpath_bpf__open();
	if (!fp->skeleton)
		return fault(-errno);
	fp->skeleton->rodata->tcp_on = tcp;
	(void)bpf_program__set_autoload(fp->skeleton->progs.flip, tcp);
	(void)bpf_program__set_autoload(fp->skeleton->progs.probe, tcp);
	r = fastpath_bpf__load(fp->skeleton);
	if (r) {
		fastpath_bpf__destroy(fp->skeleton);
		fp->skeleton = NULL;
	}
	return r;
}

int fastpath_open(unsigned int tcp_workers, struct text *ret_why, struct fastpath **ret_fastpath)
{
	const char *doing = "loading the fast path";
	struct fastpath *fp = calloc(1, sizeof(*fp));
	void *counters;
	int r = -ENOMEM;

	if (!fp)
		return fault(-ENOMEM);
	bpf_quiet();
	r = load(fp, tcp_workers > 0);
	if (r && tcp_workers) {
		fastpath_tcp_off(fp, "loading it", r);
		tcp_workers = 0;
		r = load(fp, false);
	}
	if (r)
		goto failed;
	fp->sessions_fd = bpf_map__fd(fp->skeleton->maps.sessions);
	counters = mmap(
		NULL, COUNTERS_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, bpf_map__fd(fp->skeleton->maps.counters), 0);
	if (counters == MAP_FAILED) {
		r = fault(-errno);
		goto failed;
	}
	fp->counters = counters;
	doing = "attaching the fast path (tcx, Linux 6.6 or newer)";
	r = attach_all(fp);
	if (r)
		goto failed;
	doing = "trying the fast path on loopback";
	r = trial(fp);
	if (r)
		goto failed;
	fastpath_tcp_init(fp, tcp_workers);
	*ret_fastpath = fp;
	return 0;
failed:
	text_printf(ret_why, "%s: %s", doing, strerror(-r));
	fastpath_close(fp);
	return r;
}

void fastpath_close(struct fastpath *fp)
{
	if (!fp)
		return;
	for (unsigned int i = 0; i < fp->link_count; i++)
		close(fp->links[i]);
	if (fp->counters)
		munmap(fp->counters, COUNTERS_BYTES);
	fastpath_tcp_deinit(fp);
	fastpath_bpf__destroy(fp->skeleton);
	free(fp);
}
