/* SPDX-License-Identifier: Apache-2.0 */
#include "origin/privilege.h"
#include "base/error.h"

#include <errno.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int privilege_keep(uint64_t capabilities)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || syscall(SYS_capget, &header, data) < 0)
		return fault(-errno);
	for (size_t i = 0; i < 2; i++) {
		uint32_t kept = data[i].permitted & (uint32_t)(capabilities >> (32 * i));

		data[i] = (struct __user_cap_data_struct){ .effective = kept, .permitted = kept };
	}
	return syscall(SYS_capset, &header, data) < 0 ? fault(-errno) : 0;
}
