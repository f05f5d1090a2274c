/* The expressions of the template language, from the loosest operators to the tightest. */
#include <string.h>

#include "worker/token/jinja_parse.h"

static struct jinja_node *parse_or(struct jinja_parser *p);
static struct jinja_node *parse_unary(struct jinja_parser *p, bool with_filters);
static struct jinja_node *parse_primary(struct jinja_parser *p);
static struct jinja_node *parse_postfix(struct jinja_parser *p, struct jinja_node *n);

static struct jinja_node *new_with(struct jinja_parser *p, enum jinja_node_kind kind, struct jinja_node *a)
{
    struct jinja_node *n = jinja_new_node(p, kind);

    n->a = a;
    n->at = a->at;
    return n;
}

struct jinja_node *jinja_parse_expression(struct jinja_parser *p)
{
    jinja_enter(p->run);
    struct jinja_node *n = parse_or(p);
    while (jinja_at_name(p, "if")) {
        struct jinja_node *choice = jinja_new_node(p, JINJA_CHOICE);
        jinja_next_token(p);
        choice->b = n;
        choice->a = parse_or(p);
        choice->c = jinja_take_name(p, "else") ? jinja_parse_expression(p) : NULL;
        n = choice;
    }
    p->run->depth--;
    return n;
}

static struct jinja_node *parse_compare(struct jinja_parser *p);

static struct jinja_node *parse_not(struct jinja_parser *p)
{
    if (!jinja_at_name(p, "not"))
        return parse_compare(p);
    struct jinja_node *n = jinja_new_node(p, JINJA_NOT);
    jinja_next_token(p);
    jinja_enter(p->run);
    n->a = parse_not(p);
    p->run->depth--;
    return n;
}

static struct jinja_node *parse_logic(struct jinja_parser *p, const char *word, enum jinja_node_kind kind,
                                      struct jinja_node *(*operand)(struct jinja_parser *))
{
    struct jinja_node *first = operand(p);

    if (!jinja_at_name(p, word))
        return first;
    struct jinja_node *n = jinja_new_node(p, kind);
    struct jinja_chain items = { NULL, &n->items };
    jinja_chain_add(&items, first);
    while (jinja_take_name(p, word))
        jinja_chain_add(&items, operand(p));
    return n;
}

static struct jinja_node *parse_and(struct jinja_parser *p)
{
    return parse_logic(p, "and", JINJA_AND, parse_not);
}

static struct jinja_node *parse_or(struct jinja_parser *p)
{
    return parse_logic(p, "or", JINJA_OR, parse_and);
}

/* The operator here if it is one of `ops`, else 0. */
static unsigned operator_among(const struct jinja_parser *p, const unsigned *ops)
{
    for (; *ops; ops++) {
        if (jinja_at_op(p, *ops))
            return *ops;
    }
    return 0;
}

static struct jinja_node *add_operand(struct jinja_parser *p, struct jinja_node *n, enum jinja_node_kind kind,
                                      struct jinja_chain *items, unsigned op, struct jinja_place at,
                                      struct jinja_node *right)
{
    if (!items->end) {
        n = new_with(p, kind, n);
        *items = (struct jinja_chain){ NULL, &n->items };
    }
    struct jinja_node *operand = new_with(p, JINJA_OPERAND, right);
    operand->op = (uint16_t)op;
    operand->at = at;
    jinja_chain_add(items, operand);
    return n;
}

static struct jinja_node *parse_chain(struct jinja_parser *p, const unsigned *ops,
                                      struct jinja_node *(*operand)(struct jinja_parser *))
{
    struct jinja_chain items = { NULL, NULL };
    struct jinja_node *n = operand(p);
    unsigned op;

    while ((op = operator_among(p, ops))) {
        struct jinja_place at = p->now->at;
        jinja_next_token(p);
        n = add_operand(p, n, JINJA_CHAIN, &items, op, at, operand(p));
    }
    return n;
}

static struct jinja_node *parse_operand(struct jinja_parser *p)
{
    return parse_unary(p, true);
}

static struct jinja_node *parse_power(struct jinja_parser *p)
{
    static const unsigned ops[] = { JINJA_OP('*', '*'), 0 };
    return parse_chain(p, ops, parse_operand);
}

static struct jinja_node *parse_product(struct jinja_parser *p)
{
    static const unsigned ops[] = { '*', '/', JINJA_OP('/', '/'), '%', 0 };
    return parse_chain(p, ops, parse_power);
}

static struct jinja_node *parse_concatenation(struct jinja_parser *p)
{
    static const unsigned ops[] = { '~', 0 };
    return parse_chain(p, ops, parse_product);
}

static struct jinja_node *parse_sum(struct jinja_parser *p)
{
    static const unsigned ops[] = { '+', '-', 0 };
    return parse_chain(p, ops, parse_concatenation);
}

static unsigned take_comparison(struct jinja_parser *p)
{
    static const unsigned ops[] = { JINJA_OP('=', '='), JINJA_OP('!', '='), '<', '>',
                                    JINJA_OP('<', '='), JINJA_OP('>', '='), 0 };
    unsigned op = operator_among(p, ops);

    if (op) {
        jinja_next_token(p);
        return op;
    }
    if (jinja_take_name(p, "in"))
        return JINJA_OP_IN;
    if (jinja_at_name(p, "not") && p->now[1].kind == JINJA_TOKEN_NAME &&
        jinja_is_text(p->now[1].value, "in")) {
        jinja_next_token(p);
        jinja_next_token(p);
        return JINJA_OP_NOT_IN;
    }
    return 0;
}

static struct jinja_node *parse_compare(struct jinja_parser *p)
{
    struct jinja_chain items = { NULL, NULL };
    struct jinja_node *n = parse_sum(p);

    for (;;) {
        struct jinja_place at = p->now->at;
        unsigned op = take_comparison(p);
        if (!op)
            return n;
        n = add_operand(p, n, JINJA_COMPARE, &items, op, at, parse_sum(p));
    }
}

/* "(1, *a, b=2, **c)" into items and named of n. */
static void parse_arguments(struct jinja_parser *p, struct jinja_node *n)
{
    struct jinja_chain items = { NULL, &n->items }, named = { NULL, &n->named };

    jinja_expect_op(p, '(');
    while (!jinja_at_op(p, ')')) {
        bool is_spread = jinja_at_op(p, '*') || jinja_at_op(p, JINJA_OP('*', '*'));
        bool is_named =
            p->now->kind == JINJA_TOKEN_NAME && p->now[1].kind == JINJA_TOKEN_OPERATOR && p->now[1].op == '=';
        if (is_spread) {
            struct jinja_node *argument = jinja_new_node(p, JINJA_ARGUMENT);
            argument->op = p->now->op;
            jinja_next_token(p);
            argument->a = jinja_parse_expression(p);
            jinja_chain_add(&named, argument);
        } else if (is_named) {
            struct jinja_node *argument = jinja_new_node(p, JINJA_ARGUMENT);
            argument->value = jinja_expect_name(p);
            jinja_expect_op(p, '=');
            argument->a = jinja_parse_expression(p);
            jinja_chain_add(&named, argument);
        } else {
            if (n->named)
                jinja_fail(p->run, E_FORMAT, "an argument without name follows one with a name");
            jinja_chain_add(&items, jinja_parse_expression(p));
        }
        if (!jinja_take_op(p, ','))
            break;
    }
    jinja_expect_op(p, ')');
}

static struct jinja_node *parse_call(struct jinja_parser *p, struct jinja_node *callee)
{
    struct jinja_node *n = jinja_new_node(p, JINJA_CALL);

    n->a = callee;
    n->at = callee->at;
    parse_arguments(p, n);
    return n;
}

/* The inside of a[...]. */
static void parse_subscript(struct jinja_parser *p, struct jinja_node *n)
{
    struct jinja_node **parts[] = { &n->b, &n->c, &n->d };
    int i = 0;

    if (!jinja_at_op(p, ':'))
        n->b = jinja_parse_expression(p);
    while (jinja_at_op(p, ':') && i < 2) {
        jinja_next_token(p);
        n->kind = JINJA_SLICE;
        i++;
        if (!jinja_at_op(p, ':') && !jinja_at_op(p, ']'))
            *parts[i] = jinja_parse_expression(p);
    }
    jinja_expect_op(p, ']');
}

static struct jinja_node *parse_dot(struct jinja_parser *p, struct jinja_node *object)
{
    struct jinja_node *n = jinja_new_node(p, JINJA_ATTRIBUTE);

    jinja_next_token(p);
    n->a = object;
    n->at = p->now->at;
    if (p->now->kind == JINJA_TOKEN_LITERAL && p->now->value.kind == JINJA_INT) {
        n->kind = JINJA_SUBSCRIPT;
        n->b = jinja_new_node(p, JINJA_LITERAL);
        n->b->value = p->now->value;
        jinja_next_token(p);
    } else {
        n->value = jinja_expect_name(p);
    }
    return n;
}

static struct jinja_node *parse_postfix(struct jinja_parser *p, struct jinja_node *n)
{
    for (;;) {
        if (jinja_at_op(p, '.')) {
            n = parse_dot(p, n);
        } else if (jinja_at_op(p, '[')) {
            struct jinja_node *element = new_with(p, JINJA_SUBSCRIPT, n);
            element->at = p->now->at;
            jinja_next_token(p);
            parse_subscript(p, element);
            n = element;
        } else if (jinja_at_op(p, '(')) {
            n = parse_call(p, n);
        } else {
            return n;
        }
    }
}

/* The name of a filter or test, which may have dots, at the current token. */
static struct jinja_value parse_dotted_name(struct jinja_parser *p)
{
    struct jinja_value first = jinja_expect_name(p);
    struct jinja_text name = { 0 };

    if (!jinja_at_op(p, '.'))
        return first;
    jinja_text_append(p->run, &name, first.text, first.len);
    while (jinja_take_op(p, '.')) {
        struct jinja_value part = jinja_expect_name(p);
        jinja_text_puts(p->run, &name, ".");
        jinja_text_append(p->run, &name, part.text, part.len);
    }
    return jinja_text_value(p->run, &name);
}

struct jinja_node *jinja_parse_filters(struct jinja_parser *p, struct jinja_node *of, bool starts_with_name)
{
    while (starts_with_name || jinja_take_op(p, '|')) {
        struct jinja_node *n = jinja_new_node(p, JINJA_FILTER);
        n->a = of;
        n->value = parse_dotted_name(p);
        if (jinja_at_op(p, '('))
            parse_arguments(p, n);
        starts_with_name = false;
        of = n;
    }
    return of;
}

/* A test may have one argument without brackets: "x is divisibleby 3". */
static bool starts_test_argument(const struct jinja_parser *p)
{
    if (p->now->kind == JINJA_TOKEN_NAME)
        return !jinja_at_name(p, "else") && !jinja_at_name(p, "or") && !jinja_at_name(p, "and");
    return p->now->kind == JINJA_TOKEN_LITERAL || jinja_at_op(p, '[') || jinja_at_op(p, '{');
}

static struct jinja_node *parse_test(struct jinja_parser *p, struct jinja_node *of)
{
    jinja_next_token(p);
    bool is_negated = jinja_take_name(p, "not");
    struct jinja_node *n = jinja_new_node(p, JINJA_TEST);
    n->a = of;
    n->value = parse_dotted_name(p);
    if (jinja_at_op(p, '(')) {
        parse_arguments(p, n);
    } else if (starts_test_argument(p)) {
        if (jinja_at_name(p, "is"))
            jinja_fail(p->run, E_FORMAT, "tests with 'is' cannot be chained");
        jinja_enter(p->run);
        n->items = parse_postfix(p, parse_primary(p));
        p->run->depth--;
    }
    return is_negated ? new_with(p, JINJA_NOT, n) : n;
}

static struct jinja_node *parse_unary(struct jinja_parser *p, bool with_filters)
{
    struct jinja_node *n;

    jinja_enter(p->run);
    if (jinja_at_op(p, '-') || jinja_at_op(p, '+')) {
        n = jinja_new_node(p, jinja_at_op(p, '-') ? JINJA_NEGATE : JINJA_PLUS);
        jinja_next_token(p);
        n->a = parse_unary(p, false);
    } else {
        n = parse_primary(p);
    }
    n = parse_postfix(p, n);
    while (with_filters) {
        if (jinja_at_op(p, '|'))
            n = jinja_parse_filters(p, n, false);
        else if (jinja_at_name(p, "is"))
            n = parse_test(p, n);
        else if (jinja_at_op(p, '('))
            n = parse_call(p, n);
        else
            break;
    }
    p->run->depth--;
    return n;
}

static struct jinja_node *parse_list(struct jinja_parser *p)
{
    struct jinja_node *n = jinja_new_node(p, JINJA_MAKE_LIST);
    struct jinja_chain items = { NULL, &n->items };

    jinja_expect_op(p, '[');
    while (!jinja_at_op(p, ']')) {
        jinja_chain_add(&items, jinja_parse_expression(p));
        if (!jinja_take_op(p, ','))
            break;
    }
    jinja_expect_op(p, ']');
    return n;
}

static struct jinja_node *parse_dict(struct jinja_parser *p)
{
    struct jinja_node *n = jinja_new_node(p, JINJA_MAKE_DICT);
    struct jinja_chain items = { NULL, &n->items };

    jinja_expect_op(p, '{');
    while (!jinja_at_op(p, '}')) {
        jinja_chain_add(&items, jinja_parse_expression(p));
        jinja_expect_op(p, ':');
        jinja_chain_add(&items, jinja_parse_expression(p));
        if (!jinja_take_op(p, ','))
            break;
    }
    jinja_expect_op(p, '}');
    return n;
}

static struct jinja_node *parse_bracketed(struct jinja_parser *p)
{
    struct jinja_node *n;

    jinja_expect_op(p, '(');
    if (jinja_at_op(p, ')'))
        n = jinja_new_node(p, JINJA_MAKE_TUPLE);
    else
        n = jinja_parse_tuple(p, true);
    jinja_expect_op(p, ')');
    return n;
}

static struct jinja_node *parse_name(struct jinja_parser *p)
{
    static const struct {
        const char *name;
        struct jinja_value value;
    } constants[] = {
        { "true", { .kind = JINJA_BOOL, .truth = true } },
        { "True", { .kind = JINJA_BOOL, .truth = true } },
        { "false", { .kind = JINJA_BOOL, .truth = false } },
        { "False", { .kind = JINJA_BOOL, .truth = false } },
        { "none", { .kind = JINJA_NONE } },
        { "None", { .kind = JINJA_NONE } },
    };
    struct jinja_node *n = jinja_new_node(p, JINJA_NAME);

    n->value = jinja_expect_name(p);
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++) {
        if (jinja_is_text(n->value, constants[i].name)) {
            n->kind = JINJA_LITERAL;
            n->value = constants[i].value;
            return n;
        }
    }
    if (p->macro && jinja_is_text(n->value, "varargs"))
        p->macro->op |= JINJA_USES_VARARGS;
    if (p->macro && jinja_is_text(n->value, "kwargs"))
        p->macro->op |= JINJA_USES_KWARGS;
    return n;
}

/* Strings that stand side by side are one. */
static struct jinja_node *parse_literal(struct jinja_parser *p)
{
    struct jinja_node *n = jinja_new_node(p, JINJA_LITERAL);
    struct jinja_text joined = { 0 };

    n->value = p->now->value;
    jinja_next_token(p);
    if (n->value.kind != JINJA_STRING || p->now->kind != JINJA_TOKEN_LITERAL)
        return n;
    jinja_text_append(p->run, &joined, n->value.text, n->value.len);
    for (; p->now->kind == JINJA_TOKEN_LITERAL && p->now->value.kind == JINJA_STRING; jinja_next_token(p))
        jinja_text_append(p->run, &joined, p->now->value.text, p->now->value.len);
    n->value = jinja_text_value(p->run, &joined);
    return n;
}

static struct jinja_node *parse_primary(struct jinja_parser *p)
{
    if (p->now->kind == JINJA_TOKEN_NAME)
        return parse_name(p);
    if (p->now->kind == JINJA_TOKEN_LITERAL)
        return parse_literal(p);
    if (jinja_at_op(p, '('))
        return parse_bracketed(p);
    if (jinja_at_op(p, '['))
        return parse_list(p);
    if (jinja_at_op(p, '{'))
        return parse_dict(p);
    jinja_fail_unexpected(p, "an expression");
}

static bool ends_tuple(const struct jinja_parser *p)
{
    return p->now->kind == JINJA_TOKEN_BLOCK_END || p->now->kind == JINJA_TOKEN_PRINT_END ||
           jinja_at_op(p, ')') || jinja_at_op(p, '=') || jinja_at_name(p, "in");
}

static struct jinja_node *parse_commas(struct jinja_parser *p,
                                       struct jinja_node *(*element)(struct jinja_parser *))
{
    struct jinja_node *first = element(p);

    if (!jinja_at_op(p, ','))
        return first;
    struct jinja_node *n = jinja_new_node(p, JINJA_MAKE_TUPLE);
    struct jinja_chain items = { NULL, &n->items };
    n->at = first->at;
    jinja_chain_add(&items, first);
    while (jinja_take_op(p, ',') && !ends_tuple(p))
        jinja_chain_add(&items, element(p));
    return n;
}

struct jinja_node *jinja_parse_tuple(struct jinja_parser *p, bool with_choice)
{
    return parse_commas(p, with_choice ? jinja_parse_expression : parse_or);
}

static struct jinja_node *parse_one_target(struct jinja_parser *p)
{
    jinja_enter(p->run);
    struct jinja_node *n;
    if (jinja_take_op(p, '(')) {
        n = parse_commas(p, parse_one_target);
        jinja_expect_op(p, ')');
    } else {
        n = parse_name(p);
        if (n->kind == JINJA_NAME && jinja_at_op(p, '.'))
            n = parse_dot(p, n);
        if (n->kind != JINJA_NAME && n->kind != JINJA_ATTRIBUTE)
            jinja_fail(p->run, E_FORMAT, "this cannot be assigned to");
    }
    p->run->depth--;
    return n;
}

struct jinja_node *jinja_parse_target(struct jinja_parser *p)
{
    return parse_commas(p, parse_one_target);
}

struct jinja_node *jinja_parse_parameters(struct jinja_parser *p)
{
    struct jinja_chain parameters = { NULL, NULL };

    jinja_expect_op(p, '(');
    while (!jinja_at_op(p, ')')) {
        struct jinja_node *n = jinja_new_node(p, JINJA_ARGUMENT);
        n->value = jinja_expect_name(p);
        if (jinja_take_op(p, '='))
            n->a = jinja_parse_expression(p);
        jinja_chain_add(&parameters, n);
        if (!jinja_take_op(p, ','))
            break;
    }
    jinja_expect_op(p, ')');
    return parameters.first;
}
