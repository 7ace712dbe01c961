/* Prompt formats of models that came before chat templates did, written as templates: what their own Python
 * code puts together (chat() and build_prompt() of THUDM's models, generation.py of Meta's LLaMA 2). */
#include "tools/chat_prompt.h"

#include <string.h>

/* The first question of a conversation is sent bare. [gMASK]<sop> ends every prompt. */
static const char chatglm1[] =
    "{%- set ns = namespace(i=0) -%}"
    "{%- set users = messages | selectattr('role', 'equalto', 'user') | list -%}"
    "{%- for m in messages -%}"
    "{%- if m.role == 'system' -%}{{ m.content ~ '\\n' }}"
    "{%- elif m.role == 'user' -%}"
    "{%- if users | length == 1 -%}{{ m.content }}"
    "{%- else -%}{{ '[Round ' ~ ns.i ~ ']\\n问：' ~ m.content ~ '\\n答：' }}{%- endif -%}"
    "{%- elif m.role == 'assistant' -%}{{ m.content ~ '\\n' }}{%- set ns.i = ns.i + 1 -%}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '[gMASK]<sop>' }}{%- endif -%}";

static const char chatglm2[] =
    "{%- set ns = namespace(i=1) -%}{{ '[gMASK]sop' }}"
    "{%- for m in messages -%}"
    "{%- if m.role == 'system' -%}{{ m.content ~ '\\n\\n' }}"
    "{%- elif m.role == 'user' -%}{{ '[Round ' ~ ns.i ~ ']\\n\\n问：' ~ m.content ~ '\\n\\n答：' }}"
    "{%- elif m.role == 'assistant' -%}{{ m.content ~ '\\n\\n' }}{%- set ns.i = ns.i + 1 -%}"
    "{%- endif -%}"
    "{%- endfor -%}";

static const char chatglm3[] =
    "{{ '[gMASK]sop' }}"
    "{%- for m in messages -%}{{ '<|' ~ m.role ~ '|>\\n ' ~ m.content }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|assistant|>' }}{%- endif -%}";

static const char glm4[] =
    "{{ '[gMASK]<sop>' }}"
    "{%- for m in messages -%}"
    "{{ '<|' ~ ('observation' if m.role == 'tool' else m.role) ~ '|>\\n' ~ m.content }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|assistant|>\\n' }}{%- endif -%}";

static const char llama2[] =
    "{%- if messages[0]['role'] == 'system' -%}"
    "{%- set sys = '<<SYS>>\\n' ~ messages[0]['content'] ~ '\\n<</SYS>>\\n\\n' -%}"
    "{%- set talk = messages[1:] -%}"
    "{%- else -%}{%- set sys = '' -%}{%- set talk = messages -%}{%- endif -%}"
    "{%- for m in talk -%}"
    "{%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) -%}"
    "{{ raise_exception('Roles must alternate user and assistant') }}"
    "{%- endif -%}"
    "{%- if m['role'] == 'user' -%}"
    "{{ bos_token ~ '[INST] ' ~ (sys if loop.first else '') ~ m['content'].strip() ~ ' [/INST]' }}"
    "{%- else -%}{{ ' ' ~ m['content'].strip() ~ ' ' ~ eos_token }}{%- endif -%}"
    "{%- endfor -%}";

/* A row is taken when the vocabulary has all its tokens; the first such one. */
static const struct {
    const char *tokens[3], *name, *source;
} builtin[] = {
    {{"<|blank_2|>", "[gMASK]", "<sop>"}, "ChatGLM-6B's prompt", chatglm1},
    {{"<|user|>", "[gMASK]", "<sop>"}, "GLM-4's prompt", glm4},
    {{"<|user|>", "[gMASK]", "sop"}, "ChatGLM3's prompt", chatglm3},
    {{"[gMASK]", "[sMASK]", "sop"}, "ChatGLM2's prompt", chatglm2},
};

const char *chat_builtin(const struct tokenizer *t, const char *architecture, const char **source)
{
    for (size_t i = 0; i < sizeof builtin / sizeof *builtin; i++) {
        bool all = true;
        for (size_t k = 0; k < 3; k++)
            all = all && tokenizer_find(t, builtin[i].tokens[k], strlen(builtin[i].tokens[k])) >= 0;
        if (all) {
            *source = builtin[i].source;
            return builtin[i].name;
        }
    }
    /* LLaMA 2's vocabulary, and that of those who trained on with it */
    bool is_llama2 = strcmp(architecture, "llama") == 0 && tokenizer_n_tokens(t) >= 32000 &&
                     tokenizer_n_tokens(t) < 32064 && tokenizer_find(t, "<0x0A>", 6) == 13 &&
                     tokenizer_bos(t) == 1;
    *source = llama2;
    return is_llama2 ? "LLaMA 2's prompt" : NULL;
}
