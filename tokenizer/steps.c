/* The steps of a vocabulary made ready: their texts kept, patterns compiled, maps checked. */
#include "tokenizer/internal.h"

#include <stdlib.h>

static int step_init(struct step *s, const struct vocab_step *from, const char *name, char *err,
                     size_t errlen)
{
    s->how = *from;
    s->how.pattern = NULL;
    s->how.content = NULL;
    if (from->kind == STEP_SPLIT || from->kind == STEP_REPLACE) {
        if (pattern_init(&s->pattern, from, name, err, errlen) < 0)
            return -1;
    }
    if (!from->content)
        return 0;
    if (from->kind == STEP_PRECOMPILED || from->kind == STEP_SENTENCEPIECE)
        return charsmap_init(&s->map, from->content, from->content_len, name, err, errlen);
    s->content = malloc(from->content_len + 1);
    if (!s->content)
        return err_set(err, errlen, "%s: out of memory", name);
    memcpy(s->content, from->content, from->content_len);
    s->how.content = s->content;
    return 0;
}

int steps_init(struct steps *s, const struct vocab_step *from, size_t n, const char *name, char *err,
               size_t errlen)
{
    *s = (struct steps){0};
    s->v = calloc(n + 1, sizeof *s->v);
    if (!s->v)
        return err_set(err, errlen, "%s: out of memory", name);
    for (; s->n < n; s->n++) {
        bool bytes_will_do = from[s->n].kind == STEP_SENTENCEPIECE || from[s->n].kind == STEP_BYTES;
        s->need_utf8 = s->need_utf8 || !bytes_will_do;
        if (step_init(&s->v[s->n], &from[s->n], name, err, errlen) < 0) {
            s->n++;
            return -1;
        }
    }
    return 0;
}

void steps_free(struct steps *s)
{
    for (size_t i = 0; i < s->n; i++) {
        pattern_free(&s->v[i].pattern);
        charsmap_free(&s->v[i].map);
        free(s->v[i].content);
    }
    free(s->v);
}
