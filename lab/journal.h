/* An output that takes long to make, so that it can be gone on with after the program was killed. While it is
 * being made, "OUT.part" is a folder that holds what there is of it and journal.json:
 *
 *   facts   what decides the result: the source, the method, its options. Only with the same facts it goes
 * on. bytes   of the growing file that are complete and on the disk layer   that a calibration text's rows
 * have gone through, −1: none; the rows are in rows.LAYER
 *
 * The journal is replaced as a whole, and only when all that it speaks of is on the disk. */
#ifndef QUOLL_JOURNAL_H
#define QUOLL_JOURNAL_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct journal;

/* Takes "path.part" for this process. With resume what an earlier one left there is gone on with. program:
 * its name and version, a fact too; kept until the end. −1: something was left there, and no resume; another
 * process has it; it is not such a folder; it cannot be made. */
int journal_open(struct journal **out, const char *path, const char *program, bool resume, char *err,
                 size_t errlen);
/* Removes the folder if nothing worth keeping is in it, or after journal_finish. NULL is fine. */
void journal_close(struct journal *j);

/* What decides the result (taken over), and the file in the folder that grows. −1: that which is gone on with
 * had another fact (named). */
int journal_begin(struct journal *j, json_t *facts, const char *file, char *err, size_t errlen);

const char *journal_folder(const struct journal *j);    /* "path.part" */
const char *journal_file_path(const struct journal *j); /* the growing file's */
uint64_t journal_bytes(const struct journal *j);        /* 0: it begins, and nothing is kept */
int journal_layer(const struct journal *j);
/* The rows that were kept with it (n floats). −1: they are not there. */
int journal_read_rows(const struct journal *j, float *rows, size_t n, char *err, size_t errlen);

/* So many bytes of the file are complete; the text has gone through this layer; rows: as they are now (NULL:
 * as they were, or not needed any more). All of it is on the disk when this returns 0; after −1 the journal
 * is what it was. */
int journal_keep(struct journal *j, uint64_t bytes, int layer, const float *rows, size_t n, char *err,
                 size_t errlen);
/* Whether the last journal_keep, or the opening, is long enough ago for another one: some seconds. */
bool journal_is_due(const struct journal *j);
/* The file has left the folder, or the folder got another name: nothing needs to be kept. */
void journal_finish(struct journal *j);

#endif
