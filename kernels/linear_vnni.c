/* Products with AVX512-VNNI's vpdpbusd; the AMX level too, which takes prompts' sums from tiles. */
#define QUOLL_VNNI
#include "kernels/linear_512.h"

#include "kernels/linear_amx.h"
#include "kernels/linear_tiles.h"

const struct linear_kernels linear_vnni = LINEAR_KERNELS(act_quantise_avx2);

/* Tiles take 16 tokens, needed or not. */
static void tiles_amx(const struct linear_job *j)
{
    const enum scale_kind scales = pack_formats[j->w->type].scales;
    if (j->n_tokens < PANEL) {
        tiles_fast(j);
        return;
    }
    amx_begin(scales);
    tiles_of_codes(j, amx_mac_panel(scales), amx_prepare);
    amx_end();
}

const struct linear_kernels linear_amx = {
    .fast = tiles_amx,
    .f32 = tiles_f32,
    .act_quantise = act_quantise_avx2,
    .peak_dots = amx_peak_dots,
    .peak_fmas = peak_fmas,
};
