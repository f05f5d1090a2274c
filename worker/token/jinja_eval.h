/* Runs the tree of a template: expressions and macros in jinja_eval.c, statements in jinja_render.c. */
#ifndef WOOLLY_TOKEN_JINJA_EVAL_H
#define WOOLLY_TOKEN_JINJA_EVAL_H

#include "worker/token/jinja_parse.h"

/* Variables, those of the scopes around included. */
struct jinja_scope {
    struct jinja_scope *parent; /* in the template's text */
    struct jinja_dict vars;
    bool is_kept; /* a macro refers to it */
};

struct jinja_scope *jinja_scope_new(struct jinja_run *r, struct jinja_scope *parent);
struct jinja_value jinja_eval(struct jinja_run *r, struct jinja_scope *s, const struct jinja_node *n);

/* The filters n of a block, applied to its text. */
struct jinja_value jinja_eval_filters(struct jinja_run *r, struct jinja_scope *s, const struct jinja_node *n,
                                      struct jinja_value text);

/* A macro as a value that keeps its scope. */
struct jinja_value jinja_make_macro(struct jinja_run *r, struct jinja_scope *s, const struct jinja_node *n);

/* Calls n, with the variable `caller` for the macro if caller is not NULL. */
struct jinja_value jinja_eval_call(struct jinja_run *r, struct jinja_scope *s, const struct jinja_node *n,
                                   const struct jinja_value *caller);

/* What the statements n print. */
struct jinja_value jinja_capture(struct jinja_run *r, struct jinja_scope *s, const struct jinja_node *n);

#endif
