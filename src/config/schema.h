/* SPDX-License-Identifier: Apache-2.0 */
/* The rows of tables/schema.def: what the objects of a configuration document are made of. */
#pragma once

#include "config/settings.h"

enum schema_object_id {
#define OBJECT(id, ...) SCHEMA_##id,
#include "tables/schema.def"
	SCHEMA_N
};

enum schema_member_id {
#define MEMBER(object, member, ...) MEMBER_##object##_##member,
#include "tables/schema.def"
	MEMBER_N
};

enum member_type { MEMBER_NUMBER, MEMBER_TEXT, MEMBER_LIST, MEMBER_OBJECT, MEMBER_SWITCH, MEMBER_PORTS };

struct schema_object {
	const char *path;
	const char *help;
	enum setting_scope scope; /* SETTING_SCOPE_N: it has no settings */
};

struct schema_member {
	const char *name;
	const char *help;
	const char *default_text; /* NULL: it must be there */
	size_t name_length;
	enum schema_object_id object;
	enum member_type type;
};

extern const struct schema_object schema_objects[SCHEMA_N];
extern const struct schema_member schema_members[MEMBER_N]; /* those of an object stand together */

/** schema_type_text() - "text", "a whole number" … */
const char *schema_type_text(enum member_type type);

/** schema_example() - the text of a document that has every object, without a checksum */
const char *schema_example(void);

/** schema_document() - append docs/reference/snapshot.md */
void schema_document(struct text *out);
