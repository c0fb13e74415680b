/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the configuration comes from: a document (--config), rules text (--rules), or both, the rules then added to the
 * document. And where the last good one is kept (--state), to be served when the present one can't be read at a start.
 */
#pragma once

#include "config/problem.h"
#include "edge/options.h"

enum { SOURCE_OK, SOURCE_E_WRONG };

/**
 * source_read() - read and check what the options name
 * @ret_config: on SOURCE_OK, the caller's
 * @out:        receives the errors, a line each, when the answer is SOURCE_E_WRONG
 *
 * Return: SOURCE_OK; SOURCE_E_WRONG.
 */
MUST_CHECK int source_read(const struct options *options, struct config *ret_config, struct text *out);

/**
 * source_read_kept() - read the last good configuration that source_keep() has left
 * @out: receives why there is none, when the answer is SOURCE_E_WRONG
 *
 * Return: SOURCE_OK; SOURCE_E_WRONG.
 */
MUST_CHECK int source_read_kept(const struct options *options, struct config *ret_config, struct text *out);

/** source_keep() - @config is served now: keep it, if --state is given. What goes wrong is logged, and the old one
 * stays. */
void source_keep(const struct options *options, const struct config *config);

/**
 * source_problems() - append faults found later, in what was read
 * @kept: it was read by source_read_kept()
 */
void source_problems(const struct options *options, bool kept, const struct problems *problems, struct text *out);

/** source_name() - the file for messages that name no other */
const char *source_name(const struct options *options);
