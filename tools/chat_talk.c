/* The conversation: messages as the chat template gets them, and how many of them it no longer gets. */
#include "tools/chat.h"

#include <stdlib.h>
#include <string.h>

int talk_init(struct talk *t)
{
    *t = (struct talk){.messages = json_array()};
    return t->messages ? 0 : -1;
}

void talk_free(struct talk *t)
{
    json_decref(t->messages);
    t->messages = NULL;
}

static const char *role_of(const struct talk *t, size_t i)
{
    const char *role = json_string_value(json_object_get(json_array_get(t->messages, i), "role"));
    return role ? role : "";
}

static bool is_user(const struct talk *t, size_t i)
{
    return strcmp(role_of(t, i), "user") == 0;
}

/* 1 where the first message is the system prompt: where the turns begin. */
static size_t first_turn(const struct talk *t)
{
    return strcmp(role_of(t, 0), "system") == 0;
}

static json_t *message(const char *role, const char *text, size_t len)
{
    char *clean = text_clean(text, len);
    json_t *m = clean ? json_pack("{s:s, s:s}", "role", role, "content", clean) : NULL;
    free(clean);
    return m;
}

int talk_add(struct talk *t, const char *role, const char *text, size_t len)
{
    return json_array_append_new(t->messages, message(role, text, len));
}

const char *talk_system(const struct talk *t)
{
    if (first_turn(t) == 0)
        return NULL;
    return json_string_value(json_object_get(json_array_get(t->messages, 0), "content"));
}

int talk_set_system(struct talk *t, const char *text)
{
    json_t *m = NULL;
    if (text[0] && !(m = message("system", text, strlen(text))))
        return -1;
    if (first_turn(t) == 1)
        json_array_remove(t->messages, 0);
    return m ? json_array_insert_new(t->messages, 0, m) : 0;
}

size_t talk_turns(const struct talk *t)
{
    size_t n = 0;
    for (size_t i = 0; i < json_array_size(t->messages); i++)
        n += is_user(t, i);
    return n;
}

bool talk_undo(struct talk *t, bool keep_question)
{
    size_t n = json_array_size(t->messages), last = n;
    while (last > 0 && !is_user(t, last - 1))
        last--;
    if (last == 0)
        return false;
    size_t keep = keep_question ? last : last - 1;
    while (n > keep)
        json_array_remove(t->messages, --n);
    size_t turns = n - first_turn(t);
    if (t->forgotten > turns)
        t->forgotten = turns;
    return true;
}

void talk_clear(struct talk *t)
{
    size_t keep = first_turn(t);
    for (size_t n = json_array_size(t->messages); n > keep;)
        json_array_remove(t->messages, --n);
    t->forgotten = 0;
}

json_t *talk_visible(const struct talk *t)
{
    size_t begin = first_turn(t);
    json_t *visible = json_array();
    for (size_t i = 0; visible && i < json_array_size(t->messages); i++) {
        if (i >= begin && i < begin + t->forgotten)
            continue;
        if (json_array_append(visible, json_array_get(t->messages, i)) != 0) {
            json_decref(visible);
            visible = NULL;
        }
    }
    return visible;
}

bool talk_forget(struct talk *t)
{
    size_t begin = first_turn(t);
    for (size_t i = begin + t->forgotten + 1; i < json_array_size(t->messages); i++) {
        if (is_user(t, i)) {
            t->forgotten = i - begin;
            return true;
        }
    }
    return false;
}
