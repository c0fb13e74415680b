/* SPDX-License-Identifier: Apache-2.0 */
/* JSON within bounds, and the checksum over what it says. Only the files of the configuration document use it. */
#pragma once

#include "base/hash.h"
#include "config/document.h"

#include <jansson.h>

/**
 * json_read() - parse a document, refusing what is too big before anything is allocated for it
 * @ret_json: an object; json_decref()
 *
 * Return: DOCUMENT_OK; DOCUMENT_E_WRONG with one fault in @problems; -ENOMEM.
 */
MUST_CHECK int json_read(const char *text, size_t length, json_t **ret_json, struct problems *problems);

/* The checksum is fed piece by piece: a value is a mark, and what follows it by the mark. */
struct json_sum {
	XXH3_state_t state;
};

/** json_sum_init() - begin a checksum */
void json_sum_init(struct json_sum *sum);

/** json_sum_mark() - one of { } [ ] t f n */
void json_sum_mark(struct json_sum *sum, char mark);

/** json_sum_text() - a text, or the name of a member */
void json_sum_text(struct json_sum *sum, const char *text, size_t length);

/** json_sum_number() - a whole number */
void json_sum_number(struct json_sum *sum, int64_t number);

/** json_sum_final() - the checksum as it is written */
void json_sum_final(const struct json_sum *sum, char ret_checksum[static DOCUMENT_CHECKSUM_SIZE]);

/** json_checksum() - over an object, in its order, without its member "checksum" */
void json_checksum(const json_t *json, char ret_checksum[static DOCUMENT_CHECKSUM_SIZE]);
