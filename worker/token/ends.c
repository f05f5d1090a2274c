#include "worker/token/ends.h"

#include <string.h>

#define N_OF(array) (sizeof(array) / sizeof(*(array)))

static int32_t find(const struct vocab *v, const char *name)
{
    return vocab_find(v, name, strlen(name), TOKEN_SET(TOKEN_CONTROL) | TOKEN_SET(TOKEN_USER_DEFINED));
}

static enum status mark_keys(const struct vocab *v, const struct gguf *g, bool *is_end, struct error *err)
{
    static const char *const keys[] = {
        "tokenizer.ggml.eot_token_id",     "tokenizer.ggml.eom_token_id",
        "tokenizer.ggml.fim_pad_token_id", "tokenizer.ggml.fim_rep_token_id",
        "tokenizer.ggml.fim_sep_token_id",
    };

    for (size_t i = 0; i < N_OF(keys); i++) {
        int32_t id = -1;
        enum status s = vocab_read_id(v, g, keys[i], &id, err);
        if (s != OK)
            return s;
        if (id >= 0)
            is_end[id] = true;
    }
    return OK;
}

/* Ends of a turn, of a sequence, of a call of a tool; and what code models write between files. */
static void mark_names(const struct vocab *v, bool *is_end)
{
    static const char *const names[] = {
        "<|eot_id|>",
        "<|eom_id|>",
        "<|im_end|>",
        "<|end|>",
        "<|return|>",
        "<|call|>",
        "<|calls|>",
        "<|flush|>",
        "<end_of_turn>",
        "<turn|>",
        "<|tool_response>",
        "<|endoftext|>",
        "<|end_of_text|>",
        "<end_of_utterance>",
        "<\357\275\234end\342\226\201of\342\226\201sentence\357\275\234>",
        "</s>",
        "<eos>",
        "<EOT>",
        "_<EOT>",
        "[EOT]",
        "[EOS]",
        "[e~[",
        "<|fim_pad|>",
        "<fim-pad>",
        "<fim_pad>",
        "<PAD>",
        "[PAD]",
        "<|fim_repo|>",
        "<|repo_name|>",
        "<fim-repo>",
        "<REPO>",
        "<reponame>",
        "<|file_sep|>",
    };

    for (size_t i = 0; i < N_OF(names); i++) {
        int32_t id = find(v, names[i]);
        if (id >= 0)
            is_end[id] = true;
    }
}

/* In vocabularies that end messages otherwise, these spellings stand between the parts of one answer. */
static void unmark_names(const struct vocab *v, bool *is_end)
{
    bool has_return = find(v, "<|return|>") >= 0, has_flush = find(v, "<|flush|>") >= 0;
    bool has_call = find(v, "<|call|>") >= 0 || find(v, "<|calls|>") >= 0;
    int32_t end = find(v, "<|end|>"), end_of_sequence = find(v, "</s>");

    if (end >= 0 && has_call && (has_return || has_flush))
        is_end[end] = false;
    if (end_of_sequence >= 0 && find(v, "<|tool_response>") >= 0)
        is_end[end_of_sequence] = false;
}

enum status ends_mark(const struct vocab *v, const struct gguf *g, int32_t eos, bool *is_end,
                      struct error *err)
{
    mark_names(v, is_end);
    unmark_names(v, is_end);
    if (eos >= 0)
        is_end[eos] = true;
    return mark_keys(v, g, is_end, err);
}
