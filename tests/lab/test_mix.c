/* Which type a mix gives a tensor. What llama-quantize gives was read off its dry runs. */
#include "lab/mix.h"
#include "tests/test.h"

#include <string.h>

static const struct mix_model plain = {.n_layers = 32, .n_heads = 32, .n_kv_heads = 32};

static const char *type_in(const char *mix, const char *tensor, const struct mix_model *model)
{
    const struct mix *m = mix_by_name(mix);
    ck_assert_msg(m != NULL, "%s", mix);
    return qtypes[mix_type(m, tensor, model)].name;
}

START_TEST(mixes_as_users_know_them)
{
    static const struct {
        const char *mix, *tensor, *type;
    } cases[] = {
        {"q4_k_m", "output.weight", "q6_k"},
        {"q4_k_m", "token_embd.weight", "q4_k"},
        {"q4_k_m", "blk.0.attn_v.weight", "q6_k"},
        {"q4_k_m", "blk.4.attn_v.weight", "q4_k"},
        {"q4_k_m", "blk.6.ffn_down.weight", "q6_k"},
        {"q4_k_m", "blk.31.ffn_down.weight", "q6_k"},
        {"q4_k_m", "blk.6.ffn_up.weight", "q4_k"},
        {"Q4_K", "blk.0.attn_v.weight", "q6_k"},
        {"q4_k_s", "blk.3.attn_v.weight", "q5_k"},
        {"q4_k_s", "blk.4.attn_v.weight", "q4_k"},
        {"q3_k_m", "blk.1.attn_v.weight", "q5_k"},
        {"q3_k_m", "blk.2.attn_v.weight", "q4_k"},
        {"q3_k_m", "blk.0.attn_output.weight", "q4_k"},
        {"q3_k_l", "blk.9.ffn_down.weight", "q5_k"},
        {"q2_k", "blk.0.attn_v.weight", "q3_k"},
        {"iq2_xxs", "token_embd.weight", "q2_k"},
        {"iq2_m", "output.weight", "q5_k"},
        {"iq3_xxs", "blk.0.attn_q.weight", "iq2_s"},
        {"iq3_xs", "blk.3.ffn_gate.weight", "iq3_s"},
        {"iq3_xs", "blk.4.ffn_gate.weight", "iq3_xxs"},
        {"iq4_xs", "blk.0.ffn_down.weight", "q5_k"},
        {"q8_0", "output.weight", "q8_0"},
        {"f16", "output.weight", "f16"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        ck_assert_str_eq(type_in(cases[i].mix, cases[i].tensor, &plain), cases[i].type);
}
END_TEST

START_TEST(the_model_decides_too)
{
    struct mix_model m = plain;
    m.n_kv_heads = 8;
    ck_assert_str_eq(type_in("q2_k", "blk.0.attn_v.weight", &m), "q4_k");
    m = plain;
    m.tied = true;
    ck_assert_str_eq(type_in("q4_k_m", "token_embd.weight", &m), "q6_k");
    m = plain;
    m.imatrix = true;
    ck_assert_str_eq(type_in("q4_0", "blk.0.ffn_down.weight", &m), "q4_1");
    ck_assert_str_eq(type_in("q4_0", "blk.0.ffn_down.weight", &plain), "q4_0");
    m = plain;
    m.n_experts = 8;
    ck_assert_str_eq(type_in("q4_k_s", "blk.0.attn_k.weight", &m), "q8_0");
    ck_assert_str_eq(type_in("mxfp4_moe", "blk.0.ffn_up_exps.weight", &m), "mxfp4");
    ck_assert_str_eq(type_in("mxfp4_moe", "blk.0.ffn_up.weight", &plain), "q8_0");
}
END_TEST

START_TEST(all_names)
{
    ck_assert_ptr_null(mix_by_name(""));
    ck_assert_ptr_null(mix_by_name("q4_k_x"));
    for (size_t i = 0; i < mix_n(); i++) {
        const struct mix *m = mix_at(i);
        ck_assert_ptr_eq(mix_by_name(mix_name(m)), m); /* no two have the same name */
        ck_assert_ptr_nonnull(qtypes[mix_base(m)].quantise);
        ck_assert_int_ge(qtypes[mix_base(m)].gguf_id, 0);
        double bits = 8.0 * qtypes[mix_base(m)].block_bytes / qtypes[mix_base(m)].block_len;
        ck_assert_msg(mix_bits(m) >= bits - 0.4 && mix_bits(m) < bits + 1, "%s: %f", mix_name(m),
                      mix_bits(m));
    }
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("lab/mix");
    TCase *tc = tcase_create("mix");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, mixes_as_users_know_them);
    tcase_add_test(tc, the_model_decides_too);
    tcase_add_test(tc, all_names);
    suite_add_tcase(s, tc);
    return s;
}

TEST_SUITE(suite)
