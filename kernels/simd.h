/* The intrinsics of x86: the compiler's own, or plain C for AVX-512 (SIMDe's) and AVX-VNNI, so that a machine
 * without them can check the logic of those kernels (make CONFIG=emu; for AMX there is amx_emulated.h).
 * Included by kernel files that are compiled for a CPU level only. SIMDe computes with pairs of 256-bit
 * operations, a fused multiply-add included, so results are those of the real instructions. */
#ifndef QUOLL_SIMD_H
#define QUOLL_SIMD_H

#ifndef QUOLL_EMULATE_AVX512

#include <immintrin.h>

#else

/* 512-bit types without AVX-512 are passed in memory: everything here is inlined or local to a file. */
#pragma GCC diagnostic ignored "-Wpsabi"
#ifdef __clang__
#pragma GCC diagnostic ignored "-Wpass-failed"
#endif
#define SIMDE_ENABLE_NATIVE_ALIASES
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wshadow"
#include <simde/x86/avx512.h>
#pragma GCC diagnostic pop

/* What SIMDe 0.7.4 lacks. Each is two halves of the 256-bit instruction. */

#define EMU_INLINE               __attribute__((always_inline)) static inline
#define EMU_512(lo, hi)          _mm512_inserti64x4(_mm512_castsi256_si512(lo), (hi), 1)
#define EMU_512PS(lo, hi)        _mm512_castsi512_ps(EMU_512(_mm256_castps_si256(lo), _mm256_castps_si256(hi)))
#define EMU_HALF(v, i)           _mm512_extracti64x4_epi64((v), (i))
#define EMU_HALFPS(v, i)         _mm256_castsi256_ps(EMU_HALF(_mm512_castps_si512(v), (i)))

EMU_INLINE __m512 emu_mm512_cvtph_ps(__m256i h)
{
    return EMU_512PS(_mm256_cvtph_ps(_mm256_castsi256_si128(h)),
                     _mm256_cvtph_ps(_mm256_extracti128_si256(h, 1)));
}
#define _mm512_cvtph_ps(h)       emu_mm512_cvtph_ps(h)

EMU_INLINE __m512i emu_mm512_cvtps_epi32(__m512 v)
{
    return EMU_512(_mm256_cvtps_epi32(EMU_HALFPS(v, 0)), _mm256_cvtps_epi32(EMU_HALFPS(v, 1)));
}
#define _mm512_cvtps_epi32(v)    emu_mm512_cvtps_epi32(v)

EMU_INLINE __m512 emu_mm512_cvtepi32_ps(__m512i v)
{
    return EMU_512PS(_mm256_cvtepi32_ps(EMU_HALF(v, 0)), _mm256_cvtepi32_ps(EMU_HALF(v, 1)));
}
#define _mm512_cvtepi32_ps(v)    emu_mm512_cvtepi32_ps(v)

EMU_INLINE __m512i emu_mm512_cvtepi8_epi32(__m128i v)
{
    return EMU_512(_mm256_cvtepi8_epi32(v), _mm256_cvtepi8_epi32(_mm_srli_si128(v, 8)));
}
#define _mm512_cvtepi8_epi32(v)  emu_mm512_cvtepi8_epi32(v)

EMU_INLINE __m512i emu_mm512_cvtepu8_epi32(__m128i v)
{
    return EMU_512(_mm256_cvtepu8_epi32(v), _mm256_cvtepu8_epi32(_mm_srli_si128(v, 8)));
}
#define _mm512_cvtepu8_epi32(v)  emu_mm512_cvtepu8_epi32(v)

EMU_INLINE __m512i emu_mm512_cvtepu16_epi32(__m256i v)
{
    return EMU_512(_mm256_cvtepu16_epi32(_mm256_castsi256_si128(v)),
                   _mm256_cvtepu16_epi32(_mm256_extracti128_si256(v, 1)));
}
#define _mm512_cvtepu16_epi32(v) emu_mm512_cvtepu16_epi32(v)

EMU_INLINE float emu_mm512_reduce_max_ps(__m512 v)
{
    __m256 m = _mm256_max_ps(EMU_HALFPS(v, 0), EMU_HALFPS(v, 1));
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps(m, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}
#define _mm512_reduce_max_ps(v)  emu_mm512_reduce_max_ps(v)

/* SIMDe 0.7.4 has this one, but its alias takes four arguments. */
EMU_INLINE __m512i emu_mm512_madd_epi16(__m512i a, __m512i b)
{
    return EMU_512(_mm256_madd_epi16(EMU_HALF(a, 0), EMU_HALF(b, 0)),
                   _mm256_madd_epi16(EMU_HALF(a, 1), EMU_HALF(b, 1)));
}
#undef _mm512_madd_epi16
#define _mm512_madd_epi16(a, b)            emu_mm512_madd_epi16(a, b)

/* AVX-VNNI. Its products of bytes are summed in 32 bits: even and odd bytes apart, nothing saturates. */
EMU_INLINE __m256i emu_mm256_dpbusd_avx_epi32(__m256i sum, __m256i a, __m256i b)
{
    __m256i even = _mm256_madd_epi16(_mm256_and_si256(a, _mm256_set1_epi16(0xff)),
                                     _mm256_srai_epi16(_mm256_slli_epi16(b, 8), 8));
    __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(a, 8), _mm256_srai_epi16(b, 8));
    return _mm256_add_epi32(sum, _mm256_add_epi32(even, odd));
}
#define _mm256_dpbusd_avx_epi32(sum, a, b) emu_mm256_dpbusd_avx_epi32(sum, a, b)

#endif
#endif
