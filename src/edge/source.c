/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A configuration is kept by writing a new file, fsync() on it, rename() over the old one, and fsync() on the
 * directory: after a crash at any point there is the old one or the new one, whole. The document's own checksum tells
 * whether what is read later is what was written.
 */
#include "edge/source.h"
#include "base/error.h"
#include "base/log.h"
#include "config/document.h"
#include "config/rules.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KEPT_FILE "snapshot.json"

const char *source_name(const struct options *options)
{
	return options->config_path ? options->config_path : options->rules_path;
}

/* --- reading --- */

static bool read_file(const char *path, size_t max, char **ret_text, size_t *ret_length, struct text *out)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t length = 0;
	char *text = malloc(max + 1);
	ssize_t n = 0;

	if (fd >= 0 && text) {
		/* one byte more than allowed, so that a longer file is seen to be longer */
		while (length < max + 1 && (n = read(fd, text + length, max + 1 - length)) > 0)
			length += (size_t)n;
	}
	if (fd < 0 || !text || n < 0) {
		text_printf(out, "%s: %s\n", path, strerror(errno));
		free(text);
		if (fd >= 0)
			close(fd);
		return false;
	}
	close(fd);
	*ret_text = text;
	*ret_length = length;
	return true;
}

/* One file by one of the two parsers. */
static int read_one(const struct options *options, const char *path, const struct config *base, bool is_document,
	struct config *ret_config, struct text *out)
{
	struct problems problems = { 0 };
	size_t length;
	char *text;
	int r;

	if (!read_file(path, is_document ? DOCUMENT_MAX : RULES_TEXT_MAX, &text, &length, out))
		return SOURCE_E_WRONG;
	r = is_document ? document_parse(text, length, options->limits, ret_config, &problems)
			: rules_parse(text, length, options->limits, base, ret_config, &problems);
	free(text);
	problems_format(&problems, path, out);
	problems_free(&problems);
	if (r < 0)
		text_printf(out, "%s: %s\n", path, fault_text(r));
	return r ? SOURCE_E_WRONG : SOURCE_OK;
}

int source_read(const struct options *options, struct config *ret_config, struct text *out)
{
	struct config document = { 0 }, rules = { 0 };
	int r = SOURCE_OK;

	if (options->config_path)
		r = read_one(options, options->config_path, NULL, true, &document, out);
	if (r == SOURCE_OK && options->rules_path) {
		r = read_one(options, options->rules_path, options->config_path ? &document : NULL, false, &rules, out);
		if (r == SOURCE_OK && !options->config_path) {
			*ret_config = rules;
			return SOURCE_OK;
		}
		if (r == SOURCE_OK && config_join(&document, &rules)) {
			text_printf(out, "%s: out of memory\n", options->rules_path);
			r = SOURCE_E_WRONG;
		}
	}
	config_free(&rules);
	if (r)
		config_free(&document);
	else
		*ret_config = document;
	return r;
}

/* --- the last good one --- */

static bool kept_path(const struct options *options, const char *suffix, char path[static PATH_MAX])
{
	int n = snprintf(path, PATH_MAX, "%s/" KEPT_FILE "%s", options->state_path, suffix);

	return n > 0 && n < PATH_MAX;
}

int source_read_kept(const struct options *options, struct config *ret_config, struct text *out)
{
	char path[PATH_MAX];

	if (!options->state_path) {
		text_str(out, "no last good configuration: --state is not given\n");
		return SOURCE_E_WRONG;
	}
	if (!kept_path(options, "", path)) {
		text_printf(out, "%s: path too long\n", options->state_path);
		return SOURCE_E_WRONG;
	}
	return read_one(options, path, NULL, true, ret_config, out);
}

static int write_all(int fd, const char *bytes, size_t length)
{
	while (length) {
		ssize_t n = write(fd, bytes, length);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		bytes += n;
		length -= (size_t)n;
	}
	return fsync(fd) < 0 ? -errno : 0;
}

static int sync_directory(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r;

	if (fd < 0)
		return -errno;
	r = fsync(fd) < 0 ? -errno : 0;
	close(fd);
	return r;
}

static int write_kept(const struct options *options, const struct text *document)
{
	char path[PATH_MAX], fresh[PATH_MAX];
	int fd, r;

	if (!kept_path(options, "", path) || !kept_path(options, ".new", fresh))
		return -ENAMETOOLONG;
	fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	r = write_all(fd, document->bytes, document->length);
	if (close(fd) < 0 && r == 0)
		r = -errno;
	if (r == 0 && rename(fresh, path) < 0)
		r = -errno;
	if (r) {
		unlink(fresh);
		return r;
	}
	return sync_directory(options->state_path);
}

void source_keep(const struct options *options, const struct config *config)
{
	struct text document = text_growing((size_t)DOCUMENT_MAX + 1);
	int r;

	if (!options->state_path)
		return;
	document_format(config, &document);
	r = document.ok ? write_kept(options, &document) : -EFBIG;
	if (r)
		log_error("--state %s: the last good configuration could not be kept: %s", options->state_path,
			strerror(-r));
	text_free(&document);
}

/* --- faults found later --- */

void source_problems(const struct options *options, bool kept, const struct problems *problems, struct text *out)
{
	char path[PATH_MAX];

	for (size_t i = 0; i < problems->count; i++) {
		const struct problems one = { .items = &problems->items[i], .count = 1 };
		const char *file = source_name(options);

		if (kept && kept_path(options, "", path))
			file = path;
		else if (!one.items->path) /* only a rules file has lines */
			file = options->rules_path;
		problems_format(&one, file, out);
	}
	if (problems->left_out)
		problems_format(&(struct problems){ .left_out = problems->left_out }, source_name(options), out);
}
