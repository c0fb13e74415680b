/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of tidegate-origin. */
#pragma once

#include "base/addr.h"
#include "bpf/shared.h"

enum command { COMMAND_START, COMMAND_RUN, COMMAND_STOP, COMMAND_TRUST, COMMAND_STATUS, COMMAND_STATS, COMMAND_N };

enum format { FORMAT_TEXT, FORMAT_JSON, FORMAT_PROMETHEUS };

struct options {
	enum command command;
	enum format format;
	const char *state;
	const char *cgroup; /* NULL: the root of the cgroup v2 file system */
	struct prefix *trust;
	size_t trust_count;
	uint8_t kind_v4;
	uint8_t kind_v6;
	bool no_save_syn;
	bool no_lookup;
};

/** options_parse() - as argp does: prints what is wrong and ends the process with status 2 */
void options_parse(int argc, char **argv, struct options *ret_options);
