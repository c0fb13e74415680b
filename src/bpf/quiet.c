/* SPDX-License-Identifier: Apache-2.0 */
#include "bpf/quiet.h"
#include "base/macros.h"

#include <bpf/libbpf.h>
#include <stdarg.h>

static int print_nothing(enum libbpf_print_level level, const char *format, va_list args)
{
	(void)level;
	(void)format;
	(void)args;
	return 0;
}

void bpf_quiet(void)
{
	libbpf_set_print(print_nothing);
}
