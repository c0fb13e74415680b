/* SPDX-License-Identifier: Apache-2.0 */
/* TCP flows on the fast path: the user space end of tcp.bpf.h. */
#include "base/error.h"
#include "bpf/fastpath/private.h"

#include <bpf/bpf.h>
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
	TCP_COUNTERS_BYTES = FAST_SESSIONS_MAX * sizeof(struct fast_tcp_counters),
	PROBE_OPTIONS = 12, /* time stamps */
	PROBE_HOPS = 64,
};

struct fastpath_tcp_listener {
	void (*told)(void *context, uint32_t slot, uint32_t generation);
	void *context;
};

/* --- flows --- */

static int put_direction(struct fastpath *fp, const struct fast_tuple *arrives, const struct fast_tuple *leaves,
	uint32_t direction, const struct fastpath_session *session, uint32_t generation)
{
	struct fast_tcp_target target = {
		.to = *leaves,
		.slot = session->slot,
		.generation = generation,
		.direction = direction,
		.local = session->out_to_origin == 0,
		.ifindex = direction == FAST_TO_ORIGIN ? session->out_to_origin : session->out_to_client,
		.max_length = direction == FAST_TO_ORIGIN ? session->max_to_origin : session->max_to_client,
	};

	return bpf_map_update_elem(fp->targets_fd, arrives, &target, BPF_ANY) ? fault(-errno) : 0;
}

int fastpath_tcp_update(struct fastpath *fp, const struct fastpath_session *session, uint32_t generation)
{
	struct fast_tuple from_client = fast_tuple_of(&session->client, &session->edge);
	struct fast_tuple to_origin = fast_tuple_of(&session->local, &session->origin);
	struct fast_tuple from_origin = fast_tuple_of(&session->origin, &session->local);
	struct fast_tuple to_client = fast_tuple_of(&session->edge, &session->client);
	int r;

	r = put_direction(fp, &from_origin, &to_client, FAST_TO_CLIENT, session, generation);
	if (r == 0)
		r = put_direction(fp, &from_client, &to_origin, FAST_TO_ORIGIN, session, generation);
	return r;
}

static void count_sessions(struct fastpath *fp, int change)
{
	__atomic_fetch_add(&fp->skeleton->bss->tcp_sessions_now, (uint32_t)change, __ATOMIC_RELAXED);
}

int fastpath_tcp_watch(
	struct fastpath *fp, const struct fastpath_session *session, uint32_t generation, uint32_t worker)
{
	struct fast_tcp_session s = { .state = FAST_TCP_WATCH, .generation = generation, .worker = worker };
	int r;

	memset(&fp->tcp_counters[session->slot], 0, sizeof(fp->tcp_counters[0]));
	if (bpf_map_update_elem(fp->tcp_sessions_fd, &session->slot, &s, BPF_F_LOCK))
		return fault(-errno);
	count_sessions(fp, 1);
	r = fastpath_tcp_update(fp, session, generation);
	if (r)
		fastpath_tcp_remove(fp, session, generation);
	return r;
}

int fastpath_tcp_flip(struct fastpath *fp, const struct fastpath_session *session, uint32_t generation,
	const struct fastpath_tcp_facts *facts)
{
	struct fast_tcp_flip in = {
		.arrives = { fast_tuple_of(&session->client, &session->edge),
			fast_tuple_of(&session->origin, &session->local) },
		.slot = session->slot,
		.generation = generation,
		.received = { facts->received[0], facts->received[1] },
		.now = { facts->now[0], facts->now[1] },
		.scale_in = { facts->scale_in[0], facts->scale_in[1] },
		.scale_out = { facts->scale_out[0], facts->scale_out[1] },
	};
	LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = &in, .data_size_in = sizeof(in), .repeat = 1);

	if (bpf_prog_test_run_opts(fp->flip_fd, &options))
		return fault(-errno);
	return (int)options.retval;
}

static void remove_direction(struct fastpath *fp, const struct fast_tuple *arrives,
	const struct fastpath_session *session, uint32_t generation)
{
	struct fast_tcp_target target;

	/* the addresses may be another flow's by now: the program takes an entry out when it sees them used again */
	if (bpf_map_lookup_elem(fp->targets_fd, arrives, &target) == 0 && target.slot == session->slot &&
		target.generation == generation)
		(void)bpf_map_delete_elem(fp->targets_fd, arrives);
}

void fastpath_tcp_remove(struct fastpath *fp, const struct fastpath_session *session, uint32_t generation)
{
	struct fast_tuple from_client = fast_tuple_of(&session->client, &session->edge);
	struct fast_tuple from_origin = fast_tuple_of(&session->origin, &session->local);

	remove_direction(fp, &from_client, session, generation);
	remove_direction(fp, &from_origin, session, generation);
	count_sessions(fp, -1);
}

const struct fast_tcp_counters *fastpath_tcp_counters(const struct fastpath *fp, uint32_t slot)
{
	return &fp->tcp_counters[slot];
}

static int read_session(const struct fastpath *fp, const struct fastpath_session *session, struct fast_tcp_session *ret)
{
	return bpf_map_lookup_elem_flags(fp->tcp_sessions_fd, &session->slot, ret, BPF_F_LOCK) ? fault(-errno) : 0;
}

int fastpath_tcp_position(
	struct fastpath *fp, const struct fastpath_session *session, struct fastpath_tcp_position ret[2])
{
	struct fast_tcp_session s;

	int r = read_session(fp, session, &s);

	for (int i = 0; i < 2 && r == 0; i++) {
		ret[i].seq = s.way[i].seen + s.way[i].seq_delta;
		ret[i].ack = s.way[1 - i].seen;
		ret[i].timestamp = s.way[i].timestamp + s.way[i].timestamp_delta;
	}
	return r;
}

int fastpath_tcp_unconfirmed(struct fastpath *fp, const struct fastpath_session *session, uint32_t direction)
{
	struct fast_tcp_session s;
	int r = read_session(fp, session, &s);

	return r ? r : s.way[direction].seen != s.way[direction].acked;
}

/* --- probes --- */

/* A keep-alive probe, before it is translated. */
struct probe {
	struct ethhdr ethernet; /* zero: the address of loopback */
	uint8_t rest[sizeof(struct ipv6hdr) + sizeof(struct tcphdr) + PROBE_OPTIONS];
};

static uint32_t sum(const void *bytes, size_t length, uint32_t before)
{
	const uint8_t *b = bytes;

	for (size_t i = 0; i < length; i += 2) /* only headers, whose lengths are even */
		before += (uint32_t)b[i] << 8 | b[i + 1];
	return before;
}

static uint16_t checksum(uint32_t sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return htons((uint16_t)~sum);
}

/*
 * What the end that speaks in the direction would send: nothing, with a number below what the other end has confirmed,
 * which that answers. All else repeats what is known already: confirmations, windows and time stamps stay as they are.
 */
static size_t make_tcp(
	uint8_t *at, const struct fast_tuple *tuple, const struct fast_tcp_way *way, const struct fast_tcp_way *back)
{
	bool timestamps = way->flags & back->flags & FAST_TCP_WAY_TIMESTAMP;
	uint32_t room = (back->limit - back->acked) >> way->scale_in;
	struct tcphdr tcp = {
		.source = tuple->sport,
		.dest = tuple->dport,
		.seq = htonl(way->acked - 1),
		.ack_seq = htonl(back->acked + back->seq_delta),
		.doff = timestamps ? 8 : 5,
		.ack = 1,
		.window = htons((uint16_t)MIN(room, 0xffffu)),
	};
	uint32_t options[PROBE_OPTIONS / 4] = { htonl(0x0101080a), htonl(way->timestamp),
		htonl(back->timestamp + back->timestamp_delta) };
	size_t length = timestamps ? sizeof(tcp) + sizeof(options) : sizeof(tcp);

	tcp.check = checksum(sum(tuple, sizeof(tuple->saddr) + sizeof(tuple->daddr),
		sum(&tcp, sizeof(tcp), sum(options, length - sizeof(tcp), IPPROTO_TCP + (uint32_t)length))));
	memcpy(at, &tcp, sizeof(tcp));
	memcpy(at + sizeof(tcp), options, sizeof(options));
	return length;
}

static size_t make_probe(struct probe *probe, const struct fast_tuple *tuple, bool v4, const struct fast_tcp_way *way,
	const struct fast_tcp_way *back)
{
	struct iphdr ip4 = { .version = 4, .ihl = 5, .ttl = PROBE_HOPS, .protocol = IPPROTO_TCP };
	struct ipv6hdr ip6 = { .version = 6, .hop_limit = PROBE_HOPS, .nexthdr = IPPROTO_TCP };
	size_t header = v4 ? sizeof(ip4) : sizeof(ip6);
	size_t length = make_tcp(probe->rest + header, tuple, way, back);

	if (v4) {
		memcpy(&ip4.saddr, tuple->saddr + 12, 4);
		memcpy(&ip4.daddr, tuple->daddr + 12, 4);
		ip4.frag_off = htons(0x4000); /* don't fragment */
		ip4.tot_len = htons((uint16_t)(header + length));
		ip4.check = checksum(sum(&ip4, sizeof(ip4), 0));
		memcpy(probe->rest, &ip4, sizeof(ip4));
	} else {
		memcpy(&ip6.saddr, tuple->saddr, 16);
		memcpy(&ip6.daddr, tuple->daddr, 16);
		ip6.payload_len = htons((uint16_t)length);
		memcpy(probe->rest, &ip6, sizeof(ip6));
	}
	probe->ethernet.h_proto = htons(v4 ? ETH_P_IP : ETH_P_IPV6);
	return sizeof(probe->ethernet) + header + length;
}

int fastpath_tcp_probe(struct fastpath *fp, const struct fastpath_session *session, uint32_t direction)
{
	bool to_client = direction == FAST_TO_CLIENT;
	const struct addr *from = to_client ? &session->origin : &session->client;
	struct fast_tuple tuple = fast_tuple_of(from, to_client ? &session->local : &session->edge);
	struct fast_tcp_session s;
	struct probe frame = { 0 };
	LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = &frame, .repeat = 1);
	int r = read_session(fp, session, &s);

	if (r)
		return r;
	options.data_size_in =
		(uint32_t)make_probe(&frame, &tuple, ip_is_v4(&from->ip), &s.way[direction], &s.way[1 - direction]);
	if (bpf_prog_test_run_opts(fp->probe_fd, &options))
		return fault(-errno);
	return options.retval ? fault(-EIO) : 0;
}

/* --- ends --- */

static int event(void *context, void *data, size_t size)
{
	const struct fastpath_tcp_listener *listener = context;
	const struct fast_tcp_event *e = data;

	if (size >= sizeof(*e) && listener->told)
		listener->told(listener->context, e->slot, e->generation);
	return 0;
}

int fastpath_tcp_ring(const struct fastpath *fp, unsigned int worker)
{
	return fp->ring_fds[worker];
}

void fastpath_tcp_events(struct fastpath *fp, unsigned int worker,
	void (*told)(void *context, uint32_t slot, uint32_t generation), void *context)
{
	fp->listeners[worker] = (struct fastpath_tcp_listener){ told, context };
	(void)ring_buffer__consume(fp->rings[worker]); /* what the callback returns: it has no errors */
}

/* --- start and end --- */

const char *fastpath_tcp_state(const struct fastpath *fp)
{
	return fp->tcp_state;
}

void fastpath_tcp_off(struct fastpath *fp, const char *doing, int error)
{
	snprintf(fp->tcp_state, sizeof(fp->tcp_state), "off: %s: %s", doing, strerror(-error));
}

/* Sockets of carried flows are closed without a word, which takes a privilege. */
static int try_repair(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
	int r = fd < 0 || setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on)) < 0 ? fault(-errno) : 0;

	if (fd >= 0)
		close(fd);
	return r;
}

static int add_ring(struct fastpath *fp, unsigned int worker)
{
	int fd = bpf_map_create(BPF_MAP_TYPE_RINGBUF, "tcp_ring", 0, 0, FAST_TCP_EVENT_RING, NULL);

	if (fd < 0)
		return fault(-errno);
	fp->ring_fds[worker] = fd;
	fp->ring_count++;
	if (bpf_map_update_elem(bpf_map__fd(fp->skeleton->maps.tcp_rings), &worker, &fd, BPF_ANY))
		return fault(-errno);
	fp->rings[worker] = ring_buffer__new(fd, event, &fp->listeners[worker], NULL);
	return fp->rings[worker] ? 0 : fault(-errno);
}

void fastpath_tcp_init(struct fastpath *fp, unsigned int workers)
{
	const char *doing = "TCP_REPAIR (CAP_NET_ADMIN)";
	void *counters;
	int r;

	if (workers == 0)
		return;
	fp->targets_fd = bpf_map__fd(fp->skeleton->maps.tcp_targets);
	fp->tcp_sessions_fd = bpf_map__fd(fp->skeleton->maps.tcp_sessions);
	fp->flip_fd = bpf_program__fd(fp->skeleton->progs.flip);
	fp->probe_fd = bpf_program__fd(fp->skeleton->progs.probe);
	r = try_repair();
	if (r)
		goto off;
	doing = "making its rings";
	r = -ENOMEM;
	fp->listeners = calloc(workers, sizeof(*fp->listeners));
	if (!fp->listeners)
		goto off;
	r = 0;
	for (unsigned int w = 0; w < workers && r == 0; w++)
		r = w < FAST_TCP_WORKERS_MAX ? add_ring(fp, w) : fault(-E2BIG);
	if (r)
		goto off;
	counters = mmap(NULL, TCP_COUNTERS_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
		bpf_map__fd(fp->skeleton->maps.tcp_counters), 0);
	if (counters == MAP_FAILED) {
		r = fault(-errno);
		goto off;
	}
	fp->tcp_counters = counters;
	snprintf(fp->tcp_state, sizeof(fp->tcp_state), "on");
	return;
off:
	fastpath_tcp_off(fp, doing, r);
	fastpath_tcp_deinit(fp);
}

void fastpath_tcp_deinit(struct fastpath *fp)
{
	for (unsigned int w = 0; w < fp->ring_count; w++) {
		ring_buffer__free(fp->rings[w]);
		close(fp->ring_fds[w]);
	}
	fp->ring_count = 0;
	free(fp->listeners);
	fp->listeners = NULL;
	if (fp->tcp_counters)
		munmap(fp->tcp_counters, TCP_COUNTERS_BYTES);
	fp->tcp_counters = NULL;
}
