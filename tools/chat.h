/* The parts of `quoll chat`: the conversation and its file, the settings, the answer, the keyboard. */
#ifndef QUOLL_CHAT_H
#define QUOLL_CHAT_H

#include "tools/session.h"

#include <jansson.h>

/* ---- chat_text.c: text from outside ------------------------------------------------------------ */

/* A copy that is valid UTF-8 without NUL: what is not becomes U+FFFD. malloc'ed; NULL: out of memory. */
char *text_clean(const char *text, size_t len);
/* For a terminal: control characters other than \n and \t, which could move the cursor or worse, are
 * shown as pictures (U+2400 …) or U+FFFD. Whole characters only: what detok gives. As text_clean. */
char *text_for_terminal(const char *text, size_t len);

/* ---- chat_talk.c: the conversation ------------------------------------------------------------- */

struct talk {
    json_t *messages; /* array of {"role", "content"}; a system message can only be the first */
    size_t forgotten; /* messages after the system prompt that no longer fit the context */
};

int talk_init(struct talk *t); /* −1: out of memory */
void talk_free(struct talk *t);
int talk_add(struct talk *t, const char *role, const char *text, size_t len);
/* The system prompt; NULL: none. Setting "" removes it. */
const char *talk_system(const struct talk *t);
int talk_set_system(struct talk *t, const char *text);
size_t talk_turns(const struct talk *t); /* user messages */
/* Removes what follows the last user message (keep_question) or that one too; false: there is none. */
bool talk_undo(struct talk *t, bool keep_question);
void talk_clear(struct talk *t); /* the system prompt stays */
/* What the model gets to see: a new array; NULL: out of memory. */
json_t *talk_visible(const struct talk *t);
/* The oldest visible turn goes; false: only the last one is left. */
bool talk_forget(struct talk *t);

/* ---- chat_settings.c: what /set changes -------------------------------------------------------- */

struct settings {
    struct run_options run;
    int n_predict; /* tokens per answer; −1: until the model ends it */
    int thinking;  /* before an answer, of templates that can: 1, 0; −1: what is usual for the model */
};

/* Sets one by name; 0, or an exit code after printing why. */
int settings_set(struct settings *s, const char *name, const char *value);
void settings_print(const struct settings *s, FILE *f);
json_t *settings_to_json(const struct settings *s);
/* Values of an object, checked as /set does; −1: after printing why, s is half changed (use a copy). */
int settings_from_json(struct settings *s, json_t *object);

/* ---- chat_file.c: /save and /load -------------------------------------------------------------- */

/* Writes the chat to a temporary name, renamed when complete: a full disk loses nothing. */
int chat_save(const char *path, const struct talk *t, const struct settings *s, const char *model, char *err,
              size_t errlen);
/* Reads and checks a saved chat: a new *t, and s with the file's settings. On an error there is no *t and s
 * is as before. */
int chat_load(const char *path, struct talk *t, struct settings *s, char *err, size_t errlen);

/* ---- chat_answer.c: one answer ----------------------------------------------------------------- */

struct answerer {
    struct session *session;
    int32_t *held; /* the ids in the cache, room for n_ctx */
    size_t n_held;
    bool terminal; /* stdout shows to a person */
    /* about the last answer */
    size_t n_prompt, n_reused, n_generated;
    double prompt_seconds, generate_seconds;
};

enum answer_end {
    ANSWER_FAILED = -1, /* err says why; nothing was added to the conversation */
    ANSWER_ENDED,       /* the model ended it */
    ANSWER_LIMIT,       /* n_predict tokens */
    ANSWER_FULL,        /* the context holds no more of it */
    ANSWER_STOPPED,     /* Ctrl-C */
    ANSWER_NO_READER,   /* stdout does not take it: time to leave */
};

/* Answers the conversation's last message on stdout, as it comes, and adds the answer to it. */
enum answer_end answer(struct answerer *a, struct talk *t, int n_predict, char *err, size_t errlen);
void answerer_free(struct answerer *a);

/* ---- chat_input.c: lines ----------------------------------------------------------------------- */

enum input_kind {
    INPUT_LINE,
    INPUT_BLOCK,     /* between two """: never a command */
    INPUT_END,       /* end of file, Ctrl-D */
    INPUT_CANCELLED, /* Ctrl-C after something was typed, which is forgotten */
    INPUT_INTERRUPT, /* Ctrl-C */
    INPUT_FAILED,
};

struct input;
/* terminal: edit lines, with history; else read stdin as it is. NULL: out of memory. */
struct input *input_new(bool terminal, bool colour);
void input_free(struct input *in);
/* The next line or block: lent until the next call, NUL-terminated, valid UTF-8. */
enum input_kind input_next(struct input *in, const char **text, char *err, size_t errlen);

#endif
