/* SPDX-License-Identifier: Apache-2.0 */
/* What the process says of itself: as JSON on the control socket, and as Prometheus text. */
#pragma once

#include "edge/edge.h"

/** status_json() - append one JSON object; main thread */
void status_json(struct edge *e, struct text *out);

/** status_prometheus() - append all metrics in text format 0.0.4; any thread */
void status_prometheus(struct edge *e, struct text *out);
