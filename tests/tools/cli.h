/* Runs the built program ($QUOLL_BIN, else ./quoll) as a user would. */
#ifndef QUOLL_TEST_CLI_H
#define QUOLL_TEST_CLI_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct cli {
    int code;        /* exit code; −1: ended by a signal */
    char *out, *err; /* what it wrote, NUL past the end */
    size_t out_len, err_len;
};

enum { CLI_MAX_ARGS = 40 };

/* Runs quoll with these arguments (NULL at the end) and input on stdin (NULL: /dev/null). Fails the
 * test when it cannot be run at all. */
struct cli cli_run(const char *input, const char *const *args);
#define CLI(input, ...) cli_run(input, (const char *const[]){__VA_ARGS__, NULL})

/* Runs a script of sh; $Q is the program, $1 … the further arguments. */
struct cli cli_shell(const char *script, const char *const *args);
#define CLI_SHELL(script, ...) cli_shell(script, (const char *const[]){__VA_ARGS__, NULL})

void cli_free(struct cli *c);

/* Fails the test unless the code is this, and unless a failure (1 or 2) said one line on stderr that
 * begins "quoll: " and holds text. Frees c. */
void cli_expect(struct cli c, int code, const char *text);

/* The JSON object that a run that succeeds prints; and a number in it, which must be there. */
json_t *cli_json(const char *const *args);
double cli_number(const json_t *object, const char *key);

/* Writes a text of some hundred tokens. */
void cli_write_text(const char *path);

/* The tiny model that the tests of commands run; NULL after saying that it was skipped. */
const char *cli_model(void);

#endif
