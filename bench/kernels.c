/* woolly-bench kernels: what the machine can do at most, and how much of it the products of every weight type
 * and attention over every type of cache use. woolly-bench-kernels measures; here its lines become rates and
 * shares. */
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/child.h"
#include "bench/commands.h"
#include "bench/report.h"

static const char help[] = "Usage: woolly-bench kernels [options]\n"
                           "\n"
                           "Measures what this machine can do at most (reading memory, and dot products of\n"
                           "int8, bf16 and f32), and then the product of a matrix of each weight type with\n"
                           "rows of activations, and attention over each type of cache: GB/s of weights or\n"
                           "cache read, Gop/s (two per weight and row), and what share of the ceilings\n"
                           "measured beside it that is. The larger share is what bounds the kernel.\n"
                           "\n"
                           "  -t N,...          threads (default: 1, 2, 4, ... and all cores)\n"
                           "  -r N              repetitions (default 5)\n"
                           "  --types T,...     only products, of these weight types: Q8_0,Q4_K for example\n"
                           "  --rows N,...      rows of activations, at most 512 (default 1,4,8,32,128,512)\n"
                           "  --kv T,...        only attention, over these caches: f16,q8 for example; with\n"
                           "                    --types both\n"
                           "  --ceilings        only the ceilings\n"
                           "  --json            print one JSON object: isa, ceilings, kernels\n";

enum { GIGA = 1000000000 };

/* One line of what was measured, as rates. */
struct row {
    json_t *line; /* owned by the array of lines */
    bool is_ceiling;
    struct samples bytes_per_s, ops_per_s;    /* of a ceiling only the one it has */
    struct samples read_share, compute_share; /* of a kernel: of what was measured beside it; or empty */
};

struct results {
    json_t *machine, *share;
    json_t *lines; /* array that owns all */
    struct row *rows;
    size_t n;
};

static const char *text_of(const json_t *line, const char *key)
{
    const char *text = json_string_value(json_object_get(line, key));
    return text ? text : "";
}

static int number_of(const json_t *line, const char *key)
{
    return (int)json_integer_value(json_object_get(line, key));
}

static double real_of(const json_t *line, const char *key)
{
    return json_number_value(json_object_get(line, key));
}

static struct samples numbers_of(const json_t *line, const char *key)
{
    struct samples s = { 0 };
    size_t i;
    json_t *x;
    json_array_foreach(json_object_get(line, key), i, x) samples_add(&s, json_number_value(x));
    return s;
}

static void take_kernel(struct row *row)
{
    double bytes = real_of(row->line, "bytes");
    double ops = real_of(row->line, "ops");
    struct samples seconds = numbers_of(row->line, "seconds"), read = numbers_of(row->line, "read"),
                   peak = numbers_of(row->line, "peak");
    for (size_t i = 0; i < seconds.n; i++) {
        if (seconds.values[i] <= 0)
            continue;
        samples_add(&row->bytes_per_s, bytes / seconds.values[i]);
        samples_add(&row->ops_per_s, ops / seconds.values[i]);
    }
    row->read_share = samples_ratio(&row->bytes_per_s, &read);
    row->compute_share = samples_ratio(&row->ops_per_s, &peak);
    samples_fini(&seconds);
    samples_fini(&read);
    samples_fini(&peak);
}

static void take_line(struct results *r, json_t *line)
{
    const char *kind = text_of(line, "kind");
    if (!strcmp(kind, "machine")) {
        r->machine = line;
        return;
    }
    if (!strcmp(kind, "share")) {
        r->share = line;
        return;
    }
    struct row *row = &r->rows[r->n++];
    *row = (struct row){ .line = line, .is_ceiling = !strcmp(kind, "ceiling") };
    if (!row->is_ceiling)
        take_kernel(row);
    else if (!strcmp(text_of(line, "unit"), "byte/s"))
        row->bytes_per_s = numbers_of(line, "samples");
    else
        row->ops_per_s = numbers_of(line, "samples");
}

/* Whether all lines were as expected. */
static bool take_lines(struct results *r, char *text)
{
    size_t i;
    json_t *line;
    r->lines = json_array();
    for (char *words; (words = strsep(&text, "\n")) && *words;)
        if (json_array_append_new(r->lines, json_loads(words, 0, NULL)) < 0)
            return false;
    r->rows = calloc(json_array_size(r->lines) + 1, sizeof *r->rows);
    if (!r->rows)
        return false;
    json_array_foreach(r->lines, i, line) take_line(r, line);
    return r->machine && r->share;
}

static void results_fini(struct results *r)
{
    for (size_t i = 0; i < r->n; i++) {
        samples_fini(&r->rows[i].bytes_per_s);
        samples_fini(&r->rows[i].ops_per_s);
        samples_fini(&r->rows[i].read_share);
        samples_fini(&r->rows[i].compute_share);
    }
    free(r->rows);
    json_decref(r->lines);
}

/* A machine without a ceiling of that kind has no share of it: null. */
static json_t *row_json(const struct row *row)
{
    const json_t *line = row->line;
    if (row->is_ceiling)
        return json_pack("{s:s, s:s, s:i, s:o, s:o}", "name", text_of(line, "name"), "how",
                         text_of(line, "how"), "threads", number_of(line, "threads"), "gb_s",
                         report_summary(&row->bytes_per_s, GIGA), "gop_s",
                         report_summary(&row->ops_per_s, GIGA));
    int depth = number_of(line, "depth");
    return json_pack("{s:s, s:s, s:i, s:o, s:i, s:o, s:o, s:s, s:o, s:o}", "kernel", text_of(line, "name"),
                     "type", text_of(line, "type"), "rows", number_of(line, "rows"), "depth",
                     depth ? json_integer(depth) : json_null(), "threads", number_of(line, "threads"), "gb_s",
                     report_summary(&row->bytes_per_s, GIGA), "gop_s", report_summary(&row->ops_per_s, GIGA),
                     "ceiling", text_of(line, "ceiling"), "read_share", report_median(&row->read_share, 1),
                     "compute_share", report_median(&row->compute_share, 1));
}

static void print_json(const struct results *r)
{
    json_t *ceilings = json_array(), *kernels = json_array();
    json_t *share = report_share(real_of(r->share, "cpu_s"), real_of(r->share, "wanted_s"));
    for (size_t i = 0; i < r->n; i++)
        json_array_append_new(r->rows[i].is_ceiling ? ceilings : kernels, row_json(&r->rows[i]));
    report_json(json_pack("{s:O, s:O, s:O, s:O, s:o, s:o, s:o}", "isa", json_object_get(r->machine, "isa"),
                          "cores", json_object_get(r->machine, "cores"), "memory_bytes",
                          json_object_get(r->machine, "memory_bytes"), "shape",
                          json_object_get(r->machine, "shape"), "cpu_share", share, "ceilings", ceilings,
                          "kernels", kernels));
}

static void print_rate(const struct samples *rate)
{
    struct summary s = samples_summary(rate);
    printf("  %8s  %7s - %-7s", report_number(s.median / GIGA, s.n), report_number(s.min / GIGA, s.n),
           report_number(s.max / GIGA, s.n));
}

static void print_share(const struct samples *share)
{
    struct summary s = samples_summary(share);
    if (s.n)
        printf("  %5.1f %%", s.median * 100);
    else
        printf("  %7s", "-");
}

static void print_ceiling(const struct row *row)
{
    bool is_read = row->bytes_per_s.n;
    char what[64];
    snprintf(what, sizeof what, "%s, %s", text_of(row->line, "name"), text_of(row->line, "how"));
    printf("%-30s %7d", what, number_of(row->line, "threads"));
    print_rate(is_read ? &row->bytes_per_s : &row->ops_per_s);
    printf(" %s\n", is_read ? "GB/s" : "Gop/s");
}

static void print_kernel(const struct row *row)
{
    char depth_text[16] = "-";
    if (number_of(row->line, "depth"))
        snprintf(depth_text, sizeof depth_text, "%d", number_of(row->line, "depth"));
    printf("%-9s  %-6s %5d %5s %7d", text_of(row->line, "name"), text_of(row->line, "type"),
           number_of(row->line, "rows"), depth_text, number_of(row->line, "threads"));
    print_rate(&row->bytes_per_s);
    print_share(&row->read_share);
    print_rate(&row->ops_per_s);
    print_share(&row->compute_share);
    printf(" %s\n", text_of(row->line, "ceiling"));
}

static void print_tables(const struct results *r)
{
    bool has_kernels = false;
    printf("%s kernels, %d cores\n\n%-30s threads    median  least - most\n", text_of(r->machine, "isa"),
           number_of(r->machine, "cores"), "ceiling");
    for (size_t i = 0; i < r->n; i++) {
        if (r->rows[i].is_ceiling)
            print_ceiling(&r->rows[i]);
        has_kernels = has_kernels || !r->rows[i].is_ceiling;
    }
    if (has_kernels)
        printf(
            "\nkernel     type    rows depth threads      GB/s  %-17s  of read     Gop/s  %-17s  of peak\n",
            "least - most", "least - most");
    for (size_t i = 0; i < r->n; i++)
        if (!r->rows[i].is_ceiling)
            print_kernel(&r->rows[i]);
    report_busy(real_of(r->share, "cpu_s"), real_of(r->share, "wanted_s"));
}

/* All options but --json are the measuring program's. */
static int run(int argc, char **argv, char **output_text, struct buffer *output)
{
    struct command c = { 0 };
    struct error err;
    int status = EXIT_FAILURE;
    enum status s = child_add_own(&c, "woolly-bench-kernels", &err);
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--json") != 0)
            command_add(&c, "%s", argv[i]);
    if (s == OK && (s = child_run(&c, output, NULL, &status, &err)) == OK)
        *output_text = output->data;
    else
        fprintf(stderr, "woolly-bench kernels: %s\n", err.text);
    command_fini(&c);
    return s == OK ? status : EXIT_FAILURE;
}

int command_kernels(int argc, char **argv)
{
    struct results results = { 0 };
    struct buffer output = { 0 };
    char *text = NULL;
    bool as_json = false;

    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            fputs(help, stdout);
            return report_done();
        }
        as_json = as_json || !strcmp(argv[i], "--json");
    }
    int status = run(argc, argv, &text, &output);
    if (status == EXIT_SUCCESS && take_lines(&results, text)) {
        (as_json ? print_json : print_tables)(&results);
        status = report_done();
    } else if (status == EXIT_SUCCESS) {
        fprintf(stderr, "woolly-bench kernels: woolly-bench-kernels printed what was not expected\n");
        status = EXIT_FAILURE;
    }
    results_fini(&results);
    buffer_fini(&output);
    return status;
}
