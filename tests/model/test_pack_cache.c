/* Packed weights kept in a file: the same bits, for every kind of source; files that are not what they should
 * be; folders that cannot be written. */
#include "tests/model/fixture.h"
#include "tests/test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[64], message[512], err[512];

/* ---- Loading with a cache ------------------------------------------------------------------------ */

enum outcome { NOTHING, KEPT, MAPPED, MADE_ANEW, WARNED };
static enum outcome outcome; /* of the last load, by its notes; MADE_ANEW: damaged, then kept */

static void listen(bool important, const char *line)
{
    (void)snprintf(message, sizeof message, "%s", line);
    ck_assert_ptr_null(strchr(line, '\n'));
    if (strstr(line, "damaged"))
        outcome = MADE_ANEW;
    else if (strstr(line, "warning"))
        outcome = WARNED;
    else if (strstr(line, "kept in"))
        outcome = outcome == MADE_ANEW ? MADE_ANEW : KEPT;
    else if (strstr(line, " from "))
        outcome = MAPPED;
    ck_assert(important == (strstr(line, "warning") || strstr(line, "damaged")));
}

static struct model_options options(void)
{
    return (struct model_options){.ops = ops_cpu(ISA_SCALAR),
                                  .n_threads = 2,
                                  .rope_scaling = -1,
                                  .pack_cache = folder,
                                  .pack_version = "1",
                                  .note = listen};
}

enum { N = 12 };

/* Loads and evaluates some ids: their logits, for free(). */
static float *logits_of(const char *path, const struct model_options *o, size_t *bytes)
{
    struct weights *w;
    struct model *m;
    struct cache *c;
    struct context *x;
    int32_t id[N];
    uint8_t want[N];
    const float *logits;
    const struct cache_options co = {64, 1, QTYPE_F32, QTYPE_F32, N};
    const struct context_options xo = {1, 1, N, COMPUTE_FAST, false};
    outcome = NOTHING;
    message[0] = '\0';
    ck_assert_msg(weights_open(&w, path, NULL, err, sizeof err) == 0, "%s", err);
    ck_assert_msg(model_load(&m, w, o, err, sizeof err) == 0, "%s", err);
    weights_close(w); /* the image must not need the source */
    ck_assert_msg(cache_new(&c, m, &co, err, sizeof err) == 0, "%s", err);
    ck_assert_msg(context_new(&x, m, c, &xo, err, sizeof err) == 0, "%s", err);
    make_ids(id, N, model_config(m)->vocab_size, 1);
    memset(want, 1, sizeof want);
    const struct batch b = {.n = N, .id = id, .want_logits = want};
    ck_assert_msg(context_eval(x, &b, &logits, err, sizeof err) == 0, "%s", err);
    *bytes = N * (size_t)model_config(m)->vocab_size * sizeof *logits;
    float *copy = malloc(*bytes);
    ck_assert_ptr_nonnull(copy);
    memcpy(copy, logits, *bytes);
    context_free(x);
    cache_free(c);
    model_free(m);
    return copy;
}

/* The logits are these, and the cache had that to say. */
static void expect(const char *path, const struct model_options *o, const float *want, enum outcome what)
{
    size_t bytes;
    float *got = logits_of(path, o, &bytes);
    ck_assert_msg(outcome == what, "%d, not %d: %s", outcome, what, message);
    if (want)
        ck_assert_mem_eq(got, want, bytes);
    free(got);
}

static float *without_cache(const char *path, struct model_options o)
{
    size_t bytes;
    o.pack_cache = NULL;
    float *logits = logits_of(path, &o, &bytes);
    ck_assert_int_eq(outcome, NOTHING);
    return logits;
}

/* ---- The folder ---------------------------------------------------------------------------------- */

static void make_folder(void)
{
    (void)snprintf(folder, sizeof folder, "/tmp/quoll-test-packed-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
}

/* How many files it holds; the last one's path, lent until the next call. */
static int count_files(const char **path)
{
    static char last[512];
    DIR *d = opendir(folder);
    int n = 0;
    for (struct dirent *e; d && (e = readdir(d));)
        if (e->d_name[0] != '.') {
            (void)snprintf(last, sizeof last, "%s/%s", folder, e->d_name);
            n++;
        }
    if (d)
        closedir(d);
    if (path)
        *path = last;
    return n;
}

static void remove_folder(void)
{
    const char *path;
    while (count_files(&path) > 0)
        ck_assert(unlink(path) == 0 || rmdir(path) == 0);
    (void)rmdir(folder);
}

static char *read_all(const char *path, size_t *len)
{
    FILE *f = fopen(path, "rb");
    struct stat st;
    ck_assert(f && fstat(fileno(f), &st) == 0);
    *len = (size_t)st.st_size;
    char *data = malloc(*len);
    ck_assert(data && fread(data, 1, *len, f) == *len);
    ck_assert_int_eq(fclose(f), 0);
    return data;
}

static void write_all(const char *path, const char *data, size_t len)
{
    FILE *f = fopen(path, "wb");
    ck_assert(f && fwrite(data, 1, len, f) == len && fclose(f) == 0);
}

/* ---- The same bits ------------------------------------------------------------------------------- */

static const struct {
    const char *model;
    int quantize; /* enum qtype */
} sources[] = {
    {"gguf/llama-f16/model.gguf", QTYPE_F32},        {"gguf/llama-bf16/model.gguf", QTYPE_Q4_0},
    {"gguf/qwen2-f32/model.gguf", QTYPE_Q8_0},       {"gguf/gemma3-f16/model.gguf", QTYPE_F32},
    {"gguf/quant-q4_k/model.gguf", QTYPE_F32},       {"gguf/quant-q6_k/model.gguf", QTYPE_F32},
    {"gguf/quant-iq2_xs/model.gguf", QTYPE_F32},     {"gguf/quant-nvfp4/model.gguf", QTYPE_F32},
    {"models/llama-sharded/config.json", QTYPE_F32}, {"models/phi3/config.json", QTYPE_Q4_0},
    {"models/mixtral/config.json", QTYPE_Q8_0},      {"models/qwen3-moe/config.json", QTYPE_F32},
    {"models/llama-gptq/config.json", QTYPE_F32},    {"models/llama-gptq-desc-act/config.json", QTYPE_F32},
    {"models/llama-awq/config.json", QTYPE_F32},     {"models/chatglm1-int4/config.json", QTYPE_F32},
    {"models/chatglm2-int8/config.json", QTYPE_F32},
};

START_TEST(the_same_bits)
{
    const char *path = test_golden(sources[_i].model);
    if (!path) {
        test_skip(sources[_i].model, "no such golden file");
        return;
    }
    make_folder();
    struct model_options o = options();
    o.quantize = sources[_i].quantize;
    float *want = without_cache(path, o);
    expect(path, &o, want, KEPT);
    expect(path, &o, want, MAPPED);
    o.n_threads = 1;
    o.ops = ops_cpu(isa_best());
    expect(path, &o, want, MAPPED);
    ck_assert_int_eq(count_files(NULL), 1);
    free(want);
    remove_folder();
}
END_TEST

/* Adapters lie beside the matrices: the file is that of the model alone. */
START_TEST(an_adapter_changes_no_file)
{
    const char *name = test_golden("lora/llama-lora/adapter_config.json");
    if (!name) {
        test_skip("lora/llama-lora", "no such golden file");
        return;
    }
    char adapter[1024], model[1024];
    (void)snprintf(adapter, sizeof adapter, "%s", name);
    *strrchr(adapter, '/') = '\0';
    (void)snprintf(model, sizeof model, "%s", test_golden("models/llama/config.json"));
    make_folder();
    const struct lora_option lora = {adapter, 1};
    struct model_options o = options();
    float *plain_logits = without_cache(model, o);
    expect(model, &o, plain_logits, KEPT);
    o.lora = &lora;
    o.n_lora = 1;
    float *want = without_cache(model, o);
    ck_assert_mem_ne(want, plain_logits, N * sizeof *want);
    expect(model, &o, want, MAPPED);
    free(want);
    free(plain_logits);
    remove_folder();
}
END_TEST

/* A copy of a golden model that may be changed. */
static char *copy_model(const char *name, const char *to)
{
    const char *path = test_golden(name);
    if (!path) {
        test_skip(name, "no such golden file");
        return NULL;
    }
    size_t len;
    char *data = read_all(path, &len);
    write_all(to, data, len);
    free(data);
    return strdup(to);
}

static const char llama[] = "gguf/llama-f16/model.gguf";

/* The matrices come from the file, not from the model: neither packing nor quantising is done again. */
START_TEST(the_file_is_what_is_used)
{
    const char *path = test_golden(llama), *file;
    if (!path) {
        test_skip(llama, "no such golden file");
        return;
    }
    make_folder();
    struct model_options o = options();
    o.quantize = QTYPE_Q8_0;
    float *want = without_cache(path, o);
    expect(path, &o, want, KEPT);
    ck_assert_int_eq(count_files(&file), 1);
    size_t len, bytes;
    char *data = read_all(file, &len);
    memset(data + 4096, 0, len - 4096);
    write_all(file, data, len);
    float *got = logits_of(path, &o, &bytes);
    ck_assert_int_eq(outcome, MAPPED);
    ck_assert_mem_ne(got, want, bytes);
    free(got);
    free(data);
    free(want);
    remove_folder();
}
END_TEST

/* ---- Which file ---------------------------------------------------------------------------------- */

/* Every change is another file; the old one stays. */
START_TEST(what_changes_the_fingerprint)
{
    make_folder();
    char to[96];
    (void)snprintf(to, sizeof to, "%s.gguf", folder);
    char *path = copy_model(llama, to);
    if (!path)
        return;
    struct stat st;
    struct model_options o = options();
    struct ops other = *o.ops;
    int n = 0;
    ck_assert_int_eq(stat(path, &st), 0);
    const struct timespec times[2] = {st.st_atim, st.st_mtim};
    expect(path, &o, NULL, KEPT);
    ck_assert_int_eq(count_files(NULL), ++n);

    o.quantize = QTYPE_Q8_0;
    expect(path, &o, NULL, KEPT);
    ck_assert_int_eq(count_files(NULL), ++n);
    ck_assert_msg(strstr(message, "1 more of this model"), "%s", message);
    o.quantize = QTYPE_F32;

    o.pack_version = "2";
    expect(path, &o, NULL, KEPT);
    ck_assert_int_eq(count_files(NULL), ++n);
    o.pack_version = "1";

    other.packed_layout++;
    o.ops = &other;
    expect(path, &o, NULL, KEPT);
    ck_assert_int_eq(count_files(NULL), ++n);
    o.ops = ops_cpu(ISA_SCALAR);
    expect(path, &o, NULL, MAPPED);

    /* a weight, with the file's time put back */
    struct weights *w;
    ck_assert_int_eq(weights_open(&w, path, NULL, err, sizeof err), 0);
    const struct tensor *t = weights_find(w, "blk.0.ffn_up.weight");
    ck_assert_ptr_nonnull(t);
    const off_t at = (off_t)(t->offset + t->bytes / 2);
    weights_close(w);
    int fd = open(path, O_RDWR);
    uint8_t byte;
    ck_assert(fd >= 0 && pread(fd, &byte, 1, at) == 1);
    byte ^= 1;
    ck_assert(pwrite(fd, &byte, 1, at) == 1 && futimens(fd, times) == 0);
    expect(path, &o, NULL, KEPT);
    ck_assert_int_eq(count_files(NULL), ++n);

    /* the time alone */
    ck_assert(futimens(fd, (struct timespec[2]){times[0], {times[1].tv_sec, times[1].tv_nsec / 2 + 1}}) == 0);
    (void)close(fd);
    expect(path, &o, NULL, KEPT);
    ck_assert_int_eq(count_files(NULL), ++n);
    expect(path, &o, NULL, MAPPED);
    (void)unlink(path);
    free(path);
    remove_folder();
}
END_TEST

/* Names of models that would be awkward in a file's. */
START_TEST(names_are_plain)
{
    static const char *const names[][2] = {
        {".. 'x' \n.gguf", "_._"}, {"-v.gguf", "_v"}, {"a.b-c.gguf", "a.b-c"}};
    make_folder();
    char to[128];
    const char *file;
    (void)snprintf(to, sizeof to, "%s/%s", folder, names[_i][0]);
    char *model = copy_model(llama, to);
    if (!model)
        return;
    char models[sizeof folder];
    memcpy(models, folder, sizeof models);
    (void)snprintf(folder, sizeof folder, "%.50s/a/b", models);
    struct model_options o = options();
    expect(model, &o, NULL, KEPT); /* and the folders are made */
    expect(model, &o, NULL, MAPPED);
    ck_assert_int_eq(count_files(&file), 1);
    const char *name = strrchr(file, '/') + 1;
    ck_assert_msg(strncmp(name, names[_i][1], strlen(names[_i][1])) == 0, "%s", name);
    ck_assert_uint_eq(strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789._-"), strlen(name));
    remove_folder();
    *strrchr(folder, '/') = '\0';
    (void)rmdir(folder);
    memcpy(folder, models, sizeof models);
    (void)unlink(model);
    remove_folder();
    free(model);
}
END_TEST

/* ---- Files that are not what they should be ------------------------------------------------------- */

struct damaged {
    const char *model, *file;
    char *data;
    size_t len;
    float *want;
    struct model_options o;
};

static bool damaged_open(struct damaged *d)
{
    d->model = test_golden(llama);
    if (!d->model) {
        test_skip(llama, "no such golden file");
        return false;
    }
    make_folder();
    d->o = options();
    d->o.n_threads = 1;
    d->want = without_cache(d->model, d->o);
    expect(d->model, &d->o, d->want, KEPT);
    ck_assert_int_eq(count_files(&d->file), 1);
    d->data = read_all(d->file, &d->len);
    return true;
}

/* It was not believed, and is good again. */
static void damaged_expect_repaired(struct damaged *d)
{
    size_t len;
    expect(d->model, &d->o, d->want, MADE_ANEW);
    ck_assert_int_eq(count_files(&d->file), 1);
    char *now = read_all(d->file, &len);
    ck_assert_uint_eq(len, d->len);
    ck_assert_mem_eq(now, d->data, len);
    free(now);
}

static void damaged_close(struct damaged *d)
{
    free(d->data);
    free(d->want);
    remove_folder();
}

START_TEST(bits_of_the_head)
{
    struct damaged d;
    if (!damaged_open(&d))
        return;
    for (size_t i = 0; i < 4096; i += i < 128 ? 1 : 61) {
        char was = d.data[i];
        d.data[i] = (char)(was ^ 1 << i % 8);
        write_all(d.file, d.data, d.len);
        d.data[i] = was;
        damaged_expect_repaired(&d);
    }
    damaged_close(&d);
}
END_TEST

START_TEST(sizes)
{
    struct damaged d;
    if (!damaged_open(&d))
        return;
    const size_t cut[] = {0, 1, 8, 79, 4095, 4096, 4097, d.len / 2, d.len - 1};
    for (size_t i = 0; i < sizeof cut / sizeof *cut; i++) {
        write_all(d.file, d.data, cut[i]);
        damaged_expect_repaired(&d);
    }
    FILE *f = fopen(d.file, "ab");
    ck_assert(f && fputc(0, f) == 0 && fclose(f) == 0);
    damaged_expect_repaired(&d);
    damaged_close(&d);
}
END_TEST

START_TEST(other_things_of_that_name)
{
    struct damaged d;
    if (!damaged_open(&d))
        return;
    ck_assert(unlink(d.file) == 0 && mkfifo(d.file, 0600) == 0);
    damaged_expect_repaired(&d);
    ck_assert(unlink(d.file) == 0 && symlink("/dev/zero", d.file) == 0);
    damaged_expect_repaired(&d);
    ck_assert(unlink(d.file) == 0 && symlink("/nowhere/at/all", d.file) == 0);
    expect(d.model, &d.o, d.want, KEPT);
    expect(d.model, &d.o, d.want, MAPPED);
    ck_assert(unlink(d.file) == 0 && symlink(d.file, d.file) == 0);
    expect(d.model, &d.o, d.want, WARNED);
    ck_assert(unlink(d.file) == 0 && mkdir(d.file, 0700) == 0);
    expect(d.model, &d.o, d.want, WARNED);
    ck_assert_int_eq(count_files(NULL), 1);
    damaged_close(&d);
}
END_TEST

/* Matrices of any bytes are computed with, and nothing worse happens than wrong numbers. */
START_TEST(random_matrices)
{
    const char *path = test_golden(sources[_i].model), *file;
    if (!path) {
        test_skip(sources[_i].model, "no such golden file");
        return;
    }
    make_folder();
    struct model_options o = options();
    o.quantize = sources[_i].quantize;
    size_t bytes, len;
    free(logits_of(path, &o, &bytes));
    ck_assert_int_eq(count_files(&file), 1);
    char *data = read_all(file, &len);
    uint32_t n;
    memcpy(&n, data + 12, sizeof n);
    uint32_t state = 1;
    for (size_t i = (80 + 48 * n + 4095) / 4096 * 4096; i < len; i++) {
        state = state * 1664525u + 1013904223u;
        data[i] = (char)(state >> 24);
    }
    write_all(file, data, len);
    free(data);
    for (enum isa isa = ISA_SCALAR; isa <= isa_best(); isa++)
        if (isa_supported(isa)) {
            o.ops = ops_cpu(isa);
            free(logits_of(path, &o, &bytes));
            ck_assert_int_eq(outcome, MAPPED);
        }
    remove_folder();
}
END_TEST

/* ---- Folders that cannot be written, and several processes ----------------------------------------- */

static bool stop_at_once(void)
{
    return true;
}

START_TEST(what_cannot_be_kept)
{
    const char *path = test_golden(llama);
    if (!path) {
        test_skip(llama, "no such golden file");
        return;
    }
    make_folder();
    struct model_options o = options();
    float *want = without_cache(path, o);
    static const char *const folders[] = {"/dev/null/x", "/proc/self/x/y", "", "/dev/null"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        o.pack_cache = folders[i];
        expect(path, &o, want, WARNED);
    }
    o = options();
    o.stop = stop_at_once;
    expect(path, &o, want, WARNED);
    ck_assert_int_eq(count_files(NULL), 0);
    o.stop = NULL;
    /* a disk that is full: files may have no more than a page */
    const struct rlimit small = {4096, RLIM_INFINITY};
    (void)signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
    expect(path, &o, want, WARNED);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY}), 0);
    ck_assert_int_eq(count_files(NULL), 0);
    free(want);
    remove_folder();
}
END_TEST

/* A file system without O_TMPFILE: openat with it fails from now on in this process. */
static bool forbid_unnamed_files(void)
{
    enum { FLAG = O_TMPFILE & ~O_DIRECTORY };
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, FLAG, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EOPNOTSUPP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {sizeof rules / sizeof *rules, rules};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

START_TEST(file_systems_without_unnamed_files)
{
    struct damaged d;
    if (!damaged_open(&d))
        return;
    const char *forks = getenv("CK_FORK");
    if (forks && strcmp(forks, "no") == 0) {
        test_skip("O_TMPFILE", "tests share a process");
    } else if (!forbid_unnamed_files()) {
        test_skip("O_TMPFILE", "no seccomp here");
    } else {
        ck_assert_int_eq(open(folder, O_TMPFILE | O_WRONLY, 0600), -1);
        ck_assert_int_eq(unlink(d.file), 0);
        expect(d.model, &d.o, d.want, KEPT);
        write_all(d.file, d.data, d.len - 1);
        damaged_expect_repaired(&d);
        ck_assert_int_eq(unlink(d.file), 0);
        d.o.stop = stop_at_once;
        expect(d.model, &d.o, d.want, WARNED);
        ck_assert_int_eq(count_files(NULL), 0);
    }
    damaged_close(&d);
}
END_TEST

START_TEST(processes_share_a_folder)
{
    const char *path = test_golden(llama);
    if (!path) {
        test_skip(llama, "no such golden file");
        return;
    }
    make_folder();
    struct model_options o = options();
    o.n_threads = 1;
    float *want = without_cache(path, o);
    enum { PROCESSES = 6 };
    pid_t pid[PROCESSES];
    for (int i = 0; i < PROCESSES; i++) {
        pid[i] = fork();
        ck_assert_int_ge(pid[i], 0);
        if (pid[i] == 0) {
            size_t bytes;
            float *got = logits_of(path, &o, &bytes);
            bool same = memcmp(got, want, bytes) == 0 && (outcome == KEPT || outcome == MAPPED);
            _exit(same ? 0 : 1);
        }
    }
    for (int i = 0; i < PROCESSES; i++) {
        int status;
        ck_assert(waitpid(pid[i], &status, 0) == pid[i] && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    ck_assert_int_eq(count_files(NULL), 1);
    expect(path, &o, want, MAPPED);
    free(want);
    remove_folder();
}
END_TEST

static Suite *pack_cache_suite(void)
{
    Suite *s = suite_create("model/pack_cache");
    TCase *t = tcase_create("pack_cache");
    const int n_sources = sizeof sources / sizeof *sources;
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, the_same_bits, 0, n_sources);
    tcase_add_test(t, an_adapter_changes_no_file);
    tcase_add_test(t, the_file_is_what_is_used);
    tcase_add_test(t, what_changes_the_fingerprint);
    tcase_add_loop_test(t, names_are_plain, 0, 3);
    tcase_add_test(t, bits_of_the_head);
    tcase_add_test(t, sizes);
    tcase_add_test(t, other_things_of_that_name);
    tcase_add_loop_test(t, random_matrices, 0, n_sources);
    tcase_add_test(t, what_cannot_be_kept);
    tcase_add_test(t, file_systems_without_unnamed_files);
    tcase_add_test(t, processes_share_a_folder);
    suite_add_tcase(s, t);
    return s;
}

TEST_SUITE(pack_cache_suite)
