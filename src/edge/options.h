/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of tidegate-edge. */
#pragma once

#include "base/addr.h"
#include "config/rules.h"

enum { OPTIONS_LISTEN_MAX = 64, OPTIONS_WORKERS_MAX = 64 };

struct options {
	const char *config_path; /* one of these two is given, or both */
	const char *rules_path;
	const char *state_path; /* NULL: the last good configuration is not kept */
	struct ip listen[OPTIONS_LISTEN_MAX];
	size_t listen_count; /* 0: all addresses, both families */
	unsigned int workers;
	const char *log_path;	 /* NULL: no flow log; "-": standard output */
	struct addr metrics;	 /* port 0: no metrics */
	const char *socket_path; /* NULL: no control socket */
	unsigned int drain_s;
	const struct limits_profile *limits;
	bool no_bpf;
	bool check;
};

/** options_parse() - fills in @ret_options; a wrong command line prints what is wrong and exits with status 2 */
void options_parse(int argc, char **argv, struct options *ret_options);
