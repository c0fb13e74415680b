/* SPDX-License-Identifier: Apache-2.0 */
#include "edge/options.h"

#include <argp.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

enum { EXIT_USAGE = 2, DRAIN_DEFAULT_S = 30, DRAIN_MAX_S = 86400 };

enum {
	KEY_CONFIG = 256,
	KEY_RULES,
	KEY_STATE,
	KEY_LISTEN,
	KEY_WORKERS,
	KEY_LOG,
	KEY_METRICS,
	KEY_SOCKET,
	KEY_DRAIN,
	KEY_LIMITS,
	KEY_NO_BPF,
	KEY_CHECK,
};

const char *argp_program_version = "tidegate-edge " TIDEGATE_VERSION;

static const struct argp_option rows[] = {
	{ "config", KEY_CONFIG, "FILE", 0, "Configuration document (docs/configuration.md). SIGHUP reads it again.",
		0 },
	{ "rules", KEY_RULES, "FILE", 0,
		"Forwarding rules (docs/rules-file.md), added to those of the document. SIGHUP reads them again.", 0 },
	{ "state", KEY_STATE, "DIR", 0,
		"Keep the last good configuration here, and serve it when the present one is wrong at a start.", 0 },
	{ "listen", KEY_LISTEN, "ADDR", 0,
		"Listen on this IPv4 or IPv6 address. May be given several times. Default: all.", 0 },
	{ "workers", KEY_WORKERS, "N", 0, "Worker threads. Default: one a core.", 0 },
	{ "log", KEY_LOG, "FILE|-", 0,
		"Flow log, a JSON line a flow; - is standard output. SIGUSR1 opens the file again.", 0 },
	{ "metrics", KEY_METRICS, "ADDR:PORT", 0, "Serve Prometheus metrics at http://ADDR:PORT/metrics.", 0 },
	{ "socket", KEY_SOCKET, "PATH", 0, "Control socket: reload, status, rules (docs/operation.md).", 0 },
	{ "drain", KEY_DRAIN, "SECONDS", 0,
		"How long flows of removed rules, and all flows at SIGTERM, may go on. Default: 30.", 0 },
	{ "limits", KEY_LIMITS, "PROFILE", 0, "open (default), edgeone or esa.", 0 },
	{ "no-bpf", KEY_NO_BPF, NULL, 0, "Bind every port instead of steering with eBPF.", 0 },
	{ "check", KEY_CHECK, NULL, 0, "Check the rules, print what is wrong, and exit with 0 or 1.", 0 },
	{ 0 },
};

static unsigned int parse_number(
	struct argp_state *state, const char *what, const char *arg, unsigned long min, unsigned long max)
{
	char *end;
	unsigned long n;

	errno = 0;
	n = strtoul(arg, &end, 10);
	if (arg[0] < '0' || arg[0] > '9' || *end || errno || n < min || n > max)
		argp_error(state, "%s \"%s\", expected a number from %lu to %lu", what, arg, min, max);
	return (unsigned int)n;
}

static error_t parse_row(int key, char *arg, struct argp_state *state)
{
	struct options *o = state->input;

	switch (key) {
	case KEY_CONFIG:
		o->config_path = arg;
		return 0;
	case KEY_STATE:
		o->state_path = arg;
		return 0;
	case KEY_RULES:
		o->rules_path = arg;
		return 0;
	case KEY_LISTEN:
		if (o->listen_count == OPTIONS_LISTEN_MAX)
			argp_error(state, "--listen, expected at most %d addresses", OPTIONS_LISTEN_MAX);
		if (ip_parse(arg, strlen(arg), &o->listen[o->listen_count]))
			argp_error(state, "--listen \"%s\", expected an IPv4 or IPv6 address", arg);
		o->listen_count++;
		return 0;
	case KEY_WORKERS:
		o->workers = parse_number(state, "--workers", arg, 1, OPTIONS_WORKERS_MAX);
		return 0;
	case KEY_LOG:
		o->log_path = arg;
		return 0;
	case KEY_METRICS:
		if (addr_parse(arg, strlen(arg), 0, &o->metrics) || o->metrics.port == 0)
			argp_error(state, "--metrics \"%s\", expected ADDR:PORT such as 127.0.0.1:9100", arg);
		return 0;
	case KEY_SOCKET:
		o->socket_path = arg;
		return 0;
	case KEY_DRAIN:
		o->drain_s = parse_number(state, "--drain", arg, 0, DRAIN_MAX_S);
		return 0;
	case KEY_LIMITS:
		o->limits = limits_profile_find(arg);
		if (!o->limits)
			argp_error(state, "--limits \"%s\", expected open, edgeone or esa", arg);
		return 0;
	case KEY_NO_BPF:
		o->no_bpf = true;
		return 0;
	case KEY_CHECK:
		o->check = true;
		return 0;
	case ARGP_KEY_ARG:
		argp_error(state, "\"%s\", expected options only", arg);
		return 0;
	case ARGP_KEY_END:
		if (!o->rules_path && !o->config_path)
			argp_error(state, "no configuration, expected --config FILE or --rules FILE");
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
		.doc = "Forward TCP and UDP from edge ports to origins.",
	};
	long cores = sysconf(_SC_NPROCESSORS_ONLN);

	*ret_options = (struct options){
		.workers = (unsigned int)MIN(MAX(cores, 1), OPTIONS_WORKERS_MAX),
		.drain_s = DRAIN_DEFAULT_S,
		.limits = limits_profile_find("open"),
	};
	argp_err_exit_status = EXIT_USAGE;
	argp_parse(&argp, argc, argv, 0, NULL, ret_options);
}
