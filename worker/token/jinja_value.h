/* The values that a template computes with. They are passed by value and never change, but for namespaces;
 * what they point to lives in the arena of the run.
 *
 * Where Python has a kind of its own that templates cannot tell from a list (ranges, the views of a
 * dictionary), this has a list. */
#ifndef WOOLLY_TOKEN_JINJA_VALUE_H
#define WOOLLY_TOKEN_JINJA_VALUE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/token/jinja_run.h"

enum jinja_kind {
    JINJA_UNDEFINED, /* text, len: the name that was looked up; of: the kind of object it was not found in */
    JINJA_ABSENT,    /* an argument that was not given; never seen by a template */
    JINJA_NONE,
    JINJA_BOOL,
    JINJA_INT,
    JINJA_FLOAT,
    JINJA_STRING, /* valid UTF-8 */
    JINJA_LIST,
    JINJA_TUPLE,
    JINJA_GENERATOR, /* a list that can be gone through once: what map, select and others give */
    JINJA_DICT,
    JINJA_NAMESPACE,
    JINJA_LOOP,
    JINJA_CALLABLE,
};

struct jinja_value {
    uint8_t kind;
    uint8_t of;
    uint32_t len; /* bytes of text */
    union {
        bool truth;
        int64_t i;
        double f;
        const char *text;
        struct jinja_list *list;
        struct jinja_dict *dict; /* also of a namespace */
        struct jinja_loop *loop;
        struct jinja_callable *callable;
    };
};

struct jinja_list {
    struct jinja_value *items;
    size_t n, cap;
};

struct jinja_pair {
    struct jinja_value key, value;
};

/* In order of insertion. */
struct jinja_dict {
    struct jinja_pair *pairs;
    size_t n, cap;
    uint32_t *slots; /* [n_slots], index + 1 of a pair; only when there are many */
    size_t n_slots;  /* a power of two */
};

/* The variable `loop`. */
struct jinja_loop {
    const struct jinja_list *items;
    size_t index;
    struct jinja_value changed; /* the arguments of the latest loop.changed */
};

struct jinja_args;
typedef struct jinja_value jinja_function(struct jinja_run *r, const struct jinja_args *args);

struct jinja_entry;

struct jinja_callable {
    const struct jinja_entry *entry; /* a function or method, or NULL: a macro */
    struct jinja_value self;         /* of a method */
    const struct jinja_node *macro;
    struct jinja_scope *scope; /* where the macro was defined */
};

/* Text in the making. Zero-initialised it is empty. */
struct jinja_text {
    char *data;
    size_t len, cap;
};

char *jinja_text_reserve(struct jinja_run *r, struct jinja_text *t, size_t more);
void jinja_text_append(struct jinja_run *r, struct jinja_text *t, const char *text, size_t len);
void jinja_text_puts(struct jinja_run *r, struct jinja_text *t, const char *text);
struct jinja_value jinja_text_value(struct jinja_run *r, const struct jinja_text *t);

static inline struct jinja_value jinja_bool(bool truth)
{
    return (struct jinja_value){ .kind = JINJA_BOOL, .truth = truth };
}

static inline struct jinja_value jinja_int(int64_t i)
{
    return (struct jinja_value){ .kind = JINJA_INT, .i = i };
}

static inline struct jinja_value jinja_float(double f)
{
    return (struct jinja_value){ .kind = JINJA_FLOAT, .f = f };
}

static inline struct jinja_value jinja_none(void)
{
    return (struct jinja_value){ .kind = JINJA_NONE };
}

/* Points to text, which must live as long as the run. */
struct jinja_value jinja_string(struct jinja_run *r, const char *text, size_t len);
struct jinja_value jinja_string_z(struct jinja_run *r, const char *text);

/* The undefined value for a name that `object` does not have; object may be NULL. */
struct jinja_value jinja_undefined(struct jinja_value name, const struct jinja_value *object);

struct jinja_value jinja_list_new(struct jinja_run *r, enum jinja_kind kind, size_t room);
void jinja_list_push(struct jinja_run *r, struct jinja_list *l, struct jinja_value v);
struct jinja_value jinja_pair_new(struct jinja_run *r, struct jinja_value a, struct jinja_value b);

struct jinja_value jinja_dict_new(struct jinja_run *r);

/* NULL when there is none. Keys are numbers, strings, truth values or none; others fail. */
struct jinja_value *jinja_dict_find(struct jinja_run *r, const struct jinja_dict *d, struct jinja_value key);
void jinja_dict_put(struct jinja_run *r, struct jinja_dict *d, struct jinja_value key,
                    struct jinja_value value);

bool jinja_is_text(struct jinja_value v, const char *text);
bool jinja_is_number(struct jinja_value v); /* as Python's numbers: truth values too */
bool jinja_is_list(struct jinja_value v);   /* list, tuple or generator */
double jinja_to_double(struct jinja_value v);
int64_t jinja_to_int(struct jinja_value v); /* of a truth value or an integer */

/* "str", "dict", ... as Python says it. */
const char *jinja_kind_name(struct jinja_value v);

/* The name with what it is not found in, as an error: "'x' is undefined". Fails. */
noreturn void jinja_fail_undefined(struct jinja_run *r, struct jinja_value v);

bool jinja_truth(struct jinja_value v);
bool jinja_equal(struct jinja_run *r, struct jinja_value a, struct jinja_value b);

/* Negative, 0 or positive; fails for what has no order. */
int jinja_compare(struct jinja_run *r, struct jinja_value a, struct jinja_value b);

/* a in b */
bool jinja_contains(struct jinja_run *r, struct jinja_value b, struct jinja_value a);

/* The elements: of a dictionary its keys, of a string its characters. A generator is empty afterwards. */
bool jinja_is_iterable(struct jinja_value v);
struct jinja_list *jinja_items(struct jinja_run *r, struct jinja_value v);

/* False when there is no such thing for this kind. */
bool jinja_length(struct jinja_run *r, struct jinja_value v, int64_t *out);

/* a.name and a[key]. Undefined when there is nothing of that name. */
struct jinja_value jinja_attribute(struct jinja_run *r, struct jinja_value object, struct jinja_value name);
struct jinja_value jinja_subscript(struct jinja_run *r, struct jinja_value object, struct jinja_value key);

/* a[start:stop:step], absent ones absent. */
struct jinja_value jinja_slice(struct jinja_run *r, struct jinja_value object, struct jinja_value start,
                               struct jinja_value stop, struct jinja_value step);

/* str(v) and repr(v). */
void jinja_print(struct jinja_run *r, struct jinja_text *out, struct jinja_value v);
void jinja_print_quoted(struct jinja_run *r, struct jinja_text *out, struct jinja_value v);
struct jinja_value jinja_to_string(struct jinja_run *r, struct jinja_value v);

/* The shortest decimal that reads back as f, as Python writes it. `out` holds 40 bytes. */
void jinja_format_double(double f, char *out);

struct jinja_value jinja_from_json(struct jinja_run *r, const json_t *j);

struct jinja_json_style {
    bool ascii, sort_keys, has_indent;
    struct jinja_value indent;                          /* a string, if has_indent */
    struct jinja_value item_separator, colon_separator; /* strings */
};
void jinja_print_json(struct jinja_run *r, struct jinja_text *out, struct jinja_value v,
                      const struct jinja_json_style *style);

#endif
