/* The writer of model files, and woolly-gguf quantize as a user runs it: what it makes opens and holds the
 * model, and whatever stops it leaves nothing behind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/xalloc.h"
#include "worker/kernels/kernels.h"
#include "worker/kernels/quantise.h"
#include "worker/model/gguf_write.h"

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/woolly-quantize-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

/* Calls `each` (which may be NULL) for every file in the folder; returns how many there are. */
static int list_folder(void (*each)(const char *path))
{
    DIR *d = opendir(folder);
    int n = 0;
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        char path[400];
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        if (each)
            each(path);
        n++;
    }
    closedir(d);
    return n;
}

static void remove_file(const char *path)
{
    unlink(path);
}

static int remove_folder(void **state)
{
    (void)state;
    list_folder(remove_file);
    return rmdir(folder);
}

static const char *in_folder(const char *name)
{
    static char paths[4][128];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static struct gguf_string text(const char *s)
{
    return (struct gguf_string){ s, strlen(s) };
}

/* About normal, and the same in every run. */
static float weight_at(uint64_t i)
{
    float sum = 0;
    for (int k = 0; k < 4; k++) {
        i = i * 6364136223846793005u + 1442695040888963407u;
        sum += (float)(i >> 40) / (float)(1 << 23) - 1;
    }
    return sum / 20;
}

/* --- models made for the tests --- */

struct shape {
    const char *name;
    uint64_t cols, rows; /* rows 0: a vector */
};

static struct gguf_writer *begin(const char *path)
{
    struct gguf_writer *w;
    struct error err;
    if (gguf_writer_create(&w, path, 32, &err) != OK)
        fail_msg("%s", err.text);
    gguf_writer_put(w, text("general.architecture"),
                    &(struct gguf_value){ .kind = GGUF_STRING, .string = text("llama") });
    gguf_writer_put_u32(w, "llama.block_count", 1);
    return w;
}

static void finish(struct gguf_writer *w, const struct shape *shapes, int n, float first)
{
    struct error err;
    for (int i = 0; i < n; i++)
        gguf_writer_add_tensor(w, text(shapes[i].name), WEIGHT_F32, shapes[i].rows ? 2 : 1,
                               (uint64_t[]){ shapes[i].cols, shapes[i].rows });
    for (int i = 0; i < n; i++) {
        uint64_t rows = shapes[i].rows ? shapes[i].rows : 1, cols = shapes[i].cols;
        float *row = xcalloc(cols, sizeof *row);
        for (uint64_t r = 0; r < rows; r++) {
            for (uint64_t c = 0; c < cols; c++)
                row[c] = weight_at(r * cols + c);
            if (r == 0)
                row[0] = first;
            assert_int_equal(gguf_writer_data(w, row, cols * sizeof *row, &err), OK);
        }
        free(row);
    }
    assert_int_equal(gguf_writer_commit(w, &err), OK);
    gguf_writer_destroy(w);
}

static const struct shape small[] = { { "output_norm.weight", 256, 0 }, { "token_embd.weight", 256, 8 },
                                      { "output.weight", 256, 8 },      { "blk.0.attn_q.weight", 256, 40 },
                                      { "blk.0.ffn_up.weight", 96, 7 }, { "blk.0.ffn_gate.weight", 172, 5 } };
enum { N_SMALL = sizeof small / sizeof *small };

static void make_small(const char *path)
{
    finish(begin(path), small, N_SMALL, 0.125f);
}

/* Large enough that quantising it to IQ4_XS takes seconds. */
static void make_large(const char *path)
{
    finish(begin(path), (struct shape[]){ { "blk.0.attn_q.weight", 4096, 4096 } }, 1, 0);
}

static struct gguf *open_model(const char *path)
{
    struct gguf *g;
    struct error err;
    if (gguf_open(&g, path, &err) != OK)
        fail_msg("%s", err.text);
    return g;
}

/* --- running the program --- */

static pid_t start(const char *in, const char *out, const char *type, const char *said, rlim_t limit)
{
    pid_t pid = fork();
    if (pid)
        return pid;
    int fd = open(said, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    dup2(fd, 1);
    dup2(fd, 2);
    if (limit)
        setrlimit(RLIMIT_FSIZE, &(struct rlimit){ limit, limit });
    execl(WOOLLY_GGUF, "woolly-gguf", "quantize", "--threads", "2", in, out, type, (char *)NULL);
    _exit(127);
}

static int finish_program(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* Runs it and leaves what it said in `said`, beside the folder. */
static int quantize(const char *in, const char *out, const char *type, char *said, size_t size, rlim_t limit)
{
    char *log = xasprintf("%s.log", folder);
    int code = finish_program(start(in, out, type, log, limit));
    FILE *f = fopen(log, "r");
    assert_non_null(f);
    said[fread(said, 1, size - 1, f)] = 0;
    fclose(f);
    unlink(log);
    free(log);
    return code;
}

/* --- the tests --- */

static void test_what_is_written_is_read_back(void **state)
{
    (void)state;
    const char *path = in_folder("keys.gguf");
    struct gguf_writer *w = begin(path);
    struct gguf_string words[] = { { "one", 3 }, { "", 0 }, { "a\0b", 3 } };
    const struct gguf_value values[] = {
        { .kind = GGUF_I8, .i = -5 },
        { .kind = GGUF_U16, .u = 65535 },
        { .kind = GGUF_I64, .i = -1 },
        { .kind = GGUF_F32, .f = 0.1f },
        { .kind = GGUF_F64, .f = 0.1 },
        { .kind = GGUF_BOOL, .u = 1 },
        { .kind = GGUF_ARRAY, .element = GGUF_STRING, .count = 3, .strings = words },
        { .kind = GGUF_ARRAY, .element = GGUF_I16, .count = 2, .elements = (int16_t[]){ -7, 300 } },
    };
    static const char *const keys[] = { "a", "b", "c", "d", "e", "f", "g", "h" };
    for (int i = 0; i < 8; i++)
        gguf_writer_put(w, text(keys[i]), &values[i]);
    finish(w, (struct shape[]){ { "v", 3, 0 }, { "m", 5, 3 } }, 2, 42);

    struct gguf *g = open_model(path);
    assert_int_equal(gguf_n_entries(g), 10);
    for (int i = 0; i < 6; i++) {
        assert_int_equal(gguf_find(g, keys[i])->kind, values[i].kind);
        assert_true(gguf_find(g, keys[i])->u == values[i].u);
    }
    assert_int_equal(gguf_find(g, "g")->count, 3);
    assert_memory_equal(gguf_find(g, "g")->strings[2].text, "a\0b", 3);
    assert_int_equal(gguf_array_int(gguf_find(g, "h"), 0), -7);
    assert_int_equal(gguf_array_int(gguf_find(g, "h"), 1), 300);
    assert_true(((const float *)gguf_find_tensor(g, "m")->data)[0] == 42);
    assert_true(((const float *)gguf_find_tensor(g, "m")->data)[14] == weight_at(14));
    gguf_close(g);
}

/* The largest root mean square error a type may have, as a share of that of the weights: from the steps a
 * range of about six standard deviations is cut into. */
static const struct {
    const char *name;
    enum weight_type type;
    int file_type;
    double share;
} kinds[] = {
    { "F32", WEIGHT_F32, 0, 0 },           { "F16", WEIGHT_F16, 1, 0.001 },
    { "BF16", WEIGHT_BF16, 32, 0.01 },     { "q8_0", WEIGHT_Q8_0, 7, 0.01 },
    { "Q4_0", WEIGHT_Q4_0, 2, 0.15 },      { "Q4_1", WEIGHT_Q4_1, 3, 0.12 },
    { "Q5_0", WEIGHT_Q5_0, 8, 0.07 },      { "Q5_1", WEIGHT_Q5_1, 9, 0.06 },
    { "Q2_K", WEIGHT_Q2_K, 10, 0.4 },      { "Q3_K_S", WEIGHT_Q3_K, 11, 0.22 },
    { "Q4_K", WEIGHT_Q4_K, 15, 0.11 },     { "Q5_K_S", WEIGHT_Q5_K, 16, 0.06 },
    { "Q6_K", WEIGHT_Q6_K, 18, 0.03 },     { "Q8_K", WEIGHT_Q8_K, -1, 0.01 },
    { "IQ4_NL", WEIGHT_IQ4_NL, 25, 0.12 }, { "IQ4_XS", WEIGHT_IQ4_XS, 30, 0.12 },
    { "TQ1_0", WEIGHT_TQ1_0, 36, 1.5 },    { "TQ2_0", WEIGHT_TQ2_0, 37, 1.5 },
    { "MXFP4", WEIGHT_MXFP4, 38, 0.2 },
};

static double relative_error(const struct gguf_tensor *before, const struct gguf_tensor *after)
{
    double error = 0, size = 0;
    float row[256];
    for (uint64_t r = 0; r < before->dims[1]; r++) {
        const float *x = (const float *)before->data + r * before->dims[0];
        weight_dequantise(after->type)(
            row, (const char *)after->data + r * weight_row_bytes(after->type, after->dims[0]),
            (int)after->dims[0]);
        for (uint64_t i = 0; i < before->dims[0]; i++) {
            error += pow(row[i] - x[i], 2);
            size += pow(x[i], 2);
        }
    }
    return sqrt(error / size);
}

static void test_a_quantised_file_holds_the_model(void **state)
{
    (void)state;
    const char *in = in_folder("in.gguf"), *out = in_folder("out.gguf");
    char said[4000];
    make_small(in);
    struct gguf *before = open_model(in);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        uint64_t file_type;
        struct error err;
        if (quantize(in, out, kinds[i].name, said, sizeof said, 0))
            fail_msg("%s", said);
        struct gguf *after = open_model(out);
        assert_int_equal(gguf_n_tensors(after), N_SMALL);
        if (kinds[i].file_type < 0) {
            assert_null(gguf_find(after, "general.file_type"));
        } else {
            assert_int_equal(gguf_get_u64(after, "general.file_type", &file_type, &err), OK);
            assert_int_equal(file_type, kinds[i].file_type);
        }
        assert_non_null(gguf_find(after, "llama.block_count"));

        const struct gguf_tensor *norm = gguf_find_tensor(after, "output_norm.weight");
        assert_int_equal(norm->type, WEIGHT_F32);
        assert_memory_equal(norm->data, gguf_find_tensor(before, "output_norm.weight")->data, norm->bytes);
        const struct gguf_tensor *q = gguf_find_tensor(after, "blk.0.attn_q.weight");
        assert_int_equal(q->type, kinds[i].type);
        double error = relative_error(gguf_find_tensor(before, "blk.0.attn_q.weight"), q);
        if (!(error <= kinds[i].share))
            fail_msg("%s: relative error %g", kinds[i].name, error);
        gguf_close(after);
    }
    gguf_close(before);
}

/* Files that llama.cpp made of the same weights. */
static void test_simple_types_are_the_reference_to_the_byte(void **state)
{
    (void)state;
    static const char *const types[] = { "Q8_0", "Q4_0", "Q5_1", "F16", "BF16" };
    const char *data = getenv("WOOLLY_TEST_DATA"), *out = in_folder("out.gguf");
    char *in = xasprintf("%s/models/stories260K-F32.gguf", data ? data : "../shared/data"), said[8000];
    if (access(in, R_OK)) {
        print_message("NOT RUN: no test data at %s\n", in);
        free(in);
        skip();
    }
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        char *path = xasprintf("%.*s%s.gguf", (int)(strlen(in) - strlen("F32.gguf")), in, types[i]);
        if (quantize(in, out, types[i], said, sizeof said, 0))
            fail_msg("%s", said);
        struct gguf *ours = open_model(out), *theirs = open_model(path);
        for (uint64_t k = 0; k < gguf_n_tensors(theirs); k++) {
            const struct gguf_tensor *t = gguf_tensor(theirs, k);
            char *name = xstrndup(t->name.text, t->name.len);
            const struct gguf_tensor *o = gguf_find_tensor(ours, name);
            assert_non_null(o);
            assert_int_equal(o->type, t->type);
            assert_memory_equal(o->data, t->data, t->bytes);
            free(name);
        }
        gguf_close(ours);
        gguf_close(theirs);
        free(path);
    }
    free(in);
}

static void test_rows_that_do_not_fit_get_another_type_and_that_is_said(void **state)
{
    (void)state;
    const char *in = in_folder("in.gguf"), *out = in_folder("out.gguf");
    char said[4000];
    make_small(in);
    assert_int_equal(quantize(in, out, "Q4_K_M", said, sizeof said, 0), 0);
    struct gguf *g = open_model(out);
    assert_int_equal(gguf_find_tensor(g, "blk.0.ffn_up.weight")->type, WEIGHT_Q5_0);
    assert_int_equal(gguf_find_tensor(g, "blk.0.ffn_gate.weight")->type, WEIGHT_F16);
    assert_int_equal(gguf_find_tensor(g, "output.weight")->type, WEIGHT_Q6_K);
    assert_int_equal(gguf_find_tensor(g, "token_embd.weight")->type, WEIGHT_Q4_K);
    assert_non_null(strstr(said, "rows of 172 are no multiple of Q4_K's 256"));
    gguf_close(g);
}

static void test_a_split_model_becomes_one_file(void **state)
{
    (void)state;
    const char *out = in_folder("whole.gguf");
    char said[4000], name[40];
    for (unsigned i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "part-%05u-of-00002.gguf", i + 1);
        struct gguf_writer *w = begin(in_folder(name));
        gguf_writer_put_u32(w, "split.no", i);
        gguf_writer_put_u32(w, "split.count", 2);
        finish(w, &small[2 + i], 1, 0);
    }
    const char *second = in_folder("part-00002-of-00002.gguf");
    if (quantize(second, out, "Q8_0", said, sizeof said, 0))
        fail_msg("%s", said);
    struct gguf *g = open_model(out);
    assert_int_equal(gguf_n_parts(g), 1);
    assert_int_equal(gguf_n_tensors(g), 2);
    assert_null(gguf_find(g, "split.count"));
    gguf_close(g);
    /* Any part is the input. */
    assert_int_equal(quantize(second, in_folder("part-00001-of-00002.gguf"), "Q8_0", said, sizeof said, 0),
                     1);
    assert_non_null(strstr(said, "is the input itself"));
}

static void test_the_input_is_not_overwritten(void **state)
{
    (void)state;
    const char *in = in_folder("in.gguf"), *other = in_folder("link.gguf");
    char said[4000];
    make_small(in);
    assert_int_equal(symlink(in, other), 0);
    assert_int_equal(quantize(in, other, "Q8_0", said, sizeof said, 0), 1);
    assert_non_null(strstr(said, "is the input itself"));
    assert_int_equal(list_folder(NULL), 2);
}

static void test_a_link_is_replaced_and_what_it_leads_to_stays(void **state)
{
    (void)state;
    const char *in = in_folder("in.gguf"), *out = in_folder("out.gguf"), *other = in_folder("other");
    char said[4000];
    struct stat st;
    make_small(in);
    fclose(fopen(other, "w"));
    assert_int_equal(symlink("other", out), 0);
    if (quantize(in, out, "Q8_0", said, sizeof said, 0))
        fail_msg("%s", said);
    assert_int_equal(lstat(out, &st), 0);
    assert_true(S_ISREG(st.st_mode));
    gguf_close(open_model(out));
    assert_int_equal(stat(other, &st), 0);
    assert_int_equal(st.st_size, 0);
}

static void test_an_empty_name_is_wrong_usage(void **state)
{
    (void)state;
    char said[4000];
    assert_int_equal(quantize(in_folder("in.gguf"), "", "Q8_0", said, sizeof said, 0), 2);
    assert_non_null(strstr(said, "output file is empty"));
    assert_int_equal(quantize("", in_folder("out.gguf"), "Q8_0", said, sizeof said, 0), 2);
    assert_int_equal(list_folder(NULL), 0);
}

static void test_weights_that_are_no_numbers_are_refused_by_name(void **state)
{
    (void)state;
    const char *in = in_folder("in.gguf");
    char said[4000];
    finish(begin(in), small, N_SMALL, NAN);
    assert_int_equal(quantize(in, in_folder("out.gguf"), "Q4_K_M", said, sizeof said, 0), 1);
    assert_non_null(strstr(said, "token_embd.weight"));
    assert_int_equal(list_folder(NULL), 1);
}

static void test_a_full_disk_is_said_and_leaves_nothing(void **state)
{
    (void)state;
    const char *in = in_folder("in.gguf"), *out = in_folder("out.gguf");
    char said[4000];
    make_small(in);
    assert_int_equal(quantize(in, out, "Q8_0", said, sizeof said, 8192), 1);
    assert_non_null(strstr(said, "cannot write"));
    assert_non_null(strstr(said, "File too large"));
    assert_int_equal(list_folder(NULL), 1);
}

static void interrupt(int number)
{
    const char *in = in_folder("in.gguf"), *out = in_folder("out.gguf");
    char *log = xasprintf("%s.log", folder);
    make_large(in);
    pid_t pid = start(in, out, "IQ4_XS", log, 0);
    for (int i = 0; i < 2000 && list_folder(NULL) < 2; i++)
        nanosleep(&(struct timespec){ 0, 5000000 }, NULL);
    assert_int_equal(list_folder(NULL), 2); /* the temporary file is there */
    assert_int_equal(kill(pid, number), 0);
    assert_int_equal(finish_program(pid), 1);
    assert_int_equal(list_folder(NULL), 1);
    unlink(log);
    free(log);
}

static void test_an_interruption_leaves_nothing(void **state)
{
    (void)state;
    interrupt(SIGTERM);
    interrupt(SIGINT);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(test_what_is_written_is_read_back),
        IN_FOLDER(test_a_quantised_file_holds_the_model),
        IN_FOLDER(test_simple_types_are_the_reference_to_the_byte),
        IN_FOLDER(test_rows_that_do_not_fit_get_another_type_and_that_is_said),
        IN_FOLDER(test_a_split_model_becomes_one_file),
        IN_FOLDER(test_the_input_is_not_overwritten),
        IN_FOLDER(test_a_link_is_replaced_and_what_it_leads_to_stays),
        IN_FOLDER(test_an_empty_name_is_wrong_usage),
        IN_FOLDER(test_weights_that_are_no_numbers_are_refused_by_name),
        IN_FOLDER(test_a_full_disk_is_said_and_leaves_nothing),
        IN_FOLDER(test_an_interruption_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
