#include "worker/token/jinja_parse.h"

#include <stdio.h>
#include <string.h>

static struct jinja_node *parse_until(struct jinja_parser *p, const char *const *ends);

void jinja_chain_add(struct jinja_chain *c, struct jinja_node *n)
{
    if (!c->first)
        c->first = n;
    if (c->end)
        *c->end = n;
    c->end = &n->next;
}

struct jinja_node *jinja_new_node(struct jinja_parser *p, enum jinja_node_kind kind)
{
    struct jinja_node *n = jinja_alloc_zeroed(p->run, sizeof *n);

    n->kind = (uint8_t)kind;
    n->at = p->now->at;
    return n;
}

void jinja_next_token(struct jinja_parser *p)
{
    if (p->now->kind != JINJA_TOKEN_END)
        p->now++;
    p->run->at = p->now->at;
}

bool jinja_at_op(const struct jinja_parser *p, unsigned op)
{
    return p->now->kind == JINJA_TOKEN_OPERATOR && p->now->op == op;
}

bool jinja_at_name(const struct jinja_parser *p, const char *name)
{
    return p->now->kind == JINJA_TOKEN_NAME && jinja_is_text(p->now->value, name);
}

bool jinja_take_op(struct jinja_parser *p, unsigned op)
{
    bool is_here = jinja_at_op(p, op);

    if (is_here)
        jinja_next_token(p);
    return is_here;
}

bool jinja_take_name(struct jinja_parser *p, const char *name)
{
    bool is_here = jinja_at_name(p, name);

    if (is_here)
        jinja_next_token(p);
    return is_here;
}

noreturn void jinja_fail_unexpected(struct jinja_parser *p, const char *wanted)
{
    char found[80];

    jinja_fail(p->run, E_FORMAT, "expected %s, found %s", wanted, jinja_token_describe(p->now, found));
}

void jinja_expect_op(struct jinja_parser *p, unsigned op)
{
    char wanted[] = { '\'', (char)op, '\'', '\0' };

    if (!jinja_take_op(p, op))
        jinja_fail_unexpected(p, wanted);
}

struct jinja_value jinja_expect_name(struct jinja_parser *p)
{
    if (p->now->kind != JINJA_TOKEN_NAME)
        jinja_fail_unexpected(p, "a name");
    struct jinja_value name = p->now->value;
    jinja_next_token(p);
    return name;
}

static void expect_end_of_tag(struct jinja_parser *p)
{
    if (p->now->kind != JINJA_TOKEN_BLOCK_END)
        jinja_fail_unexpected(p, "the end of the tag");
    jinja_next_token(p);
}

/* The statements up to the tag `end`, which is taken. */
static struct jinja_node *parse_body(struct jinja_parser *p, const char *end)
{
    const char *const ends[] = { end, NULL };

    expect_end_of_tag(p);
    struct jinja_node *body = parse_until(p, ends);
    jinja_next_token(p);
    expect_end_of_tag(p);
    return body;
}

/* A body that is a function of its own: break and continue do not reach out of it. */
static struct jinja_node *parse_apart(struct jinja_parser *p, const char *end)
{
    int loops = p->loops;

    p->loops = 0;
    struct jinja_node *body = parse_body(p, end);
    p->loops = loops;
    return body;
}

static struct jinja_node *parse_if(struct jinja_parser *p)
{
    static const char *const ends[] = { "endif", "elif", "else", NULL };
    struct jinja_node *first = jinja_new_node(p, JINJA_IF), *n = first;

    for (;;) {
        jinja_next_token(p);
        n->a = jinja_parse_tuple(p, false);
        expect_end_of_tag(p);
        n->body = parse_until(p, ends);
        if (!jinja_at_name(p, "elif"))
            break;
        n->other = jinja_new_node(p, JINJA_IF);
        n = n->other;
        n->op = 1;
    }
    if (jinja_take_name(p, "else")) {
        n->other = parse_body(p, "endif");
    } else {
        jinja_next_token(p);
        expect_end_of_tag(p);
    }
    return first;
}

static struct jinja_node *parse_for(struct jinja_parser *p)
{
    static const char *const ends[] = { "endfor", "else", NULL };
    struct jinja_node *n = jinja_new_node(p, JINJA_FOR);

    jinja_next_token(p);
    n->b = jinja_parse_target(p);
    if (!jinja_take_name(p, "in"))
        jinja_fail_unexpected(p, "'in'");
    n->a = jinja_parse_tuple(p, false);
    if (jinja_take_name(p, "if"))
        n->c = jinja_parse_expression(p);
    jinja_take_name(p, "recursive"); /* matters only to those that call loop(), which fails */
    expect_end_of_tag(p);
    p->loops++;
    n->body = parse_until(p, ends);
    p->loops--;
    if (jinja_take_name(p, "else")) {
        n->other = parse_body(p, "endfor");
    } else {
        jinja_next_token(p);
        expect_end_of_tag(p);
    }
    return n;
}

static struct jinja_node *parse_set(struct jinja_parser *p)
{
    struct jinja_node *n = jinja_new_node(p, JINJA_SET);

    jinja_next_token(p);
    n->b = jinja_parse_target(p);
    if (jinja_take_op(p, '=')) {
        n->a = jinja_parse_tuple(p, true);
        expect_end_of_tag(p);
        return n;
    }
    n->kind = JINJA_SET_BLOCK;
    n->a = jinja_parse_filters(p, NULL, false);
    n->body = parse_apart(p, "endset");
    return n;
}

static struct jinja_node *parse_macro_body(struct jinja_parser *p, struct jinja_node *macro, const char *end)
{
    struct jinja_node *outer = p->macro;

    p->macro = macro;
    macro->body = parse_apart(p, end);
    p->macro = outer;
    return macro;
}

static struct jinja_node *parse_macro(struct jinja_parser *p)
{
    struct jinja_node *n = jinja_new_node(p, JINJA_MACRO);

    jinja_next_token(p);
    n->value = jinja_expect_name(p);
    n->named = jinja_parse_parameters(p);
    return parse_macro_body(p, n, "endmacro");
}

static struct jinja_node *parse_call_block(struct jinja_parser *p)
{
    struct jinja_node *n = jinja_new_node(p, JINJA_CALL_BLOCK);

    jinja_next_token(p);
    n->c = jinja_new_node(p, JINJA_MACRO);
    n->c->value = jinja_string_z(p->run, "caller");
    if (jinja_at_op(p, '('))
        n->c->named = jinja_parse_parameters(p);
    n->a = jinja_parse_expression(p);
    if (n->a->kind != JINJA_CALL)
        jinja_fail(p->run, E_FORMAT, "expected the call of a macro");
    parse_macro_body(p, n->c, "endcall");
    return n;
}

static struct jinja_node *parse_filter_block(struct jinja_parser *p)
{
    struct jinja_node *n = jinja_new_node(p, JINJA_FILTER_BLOCK);

    jinja_next_token(p);
    n->a = jinja_parse_filters(p, NULL, true);
    n->body = parse_apart(p, "endfilter");
    return n;
}

static struct jinja_node *parse_with(struct jinja_parser *p)
{
    struct jinja_node *n = jinja_new_node(p, JINJA_WITH);
    struct jinja_chain items = { NULL, &n->items };

    jinja_next_token(p);
    while (p->now->kind != JINJA_TOKEN_BLOCK_END) {
        struct jinja_node *target = jinja_new_node(p, JINJA_NAME);
        target->value = jinja_expect_name(p);
        jinja_chain_add(&items, target);
        jinja_expect_op(p, '=');
        jinja_chain_add(&items, jinja_parse_expression(p));
        if (!jinja_take_op(p, ','))
            break;
    }
    n->body = parse_body(p, "endwith");
    return n;
}

/* What Hugging Face marks the assistant's words with, to find them again in training. */
static struct jinja_node *parse_generation(struct jinja_parser *p)
{
    struct jinja_node *n = jinja_new_node(p, JINJA_SCOPE);

    jinja_next_token(p);
    n->body = parse_apart(p, "endgeneration");
    return n;
}

static struct jinja_node *parse_jump(struct jinja_parser *p)
{
    struct jinja_node *n = jinja_new_node(p, jinja_at_name(p, "break") ? JINJA_BREAK : JINJA_CONTINUE);

    if (!p->loops)
        jinja_fail_unexpected(p, "a loop around it");
    jinja_next_token(p);
    expect_end_of_tag(p);
    return n;
}

static const struct {
    const char *name;
    struct jinja_node *(*parse)(struct jinja_parser *);
} statements[] = {
    { "if", parse_if },           { "for", parse_for },
    { "set", parse_set },         { "macro", parse_macro },
    { "call", parse_call_block }, { "filter", parse_filter_block },
    { "with", parse_with },       { "generation", parse_generation },
    { "break", parse_jump },      { "continue", parse_jump },
};

static struct jinja_node *parse_statement(struct jinja_parser *p)
{
    char found[80];

    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++) {
        if (jinja_at_name(p, statements[i].name))
            return statements[i].parse(p);
    }
    jinja_fail(p->run, E_FORMAT, "there is no tag %s", jinja_token_describe(p->now, found));
}

static bool at_one_of(const struct jinja_parser *p, const char *const *ends)
{
    for (; *ends; ends++) {
        if (jinja_at_name(p, *ends))
            return true;
    }
    return false;
}

static struct jinja_node *parse_print(struct jinja_parser *p)
{
    struct jinja_node *n = jinja_new_node(p, JINJA_PRINT);

    jinja_next_token(p);
    n->a = jinja_parse_tuple(p, true);
    if (p->now->kind != JINJA_TOKEN_PRINT_END)
        jinja_fail_unexpected(p, "the end of the tag");
    jinja_next_token(p);
    return n;
}

/* The statements up to a tag with one of these names, which is then the current token; with no names, up to
 * the end of the template. */
static struct jinja_node *parse_until(struct jinja_parser *p, const char *const *ends)
{
    struct jinja_chain body = { NULL, NULL };
    struct jinja_place begin = p->now->at;

    jinja_enter(p->run);
    for (;;) {
        struct jinja_node *n;
        if (p->now->kind == JINJA_TOKEN_END) {
            if (!*ends)
                break;
            p->run->at = begin;
            jinja_fail(p->run, E_FORMAT, "the block that begins here has no %s", *ends);
        } else if (p->now->kind == JINJA_TOKEN_TEXT) {
            n = jinja_new_node(p, JINJA_TEXT);
            n->value = p->now->value;
            jinja_next_token(p);
        } else if (p->now->kind == JINJA_TOKEN_PRINT_BEGIN) {
            n = parse_print(p);
        } else {
            jinja_next_token(p);
            if (at_one_of(p, ends))
                break;
            n = parse_statement(p);
        }
        jinja_chain_add(&body, n);
    }
    p->run->depth--;
    return body.first;
}

struct jinja_node *jinja_parse_tokens(struct jinja_run *r, const struct jinja_token *tokens)
{
    static const char *const no_ends[] = { NULL };
    struct jinja_parser p = { .run = r, .now = tokens };

    r->at = tokens->at;
    return parse_until(&p, no_ends);
}
