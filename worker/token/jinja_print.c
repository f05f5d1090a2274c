/* str() and repr() of values, as Python writes them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"
#include "worker/token/jinja_call.h"
#include "worker/token/jinja_value.h"

/* digits 1..17 of f and its decimal exponent, from the shortest text that reads back. */
static int shortest_digits(double f, char *digits, int *exponent)
{
    char text[40];

    for (int precision = 0; precision < 17; precision++) {
        snprintf(text, sizeof text, "%.*e", precision, f);
        if (precision == 16 || strtod(text, NULL) == f)
            break;
    }
    int n = 0;
    const char *p = text;
    for (; *p && *p != 'e'; p++) {
        if (*p >= '0' && *p <= '9')
            digits[n++] = *p;
    }
    digits[n] = '\0';
    *exponent = *p ? atoi(p + 1) : 0;
    return n;
}

void jinja_format_double(double f, char *out)
{
    enum { SIZE = 40, FIXED_FROM = -4, FIXED_BELOW = 16 };
    char digits[24];
    int exponent;

    if (isnan(f) || isinf(f)) {
        strcpy(out, isnan(f) ? "nan" : f < 0 ? "-inf" : "inf");
        return;
    }
    const char *sign = signbit(f) ? "-" : "";
    int n = shortest_digits(fabs(f), digits, &exponent);
    if (exponent < FIXED_FROM || exponent >= FIXED_BELOW)
        snprintf(out, SIZE, "%s%c%s%se%c%02d", sign, digits[0], n > 1 ? "." : "", digits + 1,
                 exponent < 0 ? '-' : '+', abs(exponent));
    else if (exponent < 0)
        snprintf(out, SIZE, "%s0.%.*s%s", sign, -exponent - 1, "0000", digits);
    else if (n <= exponent + 1)
        snprintf(out, SIZE, "%s%s%.*s.0", sign, digits, exponent + 1 - n, "0000000000000000");
    else
        snprintf(out, SIZE, "%s%.*s.%s", sign, exponent + 1, digits, digits + exponent + 1);
}

static void print_string_quoted(struct jinja_run *r, struct jinja_text *out, struct jinja_value v)
{
    bool has_single = memchr(v.text, '\'', v.len), has_double = memchr(v.text, '"', v.len);
    char quote = has_single && !has_double ? '"' : '\'';

    jinja_text_append(r, out, &quote, 1);
    for (size_t i = 0; i < v.len;) {
        uint32_t code = 0;
        char escape[12] = "";
        int n = utf8_next(v.text + i, v.len - i, &code);
        n = n > 0 ? n : 1;
        if (code == '\n' || code == '\r' || code == '\t')
            snprintf(escape, sizeof escape, "\\%c", code == '\n' ? 'n' : code == '\r' ? 'r' : 't');
        else if (code == '\\' || code == (unsigned char)quote)
            snprintf(escape, sizeof escape, "\\%c", (char)code);
        else if (code < 0x20 || (code >= 0x7f && code <= 0xa0) || code == 0xad)
            snprintf(escape, sizeof escape, "\\x%02x", code);
        if (*escape)
            jinja_text_puts(r, out, escape);
        else
            jinja_text_append(r, out, v.text + i, (size_t)n);
        i += (size_t)n;
    }
    jinja_text_append(r, out, &quote, 1);
}

static void print_list(struct jinja_run *r, struct jinja_text *out, struct jinja_value v)
{
    bool is_tuple = v.kind == JINJA_TUPLE;

    jinja_text_puts(r, out, is_tuple ? "(" : "[");
    for (size_t i = 0; i < v.list->n; i++) {
        if (i)
            jinja_text_puts(r, out, ", ");
        jinja_print_quoted(r, out, v.list->items[i]);
    }
    if (is_tuple && v.list->n == 1)
        jinja_text_puts(r, out, ",");
    jinja_text_puts(r, out, is_tuple ? ")" : "]");
}

static void print_dict(struct jinja_run *r, struct jinja_text *out, struct jinja_value v)
{
    jinja_text_puts(r, out, v.kind == JINJA_NAMESPACE ? "<Namespace {" : "{");
    for (size_t i = 0; i < v.dict->n; i++) {
        if (i)
            jinja_text_puts(r, out, ", ");
        jinja_print_quoted(r, out, v.dict->pairs[i].key);
        jinja_text_puts(r, out, ": ");
        jinja_print_quoted(r, out, v.dict->pairs[i].value);
    }
    jinja_text_puts(r, out, v.kind == JINJA_NAMESPACE ? "}>" : "}");
}

static void print_number(struct jinja_run *r, struct jinja_text *out, struct jinja_value v)
{
    char text[40];

    if (v.kind == JINJA_FLOAT)
        jinja_format_double(v.f, text);
    else
        snprintf(text, sizeof text, "%lld", (long long)v.i);
    jinja_text_puts(r, out, text);
}

void jinja_print_quoted(struct jinja_run *r, struct jinja_text *out, struct jinja_value v)
{
    if (v.kind == JINJA_STRING)
        print_string_quoted(r, out, v);
    else if (v.kind == JINJA_UNDEFINED)
        jinja_text_puts(r, out, "Undefined");
    else
        jinja_print(r, out, v);
}

void jinja_print(struct jinja_run *r, struct jinja_text *out, struct jinja_value v)
{
    jinja_enter(r);
    jinja_charge(r, 1);
    switch ((enum jinja_kind)v.kind) {
    case JINJA_UNDEFINED:
    case JINJA_ABSENT:
        break;
    case JINJA_NONE:
        jinja_text_puts(r, out, "None");
        break;
    case JINJA_BOOL:
        jinja_text_puts(r, out, v.truth ? "True" : "False");
        break;
    case JINJA_INT:
    case JINJA_FLOAT:
        print_number(r, out, v);
        break;
    case JINJA_STRING:
        jinja_text_append(r, out, v.text, v.len);
        break;
    case JINJA_LIST:
    case JINJA_TUPLE:
    case JINJA_GENERATOR:
        print_list(r, out, v);
        break;
    case JINJA_DICT:
    case JINJA_NAMESPACE:
        print_dict(r, out, v);
        break;
    case JINJA_LOOP:
    case JINJA_CALLABLE:
        jinja_text_puts(r, out, v.kind == JINJA_LOOP ? "<LoopContext>" : "<function>");
        break;
    }
    r->depth--;
}

struct jinja_value jinja_to_string(struct jinja_run *r, struct jinja_value v)
{
    struct jinja_text text = { 0 };

    if (v.kind == JINJA_STRING)
        return v;
    jinja_print(r, &text, v);
    return jinja_text_value(r, &text);
}
