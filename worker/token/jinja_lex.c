#include "worker/token/jinja_lex.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"
#include "worker/token/jinja_text.h"

enum { MAX_BRACKETS = 256 };

struct lexer {
    struct jinja_run *run;
    const char *text;
    size_t len, pos;
    size_t counted; /* up to where run->at was counted */
    struct jinja_token *tokens;
    size_t n, cap;
    char open[MAX_BRACKETS]; /* the brackets that are open inside a tag, as what closes them */
    int n_open;
};

/* Line ends become "\n"; one at the end of the template is dropped. */
static void normalise(struct lexer *x, const char *text, size_t len)
{
    char *copy = jinja_alloc(x->run, len + 1);
    size_t n = 0;

    for (size_t i = 0; i < len; i++) {
        if (text[i] == '\r' && i + 1 < len && text[i + 1] == '\n')
            continue;
        copy[n++] = text[i] == '\r' ? '\n' : text[i];
    }
    if (n && copy[n - 1] == '\n')
        n--;
    copy[n] = '\0';
    x->text = copy;
    x->len = n;
}

/* Makes x->pos the place that errors and tokens are about. */
static void mark_place(struct lexer *x)
{
    struct jinja_place *at = &x->run->at;

    for (; x->counted < x->pos; x->counted++) {
        if (x->text[x->counted] == '\n')
            *at = (struct jinja_place){ at->line + 1, 1 };
        else
            at->column += (x->text[x->counted] & 0xc0) != 0x80;
    }
}

static struct jinja_token *push(struct lexer *x, enum jinja_token_kind kind)
{
    if (x->n == x->cap) {
        size_t cap = x->cap ? x->cap * 2 : 256;
        x->tokens = jinja_realloc(x->run, x->tokens, x->cap * sizeof *x->tokens, cap * sizeof *x->tokens);
        x->cap = cap;
    }
    x->tokens[x->n] = (struct jinja_token){ .kind = (uint8_t)kind, .at = x->run->at };
    return &x->tokens[x->n++];
}

static char peek(const struct lexer *x, size_t ahead)
{
    return x->pos + ahead < x->len ? x->text[x->pos + ahead] : '\0';
}

static bool looking_at(const struct lexer *x, size_t pos, const char *word)
{
    size_t len = strlen(word);
    return x->len - pos >= len && !memcmp(x->text + pos, word, len);
}

static void skip_space(struct lexer *x)
{
    x->pos += jinja_space_before(x->text + x->pos, x->len - x->pos);
}

/* The end of a tag at pos: "%}" with an optional sign in front, and the white space that goes with it. */
static bool take_end(struct lexer *x, const char *end, bool trims_newline)
{
    char sign = peek(x, 0);
    size_t skip = sign == '-' || (sign == '+' && trims_newline) ? 1 : 0;

    if (!looking_at(x, x->pos + skip, end))
        return false;
    x->pos += skip + 2;
    if (skip && sign == '-')
        skip_space(x);
    else if (!skip && trims_newline && peek(x, 0) == '\n')
        x->pos++;
    return true;
}

/* The text from..to stands before a tag with this sign: what of it is printed. */
static void push_text(struct lexer *x, size_t from, size_t to, char sign, bool is_print)
{
    size_t end = to;

    if (sign == '-') {
        end -= jinja_space_after(x->text + from, to - from);
    } else if (sign != '+' && !is_print) {
        size_t blank = to - jinja_space_after(x->text + from, to - from), line = to;
        blank = blank > from ? blank : from;
        while (line > from && x->text[line - 1] != '\n')
            line--;
        bool starts_line = line > from || from == 0 || x->text[from - 1] == '\n';
        if (starts_line && blank <= line)
            end = line;
    }
    if (end > from)
        push(x, JINJA_TOKEN_TEXT)->value = jinja_string(x->run, x->text + from, end - from);
}

static void lex_comment(struct lexer *x)
{
    struct jinja_place begin = x->run->at;

    while (x->pos < x->len) {
        const char *p = memchr(x->text + x->pos, '#', x->len - x->pos);
        if (!p)
            break;
        size_t at = (size_t)(p - x->text);
        bool has_sign = at > x->pos && (p[-1] == '-' || p[-1] == '+');
        x->pos = has_sign ? at - 1 : at;
        if (take_end(x, "#}", true))
            return;
        x->pos = at + 1;
    }
    x->run->at = begin;
    jinja_fail(x->run, E_FORMAT, "this comment has no end");
}

/* "{% raw %}" with pos behind "{%" and its sign; takes it if it is one. */
static bool take_word_tag(struct lexer *x, const char *word, bool trims_newline)
{
    size_t back = x->pos;

    skip_space(x);
    if (looking_at(x, x->pos, word)) {
        x->pos += strlen(word);
        skip_space(x);
        if (take_end(x, "%}", trims_newline))
            return true;
    }
    x->pos = back;
    return false;
}

static char take_sign(struct lexer *x)
{
    char sign = peek(x, 0);

    if (sign != '-' && sign != '+')
        return '\0';
    x->pos++;
    return sign;
}

static void lex_raw(struct lexer *x)
{
    struct jinja_place begin = x->run->at;
    size_t from = x->pos;

    while (x->pos < x->len) {
        const char *p = memmem(x->text + x->pos, x->len - x->pos, "{%", 2);
        if (!p)
            break;
        size_t to = (size_t)(p - x->text);
        x->pos = to + 2;
        char sign = take_sign(x);
        if (take_word_tag(x, "endraw", true)) {
            push_text(x, from, to, sign, false);
            return;
        }
        x->pos = to + 2;
    }
    x->run->at = begin;
    jinja_fail(x->run, E_FORMAT, "this raw block has no endraw");
}

static int hex_digits(const char *p, int n, uint32_t *out)
{
    *out = 0;
    for (int i = 0; i < n; i++) {
        if (!isxdigit((unsigned char)p[i]))
            return 0;
        *out = *out * 16 + (uint32_t)(isdigit((unsigned char)p[i]) ? p[i] - '0' : (p[i] | 32) - 'a' + 10);
    }
    return n;
}

/* The escape behind a backslash: its code point and how many bytes it takes; 0 when it is none and both
 * characters stay. The text ends in a NUL, which is no digit. */
static size_t unescape(struct lexer *x, const char *p, uint32_t *code)
{
    static const char letters[] = "\\'\"abfnrtv", codes[] = "\\'\"\a\b\f\n\r\t\v";
    const char *found = *p ? strchr(letters, *p) : NULL;
    int digits = *p == 'x' ? 2 : *p == 'u' ? 4 : *p == 'U' ? 8 : 0;
    size_t n = 0;

    if (found) {
        *code = (unsigned char)codes[found - letters];
        return 1;
    }
    if (digits) {
        if (!hex_digits(p + 1, digits, code) || *code > 0x10ffff || (*code >= 0xd800 && *code <= 0xdfff))
            jinja_fail(x->run, E_FORMAT, "this string has a broken \\%c escape", *p);
        return (size_t)digits + 1;
    }
    for (*code = 0; n < 3 && p[n] >= '0' && p[n] <= '7'; n++)
        *code = *code * 8 + (uint32_t)(p[n] - '0');
    return n;
}

static void lex_string(struct lexer *x)
{
    char quote = peek(x, 0);
    size_t from = x->pos + 1, end = from;
    struct jinja_token *t = push(x, JINJA_TOKEN_LITERAL);

    while (end < x->len && x->text[end] != quote)
        end += x->text[end] == '\\' ? 2 : 1;
    if (end >= x->len)
        jinja_fail(x->run, E_FORMAT, "this string has no end");
    /* An escape may grow: \377 is three bytes of UTF-8 at most for at least two of source. */
    char *copy = jinja_alloc(x->run, 2 * (end - from) + 4);
    size_t n = 0;
    for (size_t i = from; i < end; i++) {
        uint32_t code;
        size_t taken = x->text[i] == '\\' ? unescape(x, x->text + i + 1, &code) : 0;
        if (x->text[i] == '\\' && x->text[i + 1] == '\n')
            i++; /* a line that goes on */
        else if (!taken)
            copy[n++] = x->text[i];
        else
            n += (size_t)utf8_put(code, copy + n);
        i += taken;
    }
    t->value = jinja_string(x->run, copy, n);
    x->pos = end + 1;
}

/* The digits of a number without the "_" between them, in `out`; returns the bytes of the source. */
static size_t take_digits(const struct lexer *x, size_t from, char *out, size_t size)
{
    size_t n = 0, i = from;

    for (; i < x->len; i++) {
        char c = x->text[i];
        bool joins = c == '_' && i > from && i + 1 < x->len && isdigit((unsigned char)x->text[i + 1]);
        if (!isdigit((unsigned char)c) && !joins)
            break;
        if (c != '_' && n + 1 < size)
            out[n++] = c;
        else if (c != '_')
            break;
    }
    out[n] = '\0';
    return i - from;
}

static void lex_number(struct lexer *x)
{
    enum { SIZE = 100 };
    char whole[SIZE], part[SIZE], text[3 * SIZE];
    struct jinja_token *t = push(x, JINJA_TOKEN_LITERAL);
    bool after_dot = x->pos && x->text[x->pos - 1] == '.', is_float = false;

    if (peek(x, 0) == '0' && peek(x, 1) && strchr("xXbBoO", peek(x, 1))) {
        int base = (peek(x, 1) | 32) == 'x' ? 16 : (peek(x, 1) | 32) == 'b' ? 2 : 8;
        char *end;
        errno = 0;
        t->value = jinja_int(strtoll(x->text + x->pos + 2, &end, base));
        if (errno || !isxdigit((unsigned char)peek(x, 2)))
            jinja_fail(x->run, E_FORMAT, "this is no number of 64 bits");
        x->pos = (size_t)(end - x->text);
        return;
    }
    x->pos += take_digits(x, x->pos, whole, SIZE);
    strcpy(text, whole);
    if (!after_dot && peek(x, 0) == '.' && isdigit((unsigned char)peek(x, 1))) {
        x->pos += 1 + take_digits(x, x->pos + 1, part, SIZE);
        strcat(strcat(text, "."), part);
        is_float = true;
    }
    size_t sign = peek(x, 1) == '+' || peek(x, 1) == '-';
    if (!after_dot && (peek(x, 0) | 32) == 'e' && isdigit((unsigned char)peek(x, 1 + sign))) {
        strcat(text, sign && peek(x, 1) == '-' ? "e-" : "e");
        x->pos += 1 + sign;
        x->pos += take_digits(x, x->pos, part, SIZE);
        strcat(text, part);
        is_float = true;
    }
    errno = 0;
    t->value = is_float ? jinja_float(strtod(text, NULL)) : jinja_int(strtoll(text, NULL, 10));
    if (errno && !is_float)
        jinja_fail(x->run, E_FORMAT, "this number does not fit into 64 bits");
}

static void count_bracket(struct lexer *x, char c)
{
    static const char open[] = "({[", close[] = ")}]";
    const char *opens = strchr(open, c);

    if (opens) {
        if (x->n_open == MAX_BRACKETS)
            jinja_fail(x->run, E_LIMIT, "more than %d brackets are open", MAX_BRACKETS);
        x->open[x->n_open++] = close[opens - open];
    } else if (strchr(close, c)) {
        if (!x->n_open)
            jinja_fail(x->run, E_FORMAT, "this '%c' closes nothing", c);
        if (x->open[--x->n_open] != c)
            jinja_fail(x->run, E_FORMAT, "this is '%c' where '%c' was expected", c, x->open[x->n_open]);
    }
}

static void lex_operator(struct lexer *x)
{
    static const char *const pairs[] = { "//", "**", "==", "!=", ">=", "<=" };
    char c = peek(x, 0);

    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        if (looking_at(x, x->pos, pairs[i])) {
            push(x, JINJA_TOKEN_OPERATOR)->op = (uint16_t)JINJA_OP(pairs[i][0], pairs[i][1]);
            x->pos += 2;
            return;
        }
    }
    if (!c || !strchr("+-/*%~[](){}><=.:|,;", c))
        jinja_fail(x->run, E_FORMAT, "this character does not belong into a tag");
    count_bracket(x, c);
    push(x, JINJA_TOKEN_OPERATOR)->op = (unsigned char)c;
    x->pos++;
}

static bool is_name_byte(char c)
{
    return isalnum((unsigned char)c) || c == '_' || (unsigned char)c >= 0x80;
}

/* The inside of a tag up to its end, with pos behind its beginning. */
static void lex_tag(struct lexer *x, bool is_print)
{
    struct jinja_place begin = x->run->at;

    for (;;) {
        skip_space(x);
        mark_place(x);
        if (x->pos >= x->len)
            break;
        if (!x->n_open && take_end(x, is_print ? "}}" : "%}", !is_print)) {
            push(x, is_print ? JINJA_TOKEN_PRINT_END : JINJA_TOKEN_BLOCK_END);
            return;
        }
        char c = peek(x, 0);
        if (isdigit((unsigned char)c)) {
            lex_number(x);
        } else if (c == '\'' || c == '"') {
            lex_string(x);
        } else if (is_name_byte(c)) {
            size_t from = x->pos;
            while (is_name_byte(peek(x, 0)))
                x->pos++;
            push(x, JINJA_TOKEN_NAME)->value = jinja_string(x->run, x->text + from, x->pos - from);
        } else {
            lex_operator(x);
        }
    }
    x->run->at = begin;
    jinja_fail(x->run, E_FORMAT, "this tag has no end");
}

static size_t find_tag(const struct lexer *x)
{
    for (size_t i = x->pos; i + 1 < x->len; i++) {
        const char *p = memchr(x->text + i, '{', x->len - 1 - i);
        if (!p)
            break;
        i = (size_t)(p - x->text);
        if (p[1] == '%' || p[1] == '{' || p[1] == '#')
            return i;
    }
    return x->len;
}

static void check_utf8(struct lexer *x)
{
    while (x->pos < x->len) {
        int n = utf8_next(x->text + x->pos, x->len - x->pos, NULL);
        if (n <= 0) {
            mark_place(x);
            jinja_fail(x->run, E_FORMAT, "the template is not UTF-8 here");
        }
        x->pos += (size_t)n;
    }
    x->pos = 0;
}

const struct jinja_token *jinja_lex(struct jinja_run *r, const char *text, size_t len)
{
    struct lexer x = { .run = r };

    r->at = (struct jinja_place){ 1, 1 };
    normalise(&x, text, len);
    check_utf8(&x);
    while (x.pos < x.len) {
        size_t from = x.pos, to = find_tag(&x);
        mark_place(&x);
        if (to == x.len) {
            push_text(&x, from, to, '+', false);
            x.pos = to;
            break;
        }
        char tag = x.text[to + 1];
        x.pos = to + 2;
        char sign = take_sign(&x);
        push_text(&x, from, to, sign, tag == '{');
        size_t inside = x.pos;
        x.pos = to;
        mark_place(&x);
        x.pos = inside;
        if (tag == '#') {
            lex_comment(&x);
        } else if (tag == '%' && take_word_tag(&x, "raw", false)) {
            lex_raw(&x);
        } else {
            push(&x, tag == '{' ? JINJA_TOKEN_PRINT_BEGIN : JINJA_TOKEN_BLOCK_BEGIN);
            lex_tag(&x, tag == '{');
        }
    }
    mark_place(&x);
    push(&x, JINJA_TOKEN_END);
    return x.tokens;
}

const char *jinja_token_describe(const struct jinja_token *t, char *out)
{
    enum { SIZE = 80 };
    int len = t->value.len < 40 ? (int)t->value.len : 40;

    switch ((enum jinja_token_kind)t->kind) {
    case JINJA_TOKEN_NAME:
        snprintf(out, SIZE, "'%.*s'", len, t->value.text);
        break;
    case JINJA_TOKEN_OPERATOR:
        snprintf(out, SIZE, "'%c%.*s'", t->op & 0xff, t->op >> 8 ? 1 : 0, (char[]){ (char)(t->op >> 8), 0 });
        break;
    case JINJA_TOKEN_LITERAL:
        snprintf(out, SIZE, "a %s", jinja_kind_name(t->value));
        break;
    case JINJA_TOKEN_BLOCK_END:
    case JINJA_TOKEN_PRINT_END:
        snprintf(out, SIZE, "the end of the tag");
        break;
    default:
        snprintf(out, SIZE, "the end of the template");
        break;
    }
    return out;
}
