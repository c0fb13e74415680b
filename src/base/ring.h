/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A byte ring between one writing thread and one reading thread, without locks. A write goes in whole or not at all,
 * so that lines are never cut; the writer counts what did not fit.
 */
#pragma once

#include "base/macros.h"

#include <stdatomic.h>

struct ring {
	uint8_t *bytes;
	size_t size;			  /* a power of two */
	_Alignas(64) _Atomic size_t head; /* bytes ever written; only the writer stores it */
	_Alignas(64) _Atomic size_t tail; /* bytes ever read; only the reader stores it */
};

/** ring_init() - @size must be a power of two. Return: 0; -ENOMEM. */
MUST_CHECK int ring_init(struct ring *r, size_t size);

/** ring_deinit() - a zeroed ring is accepted */
void ring_deinit(struct ring *r);

/** ring_write() - writer: append @length bytes. Return: false (and nothing is written) when they don't fit. */
MUST_CHECK bool ring_write(struct ring *r, const void *bytes, size_t length);

/**
 * ring_peek() - reader: what can be read in one piece
 * @ret_bytes: where it starts; stays valid until ring_skip()
 *
 * Return: how many bytes; 0 when the ring is empty. At the wrap there may be more after ring_skip().
 */
size_t ring_peek(struct ring *r, const uint8_t **ret_bytes);

/** ring_skip() - reader: give @length bytes back to the writer; at most what ring_peek() said */
void ring_skip(struct ring *r, size_t length);
