/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fields of a rule, checked alike whether they come from a line of text or from a document. A check that fails says
 * what it found and what it expected; how that becomes a message is the reader's business: field_message_text() and
 * field_message_document() are the two ways.
 */
#pragma once

#include "base/text.h"
#include "config/config.h"

enum { FIELD_OK, FIELD_E_WRONG };

struct field_fault {
	const char *at;	  /* where in the field it begins; the whole field when a check does not say */
	const char *link; /* between the name of the field and what was found; NULL: what was found needs no name */
	char found[300];
	char expected[600];
};

/* For messages: text as it was written, but never long enough to flood the reader. */
#define FIELD_QUOTED	       "\"%.*s%s\""
#define FIELD_QUOTE(s, length) (int)field_shown((s), (length)), (s), (length) > FIELD_SHOWN_MAX ? "…" : ""
enum { FIELD_SHOWN_MAX = 60 };

/** field_shown() - how many bytes of @text messages show: at most FIELD_SHOWN_MAX, ending with a whole character */
size_t field_shown(const char *text, size_t length);

/** field_wrong() - fill in a fault. Return: FIELD_E_WRONG. */
PRINTF(5, 6)
int field_wrong(
	struct field_fault *why, const char *at, const char *link, const char *expected, const char *format, ...);

/** field_message_text() - "edge port 70000, expected 1-65535"; @what: what the field is called */
void field_message_text(const struct field_fault *why, const char *what, struct text *out);

/** field_message_document() - "70000: expected 1-65535" */
void field_message_document(const struct field_fault *why, struct text *out);

/** field_range() - a port or FIRST-LAST within 1..@max. Return: FIELD_OK; FIELD_E_WRONG with @why. */
MUST_CHECK int field_range(
	const char *text, size_t length, unsigned int max, struct port_range *ret_range, struct field_fault *why);

/** field_port() - a number as a port within 1..@max. Return: FIELD_OK; FIELD_E_WRONG with @why. */
MUST_CHECK int field_port(int64_t number, unsigned int max, struct port_range *ret_range, struct field_fault *why);

/** field_reserved() - that the profile reserves no port of a range. Return: FIELD_OK; FIELD_E_WRONG with @why. */
MUST_CHECK int field_reserved(const struct limits_profile *profile, enum protocol protocol, struct port_range range,
	const char *at, struct field_fault *why);

/** field_origin_ports() - that origin ports fit the edge ports. Return: FIELD_OK; FIELD_E_WRONG with @why. */
MUST_CHECK int field_origin_ports(
	const struct port_list *edge_ports, struct port_range origin_ports, struct field_fault *why);

enum host_form {
	HOST_FORM_TEXT,	    /* origin of a line: IPv6 in brackets */
	HOST_FORM_DOCUMENT, /* origin of a document's rule: IPv6 with or without brackets */
	HOST_FORM_MEMBER,   /* origin of a group: as in a document, but no group */
};

/** field_names_group() - whether an origin is written "og:NAME" */
bool field_names_group(const char *text, size_t length);

/**
 * field_host() - the address or name of an origin
 * @arena: takes the name
 *
 * Return: FIELD_OK; FIELD_E_WRONG with @why; -ENOMEM.
 */
MUST_CHECK int field_host(const char *text, size_t length, enum host_form form, struct arena *arena,
	struct host *ret_host, struct field_fault *why);

/**
 * field_pass() - a pass mode by its word
 * @protocol: of the rule, or PROTOCOL_N when it is not known
 *
 * Return: FIELD_OK; FIELD_E_WRONG with @why.
 */
MUST_CHECK int field_pass(
	const char *text, size_t length, enum protocol protocol, enum pass_mode *ret_pass, struct field_fault *why);

/** field_switch() - on or off, in any letter case. Return: FIELD_OK; FIELD_E_WRONG with @why. */
MUST_CHECK int field_switch(const char *text, size_t length, bool *ret_on, struct field_fault *why);

/** field_tag() - a tag, copied to @arena. Return: FIELD_OK; FIELD_E_WRONG with @why; -ENOMEM. */
MUST_CHECK int field_tag(
	const char *text, size_t length, struct arena *arena, const char **ret_tag, struct field_fault *why);

/**
 * field_carried() - that rules of a protocol can have a setting
 * @protocol: PROTOCOL_N when it is not known; then they can
 *
 * Return: FIELD_OK; FIELD_E_WRONG with @why.
 */
MUST_CHECK int field_carried(unsigned int rule_setting_id, enum protocol protocol, struct field_fault *why);

/** field_object_name() - the name of a group, a list or a proxy. Return: FIELD_OK; FIELD_E_WRONG with @why. */
MUST_CHECK int field_object_name(const char *text, size_t length, struct field_fault *why);

/** field_rule_id() - an id that a document gives a rule. Return: FIELD_OK; FIELD_E_WRONG with @why. */
MUST_CHECK int field_rule_id(const char *text, size_t length, struct field_fault *why);
