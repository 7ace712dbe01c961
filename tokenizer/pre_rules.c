/* Words for byte-level BPE: merges never cross their borders. Each family of models cuts text by its own
 * regular expressions, published as the pre_tokenizer of its tokenizer.json; GGUF files name them in
 * tokenizer.ggml.pre. */
#include "tokenizer/internal.h"

/* White space as Unicode has it: PCRE2's \s also takes U+180E, the published tokenizers' does not. */
#define WS    "\\t-\\r \\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define S     "[" WS "]"
#define TAIL  "|" S "+(?![^" WS "])|" S "+" /* spaces, the last one left for the word behind them */
#define APOS  "'s|'t|'re|'ve|'m|'ll|'d"
#define GPT2  APOS "| ?\\p{L}+| ?\\p{N}+| ?[^" WS "\\p{L}\\p{N}]+" TAIL
#define LINES "|" S "*[\\r\\n]+" TAIL
/* The cl100k form: digits, and what counts as part of a word beside letters. */
#define CL100K(digits, mark)                                                                       \
    "(?i:" APOS ")|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}" mark "]+|" digits "| ?[^" WS "\\p{L}\\p{N}" mark \
    "]+[\\r\\n]*" LINES
/* The o200k form: a word is upper case, then lower case. */
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define O200K(digits, apos)                                                                              \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" apos "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*" apos \
    "|" digits "| ?[^" WS "\\p{L}\\p{N}]+[\\r\\n/]*" LINES
#define CJK_DEEPSEEK "[\\x{800}-\\x{9fa5}\\x{ac00}-\\x{d7ff}]+"

/* DeepSeek LLM lists the cased letters of an older Unicode one by one. */
#define CASED_DEEPSEEK                                                                                     \
    "[A-Za-z\\x{b5}\\x{c0}-\\x{d6}\\x{d8}-\\x{f6}\\x{f8}-\\x{1ba}\\x{1bc}-\\x{1bf}\\x{1c4}-\\x{293}"       \
    "\\x{295}-\\x{2af}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37b}-\\x{37d}\\x{37f}\\x{386}\\x{388}-\\x{38a}" \
    "\\x{38c}\\x{38e}-\\x{3a1}\\x{3a3}-\\x{3f5}\\x{3f7}-\\x{481}\\x{48a}-\\x{52f}\\x{531}-\\x{556}"        \
    "\\x{10a0}-\\x{10c5}\\x{13a0}-\\x{13f5}\\x{13f8}-\\x{13fd}\\x{1c90}-\\x{1cba}\\x{1cbd}-\\x{1cbf}"      \
    "\\x{1d00}-\\x{1d2b}\\x{1d6b}-\\x{1d77}\\x{1d79}-\\x{1d9a}\\x{1e00}-\\x{1f15}\\x{1f18}-\\x{1f1d}"      \
    "\\x{1f20}-\\x{1f45}\\x{1f48}-\\x{1f4d}\\x{1f50}-\\x{1f57}\\x{1f59}\\x{1f5b}\\x{1f5d}\\x{1f5f}-\\x{"   \
    "1f7d}"                                                                                                \
    "\\x{1f80}-\\x{1fb4}\\x{1fb6}-\\x{1fbc}\\x{1fbe}\\x{1fc2}-\\x{1fc4}\\x{1fc6}-\\x{1fcc}\\x{1fd0}-\\x{"  \
    "1fd3}"                                                                                                \
    "\\x{1fd6}-\\x{1fdb}\\x{1fe0}-\\x{1fec}\\x{1ff2}-\\x{1ff4}\\x{1ff6}-\\x{1ffc}\\x{2102}\\x{2107}"       \
    "\\x{210a}-\\x{2113}\\x{2115}\\x{2119}-\\x{211d}\\x{2124}\\x{2126}\\x{2128}\\x{212a}-\\x{212d}"        \
    "\\x{212f}-\\x{2134}\\x{2139}\\x{213c}-\\x{213f}\\x{2145}-\\x{2149}\\x{214e}\\x{2183}\\x{2184}"        \
    "\\x{2c00}-\\x{2c7b}\\x{2c7e}-\\x{2ce4}\\x{2ceb}-\\x{2cee}\\x{2cf2}\\x{2cf3}\\x{a640}-\\x{a66d}"       \
    "\\x{a680}-\\x{a69b}\\x{a722}-\\x{a76f}\\x{a771}-\\x{a787}\\x{a78b}-\\x{a78e}\\x{ab70}-\\x{abbf}"      \
    "\\x{fb00}-\\x{fb06}\\x{fb13}-\\x{fb17}\\x{ff21}-\\x{ff3a}\\x{ff41}-\\x{ff5a}\\x{10400}-\\x{1044f}"    \
    "\\x{104b0}-\\x{104d3}\\x{104d8}-\\x{104fb}\\x{10c80}-\\x{10cb2}\\x{10cc0}-\\x{10cf2}"                 \
    "\\x{118a0}-\\x{118df}\\x{1e900}-\\x{1e943}]"

/* Steps follow each other: what one matches is a word of its own, the next cuts every word further. */
static const struct pre_rule rules[] = {
    {.names = "gpt-2 gpt2 default phi-2 jais trillion granite-docling roberta-bpe jina-es jina-de "
              "jina-v2-es jina-v2-de jina-v2-code",
     .step = {GPT2}},
    {.names = "mpt olmo", .step = {GPT2}, .nfc = true},
    {.names = "starcoder smollm refact command-r codeshell exaone minerva-7b", .step = {"\\p{N}", GPT2}},
    {.names = "llama-bpe llama3 llama-v3",
     .step = {CL100K("\\p{N}{1,3}", "")},
     .whole_words = true,
     .add_bos = true},
    {.names = "dbrx smaug-bpe chatglm-bpe glm4", .step = {CL100K("\\p{N}{1,3}", "")}},
    {.names = "qwen2 deepseek-r1-qwen megrez", .step = {CL100K("\\p{N}", "")}, .nfc = true},
    {.names = "stablelm2", .step = {CL100K("\\p{N}", "")}},
    {.names = "qwen35", .step = {CL100K("\\p{N}", "\\p{M}")}, .nfc = true},
    {.names = "gpt-4o llama4", .step = {O200K("\\p{N}{1,3}", "(?i:" APOS ")?")}},
    {.names = "tekken", .step = {O200K("\\p{N}", "")}, .whole_words = true, .add_bos = true},
    {.names = "falcon", .step = {"[\\p{P}$+<=>^~|`]+", GPT2, "[0-9]+", "[0-9][0-9][0-9]"}},
    {.names = "deepseek-coder", .step = {"[\\r\\n]", S "?\\p{L}+", S "?\\p{P}+", CJK_DEEPSEEK, "\\p{N}"}},
    {.names = "deepseek-llm",
     .step = {"[\\r\\n]", S "?" CASED_DEEPSEEK "+",
              S "?[!-/:-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}\\x{3000}-\\x{3002}]+",
              /* published as \s+$; this way a long run of spaces is not tried from each of them */
              "(?<!" S ")" S "++\\z", CJK_DEEPSEEK, "\\p{N}"}},
    {.names = "deepseek-v3 hunyuan-dense",
     .step = {"\\p{N}{1,3}", "[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{30ff}]+",
              "[!-/:-@\\[-`{-~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| "
              "?[\\p{P}\\p{S}]+[\\r\\n]*" LINES}},
    {.names = "bloom poro-chat gpt3-finnish",
     .step = {" ?[^(" WS "|.,!?\\x{2026}\\x{3002}\\x{ff0c}\\x{3001}\\x{964}\\x{6d4}\\x{60c})]+"}},
    {.names = "viking",
     .step = {" ?[^(" WS "|.,!?\\x{2026}\\x{3002}\\x{ff0c}\\x{3001}\\x{964}\\x{6d4}\\x{60c})]+", "\\p{N}"}},
};

const struct pre_rule *pre_rule_find(const char *name)
{
    size_t len = strlen(name);
    if (len == 0 || strchr(name, ' '))
        return NULL;
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        for (const char *p = rules[i].names; (p = strstr(p, name)); p += len)
            if ((p == rules[i].names || p[-1] == ' ') && (p[len] == ' ' || p[len] == 0))
                return &rules[i];
    return NULL;
}

const struct pre_rule *pre_rule_at(size_t i)
{
    return i < sizeof rules / sizeof *rules ? &rules[i] : NULL;
}

size_t pre_rule_steps(const struct pre_rule *rule, struct vocab_step *s)
{
    size_t n = 0;
    for (; n < PRE_MAX_STEPS && rule->step[n]; n++)
        s[n] = (struct vocab_step){
            .kind = STEP_SPLIT, .pattern = rule->step[n], .pattern_len = strlen(rule->step[n]), .pcre = true};
    s[n] = (struct vocab_step){.kind = STEP_BYTES};
    return n + 1;
}

/* \w of Oniguruma: Unicode's Alphabetic, marks, digits, connectors (the circled and squared letters are
 * Alphabetic without being letters), and the other numbers of Latin-1. */
#define WORD WORD_OF_RUST "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"
#define NOT_WS                                                                                              \
    "\\x{0}-\\x{8}\\x{e}-\\x{1f}!-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}\\x{200b}-\\x{" \
    "2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{10ffff}"

const char *class_ranges(char letter)
{
    switch (letter) {
    case 's':
        return WS;
    case 'S':
        return NOT_WS;
    case 'w':
        return WORD;
    case 'W':
        return "^" WORD; /* not inside another class */
    case 'h':
        return "0-9a-fA-F";
    default:
        return NULL;
    }
}
