/* Arithmetic and concatenation. */
#ifndef WOOLLY_TOKEN_JINJA_OPERATE_H
#define WOOLLY_TOKEN_JINJA_OPERATE_H

#include "worker/token/jinja_value.h"

/* op: as in the tokens; fails for kinds it does not work on, and for integers beyond 64 bits. */
struct jinja_value jinja_operate(struct jinja_run *r, unsigned op, struct jinja_value a,
                                 struct jinja_value b);
struct jinja_value jinja_negate(struct jinja_run *r, struct jinja_value v);
struct jinja_value jinja_concatenate(struct jinja_run *r, struct jinja_value a, struct jinja_value b);

#endif
