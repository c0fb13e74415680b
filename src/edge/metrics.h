/* SPDX-License-Identifier: Apache-2.0 */
/* Prometheus metrics over HTTP, in a thread of libmicrohttpd's. */
#pragma once

#include "edge/edge.h"

struct metrics;

/** metrics_open() - listen; nothing is answered yet. Return: 0; -errno (-EADDRINUSE …). */
MUST_CHECK int metrics_open(struct edge *e, const struct addr *local, struct metrics **ret_metrics);

/** metrics_start() - start the thread; e->snapshot and the workers must be there. Return: 0; -errno. */
MUST_CHECK int metrics_start(struct metrics *m);

/** metrics_close() - NULL is accepted */
void metrics_close(struct metrics *m);
