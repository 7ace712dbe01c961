/* Saved chats and the settings in them: what comes back, hostile files, disks that are full. */
#include "tests/test.h"
#include "tools/chat.h"

#include <dirent.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[] = "/tmp/quoll-test-XXXXXX", path[64], err[512];
static struct talk t;
static struct settings s;

/* A folder of its own for each test, which runs in it. */
static void begin(void)
{
    char name[] = "chat", *argv[] = {name, NULL};
    struct option_set options = {.run = &s.run};
    ck_assert_int_eq(options_parse(&options, 1, argv), OPTIONS_GO);
    s.n_predict = -1;
    ck_assert_ptr_nonnull(mkdtemp(dir));
    ck_assert_int_eq(chdir(dir), 0);
    snprintf(path, sizeof path, "%s/chat.json", dir);
    ck_assert_int_eq(talk_init(&t), 0);
    ck_assert_int_eq(talk_set_system(&t, "be kind"), 0);
    ck_assert_int_eq(talk_add(&t, "user", "h\xC3\xA9llo \"you\"\n", 14), 0);
    ck_assert_int_eq(talk_add(&t, "assistant", "\033[0m", 4), 0);
}

static size_t n_files(void)
{
    size_t n = 0;
    DIR *d = opendir(".");
    ck_assert_ptr_nonnull(d);
    for (struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static void end(void)
{
    DIR *d = opendir(".");
    for (struct dirent *e; d && (e = readdir(d));)
        (void)unlink(e->d_name);
    if (d)
        closedir(d);
    (void)rmdir(dir);
    talk_free(&t);
    run_options_free(&s.run);
}

static void write_file(const char *text, size_t len)
{
    FILE *f = fopen(path, "wb");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(text, 1, len, f), len);
    ck_assert_int_eq(fclose(f), 0);
}

START_TEST(what_is_saved_comes_back)
{
    struct talk back;
    struct settings changed = s;
    ck_assert_int_eq(settings_set(&s, "temp", "0.3"), 0);
    ck_assert_int_eq(settings_set(&s, "top_k", "7"), 0);
    ck_assert_int_eq(settings_set(&s, "mirostat", "2"), 0);
    ck_assert_int_eq(settings_set(&s, "seed", "9223372036854775807"), 0);
    ck_assert_int_eq(settings_set(&s, "n", "12"), 0);
    ck_assert_int_eq(chat_save(path, &t, &s, "m\xff.gguf", err, sizeof err), 0);
    ck_assert_uint_eq(n_files(), 1);
    ck_assert_int_eq(chat_load(path, &back, &changed, err, sizeof err), 0);
    ck_assert(json_equal(back.messages, t.messages));
    ck_assert_uint_eq(back.forgotten, 0);
    json_t *a = settings_to_json(&s), *b = settings_to_json(&changed);
    ck_assert(json_equal(a, b));
    ck_assert(changed.run.sampler.temp == 0.3f);
    ck_assert_int_eq(changed.run.sampler.top_k, 7);
    ck_assert_int_eq(changed.run.sampler.mirostat, 2);
    ck_assert_uint_eq(changed.run.sampler.seed, INT64_MAX);
    ck_assert_int_eq(changed.n_predict, 12);
    json_decref(a);
    json_decref(b);
    talk_free(&back);
}
END_TEST

START_TEST(settings_are_checked)
{
    static const char *const wrong[][2] = {{"temp", "warm"}, {"temp", "nan"},  {"top-p", "2"},
                                           {"top-k", "1.5"}, {"seed", "-2"},   {"mirostat", "1"},
                                           {"nosuch", "1"},  {"threads", "2"}, {"model", "x"},
                                           {"n", "-2"},      {"", "1"},        {"temp", ""}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct settings copy = s;
        ck_assert_msg(settings_set(&copy, wrong[i][0], wrong[i][1]) == EXIT_USAGE, "%s %s", wrong[i][0],
                      wrong[i][1]);
        ck_assert_mem_eq(&copy.run.sampler, &s.run.sampler, sizeof s.run.sampler);
    }
}
END_TEST

START_TEST(full_disk_loses_nothing)
{
    ck_assert_int_eq(chat_save(path, &t, &s, "m", err, sizeof err), 0);
    struct stat before, after;
    ck_assert_int_eq(stat(path, &before), 0);
    /* A limit on the size of files ends writing half-way, as a full disk does. */
    signal(SIGXFSZ, SIG_IGN);
    const struct rlimit small = {100, 100};
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
    ck_assert_int_eq(chat_save(path, &t, &s, "m", err, sizeof err), -1);
    ck_assert_ptr_nonnull(strstr(err, path));
    ck_assert_int_eq(stat(path, &after), 0);
    ck_assert_uint_eq(after.st_ino, before.st_ino);
    ck_assert_int_eq(after.st_size, before.st_size);
    ck_assert_uint_eq(n_files(), 1); /* no half-written one is left */
}
END_TEST

START_TEST(places_that_cannot_be_written)
{
    static const char *const places[] = {"/dev/full", ".", "no/such/folder/x", "/proc/x"};
    struct stat st;
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        ck_assert_int_eq(chat_save(places[i], &t, &s, "m", err, sizeof err), -1);
        ck_assert_ptr_nonnull(strstr(err, places[i]));
    }
    ck_assert_int_eq(stat("/dev/full", &st), 0);
    ck_assert(S_ISCHR(st.st_mode)); /* not replaced by a file, which root could do */
    char deep[5000];
    memset(deep, 'x', sizeof deep - 1);
    deep[sizeof deep - 1] = '\0';
    ck_assert_int_eq(chat_save(deep, &t, &s, "m", err, sizeof err), -1);
}
END_TEST

START_TEST(a_link_stays_a_link)
{
    struct stat st;
    write_file("old", 3);
    ck_assert_int_eq(symlink("chat.json", "link"), 0);
    ck_assert_int_eq(chat_save("link", &t, &s, "m", err, sizeof err), 0);
    ck_assert_int_eq(lstat("link", &st), 0);
    ck_assert(S_ISLNK(st.st_mode));
    struct talk back;
    ck_assert_int_eq(chat_load(path, &back, &s, err, sizeof err), 0);
    talk_free(&back);
}
END_TEST

#define USER "{\"role\":\"user\",\"content\":\"x\"}"

static const char *const hostile[] = {
    "",
    "[]",
    "null",
    "{",
    "{}",
    "{\"messages\":{}}",
    "{\"messages\":[1]}",
    "{\"messages\":[{\"role\":\"user\"}]}",
    "{\"messages\":[{\"role\":\"user\",\"content\":[]}]}",
    "{\"messages\":[{\"role\":7,\"content\":\"x\"}]}",
    "{\"messages\":[{\"role\":\"tool\",\"content\":\"x\"}]}",
    "{\"messages\":[" USER ",{\"role\":\"system\",\"content\":\"x\"}]}",
    "{\"messages\":[{\"role\":\"user\",\"content\":\"\\u0000\"}]}",
    "{\"messages\":[{\"role\":\"user\",\"content\":\"\xff\"}]}",
    "{\"messages\":[" USER "],\"messages\":[]}",
    "{\"messages\":[" USER "],\"settings\":[]}",
    "{\"messages\":[" USER "],\"settings\":{\"temp\":\"0.8\"}}",
    "{\"messages\":[" USER "],\"settings\":{\"temp\":1e400}}",
    "{\"messages\":[" USER "],\"settings\":{\"temp\":1e300}}",
    "{\"messages\":[" USER "],\"settings\":{\"top-k\":99999999999}}",
    "{\"messages\":[" USER "],\"settings\":{\"top-k\":1,\"samplers\":1}}",
    "{\"messages\":[" USER "],\"settings\":{\"\\n\\u001b[2J\":1}}",
};

static void refuse(const char *text, size_t len)
{
    struct talk none = {.messages = NULL};
    const struct settings before = s;
    write_file(text, len);
    ck_assert_msg(chat_load(path, &none, &s, err, sizeof err) == -1, "accepted: %.*s", (int)len, text);
    ck_assert_ptr_nonnull(strstr(err, path));
    ck_assert_mem_eq(&s, &before, sizeof s);
}

START_TEST(hostile_files_change_nothing)
{
    refuse(hostile[_i], strlen(hostile[_i]));
}
END_TEST

START_TEST(cut_files_change_nothing)
{
    char text[4096];
    ck_assert_int_eq(chat_save(path, &t, &s, "m", err, sizeof err), 0);
    FILE *f = fopen(path, "rb");
    ck_assert_ptr_nonnull(f);
    size_t len = fread(text, 1, sizeof text, f);
    fclose(f);
    ck_assert_uint_lt(len, sizeof text);
    for (size_t n = 0; n < len; n++)
        refuse(text, n);
}
END_TEST

START_TEST(deep_nesting_is_refused)
{
    char text[100000];
    memset(text, '[', sizeof text);
    refuse(text, sizeof text);
    struct talk none;
    ck_assert_int_eq(chat_load("/dev/zero", &none, &s, err, sizeof err), -1);
    ck_assert_int_eq(chat_load(".", &none, &s, err, sizeof err), -1);
    ck_assert_int_eq(chat_load("nothing", &none, &s, err, sizeof err), -1);
}
END_TEST

static Suite *chat_file_suite(void)
{
    Suite *suite = suite_create("tools/chat_file");
    TCase *c = tcase_create("file");
    tcase_set_timeout(c, 60);
    tcase_add_checked_fixture(c, begin, end);
    tcase_add_test(c, what_is_saved_comes_back);
    tcase_add_test(c, settings_are_checked);
    tcase_add_test(c, full_disk_loses_nothing);
    tcase_add_test(c, places_that_cannot_be_written);
    tcase_add_test(c, a_link_stays_a_link);
    tcase_add_loop_test(c, hostile_files_change_nothing, 0, sizeof hostile / sizeof hostile[0]);
    tcase_add_test(c, cut_files_change_nothing);
    tcase_add_test(c, deep_nesting_is_refused);
    suite_add_tcase(suite, c);
    return suite;
}
TEST_SUITE(chat_file_suite)
