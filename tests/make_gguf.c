/* make_gguf: writes a model of the llama architecture with random weights, for tests of size and speed.
 *
 * The same options and seed give the same bytes. Weights are made as they are written, a megabyte at a time,
 * so the file may be larger than memory. Matrices have a standard deviation of 1 / sqrt(columns) and norms
 * lie near 1, so that activations neither vanish nor explode. The vocabulary is a SentencePiece one in which
 * every word is the merge of two earlier tokens, so any text can be tokenized. */
#include <bsd/stdlib.h>
#include <err.h>
#include <fcntl.h>
#include <getopt.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/buffer.h"
#include "common/status.h"
#include "common/xalloc.h"
#include "worker/kernels/weight.h"

enum { ALIGNMENT = 32, CHUNK_BYTES = 1 << 20, N_TABLE = 4096 };

/* Numbers of the format. */
enum { KIND_U32 = 4, KIND_I32 = 5, KIND_F32 = 6, KIND_BOOL = 7, KIND_STRING = 8, KIND_ARRAY = 9 };
enum { TOKEN_NORMAL = 1, TOKEN_UNKNOWN = 2, TOKEN_CONTROL = 3, TOKEN_BYTE = 6 };

struct options {
    const char *out;
    uint32_t layers, embd, heads, kv_heads, ff, vocab, ctx;
    const struct type *type;
    uint64_t seed;
    bool is_tied; /* the embedding is the output matrix too */
};

/* Matrix types this program can write, with the number general.file_type has for each. */
struct type {
    const char *name;
    enum weight_type weight;
    uint32_t file_type;
};
static const struct type types[] = {
    { "F32", WEIGHT_F32, 0 },   { "F16", WEIGHT_F16, 1 },   { "BF16", WEIGHT_BF16, 32 },
    { "Q8_0", WEIGHT_Q8_0, 7 }, { "Q4_0", WEIGHT_Q4_0, 2 },
};

struct tensor {
    char name[48];
    int n_dims;
    uint64_t dims[2];
    enum weight_type type;
    uint64_t offset, bytes;
};

struct tensors {
    struct tensor *all;
    size_t count;
    uint64_t bytes; /* of the data so far, padded */
};

/* SplitMix64: fast, and any seed is a good one. */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

/* Vocabulary */

struct vocab {
    char **tokens;
    uint32_t count;
    uint32_t *slots; /* token + 1 by hash, 0 is free */
    uint32_t mask;
};

static uint32_t *vocab_slot(const struct vocab *v, const char *token)
{
    uint32_t h = 2166136261u;
    for (const char *c = token; *c; c++)
        h = (h ^ (unsigned char)*c) * 16777619u;
    for (;; h++) {
        uint32_t *slot = &v->slots[h & v->mask];
        if (!*slot || !strcmp(v->tokens[*slot - 1], token))
            return slot;
    }
}

static void vocab_add(struct vocab *v, const char *token)
{
    uint32_t *slot = vocab_slot(v, token);
    if (*slot)
        return;
    v->tokens[v->count] = xstrdup(token);
    *slot = ++v->count;
}

enum { N_SPECIAL = 3, N_BYTES = 256, FIRST_NORMAL = N_SPECIAL + N_BYTES };

static const char space_mark[] = "\xe2\x96\x81"; /* SentencePiece's letter for a space */

/* A normal token, an early one far more often than a late one: so most words are short and made of frequent
 * letters, and real text finds many of them. */
static const char *early_token(const struct vocab *v, uint64_t *random)
{
    const uint32_t normal = v->count - FIRST_NORMAL;
    uint64_t r = next_random(random);
    uint32_t reach = normal >> (r >> 32) % 12;
    return v->tokens[FIRST_NORMAL + (uint32_t)r % (reach ? reach : 1)];
}

static void vocab_make(struct vocab *v, uint32_t want, uint64_t seed)
{
    enum { MAX_WORD = 15 };
    uint64_t random = seed ^ 0x766f636162; /* not the weights' stream */
    char text[MAX_WORD + 1];

    *v = (struct vocab){ .tokens = xcalloc(want, sizeof *v->tokens), .mask = 15 };
    while (v->mask < 2 * want)
        v->mask = 2 * v->mask + 1;
    v->slots = xcalloc(v->mask + 1, sizeof *v->slots);
    vocab_add(v, "<unk>");
    vocab_add(v, "<s>");
    vocab_add(v, "</s>");
    for (int i = 0; i < N_BYTES; i++) {
        snprintf(text, sizeof text, "<0x%02X>", i);
        vocab_add(v, text);
    }
    if (v->count < want)
        vocab_add(v, space_mark);
    static const char letters[] =
        "etaoinshrdlucmfwypvbgkjxqz.,'!?-:;\"()0123456789ETAOINSHRDLUCMFWYPVBGKJXQZ";
    for (const char *c = letters; *c && v->count < want; c++)
        vocab_add(v, (char[]){ *c, 0 });
    while (v->count < want) {
        const char *head = early_token(v, &random), *tail = early_token(v, &random);
        if (strlen(head) + strlen(tail) > MAX_WORD || !strncmp(tail, space_mark, strlen(space_mark)))
            continue;
        strcpy(stpcpy(text, head), tail);
        vocab_add(v, text);
    }
}

static void vocab_fini(struct vocab *v)
{
    for (uint32_t i = 0; i < v->count; i++)
        free(v->tokens[i]);
    free(v->tokens);
    free(v->slots);
}

/* Header */

static void put_u32(struct buffer *b, uint32_t v)
{
    buffer_append(b, &v, sizeof v);
}

static void put_u64(struct buffer *b, uint64_t v)
{
    buffer_append(b, &v, sizeof v);
}

static void put_float(struct buffer *b, float v)
{
    buffer_append(b, &v, sizeof v);
}

static void put_string(struct buffer *b, const char *text)
{
    put_u64(b, strlen(text));
    buffer_append(b, text, strlen(text));
}

/* The metadata, and how many keys it holds. */
struct metadata {
    struct buffer bytes;
    uint64_t count;
};

static struct buffer *put_key(struct metadata *m, const char *key, uint32_t kind)
{
    m->count++;
    put_string(&m->bytes, key);
    put_u32(&m->bytes, kind);
    return &m->bytes;
}

static void add_u32(struct metadata *m, const char *key, uint32_t value)
{
    put_u32(put_key(m, key, KIND_U32), value);
}

static void add_float(struct metadata *m, const char *key, float value)
{
    put_float(put_key(m, key, KIND_F32), value);
}

static void add_bool(struct metadata *m, const char *key, bool value)
{
    buffer_append(put_key(m, key, KIND_BOOL), &(char){ value }, 1);
}

static void add_string(struct metadata *m, const char *key, const char *value)
{
    put_string(put_key(m, key, KIND_STRING), value);
}

static struct buffer *add_array(struct metadata *m, const char *key, uint32_t element, uint64_t count)
{
    struct buffer *b = put_key(m, key, KIND_ARRAY);
    put_u32(b, element);
    put_u64(b, count);
    return b;
}

static uint32_t token_kind(uint32_t i)
{
    return i == 0             ? TOKEN_UNKNOWN
           : i < N_SPECIAL    ? TOKEN_CONTROL
           : i < FIRST_NORMAL ? TOKEN_BYTE
                              : TOKEN_NORMAL;
}

static void add_vocab(struct metadata *m, const struct vocab *v)
{
    struct buffer *b;

    add_string(m, "tokenizer.ggml.model", "llama");
    b = add_array(m, "tokenizer.ggml.tokens", KIND_STRING, v->count);
    for (uint32_t i = 0; i < v->count; i++)
        put_string(b, v->tokens[i]);
    b = add_array(m, "tokenizer.ggml.scores", KIND_F32, v->count);
    for (uint32_t i = 0; i < v->count; i++)
        put_float(b, i < FIRST_NORMAL ? 0 : -(float)(i - FIRST_NORMAL));
    b = add_array(m, "tokenizer.ggml.token_type", KIND_I32, v->count);
    for (uint32_t i = 0; i < v->count; i++)
        put_u32(b, token_kind(i));
    add_u32(m, "tokenizer.ggml.unknown_token_id", 0);
    add_u32(m, "tokenizer.ggml.bos_token_id", 1);
    add_u32(m, "tokenizer.ggml.eos_token_id", 2);
    add_bool(m, "tokenizer.ggml.add_bos_token", true);
    add_bool(m, "tokenizer.ggml.add_eos_token", false);
}

static void add_model(struct metadata *m, const struct options *o)
{
    char name[64];

    snprintf(name, sizeof name, "random %u x %u seed %llu", o->layers, o->embd, (unsigned long long)o->seed);
    add_string(m, "general.architecture", "llama");
    add_string(m, "general.name", name);
    add_u32(m, "general.file_type", o->type->file_type);
    add_u32(m, "general.alignment", ALIGNMENT);
    add_u32(m, "llama.block_count", o->layers);
    add_u32(m, "llama.context_length", o->ctx);
    add_u32(m, "llama.embedding_length", o->embd);
    add_u32(m, "llama.feed_forward_length", o->ff);
    add_u32(m, "llama.attention.head_count", o->heads);
    add_u32(m, "llama.attention.head_count_kv", o->kv_heads);
    add_u32(m, "llama.rope.dimension_count", o->embd / o->heads);
    add_float(m, "llama.rope.freq_base", 10000.0f);
    add_float(m, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    add_u32(m, "llama.vocab_size", o->vocab);
}

/* `rows` 0: a vector of norm weights, which stay F32. */
static void add_tensor(struct tensors *t, const char *name, enum weight_type type, uint64_t columns,
                       uint64_t rows)
{
    struct tensor *x = &t->all[t->count++];
    *x = (struct tensor){ .n_dims = rows ? 2 : 1,
                          .dims = { columns, rows ? rows : 1 },
                          .type = rows ? type : WEIGHT_F32,
                          .offset = t->bytes };
    snprintf(x->name, sizeof x->name, "%s.weight", name);
    x->bytes = weight_row_bytes(x->type, columns) * x->dims[1];
    t->bytes += (x->bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static void list_tensors(struct tensors *t, const struct options *o)
{
    const enum weight_type type = o->type->weight;
    const uint64_t kv = (uint64_t)o->embd / o->heads * o->kv_heads;
    const struct {
        const char *name;
        uint64_t columns, rows;
    } layer[] = {
        { "attn_norm", o->embd, 0 },    { "attn_q", o->embd, o->embd },      { "attn_k", o->embd, kv },
        { "attn_v", o->embd, kv },      { "attn_output", o->embd, o->embd }, { "ffn_norm", o->embd, 0 },
        { "ffn_gate", o->embd, o->ff }, { "ffn_up", o->embd, o->ff },        { "ffn_down", o->ff, o->embd },
    };
    enum { PER_LAYER = sizeof layer / sizeof *layer };

    *t = (struct tensors){ .all = xcalloc(3 + (size_t)o->layers * PER_LAYER, sizeof *t->all) };
    add_tensor(t, "token_embd", type, o->embd, o->vocab);
    for (uint32_t l = 0; l < o->layers; l++) {
        for (int i = 0; i < PER_LAYER; i++) {
            char name[32];
            snprintf(name, sizeof name, "blk.%u.%s", l, layer[i].name);
            add_tensor(t, name, type, layer[i].columns, layer[i].rows);
        }
    }
    add_tensor(t, "output_norm", type, o->embd, 0);
    if (!o->is_tied)
        add_tensor(t, "output", type, o->embd, o->vocab);
}

static struct buffer make_header(const struct options *o, const struct tensors *t)
{
    struct metadata m = { 0 };
    struct buffer b = { 0 };
    struct vocab v;

    vocab_make(&v, o->vocab, o->seed);
    add_model(&m, o);
    add_vocab(&m, &v);
    vocab_fini(&v);
    buffer_append(&b, "GGUF", 4);
    put_u32(&b, 3);
    put_u64(&b, t->count);
    put_u64(&b, m.count);
    buffer_append(&b, m.bytes.data, m.bytes.len);
    buffer_fini(&m.bytes);
    for (size_t i = 0; i < t->count; i++) {
        const struct tensor *x = &t->all[i];
        put_string(&b, x->name);
        put_u32(&b, (uint32_t)x->n_dims);
        for (int d = 0; d < x->n_dims; d++)
            put_u64(&b, x->dims[d]);
        put_u32(&b, x->type);
        put_u64(&b, x->offset);
    }
    while (b.len % ALIGNMENT)
        buffer_append(&b, "", 1);
    return b;
}

/* Weights */

static uint16_t to_bf16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* For finite numbers in a half's range; below its smallest normal number they become 0. */
static uint16_t to_half(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    uint32_t sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    if (rest < 113u << 23)
        return (uint16_t)sign;
    rest += 0xfff + (rest >> 13 & 1);
    return (uint16_t)(sign | ((rest - (112u << 23)) >> 13));
}

/* What one tensor's numbers are drawn from. */
struct source {
    uint64_t random;
    float center, reach;     /* numbers are uniform in center +- reach */
    uint16_t table[N_TABLE]; /* such numbers, as F16 or BF16, or the scales of quantised blocks */
};

static void source_init(struct source *s, const struct tensor *t, uint64_t seed, size_t number)
{
    *s = (struct source){ .random = seed + number * 0xd1342543de82ef95 };
    next_random(&s->random);
    s->center = t->n_dims == 1 ? 1.0f : 0.0f;
    s->reach = t->n_dims == 1 ? 0.1f : sqrtf(3.0f / (float)t->dims[0]);
    /* Standard deviation of the quants: uniform over -127..127, and over -8..7. */
    const float spread = t->type == WEIGHT_Q8_0 ? 73.6f : 4.61f;
    for (int i = 0; i < N_TABLE; i++) {
        float place = ((float)i + 0.5f) / N_TABLE; /* 0 to 1 */
        if (t->type == WEIGHT_BF16)
            s->table[i] = to_bf16(s->center + (2 * place - 1) * s->reach);
        else if (t->type == WEIGHT_F16)
            s->table[i] = to_half(s->center + (2 * place - 1) * s->reach);
        else {
            /* Half the scales are negative: quants of -8 to 7 have a mean, and so it cancels. */
            float scale = s->reach / sqrtf(3.0f) / spread * (0.5f + place);
            s->table[i] = to_half(i & 1 ? scale : -scale);
        }
    }
}

static void fill_f32(struct source *s, char *out, size_t bytes)
{
    const float step = s->reach / 0x1p31f;
    for (size_t i = 0; i < bytes; i += sizeof(float)) {
        float x = s->center + (float)(int32_t)(next_random(&s->random) >> 32) * step;
        memcpy(out + i, &x, sizeof x);
    }
}

static void fill_table(struct source *s, char *out, size_t bytes)
{
    for (size_t i = 0; i < bytes;) {
        uint64_t r = next_random(&s->random);
        for (int k = 0; k < 5 && i < bytes; k++, i += sizeof(uint16_t), r >>= 12)
            memcpy(out + i, &s->table[r % N_TABLE], sizeof(uint16_t));
    }
}

/* Blocks of one half and `quant_bytes` of quants. */
static void fill_blocks(struct source *s, char *out, size_t bytes, size_t quant_bytes)
{
    for (size_t i = 0; i < bytes; i += sizeof(uint16_t) + quant_bytes) {
        memcpy(out + i, &s->table[next_random(&s->random) % N_TABLE], sizeof(uint16_t));
        signed char *quants = (signed char *)out + i + sizeof(uint16_t);
        for (size_t k = 0; k < quant_bytes; k += sizeof(uint64_t))
            memcpy(quants + k, &(uint64_t){ next_random(&s->random) }, sizeof(uint64_t));
        if (quant_bytes == 32) /* Q8_0: a quantiser never makes -128, and kernels may rely on that */
            for (int k = 0; k < 32; k++)
                quants[k] = quants[k] < -127 ? -127 : quants[k];
    }
}

static void fill(struct source *s, enum weight_type type, char *out, size_t bytes)
{
    switch (type) {
    case WEIGHT_F32:
        fill_f32(s, out, bytes);
        break;
    case WEIGHT_Q8_0:
        fill_blocks(s, out, bytes, 32);
        break;
    case WEIGHT_Q4_0:
        fill_blocks(s, out, bytes, 16);
        break;
    default:
        fill_table(s, out, bytes);
        break;
    }
}

static void write_all(int fd, const char *bytes, size_t len, const char *path)
{
    while (len) {
        ssize_t n = write(fd, bytes, len);
        if (n < 0)
            err(EXIT_FAILURE, "cannot write %s", path);
        bytes += n;
        len -= (size_t)n;
    }
}

static void write_tensor(int fd, const struct options *o, const struct tensor *t, size_t number, char *chunk)
{
    struct source s;
    size_t block = (size_t)weight_info(t->type)->block_bytes, most = CHUNK_BYTES / block * block;

    source_init(&s, t, o->seed, number);
    for (uint64_t left = t->bytes; left;) {
        size_t n = left < most ? (size_t)left : most;
        fill(&s, t->type, chunk, n);
        write_all(fd, chunk, n, o->out);
        left -= n;
    }
    write_all(fd, (char[ALIGNMENT]){ 0 }, (size_t)(-t->bytes % ALIGNMENT), o->out);
}

/* Options */

static void usage(int status)
{
    fprintf(status ? stderr : stdout,
            "usage: make_gguf --out FILE [options]\n"
            "  --layers N    8        --embd N      256      --heads N    4\n"
            "  --kv-heads N  heads    --ff N        3 embd   --vocab N    4096\n"
            "  --ctx N       2048     --type T      F32, F16, BF16, Q8_0 (the default) or Q4_0\n"
            "  --seed S      1        --tied        no output matrix of its own\n");
    exit(status);
}

static uint32_t number(const char *name, const char *text, long long least, long long most)
{
    const char *problem;
    long long v = strtonum(text, least, most, &problem);
    if (problem)
        errx(EXIT_USAGE, "--%s %s: %s (%lld to %lld)", name, text, problem, least, most);
    return (uint32_t)v;
}

static const struct type *parse_type(const char *text)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (!strcmp(types[i].name, text))
            return &types[i];
    errx(EXIT_USAGE, "--type %s: must be F32, F16, BF16, Q8_0 or Q4_0", text);
}

static void check_options(struct options *o)
{
    if (!o->out)
        usage(EXIT_USAGE);
    if (!o->kv_heads)
        o->kv_heads = o->heads;
    if (!o->ff)
        o->ff = 3 * o->embd;
    if (o->embd % o->heads || o->embd / o->heads % 2)
        errx(EXIT_USAGE, "--embd %u must be an even multiple of --heads %u", o->embd, o->heads);
    if (o->heads % o->kv_heads)
        errx(EXIT_USAGE, "--heads %u must be a multiple of --kv-heads %u", o->heads, o->kv_heads);
    uint32_t block_len = (uint32_t)weight_info(o->type->weight)->block_len;
    if (o->embd % block_len || o->ff % block_len)
        errx(EXIT_USAGE, "--embd %u and --ff %u must be multiples of %s's block of %u", o->embd, o->ff,
             o->type->name, block_len);
}

static struct options parse_options(int argc, char **argv)
{
    static const struct option long_options[] = {
        { "out", required_argument, NULL, 'o' },
        { "layers", required_argument, NULL, 'l' },
        { "embd", required_argument, NULL, 'e' },
        { "heads", required_argument, NULL, 'h' },
        { "kv-heads", required_argument, NULL, 'k' },
        { "ff", required_argument, NULL, 'f' },
        { "vocab", required_argument, NULL, 'v' },
        { "ctx", required_argument, NULL, 'c' },
        { "type", required_argument, NULL, 't' },
        { "seed", required_argument, NULL, 's' },
        { "tied", no_argument, NULL, 'T' },
        { "help", no_argument, NULL, 'H' },
        { NULL, 0, NULL, 0 },
    };
    enum { MOST = 1 << 24 };
    struct options o = { .layers = 8, .embd = 256, .heads = 4, .vocab = 4096, .ctx = 2048, .seed = 1 };

    o.type = parse_type("Q8_0");
    for (int c; (c = getopt_long(argc, argv, "", long_options, NULL)) != -1;) {
        switch (c) {
        case 'o':
            o.out = optarg;
            break;
        case 'l':
            o.layers = number("layers", optarg, 1, 9999);
            break;
        case 'e':
            o.embd = number("embd", optarg, 2, MOST);
            break;
        case 'h':
            o.heads = number("heads", optarg, 1, MOST);
            break;
        case 'k':
            o.kv_heads = number("kv-heads", optarg, 1, MOST);
            break;
        case 'f':
            o.ff = number("ff", optarg, 1, MOST);
            break;
        case 'v':
            o.vocab = number("vocab", optarg, FIRST_NORMAL + 32, MOST);
            break;
        case 'c':
            o.ctx = number("ctx", optarg, 1, 1 << 30);
            break;
        case 't':
            o.type = parse_type(optarg);
            break;
        case 's':
            o.seed = number("seed", optarg, 0, UINT32_MAX);
            break;
        case 'T':
            o.is_tied = true;
            break;
        case 'H':
            usage(EXIT_SUCCESS);
            break;
        default:
            usage(EXIT_USAGE);
        }
    }
    if (optind < argc)
        usage(EXIT_USAGE);
    check_options(&o);
    return o;
}

int main(int argc, char **argv)
{
    struct options o = parse_options(argc, argv);
    struct tensors t;

    list_tensors(&t, &o);
    struct buffer header = make_header(&o, &t);
    int fd = open(o.out, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        err(EXIT_FAILURE, "cannot create %s", o.out);
    write_all(fd, header.data, header.len, o.out);
    char *chunk = xmalloc(CHUNK_BYTES);
    for (size_t i = 0; i < t.count; i++)
        write_tensor(fd, &o, &t.all[i], i, chunk);
    if (close(fd))
        err(EXIT_FAILURE, "cannot write %s", o.out);
    free(chunk);
    free(t.all);
    buffer_fini(&header);
    return EXIT_SUCCESS;
}
