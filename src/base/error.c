/* SPDX-License-Identifier: Apache-2.0 */
#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local struct {
	int err;
	int line;
	const char *file;
} last_fault;

int fault_at(int err, const char *file, int line)
{
	last_fault.err = err;
	last_fault.file = file;
	last_fault.line = line;
	return err;
}

const char *fault_text(int err)
{
	static _Thread_local char text[160];
	const char *what = strerrordesc_np(-err);
	const char *file = last_fault.file;

	if (!what)
		what = "unknown error";
	if (last_fault.err == err && file) {
		while (strncmp(file, "../", 3) == 0)
			file += 3;
		snprintf(text, sizeof(text), "%s (%s:%d)", what, file, last_fault.line);
	} else {
		snprintf(text, sizeof(text), "%s", what);
	}
	return text;
}

_Noreturn void assert_failed(const char *what, const char *file, int line)
{
	fprintf(stderr, "tidegate: assertion failed: %s (%s:%d)\n", what, file, line);
	abort();
}
