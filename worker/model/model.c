/* Opening a model: the file, then its facts, then its tensors. */
#include "worker/model/model.h"

#include <stdlib.h>

#include "common/checksum.h"
#include "common/xalloc.h"
#include "worker/model/pack_cache.h"
#include "worker/model/reader.h"

enum status model_open_with(struct model **out, const char *path, const struct model_options *options,
                            struct error *err)
{
    struct model *m = xcalloc(1, sizeof *m);
    struct reader r = { .m = m, .path = path, .options = options, .err = err };
    enum status s;

    *out = NULL;
    if ((s = gguf_open(&m->gguf, path, err)) != OK || (s = read_facts(&r)) != OK ||
        (s = find_tensors(&r)) != OK || (s = pack_weights(&r)) != OK)
        goto fail;
    free(r.is_used);
    *out = m;
    return OK;

fail:
    free(r.is_used);
    model_close(m);
    return s;
}

enum status model_open(struct model **out, const char *path, struct error *err)
{
    return model_open_with(out, path, &(struct model_options){ 0 }, err);
}

bool model_wants_cache(const struct model *m)
{
    return m->unwritten;
}

void model_write_cache(const struct model *m, const struct model_options *options,
                       bool (*is_told_to_stop)(void))
{
    if (m->unwritten)
        pack_cache_write(m->unwritten, options, is_told_to_stop);
}

void model_close(struct model *m)
{
    if (!m)
        return;
    gguf_close(m->gguf);
    pack_cache_destroy(m->unwritten);
    free_packed(&m->packed);
    for (int i = 0; m->layers && i < m->facts.n_layers; i++)
        free(m->layers[i].experts);
    free(m->layers);
    free(m);
}

const struct model_facts *model_facts(const struct model *m)
{
    return &m->facts;
}

const struct gguf *model_gguf(const struct model *m)
{
    return m->gguf;
}

uint64_t model_fingerprint(const struct model *m)
{
    enum { FIRST_BYTES = 64 };
    uint64_t sum = 0;
    for (int i = 0; i < gguf_n_parts(m->gguf); i++) {
        struct gguf_origin o = gguf_origin(m->gguf, i);
        sum = checksum_add(sum, checksum_bytes(o.bytes, (size_t)o.header_bytes));
    }
    for (uint64_t i = 0; i < gguf_n_tensors(m->gguf); i++) {
        const struct gguf_tensor *t = gguf_tensor(m->gguf, i);
        sum = checksum_add(sum, checksum_bytes(t->data, t->bytes < FIRST_BYTES ? t->bytes : FIRST_BYTES));
    }
    return sum;
}
