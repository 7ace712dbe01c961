/* Sums of prompts in AMX tiles, for the loops of the VNNI level: private to kernels/.
 *
 * amx_begin … amx_end are around a product; they configure this thread's tile registers and release them. */
#ifndef QUOLL_LINEAR_AMX_H
#define QUOLL_LINEAR_AMX_H

#include "kernels/linear.h"

void amx_begin(enum scale_kind k);
void amx_end(void);

/* A decoded chunk's codes less the format's zero point, as tiles read them. */
void amx_prepare(struct chunk *c, const struct pack_format *f, int n_blocks);
/* The loop over a prepared chunk's blocks for one panel of tokens. Of a narrower panel it reads the 16
 * tokens' bytes that begin there, and uses no more than the panel. */
mac_panel_fn *amx_mac_panel(enum scale_kind k);

int64_t amx_peak_dots(int64_t n_rounds);

#endif
