/* SPDX-License-Identifier: Apache-2.0 */
/* What every implementation of struct store_ops must do. */
#pragma once

#include "control/store.h"

/* How the suite gets at stores of one implementation. Functions fail the test themselves. */
struct store_maker {
	const char *name;
	void *(*place_new)(void);	    /* where a store can be kept, empty */
	struct store *(*open)(void *place); /* after store_close() it must hold what it held */
	void (*place_free)(void *place);    /* with all that is kept there */
};

/** store_conformance() - run the suite. Return: the number of tests that failed. */
MUST_CHECK int store_conformance(const struct store_maker *maker);
