#include "worker/token/jinja_eval.h"

#include <string.h>

#include "worker/token/jinja_call.h"
#include "worker/token/jinja_operate.h"

struct jinja_scope *jinja_scope_new(struct jinja_run *r, struct jinja_scope *parent)
{
    struct jinja_scope *s = jinja_alloc_zeroed(r, sizeof *s);

    s->parent = parent;
    return s;
}

static struct jinja_value look_up(struct jinja_run *r, const struct jinja_scope *s, struct jinja_value name)
{
    for (; s; s = s->parent) {
        const struct jinja_value *found = s->vars.n ? jinja_dict_find(r, &s->vars, name) : NULL;
        if (found)
            return *found;
    }
    const struct jinja_entry *function = jinja_find_function(name);
    return function ? jinja_bind(r, function, jinja_none()) : jinja_undefined(name, NULL);
}

static size_t chain_length(const struct jinja_node *n)
{
    size_t count = 0;

    for (; n; n = n->next)
        count++;
    return count;
}

static struct jinja_value eval_list(struct jinja_run *r, struct jinja_scope *s,
                                    const struct jinja_node *items, enum jinja_kind kind)
{
    struct jinja_value list = jinja_list_new(r, kind, chain_length(items));

    for (; items; items = items->next)
        jinja_list_push(r, list.list, jinja_eval(r, s, items));
    return list;
}

static struct jinja_value eval_dict(struct jinja_run *r, struct jinja_scope *s,
                                    const struct jinja_node *items)
{
    struct jinja_value dict = jinja_dict_new(r);

    for (; items; items = items->next->next) {
        struct jinja_value key = jinja_eval(r, s, items);
        jinja_dict_put(r, dict.dict, key, jinja_eval(r, s, items->next));
    }
    return dict;
}

/* The elements of a list or dictionary as arguments. */
static void spread(struct jinja_run *r, struct jinja_list *v, struct jinja_dict *named, unsigned op,
                   struct jinja_value given)
{
    if (op == '*') {
        const struct jinja_list *items = jinja_items(r, given);
        jinja_charge(r, items->n);
        for (size_t i = 0; i < items->n; i++)
            jinja_list_push(r, v, items->items[i]);
        return;
    }
    if (given.kind != JINJA_DICT)
        jinja_fail(r, E_INVALID, "the argument behind ** is no dict but a '%s'", jinja_kind_name(given));
    jinja_charge(r, given.dict->n);
    for (size_t i = 0; i < given.dict->n; i++) {
        if (given.dict->pairs[i].key.kind != JINJA_STRING)
            jinja_fail(r, E_INVALID, "the names of arguments must be strings");
        jinja_dict_put(r, named, given.dict->pairs[i].key, given.dict->pairs[i].value);
    }
}

/* caller, if not NULL, becomes one more argument with a name. */
static struct jinja_args eval_arguments(struct jinja_run *r, struct jinja_scope *s,
                                        const struct jinja_node *n, const struct jinja_value *caller)
{
    struct jinja_list *v = jinja_list_new(r, JINJA_LIST, chain_length(n->items)).list;
    struct jinja_dict *named = jinja_dict_new(r).dict;

    for (const struct jinja_node *item = n->items; item; item = item->next)
        jinja_list_push(r, v, jinja_eval(r, s, item));
    for (const struct jinja_node *item = n->named; item; item = item->next) {
        struct jinja_value given = jinja_eval(r, s, item->a);
        if (!item->op)
            jinja_dict_put(r, named, item->value, given);
        else
            spread(r, v, named, item->op, given);
    }
    if (caller)
        jinja_dict_put(r, named, jinja_string_z(r, "caller"), *caller);
    r->at = n->at;
    return (struct jinja_args){ .v = v->items, .n = v->n, .named = named->pairs, .n_named = named->n };
}

struct jinja_value jinja_make_macro(struct jinja_run *r, struct jinja_scope *s, const struct jinja_node *n)
{
    struct jinja_callable *c = jinja_alloc_zeroed(r, sizeof *c);

    c->macro = n;
    c->scope = s;
    for (; s && !s->is_kept; s = s->parent)
        s->is_kept = true;
    return (struct jinja_value){ .kind = JINJA_CALLABLE, .callable = c };
}

struct jinja_value jinja_macro_name(const struct jinja_callable *c)
{
    return c->macro->value;
}

static const struct jinja_value *find_named(const struct jinja_args *args, struct jinja_value name)
{
    for (size_t i = 0; i < args->n_named; i++) {
        const struct jinja_value key = args->named[i].key;
        if (key.len == name.len && !memcmp(key.text, name.text, name.len))
            return &args->named[i].value;
    }
    return NULL;
}

static bool has_parameter(const struct jinja_node *macro, struct jinja_value name)
{
    const struct jinja_node *n = macro->named;

    while (n && (n->value.len != name.len || memcmp(n->value.text, name.text, name.len)))
        n = n->next;
    return n != NULL;
}

/* Arguments without a parameter: for a macro that mentions them by varargs or kwargs. */
static void bind_surplus(struct jinja_run *r, struct jinja_scope *s, const struct jinja_node *macro,
                         const struct jinja_args *args, size_t n_parameters)
{
    struct jinja_value varargs = jinja_list_new(r, JINJA_TUPLE, 0), kwargs = jinja_dict_new(r);
    int len = macro->value.len < 100 ? (int)macro->value.len : 100;

    for (size_t i = n_parameters; i < args->n; i++)
        jinja_list_push(r, varargs.list, args->v[i]);
    for (size_t i = 0; i < args->n_named; i++) {
        if (jinja_is_text(args->named[i].key, "caller"))
            jinja_dict_put(r, &s->vars, args->named[i].key, args->named[i].value);
        else if (!has_parameter(macro, args->named[i].key))
            jinja_dict_put(r, kwargs.dict, args->named[i].key, args->named[i].value);
    }
    if (varargs.list->n && !(macro->op & JINJA_USES_VARARGS))
        jinja_fail(r, E_INVALID, "macro '%.*s' takes not more than %zu argument(s)", len, macro->value.text,
                   n_parameters);
    if (kwargs.dict->n && !(macro->op & JINJA_USES_KWARGS))
        jinja_fail(r, E_INVALID, "macro '%.*s' takes no argument named '%.*s'", len, macro->value.text,
                   (int)kwargs.dict->pairs[0].key.len, kwargs.dict->pairs[0].key.text);
    if (macro->op & JINJA_USES_VARARGS)
        jinja_dict_put(r, &s->vars, jinja_string_z(r, "varargs"), varargs);
    if (macro->op & JINJA_USES_KWARGS)
        jinja_dict_put(r, &s->vars, jinja_string_z(r, "kwargs"), kwargs);
}

static struct jinja_value call_macro(struct jinja_run *r, const struct jinja_callable *c,
                                     const struct jinja_args *args)
{
    struct jinja_scope *s = jinja_scope_new(r, c->scope);
    size_t i = 0;

    bind_surplus(r, s, c->macro, args, chain_length(c->macro->named));
    for (const struct jinja_node *p = c->macro->named; p; p = p->next, i++) {
        const struct jinja_value *named = find_named(args, p->value);
        struct jinja_value v = jinja_undefined(p->value, NULL);
        if (i < args->n)
            v = args->v[i];
        else if (named)
            v = *named;
        else if (p->a)
            v = jinja_eval(r, s, p->a);
        jinja_dict_put(r, &s->vars, p->value, v);
    }
    return jinja_capture(r, s, c->macro->body);
}

struct jinja_value jinja_eval_call(struct jinja_run *r, struct jinja_scope *s, const struct jinja_node *n,
                                   const struct jinja_value *caller)
{
    struct jinja_value callee = jinja_eval(r, s, n->a);
    struct jinja_args args = eval_arguments(r, s, n, caller);

    if (callee.kind == JINJA_UNDEFINED)
        jinja_fail_undefined(r, callee);
    if (callee.kind != JINJA_CALLABLE)
        jinja_fail(r, E_INVALID, "'%s' object is not callable", jinja_kind_name(callee));
    if (callee.callable->macro)
        return call_macro(r, callee.callable, &args);
    args.self = callee.callable->self;
    return jinja_call_entry(r, callee.callable->entry, &args);
}

static struct jinja_value eval_filter(struct jinja_run *r, struct jinja_scope *s, const struct jinja_node *n,
                                      const struct jinja_value *text)
{
    struct jinja_value self;

    if (!n->a)
        self = *text;
    else if (n->a->kind == JINJA_FILTER)
        self = eval_filter(r, s, n->a, text);
    else
        self = jinja_eval(r, s, n->a);
    struct jinja_args args = eval_arguments(r, s, n, NULL);
    return jinja_apply_filter(r, n->value, self, &args, 0);
}

struct jinja_value jinja_eval_filters(struct jinja_run *r, struct jinja_scope *s, const struct jinja_node *n,
                                      struct jinja_value text)
{
    return eval_filter(r, s, n, &text);
}

static struct jinja_value eval_chain(struct jinja_run *r, struct jinja_scope *s, const struct jinja_node *n)
{
    struct jinja_value v = jinja_eval(r, s, n->a);

    for (const struct jinja_node *o = n->items; o; o = o->next) {
        struct jinja_value right = jinja_eval(r, s, o->a);
        r->at = o->at;
        v = jinja_operate(r, o->op, v, right);
    }
    return v;
}

static bool compare(struct jinja_run *r, unsigned op, struct jinja_value a, struct jinja_value b)
{
    switch (op) {
    case JINJA_OP('=', '='):
        return jinja_equal(r, a, b);
    case JINJA_OP('!', '='):
        return !jinja_equal(r, a, b);
    case JINJA_OP_IN:
        return jinja_contains(r, b, a);
    case JINJA_OP_NOT_IN:
        return !jinja_contains(r, b, a);
    case '<':
        return jinja_compare(r, a, b) < 0;
    case '>':
        return jinja_compare(r, a, b) > 0;
    case JINJA_OP('<', '='):
        return jinja_compare(r, a, b) <= 0;
    default:
        return jinja_compare(r, a, b) >= 0;
    }
}

/* a < b < c is a < b and b < c. */
static struct jinja_value eval_compare(struct jinja_run *r, struct jinja_scope *s, const struct jinja_node *n)
{
    struct jinja_value left = jinja_eval(r, s, n->a);

    for (const struct jinja_node *o = n->items; o; o = o->next) {
        struct jinja_value right = jinja_eval(r, s, o->a);
        r->at = o->at;
        if (!compare(r, o->op, left, right))
            return jinja_bool(false);
        left = right;
    }
    return jinja_bool(true);
}

/* The operand that decides, as in Python. */
static struct jinja_value eval_logic(struct jinja_run *r, struct jinja_scope *s, const struct jinja_node *n)
{
    bool decides = n->kind == JINJA_OR;
    struct jinja_value v = jinja_none();

    for (const struct jinja_node *item = n->items; item; item = item->next) {
        v = jinja_eval(r, s, item);
        if (jinja_truth(v) == decides)
            break;
    }
    return v;
}

static struct jinja_value eval_slice(struct jinja_run *r, struct jinja_scope *s, const struct jinja_node *n)
{
    struct jinja_value object = jinja_eval(r, s, n->a), ends[3];
    const struct jinja_node *parts[] = { n->b, n->c, n->d };

    for (int i = 0; i < 3; i++)
        ends[i] = parts[i] ? jinja_eval(r, s, parts[i]) : (struct jinja_value){ .kind = JINJA_ABSENT };
    r->at = n->at;
    return jinja_slice(r, object, ends[0], ends[1], ends[2]);
}

static struct jinja_value eval_choice(struct jinja_run *r, struct jinja_scope *s, const struct jinja_node *n)
{
    if (jinja_truth(jinja_eval(r, s, n->a)))
        return jinja_eval(r, s, n->b);
    if (n->c)
        return jinja_eval(r, s, n->c);
    return jinja_undefined(jinja_string_z(r, "the choice without else"), NULL);
}

static struct jinja_value eval_inside(struct jinja_run *r, struct jinja_scope *s, const struct jinja_node *n)
{
    struct jinja_value a, b;
    struct jinja_args args;

    switch ((enum jinja_node_kind)n->kind) {
    case JINJA_LITERAL:
        return n->value;
    case JINJA_NAME:
        return look_up(r, s, n->value);
    case JINJA_MAKE_LIST:
        return eval_list(r, s, n->items, JINJA_LIST);
    case JINJA_MAKE_TUPLE:
        return eval_list(r, s, n->items, JINJA_TUPLE);
    case JINJA_MAKE_DICT:
        return eval_dict(r, s, n->items);
    case JINJA_CHAIN:
        return eval_chain(r, s, n);
    case JINJA_COMPARE:
        return eval_compare(r, s, n);
    case JINJA_AND:
    case JINJA_OR:
        return eval_logic(r, s, n);
    case JINJA_NOT:
        return jinja_bool(!jinja_truth(jinja_eval(r, s, n->a)));
    case JINJA_NEGATE:
        return jinja_negate(r, jinja_eval(r, s, n->a));
    case JINJA_PLUS:
        return jinja_operate(r, '+', jinja_int(0), jinja_eval(r, s, n->a));
    case JINJA_CHOICE:
        return eval_choice(r, s, n);
    case JINJA_ATTRIBUTE:
        a = jinja_eval(r, s, n->a);
        r->at = n->at;
        return jinja_attribute(r, a, n->value);
    case JINJA_SUBSCRIPT:
        a = jinja_eval(r, s, n->a);
        b = jinja_eval(r, s, n->b);
        r->at = n->at;
        return jinja_subscript(r, a, b);
    case JINJA_SLICE:
        return eval_slice(r, s, n);
    case JINJA_CALL:
        return jinja_eval_call(r, s, n, NULL);
    case JINJA_FILTER:
        return eval_filter(r, s, n, NULL);
    case JINJA_TEST:
        a = jinja_eval(r, s, n->a);
        args = eval_arguments(r, s, n, NULL);
        return jinja_bool(jinja_apply_test(r, n->value, a, &args, 0));
    default:
        jinja_fail(r, E_INTERNAL, "a statement stands where an expression belongs");
    }
}

struct jinja_value jinja_eval(struct jinja_run *r, struct jinja_scope *s, const struct jinja_node *n)
{
    jinja_enter(r);
    jinja_charge(r, 1);
    r->at = n->at;
    struct jinja_value v = eval_inside(r, s, n);
    r->depth--;
    return v;
}
