/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/** bpf_quiet() - keep libbpf from writing to standard error: what matters comes back as an error code */
void bpf_quiet(void);
