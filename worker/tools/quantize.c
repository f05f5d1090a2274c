/* woolly-gguf quantize: writes a model anew with its matrices in another weight type. Reads the map piece by
 * piece and writes piece by piece, so memory stays small whatever the model's size. */
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/progress.h"
#include "common/signals.h"
#include "common/xalloc.h"
#include "worker/kernels/quantise.h"
#include "worker/model/gguf_write.h"
#include "worker/model/pool.h"
#include "worker/tools/commands.h"
#include "worker/tools/mixture.h"
#include "worker/tools/run.h"

static const char help[] =
    "Usage: woolly-gguf quantize IN OUT TYPE [--threads N] [--json]\n"
    "\n"
    "Writes the model IN to the one file OUT with its matrices in another weight type;\n"
    "norms, biases and other vectors stay as they are. A name ending in _S, _M or _L is\n"
    "a mixture: matrices that matter more get more bits. Rows that are no multiple of a\n"
    "type's block get a type of shorter blocks, or F16; the list says where. RMSE is the\n"
    "root mean square of the change of a tensor's numbers. OUT appears when it is whole;\n"
    "a symbolic link of that name is replaced, and the file it leads to stays as it is.\n"
    "\n"
    "  --threads N       threads to compute with (default: all cores)\n"
    "  --json            print one JSON object instead: in, out, type, bytes_before,\n"
    "                    bytes_after, tensors\n"
    "\n"
    "Types: ";

/* PIECE_ELEMENTS: converted between two writes; a fraction of a second of work, so that a signal is heard
 * soon. PIECE_BYTES: copied between two looks at the signals. */
enum { PIECE_ELEMENTS = 1 << 20, PIECE_BYTES = 16 << 20, QUANTIZATION_VERSION = 2 };

/* What becomes of a tensor. */
struct plan {
    const struct gguf_tensor *tensor;
    enum weight_type type, wanted;
    uint64_t bytes; /* afterwards */
    double rmse;
};

struct quantizing {
    const char *in, *out;
    const struct mixture *mixture;
    int n_threads;
    bool as_json;

    struct gguf *gguf;
    struct gguf_writer *writer;
    struct pool *pool;
    struct plan *plans; /* [n_tensors] */
    uint64_t bytes_read, bytes_before, bytes_after;
};

/* One piece of a tensor on its way through the threads. */
struct piece {
    const struct quantizing *q;
    const struct plan *plan;
    const char *from; /* n_rows rows */
    char *to;
    double *errors; /* [n_rows], sums of squares */
    float *scratch; /* [n_threads][2 * row length] */
    int64_t n_rows;
};

static uint64_t rows_of(const struct gguf_tensor *t)
{
    return t->dims[1] * t->dims[2] * t->dims[3];
}

static const char *shown_name(const struct gguf_tensor *t, char *out, size_t size)
{
    return gguf_printable(t->name, out, size);
}

/* --- the plan --- */

/* Whether `path` is the file that st describes. */
static bool is_same_file(const char *path, const struct stat *st)
{
    struct stat other;
    return stat(path, &other) == 0 && other.st_dev == st->st_dev && other.st_ino == st->st_ino;
}

static enum status check_output_is_no_input(const struct quantizing *q, struct error *err)
{
    static const char example[] = "-00001-of-00001.gguf";
    struct stat st;
    int n_parts = gguf_n_parts(q->gguf);
    size_t base = strlen(q->in);

    if (stat(q->out, &st) < 0)
        return OK;
    if (n_parts > 1)
        base -= sizeof example - 1; /* the reader has seen to it that the name ends so */
    for (int i = 0; i < n_parts; i++) {
        char *part = n_parts > 1 ? xasprintf("%.*s-%05d-of-%05d.gguf", (int)base, q->in, i + 1, n_parts)
                                 : xstrdup(q->in);
        bool is_same = is_same_file(part, &st);
        free(part);
        if (is_same)
            return error_set(err, E_INVALID, "%s is the input itself; write to another file", q->out);
    }
    return OK;
}

static enum status plan_tensors(struct quantizing *q, struct error *err)
{
    uint64_t n = gguf_n_tensors(q->gguf);
    struct mixture_model model;
    mixture_read_model(&model, q->gguf);
    q->plans = xcalloc(n + 1, sizeof *q->plans);
    for (uint64_t i = 0; i < n; i++) {
        struct plan *p = &q->plans[i];
        const struct gguf_tensor *t = p->tensor = gguf_tensor(q->gguf, i);
        char name[80];
        p->type = mixture_choose(q->mixture, &model, t, &p->wanted);
        p->bytes = weight_row_bytes(p->type, t->dims[0]) * rows_of(t);
        q->bytes_before += t->bytes;
        q->bytes_after += p->bytes;
        if (p->type != t->type && !weight_dequantise(t->type))
            return error_set(err, E_UNSUPPORTED, "%s: tensor %s is of type %s, which this build cannot read",
                             q->in, shown_name(t, name, sizeof name), weight_name(t->type));
        if (t->dims[0] > INT_MAX)
            return error_set(err, E_LIMIT, "%s: tensor %s has rows of %" PRIu64 " numbers", q->in,
                             shown_name(t, name, sizeof name), t->dims[0]);
    }
    return OK;
}

/* --- keys --- */

static bool begins_with(struct gguf_string s, const char *start)
{
    size_t len = strlen(start);
    return s.len >= len && !memcmp(s.text, start, len);
}

static void put_keys(struct quantizing *q)
{
    for (uint64_t i = 0; i < gguf_n_entries(q->gguf); i++) {
        const struct gguf_entry *e = gguf_entry(q->gguf, i);
        if (!begins_with(e->key, "split.") && !gguf_string_is(e->key, "general.file_type") &&
            !gguf_string_is(e->key, "general.quantization_version"))
            gguf_writer_put(q->writer, e->key, &e->value);
    }
    gguf_writer_put_u32(q->writer, "general.quantization_version", QUANTIZATION_VERSION);
    if (q->mixture->file_type != NO_FILE_TYPE)
        gguf_writer_put_u32(q->writer, "general.file_type", (uint32_t)q->mixture->file_type);
}

/* --- data --- */

static void convert_rows(void *arg, int thread, int n_threads)
{
    const struct piece *p = arg;
    const struct gguf_tensor *t = p->plan->tensor;
    int n = (int)t->dims[0];
    uint64_t from_bytes = weight_row_bytes(t->type, t->dims[0]);
    uint64_t to_bytes = weight_row_bytes(p->plan->type, t->dims[0]);
    float *x = p->scratch + (size_t)thread * 2 * (size_t)n, *back = x + n;
    int64_t first, last;

    pool_share(p->n_rows, 1, thread, n_threads, &first, &last);
    for (int64_t r = first; r < last; r++) {
        char *to = p->to + (uint64_t)r * to_bytes;
        double sum = 0;
        weight_dequantise(t->type)(x, p->from + (uint64_t)r * from_bytes, n);
        weight_quantiser(p->plan->type)(to, x, n);
        weight_dequantise(p->plan->type)(back, to, n);
        for (int i = 0; i < n; i++)
            sum += ((double)back[i] - x[i]) * ((double)back[i] - x[i]);
        p->errors[r] = sum;
    }
}

static enum status check_signals(const struct quantizing *q, struct error *err)
{
    if (!signals_stop_wanted() && !signals_take_reload()) /* a terminal that closes ends it, too */
        return OK;
    return error_set(err, E_CANCELLED, "interrupted: %s was not written", q->out);
}

/* After a piece: the pages it was read from may go. */
static void finish_piece(struct quantizing *q, const char *from, uint64_t len)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), start = (uintptr_t)from / page * page;
    uintptr_t end = ((uintptr_t)from + len) / page * page;
    if (end > start)
        madvise((void *)start, end - start, MADV_DONTNEED);
    q->bytes_read += len;
    progress_update("quantize", q->bytes_read, q->bytes_before);
}

static enum status copy_tensor(struct quantizing *q, const struct plan *plan, struct error *err)
{
    const struct gguf_tensor *t = plan->tensor;
    for (uint64_t at = 0, len; at < t->bytes; at += len) {
        enum status s;
        len = t->bytes - at < PIECE_BYTES ? t->bytes - at : PIECE_BYTES;
        if ((s = check_signals(q, err)) != OK ||
            (s = gguf_writer_data(q->writer, (const char *)t->data + at, len, err)) != OK)
            return s;
        finish_piece(q, (const char *)t->data + at, len);
    }
    return OK;
}

static enum status convert_pieces(struct quantizing *q, struct plan *plan, struct piece *piece,
                                  uint64_t rows_per_piece, struct error *err)
{
    const struct gguf_tensor *t = plan->tensor;
    uint64_t from_bytes = weight_row_bytes(t->type, t->dims[0]), rows = rows_of(t);
    uint64_t to_bytes = weight_row_bytes(plan->type, t->dims[0]);
    double sum = 0;
    for (uint64_t r = 0; r < rows; r += rows_per_piece) {
        enum status s = check_signals(q, err);
        if (s != OK)
            return s;
        piece->n_rows = (int64_t)(rows - r < rows_per_piece ? rows - r : rows_per_piece);
        piece->from = (const char *)t->data + r * from_bytes;
        pool_run(q->pool, convert_rows, piece);
        for (int64_t i = 0; i < piece->n_rows; i++) {
            char name[80];
            sum += piece->errors[i];
            if (!isfinite(piece->errors[i]))
                return error_set(err, E_FORMAT,
                                 "%s: tensor %s holds a number in row %" PRIu64 " that %s cannot hold", q->in,
                                 shown_name(t, name, sizeof name), r + (uint64_t)i, weight_name(plan->type));
        }
        if ((s = gguf_writer_data(q->writer, piece->to, (uint64_t)piece->n_rows * to_bytes, err)) != OK)
            return s;
        finish_piece(q, piece->from, (uint64_t)piece->n_rows * from_bytes);
    }
    plan->rmse = sqrt(sum / ((double)t->dims[0] * (double)rows));
    return OK;
}

static enum status convert_tensor(struct quantizing *q, struct plan *plan, struct error *err)
{
    const struct gguf_tensor *t = plan->tensor;
    uint64_t rows = rows_of(t), rows_per_piece = PIECE_ELEMENTS / t->dims[0];
    rows_per_piece = rows_per_piece < 1 ? 1 : rows_per_piece > rows ? rows : rows_per_piece;
    struct piece piece = {
        .q = q,
        .plan = plan,
        .to = malloc(rows_per_piece * weight_row_bytes(plan->type, t->dims[0])),
        .errors = malloc(rows_per_piece * sizeof(double)),
        .scratch = malloc((size_t)q->n_threads * 2 * t->dims[0] * sizeof(float)),
    };
    enum status s;
    if (!piece.to || !piece.errors || !piece.scratch)
        s = error_set(err, E_NOMEM, "no memory for rows of %" PRIu64 " numbers", t->dims[0]);
    else
        s = convert_pieces(q, plan, &piece, rows_per_piece, err);
    free(piece.to);
    free(piece.errors);
    free(piece.scratch);
    return s;
}

/* --- what is said --- */

static void print_plan(const struct plan *p)
{
    char name[48];
    printf("%-32s %-7s -> %-7s %12" PRIu64 " -> %12" PRIu64 " bytes  RMSE %.3g",
           shown_name(p->tensor, name, sizeof name), weight_name(p->tensor->type), weight_name(p->type),
           p->tensor->bytes, p->bytes, p->rmse);
    if (p->type != p->wanted)
        printf("  (rows of %" PRIu64 " are no multiple of %s's %d)", p->tensor->dims[0],
               weight_name(p->wanted), weight_info(p->wanted)->block_len);
    putchar('\n');
}

static void print_json(const struct quantizing *q)
{
    json_t *tensors = json_array();
    for (uint64_t i = 0; i < gguf_n_tensors(q->gguf); i++) {
        const struct plan *p = &q->plans[i];
        char name[256];
        json_array_append_new(tensors, json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:f}", "name",
                                                 shown_name(p->tensor, name, sizeof name), "type_before",
                                                 weight_name(p->tensor->type), "type", weight_name(p->type),
                                                 "type_wanted", weight_name(p->wanted), "bytes_before",
                                                 (json_int_t)p->tensor->bytes, "bytes_after",
                                                 (json_int_t)p->bytes, "rmse", p->rmse));
    }
    json_t *in = json_string(q->in), *out = json_string(q->out); /* NULL for a name that is no UTF-8 */
    json_t *object =
        json_pack("{s:o, s:o, s:s, s:I, s:I, s:o}", "in", in ? in : json_null(), "out",
                  out ? out : json_null(), "type", q->mixture->name, "bytes_before",
                  (json_int_t)q->bytes_before, "bytes_after", (json_int_t)q->bytes_after, "tensors", tensors);
    json_dumpf(object, stdout, JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(object);
}

/* --- the command --- */

static enum status write_tensors(struct quantizing *q, struct error *err)
{
    uint64_t n = gguf_n_tensors(q->gguf);
    enum status s = OK;
    for (uint64_t i = 0; i < n; i++) {
        const struct gguf_tensor *t = q->plans[i].tensor;
        gguf_writer_add_tensor(q->writer, t->name, q->plans[i].type, t->n_dims, t->dims);
    }
    for (uint64_t i = 0; i < n && s == OK; i++) {
        struct plan *p = &q->plans[i];
        s = p->type == p->tensor->type ? copy_tensor(q, p, err) : convert_tensor(q, p, err);
        if (s == OK && !q->as_json) {
            progress_end();
            print_plan(p);
        }
    }
    progress_end();
    return s;
}

static enum status execute(struct quantizing *q, struct error *err)
{
    uint64_t alignment = 32;
    enum status s;

    if ((s = gguf_open(&q->gguf, q->in, err)) != OK || (s = check_output_is_no_input(q, err)) != OK ||
        (s = plan_tensors(q, err)) != OK || (s = pool_create(&q->pool, q->n_threads, err)) != OK)
        return s;
    s = gguf_get_u64(q->gguf, "general.alignment", &alignment, err);
    if (s != OK && s != E_NOTFOUND)
        return s;
    if ((s = gguf_writer_create(&q->writer, q->out, (uint32_t)alignment, err)) != OK)
        return s;
    put_keys(q);
    if ((s = write_tensors(q, err)) != OK || (s = check_signals(q, err)) != OK)
        return s;
    return gguf_writer_commit(q->writer, err);
}

/* 0, -1 when help was printed, or EXIT_USAGE. */
static int parse(int argc, char **argv, struct quantizing *q)
{
    static const struct option options[] = {
        { "threads", required_argument, NULL, 't' },
        { "json", no_argument, NULL, 'j' },
        { "help", no_argument, NULL, 'h' },
        { 0 },
    };
    struct run defaults;
    int option, problem;

    run_init(&defaults);
    opterr = 0;
    while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (option == 'h') {
            printf("%s%s\n", help, mixture_names());
            return -1;
        }
        if (option == '?')
            return command_misused(argv[0], "option %s is unknown or lacks its value", argv[optind - 1]);
        if (option == 'j')
            q->as_json = true;
        else if ((problem = run_take_option(&defaults, argv[0], option, optarg)))
            return problem;
    }
    if (argc - optind != 3)
        return command_misused(argv[0], "it takes an input file, an output file and a type");
    q->n_threads = defaults.n_threads;
    q->in = argv[optind];
    q->out = argv[optind + 1];
    if (!*q->in || !*q->out)
        return command_misused(argv[0], "the name of the %s file is empty", *q->in ? "output" : "input");
    q->mixture = mixture_find(argv[optind + 2]);
    if (!q->mixture)
        return command_misused(argv[0], "there is no type \"%.40s\"; types are %s", argv[optind + 2],
                               mixture_names());
    return 0;
}

int command_quantize(int argc, char **argv)
{
    struct quantizing q = { 0 };
    struct error err;
    int problem = parse(argc, argv, &q);

    if (problem)
        return problem == -1 ? command_done() : problem;
    signals_init();
    signal(SIGXFSZ, SIG_IGN); /* a limit on the file's size then comes back as an error of write */
    if (execute(&q, &err) != OK)
        problem = command_failed(&err);
    gguf_writer_destroy(q.writer);
    if (!problem) {
        if (q.as_json)
            print_json(&q);
        else
            printf("%s: %" PRIu64 " -> %" PRIu64 " bytes of weights\n", q.out, q.bytes_before, q.bytes_after);
        problem = command_done();
    }
    pool_destroy(q.pool);
    free(q.plans);
    gguf_close(q.gguf);
    return problem;
}
