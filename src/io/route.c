/* SPDX-License-Identifier: Apache-2.0 */
#include "io/route.h"
#include "base/error.h"

#include <errno.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ANSWER_SIZE = 4096 };

struct request {
	struct nlmsghdr header;
	struct rtmsg route;
	uint8_t attributes[2 * RTA_SPACE(16)];
};

int route_open(void)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	return fd < 0 ? fault(-errno) : fd;
}

int route_watch(void)
{
	struct sockaddr_nl groups = {
		.nl_family = AF_NETLINK,
		.nl_groups =
			RTMGRP_LINK | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR,
	};
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);

	if (fd < 0)
		return fault(-errno);
	if (bind(fd, (struct sockaddr *)&groups, sizeof(groups)) < 0) {
		int r = fault(-errno);

		close(fd);
		return r;
	}
	return fd;
}

void route_watch_drain(int fd)
{
	char message[ANSWER_SIZE];

	/* ENOBUFS says that messages were lost: there was a change all the same */
	while (recv(fd, message, sizeof(message), 0) > 0 || errno == ENOBUFS || errno == EINTR)
		errno = 0;
}

uint32_t route_mtu(int fd, int ifindex)
{
	struct ifreq request = { .ifr_ifindex = ifindex };

	if (ioctl(fd, SIOCGIFNAME, &request) < 0 || ioctl(fd, SIOCGIFMTU, &request) < 0)
		return 0;
	return (uint32_t)request.ifr_mtu;
}

static void put_address(struct request *request, unsigned short type, const struct ip *ip)
{
	bool v4 = ip_is_v4(ip);
	unsigned short size = v4 ? 4 : 16;
	struct rtattr *a = (struct rtattr *)(void *)((char *)request + NLMSG_ALIGN(request->header.nlmsg_len));

	a->rta_type = type;
	a->rta_len = (unsigned short)RTA_LENGTH(size);
	memcpy(RTA_DATA(a), ip->bytes + (v4 ? 12 : 0), size);
	request->header.nlmsg_len = NLMSG_ALIGN(request->header.nlmsg_len) + (uint32_t)RTA_ALIGN(a->rta_len);
}

static uint32_t read_mtu(struct rtattr *metrics)
{
	size_t left = RTA_PAYLOAD(metrics);
	uint32_t mtu = 0;

	for (struct rtattr *a = RTA_DATA(metrics); RTA_OK(a, left); a = RTA_NEXT(a, left))
		if (a->rta_type == RTAX_MTU && RTA_PAYLOAD(a) >= sizeof(mtu))
			memcpy(&mtu, RTA_DATA(a), sizeof(mtu));
	return mtu;
}

/* The interface in an answer; 0 for a route to ourselves. */
static int read_answer(struct nlmsghdr *h, uint32_t *ret_mtu)
{
	struct rtmsg *route = NLMSG_DATA(h);
	int ifindex = -ENETUNREACH;
	size_t left;

	*ret_mtu = 0;
	if (h->nlmsg_type == NLMSG_ERROR)
		return ((struct nlmsgerr *)NLMSG_DATA(h))->error;
	if (h->nlmsg_type != RTM_NEWROUTE || route->rtm_type == RTN_UNREACHABLE || route->rtm_type == RTN_BLACKHOLE)
		return -ENETUNREACH;
	if (route->rtm_type == RTN_LOCAL)
		return 0;
	left = RTM_PAYLOAD(h);
	for (struct rtattr *a = RTM_RTA(route); RTA_OK(a, left); a = RTA_NEXT(a, left)) {
		if (a->rta_type == RTA_OIF)
			memcpy(&ifindex, RTA_DATA(a), sizeof(ifindex));
		else if (a->rta_type == RTA_METRICS)
			*ret_mtu = read_mtu(a);
	}
	return ifindex;
}

int route_lookup(int fd, const struct ip *from, const struct ip *to, uint32_t *ret_mtu)
{
	_Alignas(struct nlmsghdr) char answer[ANSWER_SIZE];
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	uint8_t bits = ip_is_v4(to) ? 32 : 128;
	struct request request = {
		.header = { .nlmsg_len = NLMSG_LENGTH(sizeof(struct rtmsg)),
			.nlmsg_type = RTM_GETROUTE,
			.nlmsg_flags = NLM_F_REQUEST },
		.route = { .rtm_family = ip_is_v4(to) ? AF_INET : AF_INET6, .rtm_dst_len = bits, .rtm_src_len = bits },
	};
	ssize_t n;

	put_address(&request, RTA_DST, to);
	put_address(&request, RTA_SRC, from);
	if (sendto(fd, &request, request.header.nlmsg_len, 0, (struct sockaddr *)&kernel, sizeof(kernel)) < 0)
		return fault(-errno);
	n = recv(fd, answer, sizeof(answer), 0);
	if (n < 0)
		return fault(-errno);
	if (!NLMSG_OK((struct nlmsghdr *)(void *)answer, (size_t)n))
		return fault(-EPROTO);
	return read_answer((struct nlmsghdr *)(void *)answer, ret_mtu);
}
