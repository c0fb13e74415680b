/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * TCP on the fast path. A flow consists of two connections, each with sequence numbers, time stamps and a window scale
 * of its own; carrying it means to translate the packets of the one into packets of the other. From then on the two
 * ends talk to each other: what is lost is sent again by its sender, who also hears of the reader's window.
 *
 * A session is watched first: the program notes how far each direction has come. `flip` then looks at both sockets and,
 * when neither has anything under way, stores the differences, under the same lock. From then on no packet of the
 * session reaches the sockets. `probe` asks an end whether it is still there, in the name of the other one. See
 * docs/adr/008-tcp-fast-path.md.
 */

#define TCP_HEADER_MAX 60
#define HEADER_ROOM    (64 + 4)	  /* so that any four bytes whose offset is masked to 0..63 are inside */
#define OFFSET(at)     ((at)&63u) /* what the verifier can follow */
/* How far translated time stamps run ahead of the socket's clock: its last, delayed ACKs must not look newer, also
 * when the peer's own clock stands still meanwhile. */
#define TCP_TIMESTAMP_LEAD 250

/* Both directions of each session, by the packet as it arrives. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, FAST_SESSIONS_MAX * 2);
	__type(key, struct fast_tuple);
	__type(value, struct fast_tcp_target);
} tcp_targets SEC(".maps");

/* By slot. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, FAST_SESSIONS_MAX);
	__type(key, __u32);
	__type(value, struct fast_tcp_session);
} tcp_sessions SEC(".maps");

/* By slot. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, FAST_SESSIONS_MAX);
	__type(key, __u32);
	__type(value, struct fast_tcp_counters);
} tcp_counters SEC(".maps");

struct tcp_ring {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, FAST_TCP_EVENT_RING);
};

/* Ends of flows, by worker. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, FAST_TCP_WORKERS_MAX);
	__type(key, __u32);
	__array(values, struct tcp_ring);
} tcp_rings SEC(".maps");

/* Sessions in tcp_targets, kept by user space: with none, TCP packets are let alone without a look. */
volatile __u32 tcp_sessions_now;

struct tcp_packet {
	__u32 old[HEADER_ROOM / 4]; /* the header as it arrived, */
	__u32 new[HEADER_ROOM / 4]; /* and as it leaves */
	__u32 seq;
	__u32 ack;
	__u32 end; /* sequence number after the last byte, FIN included */
	__u32 timestamp;
	__u16 window;
	_Bool has_ack, has_fin, has_rst, has_syn;
	__u8 timestamp_at; /* offset of the two time stamps in the header; 0: none */
	__u8 sack_at;
	__u8 sack_count;
};

static __always_inline __u32 get_be32(const __u8 *b)
{
	return (__u32)b[0] << 24 | (__u32)b[1] << 16 | (__u32)b[2] << 8 | b[3];
}

/* Adds to a number at any offset of a header. */
static __always_inline void add_be32(__u8 *header, __u32 at, __u32 delta)
{
	__u8 *b = header + OFFSET(at);
	__u32 v = get_be32(b) + delta;

	b[0] = v >> 24;
	b[1] = v >> 16;
	b[2] = v >> 8;
	b[3] = v;
}

/* Finds the options that hold numbers of the connection. Return: false when they are malformed. */
static __always_inline _Bool parse_options(struct tcp_packet *t, __u32 length)
{
	const __u8 *header = (const __u8 *)t->old;
	__u32 at = sizeof(struct tcphdr);

	if (length == 32 && t->old[5] == bpf_htonl(0x0101080a)) { /* how all of the world writes it */
		t->timestamp_at = 24;
		return 1;
	}
	for (int i = 0; i < 16; i++) {
		__u32 kind, size;

		if (at >= length)
			return 1;
		kind = header[OFFSET(at)];
		if (kind == 0)
			return 1;
		if (kind == 1) {
			at++;
			continue;
		}
		size = header[OFFSET(at) + 1];
		if (size < 2 || size > 40 || at + size > length)
			return 0;
		if (kind == 8 && size == 10)
			t->timestamp_at = at + 2;
		if (kind == 5) {
			t->sack_at = at + 2;
			t->sack_count = (size - 2u) >> 3;
		}
		at += size;
	}
	return at >= length;
}

static __always_inline _Bool parse_tcp(struct __sk_buff *skb, struct packet *p)
{
	struct tcphdr *tcp =
		(void *)(long)skb->data + (p->v4 ? ETH_HLEN + sizeof(struct iphdr) : ETH_HLEN + sizeof(struct ipv6hdr));

	if ((void *)(tcp + 1) > (void *)(long)skb->data_end)
		return 0;
	p->tuple.sport = tcp->source;
	p->tuple.dport = tcp->dest;
	p->l4_length = tcp->doff * 4;
	p->check = p->l4 + offsetof(struct tcphdr, check);
	if (p->l4_length < sizeof(*tcp) || p->l4 - ETH_HLEN + p->l4_length > p->length)
		return 0;
	p->payload = p->length - (p->l4 - ETH_HLEN) - p->l4_length;
	return 1;
}

static __always_inline _Bool read_tcp(struct __sk_buff *skb, const struct packet *p, struct tcp_packet *t)
{
	const struct tcphdr *tcp = (const struct tcphdr *)t->old;
	__u32 length = p->l4_length & 63;

	if (length < sizeof(struct tcphdr) || length > TCP_HEADER_MAX || bpf_skb_load_bytes(skb, p->l4, t->old, length))
		return 0;
	if (!parse_options(t, length))
		return 0;
	t->seq = bpf_ntohl(tcp->seq);
	t->ack = bpf_ntohl(tcp->ack_seq);
	t->window = bpf_ntohs(tcp->window);
	t->has_ack = tcp->ack;
	t->has_fin = tcp->fin;
	t->has_rst = tcp->rst;
	t->has_syn = tcp->syn;
	t->end = t->seq + p->payload + t->has_fin;
	if (t->timestamp_at)
		t->timestamp = get_be32((const __u8 *)t->old + OFFSET(t->timestamp_at));
	return 1;
}

static __always_inline _Bool after(__u32 a, __u32 b)
{
	return (__s32)(a - b) > 0;
}

static __always_inline void watch(struct fast_tcp_way *way, const struct tcp_packet *t)
{
	if (!(way->flags & FAST_TCP_WAY_SEEN) || after(t->end, way->seen))
		way->seen = t->end;
	way->flags |= FAST_TCP_WAY_SEEN;
	if (t->timestamp_at) {
		if (!(way->flags & FAST_TCP_WAY_TIMESTAMP) || after(t->timestamp, way->timestamp))
			way->timestamp = t->timestamp;
		way->flags |= FAST_TCP_WAY_TIMESTAMP;
	}
}

/* What a carried packet says about both directions. Under the lock. Return: payload that had not been seen before. */
static __always_inline __u32 note(struct fast_tcp_session *s, __u32 direction, const struct tcp_packet *t)
{
	struct fast_tcp_way *way = &s->way[direction & 1], *back = &s->way[(direction ^ 1) & 1];
	__u32 told = s->told, ack = t->ack - back->seq_delta, news = 0;

	if (t->has_rst) {
		/* one that is out of the receiver's window, which it ignores, is no end for us either */
		if (!after(way->acked, t->seq) && !after(t->seq, way->limit))
			s->told = told | FAST_TCP_RST << direction;
		return 0;
	}
	if (t->has_ack && !after(ack, back->seen)) {
		__u32 limit = ack + ((__u32)t->window << way->scale_in);

		if (!after(back->acked, ack)) {
			back->acked = ack;
			if (t->timestamp_at && after(t->timestamp, way->timestamp))
				way->timestamp = t->timestamp;
		}
		if (!(back->flags & FAST_TCP_WAY_LIMIT) || after(limit, back->limit))
			back->limit = limit;
		back->flags |= FAST_TCP_WAY_LIMIT;
	}
	if (t->has_fin && !(told & FAST_TCP_FIN << direction) && !after(way->seen, t->end)) {
		way->fin_end = t->end;
		if (!(told & (FAST_TCP_FIN | FAST_TCP_FIN << 1)))
			told |= FAST_TCP_FIRST << direction;
		told |= FAST_TCP_FIN << direction;
		news = t->end - way->seen;
		way->seen = t->end;
		news -= news != 0; /* the FIN has a number of its own */
	} else if (t->end != t->seq && after(t->end, way->seen) && !after(t->end, way->limit + 65536)) {
		/* a bare ACK may come from behind a FIN that was lost on the way here, so it says nothing */
		news = t->end - way->seen;
		way->seen = t->end;
	}
	if ((told & FAST_TCP_FIN * 3) == FAST_TCP_FIN * 3 && !after(way->fin_end, way->acked) &&
		!after(back->fin_end, back->acked))
		told |= FAST_TCP_ENDED;
	s->told = told;
	return news;
}

/* The header as the other end expects it. */
static __always_inline void translate(struct tcp_packet *t, const struct fast_tuple *to, const struct fast_tcp_way *way,
	const struct fast_tcp_way *back)
{
	__u32 window = (__u32)t->window << way->scale_in >> way->scale_out;
	struct tcphdr *tcp = (struct tcphdr *)t->new;
	__u8 *bytes = (__u8 *)t->new;

	__builtin_memcpy(t->new, t->old, sizeof(t->new));
	tcp->source = to->sport;
	tcp->dest = to->dport;
	tcp->seq = bpf_htonl(t->seq + way->seq_delta);
	tcp->window = bpf_htons(window > 0xffff ? 0xffff : window);
	if (t->has_ack)
		tcp->ack_seq = bpf_htonl(t->ack - back->seq_delta);
	if (t->timestamp_at == 24) {
		t->new[6] = bpf_htonl(bpf_ntohl(t->old[6]) + way->timestamp_delta);
		if (t->has_ack)
			t->new[7] = bpf_htonl(bpf_ntohl(t->old[7]) - back->timestamp_delta);
	} else if (t->timestamp_at) {
		add_be32(bytes, t->timestamp_at, way->timestamp_delta);
		if (t->has_ack)
			add_be32(bytes, t->timestamp_at + 4, -back->timestamp_delta);
	}
	for (int i = 0; i < 8; i++) { /* both edges of at most four blocks */
		if (i >= t->sack_count * 2)
			break;
		add_be32(bytes, t->sack_at + i * 4, -back->seq_delta);
	}
}

static __always_inline void tell(const struct fast_tcp_session *s, __u32 slot, __u32 generation)
{
	struct fast_tcp_event event = { .slot = slot, .generation = generation };
	__u32 worker = s->worker;
	void *ring = bpf_map_lookup_elem(&tcp_rings, &worker);

	if (ring) /* when it is full, the worker finds out when it looks at the counters */
		bpf_ringbuf_output(ring, &event, sizeof(event), 0);
}

static __always_inline int carry_tcp(struct __sk_buff *skb, struct packet *p)
{
	__u32 slot, news = 0, before, told, length, payload;
	_Bool probe = skb->mark == FAST_TCP_PROBE_MARK;
	struct fast_tcp_way way, back;
	struct fast_tcp_counters *c;
	struct fast_tcp_target *target;
	struct fast_tcp_session *s;
	struct tcp_packet t = {};
	__s64 diff;

	if (!parse_tcp(skb, p))
		return NEXT;
	target = bpf_map_lookup_elem(&tcp_targets, &p->tuple);
	if (!target)
		return NEXT;
	if (target->local ? skb->ingress_ifindex != LOOPBACK_IFINDEX : !can_leave(skb, p, target->max_length))
		return NEXT;
	slot = target->slot;
	s = bpf_map_lookup_elem(&tcp_sessions, &slot);
	c = bpf_map_lookup_elem(&tcp_counters, &slot);
	if (!s || !c || s->generation != target->generation || !read_tcp(skb, p, &t))
		return NEXT;
	payload = p->payload;
	bpf_spin_lock(&s->lock);
	if (s->state != FAST_TCP_CARRY) {
		if (!t.has_syn)
			watch(&s->way[target->direction & 1], &t);
		bpf_spin_unlock(&s->lock);
		return NEXT;
	}
	before = s->told;
	if (t.has_syn && before & (FAST_TCP_ENDED | FAST_TCP_RST | FAST_TCP_RST << 1)) {
		/* the port is in use again; while a flow goes on, its other end answers a SYN (RFC 5961, section 4) */
		bpf_spin_unlock(&s->lock);
		bpf_map_delete_elem(&tcp_targets, &p->tuple);
		return NEXT;
	}
	if (!probe) { /* which is no sign of life */
		if (!t.has_syn)
			news = note(s, target->direction, &t);
		c->bytes[target->direction & 1] += news;
		c->packets[target->direction & 1] += skb->gso_segs > 1 ? skb->gso_segs : 1;
	}
	told = s->told;
	way = s->way[target->direction & 1];
	back = s->way[(target->direction ^ 1) & 1];
	bpf_spin_unlock(&s->lock);
	if (payload || told != before)
		c->last_ns = bpf_ktime_get_ns();
	if (told != before) {
		c->told = told;
		tell(s, slot, target->generation);
	}
	if (probe)
		skb->mark = 0;
	translate(&t, &target->to, &way, &back);
	length = p->l4_length & 63;
	if (length < sizeof(struct tcphdr) || length > TCP_HEADER_MAX)
		return NEXT;
	diff = bpf_csum_diff(t.old, length & ~3u, t.new, length & ~3u, 0);
	bpf_skb_store_bytes(skb, p->l4, t.new, length, 0);
	bpf_l4_csum_replace(skb, p->check, 0, diff, 0);
	rewrite_addresses(skb, p, &target->to, target->local ? p->hops : p->hops - 1);
	return target->local ? NEXT : bpf_redirect_neigh(target->ifindex, 0, 0, 0);
}

/* --- the flip --- */

struct tcp_ends {
	__u64 received;
	__u32 rcv_nxt;
	__u32 snd_nxt;
	_Bool quiet; /* established, and all that it has sent is confirmed */
};

static __always_inline _Bool is_v4(const struct fast_tuple *t)
{
	const __u32 *words = (const __u32 *)t->saddr;

	return words[0] == 0 && words[1] == 0 && words[2] == bpf_htonl(0xffff);
}

/* The state of the socket that hears @arrives. */
static __always_inline _Bool look_at_socket(
	struct __sk_buff *skb, const struct fast_tuple *arrives, struct tcp_ends *ret)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_tcp_sock *tcp;
	struct bpf_sock *sk;

	if (is_v4(arrives)) {
		__builtin_memcpy(&tuple.ipv4.saddr, arrives->saddr + 12, 4);
		__builtin_memcpy(&tuple.ipv4.daddr, arrives->daddr + 12, 4);
		tuple.ipv4.sport = arrives->sport;
		tuple.ipv4.dport = arrives->dport;
		sk = bpf_sk_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	} else {
		__builtin_memcpy(tuple.ipv6.saddr, arrives->saddr, 16);
		__builtin_memcpy(tuple.ipv6.daddr, arrives->daddr, 16);
		tuple.ipv6.sport = arrives->sport;
		tuple.ipv6.dport = arrives->dport;
		sk = bpf_sk_lookup_tcp(skb, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
	}
	if (!sk)
		return 0;
	tcp = sk->state == BPF_TCP_ESTABLISHED ? bpf_tcp_sock(sk) : 0;
	if (tcp) {
		ret->received = tcp->bytes_received;
		ret->rcv_nxt = tcp->rcv_nxt;
		ret->snd_nxt = tcp->snd_nxt;
		ret->quiet = tcp->snd_una == tcp->snd_nxt;
	}
	bpf_sk_release(sk);
	return tcp != 0;
}

static __always_inline void begin_way(struct fast_tcp_way *way, const struct tcp_ends *hears,
	const struct tcp_ends *speaks, __u32 now, __u8 scale_in, __u8 scale_out)
{
	way->seq_delta = speaks->snd_nxt - hears->rcv_nxt;
	way->timestamp_delta = now ? now + TCP_TIMESTAMP_LEAD - way->timestamp : 0;
	way->acked = way->seen;
	way->limit = way->seen + (1u << 30); /* until the other end says it */
	way->scale_in = scale_in;
	way->scale_out = scale_out;
}

SEC("tc")
int flip(struct __sk_buff *skb)
{
	const struct fast_tcp_flip *data = (void *)(long)skb->data;
	struct tcp_ends client = {}, origin = {};
	struct fast_tcp_session *s;
	struct fast_tcp_flip in;
	int result = FAST_TCP_E_BUSY;
	_Bool unseen;

	if ((void *)(data + 1) > (void *)(long)skb->data_end)
		return FAST_TCP_E_GONE;
	__builtin_memcpy(&in, data, sizeof(in));
	if (!look_at_socket(skb, &in.arrives[FAST_TO_ORIGIN], &client) ||
		!look_at_socket(skb, &in.arrives[FAST_TO_CLIENT], &origin))
		return FAST_TCP_E_GONE;
	if (!client.quiet || !origin.quiet || client.received != in.received[FAST_TO_ORIGIN] ||
		origin.received != in.received[FAST_TO_CLIENT])
		return FAST_TCP_E_BUSY;
	s = bpf_map_lookup_elem(&tcp_sessions, &in.slot);
	if (!s)
		return FAST_TCP_E_GONE;
	bpf_spin_lock(&s->lock);
	unseen = !(s->way[0].flags & s->way[1].flags & FAST_TCP_WAY_SEEN) ||
		(in.now[0] && !(s->way[0].flags & s->way[1].flags & FAST_TCP_WAY_TIMESTAMP));
	if (s->state != FAST_TCP_WATCH || s->generation != in.generation) {
		result = FAST_TCP_E_GONE;
	} else if (unseen) {
		result = FAST_TCP_E_UNSEEN;
	} else if (s->way[FAST_TO_ORIGIN].seen == client.rcv_nxt && s->way[FAST_TO_CLIENT].seen == origin.rcv_nxt) {
		begin_way(&s->way[0], &client, &origin, in.now[0], in.scale_in[0], in.scale_out[0]);
		begin_way(&s->way[1], &origin, &client, in.now[1], in.scale_in[1], in.scale_out[1]);
		s->state = FAST_TCP_CARRY;
		result = FAST_TCP_FLIPPED;
	}
	bpf_spin_unlock(&s->lock);
	return result;
}

/*
 * Sends a frame as if the other end had: it arrives at the loopback interface, where the program above carries it like
 * any packet, to this machine or out of a device.
 */
SEC("tc")
int probe(struct __sk_buff *skb)
{
	skb->mark = FAST_TCP_PROBE_MARK;
	return bpf_clone_redirect(skb, LOOPBACK_IFINDEX, BPF_F_INGRESS);
}
