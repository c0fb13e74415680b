/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What reading any object of a configuration document takes: faults with the path of their place, members by the rows
 * of tables/schema.def, settings by those of tables/setting.def, and names. document_parse.c reads the objects with it.
 */
#pragma once

#include "base/key_map.h"
#include "config/document.h"
#include "config/field.h"
#include "config/json.h"
#include "config/schema.h"

/* Objects that others name. */
enum kind { KIND_IP_LIST, KIND_GROUP, KIND_PROXY, KIND_N };

struct reader {
	const struct limits_profile *profile;
	struct problems *problems;
	struct config *config;
	struct key_map names[KIND_N]; /* in lower case, to the index of the object */
	bool known[KIND_N];	      /* whether all of the kind were read, so that others are unknown */
	struct key_map origins;	      /* of all groups */
	size_t origin_count;
	size_t entry_count; /* of IP lists */
	unsigned int suggestions;
	size_t first[SCHEMA_N], end[SCHEMA_N]; /* members of each object */
	bool out_of_memory;
};

/* A place in the document: a chain of frames on the stack, made into text only when something is wrong. */
struct place {
	const struct place *up;
	const char *name; /* NULL: an element of a list */
	size_t index;
};

struct members {
	json_t *of[MEMBER_N];
	bool seen[MEMBER_N]; /* maybe with a wrong value */
};

/* Where the settings of an object go. */
struct target {
	void *settings;
	setting_mask *given;
	enum protocol protocol; /* of the rule, or PROTOCOL_N */
};

/** reader_init() - find the members of each object in the table; all other fields are as the caller has set them */
void reader_init(struct reader *rd);

/** reader_deinit() - free the maps; the configuration and the problems are the caller's */
void reader_deinit(struct reader *rd);

/** reader_wrong() - note a fault at a place */
PRINTF(3, 4) void reader_wrong(struct reader *rd, const struct place *at, const char *format, ...);

/** reader_field_ok() - note what a check of field.h found, or that memory is out. Return: whether all is well. */
bool reader_field_ok(struct reader *rd, int r, const struct place *at, const struct field_fault *why);

/** reader_describe() - append what a value is, for people; of a text or a number, the value */
void reader_describe(const json_t *json, struct text *out);

/** reader_type_name() - what a value is when its type is wrong: "text", "a number" */
const char *reader_type_name(const json_t *json);

/** reader_take() - zeroed memory of the configuration for @count things, at least one; NULL, noted, when there is none
 */
void *reader_take(struct reader *rd, size_t count, size_t size);

/**
 * reader_object() - read the members of an object
 * @at:      NULL: the document itself
 * @target:  takes the settings; NULL for an object that has none
 * @ret:     all other members; those that are missing or of a wrong type are NULL, and noted
 */
void reader_object(struct reader *rd, const struct place *at, const json_t *json, enum schema_object_id object,
	struct target *target, struct members *ret);

/** reader_is_object() - whether an element of a list is an object; noted if not */
bool reader_is_object(struct reader *rd, const struct place *at, const json_t *json);

/** reader_bounded() - how many elements of a list are read: what is past @max is refused, once; @what they are */
size_t reader_bounded(struct reader *rd, const struct place *at, const json_t *list, size_t max, const char *what);

/** reader_name() - the name of the object at @index of its kind, known from now on; "" when nothing can be named so */
const char *reader_name(struct reader *rd, const struct place *at, enum kind kind, size_t index, const json_t *json);

/**
 * reader_resolve() - find what is named
 * @written:       the name as it stands in the document, for the fault
 * @name, @length: the part of it that is the name
 *
 * Return: whether it exists; noted if not.
 */
bool reader_resolve(struct reader *rd, const struct place *at, enum kind kind, const json_t *written, const char *name,
	size_t length, uint32_t *ret_index);
