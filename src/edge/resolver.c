/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Timers: one a name (its next lookup), and one for c-ares (its retransmissions).
 *
 * c-ares opens and closes sockets as it likes and says so through socket_state(). It may leave something unread when it
 * returns, and the loop is edge-triggered, so a socket that is still readable is looked at again in the next turn.
 */
#include "edge/resolver.h"
#include "base/error.h"
#include "base/log.h"
#include "base/hash.h"

#include <ares.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

enum {
	RESOLVER_SOCKETS = 32,
	QUERY_TIMEOUT_MS = 1000, /* of the first try; c-ares waits longer with each */
	QUERY_TRIES = 3,
	RETRY_MIN_MS = 500, /* after a failure, doubled with each one up to the maximum */
	RETRY_MAX_MS = 30000,
	BUCKETS = 1024,
};

struct lookup {
	struct list node;
	struct list bucket; /* by the name's text */
	struct resolver *resolver;
	struct name *name; /* a reference */
	struct timer timer;
	int64_t retry_ms;
	bool running;
	struct name_answer answer; /* what name->answer points to, once there is one */
	struct log_limit complaint;
};

struct resolver_socket {
	struct source source;
	struct resolver *resolver;
	int fd; /* ARES_SOCKET_BAD: free */
};

struct resolver {
	struct loop *loop;
	ares_channel channel;
	struct timer timer;
	struct resolver_socket sockets[RESOLVER_SOCKETS];
	struct list lookups;
	struct list buckets[BUCKETS]; /* lookup.bucket */
	void (*changed)(void *owner, struct name *name);
	void *owner;
	int64_t min_ms;
	int64_t max_ms;
	struct server_list servers; /* as configured; empty: those of the system */
	bool ending;
	uint64_t lookup_count;
	uint64_t failure_count;
};

/* --- c-ares in the loop --- */

static void arm(struct resolver *r)
{
	struct timeval tv, *next = ares_timeout(r->channel, NULL, &tv);

	if (!next)
		timer_stop(&r->timer);
	else
		timer_start(&r->loop->timers, &r->timer,
			clock_now() + next->tv_sec * NSEC_PER_SEC + next->tv_usec * NSEC_PER_USEC);
}

static void timeout(struct timer *timer)
{
	struct resolver *r = CONTAINER_OF(timer, struct resolver, timer);

	ares_process_fd(r->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
	arm(r);
}

static void socket_ready(struct source *source, uint32_t events)
{
	struct resolver_socket *s = CONTAINER_OF(source, struct resolver_socket, source);
	struct resolver *r = s->resolver;
	struct pollfd still = { .fd = s->fd, .events = POLLIN };
	bool read = events == 0 || events & (EPOLLIN | EPOLLERR | EPOLLHUP | EPOLLRDHUP);

	if (s->fd == ARES_SOCKET_BAD)
		return;
	ares_process_fd(
		r->channel, read ? s->fd : ARES_SOCKET_BAD, events == 0 || events & EPOLLOUT ? s->fd : ARES_SOCKET_BAD);
	if (s->fd == still.fd && poll(&still, 1, 0) > 0 && still.revents & POLLIN)
		loop_again(r->loop, &s->source);
	arm(r);
}

static struct resolver_socket *find_socket(struct resolver *r, int fd)
{
	for (size_t i = 0; i < RESOLVER_SOCKETS; i++)
		if (r->sockets[i].fd == fd)
			return &r->sockets[i];
	return NULL;
}

static void socket_state(void *arg, ares_socket_t fd, int readable, int writable)
{
	struct resolver *r = arg;
	struct resolver_socket *s = find_socket(r, fd);

	if (!readable && !writable) {
		if (s) {
			loop_forget(&s->source);
			s->fd = ARES_SOCKET_BAD;
		}
		return;
	}
	if (s) {
		/* there is something to write, and the edge that said it could be written to is used up */
		loop_again(r->loop, &s->source);
		return;
	}
	s = find_socket(r, ARES_SOCKET_BAD);
	if (!s)
		return; /* the query times out and is tried again */
	source_init(&s->source, socket_ready);
	s->fd = fd;
	if (loop_add(r->loop, fd, &s->source, EPOLLIN | EPOLLOUT))
		s->fd = ARES_SOCKET_BAD;
}

/* --- answers --- */

static int compare_ips(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct ip));
}

static void again_in(struct lookup *l, int64_t ms)
{
	timer_start(&l->resolver->loop->timers, &l->timer, clock_now() + ms * NSEC_PER_MSEC);
}

/* Addresses in a fixed order and the smallest TTL. Return: how many. */
static unsigned int collect(
	const struct ares_addrinfo *result, struct ip ips[static NAME_ADDRESSES_MAX], int64_t *ret_ttl_s)
{
	unsigned int count = 0;
	int64_t ttl_s = INT32_MAX;

	for (struct ares_addrinfo_node *n = result->nodes; n && count < NAME_ADDRESSES_MAX; n = n->ai_next) {
		union sockaddr_any sa = { 0 };

		if (n->ai_family != AF_INET && n->ai_family != AF_INET6)
			continue;
		memcpy(&sa, n->ai_addr, MIN(sizeof(sa), (size_t)n->ai_addrlen));
		ips[count++] = addr_from_sockaddr(&sa).ip;
		ttl_s = MIN(ttl_s, (int64_t)MAX(n->ai_ttl, 0));
	}
	for (struct ares_addrinfo_cname *c = result->cnames; c; c = c->next)
		ttl_s = MIN(ttl_s, (int64_t)MAX(c->ttl, 0));
	qsort(ips, count, sizeof(*ips), compare_ips);
	*ret_ttl_s = ttl_s;
	return count;
}

static void succeeded(struct lookup *l, const struct ip *ips, unsigned int count, int64_t ttl_s)
{
	struct resolver *r = l->resolver;

	l->retry_ms = RETRY_MIN_MS;
	again_in(l, MIN(MAX(ttl_s * 1000, r->min_ms), r->max_ms));
	if (l->name->answer && l->answer.count == count && memcmp(l->answer.ips, ips, count * sizeof(*ips)) == 0)
		return;
	l->answer.count = count;
	memcpy(l->answer.ips, ips, count * sizeof(*ips));
	l->name->answer = &l->answer;
	if (r->changed)
		r->changed(r->owner, l->name);
}

static void failed(struct lookup *l, const char *why)
{
	unsigned int suppressed;

	l->resolver->failure_count++;
	if (log_allowed(&l->complaint, clock_now(), &suppressed))
		log_warning("name %s: %s; %s", l->name->text, why,
			l->name->answer ? "its last good answer stays" : "it has no address yet");
	again_in(l, l->retry_ms);
	l->retry_ms = MIN(l->retry_ms * 2, (int64_t)RETRY_MAX_MS);
}

static void lookup_free(struct lookup *l)
{
	timer_stop(&l->timer);
	list_del(&l->node);
	list_del(&l->bucket);
	l->name->answer = NULL;
	name_unref(l->name);
	free(l);
}

static void answered(void *arg, int status, int timeouts, struct ares_addrinfo *result)
{
	struct lookup *l = arg;
	struct ip ips[NAME_ADDRESSES_MAX];
	unsigned int count = 0;
	int64_t ttl_s = 0;

	(void)timeouts;
	l->running = false;
	if (status == ARES_SUCCESS)
		count = collect(result, ips, &ttl_s);
	if (result)
		ares_freeaddrinfo(result);
	if (status == ARES_EDESTRUCTION && l->resolver->ending)
		lookup_free(l);
	else if (status == ARES_EDESTRUCTION)
		again_in(l, 0); /* the servers were changed */
	else if (count)
		succeeded(l, ips, count, ttl_s);
	else
		failed(l, status == ARES_SUCCESS ? "no address" : ares_strerror(status));
}

static void look_up(struct timer *timer)
{
	static const struct ares_addrinfo_hints hints = { .ai_flags = ARES_AI_NOSORT, .ai_family = AF_UNSPEC };
	struct lookup *l = CONTAINER_OF(timer, struct lookup, timer);
	struct resolver *r = l->resolver;

	if (l->running)
		return;
	if (l->name->refs == 1) {
		lookup_free(l); /* no configuration and no flow has it any more */
		return;
	}
	l->running = true;
	r->lookup_count++;
	ares_getaddrinfo(r->channel, l->name->text, NULL, &hints, answered, l);
	arm(r);
}

/* --- interface --- */

static struct name *name_ref(struct name *n)
{
	n->refs++;
	return n;
}

void name_unref(struct name *n)
{
	if (n && --n->refs == 0)
		free(n);
}

struct name *resolver_name(struct resolver *r, const char *text)
{
	size_t length = strlen(text);
	struct list *bucket = &r->buckets[hash_bytes(text, length, 0) % BUCKETS];
	struct lookup *l;

	list_for_each (node, bucket) {
		l = CONTAINER_OF(node, struct lookup, bucket);
		if (strcmp(l->name->text, text) == 0)
			return name_ref(l->name);
	}
	l = calloc(1, sizeof(*l));
	if (!l)
		return NULL;
	l->name = calloc(1, sizeof(*l->name) + length + 1);
	if (!l->name) {
		free(l);
		return NULL;
	}
	l->name->refs = 1;
	memcpy(l->name->text, text, length);
	l->resolver = r;
	l->retry_ms = RETRY_MIN_MS;
	timer_init(&l->timer, look_up);
	list_add(&r->lookups, &l->node);
	list_add(bucket, &l->bucket);
	timer_start(&r->loop->timers, &l->timer, 0);
	return name_ref(l->name);
}

void resolver_tell(struct resolver *r, void (*changed)(void *owner, struct name *name), void *owner)
{
	r->changed = changed;
	r->owner = owner;
}

static int open_channel(struct resolver *r, ares_channel *ret_channel)
{
	struct ares_options options = {
		.timeout = QUERY_TIMEOUT_MS,
		.tries = QUERY_TRIES,
		.sock_state_cb = socket_state,
		.sock_state_cb_data = r,
	};

	return ares_init_options(ret_channel, &options, ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB);
}

static int set_servers(ares_channel channel, const struct server_list *servers)
{
	char bytes[SERVER_LIST_MAX * ADDR_TEXT_SIZE];
	struct text csv = text_fixed(bytes, sizeof(bytes));

	if (servers->count == 0)
		return ARES_SUCCESS; /* a new channel has those of the system */
	for (size_t i = 0; i < servers->count; i++) {
		char server[ADDR_TEXT_SIZE];

		addr_format(&servers->items[i], server);
		text_printf(&csv, "%s%s", i ? "," : "", server);
	}
	return ares_set_servers_ports_csv(channel, csv.bytes);
}

/* c-ares changes no servers while queries run, so a new channel takes over; what runs on the old one is asked again. */
static void change_servers(struct resolver *r, const struct server_list *servers)
{
	ares_channel old = r->channel, channel;
	int status = open_channel(r, &channel);

	if (status == ARES_SUCCESS) {
		status = set_servers(channel, servers);
		if (status != ARES_SUCCESS)
			ares_destroy(channel);
	}
	if (status != ARES_SUCCESS) {
		log_error("resolver: the old servers stay in use: %s", ares_strerror(status));
		return;
	}
	r->channel = channel;
	r->servers = *servers;
	ares_destroy(old);
	arm(r);
}

void resolver_configure(struct resolver *r, const struct node_settings *settings)
{
	r->min_ms = settings->resolve_min_ms;
	r->max_ms = MAX(settings->resolve_max_ms, settings->resolve_min_ms);
	if (memcmp(&settings->resolvers, &r->servers, sizeof(r->servers)) != 0)
		change_servers(r, &settings->resolvers);
}

struct resolver_stats resolver_stats(const struct resolver *r)
{
	struct resolver_stats s = { .lookups = r->lookup_count, .failures = r->failure_count };

	list_for_each (node, &r->lookups) {
		s.names++;
		s.unresolved += CONTAINER_OF(node, struct lookup, node)->name->answer == NULL;
	}
	return s;
}

int resolver_new(struct loop *loop, struct resolver **ret_resolver)
{
	struct resolver *r = calloc(1, sizeof(*r));
	int status;

	if (!r)
		return fault(-ENOMEM);
	r->loop = loop;
	list_init(&r->lookups);
	for (size_t i = 0; i < BUCKETS; i++)
		list_init(&r->buckets[i]);
	timer_init(&r->timer, timeout);
	for (size_t i = 0; i < RESOLVER_SOCKETS; i++) {
		r->sockets[i].resolver = r;
		r->sockets[i].fd = ARES_SOCKET_BAD;
		source_init(&r->sockets[i].source, socket_ready);
	}
	status = ares_library_init(ARES_LIB_INIT_ALL);
	if (status == ARES_SUCCESS)
		status = open_channel(r, &r->channel);
	if (status != ARES_SUCCESS) {
		free(r);
		return fault(status == ARES_ENOMEM ? -ENOMEM : -EIO);
	}
	*ret_resolver = r;
	return 0;
}

void resolver_free(struct resolver *r)
{
	if (!r)
		return;
	r->ending = true;
	ares_destroy(r->channel); /* calls back for what runs */
	ares_library_cleanup();
	while (!list_empty(&r->lookups))
		lookup_free(CONTAINER_OF(r->lookups.next, struct lookup, node));
	timer_stop(&r->timer);
	free(r);
}
