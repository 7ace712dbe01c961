/* AMX-INT8's intrinsics in plain C, for linear_amx.c without such a CPU (make CONFIG=emu): palette 1, eight
 * tiles of at most 16 rows × 64 bytes. The pseudo code is Intel's ("Instruction set reference", TDPBSSD …).
 * What the CPU would refuse ends the program. */
#ifndef QUOLL_AMX_EMULATED_H
#define QUOLL_AMX_EMULATED_H

#include <assert.h>
#include <stdint.h>
#include <string.h>

enum { EMU_TILES = 8, EMU_ROWS = 16, EMU_ROW_BYTES = 64 };

struct emu_tile {
    int rows, row_bytes; /* 0: not configured */
    uint8_t byte[EMU_ROWS][EMU_ROW_BYTES];
};

static _Thread_local struct emu_tile emu_tiles[EMU_TILES];

static void emu_tile_release(void)
{
    memset(emu_tiles, 0, sizeof emu_tiles);
}

static void emu_tile_loadconfig(const void *config)
{
    const uint8_t *p = config;
    assert(p[0] == 1 && p[1] == 0); /* palette, first row */
    for (int i = 2; i < 16; i++)
        assert(p[i] == 0);
    for (int i = 32; i < 48; i++)
        assert(p[i] == 0);
    for (int i = 56; i < 64; i++)
        assert(p[i] == 0);
    emu_tile_release();
    for (int i = 0; i < EMU_TILES; i++) {
        struct emu_tile *t = &emu_tiles[i];
        t->row_bytes = p[16 + 2 * i] | p[17 + 2 * i] << 8;
        t->rows = p[48 + i];
        assert(t->rows <= EMU_ROWS && t->row_bytes <= EMU_ROW_BYTES);
        assert((t->rows == 0) == (t->row_bytes == 0));
    }
}

static void emu_tile_zero(int i)
{
    assert(emu_tiles[i].rows);
    memset(emu_tiles[i].byte, 0, sizeof emu_tiles[i].byte);
}

static void emu_tile_loadd(int i, const void *src, int64_t stride)
{
    emu_tile_zero(i); /* bytes past the row's end become zero */
    for (int r = 0; r < emu_tiles[i].rows; r++)
        memcpy(emu_tiles[i].byte[r], (const uint8_t *)src + r * stride, (size_t)emu_tiles[i].row_bytes);
}

static void emu_tile_stored(int i, void *dst, int64_t stride)
{
    assert(emu_tiles[i].rows);
    for (int r = 0; r < emu_tiles[i].rows; r++)
        memcpy((uint8_t *)dst + r * stride, emu_tiles[i].byte[r], (size_t)emu_tiles[i].row_bytes);
}

/* c += a · b with signed bytes in a; in b they are signed or not. */
static void emu_tile_dpb(int c, int a, int b, int b_is_signed)
{
    struct emu_tile *tc = &emu_tiles[c];
    const struct emu_tile *ta = &emu_tiles[a], *tb = &emu_tiles[b];
    assert(c != a && c != b && a != b);
    assert(tc->rows && tc->rows == ta->rows && tc->row_bytes == tb->row_bytes);
    assert(ta->row_bytes == 4 * tb->rows && tc->row_bytes % 4 == 0);
    for (int m = 0; m < tc->rows; m++)
        for (int n = 0; n < tc->row_bytes / 4; n++) {
            uint32_t sum; /* wraps around, as the instruction's does */
            memcpy(&sum, tc->byte[m] + 4 * n, sizeof sum);
            for (int k = 0; k < tb->rows; k++)
                for (int i = 0; i < 4; i++) {
                    const uint8_t w = tb->byte[k][4 * n + i];
                    sum += (uint32_t)((int8_t)ta->byte[m][4 * k + i] * (b_is_signed ? (int8_t)w : w));
                }
            memcpy(tc->byte[m] + 4 * n, &sum, sizeof sum);
        }
}

#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbssd
#undef _tile_dpbsud
#define _tile_loadconfig(config)     emu_tile_loadconfig(config)
#define _tile_release()              emu_tile_release()
#define _tile_zero(t)                emu_tile_zero(t)
#define _tile_loadd(t, src, stride)  emu_tile_loadd(t, src, stride)
#define _tile_stored(t, dst, stride) emu_tile_stored(t, dst, stride)
#define _tile_dpbssd(c, a, b)        emu_tile_dpb(c, a, b, 1)
#define _tile_dpbsud(c, a, b)        emu_tile_dpb(c, a, b, 0)

#endif
