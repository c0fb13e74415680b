/* SPDX-License-Identifier: Apache-2.0 */
#include "origin/options.h"

#include <argp.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { EXIT_USAGE = 2, KIND_DEFAULT = 200, KIND_MIN = 2, KIND_MAX = 254 };

enum {
	KEY_TRUST = 't',
	KEY_FORMAT = 'o',
	KEY_CGROUP = 256,
	KEY_STATE,
	KEY_KIND_V4,
	KEY_KIND_V6,
	KEY_NO_SAVE_SYN,
	KEY_NO_LOOKUP,
};

const char *argp_program_version = "tidegate-origin " TIDEGATE_VERSION;

static const struct argp_option rows[] = {
	{ "trust", KEY_TRUST, "PREFIX[,PREFIX...]", 0,
		"Where edges connect from, IPv4 or IPv6. May be given several times. Options from elsewhere are "
		"ignored.",
		0 },
	{ "cgroup", KEY_CGROUP, "PATH", 0,
		"Whose programs see the client. Default: the root of the cgroup v2 file system, so all of them.", 0 },
	{ "kind-v4", KEY_KIND_V4, "KIND", 0, "Kind of the option that has an IPv4 address. Default: 200.", 0 },
	{ "kind-v6", KEY_KIND_V6, "KIND", 0, "Kind of the option that has an IPv6 address. Default: 200.", 0 },
	{ "no-save-syn", KEY_NO_SAVE_SYN, NULL, 0, "Do not make listeners keep the SYN of each connection.", 0 },
	{ "no-getsockopt", KEY_NO_LOOKUP, NULL, 0,
		"Do not answer getsockopt(IPPROTO_IP, 4096), by which programs with IPv4 sockets learn of IPv6 "
		"clients.",
		0 },
	{ "state", KEY_STATE, "DIR", 0,
		"Where the programs are pinned, in the BPF file system. Default: /sys/fs/bpf/tidegate-origin.", 0 },
	{ "output", KEY_FORMAT, "FORMAT", 0, "Of status and stats: text (default), json; of stats also prometheus.",
		0 },
	{ 0 },
};

static const char *const words[COMMAND_N] = {
	[COMMAND_START] = "start",
	[COMMAND_RUN] = "run",
	[COMMAND_STOP] = "stop",
	[COMMAND_TRUST] = "trust",
	[COMMAND_STATUS] = "status",
	[COMMAND_STATS] = "stats",
};

static void add_prefix(struct argp_state *state, struct options *o, const char *text, size_t length)
{
	struct prefix p;
	int r = prefix_parse(text, length, &p);

	if (r == -ERANGE)
		argp_error(
			state, "--trust \"%.*s\", expected a prefix without bits behind its length", (int)length, text);
	else if (r)
		argp_error(state, "--trust \"%.*s\", expected a prefix such as 192.0.2.0/24 or 2001:db8::/32",
			(int)length, text);
	if (o->trust_count == TOA_TRUST_MAX)
		argp_error(state, "--trust, expected at most %d prefixes", TOA_TRUST_MAX);
	o->trust[o->trust_count++] = p;
}

static void add_prefixes(struct argp_state *state, struct options *o, const char *text)
{
	static const char between[] = ", \t\n";
	size_t found = o->trust_count;

	for (text += strspn(text, between); *text; text += strspn(text, between)) {
		size_t length = strcspn(text, between);

		add_prefix(state, o, text, length);
		text += length;
	}
	if (o->trust_count == found)
		argp_error(state, "--trust without a prefix, expected one such as 192.0.2.0/24");
}

static uint8_t parse_kind(struct argp_state *state, const char *what, const char *arg)
{
	char *end;
	unsigned long n;

	errno = 0;
	n = strtoul(arg, &end, 10);
	if (arg[0] < '0' || arg[0] > '9' || *end || errno || n < KIND_MIN || n > KIND_MAX)
		argp_error(state, "%s \"%s\", expected a number from %d to %d", what, arg, KIND_MIN, KIND_MAX);
	return (uint8_t)n;
}

static enum format parse_format(struct argp_state *state, const char *arg)
{
	if (strcmp(arg, "text") == 0)
		return FORMAT_TEXT;
	if (strcmp(arg, "json") == 0)
		return FORMAT_JSON;
	if (strcmp(arg, "prometheus") == 0)
		return FORMAT_PROMETHEUS;
	argp_error(state, "--output \"%s\", expected text, json or prometheus", arg);
	return FORMAT_TEXT;
}

static void parse_word(struct argp_state *state, struct options *o, const char *arg)
{
	for (int i = 0; i < COMMAND_N; i++) {
		if (strcmp(arg, words[i]) == 0) {
			o->command = (enum command)i;
			return;
		}
	}
	argp_error(state, "\"%s\", expected start, stop, status, stats, trust or run", arg);
}

static void check(struct argp_state *state, const struct options *o)
{
	bool trusts = o->command == COMMAND_START || o->command == COMMAND_RUN || o->command == COMMAND_TRUST;

	if (trusts && o->trust_count == 0)
		argp_error(state,
			"%s without --trust, expected the prefixes that edges connect from: "
			"without them any client could name any address",
			words[o->command]);
	if (!trusts && o->trust_count)
		argp_error(state, "%s with --trust, expected it with start, run and trust only", words[o->command]);
	if (o->format == FORMAT_PROMETHEUS && o->command != COMMAND_STATS)
		argp_error(state, "%s with --output prometheus, expected it with stats only", words[o->command]);
}

static error_t parse_row(int key, char *arg, struct argp_state *state)
{
	struct options *o = state->input;

	switch (key) {
	case KEY_TRUST:
		add_prefixes(state, o, arg);
		return 0;
	case KEY_CGROUP:
		if (strlen(arg) >= TOA_CGROUP_SIZE)
			argp_error(state, "--cgroup, expected a path of at most %d bytes", TOA_CGROUP_SIZE - 1);
		o->cgroup = arg;
		return 0;
	case KEY_STATE:
		o->state = arg;
		return 0;
	case KEY_KIND_V4:
		o->kind_v4 = parse_kind(state, "--kind-v4", arg);
		return 0;
	case KEY_KIND_V6:
		o->kind_v6 = parse_kind(state, "--kind-v6", arg);
		return 0;
	case KEY_NO_SAVE_SYN:
		o->no_save_syn = true;
		return 0;
	case KEY_NO_LOOKUP:
		o->no_lookup = true;
		return 0;
	case KEY_FORMAT:
		o->format = parse_format(state, arg);
		return 0;
	case ARGP_KEY_ARG:
		if (o->command != COMMAND_N)
			argp_error(state, "\"%s\", expected one command", arg);
		parse_word(state, o, arg);
		return 0;
	case ARGP_KEY_END:
		if (o->command == COMMAND_N)
			argp_error(state, "no command, expected start, stop, status, stats, trust or run");
		check(state, o);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

void options_parse(int argc, char **argv, struct options *ret_options)
{
	static const struct argp argp = {
		.options = rows,
		.parser = parse_row,
		.args_doc = "COMMAND",
		.doc = "Let the programs of an origin see the clients that edges name in a TCP option.\v"
		       "start   attach to the cgroup, pin, and end\n"
		       "run     attach, stay until SIGTERM or SIGINT, detach\n"
		       "stop    detach and remove everything\n"
		       "trust   replace the trusted prefixes of what is started\n"
		       "status  say what is attached, where, and since when\n"
		       "stats   print the counters, as /proc/net/toa_stats has them\n\n"
		       "Exit status: 0; 1 for a fault; 2 for a wrong command line; 3 when it is not started.",
	};

	*ret_options = (struct options){
		.command = COMMAND_N,
		.state = "/sys/fs/bpf/tidegate-origin",
		.trust = calloc(TOA_TRUST_MAX, sizeof(struct prefix)),
		.kind_v4 = KIND_DEFAULT,
		.kind_v6 = KIND_DEFAULT,
	};
	if (!ret_options->trust)
		abort();
	argp_err_exit_status = EXIT_USAGE;
	argp_parse(&argp, argc, argv, 0, NULL, ret_options);
}
