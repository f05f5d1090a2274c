/* The tree of a template. Lists of nodes are chained by `next`. */
#ifndef WOOLLY_TOKEN_JINJA_PARSE_H
#define WOOLLY_TOKEN_JINJA_PARSE_H

#include "worker/token/jinja_lex.h"

enum jinja_node_kind {
    /* Expressions. value: a literal or a name; items: elements or arguments; named: JINJA_ARGUMENT nodes. */
    JINJA_LITERAL,
    JINJA_NAME,
    JINJA_MAKE_LIST,
    JINJA_MAKE_TUPLE,
    JINJA_MAKE_DICT, /* items: key, value, key, value ... */
    JINJA_CHAIN,     /* a, then items: JINJA_OPERAND, from the left: + - * / // % ** ~ */
    JINJA_COMPARE,   /* the same with == != < <= > >= in and 'not in' */
    JINJA_OPERAND,   /* op, a */
    JINJA_AND,       /* items */
    JINJA_OR,
    JINJA_NOT,
    JINJA_NEGATE,
    JINJA_PLUS,
    JINJA_CHOICE, /* b if a else c; c may be NULL */
    JINJA_ATTRIBUTE,
    JINJA_SUBSCRIPT, /* a[b] */
    JINJA_SLICE,     /* a[b:c:d], each of which may be NULL */
    JINJA_CALL,
    JINJA_FILTER, /* a NULL: of the text of a block */
    JINJA_TEST,
    JINJA_ARGUMENT, /* value: its name; a: what it is, or the default of a parameter, or NULL; op: as * or **
                     */

    /* Statements. body: what is inside; other: what stands behind else. */
    JINJA_TEXT,
    JINJA_PRINT,        /* a */
    JINJA_IF,           /* a; op 1: as the only one of `other`, an elif */
    JINJA_FOR,          /* b: the target; a: what to go through; c: the condition, or NULL */
    JINJA_SET,          /* b: the target; a */
    JINJA_SET_BLOCK,    /* b: the target; a: filters, or NULL */
    JINJA_MACRO,        /* value: its name; named: parameters; op: set of jinja_macro_use */
    JINJA_CALL_BLOCK,   /* a: the call; c: the body as a macro */
    JINJA_FILTER_BLOCK, /* a: filters */
    JINJA_WITH,         /* items: targets and values in turns */
    JINJA_SCOPE,        /* only a body */
    JINJA_BREAK,
    JINJA_CONTINUE,
};

/* The names that a macro's text mentions, which decides what it may be called with. */
enum jinja_macro_use { JINJA_USES_VARARGS = 1, JINJA_USES_KWARGS = 2 };

enum { JINJA_OP_IN = 'i', JINJA_OP_NOT_IN = 'n' };

struct jinja_node {
    uint8_t kind;
    uint16_t op;
    struct jinja_place at;
    struct jinja_value value;
    struct jinja_node *a, *b, *c, *d;
    struct jinja_node *items, *named, *body, *other;
    struct jinja_node *next;
};

/* The statements of a template, in the arena of r. Fails by jinja_fail. */
struct jinja_node *jinja_parse_tokens(struct jinja_run *r, const struct jinja_token *tokens);

/* Shared by the two halves of the parser. */
struct jinja_parser {
    struct jinja_run *run;
    const struct jinja_token *now;
    struct jinja_node *macro; /* the innermost one that is being parsed, or NULL */
    int loops;                /* that break and continue can reach */
};

/* The end of a chain that is being built. */
struct jinja_chain {
    struct jinja_node *first, **end;
};

void jinja_chain_add(struct jinja_chain *c, struct jinja_node *n);
struct jinja_node *jinja_new_node(struct jinja_parser *p, enum jinja_node_kind kind);
void jinja_next_token(struct jinja_parser *p);
bool jinja_at_op(const struct jinja_parser *p, unsigned op);
bool jinja_at_name(const struct jinja_parser *p, const char *name);
bool jinja_take_op(struct jinja_parser *p, unsigned op);
bool jinja_take_name(struct jinja_parser *p, const char *name);
void jinja_expect_op(struct jinja_parser *p, unsigned op);
struct jinja_value jinja_expect_name(struct jinja_parser *p);
noreturn void jinja_fail_unexpected(struct jinja_parser *p, const char *wanted);

struct jinja_node *jinja_parse_expression(struct jinja_parser *p);

/* One expression or several with commas between them, which make a tuple. with_choice: "x if y" counts, which
 * it does not where an "if" may follow. */
struct jinja_node *jinja_parse_tuple(struct jinja_parser *p, bool with_choice);

/* What can be assigned to: names, attributes of namespaces, tuples of them. */
struct jinja_node *jinja_parse_target(struct jinja_parser *p);

/* Filters behind a block's name, with the first | optional if starts_with_name. NULL if there is none. */
struct jinja_node *jinja_parse_filters(struct jinja_parser *p, struct jinja_node *of, bool starts_with_name);

/* "(a, b=1)" of a macro's head: a chain of JINJA_ARGUMENT. */
struct jinja_node *jinja_parse_parameters(struct jinja_parser *p);

#endif
