/* quoll tokenize: text to ids, ids to text, with a vocabulary alone. */
#include "quant/err.h"
#include "tools/options.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct tokenize {
    const char *model, *prompt, *file;
    bool no_bos, no_special, json, pieces, detok, jsonl;
    struct tokenizer *tokenizer;
    char err[512];
};

static unsigned encode_flags(const struct tokenize *c)
{
    return (c->no_bos ? 0 : ENCODE_BOS) | (c->no_special ? 0 : ENCODE_SPECIAL);
}

/* A token's text as one JSON string: bytes that are no character are U+FFFD. */
static json_t *piece_json(const struct tokenizer *t, int32_t id)
{
    size_t len;
    const char *piece = tokenizer_piece(t, id, true, &len);
    json_t *s = json_stringn(piece, len);
    if (s)
        return s;
    char *valid = malloc(3 * len + 1);
    size_t n = 0;
    for (size_t i = 0; valid && i < len;) {
        size_t k = 1;
        while (k <= 4 && k <= len - i && !(s = json_stringn(piece + i, k)))
            k++;
        json_decref(s);
        if (s) {
            memcpy(valid + n, piece + i, k);
            n += k;
            i += k;
        } else {
            memcpy(valid + n, "\xef\xbf\xbd", 3);
            n += 3;
            i++;
        }
        s = NULL;
    }
    s = valid ? json_stringn(valid, n) : NULL;
    free(valid);
    return s;
}

static json_t *ids_json(const int32_t *ids, size_t n)
{
    json_t *a = json_array();
    for (size_t i = 0; a && i < n; i++)
        if (json_array_append_new(a, json_integer(ids[i])) < 0) {
            json_decref(a);
            a = NULL;
        }
    return a;
}

/* Prints and drops v. Output fails in one place, tool_finish. */
static int print_json(json_t *v, const char *end)
{
    int rc = v ? json_dumpf(v, stdout, JSON_COMPACT | JSON_ENCODE_ANY) : -1;
    json_decref(v);
    if (rc < 0 && !ferror(stdout))
        return tool_error("out of memory");
    fputs(end, stdout);
    return EXIT_OK;
}

static int print_ids(const struct tokenize *c, const int32_t *ids, size_t n)
{
    if (!c->pieces) {
        if (c->json)
            return print_json(ids_json(ids, n), "\n");
        for (size_t i = 0; i < n; i++)
            printf("%s%" PRId32, i ? " " : "", ids[i]);
        putchar('\n');
        return EXIT_OK;
    }
    if (c->json)
        putchar('[');
    for (size_t i = 0; i < n; i++) {
        if (c->json)
            printf("%s{\"id\":%" PRId32 ",\"piece\":", i ? "," : "", ids[i]);
        else
            printf("%" PRId32 "\t", ids[i]);
        int code = print_json(piece_json(c->tokenizer, ids[i]), c->json ? "}" : "\n");
        if (code != EXIT_OK)
            return code;
    }
    if (c->json)
        fputs("]\n", stdout);
    return EXIT_OK;
}

static int encode_text(struct tokenize *c, const char *text, size_t len)
{
    int32_t *ids;
    size_t n;
    if (tokenizer_encode(c->tokenizer, text, len, encode_flags(c), &ids, &n, c->err, sizeof c->err) < 0)
        return tool_error("%s", c->err);
    int code = print_ids(c, ids, n);
    free(ids);
    return code;
}

/* Ids as text: numbers with spaces, commas or the brackets of a JSON array between them. */
static int decode_ids(struct tokenize *c, const char *text, size_t len)
{
    int32_t n_tokens = tokenizer_n_tokens(c->tokenizer);
    struct detok *d = detok_new(c->tokenizer, !c->no_special);
    if (!d)
        return tool_error("out of memory");
    int code = EXIT_OK;
    for (size_t i = 0; i < len && code == EXIT_OK;) {
        if (strchr(" \t\r\n,[]", text[i]) && text[i]) {
            i++;
            continue;
        }
        int64_t id = 0;
        size_t from = i;
        while (i < len && text[i] >= '0' && text[i] <= '9' && id < n_tokens)
            id = id * 10 + (text[i++] - '0');
        bool ends = i == len || (strchr(" \t\r\n,[]", text[i]) && text[i]);
        if (id >= n_tokens) {
            code = tool_error("--detok: the id at byte %zu is outside the vocabulary (0 to %" PRId32 ")",
                              from, n_tokens - 1);
        } else if (i == from || !ends) {
            code = tool_error("--detok: no token id at byte %zu of the input", from);
        } else {
            size_t n;
            const char *out = detok_push(d, (int32_t)id, &n);
            fwrite(out, 1, n, stdout);
        }
    }
    if (code == EXIT_OK) {
        size_t n;
        const char *out = detok_flush(d, &n);
        fwrite(out, 1, n, stdout);
    }
    detok_free(d);
    return code;
}

/* "c328" → bytes, malloc'ed; NULL: no hexadecimal. */
static char *from_hex(const char *hex, size_t *len)
{
    static const char digits[] = "0123456789abcdefABCDEF";
    size_t n = strlen(hex);
    char *bytes = n % 2 == 0 ? malloc(n / 2 + 1) : NULL;
    if (!bytes || strspn(hex, digits) != n) {
        free(bytes);
        return NULL;
    }
    for (size_t i = 0; i < n / 2; i++) {
        char pair[3] = {hex[2 * i], hex[2 * i + 1], '\0'};
        bytes[i] = (char)strtol(pair, NULL, 16);
    }
    *len = n / 2;
    return bytes;
}

static json_t *encode_json(struct tokenize *c, const char *text, size_t len, unsigned flags)
{
    int32_t *ids;
    size_t n;
    if (tokenizer_encode(c->tokenizer, text, len, flags, &ids, &n, c->err, sizeof c->err) < 0)
        return NULL;
    json_t *a = ids_json(ids, n);
    free(ids);
    return a;
}

/* {"id":…,"text":…} or {"id":…,"hex":…} → both kinds of ids. */
static int jsonl_line(struct tokenize *c, const char *line, size_t len, size_t number)
{
    json_error_t fault;
    json_t *in = json_loadb(line, len, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &fault);
    if (!in)
        return tool_error("--jsonl: line %zu: %s", number, fault.text);
    const json_t *text = json_object_get(in, "text");
    const char *hex = json_string_value(json_object_get(in, "hex"));
    const char *bytes = json_string_value(text);
    size_t n = json_string_length(text);
    char *unhexed = NULL;
    int code = EXIT_OK;
    if (!bytes && hex)
        bytes = unhexed = from_hex(hex, &n);
    if (!bytes) {
        code = tool_error("--jsonl: line %zu: neither a \"text\" nor a \"hex\" of bytes", number);
    } else {
        c->err[0] = '\0';
        json_t *plain = encode_json(c, bytes, n, 0);
        json_t *special =
            plain ? encode_json(c, bytes, n, ENCODE_SPECIAL | (encode_flags(c) & ENCODE_BOS)) : NULL;
        json_t *id = json_object_get(in, "id");
        json_t *out = special ? json_pack("{s:O?,s:o,s:o}", "id", id ? id : json_null(), "ids_plain", plain,
                                          "ids_special", special)
                              : NULL;
        if (!special) {
            json_decref(plain);
            code = tool_error("--jsonl: line %zu: %s", number, c->err[0] ? c->err : "out of memory");
        } else {
            code = print_json(out, "\n");
        }
    }
    free(unhexed);
    json_decref(in);
    return code;
}

static int jsonl(struct tokenize *c, const char *text, size_t len)
{
    size_t number = 1;
    for (size_t i = 0; i < len; number++) {
        const char *end = memchr(text + i, '\n', len - i);
        size_t n = end ? (size_t)(end - text) - i : len - i;
        if (strspn(text + i, " \t\r") < n) {
            int code = jsonl_line(c, text + i, n, number);
            if (code != EXIT_OK)
                return code;
        }
        i += n + 1;
    }
    return EXIT_OK;
}

static int tokenize(struct tokenize *c)
{
    const char *path = model_path(c->model, c->err, sizeof c->err);
    if (!path || vocab_open_path(&c->tokenizer, path, c->err, sizeof c->err) != 0)
        return tool_error("%s", c->err);
    if (tokenizer_warning(c->tokenizer))
        tool_note(NOTE_USUAL, "quoll: warning: %s\n", tokenizer_warning(c->tokenizer));
    char *text = NULL;
    size_t len = c->prompt ? strlen(c->prompt) : 0;
    if (!c->prompt && read_file(c->file ? c->file : "-", &text, &len, c->err, sizeof c->err) < 0)
        return tool_error("%s", c->err);
    const char *input = c->prompt ? c->prompt : text;
    int code = c->jsonl   ? jsonl(c, input, len)
               : c->detok ? decode_ids(c, input, len)
                          : encode_text(c, input, len);
    free(text);
    return code;
}

int cmd_tokenize(int argc, char **argv)
{
    struct tokenize c = {0};
    const struct option_row rows[] = {
        OPTION_STRING_ROW("model", 'm', &c.model, "PATH", "a model, its folder or its vocabulary file"),
        OPTION_STRING_ROW("prompt", 'p', &c.prompt, "TEXT", "the input"),
        OPTION_STRING_ROW("file", 'f', &c.file, "FILE",
                          "read the input from a file (default: standard input)"),
        OPTION_FLAG_ROW("no-bos", 0, &c.no_bos, "do not add what the model puts in front"),
        OPTION_FLAG_ROW("no-special", 0, &c.no_special,
                        "text that looks like a special token is plain text; with --detok: leave them out"),
        OPTION_FLAG_ROW("json", 0, &c.json, "print an array"),
        OPTION_FLAG_ROW("pieces", 0, &c.pieces, "show each token's text"),
        OPTION_FLAG_ROW("detok", 0, &c.detok, "turn ids back into bytes"),
        OPTION_FLAG_ROW("jsonl", 0, &c.jsonl,
                        "read lines {\"id\":…,\"text\":…} or {\"id\":…,\"hex\":…}, write their ids"),
    };
    struct option_set set = {
        .usage = "quoll tokenize [-m MODEL] [-p TEXT | -f FILE] [options]",
        .about = "Text to token ids, one line, and back.",
        .own = rows,
        .n_own = sizeof rows / sizeof rows[0],
    };
    int code = options_parse(&set, argc, argv);
    if (code != OPTIONS_GO)
        return code;
    if (c.prompt && c.file)
        return usage_error("tokenize: -p and -f exclude each other");
    if (c.jsonl + c.detok + (c.json || c.pieces) > 1)
        return usage_error("tokenize: --jsonl, --detok and --json/--pieces exclude each other");
    code = tokenize(&c);
    tokenizer_free(c.tokenizer);
    return code;
}
