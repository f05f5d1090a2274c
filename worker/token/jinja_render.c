#include "worker/token/jinja.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/keyed_hash.h"
#include "worker/token/jinja_eval.h"

/* Measured with the templates of 97 published models on 100 messages of 500 bytes: nearly all take less than
 * 15,000 steps and 0.5 MB. One goes through the messages letter by letter and takes more than 175,000 steps.
 */
const struct jinja_limits jinja_default_limits = {
    .steps = 10000000,
    .memory_bytes = 256 << 20,
    .output_bytes = 64 << 20,
};

enum { PARSE_MEMORY_BYTES = 256 << 20 };

struct jinja_template {
    struct jinja_run run; /* has the memory of the tree */
    const struct jinja_node *body;
};

enum flow { FLOW_NEXT, FLOW_BREAK, FLOW_CONTINUE };

static enum flow run_statements(struct jinja_run *r, struct jinja_scope *s, const struct jinja_node *n);

static void print(struct jinja_run *r, struct jinja_value v)
{
    jinja_print(r, r->out, v);
    if (r->out->len > r->output_limit)
        jinja_fail(r, E_LIMIT, "the template prints more than %zu bytes", r->output_limit);
}

struct jinja_value jinja_capture(struct jinja_run *r, struct jinja_scope *s, const struct jinja_node *n)
{
    struct jinja_text text = { 0 }, *outer = r->out;

    r->out = &text;
    run_statements(r, s, n);
    r->out = outer;
    return jinja_text_value(r, &text);
}

static void assign(struct jinja_run *r, struct jinja_scope *s, const struct jinja_node *target,
                   struct jinja_value v);

static void assign_tuple(struct jinja_run *r, struct jinja_scope *s, const struct jinja_node *target,
                         struct jinja_value v)
{
    const struct jinja_list *items = jinja_items(r, v);
    size_t i = 0;

    for (const struct jinja_node *n = target->items; n; n = n->next, i++) {
        if (i < items->n)
            assign(r, s, n, items->items[i]);
    }
    r->at = target->at;
    if (i != items->n)
        jinja_fail(r, E_INVALID, "%zu values for %zu names", items->n, i);
}

static void assign(struct jinja_run *r, struct jinja_scope *s, const struct jinja_node *target,
                   struct jinja_value v)
{
    r->at = target->at;
    if (target->kind == JINJA_MAKE_TUPLE) {
        assign_tuple(r, s, target, v);
    } else if (target->kind == JINJA_ATTRIBUTE) {
        struct jinja_value object = jinja_eval(r, s, target->a);
        r->at = target->at;
        if (object.kind != JINJA_NAMESPACE)
            jinja_fail(r, E_INVALID, "cannot assign to an attribute of a '%s' object, only of a namespace",
                       jinja_kind_name(object));
        jinja_dict_put(r, object.dict, target->value, v);
    } else {
        jinja_dict_put(r, &s->vars, target->value, v);
    }
}

/* The scope of the next turn of a loop: the same one emptied, unless a macro still refers to it. */
static struct jinja_scope *next_turn(struct jinja_run *r, struct jinja_scope *turn, struct jinja_scope *outer)
{
    if (!turn || turn->is_kept)
        return jinja_scope_new(r, outer);
    turn->vars.n = 0;
    turn->vars.n_slots = 0;
    return turn;
}

static struct jinja_list *filter_items(struct jinja_run *r, struct jinja_scope *s, const struct jinja_node *n,
                                       const struct jinja_list *all)
{
    struct jinja_list *kept = jinja_list_new(r, JINJA_LIST, 0).list;
    struct jinja_scope *turn = NULL;

    for (size_t i = 0; i < all->n; i++) {
        turn = next_turn(r, turn, s);
        assign(r, turn, n->b, all->items[i]);
        if (jinja_truth(jinja_eval(r, turn, n->c)))
            jinja_list_push(r, kept, all->items[i]);
    }
    return kept;
}

static enum flow run_for(struct jinja_run *r, struct jinja_scope *s, const struct jinja_node *n)
{
    struct jinja_value over = jinja_eval(r, s, n->a), name = jinja_string_z(r, "loop");
    struct jinja_scope *turn = NULL;

    r->at = n->a->at;
    const struct jinja_list *items = jinja_items(r, over);
    if (n->c)
        items = filter_items(r, s, n, items);
    struct jinja_loop *loop = jinja_alloc_zeroed(r, sizeof *loop);
    loop->items = items;
    loop->changed.kind = JINJA_ABSENT;
    for (loop->index = 0; loop->index < items->n; loop->index++) {
        jinja_charge(r, 1);
        turn = next_turn(r, turn, s);
        jinja_dict_put(r, &turn->vars, name, (struct jinja_value){ .kind = JINJA_LOOP, .loop = loop });
        assign(r, turn, n->b, items->items[loop->index]);
        if (run_statements(r, turn, n->body) == FLOW_BREAK)
            break;
    }
    return items->n ? FLOW_NEXT : run_statements(r, jinja_scope_new(r, s), n->other);
}

static enum flow run_if(struct jinja_run *r, struct jinja_scope *s, const struct jinja_node *n)
{
    for (;;) {
        if (jinja_truth(jinja_eval(r, s, n->a)))
            return run_statements(r, s, n->body);
        if (!n->other || n->other->kind != JINJA_IF || !n->other->op)
            return run_statements(r, s, n->other);
        n = n->other;
    }
}

static void run_set_block(struct jinja_run *r, struct jinja_scope *s, const struct jinja_node *n)
{
    struct jinja_value text = jinja_capture(r, jinja_scope_new(r, s), n->body);

    assign(r, s, n->b, n->a ? jinja_eval_filters(r, s, n->a, text) : text);
}

static enum flow run_with(struct jinja_run *r, struct jinja_scope *s, const struct jinja_node *n)
{
    struct jinja_scope *inner = jinja_scope_new(r, s);

    for (const struct jinja_node *target = n->items; target; target = target->next->next)
        assign(r, inner, target, jinja_eval(r, s, target->next));
    return run_statements(r, inner, n->body);
}

static enum flow run_statement(struct jinja_run *r, struct jinja_scope *s, const struct jinja_node *n)
{
    struct jinja_value v;

    switch ((enum jinja_node_kind)n->kind) {
    case JINJA_TEXT:
        print(r, n->value);
        return FLOW_NEXT;
    case JINJA_PRINT:
        print(r, jinja_eval(r, s, n->a));
        return FLOW_NEXT;
    case JINJA_IF:
        return run_if(r, s, n);
    case JINJA_FOR:
        return run_for(r, s, n);
    case JINJA_SET:
        assign(r, s, n->b, jinja_eval(r, s, n->a));
        return FLOW_NEXT;
    case JINJA_SET_BLOCK:
        run_set_block(r, s, n);
        return FLOW_NEXT;
    case JINJA_MACRO:
        jinja_dict_put(r, &s->vars, n->value, jinja_make_macro(r, s, n));
        return FLOW_NEXT;
    case JINJA_CALL_BLOCK:
        v = jinja_make_macro(r, s, n->c);
        print(r, jinja_eval_call(r, s, n->a, &v));
        return FLOW_NEXT;
    case JINJA_FILTER_BLOCK:
        v = jinja_capture(r, jinja_scope_new(r, s), n->body);
        print(r, jinja_eval_filters(r, s, n->a, v));
        return FLOW_NEXT;
    case JINJA_WITH:
        return run_with(r, s, n);
    case JINJA_SCOPE:
        return run_statements(r, jinja_scope_new(r, s), n->body);
    case JINJA_BREAK:
        return FLOW_BREAK;
    case JINJA_CONTINUE:
        return FLOW_CONTINUE;
    default:
        jinja_fail(r, E_INTERNAL, "an expression stands where a statement belongs");
    }
}

static enum flow run_statements(struct jinja_run *r, struct jinja_scope *s, const struct jinja_node *n)
{
    enum flow flow = FLOW_NEXT;

    jinja_enter(r);
    for (; n && flow == FLOW_NEXT; n = n->next) {
        jinja_charge(r, 1);
        r->at = n->at;
        flow = run_statement(r, s, n);
    }
    r->depth--;
    return flow;
}

static enum status parse_in(struct jinja_template *t, const char *text, size_t len)
{
    if (setjmp(t->run.escape))
        return t->run.status;
    t->body = jinja_parse_tokens(&t->run, jinja_lex(&t->run, text, len));
    return OK;
}

enum status jinja_parse(struct jinja_template **out, const char *text, size_t len, struct error *err)
{
    *out = NULL;
    if (len > JINJA_MAX_TEMPLATE_BYTES)
        return error_set(err, E_LIMIT, "the template has %zu bytes, more than %d KiB", len,
                         JINJA_MAX_TEMPLATE_BYTES >> 10);
    struct jinja_template *t = calloc(1, sizeof *t);
    if (!t)
        return error_set(err, E_NOMEM, "no memory for the template");
    t->run.err = err;
    t->run.limit = PARSE_MEMORY_BYTES;
    t->run.steps = t->run.steps_left = UINT64_MAX;
    enum status s = parse_in(t, text, len);
    t->run.err = NULL;
    if (s == OK)
        *out = t;
    else
        jinja_template_destroy(t);
    return s;
}

void jinja_template_destroy(struct jinja_template *t)
{
    if (!t)
        return;
    jinja_run_fini(&t->run);
    free(t);
}

static enum status render_in(struct jinja_run *r, const struct jinja_template *t, const json_t *variables)
{
    if (setjmp(r->escape))
        return r->status;
    r->at = (struct jinja_place){ 1, 1 };
    struct jinja_scope *root = jinja_scope_new(r, NULL);
    root->vars = *jinja_from_json(r, variables).dict;
    run_statements(r, root, t->body);
    return OK;
}

enum status jinja_render(const struct jinja_template *t, const json_t *variables, const struct tm *now,
                         const struct jinja_limits *limits, struct buffer *out, struct error *err)
{
    struct jinja_text text = { 0 };
    struct jinja_run r = { .err = err,
                           .steps = limits->steps,
                           .steps_left = limits->steps,
                           .limit = limits->memory_bytes,
                           .output_limit = limits->output_bytes,
                           .out = &text,
                           .now = now,
                           .hash_point = keyed_hash_point() };

    assert(json_is_object(variables));
    enum status s = render_in(&r, t, variables);
    if (s == OK && text.len)
        buffer_append(out, text.data, text.len);
    jinja_run_fini(&r);
    return s;
}
