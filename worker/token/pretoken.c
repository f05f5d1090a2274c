/* Names of classes below follow regular expressions: L letters, N numbers, P punctuation, S symbols, M marks.
 *
 * Every matcher decides at a place in time that is constant, or in proportion to what it takes, or (behind
 * white space) twice that; hence the whole is linear in the length of the text. */
#include "worker/token/pretoken.h"

#include <stdint.h>
#include <string.h>

#include "worker/token/unicode.h"

#define SET(class)   (1u << (class))
#define LETTERS      SET(UNICODE_LETTER)
#define NUMBERS      SET(UNICODE_NUMBER)
#define PUNCTUATION  SET(UNICODE_PUNCTUATION)
#define SYMBOLS      SET(UNICODE_SYMBOL)
#define MARKS        SET(UNICODE_MARK)
#define SPACES       SET(UNICODE_SPACE)
#define ALL_BUT(set) (0x7fu & ~(set))
#define N_OF(array)  (int)(sizeof(array) / sizeof(*(array)))

struct range {
    uint32_t first, last;
};

/* Returns where the match at `at` ends, or `at` where there is none; the stretch ends at `end`. */
typedef size_t match_fn(const struct pretoken_step *step, const char *text, size_t at, size_t end);

enum { ASCII_RANGES = 2 }; /* in none of the tables below are more */

struct pretoken_step {
    match_fn *match;
    unsigned set;               /* classes, where the matcher asks for some */
    const char *extra;          /* ASCII characters beyond the set; NULL: none */
    const struct range *ranges; /* ascending */
    int n_ranges;
    int max;     /* of digits; 0: any number */
    bool spaced; /* one white space may stand in front */
};

struct glyph {
    uint32_t code;
    uint32_t bytes; /* 0 at the end */
    unsigned class; /* as a set of one; empty at the end */
};

/* One character of valid UTF-8. */
static inline struct glyph glyph_at(const char *text, size_t at, size_t end)
{
    struct glyph g = { 0 };

    if (at >= end)
        return g;
    const unsigned char *p = (const unsigned char *)text + at;
    if (p[0] < 0x80)
        g = (struct glyph){ p[0], 1, 0 };
    else if (p[0] < 0xe0)
        g = (struct glyph){ (p[0] & 0x1fu) << 6 | (p[1] & 0x3fu), 2, 0 };
    else if (p[0] < 0xf0)
        g = (struct glyph){ (p[0] & 0x0fu) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu), 3, 0 };
    else
        g = (struct glyph){
            (p[0] & 0x07u) << 18 | (p[1] & 0x3fu) << 12 | (p[2] & 0x3fu) << 6 | (p[3] & 0x3fu), 4, 0
        };
    g.class = SET(unicode_class_of(g.code));
    return g;
}

static inline size_t run_end(const char *text, size_t at, size_t end, unsigned set)
{
    for (;;) {
        struct glyph g = glyph_at(text, at, end);
        if (!(g.class & set))
            return at;
        at += g.bytes;
    }
}

/* 's 't 'm 'd 're 've 'll at an apostrophe; `fold` also in capitals. Returns the end, or `at`. */
static size_t match_contraction(const char *text, size_t at, size_t end, bool fold)
{
    unsigned fold_bit = fold ? 0x20 : 0;
    int first = at + 1 < end ? text[at + 1] | (int)fold_bit : 0;
    int second = at + 2 < end ? text[at + 2] | (int)fold_bit : 0;

    if (at >= end || text[at] != '\'')
        return at;
    if (first == 's' || first == 't' || first == 'm' || first == 'd')
        return at + 2;
    if ((first == 'r' && second == 'e') || (first == 'v' && second == 'e') || (first == 'l' && second == 'l'))
        return at + 3;
    return at;
}

/* \s*[\r\n]+ where with_lines, else \s+(?!\S), else \s+ : the last white space in front of something else is
 * left to what follows. */
static size_t match_spaces(const char *text, size_t at, size_t end, bool with_lines)
{
    size_t stop = at, last = at, after_line = at;

    for (struct glyph g; (g = glyph_at(text, stop, end)).class & SPACES; stop += g.bytes) {
        last = stop;
        if (g.code == '\r' || g.code == '\n')
            after_line = stop + 1;
    }
    if (with_lines && after_line > at)
        return after_line;
    return stop < end && last > at ? last : stop;
}

/* 's|'t|'re|'ve|'m|'ll|'d| ?L+| ?N+| ?[^\sLN]+|\s+(?!\S)|\s+ */
static size_t match_gpt2(const struct pretoken_step *step, const char *text, size_t at, size_t end)
{
    size_t after = match_contraction(text, at, end, false), start = at + (text[at] == ' ');

    (void)step;
    if (after > at)
        return after;
    struct glyph g = glyph_at(text, start, end);
    if (g.class & (LETTERS | NUMBERS))
        return run_end(text, start, end, g.class);
    if (g.class & ALL_BUT(SPACES))
        return run_end(text, start, end, ALL_BUT(LETTERS | NUMBERS | SPACES));
    return match_spaces(text, at, end, false);
}

static size_t match_digits(const struct pretoken_step *step, const char *text, size_t at, size_t end)
{
    struct glyph g;

    for (int n = 0; (!step->max || n < step->max) && (g = glyph_at(text, at, end)).class & NUMBERS; n++)
        at += g.bytes;
    return at;
}

/* ?[^\s(set)]+ with the newlines behind it, and what else is in `extra`. */
static size_t match_signs(const struct pretoken_step *step, const char *text, size_t at, size_t end)
{
    size_t start = at + (text[at] == ' ');
    unsigned signs = ALL_BUT(SPACES | NUMBERS | step->set);
    size_t stop = run_end(text, start, end, signs);

    if (stop == start)
        return at;
    while (step->extra && stop < end && text[stop] && strchr(step->extra, text[stop]))
        stop++;
    return stop;
}

/* What the rules behind the first two alternatives have in common: digits, signs, white space. */
static size_t match_no_word(const struct pretoken_step *step, const char *text, size_t at, size_t end)
{
    size_t stop = match_digits(step, text, at, end);

    if (stop == at)
        stop = match_signs(step, text, at, end);
    return stop > at ? stop : match_spaces(text, at, end, true);
}

/* The place after one character that is neither a line's end, a letter nor a number, if there is one. */
static size_t skip_prefix(const struct glyph *g, size_t at)
{
    bool is_prefix = g->class & ALL_BUT(LETTERS | NUMBERS) && g->code != '\r' && g->code != '\n';

    return is_prefix ? at + g->bytes : at;
}

/* [^\r\nLN]?L+|N{1,max}| ?[^\sLN]+[extra]*|\s*[\r\n]+|\s+(?!\S)|\s+ */
static size_t match_ufakzeka(const struct pretoken_step *step, const char *text, size_t at, size_t end)
{
    struct glyph g = glyph_at(text, at, end);
    size_t start = skip_prefix(&g, at), stop = run_end(text, start, end, LETTERS);

    return stop > start ? stop : match_no_word(step, text, at, end);
}

/* (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\nLN]?W+|N{1,max}| ?[^\sWN]+[extra]*|\s*[\r\n]+|\s+(?!\S)|\s+
 * where W is the step's set. */
static size_t match_llama3(const struct pretoken_step *step, const char *text, size_t at, size_t end)
{
    size_t after = match_contraction(text, at, end, true);

    if (after > at)
        return after;
    struct glyph g = glyph_at(text, at, end);
    size_t start = skip_prefix(&g, at);
    size_t stop = run_end(text, start, end, step->set);
    if (stop > start || g.class & step->set)
        return stop;
    return match_no_word(step, text, at, end);
}

/* In the reference engine's reading every letter but A-Z counts as small and every letter but a-z as capital:
 * U*S+ or, where that matches nothing, U+S*. When no small letter follows the capitals, the match gives back
 * capitals until it ends at one that counts as both. */
static size_t match_cased_word(const char *text, size_t at, size_t end, unsigned letters)
{
    size_t after_both = at, stop = at;

    for (struct glyph g; (g = glyph_at(text, stop, end)).class & letters; stop += g.bytes) {
        if (g.code >= 'a' && g.code <= 'z')
            break;
        if (g.code >= 0x80)
            after_both = stop + g.bytes;
    }
    size_t after_capitals = stop;
    for (struct glyph g; (g = glyph_at(text, stop, end)).class & letters; stop += g.bytes) {
        if (g.code >= 'A' && g.code <= 'Z')
            break;
    }
    return stop > after_capitals || after_both == at ? stop : after_both;
}

/* [^\r\nLN]?U*S+|[^\r\nLN]?U+S*|N{1,max}| ?[^\sLN]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+ */
static size_t match_tekken(const struct pretoken_step *step, const char *text, size_t at, size_t end)
{
    struct glyph g = glyph_at(text, at, end);
    size_t start = skip_prefix(&g, at), stop = match_cased_word(text, start, end, LETTERS);

    return stop > start ? stop : match_no_word(step, text, at, end);
}

/* As match_tekken, with a contraction behind a word as part of it. */
static size_t match_gpt4o(const struct pretoken_step *step, const char *text, size_t at, size_t end)
{
    struct glyph g = glyph_at(text, at, end);
    size_t start = skip_prefix(&g, at), stop = match_cased_word(text, start, end, LETTERS);

    if (stop > start)
        return match_contraction(text, stop, end, true);
    return match_no_word(step, text, at, end);
}

/* Whether U*S+ matches at `at`: a small letter, or one that counts as both, stands behind the capitals. */
static bool has_small_ending(const char *text, size_t at, size_t end, unsigned letters)
{
    struct glyph g;

    while ((g = glyph_at(text, at, end)).class & letters && g.code >= 'A' && g.code <= 'Z')
        at += g.bytes;
    return g.class & letters;
}

/* As match_gpt4o, with marks among the letters. A mark may also stand in front of a word; where that makes no
 * U*S+ it is a word of its own. */
static size_t match_granite(const struct pretoken_step *step, const char *text, size_t at, size_t end)
{
    const unsigned letters = LETTERS | MARKS;
    struct glyph g = glyph_at(text, at, end);
    size_t start = skip_prefix(&g, at), stop = start;

    if (!(g.class & MARKS) || has_small_ending(text, start, end, letters))
        stop = match_cased_word(text, start, end, letters);
    if (stop > start || g.class & MARKS)
        return match_contraction(text, stop, end, true);
    return match_no_word(step, text, at, end);
}

/* [^\r\nLN]?[LM]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|N{1,max}| ?[^\sLN]+[extra]*|\s*[\r\n]+|\s+(?!\S)|\s+ : in the
 * reference engine's reading, which makes no difference between capitals and small letters here. */
static size_t match_aya(const struct pretoken_step *step, const char *text, size_t at, size_t end)
{
    struct glyph g = glyph_at(text, at, end);
    size_t start = skip_prefix(&g, at), stop = run_end(text, start, end, LETTERS | MARKS);

    if (stop > start || g.class & MARKS)
        return match_contraction(text, stop, end, true);
    return match_no_word(step, text, at, end);
}

static bool is_in_ranges(const struct pretoken_step *step, const struct glyph *g);

static bool is_word_letter(const struct pretoken_step *step, const struct glyph *g)
{
    return g->class & LETTERS && !is_in_ranges(step, g);
}

/* H+|[^\r\nLN]?L+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|N{1,max}| ?[^\sLN]+[extra]*|\s*[\r\n]+|\s+(?!\S)|\s+ where H,
 * the step's ranges, is no part of L in the second alternative. */
static size_t match_kimi(const struct pretoken_step *step, const char *text, size_t at, size_t end)
{
    struct glyph g = glyph_at(text, at, end);
    size_t stop = at;

    for (struct glyph h; h = glyph_at(text, stop, end), is_in_ranges(step, &h); stop += h.bytes)
        ;
    if (stop > at)
        return stop;
    size_t start = stop = skip_prefix(&g, at);
    for (struct glyph h; h = glyph_at(text, stop, end), is_word_letter(step, &h); stop += h.bytes)
        ;
    return stop > start ? match_contraction(text, stop, end, true) : match_no_word(step, text, at, end);
}

/* (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\nLN]?(?:LM*(?: LM*)*)+|N| ?[^\sLN]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+ :
 * words with single spaces between them stay together. */
static size_t match_exaone_moe(const struct pretoken_step *step, const char *text, size_t at, size_t end)
{
    size_t after = match_contraction(text, at, end, true);

    if (after > at)
        return after;
    struct glyph g = glyph_at(text, at, end);
    size_t start = skip_prefix(&g, at), stop = start;
    for (;;) {
        struct glyph h = glyph_at(text, stop, end);
        if (h.class & LETTERS)
            stop = run_end(text, stop + h.bytes, end, MARKS);
        else if (stop > start && h.code == ' ' && glyph_at(text, stop + 1, end).class & LETTERS)
            stop++;
        else
            break;
    }
    if (stop > start)
        return stop;
    stop = match_digits(step, text, at, end);
    if (stop > at)
        return stop;
    stop = match_signs(step, text, at, end);
    if (stop == at)
        return match_spaces(text, at, end, true);
    return stop + (stop < end && (text[stop] == '\r' || text[stop] == '\n' || text[stop] == '/'));
}

static bool is_ascii_letter(unsigned char c)
{
    return (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
}

/* [ASCII punctuation][A-Za-z]+|[^\r\nLPS]?[LM]+| ?[PS]+[extra]*|\s*[\r\n]+|\s+(?!\S)|\s+ ; without extra
 * [\r\n] in place of \s*[\r\n]+ */
static size_t match_deepseek3(const struct pretoken_step *step, const char *text, size_t at, size_t end)
{
    const unsigned words = LETTERS | MARKS, signs = PUNCTUATION | SYMBOLS;
    struct glyph g = glyph_at(text, at, end);
    size_t stop = at + 1;

    if (g.code < 0x80 && g.class & signs) {
        while (stop < end && is_ascii_letter((unsigned char)text[stop]))
            stop++;
        if (stop > at + 1)
            return stop;
    }
    bool has_prefix = !(g.class & (LETTERS | signs)) && g.code != '\r' && g.code != '\n';
    size_t start = has_prefix ? at + g.bytes : at;
    stop = run_end(text, start, end, words);
    if (stop > start || g.class & words)
        return stop;
    start = at + (g.code == ' ');
    stop = run_end(text, start, end, signs);
    if (stop == start && !step->extra)
        return g.code == '\r' || g.code == '\n' ? at + 1 : match_spaces(text, at, end, false);
    if (stop == start)
        return match_spaces(text, at, end, true);
    while (step->extra && stop < end && text[stop] && strchr(step->extra, text[stop]))
        stop++;
    return stop;
}

/* White space is in no range: that is how the reference engine reads a range that spans some. */
static bool is_in_ranges(const struct pretoken_step *step, const struct glyph *g)
{
    int low = 0, high = g->bytes == 1 && step->n_ranges > ASCII_RANGES ? ASCII_RANGES : step->n_ranges;

    if (!(g->class & ALL_BUT(SPACES)))
        return false;
    if (g->bytes == 1 && step->extra && g->code && strchr(step->extra, (int)g->code))
        return true;
    while (low < high) {
        int middle = (low + high) / 2;
        if (step->ranges[middle].last < g->code)
            low = middle + 1;
        else
            high = middle;
    }
    return low < step->n_ranges && step->ranges[low].first <= g->code;
}

/* \s?[set, ranges, extra]+ */
static size_t match_run(const struct pretoken_step *step, const char *text, size_t at, size_t end)
{
    struct glyph g = glyph_at(text, at, end);
    size_t start = step->spaced && g.class & SPACES ? at + g.bytes : at, stop = start;

    while ((g = glyph_at(text, stop, end)).class & step->set || is_in_ranges(step, &g))
        stop += g.bytes;
    return stop > start ? stop : at;
}

/* [\r\n] */
static size_t match_line_end(const struct pretoken_step *step, const char *text, size_t at, size_t end)
{
    (void)step;
    (void)end;
    return at + (text[at] == '\r' || text[at] == '\n');
}

/* [^\n]+|[\n]+ */
static size_t match_lines(const struct pretoken_step *step, const char *text, size_t at, size_t end)
{
    bool is_line_end = text[at] == '\n';

    (void)step;
    while (at < end && (text[at] == '\n') == is_line_end)
        at++;
    return at;
}

static bool is_ascii_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_ascii_word(char c)
{
    return is_ascii_digit(c) || is_ascii_letter((unsigned char)c) || c == '_';
}

/* The digits up to the end of a word, all together. Behind a digit nothing matches: either those before were
 * no match, or these are part of one; and so no digits are counted twice. For a first step only. */
static size_t match_last_digits(const struct pretoken_step *step, const char *text, size_t at, size_t end)
{
    size_t stop = at;

    (void)step;
    if (at && is_ascii_digit(text[at - 1]))
        return at;
    while (stop < end && is_ascii_digit(text[stop]))
        stop++;
    return stop < end && is_ascii_word(text[stop]) ? at : stop;
}

static bool is_between_digits(const char *text, size_t at, size_t end)
{
    return is_ascii_digit(text[at]) && is_ascii_digit(text[end - 1]);
}

/* In a stretch of digits the first one or two, if the others then come in threes; else all of the stretch.
 * The step's set are numbers of any script, else digits are 0-9, and a stretch that ends in something else is
 * none of digits. */
static size_t match_odd_digits(const struct pretoken_step *step, const char *text, size_t at, size_t end)
{
    size_t n = 0, ends[3] = { at };

    if (!step->set && !is_between_digits(text, at, end))
        return end;
    for (size_t stop = at; stop < end; n++) {
        struct glyph g = glyph_at(text, stop, end);
        if (step->set ? !(g.class & step->set) : !is_ascii_digit(text[stop]))
            break;
        stop += g.bytes;
        if (n + 1 < N_OF(ends))
            ends[n + 1] = stop;
    }
    return n % 3 ? ends[n % 3] : end;
}

/* Behind match_odd_digits: threes in a stretch of digits, else all of the stretch. */
static size_t match_threes(const struct pretoken_step *step, const char *text, size_t at, size_t end)
{
    size_t stop = at;

    (void)step;
    if (!is_between_digits(text, at, end))
        return end;
    while (stop < end && stop < at + 3 && is_ascii_digit(text[stop]))
        stop++;
    return stop;
}

/* [0-9][0-9][0-9] */
static size_t match_three_digits(const struct pretoken_step *step, const char *text, size_t at, size_t end)
{
    (void)step;
    for (size_t i = at; i < at + 3; i++) {
        if (i >= end || !is_ascii_digit(text[i]))
            return at;
    }
    return at + 3;
}

/* \s+$ : also takes everything in front of it, which is a stretch just so; to look for the end of the text
 * from every white space would not be linear. */
static size_t match_trailing_spaces(const struct pretoken_step *step, const char *text, size_t at, size_t end)
{
    size_t after_text = at;

    (void)step;
    for (size_t i = at; i < end;) {
        struct glyph g = glyph_at(text, i, end);
        i += g.bytes;
        if (!(g.class & SPACES))
            after_text = i;
    }
    return after_text > at ? after_text : end;
}

/* \s{512}(?!\S)|\s{256}(?!\S)| ... |\s{4}(?!\S)|\s{1,2}(?!\S)|\s : behind a step that leaves white space
 * without line ends in stretches of their own. All other stretches stay as they are. */
static size_t match_powers_of_spaces(const struct pretoken_step *step, const char *text, size_t at,
                                     size_t end)
{
    enum { MOST = 512 };
    size_t n = 0, stop = at, ends[MOST + 1];
    struct glyph g;

    (void)step;
    for (; n < MOST && (g = glyph_at(text, stop, end)).class & SPACES; ends[++n] = stop += g.bytes)
        ;
    if (!n || (n < MOST && stop < end) || text[end - 1] == '\r' || text[end - 1] == '\n')
        return end;
    size_t power = MOST;
    while (power > n)
        power /= 2;
    return ends[power];
}

/* IMGIMG[A-I]{1,4}Z */
static size_t match_image(const struct pretoken_step *step, const char *text, size_t at, size_t end)
{
    size_t stop = at + 6;

    (void)step;
    if (end - at < 8 || memcmp(text + at, "IMGIMG", 6) != 0)
        return at;
    while (stop < end && stop < at + 10 && text[stop] >= 'A' && text[stop] <= 'I')
        stop++;
    return stop > at + 6 && stop < end && text[stop] == 'Z' ? stop + 1 : at;
}

/* [\t\n]|four spaces|two spaces */
static size_t match_tabs(const struct pretoken_step *step, const char *text, size_t at, size_t end)
{
    (void)step;
    if (text[at] == '\t' || text[at] == '\n')
        return at + 1;
    if (end - at >= 4 && !memcmp(text + at, "    ", 4))
        return at + 4;
    return end - at >= 2 && !memcmp(text + at, "  ", 2) ? at + 2 : at;
}

/* One punctuation mark, or symbol of ASCII. */
static size_t match_one_sign(const struct pretoken_step *step, const char *text, size_t at, size_t end)
{
    struct glyph g = glyph_at(text, at, end);

    (void)step;
    return g.class & PUNCTUATION || (g.bytes == 1 && g.class & SYMBOLS) ? at + g.bytes : at;
}

/* ?[^(\s|.,!?…。，、।۔،)]+ : brackets and bar are members of that set. */
static size_t match_bloom(const struct pretoken_step *step, const char *text, size_t at, size_t end)
{
    size_t start = at + (text[at] == ' '), stop = start;

    for (struct glyph g; (g = glyph_at(text, stop, end)).class & ALL_BUT(SPACES); stop += g.bytes) {
        if (is_in_ranges(step, &g))
            break;
    }
    return stop > start ? stop : at;
}

/* The letters of DeepSeek's first rule: Latin, Greek, Cyrillic and a few more scripts with capitals. */
static const struct range deepseek_letters[] = {
    { 0x0041, 0x005a },   { 0x0061, 0x007a },   { 0x00b5, 0x00b5 },   { 0x00c0, 0x00d6 },
    { 0x00d8, 0x00f6 },   { 0x00f8, 0x01ba },   { 0x01bc, 0x01bf },   { 0x01c4, 0x0293 },
    { 0x0295, 0x02af },   { 0x0370, 0x0373 },   { 0x0376, 0x0377 },   { 0x037b, 0x037d },
    { 0x037f, 0x037f },   { 0x0386, 0x0386 },   { 0x0388, 0x038a },   { 0x038c, 0x038c },
    { 0x038e, 0x03a1 },   { 0x03a3, 0x03f5 },   { 0x03f7, 0x0481 },   { 0x048a, 0x052f },
    { 0x0531, 0x0556 },   { 0x10a0, 0x10c5 },   { 0x13a0, 0x13f5 },   { 0x13f8, 0x13fd },
    { 0x1c90, 0x1cba },   { 0x1cbd, 0x1cbf },   { 0x1d00, 0x1d2b },   { 0x1d6b, 0x1d77 },
    { 0x1d79, 0x1d9a },   { 0x1e00, 0x1f15 },   { 0x1f18, 0x1f1d },   { 0x1f20, 0x1f45 },
    { 0x1f48, 0x1f4d },   { 0x1f50, 0x1f57 },   { 0x1f59, 0x1f59 },   { 0x1f5b, 0x1f5b },
    { 0x1f5d, 0x1f5d },   { 0x1f5f, 0x1f7d },   { 0x1f80, 0x1fb4 },   { 0x1fb6, 0x1fbc },
    { 0x1fbe, 0x1fbe },   { 0x1fc2, 0x1fc4 },   { 0x1fc6, 0x1fcc },   { 0x1fd0, 0x1fd3 },
    { 0x1fd6, 0x1fdb },   { 0x1fe0, 0x1fec },   { 0x1ff2, 0x1ff4 },   { 0x1ff6, 0x1ffc },
    { 0x2102, 0x2102 },   { 0x2107, 0x2107 },   { 0x210a, 0x2113 },   { 0x2115, 0x2115 },
    { 0x2119, 0x211d },   { 0x2124, 0x2124 },   { 0x2126, 0x2126 },   { 0x2128, 0x2128 },
    { 0x212a, 0x212d },   { 0x212f, 0x2134 },   { 0x2139, 0x2139 },   { 0x213c, 0x213f },
    { 0x2145, 0x2149 },   { 0x214e, 0x214e },   { 0x2183, 0x2184 },   { 0x2c00, 0x2c7b },
    { 0x2c7e, 0x2ce4 },   { 0x2ceb, 0x2cee },   { 0x2cf2, 0x2cf3 },   { 0xa640, 0xa66d },
    { 0xa680, 0xa69b },   { 0xa722, 0xa76f },   { 0xa771, 0xa787 },   { 0xa78b, 0xa78e },
    { 0xab70, 0xabbf },   { 0xfb00, 0xfb06 },   { 0xfb13, 0xfb17 },   { 0xff21, 0xff3a },
    { 0xff41, 0xff5a },   { 0x10400, 0x1044f }, { 0x104b0, 0x104d3 }, { 0x104d8, 0x104fb },
    { 0x10c80, 0x10cb2 }, { 0x10cc0, 0x10cf2 }, { 0x118a0, 0x118df }, { 0x1e900, 0x1e943 },
};
static const struct range deepseek_signs[] = {
    { 0x0021, 0x002f }, { 0x003a, 0x007e }, { 0x2018, 0x201f },
    { 0x3000, 0x3002 }, { 0xff01, 0xff0f }, { 0xff1a, 0xff5e },
};
static const struct range deepseek_east_asian[] = { { 0x0800, 0x9fa5 }, { 0xac00, 0xd7ff } };
static const struct range han_and_kana[] = { { 0x3040, 0x30ff }, { 0x4e00, 0x9fa5 } };
static const struct range han[] = {
    { 0x3400, 0x4dbf },   { 0x4e00, 0x9fff },   { 0xf900, 0xfaff },   { 0x20000, 0x2a6df },
    { 0x2a700, 0x2b73f }, { 0x2b740, 0x2ebef }, { 0x2f800, 0x2fa1f },
};
static const struct range korean[] = { { 0x3131, 0x318e }, { 0xac00, 0xd7a3 } };
static const struct range bopomofo[] = { { 0x3105, 0x312f } };
static const struct range east_asian_signs[] = {
    { 0x2014, 0x2014 }, { 0x2018, 0x2019 }, { 0x201c, 0x201d }, { 0x2026, 0x2026 }, { 0x3001, 0x303f },
    { 0xfe30, 0xfe4f }, { 0xff01, 0xff01 }, { 0xff0c, 0xff0c }, { 0xff1a, 0xff1b },
};
static const struct range unspaced_scripts[] = {
    { 0x0e40, 0x0eff }, { 0x1000, 0x109f }, { 0x1100, 0x11ff }, { 0x1780, 0x17ff }, { 0x2f00, 0x2fdf },
    { 0x3040, 0x30ff }, { 0x3400, 0x4dbf }, { 0x4e00, 0x9fff }, { 0xa9e0, 0xa9ff }, { 0xaa60, 0xaa7f },
    { 0xac00, 0xd7af }, { 0xf900, 0xfaff }, { 0xff65, 0xff9f },
};
static const struct range bloom_signs[] = {
    { 0x060c, 0x060c }, { 0x06d4, 0x06d4 }, { 0x0964, 0x0964 },
    { 0x2026, 0x2026 }, { 0x3001, 0x3002 }, { 0xff0c, 0xff0c },
};

#define WITH_RANGES(array) .ranges = (array), .n_ranges = N_OF(array)

static const struct pretoken_step default_steps[] = {
    { .match = match_run, .set = PUNCTUATION, .extra = "$+<=>^~|" },
    { .match = match_gpt2 },
    { .match = match_digits },
    { .match = match_three_digits },
};
static const struct pretoken_step falcon_steps[] = {
    { .match = match_run, .set = PUNCTUATION, .extra = "$+<=>^~|`" },
    { .match = match_gpt2 },
    { .match = match_three_digits },
};
static const struct pretoken_step gpt2_steps[] = { { .match = match_gpt2 } };
static const struct pretoken_step starcoder_steps[] = {
    { .match = match_digits, .max = 1 },
    { .match = match_gpt2 },
};
static const struct pretoken_step llama3_steps[] = {
    { .match = match_llama3, .set = LETTERS, .max = 3, .extra = "\r\n" },
};
static const struct pretoken_step qwen2_steps[] = {
    { .match = match_llama3, .set = LETTERS, .max = 1, .extra = "\r\n" },
};
static const struct pretoken_step qwen35_steps[] = {
    { .match = match_llama3, .set = LETTERS | MARKS, .max = 1, .extra = "\r\n" },
};
static const struct pretoken_step seed_coder_steps[] = {
    { .match = match_llama3, .set = LETTERS, .max = 1 },
};
static const struct pretoken_step minicpm5_steps[] = {
    { .match = match_digits, .max = 3 },
    { .match = match_llama3, .set = LETTERS, .extra = "\r\n" },
};
static const struct pretoken_step tekken_steps[] = {
    { .match = match_tekken, .set = LETTERS, .max = 1, .extra = "\r\n/" },
};
static const struct pretoken_step gpt4o_steps[] = {
    { .match = match_gpt4o, .set = LETTERS, .max = 3, .extra = "\r\n/" },
};
static const struct pretoken_step deepseek_llm_steps[] = {
    { .match = match_line_end },
    { .match = match_run, .spaced = true, WITH_RANGES(deepseek_letters) },
    { .match = match_run, .spaced = true, WITH_RANGES(deepseek_signs) },
    { .match = match_trailing_spaces },
    { .match = match_run, WITH_RANGES(deepseek_east_asian) },
    { .match = match_digits },
};
static const struct pretoken_step deepseek_coder_steps[] = {
    { .match = match_line_end },
    { .match = match_run, .spaced = true, .set = LETTERS },
    { .match = match_run, .spaced = true, .set = PUNCTUATION },
    { .match = match_run, WITH_RANGES(deepseek_east_asian) },
    { .match = match_digits, .max = 1 },
};
static const struct pretoken_step deepseek3_steps[] = {
    { .match = match_digits, .max = 3 },
    { .match = match_run, WITH_RANGES(han_and_kana) },
    { .match = match_deepseek3, .extra = "\r\n" },
};
static const struct pretoken_step spark_steps[] = {
    { .match = match_digits, .max = 3 },
    { .match = match_run, WITH_RANGES(han_and_kana) },
    { .match = match_deepseek3 },
    { .match = match_digits, .max = 1 },
};
static const struct pretoken_step afmoe_steps[] = {
    { .match = match_digits },
    { .match = match_odd_digits, .set = NUMBERS },
    { .match = match_digits, .max = 3 },
    { .match = match_run, WITH_RANGES(unspaced_scripts) },
    { .match = match_deepseek3, .extra = "\r\n" },
};
static const struct pretoken_step superbpe_steps[] = {
    { .match = match_digits },
    { .match = match_odd_digits },
    { .match = match_three_digits },
};
static const struct pretoken_step tiny_aya_steps[] = {
    { .match = match_last_digits },
    { .match = match_odd_digits },
    { .match = match_threes },
    { .match = match_aya, .set = LETTERS, .max = 3, .extra = "\r\n/" },
};
static const struct pretoken_step youtu_steps[] = {
    { .match = match_run, WITH_RANGES(korean) },
    { .match = match_run, WITH_RANGES(east_asian_signs) },
    { .match = match_run, WITH_RANGES(bopomofo) },
    { .match = match_run, WITH_RANGES(han_and_kana) },
    { .match = match_aya, .set = LETTERS, .max = 1, .extra = "\r\n/" },
};
static const struct pretoken_step granite_steps[] = {
    { .match = match_granite, .set = LETTERS, .max = 3, .extra = "\r\n/" },
};
static const struct pretoken_step kimi_steps[] = {
    { .match = match_kimi, .set = LETTERS, .max = 3, .extra = "\r\n", WITH_RANGES(han) },
};
static const struct pretoken_step exaone_moe_steps[] = {
    { .match = match_exaone_moe, .set = LETTERS, .max = 1 },
};
static const struct pretoken_step laguna_steps[] = {
    { .match = match_lines },
    { .match = match_llama3, .set = LETTERS, .max = 1, .extra = "\r\n" },
};
static const struct pretoken_step ufakzeka_steps[] = {
    { .match = match_ufakzeka, .set = LETTERS, .max = 1, .extra = "\r\n" },
};
static const struct pretoken_step jais2_steps[] = {
    { .match = match_llama3, .set = LETTERS, .max = 3, .extra = "\r\n" },
    { .match = match_powers_of_spaces },
};
/* The rule begins with <sentinel:[0-9]+>, which the steps for digits and signs would cut in any case. */
static const struct pretoken_step chameleon_steps[] = {
    { .match = match_image },    { .match = match_tabs }, { .match = match_digits, .max = 1 },
    { .match = match_one_sign }, { .match = match_gpt2 },
};
static const struct pretoken_step bloom_steps[] = {
    { .match = match_bloom, .extra = "()|.,!?", WITH_RANGES(bloom_signs) },
};
static const struct pretoken_step viking_steps[] = {
    { .match = match_bloom, .extra = "()|.,!?", WITH_RANGES(bloom_signs) },
    { .match = match_digits, .max = 1 },
};

#define WITH_STEPS(array) .steps = (array), .n_steps = N_OF(array)

static const struct pretoken_rule rules[] = {
    { " default ", WITH_STEPS(default_steps) },
    { " llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano ",
      WITH_STEPS(llama3_steps), .keeps_whole_words = true, .adds_bos = true },
    { " dbrx smaug-bpe ", WITH_STEPS(llama3_steps) },
    { " glm4 chatglm-bpe ", WITH_STEPS(llama3_steps), .lacks_bos = true },
    { " qwen2 stablelm2 deepseek-r1-qwen kormo f2llmv2 megrez hunyuan solar-open grok-2 bailingmoe "
      "bailingmoe2 llada-moe ",
      WITH_STEPS(qwen2_steps) },
    { " qwen35 ", WITH_STEPS(qwen35_steps) },
    { " seed-coder ", WITH_STEPS(seed_coder_steps) },
    { " minicpm5 ", WITH_STEPS(minicpm5_steps), .keeps_whole_words = true },
    { " gpt-2 phi-2 mpt olmo jais trillion granite-docling exaone4 gigachat a.x-4.0 mellum modern-bert "
      "jina-es jina-de jina-v1-en jina-v2-es jina-v2-de jina-v2-code roberta-bpe ",
      WITH_STEPS(gpt2_steps) },
    { " starcoder refact command-r smollm codeshell exaone minerva-7b mellum2 ",
      WITH_STEPS(starcoder_steps) },
    { " falcon ", WITH_STEPS(falcon_steps) },
    { " tekken ", WITH_STEPS(tekken_steps), .keeps_whole_words = true, .adds_bos = true },
    { " gpt-4o llama4 kanana2 talkie minimax-m2 ", WITH_STEPS(gpt4o_steps) },
    { " deepseek-llm ", WITH_STEPS(deepseek_llm_steps) },
    { " deepseek-coder ", WITH_STEPS(deepseek_coder_steps) },
    { " deepseek-v3 hunyuan-dense joyai-llm hy_v4 ", WITH_STEPS(deepseek3_steps) },
    { " poro-chat bloom gpt3-finnish ", WITH_STEPS(bloom_steps) },
    { " viking ", WITH_STEPS(viking_steps) },
    { " spark2_5 ", WITH_STEPS(spark_steps) },
    { " afmoe ", WITH_STEPS(afmoe_steps) },
    { " superbpe ", WITH_STEPS(superbpe_steps) },
    { " tiny_aya cohere2moe ", WITH_STEPS(tiny_aya_steps) },
    { " youtu ", WITH_STEPS(youtu_steps), .keeps_whole_words = true },
    { " granite-embed-multi-97m ", WITH_STEPS(granite_steps), .keeps_whole_words = true },
    { " kimi-k2 ", WITH_STEPS(kimi_steps) },
    { " exaone-moe ", WITH_STEPS(exaone_moe_steps) },
    { " laguna ", WITH_STEPS(laguna_steps) },
    { " ufakzeka ", WITH_STEPS(ufakzeka_steps) },
    { " jais-2 ", WITH_STEPS(jais2_steps) },
    { " chameleon ", WITH_STEPS(chameleon_steps), .adds_bos = true },
};

static bool has_name(const struct pretoken_rule *rule, struct gguf_string name)
{
    for (const char *at = rule->names + 1; *at;) {
        size_t len = strcspn(at, " ");
        if (len == name.len && !memcmp(at, name.text, len))
            return true;
        at += len + 1;
    }
    return false;
}

const struct pretoken_rule *pretoken_find(struct gguf_string name)
{
    for (int i = 0; i < N_OF(rules); i++) {
        if (has_name(&rules[i], name))
            return &rules[i];
    }
    return NULL;
}

void pretoken_begin(struct pretoken_cut *c, const struct pretoken_rule *rule, const char *text, size_t len)
{
    *c = (struct pretoken_cut){ .rule = rule, .text = text, .ends = { len } };
}

/* The end of the stretch that this step makes at `at`: a match, or what lies in front of the next one. */
static size_t stretch_end(const struct pretoken_step *step, const char *text, size_t at, size_t end)
{
    size_t stop = step->match(step, text, at, end);

    if (stop > at)
        return stop;
    do {
        at += glyph_at(text, at, end).bytes;
    } while (at < end && step->match(step, text, at, end) == at);
    return at;
}

bool pretoken_next(struct pretoken_cut *c, size_t *start, size_t *end)
{
    int n = c->rule->n_steps, step = n;

    if (c->at >= c->ends[0])
        return false;
    while (c->ends[step] <= c->at)
        step--;
    for (; step < n; step++)
        c->ends[step + 1] = stretch_end(&c->rule->steps[step], c->text, c->at, c->ends[step]);
    *start = c->at;
    *end = c->at = c->ends[n];
    return true;
}
