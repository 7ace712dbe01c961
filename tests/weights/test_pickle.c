/* Pickles inside a checkpoint: every opcode that is known, every way to be wrong, bombs. */
#include "tests/test.h"
#include "weights/pickle.h"

#include <stdlib.h>
#include <string.h>

static struct pickle p;
static char err[512];

static void forget(void)
{
    pickle_free(&p);
    p = (struct pickle){0};
}

/* Runs bytes [begin, len) as a pickle that begins there in its file. */
static int run(const void *data, size_t begin, size_t len, struct value *v)
{
    forget();
    err[0] = '\0';
    p = (struct pickle){.file = "FILE",
                        .part = "data.pkl",
                        .data = data,
                        .begin = begin,
                        .pos = begin,
                        .end = len,
                        .err = err,
                        .errlen = sizeof err};
    int rc = pickle_run(&p, v);
    if (rc)
        ck_assert_msg(strncmp(err, "FILE: data.pkl, byte ", 21) == 0 && !strchr(err, '\n') &&
                          !strchr(err, '\033'),
                      "%s", err);
    return rc;
}

#define RUN(text)           run_good(text, sizeof(text) - 1)
#define BAD(text, expected) run_bad(text, sizeof(text) - 1, expected)

static struct value run_good(const char *text, size_t len)
{
    struct value v = {0};
    ck_assert_msg(run(text, 0, len, &v) == 0, "%s", err);
    return v;
}

static void run_bad(const char *text, size_t len, const char *expected)
{
    struct value v = {0};
    ck_assert_msg(run(text, 0, len, &v) == -1, "ran, expected: %s", expected);
    ck_assert_msg(strstr(err, expected) != NULL, "'%s' is not in: %s", expected, err);
}

static void is_int(struct value v, int64_t expected)
{
    ck_assert_int_eq(v.kind, VALUE_INT);
    ck_assert_int_eq(v.i, expected);
}

START_TEST(constants)
{
    is_int(RUN("\x80\2K\xff."), 255);
    is_int(RUN("\x80\4\x95\3\0\0\0\0\0\0\0M\xff\xff."), 65535);
    is_int(RUN("J\xff\xff\xff\xff."), -1);
    is_int(RUN("\x8a\0."), 0);
    is_int(RUN("\x8a\1\x80."), -128);
    is_int(RUN("\x8a\6\0\0\0\0\0\1."), (int64_t)1 << 40);
    is_int(RUN("\x8a\10\0\0\0\0\0\0\0\x80."), INT64_MIN);
    ck_assert_int_eq(RUN("\x8a\x09\0\0\0\0\0\0\0\0\1.").kind, VALUE_OTHER);
    is_int(RUN("\x88."), 1);
    is_int(RUN("\x89."), 0);
    ck_assert_int_eq(RUN("N.").kind, VALUE_OTHER);
    ck_assert_int_eq(RUN("G\0\0\0\0\0\0\0\0.").kind, VALUE_OTHER);
    ck_assert_int_eq(RUN("B\2\0\0\0xy.").kind, VALUE_OTHER);
    ck_assert_int_eq(RUN("C\2xy.").kind, VALUE_OTHER);
    struct value v = RUN("X\3\0\0\0abc.");
    ck_assert(v.kind == VALUE_STRING && v.n == 3 && memcmp(p.data + v.at, "abc", 3) == 0);
    v = RUN("\x8c\0.");
    ck_assert(v.kind == VALUE_STRING && v.n == 0);
}
END_TEST

START_TEST(containers)
{
    ck_assert_uint_eq(RUN(").").n, 0);
    is_int(pickle_items(&p, &(struct value){.at = RUN("K\1\x85.").at})[0], 1);
    struct value v = RUN("K\1K\2\x86.");
    ck_assert(v.kind == VALUE_TUPLE && v.n == 2);
    is_int(pickle_items(&p, &v)[1], 2);
    v = RUN("K\1K\2K\3\x87.");
    is_int(pickle_items(&p, &v)[2], 3);
    v = RUN("K\0(K\1K\2K\3K\4t.");
    ck_assert(v.kind == VALUE_TUPLE && v.n == 4);
    is_int(pickle_items(&p, &v)[3], 4);

    v = RUN("](K\1K\2eK\3a.");
    ck_assert_int_eq(v.kind, VALUE_LIST);
    const struct link *l = pickle_link(&p, pickle_list(&p, &v)->first);
    is_int(l->value, 1);
    l = pickle_link(&p, pickle_link(&p, l->next)->next);
    is_int(l->value, 3);
    ck_assert_uint_eq(l->next, UINT32_MAX);

    v = RUN("}(K\1K\2K\3K\4uK\5K\6s.");
    ck_assert_int_eq(v.kind, VALUE_DICT);
    l = pickle_link(&p, pickle_list(&p, &v)->first);
    is_int(l->key, 1);
    is_int(l->value, 2);
    l = pickle_link(&p, pickle_link(&p, l->next)->next);
    is_int(l->key, 5);
    is_int(l->value, 6);
}
END_TEST

START_TEST(memo)
{
    is_int(RUN("K\7q\5K\1h\5."), 7);
    is_int(RUN("K\7r\0\1\0\0K\1j\0\1\0\0."), 7);
    is_int(RUN("K\7\x94K\1\x94h\0."), 7);
    struct value v = RUN("]q\0h\0a."); /* a list in itself is no harm */
    ck_assert_int_eq(pickle_link(&p, pickle_list(&p, &v)->first)->value.kind, VALUE_LIST);
    BAD("K\7q\5h\4.", "byte 6: no value was remembered as number 4");
    BAD("h\0.", "no value was remembered as number 0");
    BAD("K\7r\xff\xff\xff\xff.", "more than 4194304 values to remember");
    BAD("q\0.", "nothing on the stack to remember");
    BAD("(q\0.", "nothing on the stack to remember");
}
END_TEST

#define STORAGE "(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0000X\3\0\0\0cpuK\6tQ"

START_TEST(tensors)
{
    struct value v = RUN("ctorch._utils\n_rebuild_tensor_v2\n(" STORAGE "K\1K\2K\2\x86K\2K\1\x86\x89N}tR.");
    ck_assert_int_eq(v.kind, VALUE_TENSOR);
    ck_assert_uint_eq(v.n, 4);
    const struct value *arg = pickle_items(&p, &v);
    ck_assert_int_eq(arg[0].kind, VALUE_STORAGE);
    const struct value *id = pickle_items(&p, &arg[0]);
    ck_assert_str_eq(pickle_globals[id[1].at].name, "FloatStorage");
    is_int(id[4], 6);
    is_int(arg[1], 1);
    ck_assert_int_eq(arg[3].kind, VALUE_TUPLE);
    ck_assert_uint_eq(p.storages.n, 1);

    /* Attributes are passed over, a parameter is its tensor. */
    v = RUN("ctorch._utils\n_rebuild_parameter\n(ctorch._utils\n_rebuild_tensor_v2\n(" STORAGE
            "K\1K\2\x85K\1\x85\x89N}tR}b\x88}tR.");
    ck_assert_int_eq(v.kind, VALUE_TENSOR);
    v = RUN("\x8c\5torch\x8c\4Size\x93)\x85R.");
    ck_assert(v.kind == VALUE_TUPLE && v.n == 0);
    v = RUN("ccollections\nOrderedDict\n)R}b.");
    ck_assert_int_eq(v.kind, VALUE_DICT);
}
END_TEST

START_TEST(refused_globals)
{
    BAD("\x80\2cos\nsystem\n(X\2\0\0\0idtR.", "byte 2: global 'os.system' is not allowed");
    BAD("\x8c\5posix\x8c\6system\x93.", "byte 15: global 'posix.system' is not allowed");
    BAD("cbuiltins\neval\n.", "global 'builtins.eval' is not allowed");
    BAD("c__builtin__\nexec\n.", "global '__builtin__.exec' is not allowed");
    BAD("ctorch\nload\n.", "global 'torch.load' is not allowed");
    BAD("ctorch\nFloatStorage.__reduce__\n.", "is not allowed");
    BAD("ctorch._utils\n_rebuild_tensor_v2.__globals__\n.", "is not allowed");
    BAD("ctorch\nFloatStorag\n.", "is not allowed");
    BAD("c\n\n.", "is not allowed");
    BAD("ca\033[2J\nb\n.", "a global of this name is not allowed");
    BAD("\x8c\3a\0b\x8c\1c\x93.", "a global of this name is not allowed");
    BAD("ctorch\nSize", "the name of a global has no end");
    BAD("K\1K\1\x93.", "the name of a global is no string");
    BAD("i__main__\nX\n.", "opcode 0x69 is not one that checkpoints use"); /* INST */
    BAD("(o.", "opcode 0x6f");                                             /* OBJ */
    BAD("\x81.", "opcode 0x81");                                           /* NEWOBJ */
    BAD("\x92.", "opcode 0x92");                                           /* NEWOBJ_EX */
    BAD("\x82\1.", "opcode 0x82");                                         /* EXT1 */
    BAD("P0\n.", "opcode 0x50");                                           /* PERSID */
    BAD("\x97.", "opcode 0x97");                                           /* NEXT_BUFFER */
    BAD("\0", "opcode 0x00");
}
END_TEST

START_TEST(bad_calls)
{
    BAD("K\1)R.", "a call of something that is no global");
    BAD("ctorch\nSize\nK\1R.", "or without arguments");
    BAD("ctorch\nSize\n)R.", "'torch.Size' is called with arguments that do not fit it");
    BAD("ctorch\nFloatStorage\n)R.", "'torch.FloatStorage' is called");
    BAD("ctorch\nfloat32\n)R.", "'torch.float32' is called");
    BAD("ccollections\nOrderedDict\n]\x85R.", "'collections.OrderedDict' is called");
    BAD("ctorch._utils\n_rebuild_tensor_v2\nNNN\x87R.", "is called with arguments");
    BAD("ctorch._utils\n_rebuild_tensor_v3\n(NNNNNNtR.", "is called with arguments");
    BAD("ctorch._utils\n_rebuild_parameter\n(K\1\x88}tR.", "is called with arguments");
    BAD("K\1Q.", "a persistent id that is no storage");
    BAD(")Q.", "a persistent id that is no storage");
    BAD("(X\7\0\0\0storageNX\1\0\0\0000X\3\0\0\0cpuK\6tQ.", "a persistent id that is no storage");
    BAD("(X\7\0\0\0storagectorch\nfloat32\nX\1\0\0\0000NK\6tQ.", "a persistent id that is no storage");
    BAD("(X\7\0\0\0storagectorch\nFloatStorage\nK\1NK\6tQ.", "a persistent id that is no storage");
    BAD("(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0000NNtQ.", "a persistent id that is no storage");
    BAD("(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0000NK\6K\1tQ.",
        "a persistent id that is no storage");
    BAD("(X\6\0\0\0modulectorch\nFloatStorage\nX\1\0\0\0000NK\6tQ.", "a persistent id that is no storage");
    BAD("K\1}b.", "attributes for something that is no dict or tensor");
    BAD("}b.", "attributes for something");
}
END_TEST

START_TEST(bad_stacks)
{
    BAD("", "byte 0: it ends here, 1 more bytes should follow");
    BAD("N", "byte 1: it ends here");
    BAD(".", "nothing on the stack to use");
    BAD("(.", "nothing on the stack to use");
    BAD("K", "it ends here");
    BAD("X\xff\xff\xff\xff.", "byte 5: it ends here, 4294967295 more bytes should follow");
    BAD("\x8a\xff.", "it ends here, 255 more");
    BAD("\x80\1.", "pickle protocol 1 is not one of 2 to 5");
    BAD("\x80\6.", "pickle protocol 6");
    BAD("\x95\xff\xff\xff\xff\xff\xff\xff\xff.", "a frame of 18446744073709551615 bytes does not fit");
    BAD("t.", "no mark on the stack");
    BAD("K\1e.", "no mark on the stack");
    BAD("K\1\x86.", "nothing on the stack to use");
    BAD("(K\1\x86.", "nothing on the stack to use");
    BAD("K\1a.", "no list on the stack to add to");
    BAD("}K\1a.", "no list on the stack to add to");
    BAD("]K\1K\1s.", "no dict on the stack to add to");
    BAD("](a.", "nothing on the stack to use");
    BAD("}((s.", "nothing on the stack to use");
    BAD("}(K\1u.", "a key without a value");
    BAD("K\1(K\1e.", "no list on the stack to add to");
    BAD("(K\1K\1u.", "no dict on the stack to add to");
    BAD("s.", "no dict on the stack to add to");
}
END_TEST

/* The place counts from the start of the pickle, which is in the middle of its file. */
START_TEST(places)
{
    struct value v;
    ck_assert_int_eq(run("......N\1.", 6, 9, &v), -1);
    ck_assert_msg(strstr(err, "byte 1: opcode 0x01") != NULL, "%s", err);
}
END_TEST

/* A pickle of n times `unit`, then `tail`. */
static void bomb(const char *head, size_t head_len, const char *unit, size_t unit_len, size_t n,
                 const char *expected)
{
    size_t len = head_len + n * unit_len;
    char *data = malloc(len);
    struct value v;
    ck_assert_ptr_nonnull(data);
    memcpy(data, head, head_len);
    for (size_t i = 0; i < n; i++)
        memcpy(data + head_len + i * unit_len, unit, unit_len);
    ck_assert_int_eq(run(data, 0, len, &v), -1);
    ck_assert_msg(strstr(err, expected) != NULL, "'%s' is not in: %s", expected, err);
    forget();
    free(data);
}
#define BOMB(head, unit, expected) \
    bomb(head, sizeof(head) - 1, unit, sizeof(unit) - 1, (8 << 20) / (sizeof(unit) - 1), expected)

START_TEST(bombs)
{
    BOMB("", "(", "more than 131072 values on the stack");
    BOMB("", "N", "more than 131072 values on the stack");
    BOMB("", "]", "more than 131072 values on the stack");
    BOMB("", "(t", "more than 131072 values on the stack");
    BOMB("N", "\x85", "more than 4194304 values in tuples");                   /* deep */
    BOMB("Nq\0", "h\0\x86", "more than 4194304 values in tuples");             /* deep and wide */
    BOMB("N\x85q\0", "h\0h\0\x86q\0", "more than 131072 values on the stack"); /* doubling, as DAGs do */
    BOMB("]", "Na", "more than 524288 values in lists and dicts");
    BOMB("}q\0", "Nh\0s", "more than 524288 values in lists and dicts");
    BOMB("]", "]a", "more than 524288 lists and dicts");
    BOMB("}", "}b", "more than 524288 lists and dicts");
    BOMB("N", "\x94", "more than 4194304 values to remember");
    BOMB("", "\x80\2", "it ends here");
    BOMB("}", "Nb", "it ends here");
    BOMB("]", "(e", "it ends here");
}
END_TEST

static Suite *pickle_suite(void)
{
    Suite *s = suite_create("weights/pickle");
    TCase *tc = tcase_create("pickle");
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, NULL, forget);
    tcase_add_test(tc, constants);
    tcase_add_test(tc, containers);
    tcase_add_test(tc, memo);
    tcase_add_test(tc, tensors);
    tcase_add_test(tc, refused_globals);
    tcase_add_test(tc, bad_calls);
    tcase_add_test(tc, bad_stacks);
    tcase_add_test(tc, places);
    tcase_add_test(tc, bombs);
    suite_add_tcase(s, tc);
    return s;
}

TEST_SUITE(pickle_suite)
