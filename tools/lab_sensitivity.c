#include "tools/corpus.h"
#include "tools/lab.h"
#include "tools/tools.h"

#include "lab/sensitivity.h"
#include "quant/err.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int save(const struct sensitivity *s, const char *path, char *err, size_t errlen)
{
    size_t n;
    const struct sensitivity_tensor *t = sensitivity_tensors(s, &n);
    json_t *all = json_array();
    char *temporary = NULL;
    int rc = all && asprintf(&temporary, "%s.tmp", path) > 0 ? 0 : err_set(err, errlen, "out of memory");
    for (size_t i = 0; i < n && rc == 0; i++)
        if (json_array_append_new(all, json_pack("{s:s, s:s, s:f}", "name", t[i].name, "type",
                                                 qtypes[t[i].probe].name, "kl", t[i].probe_kl)))
            rc = err_set(err, errlen, "out of memory");
    if (rc == 0 && (json_dump_file(all, temporary, JSON_INDENT(1) | JSON_REAL_PRECISION(8)) != 0 ||
                    rename(temporary, path) != 0)) {
        rc = err_set(err, errlen, "%s: %s", path, strerror(errno));
        (void)remove(temporary);
    }
    free(temporary);
    json_decref(all);
    return rc;
}

static int measure(const char *path, const char *model, const char *file, int n_threads, char *err,
                   size_t errlen)
{
    struct weights *w;
    struct corpus text;
    int32_t bos;
    struct sensitivity *s = NULL;
    if (weights_open(&w, model, NULL, err, errlen))
        return -1;
    int rc = corpus_read_for(&text, file, w, &bos, err, errlen);
    if (rc == 0) {
        const struct sensitivity_options o = {.ids = text.ids,
                                              .n_ids = (int64_t)text.n,
                                              .bos = bos,
                                              .n_threads = n_threads,
                                              .ops = ops_cpu(isa_best()),
                                              .stop = tool_interrupted};
        rc = sensitivity_open(&s, w, &o, err, errlen);
    }
    if (rc == 0)
        rc = save(s, path, err, errlen);
    sensitivity_close(s);
    corpus_free(&text);
    weights_close(w);
    return rc ? -1 : 0;
}

int lab_sensitivity(const char *dir, const char *model, const char *text, int n_threads, char *err,
                    size_t errlen)
{
    char *path;
    if (asprintf(&path, "%s/sensitivity.json", dir) < 0)
        return err_set(err, errlen, "out of memory");
    int rc = access(path, F_OK) == 0 ? 0 : measure(path, model, text, n_threads, err, errlen);
    free(path);
    return rc;
}
