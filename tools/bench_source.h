/* What `bench` measures: model files, and shapes with weights made up. */
#ifndef QUOLL_BENCH_SOURCE_H
#define QUOLL_BENCH_SOURCE_H

#include "model/shape.h"
#include "tools/session.h"

struct bench_source {
    const char *name; /* as typed: a path, or a shape's "NAME:TYPE"; NULL: the default model */
    bool is_shape;
    struct shape_options shape;
    char *config_path; /* shape.config_path */
};

/* In the order they were typed. */
struct bench_sources {
    struct bench_source *item;
    size_t n;
};

/* For option rows: --shape's value is a shape, any other option's a path. */
int bench_source_add(void *bench_sources, const char *option, const char *value);
/* 0, or an exit code after printing which option needs a file where there are only shapes. */
int bench_sources_check(const struct bench_sources *l, const struct run_options *o);
void bench_sources_free(struct bench_sources *l);

/* session_open, whatever the source is. */
int bench_source_open(struct session *s, const struct bench_source *b, const struct run_options *o, char *err,
                      size_t errlen);

#endif
