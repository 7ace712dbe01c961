#include "tools/corpus.h"

#include "quant/err.h"

#include <sha2.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

_Static_assert(CORPUS_HASH_BYTES == SHA256_DIGEST_LENGTH, "SHA-256");

/* Bytes in front of the first that is not UTF-8. */
static size_t valid_utf8(const char *text, size_t len)
{
    for (size_t i = 0; i < len;) {
        utf8proc_int32_t c;
        utf8proc_ssize_t n =
            utf8proc_iterate((const utf8proc_uint8_t *)text + i, (utf8proc_ssize_t)(len - i), &c);
        if (n <= 0)
            return i;
        i += (size_t)n;
    }
    return len;
}

void corpus_hash(uint8_t hash[CORPUS_HASH_BYTES], const char *bytes, size_t n)
{
    SHA2_CTX sha;
    SHA256Init(&sha);
    SHA256Update(&sha, (const uint8_t *)bytes, n);
    SHA256Final(hash, &sha);
}

static int encode(const struct corpus *c, const struct tokenizer *t, int32_t **ids, size_t *n, char *err,
                  size_t errlen)
{
    return tokenizer_encode(t, c->text, c->len, ENCODE_BOS | (c->special ? ENCODE_SPECIAL : 0), ids, n, err,
                            errlen);
}

int corpus_read(struct corpus *c, const char *path, const struct tokenizer *t, bool special, char *err,
                size_t errlen)
{
    *c = (struct corpus){.special = special};
    if (read_file(path, &c->text, &c->len, err, errlen) != 0) {
        c->text = NULL;
        return -1;
    }
    size_t valid = valid_utf8(c->text, c->len);
    int rc;
    if (c->len == 0)
        rc = err_set(err, errlen, "%s: the file is empty", path);
    else if (valid < c->len)
        rc = err_set(err, errlen, "%s: not UTF-8 at byte %zu", path, valid);
    else
        rc = encode(c, t, &c->ids, &c->n, err, errlen);
    corpus_hash(c->hash, c->text, c->len);
    if (rc)
        corpus_free(c);
    return rc;
}

int corpus_read_for(struct corpus *c, const char *path, const struct weights *w, int32_t *bos, char *err,
                    size_t errlen)
{
    struct tokenizer *t;
    *c = (struct corpus){.ids = NULL};
    if (vocab_open(&t, w, err, errlen))
        return -1;
    if (bos)
        *bos = tokenizer_adds_bos(t) ? tokenizer_bos(t) : -1;
    int rc = corpus_read(c, path, t, false, err, errlen);
    tokenizer_free(t);
    return rc;
}

int corpus_is_same(const struct corpus *c, const struct tokenizer *t, char *err, size_t errlen)
{
    int32_t *ids;
    size_t n;
    if (encode(c, t, &ids, &n, err, errlen) != 0)
        return -1;
    bool same = n == c->n && memcmp(ids, c->ids, n * sizeof *ids) == 0;
    free(ids);
    return same;
}

void corpus_free(struct corpus *c)
{
    free(c->ids);
    free(c->text);
    *c = (struct corpus){.ids = NULL};
}

const char *hash_text(char text[HASH_TEXT_BYTES], const uint8_t hash[CORPUS_HASH_BYTES])
{
    for (size_t i = 0; i < CORPUS_HASH_BYTES; i++)
        (void)snprintf(text + 2 * i, 3, "%02x", hash[i]);
    return text;
}
