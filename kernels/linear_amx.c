/* Products of prompts with AMX: tiles of 16 tokens × 16 rows.
 *
 *              A: 16 tokens × 32 bytes        B: 8 groups × 64 bytes          C: 16 tokens × 16 rows
 *     token 0  a₀ a₁ a₂ … a₃₁        group 0  r₀: w₀…w₃  r₁: w₀…w₃ … r₁₅      int32
 *     token 1  a₀ a₁ a₂ … a₃₁        group 1  r₀: w₄…w₇  r₁: w₄…w₇ … r₁₅
 *     …                              …
 *
 * A is read where the activations lie, in steps of struct act_block, and B is a block as struct chunk has it:
 * nothing is rearranged. A block has a scale of its own, so C holds one block's sums only (types with scales
 * by 16: half a block's, with A and B half as deep) and goes through memory to the vectors that scale it.
 *
 * Cycles of one core (Sapphire Rapids: Intel's optimisation manual) for 16 tokens × 16 rows × 32 columns:
 *
 *     tdpb*sd              16 or fewer, for 8,192 multiply-adds; two of them by 16
 *     tileloadd            8 for A, 4 for B: reads of 16 and 8 lines, two a cycle
 *     tilestored           16, and half as many to read C again
 *     vectors              8 for each instruction per token, on two ports: 24 where a sum is converted, its
 *                          scale made from two, and added; 8 to 24 more for minima, 16 more by 16
 *
 * against 64 of vpdpbusd and the same vectors. So the vectors are the limit, twice what the tiles need, and
 * everything else must run beside them: zero points are taken from the codes beforehand, once for all tokens,
 * where vectors would take them from each sum (types whose rows have their own keep that); a token's sums
 * stay in registers over the blocks; and the tiles of four sums are issued ahead of the vectors for the four
 * before, few enough instructions that the core's window spans both. Sharing A or B among more tiles would
 * save reads, which are not the limit, and need twice the registers for sums. */
#define QUOLL_VNNI
#define QUOLL_AMX
#include "kernels/linear_512.h"

#include "kernels/linear_amx.h"

#ifdef QUOLL_EMULATE_AVX512
#include "kernels/amx_emulated.h"
#endif

/* The sums of a chunk: of each block, or of both its halves. */
typedef int32_t chunk_sums[2 * CHUNK_BLOCKS][PANEL][TILE_ROWS];

/* Of the last panel tiles read 16 tokens, though it may be narrower. What they read then is not used, but
 * must be there: with two tokens or more the scratch goes on with floats (cpu_scratch_bytes). */
_Static_assert((PANEL - 1) * sizeof(struct act_block) <= PANEL * ACT_LEN * sizeof(float),
               "room behind the last panel");

/* As LDTILECFG reads it. */
struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};
_Static_assert(sizeof(struct tile_config) == 64, "the instruction's operand");

/* Tile registers 0 … 3 are C, 4 and 5 are A, 6 and 7 are B. The intrinsics paste their numbers into
 * instructions, so they are numbers below. */
enum { SUM_TILES = 4, A_TILE = 4, B_TILE = 6, N_TILES = 8 };

/* The compiler is not told what tile instructions read (gcc 12): all that was stored, behind p too, must be
 * in memory. */
#define BEFORE_TILE_LOADS(p) __asm__ volatile("" ::"r"(p) : "memory")

/* depth: bytes of a token in A. */
static void configure(int depth)
{
    struct tile_config config = {.palette = 1};
    for (int i = 0; i < N_TILES; i++) {
        const bool is_b = i >= B_TILE, is_a = i >= A_TILE && !is_b;
        config.rows[i] = (uint8_t)(is_b ? depth / 4 : PANEL);
        config.row_bytes[i] = (uint16_t)(is_a ? depth : GROUP_BYTES);
    }
    BEFORE_TILE_LOADS(&config);
    _tile_loadconfig(&config);
}

void amx_begin(enum scale_kind k)
{
    configure(scales_by_16(k) ? ACT_LEN / 2 : ACT_LEN);
}

void amx_end(void)
{
    _tile_release();
}

void amx_prepare(struct chunk *c, const struct pack_format *f, int n_blocks)
{
    if (!scales_have_zero(f->scales))
        return;
    const __m512i zero = _mm512_set1_epi8((char)f->zero);
    for (int b = 0; b < n_blocks; b++)
        for (int g = 0; g < GROUPS; g++)
            _mm512_store_si512(c->w[b][g], _mm512_sub_epi8(load512(c->w[b][g]), zero));
}

#define SUM_PRODUCTS(i, C, A, B)                                                              \
    if (first + (i) < n_sums) {                                                               \
        const int b = (first + (i)) / parts, part = (first + (i)) % parts;                    \
        _tile_zero(C);                                                                        \
        _tile_loadd(A, x[b * width].q + part * (ACT_LEN / 2), (int)sizeof(struct act_block)); \
        _tile_loadd(B, c->w[b][part * (GROUPS / 2)], GROUP_BYTES);                            \
        if (scales_have_zero(f.scales))                                                       \
            _tile_dpbssd(C, A, B);                                                            \
        else                                                                                  \
            _tile_dpbsud(C, A, B);                                                            \
    }
#define STORE_SUMS(i, C)      \
    if (first + (i) < n_sums) \
        _tile_stored(C, sums[first + (i)], (int)sizeof sums[0][0]);

/* Sums first … first + 3, of n_sums at most, of 16 tokens. */
INLINE void sum_tiles(const struct pack_format f, const struct chunk *c, int first, int n_sums,
                      const struct act_block *x, int width, chunk_sums sums)
{
    const int parts = scales_by_16(f.scales) ? 2 : 1;
    SUM_PRODUCTS(0, 0, 4, 6)
    SUM_PRODUCTS(1, 1, 5, 7)
    SUM_PRODUCTS(2, 2, 4, 6)
    SUM_PRODUCTS(3, 3, 5, 7)
    STORE_SUMS(0, 0)
    STORE_SUMS(1, 1)
    STORE_SUMS(2, 2)
    STORE_SUMS(3, 3)
}

/* acc[0 … n − 1] take in block b of tokens t … t + n − 1, which are x[0 … n − 1]. */
INLINE void scale_block(const struct pack_format f, const struct chunk *c, int b, const struct act_block *x,
                        int t, int n, const chunk_sums sums, __m512 *acc)
{
    const bool by_16 = scales_by_16(f.scales);
    __m512i sum[TOGETHER], sum1[TOGETHER];
    UNROLL
    for (int i = 0; i < n; i++) {
        sum[i] = _mm512_load_si512(sums[by_16 ? 2 * b : b][t + i]);
        sum1[i] = by_16 ? _mm512_load_si512(sums[2 * b + 1][t + i]) : sum[i];
        if (f.scales == SCALE_BLOCK_ZERO)
            sum[i] = _mm512_dpwssd_epi32(sum[i], load_pairs(c->offset[b]), broadcast4(x[i].sum));
    }
    scale_sums(f, c, b, x, n, sum, sum1, acc);
}

INLINE void mac_tiles(const struct pack_format f, const struct chunk *c, int n_blocks,
                      const struct act_block *x, int width, float (*total)[TILE_ROWS])
{
    const int parts = scales_by_16(f.scales) ? 2 : 1, n_sums = parts * n_blocks;
    alignas(64) chunk_sums sums;
    __m512 acc[PANEL];
    UNROLL
    for (int t = 0; t < PANEL; t++)
        acc[t] = _mm512_setzero_ps();
    BEFORE_TILE_LOADS(c);
    sum_tiles(f, c, 0, n_sums, x, width, sums);
    for (int i = 0; i < n_sums; i += SUM_TILES) {
        sum_tiles(f, c, i + SUM_TILES, n_sums, x, width, sums);
        if (width < PANEL)
            continue;
        for (int b = i / parts; b < n_blocks && b < (i + SUM_TILES) / parts; b++) {
            UNROLL
            for (int t = 0; t < PANEL; t += TOGETHER)
                scale_block(f, c, b, x + b * PANEL + t, t, TOGETHER, (const int32_t(*)[PANEL][TILE_ROWS])sums,
                            acc + t);
        }
    }
    if (width == PANEL) {
        add_chunk(f, c, PANEL, acc, total);
        if (scales_have_min(f.scales))
            mac_mins(f, c, n_blocks, x, PANEL, PANEL, total);
        return;
    }
    for (int t = 0; t < width; t++) {
        acc[0] = _mm512_setzero_ps();
        for (int b = 0; b < n_blocks; b++)
            scale_block(f, c, b, x + b * width + t, t, 1, (const int32_t(*)[PANEL][TILE_ROWS])sums, acc);
        add_chunk(f, c, 1, acc, total + t);
        if (scales_have_min(f.scales))
            mac_mins(f, c, n_blocks, x + t, width, 1, total + t);
    }
}

#define KINDS(X)   \
    X(BLOCK)       \
    X(BLOCK_MIN)   \
    X(BLOCK_ZERO)  \
    X(BLOCK16)     \
    X(SUPER32)     \
    X(SUPER32_MIN) \
    X(SUPER16)     \
    X(SUPER16_MIN)

#define DEFINE_MAC_TILES(KIND)                                                                             \
    static void mac_tiles_##KIND(const struct chunk *c, int zero, int n_blocks, const struct act_block *x, \
                                 int width, float(*total)[TILE_ROWS])                                      \
    {                                                                                                      \
        (void)zero; /* amx_prepare took it out */                                                          \
        const struct pack_format f = {.scales = SCALE_##KIND};                                             \
        mac_tiles(f, c, n_blocks, x, width, total);                                                        \
    }
KINDS(DEFINE_MAC_TILES)

mac_panel_fn *amx_mac_panel(enum scale_kind k)
{
#define KIND_ENTRY(KIND) [SCALE_##KIND] = mac_tiles_##KIND,
    static mac_panel_fn *const kinds[] = {KINDS(KIND_ENTRY)};
    return kinds[k];
}

/* Whole tiles, of 64 bytes a token: the most that the unit does. */
int64_t amx_peak_dots(int64_t n)
{
    enum { DEPTH = 64 };
    configure(DEPTH);
    for (int64_t i = 0; i < n; i++) {
        _tile_dpbssd(0, 4, 6);
        _tile_dpbssd(1, 5, 7);
        _tile_dpbssd(2, 4, 6);
        _tile_dpbssd(3, 5, 7);
    }
    _tile_release();
    return n * SUM_TILES * PANEL * TILE_ROWS * DEPTH;
}
