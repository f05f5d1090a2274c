/* woolly-gguf tokenize and detokenize: text to token ids with a model file's vocabulary, and back. */
#include <getopt.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"
#include "common/xalloc.h"
#include "worker/model/gguf.h"
#include "worker/text_out.h"
#include "worker/token/tokenizer.h"
#include "worker/tools/commands.h"

struct request {
    bool as_json, no_bos, special, help;
    const char *path, *operand;
};

/* A model file and its tokenizer. */
struct vocabulary {
    struct gguf *g;
    struct tokenizer *t;
};

static enum status vocabulary_open(struct vocabulary *v, const char *path, struct error *err)
{
    enum status s;

    *v = (struct vocabulary){ 0 };
    if ((s = gguf_open(&v->g, path, err)) != OK)
        return s;
    if ((s = tokenizer_create(&v->t, v->g, err)) != OK)
        gguf_close(v->g);
    return s;
}

static void vocabulary_close(struct vocabulary *v)
{
    tokenizer_destroy(v->t);
    gguf_close(v->g);
}

/* Returns EXIT_SUCCESS or what command_misused returned. */
static int read_arguments(struct request *r, int argc, char **argv, const char *operand_name)
{
    static const struct option all[] = {
        { "json", no_argument, NULL, 'j' },
        { "help", no_argument, NULL, 'h' },
        { "no-bos", no_argument, NULL, 'b' },
        { "special", no_argument, NULL, 's' },
        { 0 },
    };
    bool encodes = !strcmp(argv[0], "tokenize");

    *r = (struct request){ 0 };
    opterr = 0;
    for (int option; (option = getopt_long(argc, argv, "h", all, NULL)) >= 0;) {
        if (option == 'j')
            r->as_json = true;
        else if (option == 'h')
            r->help = true;
        else if (option == 'b' && encodes)
            r->no_bos = true;
        else if (option == 's' && encodes)
            r->special = true;
        else
            return command_misused(argv[0], "there is no option %s", argv[optind - 1]);
    }
    if (r->help)
        return EXIT_SUCCESS;
    if (argc - optind != 2)
        return command_misused(argv[0], "expected a model file and %s", operand_name);
    r->path = argv[optind];
    r->operand = argv[optind + 1];
    return EXIT_SUCCESS;
}

/* The text to encode: the operand, or standard input for "-". */
static enum status read_text(const char *operand, struct buffer *out, struct error *err)
{
    if (strcmp(operand, "-") != 0) {
        buffer_append(out, operand, strlen(operand));
        return OK;
    }
    while (out->len <= TOKENIZER_MAX_BYTES) {
        size_t n = fread(buffer_reserve(out, 65536), 1, 65536, stdin);
        out->len += n;
        if (!n && ferror(stdin))
            return error_errno(err, "cannot read standard input");
        if (!n)
            return OK;
    }
    return error_set(err, E_LIMIT, "standard input is longer than %d MiB", TOKENIZER_MAX_BYTES >> 20);
}

/* A piece in quotes, with what could disturb a terminal or a line as \n, \t, \" or \xHH. */
static void print_quoted(const char *text, size_t len)
{
    putchar('"');
    while (len) {
        uint32_t code = 0;
        int n = utf8_next(text, len, &code);
        bool is_plain = n > 0 && code >= 0x20 && code != 0x7f && !(code >= 0x80 && code < 0xa0);
        if (*text == '\n' || *text == '\t')
            printf(*text == '\n' ? "\\n" : "\\t");
        else if (*text == '"' || *text == '\\')
            printf("\\%c", *text);
        else if (is_plain)
            fwrite(text, 1, (size_t)n, stdout);
        else
            printf("\\x%02x", (unsigned char)*text);
        n = is_plain ? n : 1;
        text += n;
        len -= (size_t)n;
    }
    putchar('"');
}

static void print_ids(const struct tokenizer *t, const struct token_list *ids, bool as_json)
{
    if (as_json)
        putchar('[');
    for (size_t i = 0; i < ids->n; i++) {
        size_t len;
        const char *piece = tokenizer_piece(t, ids->ids[i], &len);
        if (as_json) {
            printf(i ? ",%d" : "%d", ids->ids[i]);
        } else {
            printf("%d\t", ids->ids[i]);
            print_quoted(piece, len);
            putchar('\n');
        }
    }
    if (as_json)
        printf("]\n");
}

int command_tokenize(int argc, char **argv)
{
    struct request r;
    struct vocabulary v = { 0 };
    struct buffer text = { 0 };
    struct token_list ids = { 0 };
    struct error err = { 0 };
    int status = read_arguments(&r, argc, argv, "a text");

    if (status != EXIT_SUCCESS)
        return status;
    if (r.help) {
        printf("Usage: woolly-gguf tokenize FILE [--json] [--no-bos] [--special] TEXT\n"
               "Prints the tokens of TEXT (\"-\" reads standard input), one line each: id and text.\n"
               "  --json     the ids as one JSON array\n"
               "  --no-bos   without the beginning- and end-of-text tokens the model asks for\n"
               "  --special  text that spells a control token becomes that token\n"
               "A TEXT that begins with a dash goes after \"--\".\n");
        return command_done();
    }
    if (read_text(r.operand, &text, &err) != OK || vocabulary_open(&v, r.path, &err) != OK) {
        status = command_failed(&err);
    } else {
        unsigned flags = (r.no_bos ? 0 : ENCODE_BOS) | (r.special ? ENCODE_SPECIAL : 0);
        tokenizer_encode(v.t, text.data, text.len, flags, &ids);
        print_ids(v.t, &ids, r.as_json);
        vocabulary_close(&v);
        status = command_done();
    }
    token_list_fini(&ids);
    buffer_fini(&text);
    return status;
}

/* "1,2,3" or "[1,2,3]". */
static enum status parse_ids(const char *text, struct token_list *out, struct error *err)
{
    bool has_brackets = text[strspn(text, " \t\n")] == '[';
    char *array = xasprintf(has_brackets ? "%s" : "[%s]", text);
    json_t *ids = json_loads(array, 0, NULL);
    enum status s = OK;

    free(array);
    for (size_t i = 0; ids && i < json_array_size(ids); i++) {
        const json_t *id = json_array_get(ids, i);
        bool is_id =
            json_is_integer(id) && json_integer_value(id) >= 0 && json_integer_value(id) <= INT32_MAX;
        if (is_id)
            token_list_push(out, (int32_t)json_integer_value(id));
        else
            s = E_INVALID;
    }
    if (!ids || s != OK)
        s = error_set(err, E_INVALID, "\"%.40s\" is no list of ids like 1,2,3", text);
    json_decref(ids);
    return s;
}

static enum status decode_ids(const struct tokenizer *t, const struct token_list *ids, struct buffer *out,
                              struct error *err)
{
    for (size_t i = 0; i < ids->n; i++) {
        if (ids->ids[i] >= tokenizer_n_vocab(t))
            return error_set(err, E_INVALID, "there is no token %d: the vocabulary has %d", ids->ids[i],
                             tokenizer_n_vocab(t));
    }
    tokenizer_decode(t, ids->ids, ids->n, out);
    return OK;
}

/* The bytes as they are, or as a JSON string with U+FFFD for what is not UTF-8. */
static void print_text(const struct buffer *text, bool as_json)
{
    struct text_out valid;

    if (!as_json) {
        fwrite(text->data, 1, text->len, stdout);
        putchar('\n');
        return;
    }
    text_out_init(&valid, NULL, NULL, 0);
    text_out_push(&valid, text->data, text->len);
    text_out_flush(&valid);
    json_t *string = json_stringn(valid.ready.data ? valid.ready.data : "", valid.ready.len);
    json_dumpf(string, stdout, JSON_ENCODE_ANY);
    putchar('\n');
    json_decref(string);
    text_out_fini(&valid);
}

int command_detokenize(int argc, char **argv)
{
    struct request r;
    struct vocabulary v = { 0 };
    struct token_list ids = { 0 };
    struct buffer text = { 0 };
    struct error err = { 0 };
    int status = read_arguments(&r, argc, argv, "a list of ids");

    if (status != EXIT_SUCCESS)
        return status;
    if (r.help) {
        printf("Usage: woolly-gguf detokenize FILE IDS [--json]\n"
               "Prints the text of the tokens IDS: 1,2,3 or a JSON array.\n"
               "  --json  as a JSON string\n");
        return command_done();
    }
    if (parse_ids(r.operand, &ids, &err) != OK || vocabulary_open(&v, r.path, &err) != OK) {
        status = command_failed(&err);
    } else {
        if (decode_ids(v.t, &ids, &text, &err) == OK) {
            print_text(&text, r.as_json);
            status = command_done();
        } else {
            status = command_failed(&err);
        }
        vocabulary_close(&v);
    }
    token_list_fini(&ids);
    buffer_fini(&text);
    return status;
}
