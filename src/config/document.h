/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration document: the JSON form of struct config (docs/reference/snapshot.md). */
#pragma once

#include "config/config.h"
#include "config/problem.h"

/* Beside the size, three numbers bound the memory that reading takes; a configuration at its limits needs half of each.
 */
enum {
	DOCUMENT_MAX = 64 << 20,	 /* bytes */
	DOCUMENT_NESTING_MAX = 16,	 /* lists and objects within each other; a configuration needs 6 */
	DOCUMENT_OBJECTS_MAX = 1 << 18,	 /* lists and objects together */
	DOCUMENT_MEMBERS_MAX = 1 << 20,	 /* over all objects */
	DOCUMENT_VALUES_MAX = 1 << 22,	 /* as told by the commas, those within texts included */
	DOCUMENT_CHECKSUM_SIZE = 32 + 1, /* characters, NUL included */
	DOCUMENT_SCHEMA = 1,
};
#define DOCUMENT_VERSION_MAX INT64_C(9007199254740991) /* every reader of JSON keeps it exactly */

enum { DOCUMENT_OK, DOCUMENT_E_WRONG };

/**
 * document_parse() - read a document
 * @text, @length: the whole of it
 * @ret_config:    on DOCUMENT_OK, owned by the caller: config_free()
 * @problems:      receives every fault when the answer is DOCUMENT_E_WRONG; of a document that is no JSON, has another
 *                 schema or a wrong checksum, that alone
 *
 * Return: DOCUMENT_OK; DOCUMENT_E_WRONG; -ENOMEM.
 */
MUST_CHECK int document_parse(const char *text, size_t length, const struct limits_profile *profile,
	struct config *ret_config, struct problems *problems);

/** document_format() - append a document with its checksum; document_parse() makes an equal configuration of it */
void document_format(const struct config *config, struct text *out);

/**
 * document_checksum() - what the member "checksum" of a document must be; nothing but JSON is asked of it
 *
 * Return: DOCUMENT_OK; DOCUMENT_E_WRONG with @problems; -ENOMEM.
 */
MUST_CHECK int document_checksum(
	const char *text, size_t length, char ret_checksum[static DOCUMENT_CHECKSUM_SIZE], struct problems *problems);
