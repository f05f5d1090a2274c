/* The filters of strings and numbers, and those that make one of anything. */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"
#include "worker/token/jinja_call.h"
#include "worker/token/jinja_operate.h"
#include "worker/token/jinja_text.h"

static struct jinja_value do_trim(struct jinja_run *r, const struct jinja_args *a)
{
    struct jinja_value chars = jinja_has(a, 0) ? jinja_arg_string(r, a, 0) : jinja_none();
    return jinja_strip(r, jinja_to_string(r, a->self), chars, true, true);
}

static struct jinja_value do_upper(struct jinja_run *r, const struct jinja_args *a)
{
    return jinja_change_case(r, jinja_to_string(r, a->self), jinja_upper);
}

static struct jinja_value do_lower(struct jinja_run *r, const struct jinja_args *a)
{
    return jinja_change_case(r, jinja_to_string(r, a->self), jinja_lower);
}

static struct jinja_value do_capitalize(struct jinja_run *r, const struct jinja_args *a)
{
    return jinja_capitalize(r, jinja_to_string(r, a->self));
}

/* A capital behind white space, a dash or an opening bracket, small letters elsewhere. */
static struct jinja_value do_title(struct jinja_run *r, const struct jinja_args *a)
{
    struct jinja_value s = jinja_to_string(r, a->self);
    struct jinja_text out = { 0 };
    bool starts_word = true;
    char bytes[4];

    jinja_charge(r, s.len / 8);
    for (size_t i = 0; i < s.len;) {
        uint32_t code = 0;
        i += (size_t)utf8_next(s.text + i, s.len - i, &code);
        jinja_text_append(r, &out, bytes,
                          (size_t)utf8_put(starts_word ? jinja_upper(code) : jinja_lower(code), bytes));
        starts_word = jinja_is_space(code) || (code && code < 0x80 && strchr("-({[<", (int)code));
    }
    return jinja_text_value(r, &out);
}

static struct jinja_value do_replace(struct jinja_run *r, const struct jinja_args *a)
{
    return jinja_replace(r, jinja_to_string(r, a->self), jinja_to_string(r, a->bound[0]),
                         jinja_to_string(r, a->bound[1]), jinja_arg_int(r, a, 2, -1));
}

static struct jinja_value do_string(struct jinja_run *r, const struct jinja_args *a)
{
    return jinja_to_string(r, a->self);
}

/* Nothing is escaped unless asked for, so all text is safe. */
static struct jinja_value do_safe(struct jinja_run *r, const struct jinja_args *a)
{
    return jinja_to_string(r, a->self);
}

static struct jinja_value do_escape(struct jinja_run *r, const struct jinja_args *a)
{
    static const char special[] = "&<>'\"";
    static const char *const escapes[] = { "&amp;", "&lt;", "&gt;", "&#39;", "&#34;" };
    struct jinja_value s = jinja_to_string(r, a->self);
    struct jinja_text out = { 0 };

    jinja_charge(r, s.len / 8);
    for (size_t i = 0; i < s.len; i++) {
        const char *p = s.text[i] ? strchr(special, s.text[i]) : NULL;
        if (p)
            jinja_text_puts(r, &out, escapes[p - special]);
        else
            jinja_text_append(r, &out, s.text + i, 1);
    }
    return jinja_text_value(r, &out);
}

static struct jinja_value do_indent(struct jinja_run *r, const struct jinja_args *a)
{
    struct jinja_text out = { 0 };
    struct jinja_value s = jinja_to_string(r, a->self), by = a->bound[0];
    bool first = jinja_arg_truth(a, 1, false), blank = jinja_arg_truth(a, 2, false);

    if (by.kind != JINJA_STRING)
        by = jinja_operate(r, '*', jinja_string(r, " ", 1), jinja_int(jinja_arg_int(r, a, 0, 4)));
    /* With one more line end, text that ends in one keeps it. */
    const struct jinja_list *lines =
        jinja_split_lines(r, jinja_concatenate(r, s, jinja_string(r, "\n", 1)), false).list;
    for (size_t i = 0; i < lines->n; i++) {
        struct jinja_value line = lines->items[i];
        if (i)
            jinja_text_puts(r, &out, "\n");
        if (i ? line.len || blank : first)
            jinja_text_append(r, &out, by.text, by.len);
        jinja_text_append(r, &out, line.text, line.len);
    }
    return jinja_text_value(r, &out);
}

static struct jinja_value do_format(struct jinja_run *r, const struct jinja_args *a)
{
    struct jinja_value tuple = jinja_list_new(r, JINJA_TUPLE, a->n);

    for (size_t i = 0; i < a->n; i++)
        jinja_list_push(r, tuple.list, a->v[i]);
    return jinja_format_percent(r, jinja_to_string(r, a->self), tuple);
}

static struct jinja_value do_wordcount(struct jinja_run *r, const struct jinja_args *a)
{
    struct jinja_value s = jinja_to_string(r, a->self);
    int64_t n = 0;
    bool in_word = false;

    jinja_charge(r, s.len / 8);
    for (size_t i = 0; i < s.len;) {
        uint32_t code = 0;
        i += (size_t)utf8_next(s.text + i, s.len - i, &code);
        bool is_word =
            code == '_' || (code >= '0' && code <= '9') || jinja_is_upper(code) || jinja_is_lower(code);
        n += is_word && !in_word;
        in_word = is_word;
    }
    return jinja_int(n);
}

/* The whole of s, but for white space around it, as a number. */
static bool parse_double(struct jinja_run *r, struct jinja_value s, double *out)
{
    struct jinja_value trimmed = jinja_strip(r, s, jinja_none(), true, true);
    char text[64], *end;

    if (!trimmed.len || trimmed.len >= sizeof text || memchr(trimmed.text, 'x', trimmed.len) ||
        memchr(trimmed.text, 'X', trimmed.len) || memchr(trimmed.text, '\0', trimmed.len))
        return false;
    memcpy(text, trimmed.text, trimmed.len);
    text[trimmed.len] = '\0';
    *out = strtod(text, &end);
    return !*end;
}

static bool parse_int(struct jinja_run *r, struct jinja_value s, int base, int64_t *out)
{
    struct jinja_value trimmed = jinja_strip(r, s, jinja_none(), true, true);
    char text[72], *end;

    if (!trimmed.len || trimmed.len >= sizeof text || memchr(trimmed.text, '\0', trimmed.len) ||
        isspace((unsigned char)trimmed.text[trimmed.text[0] == '-' || trimmed.text[0] == '+']))
        return false;
    memcpy(text, trimmed.text, trimmed.len);
    text[trimmed.len] = '\0';
    errno = 0;
    *out = strtoll(text, &end, base);
    if (errno == ERANGE && !*end)
        jinja_fail(r, E_LIMIT, "an integer does not fit into 64 bits");
    return end > text && !*end;
}

static struct jinja_value do_int(struct jinja_run *r, const struct jinja_args *a)
{
    int64_t base = jinja_arg_int(r, a, 1, 10), i;
    struct jinja_value when_none = a->bound[0].kind == JINJA_ABSENT ? jinja_int(0) : a->bound[0];
    double f;

    if (a->self.kind == JINJA_UNDEFINED)
        jinja_fail_undefined(r, a->self);
    if (base < 2 || base > 36)
        jinja_fail(r, E_INVALID, "int: the base must be from 2 to 36");
    if (a->self.kind == JINJA_BOOL || a->self.kind == JINJA_INT)
        return jinja_int(jinja_to_int(a->self));
    if (a->self.kind == JINJA_STRING && parse_int(r, a->self, (int)base, &i))
        return jinja_int(i);
    if (a->self.kind == JINJA_FLOAT)
        f = a->self.f;
    else if (a->self.kind != JINJA_STRING || !parse_double(r, a->self, &f))
        return when_none;
    if (!isfinite(f))
        return when_none;
    if (fabs(f) >= 0x1p63)
        jinja_fail(r, E_LIMIT, "an integer does not fit into 64 bits");
    return jinja_int((int64_t)f);
}

static struct jinja_value do_float(struct jinja_run *r, const struct jinja_args *a)
{
    double f;

    if (a->self.kind == JINJA_UNDEFINED)
        jinja_fail_undefined(r, a->self);
    if (jinja_is_number(a->self))
        return jinja_float(jinja_to_double(a->self));
    if (a->self.kind == JINJA_STRING && parse_double(r, a->self, &f))
        return jinja_float(f);
    return a->bound[0].kind == JINJA_ABSENT ? jinja_float(0) : a->bound[0];
}

static void need_number(struct jinja_run *r, const struct jinja_args *a)
{
    if (a->self.kind == JINJA_UNDEFINED)
        jinja_fail_undefined(r, a->self);
    if (!jinja_is_number(a->self))
        jinja_fail(r, E_INVALID, "%s needs a number, not a '%s'", a->entry->name, jinja_kind_name(a->self));
}

static struct jinja_value do_abs(struct jinja_run *r, const struct jinja_args *a)
{
    need_number(r, a);
    if (a->self.kind == JINJA_FLOAT)
        return jinja_float(fabs(a->self.f));
    return jinja_to_int(a->self) < 0 ? jinja_negate(r, a->self) : jinja_int(jinja_to_int(a->self));
}

static struct jinja_value do_round(struct jinja_run *r, const struct jinja_args *a)
{
    int64_t places = jinja_arg_int(r, a, 0, 0);
    char text[400];

    need_number(r, a);
    if (places < 0 || places > 30)
        jinja_fail(r, E_UNSUPPORTED, "round: a precision outside of 0 to 30 is not supported");
    double f = jinja_to_double(a->self), scale = pow(10, (double)places);
    if (jinja_has(a, 1) && jinja_is_text(a->bound[1], "ceil"))
        return jinja_float(ceil(f * scale) / scale);
    if (jinja_has(a, 1) && jinja_is_text(a->bound[1], "floor"))
        return jinja_float(floor(f * scale) / scale);
    /* The decimal nearest to the number itself, as Python rounds. */
    snprintf(text, sizeof text, "%.*f", (int)places, f);
    struct jinja_value rounded = jinja_float(strtod(text, NULL));
    return a->self.kind == JINJA_FLOAT ? rounded : jinja_int(jinja_to_int(a->self));
}

static struct jinja_value do_default(struct jinja_run *r, const struct jinja_args *a)
{
    bool is_missing =
        a->self.kind == JINJA_UNDEFINED || (jinja_arg_truth(a, 1, false) && !jinja_truth(a->self));

    if (!is_missing)
        return a->self;
    return a->bound[0].kind == JINJA_ABSENT ? jinja_string(r, "", 0) : a->bound[0];
}

static void set_separators(struct jinja_run *r, const struct jinja_args *a, struct jinja_json_style *style)
{
    struct jinja_value pair = a->bound[2];

    style->item_separator = jinja_string_z(r, style->has_indent ? "," : ", ");
    style->colon_separator = jinja_string_z(r, ": ");
    if (!jinja_has(a, 2))
        return;
    bool is_pair = (pair.kind == JINJA_LIST || pair.kind == JINJA_TUPLE) && pair.list->n == 2 &&
                   pair.list->items[0].kind == JINJA_STRING && pair.list->items[1].kind == JINJA_STRING;
    if (!is_pair)
        jinja_fail(r, E_INVALID, "tojson: separators must be two strings");
    style->item_separator = pair.list->items[0];
    style->colon_separator = pair.list->items[1];
}

/* As Hugging Face has it, not Jinja2: nothing is escaped for HTML. */
static struct jinja_value do_tojson(struct jinja_run *r, const struct jinja_args *a)
{
    struct jinja_json_style style = { .ascii = jinja_arg_truth(a, 0, false),
                                      .has_indent = jinja_has(a, 1),
                                      .sort_keys = jinja_arg_truth(a, 3, false) };
    struct jinja_text out = { 0 };

    style.indent = a->bound[1];
    if (style.has_indent && style.indent.kind != JINJA_STRING)
        style.indent = jinja_operate(r, '*', jinja_string(r, " ", 1), jinja_int(jinja_arg_int(r, a, 1, 0)));
    set_separators(r, a, &style);
    jinja_print_json(r, &out, a->self, &style);
    return jinja_text_value(r, &out);
}

const struct jinja_entry jinja_text_filters[] = {
    { "trim", do_trim, { "chars" }, 0, false },
    { "tojson", do_tojson, { "ensure_ascii", "indent", "separators", "sort_keys" }, 0, false },
    { "default", do_default, { "default_value", "boolean" }, 0, false },
    { "d", do_default, { "default_value", "boolean" }, 0, false },
    { "upper", do_upper, { NULL }, 0, false },
    { "lower", do_lower, { NULL }, 0, false },
    { "capitalize", do_capitalize, { NULL }, 0, false },
    { "title", do_title, { NULL }, 0, false },
    { "replace", do_replace, { "old", "new", "count" }, 2, false },
    { "string", do_string, { NULL }, 0, false },
    { "safe", do_safe, { NULL }, 0, false },
    { "escape", do_escape, { NULL }, 0, false },
    { "e", do_escape, { NULL }, 0, false },
    { "forceescape", do_escape, { NULL }, 0, false },
    { "indent", do_indent, { "width", "first", "blank" }, 0, false },
    { "format", do_format, { NULL }, 0, true },
    { "wordcount", do_wordcount, { NULL }, 0, false },
    { "int", do_int, { "default", "base" }, 0, false },
    { "float", do_float, { "default" }, 0, false },
    { "abs", do_abs, { NULL }, 0, false },
    { "round", do_round, { "precision", "method" }, 0, false },
    { 0 },
};
