/* What templates can call: filters, tests, functions and methods, each a row in a table with the names of its
 * parameters, and macros. A filter, test or method finds what it is applied to in `self`. */
#ifndef WOOLLY_TOKEN_JINJA_CALL_H
#define WOOLLY_TOKEN_JINJA_CALL_H

#include "worker/token/jinja_value.h"

enum { JINJA_MAX_PARAMETERS = 5 };

struct jinja_args {
    struct jinja_value self;
    const struct jinja_entry *entry;
    const struct jinja_value *v; /* as given, in order */
    size_t n;
    const struct jinja_pair *named;
    size_t n_named;
    struct jinja_value
        bound[JINJA_MAX_PARAMETERS]; /* by the entry's parameters; absent ones are JINJA_ABSENT */
};

struct jinja_entry {
    const char *name;
    jinja_function *call;
    const char *parameters[JINJA_MAX_PARAMETERS];
    uint8_t required; /* of the parameters */
    bool is_free;     /* takes any arguments and looks at v and named itself */
};

/* NULL when there is none of that name. Methods depend on the kind of the object. */
const struct jinja_entry *jinja_find_filter(struct jinja_value name);
const struct jinja_entry *jinja_find_test(struct jinja_value name);
const struct jinja_entry *jinja_find_function(struct jinja_value name);
const struct jinja_entry *jinja_find_method(struct jinja_value object, struct jinja_value name);

extern const struct jinja_entry jinja_text_filters[], jinja_list_filters[];

/* For the tables, which end with a row without name. */
const struct jinja_entry *jinja_find_entry(const struct jinja_entry *table, struct jinja_value name);

struct jinja_value jinja_bind(struct jinja_run *r, const struct jinja_entry *entry, struct jinja_value self);
struct jinja_value jinja_macro_name(const struct jinja_callable *c);

/* Checks the arguments against the entry's parameters, then calls it. Fills args->entry and bound. */
struct jinja_value jinja_call_entry(struct jinja_run *r, const struct jinja_entry *entry,
                                    struct jinja_args *args);

/* A filter or test by name with arguments from..n of those given. */
struct jinja_value jinja_apply_filter(struct jinja_run *r, struct jinja_value name, struct jinja_value self,
                                      const struct jinja_args *args, size_t from);
bool jinja_apply_test(struct jinja_run *r, struct jinja_value name, struct jinja_value self,
                      const struct jinja_args *args, size_t from);

/* The argument or a default; fails when it is of another kind. */
bool jinja_has(const struct jinja_args *args, int i);
int64_t jinja_arg_int(struct jinja_run *r, const struct jinja_args *args, int i, int64_t when_absent);
bool jinja_arg_truth(const struct jinja_args *args, int i, bool when_absent);
struct jinja_value jinja_arg_string(struct jinja_run *r, const struct jinja_args *args, int i);

/* What strings do, for methods and filters alike: */
struct jinja_value jinja_strip(struct jinja_run *r, struct jinja_value s, struct jinja_value chars, bool left,
                               bool right);
struct jinja_value jinja_replace(struct jinja_run *r, struct jinja_value s, struct jinja_value from,
                                 struct jinja_value to, int64_t count);
struct jinja_value jinja_join(struct jinja_run *r, struct jinja_value separator, const struct jinja_list *l);
struct jinja_value jinja_change_case(struct jinja_run *r, struct jinja_value s, uint32_t (*change)(uint32_t));
struct jinja_value jinja_capitalize(struct jinja_run *r, struct jinja_value s);
bool jinja_is_case(struct jinja_value s, bool upper);
struct jinja_value jinja_split_lines(struct jinja_run *r, struct jinja_value s, bool keep_ends);

/* 'format' % arguments */
struct jinja_value jinja_format_percent(struct jinja_run *r, struct jinja_value format,
                                        struct jinja_value arguments);

/* Stable, ascending. Compares keys[i]; moves items along. */
void jinja_sort(struct jinja_run *r, struct jinja_value *keys, struct jinja_value *items, size_t n,
                bool is_descending);

#endif
