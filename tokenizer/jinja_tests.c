/* Tests: what may follow `is`. */
#include "tokenizer/jinja.h"

#include <string.h>

/* int % int, as odd, even and divisibleby want it */
static struct value remainder_is(struct jinja *j, struct value v, struct value by, int64_t is)
{
    return v_bool(jinja_equal(j, jinja_binary(j, OP_MOD, v, by), v_int(is)));
}

static struct value test_odd(struct jinja *j, struct value v, struct args *a)
{
    (void)a;
    return remainder_is(j, v, v_int(2), 1);
}

static struct value test_even(struct jinja *j, struct value v, struct args *a)
{
    (void)a;
    return remainder_is(j, v, v_int(2), 0);
}

static struct value test_divisibleby(struct jinja *j, struct value v, struct args *a)
{
    return remainder_is(j, v, a->v[0], 0);
}

#define KIND_TEST(name, condition)                                                   \
    static struct value test_##name(struct jinja *j, struct value v, struct args *a) \
    {                                                                                \
        (void)j;                                                                     \
        (void)a;                                                                     \
        return v_bool(condition);                                                    \
    }

KIND_TEST(defined, v.kind != V_UNDEFINED)
KIND_TEST(undefined, v.kind == V_UNDEFINED)
KIND_TEST(none, v.kind == V_NONE)
KIND_TEST(boolean, v.kind == V_BOOL)
KIND_TEST(false, v.kind == V_BOOL && !v.b)
KIND_TEST(true, v.kind == V_BOOL && v.b)
KIND_TEST(integer, v.kind == V_INT)
KIND_TEST(float, v.kind == V_FLOAT)
KIND_TEST(number, v.kind == V_INT || v.kind == V_FLOAT || v.kind == V_BOOL)
KIND_TEST(string, v.kind == V_STRING)
KIND_TEST(mapping, v.kind == V_DICT)
KIND_TEST(escaped, v.kind == V_STRING && v.s->safe)
KIND_TEST(sequence, v.kind == V_UNDEFINED || v.kind == V_STRING || v.kind == V_LIST || v.kind == V_TUPLE ||
                        v.kind == V_DICT || v.kind == V_RANGE)
KIND_TEST(callable, v.kind == V_UNDEFINED || v.kind == V_FUNCTION || v.kind == V_MACRO || v.kind == V_LOOP ||
                        v.kind == V_JOINER)
KIND_TEST(iterable, v.kind == V_LOOP || jinja_try_iter(j, v) != NULL)

static bool same(struct value a, struct value b)
{
    if (a.kind != b.kind)
        return false;
    switch (a.kind) {
    case V_NONE:
        return true;
    case V_BOOL:
        return a.b == b.b;
    case V_INT: /* CPython keeps one object of each small integer only; constants are shared though */
        return a.i == b.i;
    case V_FLOAT:
        return a.f == b.f;
    case V_STRING:
        return jinja_str_eq(a.s, b.s);
    default:
        return a.d == b.d;
    }
}

static struct value test_sameas(struct jinja *j, struct value v, struct args *a)
{
    (void)j;
    return v_bool(same(v, a->v[0]));
}

static struct value test_lower(struct jinja *j, struct value v, struct args *a)
{
    (void)a;
    struct args none = {0};
    return jinja_call(j, jinja_getattr(j, v_str(jinja_to_str(j, v)), jinja_str_c(j, "islower")), &none);
}

static struct value test_upper(struct jinja *j, struct value v, struct args *a)
{
    (void)a;
    struct args none = {0};
    return jinja_call(j, jinja_getattr(j, v_str(jinja_to_str(j, v)), jinja_str_c(j, "isupper")), &none);
}

static struct value test_filter(struct jinja *j, struct value v, struct args *a)
{
    (void)j;
    (void)a;
    return v_bool(v.kind == V_STRING && jinja_filter_find(v.s->p, v.s->len));
}

static struct value test_test(struct jinja *j, struct value v, struct args *a)
{
    (void)j;
    (void)a;
    return v_bool(v.kind == V_STRING && jinja_test_find(v.s->p, v.s->len));
}

#define COMPARE_TEST(name, op)                                                       \
    static struct value test_##name(struct jinja *j, struct value v, struct args *a) \
    {                                                                                \
        return v_bool(jinja_compare_op(j, op, v, a->v[0]));                          \
    }

COMPARE_TEST(eq, OP_EQ)
COMPARE_TEST(ne, OP_NE)
COMPARE_TEST(lt, OP_LT)
COMPARE_TEST(le, OP_LE)
COMPARE_TEST(gt, OP_GT)
COMPARE_TEST(ge, OP_GE)
COMPARE_TEST(in, OP_IN)

static const struct builtin tests[] = {
    {"defined", test_defined, 0, ""},     {"undefined", test_undefined, 0, ""},
    {"none", test_none, 0, ""},           {"string", test_string, 0, ""},
    {"mapping", test_mapping, 0, ""},     {"iterable", test_iterable, 0, ""},
    {"sequence", test_sequence, 0, ""},   {"number", test_number, 0, ""},
    {"integer", test_integer, 0, ""},     {"float", test_float, 0, ""},
    {"boolean", test_boolean, 0, ""},     {"true", test_true, 0, ""},
    {"false", test_false, 0, ""},         {"callable", test_callable, 0, ""},
    {"escaped", test_escaped, 0, ""},     {"odd", test_odd, 0, ""},
    {"even", test_even, 0, ""},           {"divisibleby", test_divisibleby, 1, "num"},
    {"sameas", test_sameas, 1, "other"},  {"lower", test_lower, 0, ""},
    {"upper", test_upper, 0, ""},         {"filter", test_filter, 0, ""},
    {"test", test_test, 0, ""},           {"in", test_in, 1, "seq"},
    {"==", test_eq, 1, "other"},          {"eq", test_eq, 1, "other"},
    {"equalto", test_eq, 1, "other"},     {"!=", test_ne, 1, "other"},
    {"ne", test_ne, 1, "other"},          {"<", test_lt, 1, "other"},
    {"lt", test_lt, 1, "other"},          {"lessthan", test_lt, 1, "other"},
    {"<=", test_le, 1, "other"},          {"le", test_le, 1, "other"},
    {">", test_gt, 1, "other"},           {"gt", test_gt, 1, "other"},
    {"greaterthan", test_gt, 1, "other"}, {">=", test_ge, 1, "other"},
    {"ge", test_ge, 1, "other"},
};

const struct builtin *jinja_test_find(const char *name, size_t len)
{
    return builtin_find(tests, sizeof tests / sizeof tests[0], name, len);
}
