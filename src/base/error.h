/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sign of an int result is its meaning, everywhere:
 *   0   done
 *   <0  a fault, -errno: passed up unchanged; fault() notes once where it was born
 *   >0  an outcome that the header of the function names and its caller handles
 *
 * ASSERT() states what our own code guarantees and stays on in release builds. Bytes from a network, a file or a
 * user must never be able to reach one.
 */
#pragma once

#include "base/macros.h"

/**
 * fault_at() - note where a fault was born, for fault_text()
 * @err:  -errno
 *
 * Return: @err.
 */
int fault_at(int err, const char *file, int line);

#define fault(err) fault_at((err), __FILE__, __LINE__)

/**
 * fault_text() - describe a fault
 * @err: -errno as returned by a function
 *
 * Return: text such as "No such file or directory (src/edge/main.c:12)"; the place is given when this thread's last
 * fault() had this errno. Static per thread, valid until the thread's next call.
 */
const char *fault_text(int err);

/** assert_failed() - print what was violated and where, and abort() */
_Noreturn void assert_failed(const char *what, const char *file, int line);

#define ASSERT(x)                                                                                                      \
	do {                                                                                                           \
		if (UNLIKELY(!(x)))                                                                                    \
			assert_failed(#x, __FILE__, __LINE__);                                                         \
	} while (0)
