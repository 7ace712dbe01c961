/* The grids of grids.h as the search for their points wants them: element by element, as floats. */
#include "quant/fit.h"
#include "quant/grids.h"

#include <threads.h>

static float iq1[8 * 2048], iq2_xxs[8 * 256], iq2_xs[8 * 512], iq2_s[8 * 1024], iq3_xxs[4 * 256],
    iq3_s[4 * 512];
static once_flag made = ONCE_FLAG_INIT;

static void make_8(float *points, const uint64_t *grid, int n, int offset, float factor)
{
    for (int k = 0; k < n; k++)
        for (int i = 0; i < 8; i++)
            points[i * n + k] = (float)((int)(grid[k] >> (8 * i) & 0xff) - offset) * factor;
}

static void make_4(float *points, const uint32_t *grid, int n)
{
    for (int k = 0; k < n; k++)
        for (int i = 0; i < 4; i++)
            points[i * n + k] = (float)(grid[k] >> (8 * i) & 0xff);
}

static void make(void)
{
    make_8(iq1, iq1_grid, 2048, 128, 0.125f);
    make_8(iq2_xxs, iq2_xxs_grid, 256, 0, 1);
    make_8(iq2_xs, iq2_xs_grid, 512, 0, 1);
    make_8(iq2_s, iq2_s_grid, 1024, 0, 1);
    make_4(iq3_xxs, iq3_xxs_grid, 256);
    make_4(iq3_s, iq3_s_grid, 512);
}

#define DEFINE_LATTICE(name)          \
    const float *lattice_##name(void) \
    {                                 \
        call_once(&made, make);       \
        return name;                  \
    }

DEFINE_LATTICE(iq1)
DEFINE_LATTICE(iq2_xxs)
DEFINE_LATTICE(iq2_xs)
DEFINE_LATTICE(iq2_s)
DEFINE_LATTICE(iq3_xxs)
DEFINE_LATTICE(iq3_s)
