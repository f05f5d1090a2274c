/* Which weight type each tensor of a model gets when it is quantised to a named mixture. A name like Q4_K_M
 * says the type of most matrices; some, on which quality hangs most, get more bits. */
#ifndef WOOLLY_TOOLS_MIXTURE_H
#define WOOLLY_TOOLS_MIXTURE_H

#include "worker/model/gguf.h"

/* Q8_K is meant for activations: general.file_type has no number for a file of it. */
enum { NO_FILE_TYPE = -1 };

struct mixture {
    const char *name; /* "Q4_K_M" */
    enum weight_type type;
    int file_type; /* general.file_type, or NO_FILE_TYPE */
};

/* By its name, in any case of letters; NULL when there is none. "Q4_K" is Q4_K_M. */
const struct mixture *mixture_find(const char *name);

/* All names, separated by spaces; static. */
const char *mixture_names(void);

/* What the rules need to know of a model. */
struct mixture_model {
    uint64_t n_layers, n_heads, n_kv_heads, n_experts;
    bool has_output; /* else the embedding serves as output too */
};

void mixture_read_model(struct mixture_model *m, const struct gguf *g);

/* *wanted is what the mixture asks for, the result what the rows allow: a type of shorter blocks or F16 where
 * dims[0] is no multiple of the block. A tensor that stays as it is gets its own type (vectors: F32). */
enum weight_type mixture_choose(const struct mixture *x, const struct mixture_model *m,
                                const struct gguf_tensor *t, enum weight_type *wanted);

#endif
