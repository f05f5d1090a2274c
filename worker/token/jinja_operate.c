#include "worker/token/jinja_operate.h"

#include <math.h>
#include <string.h>

#include "worker/token/jinja_call.h"
#include "worker/token/jinja_lex.h"

static noreturn void fail_overflow(struct jinja_run *r)
{
    jinja_fail(r, E_LIMIT, "an integer does not fit into 64 bits");
}

static noreturn void fail_kinds(struct jinja_run *r, unsigned op, struct jinja_value a, struct jinja_value b)
{
    const char text[] = { (char)op, (char)(op >> 8), '\0' };

    if (a.kind == JINJA_UNDEFINED || b.kind == JINJA_UNDEFINED)
        jinja_fail_undefined(r, a.kind == JINJA_UNDEFINED ? a : b);
    jinja_fail(r, E_INVALID, "unsupported operand types for %s: '%s' and '%s'", text, jinja_kind_name(a),
               jinja_kind_name(b));
}

struct jinja_value jinja_concatenate(struct jinja_run *r, struct jinja_value a, struct jinja_value b)
{
    size_t len = (size_t)a.len + b.len;

    if (!a.len || !b.len)
        return a.len ? a : b;
    /* Text that grows piece by piece grows in place, or its cost would be the square of its length. Only the
     * latest concatenation can: behind all others there may be something. */
    bool grows = a.text + a.len == r->tail && (size_t)(r->tail_room - r->tail) >= b.len;
    char *text = (char *)(uintptr_t)a.text;
    if (!grows) {
        size_t room = len + len / 2 + 32;
        jinja_charge_bytes(r, a.len);
        text = memcpy(jinja_alloc(r, room), a.text, a.len);
        r->tail_room = text + room;
    }
    jinja_charge_bytes(r, b.len);
    memmove(text + a.len, b.text, b.len);
    r->tail = text + len;
    return jinja_string(r, text, len);
}

static int64_t power(struct jinja_run *r, int64_t base, int64_t exponent)
{
    int64_t result = 1;

    while (exponent) {
        if ((exponent & 1) && __builtin_mul_overflow(result, base, &result))
            fail_overflow(r);
        exponent >>= 1;
        if (exponent && __builtin_mul_overflow(base, base, &base))
            fail_overflow(r);
    }
    return result;
}

static struct jinja_value power_of_floats(struct jinja_run *r, double base, double exponent)
{
    if (base == 0 && exponent < 0)
        jinja_fail(r, E_INVALID, "division by zero");
    return jinja_float(pow(base, exponent));
}

/* Division rounds down in Python, the remainder has the divisor's sign. */
static struct jinja_value divide_integers(struct jinja_run *r, unsigned op, int64_t x, int64_t y)
{
    if (!y)
        jinja_fail(r, E_INVALID, "division by zero");
    if (op == '/')
        return jinja_float((double)x / (double)y);
    if (x == INT64_MIN && y == -1)
        fail_overflow(r);
    int64_t quotient = x / y, rest = x % y;
    bool rounds = rest && (rest < 0) != (y < 0);
    return jinja_int(op == '%' ? rest + (rounds ? y : 0) : quotient - rounds);
}

static struct jinja_value operate_integers(struct jinja_run *r, unsigned op, int64_t x, int64_t y)
{
    int64_t z = 0;
    bool overflows = false;

    if (op == '+')
        overflows = __builtin_add_overflow(x, y, &z);
    else if (op == '-')
        overflows = __builtin_sub_overflow(x, y, &z);
    else if (op == '*')
        overflows = __builtin_mul_overflow(x, y, &z);
    else if (op == JINJA_OP('*', '*') && y >= 0)
        z = power(r, x, y);
    else if (op == JINJA_OP('*', '*'))
        return power_of_floats(r, (double)x, (double)y);
    else
        return divide_integers(r, op, x, y);
    if (overflows)
        fail_overflow(r);
    return jinja_int(z);
}

static struct jinja_value operate_floats(struct jinja_run *r, unsigned op, double x, double y)
{
    if (op == '+')
        return jinja_float(x + y);
    if (op == '-')
        return jinja_float(x - y);
    if (op == '*')
        return jinja_float(x * y);
    if (op == JINJA_OP('*', '*'))
        return power_of_floats(r, x, y);
    if (y == 0)
        jinja_fail(r, E_INVALID, "division by zero");
    if (op == '/')
        return jinja_float(x / y);
    double rest = fmod(x, y);
    if (rest != 0 && (rest < 0) != (y < 0))
        rest += y;
    return jinja_float(op == '%' ? rest : floor((x - rest) / y + 0.5));
}

static struct jinja_value repeat(struct jinja_run *r, struct jinja_value v, int64_t times)
{
    struct jinja_text text = { 0 };
    struct jinja_value list;

    times = times > 0 ? times : 0;
    if (v.kind == JINJA_STRING) {
        for (int64_t i = 0; i < times && v.len; i++) {
            jinja_charge(r, 1);
            jinja_text_append(r, &text, v.text, v.len);
        }
        return jinja_text_value(r, &text);
    }
    list = jinja_list_new(r, v.kind, 0);
    for (int64_t i = 0; i < times && v.list->n; i++) {
        jinja_charge(r, v.list->n);
        for (size_t k = 0; k < v.list->n; k++)
            jinja_list_push(r, list.list, v.list->items[k]);
    }
    return list;
}

static struct jinja_value join_lists(struct jinja_run *r, struct jinja_value a, struct jinja_value b)
{
    struct jinja_value list = jinja_list_new(r, a.kind, a.list->n + b.list->n);

    jinja_charge(r, a.list->n + b.list->n);
    for (size_t i = 0; i < a.list->n; i++)
        jinja_list_push(r, list.list, a.list->items[i]);
    for (size_t i = 0; i < b.list->n; i++)
        jinja_list_push(r, list.list, b.list->items[i]);
    return list;
}

static bool is_repeatable(struct jinja_value v)
{
    return v.kind == JINJA_STRING || v.kind == JINJA_LIST || v.kind == JINJA_TUPLE;
}

static bool is_whole(struct jinja_value v)
{
    return v.kind == JINJA_INT || v.kind == JINJA_BOOL;
}

struct jinja_value jinja_operate(struct jinja_run *r, unsigned op, struct jinja_value a, struct jinja_value b)
{
    if (op == '~')
        return jinja_concatenate(r, jinja_to_string(r, a), jinja_to_string(r, b));
    if (is_whole(a) && is_whole(b))
        return operate_integers(r, op, jinja_to_int(a), jinja_to_int(b));
    if (jinja_is_number(a) && jinja_is_number(b))
        return operate_floats(r, op, jinja_to_double(a), jinja_to_double(b));
    if (op == '+' && a.kind == JINJA_STRING && b.kind == JINJA_STRING)
        return jinja_concatenate(r, a, b);
    if (op == '+' && a.kind == b.kind && (a.kind == JINJA_LIST || a.kind == JINJA_TUPLE))
        return join_lists(r, a, b);
    if (op == '*' && is_repeatable(a) && is_whole(b))
        return repeat(r, a, jinja_to_int(b));
    if (op == '*' && is_whole(a) && is_repeatable(b))
        return repeat(r, b, jinja_to_int(a));
    if (op == '%' && a.kind == JINJA_STRING)
        return jinja_format_percent(r, a, b);
    fail_kinds(r, op, a, b);
}

struct jinja_value jinja_negate(struct jinja_run *r, struct jinja_value v)
{
    if (v.kind == JINJA_UNDEFINED)
        jinja_fail_undefined(r, v);
    if (!jinja_is_number(v))
        jinja_fail(r, E_INVALID, "bad operand type for unary -: '%s'", jinja_kind_name(v));
    if (v.kind == JINJA_FLOAT)
        return jinja_float(-v.f);
    if (jinja_to_int(v) == INT64_MIN)
        fail_overflow(r);
    return jinja_int(-jinja_to_int(v));
}
