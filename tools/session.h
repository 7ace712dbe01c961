/* A model opened for running: everything that `chat`, `run`, `bench` and `logits` need, from their
 * options, in one call. */
#ifndef QUOLL_SESSION_H
#define QUOLL_SESSION_H

#include "tools/chat_prompt.h"
#include "tools/options.h"

enum session_needs {
    SESSION_TEXT = 1,    /* a tokenizer; without this flag it is opened where the file has one */
    SESSION_SAMPLER = 2, /* else sampler is NULL */
    SESSION_CHAT = 4,    /* the file's chat template, else chat is NULL */
};

/* Owns all it points to; what is not there is NULL. */
struct session {
    char *path;
    struct weights *weights; /* NULL once the model is packed: metadata are read in session_open */
    struct tokenizer *tokenizer;
    struct chat_prompt *chat;
    const struct ops *ops; /* the device's */
    struct model *model;
    const struct config *config; /* the model's */
    struct cache *cache;         /* one sequence (or as many as were asked for) of n_ctx positions */
    struct context *context;
    struct sampler *sampler;
    int64_t n_ctx;
    int n_batch;
    enum qtype type_k, type_v;
    enum qtype main_type; /* of most of the weights' bytes */
    uint64_t tensor_bytes;
    double load_seconds;
};

/* path: the model file; the rest as in o. −1: nothing is open, err holds one line. */
int session_open(struct session *s, const char *path, const struct run_options *o, unsigned needs, char *err,
                 size_t errlen);
/* The same of weights that are no file's and have no tokenizer, known by `path`; they are the session's then,
 * on error too. */
int session_open_weights(struct session *s, const char *path, struct weights *w, const struct run_options *o,
                         unsigned needs, char *err, size_t errlen);
void session_close(struct session *s); /* a zeroed one is fine */

/* A new sampler by o's options, its random state at the seed; −1: the old one stays. */
int session_set_sampler(struct session *s, const struct run_options *o, char *err, size_t errlen);

/* Changes the number of threads, of one token and of prompts alike. −1: the session can only be closed. */
int session_set_threads(struct session *s, int n_threads, const struct run_options *o, char *err,
                        size_t errlen);

enum { SESSION_STOPPED = 1 };

/* Evaluates n ids after those that the cache holds, a batch at a time; *logits is the last one's row
 * (lent until the next call; NULL where n is 0). Between batches Ctrl-C counts: SESSION_STOPPED. An error
 * is −1; what was evaluated before either stays in the cache. */
int session_eval(struct session *s, const int32_t *ids, size_t n, const float **logits, char *err,
                 size_t errlen);
/* The same of tokens of several sequences: seq[i] is that of ids[i]. */
int session_eval_seqs(struct session *s, const int32_t *ids, const int32_t *seq, size_t n,
                      const float **logits, char *err, size_t errlen);

#endif
