/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sending the client's address to origins in a TCP option (TOA): loading the program, and handing it addresses. The
 * program hangs in a cgroup of the process's own, so it meets no socket of any other.
 */
#pragma once

#include "base/text.h"
#include "bpf/shared.h"

struct toa_send;

/**
 * toa_send_open() - move the process into a cgroup of its own and attach the program there
 * @ret_why: on failure, one line for people
 *
 * Needs CAP_BPF, CAP_NET_ADMIN and the right to make a cgroup; nothing later does. Sockets made before don't count.
 * The program goes with the process, however that ends.
 *
 * Return: 0; -errno, and the process is where it was.
 */
MUST_CHECK int toa_send_open(struct text *ret_why, struct toa_send **ret_toa);

/** toa_send_close() - detach, leave the cgroup and remove it; NULL is accepted */
void toa_send_close(struct toa_send *toa);

/**
 * toa_send_give() - lay an option out for a TCP socket's connect(); from any thread
 * @option:   kind, length and what follows, as it goes on the wire
 * @length:   TOA_V4 or TOA_V6
 * @in_syn:   on the SYN too
 * @ret_slot: to be given to toa_send_taken() right after connect(), come what may
 *
 * Return: 0; -errno (-EBUSY: there was no place for it).
 */
MUST_CHECK int toa_send_give(
	struct toa_send *toa, int fd, const uint8_t *option, size_t length, bool in_syn, struct toa_slot **ret_slot);

/** toa_send_taken() - clear the place. Return: whether the program has taken the option for the socket. */
bool toa_send_taken(struct toa_slot *slot);

/** toa_send_counts() - what the program has counted; zero for NULL. From any thread. */
struct toa_counts toa_send_counts(const struct toa_send *toa);
