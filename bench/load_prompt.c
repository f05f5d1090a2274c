#include "bench/load_prompt.h"

#include <stdlib.h>

#include "common/xalloc.h"

/* Short and common, so that most vocabularies have a token for each. */
static const char *const words[] = {
    "time",  "house", "water", "light", "green", "small", "river", "night", "paper",  "stone",  "white",
    "world", "music", "table", "horse", "field", "north", "south", "story", "glass",  "heart",  "bread",
    "cloud", "voice", "storm", "metal", "plant", "sheep", "train", "wheel", "winter", "summer",
};
enum { N_WORDS = sizeof words / sizeof *words };

/* splitmix64: of neighbouring inputs the outputs have nothing in common. */
static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
}

static uint32_t draw(uint64_t stream, int index, uint32_t below)
{
    return (uint32_t)((mix(stream + (uint64_t)index) >> 32) * below >> 32);
}

/* Special tokens mostly lie at either end of a vocabulary: an eighth is left out there. */
static int32_t draw_id(uint64_t stream, int index, int n_vocab)
{
    int edge = n_vocab / 8;
    return edge + (int32_t)draw(stream, index, (uint32_t)(n_vocab - 2 * edge));
}

void prompts_next(struct prompts *p)
{
    uint64_t shared = mix(p->seed), own = mix(shared ^ ++p->n_made);
    int n = p->n_shared + p->n_own;
    buffer_clear(&p->text);
    if (p->n_vocab && !p->ids)
        p->ids = xmalloc((size_t)n * sizeof *p->ids);
    for (int i = 0; i < n; i++) {
        uint64_t stream = i < p->n_shared ? shared : own;
        if (p->n_vocab)
            p->ids[i] = draw_id(stream, i, p->n_vocab);
        else
            buffer_printf(&p->text, "%s%s", i ? " " : "", words[draw(stream, i, N_WORDS)]);
    }
    if (!p->n_vocab)
        buffer_append(&p->text, "", 1);
}

void prompts_fini(struct prompts *p)
{
    free(p->ids);
    buffer_fini(&p->text);
    *p = (struct prompts){ 0 };
}
