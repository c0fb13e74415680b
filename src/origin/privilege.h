/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "base/macros.h"

/**
 * privilege_keep() - give up every capability but these, and the right to gain others
 * @capabilities: a bit for each CAP_ number
 *
 * Return: 0; -errno.
 */
MUST_CHECK int privilege_keep(uint64_t capabilities);
