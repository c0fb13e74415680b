/* SPDX-License-Identifier: Apache-2.0 */
/* Prometheus metrics over HTTP, in a thread of libmicrohttpd's. */
#pragma once

#include "edge/edge.h"

struct metrics;

/** metrics_open() - Return: 0; -errno (-EADDRINUSE …). */
MUST_CHECK int metrics_open(struct edge *e, const struct addr *local, struct metrics **ret_metrics);

/** metrics_close() - NULL is accepted */
void metrics_close(struct metrics *m);
