/* A loaded model with a cache and a context, for tests that run one. */
#ifndef QUOLL_FIXTURE_H
#define QUOLL_FIXTURE_H

#include "model/model.h"
#include "tests/model/gguf_edit.h"

struct setting {
    enum isa isa;
    enum compute compute;
    enum qtype kv_type;
    int n_threads, max_batch, n_seqs;
    int64_t n_ctx;
    bool check_finite;
    const struct ops *ops; /* NULL: the CPU's at the level isa */
};

/* scalar, one thread, f32, KV cache F32 of 256 positions, whole batches, one sequence */
extern const struct setting plain;

struct fixture {
    struct weights *weights;
    struct model *model;
    struct cache *cache;
    struct context *context;
    int vocab_size;
};

/* Opens everything; fails the test on an error. */
struct fixture fixture_open(const char *path, const struct setting *s);
void fixture_close(struct fixture *f);
/* Another cache and context for the same model. */
void fixture_set(struct fixture *f, const struct setting *s);
/* The same file loaded with other options. */
void fixture_reload(struct fixture *f, const struct model_options *o, const struct setting *s);

/* Evaluates n ids of a sequence and copies all their logits to out (n, vocab_size); NULL: none. */
void fixture_eval(struct fixture *f, int seq, const int32_t *id, int n, float *out);
/* Greedy continuation of sequence 0, whose n_text ids are `text`, given the logits of the last. Where a
 * longer text is not its beginning and one token more (dynamic RoPE), it is evaluated again. */
void fixture_greedy(struct fixture *f, const float *last, const int32_t *text, int n_text, int32_t *id,
                    int n);

/* What the golden folder expects; ids and logits point into w. */
struct expected {
    struct weights *w;
    const int32_t *ids, *greedy;
    const float *logits; /* (n_logits, vocab_size): of the last positions */
    int n, n_logits, n_greedy;
};
struct expected expected_open(const char *path);

/* n ids that look like none of the golden prompts. */
void make_ids(int32_t *id, int n, int vocab_size, unsigned seed);

/* model_load of a file: −1 with its message, or 0 (and the model is freed). Fails the test when a
 * message has more than one line. */
int try_load(const char *path, char *err, size_t errlen);

/* ---- Changed files: g is freed -------------------------------------------------------------------- */

/* A golden model for changing; NULL: not there, and said so. */
struct edit *edit_golden(const char *name);
/* Loading it is an error that begins with the file's name and says `why`. */
void edit_refused(struct edit *g, const char *why);
void edit_accepted(struct edit *g);

#endif
