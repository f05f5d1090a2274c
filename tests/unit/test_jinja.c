/* The template language, construct by construct. The expected texts are those of Jinja2 3.1 under trim_blocks
 * and lstrip_blocks with Hugging Face's tojson, on the variables below. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "worker/token/jinja.h"

static const char variables[] =
    "{'a': 3, 'b': 2.5, 's': 'Hello World', 'l': [3, 1, 2], 'e': [], 'z': '', 'n': null, 'neg': -7,"
    " 'd': {'x': 1, 'y': 'two', 'n': null, 't': true}, 'ml': 'one\\n  two\\n\\nthree\\n',"
    " 'msgs': [{'role': 'user', 'content': 'hi'}, {'role': 'assistant', 'content': 'yo', 'k': {'z': 1}},"
    " {'role': 'user', 'content': 'ok'}],"
    " 'uni': '\303\204\303\226 \303\251 \320\266 \316\243 \346\227\245\346\234\254'}";

/* Saturday, 26 July 2025, noon. */
static const struct tm now = {
    .tm_year = 125, .tm_mon = 6, .tm_mday = 26, .tm_hour = 12, .tm_wday = 6, .tm_yday = 206
};

struct example {
    const char *template, *wanted;
};

/* Like JSON, with ' for ". */
static json_t *parse_variables(const char *text)
{
    char *copy = strdup(text);
    json_error_t where;

    for (char *p = copy; (p = strchr(p, '\'')); p++)
        *p = '"';
    json_t *j = json_loads(copy, 0, &where);
    if (!j)
        fail_msg("%s", where.text);
    free(copy);
    return j;
}

static enum status render_within(const char *text, size_t len, const struct jinja_limits *limits,
                                 struct buffer *out, struct error *err)
{
    struct jinja_template *t;
    enum status s = jinja_parse(&t, text, len, err);

    if (s != OK) {
        assert_null(t);
        return s;
    }
    json_t *j = parse_variables(variables);
    s = jinja_render(t, j, &now, limits, out, err);
    json_decref(j);
    jinja_template_destroy(t);
    return s;
}

static void check_examples(const struct example *examples, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct buffer out = { 0 };
        struct error err = { 0 };
        const char *t = examples[i].template;
        if (render_within(t, strlen(t), &jinja_default_limits, &out, &err) != OK)
            fail_msg("%s\n  fails: %s", t, err.text);
        buffer_append(&out, "", 1);
        if (strcmp(out.data, examples[i].wanted) != 0)
            fail_msg("%s\n  gives  %s\n  wanted %s", t, out.data, examples[i].wanted);
        buffer_fini(&out);
    }
}

static void test_loops_count_filter_unpack_and_stop(void **state)
{
    static const struct example examples[] = {
        { "{% for i in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length "
          "}}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.previtem }}{{ loop.nextitem }}{{loop.depth}}{% "
          "else %}E{% endfor %}",
          "10TrueFalse3321121FalseFalse32132132FalseTrue31011" },
        { "{% for i in e %}x{% else %}E{% endfor %}", "E" },
        { "{% for i in l if i > 1 %}{{ i }}{{ loop.length }}{% endfor %}", "3222" },
        { "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "x=1;y=two;n=None;t=True;" },
        { "{% for k in d %}{{ k }}{% endfor %}", "xynt" },
        { "{% for c in \"a\303\251\346\227\245\" %}[{{ c }}]{% endfor %}", "[a][\303\251][\346\227\245]" },
        { "{% for i in range(10) %}{% if i == 3 %}{% continue %}{% endif %}{% if i == 6 %}{% break %}{% "
          "endif %}{{ i }}{% endfor %}",
          "01245" },
        { "{% for i in range(5,0,-2) %}{{ i }}{% endfor %}", "531" },
        { "{% for i in l %}{{ loop.cycle('a','b') }}{{ loop.changed(i) }}{% endfor %}", "aTruebTrueaTrue" },
        { "{% set x = 1 %}{% for i in l %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}", "4231" },
        { "{% set ns = namespace(x=0, y='q') %}{% for i in l %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x "
          "}}{{ ns.y }}{{ ns.z }}",
          "6q" },
        { "{{ undefinedvar == undefinedvar }}{{ undefinedvar == none }}{{ undefinedvar|length }}{% for i in "
          "undefinedvar %}x{% endfor %}",
          "TrueFalse0" },
        { "{% set j = joiner(', ') %}{% for i in l %}{{ j() }}{{ i }}{% endfor %}", "3, 1, 2" },
        { "{% for m in msgs[::-1] %}{{ m.role[0] }}{% endfor %}", "uau" },
        { "{% for m in msgs|reverse %}{{ m.role[0] }}{% endfor %}", "uau" },
        { "{% for a, b in [(1,2),(3,4)] %}{{ a }}{{ b }}{% endfor %}", "1234" },
        { "{% for i in [1,2] %}{% for j in [3,4] %}{{ i }}{{ j }}{{ loop.index }}{% endfor %}{{ loop.index "
          "}}{% endfor %}",
          "13114212312422" },
        { "{{ msgs|groupby('role')|list|length }}{% for g, i in msgs|groupby('role') %}{{ g }}{{ i|length "
          "}}{% endfor %}",
          "2assistant1user2" },
        { "{% for i in l -%}\n  {{ i }}\n{%- endfor %}\n", "312" },
        { "{% for i in l %}\n  {{ i }}\n{% endfor %}\nX", "  3\n  1\n  2\nX" },
    };

    (void)state;
    check_examples(examples, sizeof examples / sizeof *examples);
}

static void test_macros_take_defaults_names_and_callers(void **state)
{
    static const struct example examples[] = {
        { "{% macro m(x, y=2, z='q') %}<{{ x }}{{ y }}{{ z }}>{% endmacro %}{{ m(1) }}{{ m(1, z=5) }}{{ m() "
          "}}{{ m(y=1,x=2) }}{{ m.name }}",
          "<12q><125><2q><21q>m" },
        { "{% macro m(x) %}{{ x }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1,2,3,k=4) }}",
          "1(2, 3){'k': 4}" },
        { "{% macro m() %}[{{ caller() }}]{% endmacro %}{% call m() %}in{{ a }}{% endcall %}", "[in3]" },
        { "{% macro m() %}[{{ caller(5) }}]{% endmacro %}{% call(v) m() %}in{{ v }}{% endcall %}", "[in5]" },
        { "{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(5) }}", "543210" },
        { "{% set q = 1 %}{% macro m() %}{{ q }}{% endmacro %}{% set q = 2 %}{{ m() }}", "2" },
    };

    (void)state;
    check_examples(examples, sizeof examples / sizeof *examples);
}

static void test_assignments_keep_to_their_scope(void **state)
{
    static const struct example examples[] = {
        { "{% set ns = namespace() %}{% set ns.a = [1] %}{{ ns.a }}{{ ns }}", "[1]<Namespace {'a': [1]}>" },
        { "{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set (c, d) = (3, 4) %}{{ c }}{{ d }}", "1234" },
        { "{% set q %}block {{ a }}{% endset %}[{{ q }}]{% set q | upper %}abc{% endset %}{{ q }}",
          "[block 3]ABC" },
        { "{% with a=1, b=a %}{{ a }}{{ b }}{% endwith %}{{ a }}", "133" },
        { "{% generation %}{{ a }}{% set a = 9 %}{% endgeneration %}{{ a }}", "33" },
        { "{% set x = 5 if true else 6 %}{{ x }}", "5" },
        { "{%- set x -%}  q  {%- endset -%}[{{ x }}]", "[q]" },
    };

    (void)state;
    check_examples(examples, sizeof examples / sizeof *examples);
}

static void test_white_space_is_cut_as_trim_and_lstrip_blocks_say(void **state)
{
    static const struct example examples[] = {
        { "{% raw %}{{ a }}{% if %}{% endraw %}x", "{{ a }}{% if %}x" },
        { "y #}", "y #}" },
        { "  {# c #}", "" },
        { "a {#- c -#} b{# x\ny #}\nc\n  {# c #}\nd\n {%- if a -%} \n x \n {%- endif +%}\n y\n\t{% if a %}\n "
          " line\n\t{% endif %}\n tail\n",
          "abc\ndx\n y\n  line\n tail" },
        { "x {% if a %} y {% endif %} z\n  {%+ if a %}\n k\n  {%- endif %}\n\nend\n\n",
          "x  y  z\n   k\nend\n" },
        { "{{ a }}\n{{- b -}}\n {{ s }}\n", "32.5Hello World" },
        { "  {% raw %}  \n y {%- endraw -%}   z", "  \n yz" },
        { "  {% raw %}\n y \n  {% endraw %}\nz", "\n y \nz" },
        { "{% raw -%}  a {% endraw +%}\nb", "a \nb" },
        { "\r\na\rb{% if a %}\r\nc{% endif %}\r\n", "\na\nbc" },
        { "\302\240 {%- if a %}x{% endif -%}\342\200\203y", "xy" },
        { "{{ a\n\n+\n b }}\n{% if\n a %}\nq{% endif %}", "5.5\nq" },
    };

    (void)state;
    check_examples(examples, sizeof examples / sizeof *examples);
}

static void test_values_become_json_as_python_writes_it(void **state)
{
    static const struct example examples[] = {
        { "{{ d|tojson }}{{ d|tojson(indent=2) }}{{ [1,[],{}]|tojson(indent=4) }}{{ s|tojson }}{{ "
          "'\303\251\"\\\\/\\n\\x01<>&\\'\\x7f\346\227\245\360\237\230\200'|tojson }}{{ "
          "'\303\251\360\237\230\200'|tojson(ensure_ascii=true) }}{{ "
          "[1,{'a':2}]|tojson(separators=(',',':')) }}{{ {'b':1,'a':2}|tojson(sort_keys=true) }}{{ "
          "1.0|tojson }}{{ {1:2,none:3,true:4}|tojson }}{{ [1,2]|tojson(indent='\\t') }}{{ (1,2)|tojson }}{{ "
          "none|tojson }}",
          "{\"x\": 1, \"y\": \"two\", \"n\": null, \"t\": true}{\n  \"x\": 1,\n  \"y\": \"two\",\n  \"n\": "
          "null,\n  \"t\": true\n}[\n    1,\n    [],\n    {}\n]\"Hello "
          "World\"\"\303\251\\\"\\\\/"
          "\\n\\u0001<>&'\177\346\227\245\360\237\230\200\"\"\\u00e9\\ud83d\\ude00\"[1,{\"a\":2}]{\"a\": 2, "
          "\"b\": 1}1.0{\"1\": 4, \"null\": 3}[\n\t1,\n\t2\n][1, 2]null" },
    };

    (void)state;
    check_examples(examples, sizeof examples / sizeof *examples);
}

static void test_tests_tell_kinds_apart(void **state)
{
    static const struct example examples[] = {
        { "{{ undefinedvar }}[{{ undefinedvar is defined }}{{ a is defined }}{{ d.q is undefined }}]",
          "[FalseTrueTrue]" },
        { "{{ 3 is even }}{{ 3 is odd }}{{ 4 is divisibleby 2 }}{{ 4 is divisibleby(3) }}{{ a is none }}{{ n "
          "is none }}{{ s is string }}{{ d is mapping }}{{ l is iterable }}{{ l is sequence }}{{ s is "
          "sequence }}{{ d is sequence }}{{ d is iterable }}{{ s is iterable }}{{ a is iterable }}{{ "
          "undefinedvar is iterable }}{{ undefinedvar is sequence }}",
          "FalseTrueTrueFalseFalseTrueTrueTrueTrueTrueTrueTrueTrueTrueFalseTrueTrue" },
        { "{% if messages is defined %}M{% elif a == 3 %}three{% else %}E{% endif %}", "three" },
        { "{{ 5 if false }}|{{ (5 if false) is defined }}", "|False" },
        { "{{ l|map('upper') is iterable }}{% if e|select %}T{% endif %}", "TrueT" },
        { "{{ \"a\" if true }}{{ '' if z is defined and z }}{{ a is defined and a is not none and a > 2 }}",
          "aTrue" },
        { "{{ loop is defined }}{{ range(3)|list }}{{ range(0)|list }}", "False[0, 1, 2][]" },
        { "{{ 'tojson' if 'a' is string else 'b' }}{{ d.x is defined and d.x }}{{ '\303\251'|upper }}{{ "
          "'\303\237'|lower }}{{ '\\u00e9' }}",
          "tojson1\303\211\303\237\303\251" },
        { "{{ 9223372036854775807 }}{{ s.title() }}{{ s|wordcount }}{{ s|e }}{{ s|attr('upper') is defined "
          "}}",
          "9223372036854775807Hello World2Hello WorldTrue" },
    };

    (void)state;
    check_examples(examples, sizeof examples / sizeof *examples);
}

static void test_filters_of_lists_and_dicts(void **state)
{
    static const struct example examples[] = {
        { "{{ d.keys()|list }}{{ d.values()|list }}{{ d.items()|list }}{{ d|items|list }}{{ d|length }}{{ "
          "d|list }}",
          "['x', 'y', 'n', 't'][1, 'two', None, True][('x', 1), ('y', 'two'), ('n', None), ('t', "
          "True)][('x', 1), ('y', 'two'), ('n', None), ('t', True)]4['x', 'y', 'n', 't']" },
        { "{{ l|join(', ') }}{{ l|join }}{{ msgs|join('|', attribute='role') }}{{ s|upper }}{{ s|lower }}{{ "
          "'foo bar-baz (qux) it\\'s'|title }}{{ 'fOO bAR'|capitalize }}",
          "3, 1, 2312user|assistant|userHELLO WORLDhello worldFoo Bar-Baz (Qux) It'sFoo bar" },
        { "{{ l|first }}{{ l|last }}{{ e|first }}{{ s|first }}{{ s|last }}{{ s|list }}{{ l|sort }}{{ "
          "l|sort(reverse=true) }}{{ ['b','A','c']|sort }}{{ ['b','A','c']|sort(case_sensitive=true) }}{{ "
          "msgs|sort(attribute='content')|map(attribute='content')|list }}",
          "32Hd['H', 'e', 'l', 'l', 'o', ' ', 'W', 'o', 'r', 'l', 'd'][1, 2, 3][3, 2, 1]['A', 'b', 'c']['A', "
          "'b', 'c']['hi', 'ok', 'yo']" },
        { "{{ msgs|map(attribute='role')|list }}{{ msgs|map(attribute='k.z', default=0)|list }}{{ "
          "l|map('string')|list }}{{ ['a','b']|map('upper')|join }}{{ l|map('default', 1)|list }}{{ "
          "[[1,2],[3]]|map('length')|list }}{{ [[1,2],[3]]|map(attribute=0)|list }}{{ "
          "[[1,2],[3]]|map('first')|list }}",
          "['user', 'assistant', 'user'][0, 1, 0]['3', '1', '2']AB[3, 1, 2][2, 1][1, 3][1, 3]" },
        { "{{ msgs|selectattr('role','equalto','user')|map(attribute='content')|list }}{{ "
          "msgs|rejectattr('role','equalto','user')|list|length }}{{ msgs|selectattr('k')|list|length }}{{ "
          "msgs|selectattr('k','defined')|list|length }}{{ l|select('gt', 1)|list }}{{ l|reject('odd')|list "
          "}}{{ [0,1,'']|select|list }}{{ msgs|selectattr('role','in',['user'])|list|length }}{{ "
          "msgs|selectattr('role', '==', 'user')|first }}",
          "['hi', 'ok']111[3, 2][2][1]2{'role': 'user', 'content': 'hi'}" },
        { "{{ [1,2,1,'a','A']|unique|list }}{{ l|reverse|list }}{{ s|reverse }}{{ d|dictsort }}{{ "
          "{'b':1,'A':0}|dictsort }}{{ {'b':1,'A':0}|dictsort(by='value', reverse=true) }}{{ "
          "{'b':1,'A':0}|dictsort(true) }}",
          "[1, 2, 'a'][2, 1, 3]dlroW olleH[('n', None), ('t', True), ('x', 1), ('y', 'two')][('A', 0), ('b', "
          "1)][('b', 1), ('A', 0)][('A', 0), ('b', 1)]" },
        { "{{ [1,2,3,4,5]|batch(2)|list }}{{ [1,2,3]|batch(2,'x')|list }}{{ l|sum }}{{ "
          "msgs|map(attribute='content')|map('length')|sum }}{{ [1.5,2]|sum(start=1) }}{{ "
          "[{'v':2},{'v':3}]|sum(attribute='v') }}{{ l|min }}{{ l|max }}{{ ['b','A']|min }}{{ e|min }}",
          "[[1, 2], [3, 4], [5]][[1, 2], [3, 'x']]664.5513A" },
        { "{{ s.split(' ')|last }}{{ (s.split(' ')|first).lower() }}{{ s|lower|replace('world', 'x')|title "
          "}}",
          "WorldhelloHello X" },
        { "{{ [l, l]|map('join', '-')|list }}{{ [[3,1],[2]]|map('sort')|list }}",
          "['3-1-2', '3-1-2'][[1, 3], [2]]" },
    };

    (void)state;
    check_examples(examples, sizeof examples / sizeof *examples);
}

static void test_filters_of_text_and_numbers(void **state)
{
    static const struct example examples[] = {
        { "{% filter upper %}abc{{ s }}{% endfilter %}", "ABCHELLO WORLD" },
        { "{{ -a ** 2 }}{{ +a }}{{ -b|abs }}{{ neg|abs }}", "932.57" },
        { "{{ s.strip() }}{{ '  x '.strip() }}|{{ '  x '.lstrip() }}|{{ '  x '.rstrip() }}|{{ "
          "'xxaxx'.strip('x') }}{{ 'abcx'.rstrip('xc') }}",
          "Hello Worldx|x |  x|aab" },
        { "{{ s.replace('l','L') }}{{ s.replace('l','L',1) }}{{ 'abc'.replace('','-') }}{{ "
          "'abc'.replace('','-',2) }}{{ s|replace('o','0') }}",
          "HeLLo WorLdHeLlo World-a-b-c--a-bcHell0 W0rld" },
        { "{{ '  x '|trim }}{{ 'xax'|trim('x') }}{{ s|length }}{{ uni|length }}{{ l|length }}{{ l|count }}{{ "
          "n|default('x') }}{{ undefinedvar|default('x') }}{{ z|default('x', true) }}{{ z|d('x', "
          "boolean=true) }}{{ undefinedvar|default }}",
          "xa111133Nonexxx" },
        { "{{ 1|string + 'x' }}{{ '42'|int }}{{ ' 42 '|int }}{{ '4.7'|int }}{{ 'x'|int }}{{ 'x'|int(5) }}{{ "
          "'1f'|int(base=16) }}{{ 3.9|int }}{{ true|int }}{{ n|int }}{{ '1.5'|float }}{{ 'x'|float }}{{ "
          "3|float }}{{ '1e3'|float }}{{ 'inf'|float }}",
          "1x4242405313101.50.03.01000.0inf" },
        { "{{ 2.5|round }}{{ 3.5|round }}{{ 42.55|round(1) }}{{ 42.5567|round(2, 'floor') }}{{ "
          "42.1|round(method='ceil') }}{{ 3|round }}{{ 2.675|round(2) }}",
          "2.04.042.542.5543.032.67" },
        { "{{ '<a&\"\\'>'|e }}{{ '<b>'|safe }}{{ ml|indent }}|{{ ml|indent(2, true) }}|{{ ml|indent('> ', "
          "true, true) }}|{{ 'a\\nb'|indent(width=1) }}",
          "&lt;a&amp;&#34;&#39;&gt;<b>one\n      two\n\n    three\n|  one\n    two\n\n  three\n|> one\n>   "
          "two\n> \n> three\n> |a\n b" },
        { "{{ msgs[0]['role'] }}{{ msgs[-1].content }}{{ msgs[0].content|length > 1 }}{{ msgs[1:]|length }}",
          "userokTrue2" },
        { "{{ ml|trim|length }}{{ ml.strip().split('\\n')|length }}{{ 'x'.join('abc') }}", "164axbxc" },
    };

    (void)state;
    check_examples(examples, sizeof examples / sizeof *examples);
}

static void test_methods_of_strings_and_dicts(void **state)
{
    static const struct example examples[] = {
        { "{{ d.x }}{{ d['y'] }}{{ d.missing }}{{ d['missing'] }}{{ d.get('x') }}{{ d.get('q') }}{{ "
          "d.get('q', 5) }}",
          "1two1None5" },
        { "{{ 'a,b,c'.split(',') }}{{ ' a  b '.split() }}{{ 'a,b,c'.split(',', 1) }}{{ ' a  b c "
          "'.split(none, 1) }}{{ 'a</think>b'.split('</think>')[-1] }}{{ ''.split() }}{{ ''.split(',') }}{{ "
          "'a,b,c'.rsplit(',', 1) }}",
          "['a', 'b', 'c']['a', 'b']['a', 'b,c']['a', 'b c ']b[]['']['a,b', 'c']" },
        { "{{ 'a\\nb\\r\\nc\\n'.splitlines() }}{{ 'a\\n\\nb'.splitlines(true) }}",
          "['a', 'b', 'c']['a\\n', '\\n', 'b']" },
        { "{{ s.startswith('He') }}{{ s.endswith('x') }}{{ s.startswith(('a','H')) }}{{ s.upper() }}{{ "
          "s.lower() }}{{ 'hello wORLD it\\'s'.title() }}{{ 'hELLO x'.capitalize() }}{{ uni.lower() }}{{ "
          "uni.upper() }}",
          "TrueFalseTrueHELLO WORLDhello worldHello World It'SHello x\303\244\303\266 \303\251 \320\266 "
          "\317\203 \346\227\245\346\234\254\303\204\303\226 \303\211 \320\226 \316\243 "
          "\346\227\245\346\234\254" },
        { "{{ s.find('o') }}{{ s.find('q') }}{{ s.rfind('o') }}{{ s.count('l') }}{{ s.index('W') }}{{ "
          "uni.find('\320\266') }}{{ 'aa'.count('') }}",
          "4-173653" },
        { "{{ '{} {}'.format(1, 'a') }}{{ '{0}{1}{0}'.format(1,2) }}{{ '{a}-{{}}'.format(a=3) }}",
          "1 a1213-{}" },
        { "{{ 'a.b'.partition('.') }}{{ 'ab'.partition('.') }}{{ 'a.b.c'.rpartition('.') }}{{ "
          "'abc'.removeprefix('a') }}{{ 'abc'.removesuffix('c') }}",
          "('a', '.', 'b')('ab', '', '')('a.b', '.', 'c')bcab" },
        { "{{ '12'.isdigit() }}{{ 'a1'.isalpha() }}{{ 'a1'.isalnum() }}{{ ' '.isspace() }}{{ 'A'.isupper() "
          "}}{{ 'a'.islower() }}",
          "TrueFalseTrueTrueTrueTrue" },
        { "{{ strftime_now('%d %b %Y %H:%M %A %-d %j %%') }}", "26 Jul 2025 12:00 Saturday 26 207 %" },
        { "{{ {'items': 1}['items'] }}{{ {'keys': 3}.get('keys') }}", "13" },
    };

    (void)state;
    check_examples(examples, sizeof examples / sizeof *examples);
}

static void test_operators_and_literals(void **state)
{
    static const struct example examples[] = {
        { "c", "c" },
        { "d", "d" },
        { " x ", " x " },
        { " y", " y" },
        { "  line", "  line" },
        { " tail", " tail" },
        { "x {% if a %} y {% endif %} z", "x  y  z" },
        { " k", " k" },
        { "end", "end" },
        { "{{ a }}", "3" },
        { "{{- b -}}", "2.5" },
        { " {{ s }}", " Hello World" },
        { "{{ 1 + 2 * 3 ** 2 - 4 // 3 / 2 % 3 }}", "18.5" },
        { "{{ 7 // 2 }}{{ -7 // 2 }}{{ 7 % 3 }}{{ -7 % 3 }}{{ 7 % -3 }}{{ 7.5 // 2 }}{{ -7.5 % 2 }}{{ 2 ** "
          "-1 }}{{ 2**3**2 }}{{ 7/2 }}{{ 4/2 }}",
          "3-412-23.00.50.5643.52.0" },
        { "{{ 1e5 }} {{ 1.0 }} {{ 1e16 }} {{ 1.5e-7 }} {{ 0.1 + 0.2 }} {{ 123456789.125 }} {{ 1e22 }} {{ "
          "1_000 }} {{ 0x1f }} {{ 0b101 }} {{ 0o17 }} {{ 100.0 }} {{ 1e15 }} {{ 0.0001 }} {{ 0.00001 }}",
          "100000.0 1.0 1e+16 1.5e-07 0.30000000000000004 123456789.125 1e+22 1000 31 5 15 100.0 "
          "1000000000000000.0 0.0001 1e-05" },
        { "{{ 'a' ~ 1 ~ none ~ true ~ 1.5 }}{{ 'a' 'b' }}{{ 'a' + 'b' * 3 }}{{ [1] + [2] }}{{ [1,'a'] * 2 "
          "}}{{ (1,) + (2,) }}",
          "a1NoneTrue1.5ababbb[1, 2][1, 'a', 1, 'a'](1, 2)" },
        { "{{ 1 < 2 < 3 }}{{ 1 < 2 > 3 }}{{ 1 == 1.0 }}{{ true == 1 }}{{ 'a' == 1 }}{{ 'a' != 'b' }}{{ [1,2] "
          "< [1,3] }}{{ 'a' < 'b' }}",
          "TrueFalseTrueTrueFalseTrueTrueTrue" },
        { "{{ 1 in [1,2] }}{{ 3 not in l }}{{ 'x' in d }}{{ 'ell' in s }}{{ '' in s }}{{ not a in l }}",
          "TrueFalseTrueTrueTrueFalse" },
        { "{{ a and b }}{{ z or 'def' }}{{ not z }}{{ z and x }}{{ 0 or '' or none }}{{ true and not false "
          "}}",
          "2.5defTrueNoneTrue" },
        { "{{ 'y' if a else 'n' }}{{ 'y' if z }}{{ 'y' if z else 'q' if z else 'r' }}", "yr" },
        { "{{ l[0] }}{{ l[-1] }}{{ l[1:] }}{{ l[:-1] }}{{ l[::-1] }}{{ l[::2] }}{{ s[::-1] }}{{ s[1:4] }}{{ "
          "s[-3:] }}{{ uni[0] }}{{ uni[-2:] }}{{ l[5:] }}{{ s[10:2:-3] }}{{ l[10] }}{{ l[-9:9] }}{{ s[5:2] "
          "}}",
          "32[1, 2][3, 1][2, 1, 3][3, 2]dlroW olleHellrld\303\204\346\227\245\346\234\254[]doo[3, 1, 2]" },
        { "{{ (1,2)[0] }}{{ (1,) }}{{ () }}{{ 1, 2 }}{{ {} }}{{ {'a': {'b': [1, 'x']}} }}{{ {'a': {}}}}{{ "
          "{1: 2} }}",
          "1(1,)()(1, 2){}{'a': {'b': [1, 'x']}}{'a': {}}{1: 2}" },
        { "{{ [1, 2.5, 'x', none, true, \"it's\", 'q\"', \"a'b\\\"c\", 'n\\n\\t\\\\\303\251'] }}",
          "[1, 2.5, 'x', None, True, \"it's\", 'q\"', 'a\\'b\"c', 'n\\n\\t\\\\\303\251']" },
        { "{{ 'a\\nb\\t\\\\ \\' \\x41 \\u00e9 \\101 \\q' }}", "a\nb\t\\ ' A \303\251 A \\q" },
        { "{{ undefinedvar ~ 'x' }}", "x" },
        { "{{ [undefinedvar] }}", "[Undefined]" },
        { "{{ 'x' in undefinedvar }}", "False" },
        { "{{ dict(a=1, b='x') }}{{ dict({'q':1}, z=2) }}", "{'a': 1, 'b': 'x'}{'q': 1, 'z': 2}" },
        { "{% if not a %}1{% elif b %}2{% endif %}", "2" },
        { "{{ n.x }}[{{ n['x'] }}]", "[]" },
        { "{{ true }}{{ True }}{{ False }}{{ None }}{{ none }}", "TrueTrueFalseNoneNone" },
        { "{{ 10 - 2 - 3 }}{{ 2 * 3 % 4 }}{{ 100 // 7 // 2 }}", "527" },
        { "{{ 'a' not in 'abc' }}{{ 1 not in [1] == false }}", "FalseFalse" },
        { "{{ [1,2,]}}{{ {'a':1,} }}{{ (1,2,) }}", "[1, 2]{'a': 1}(1, 2)" },
        { "{{ d['x'] if 'x' in d else '' }}{{ d.t }}{{ d.n }}{{ d }}",
          "1TrueNone{'x': 1, 'y': 'two', 'n': None, 't': True}" },
    };

    (void)state;
    check_examples(examples, sizeof examples / sizeof *examples);
}

static void check_error(const char *template, size_t len, const struct jinja_limits *limits,
                        enum status status, const char *wanted)
{
    struct buffer out = { 0 };
    struct error err = { 0 };
    enum status s = render_within(template, len, limits, &out, &err);

    if (s != status || strcmp(err.text, wanted) != 0)
        fail_msg("%s\n  gives  %s: %s\n  wanted %s: %s", template, status_name(s), err.text,
                 status_name(status), wanted);
    assert_int_equal(out.len, 0);
    buffer_fini(&out);
}

static void test_errors_of_syntax_name_line_column_and_construct(void **state)
{
    static const struct example examples[] = {
        { "a\nb {{ 1 + }}", "line 2, column 10: expected an expression, found the end of the tag" },
        { "{% if a %}x", "line 1, column 11: the block that begins here has no endif" },
        { "\n {% endfor %}", "line 2, column 5: there is no tag 'endfor'" },
        { "{% nosuch %}", "line 1, column 4: there is no tag 'nosuch'" },
        { "{{ (1 }}", "line 1, column 7: this is '}' where ')' was expected" },
        { "{{ ] }}", "line 1, column 4: this ']' closes nothing" },
        { "{{ 'abc }}", "line 1, column 4: this string has no end" },
        { "{{ '\\ud800' }}", "line 1, column 4: this string has a broken \\u escape" },
        { "\303\251{# x", "line 1, column 2: this comment has no end" },
        { "{% raw %}x", "line 1, column 1: this raw block has no endraw" },
        { "{{ a ? b }}", "line 1, column 6: this character does not belong into a tag" },
        { "x{{ a", "line 1, column 2: this tag has no end" },
        { "{{ a b }}", "line 1, column 6: expected the end of the tag, found 'b'" },
        { "{% for in l %}", "line 1, column 11: expected 'in', found 'l'" },
        { "{% set 1 = 2 %}", "line 1, column 8: expected a name, found a int" },
        { "{% break %}", "line 1, column 4: expected a loop around it, found 'break'" },
        { "{{ f(a=1, 2) }}", "line 1, column 11: an argument without name follows one with a name" },
        { "{{ a is string is string }}", "line 1, column 16: tests with 'is' cannot be chained" },
        { "{{ 99999999999999999999 }}", "line 1, column 4: this number does not fit into 64 bits" },
        { "ab\377", "line 1, column 3: the template is not UTF-8 here" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++)
        check_error(examples[i].template, strlen(examples[i].template), &jinja_default_limits, E_FORMAT,
                    examples[i].wanted);
}

static void test_errors_while_rendering_name_line_column_and_construct(void **state)
{
    static const struct example examples[] = {
        { "{{ u.x }}", "line 1, column 6: 'u' is undefined" },
        { "\n\n{{ d.q.r }}", "line 3, column 8: 'dict object' has no attribute 'q'" },
        { "{{ u + 1 }}", "line 1, column 6: 'u' is undefined" },
        { "{{ u() }}", "line 1, column 4: 'u' is undefined" },
        { "{{ s() }}", "line 1, column 4: 'str' object is not callable" },
        { "{{ u|tojson }}", "line 1, column 6: tojson: an Undefined has no JSON form" },
        { "{{ 1/0 }}", "line 1, column 5: division by zero" },
        { "{{ 0 ** -1 }}", "line 1, column 6: division by zero" },
        { "{{ 'a' + 1 }}", "line 1, column 8: unsupported operand types for +: 'str' and 'int'" },
        { "{{ 'a' < 1 }}", "line 1, column 8: a str and a int have no order" },
        { "{{ ','.join(l) }}", "line 1, column 8: join: element 0 is no string but a 'int'" },
        { "{% for x in none %}{% endfor %}", "line 1, column 13: 'NoneType' object is not iterable" },
        { "{% for a, b in [(1, 2, 3)] %}{% endfor %}", "line 1, column 8: 3 values for 2 names" },
        { "{% set d.x = 1 %}",
          "line 1, column 10: cannot assign to an attribute of a 'dict' object, only of a namespace" },
        { "{% macro m(x) %}{% endmacro %}{{ m(1, 2) }}",
          "line 1, column 34: macro 'm' takes not more than 1 argument(s)" },
        { "{% macro m(x) %}{% endmacro %}{{ m(q=2) }}",
          "line 1, column 34: macro 'm' takes no argument named 'q'" },
        { "{{ s|replace('a') }}", "line 1, column 6: replace needs its argument new" },
        { "{{ s|trim(1, 2) }}", "line 1, column 6: trim takes at most 1 argument(s), not 2" },
        { "{{ s|indent(depth=1) }}", "line 1, column 6: indent has no argument named depth" },
        { "a\n{% if l %}\n  {{ raise_exception('roles must alternate, ' ~ a) }}{% endif %}",
          "line 3, column 6: roles must alternate, 3" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++)
        check_error(examples[i].template, strlen(examples[i].template), &jinja_default_limits, E_INVALID,
                    examples[i].wanted);
}

static void test_numbers_out_of_range_are_refused_not_altered(void **state)
{
    static const struct example examples[] = {
        { "{{ 1e20|int }}", "line 1, column 9: an integer does not fit into 64 bits" },
        { "{{ '-1e19'|int }}", "line 1, column 12: an integer does not fit into 64 bits" },
        { "{{ '%500d'|format(1) }}", "line 1, column 12: a formatted number has more than 399 characters" },
        { "{{ '%.300f' % 1e300 }}", "line 1, column 13: a formatted number has more than 399 characters" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++)
        check_error(examples[i].template, strlen(examples[i].template), &jinja_default_limits, E_LIMIT,
                    examples[i].wanted);
}

static void test_what_is_not_there_is_named_where_it_is_used(void **state)
{
    static const struct example examples[] = {
        { "{{ a|nofilter }}", "line 1, column 6: there is no filter named 'nofilter'" },
        { "{{ a is notest }}", "line 1, column 9: there is no test named 'notest'" },
        { "{{ l.append(4) }}", "line 1, column 6: append: a list cannot be changed in a template" },
        { "{{ d.update({}) }}", "line 1, column 6: update: a dict cannot be changed in a template" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++)
        check_error(examples[i].template, strlen(examples[i].template), &jinja_default_limits, E_UNSUPPORTED,
                    examples[i].wanted);
}

static void test_a_template_that_would_run_for_ever_stops_at_the_step_limit(void **state)
{
    static const struct jinja_limits limits = { 1000000, 64 << 20, 16 << 20 };
    static const char loops[] = "{% set r = range(1000) %}{% for a in r %}{% for b in r %}{% for c in r %}"
                                "{% endfor %}{% endfor %}{% endfor %}";

    (void)state;
    check_error(loops, strlen(loops), &limits, E_LIMIT,
                "line 1, column 65: the template takes more than 1000000 steps");
    check_error("{{ range(10**18) }}", 19, &limits, E_LIMIT,
                "line 1, column 4: the template takes more than 1000000 steps");
}

static void test_memory_and_output_have_limits(void **state)
{
    static const struct jinja_limits small = { 100000000, 1 << 20, 1000 };
    static const char doubling[] = "{% set n = namespace(s='ab') %}{% for i in range(60) %}"
                                   "{% set n.s = n.s + n.s %}{% endfor %}";
    static const char printing[] = "{% for i in range(400) %}abc{% endfor %}";

    (void)state;
    check_error(doubling, strlen(doubling), &small, E_LIMIT,
                "line 1, column 73: the template needs more than 1 MiB of memory");
    check_error(printing, strlen(printing), &small, E_LIMIT,
                "line 1, column 26: the template prints more than 1000 bytes");
}

static void test_nesting_has_a_limit(void **state)
{
    struct jinja_template *t;
    struct error err = { 0 };
    enum { N = 100000 };
    char *deep = malloc(N);
    static const char endless[] = "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}";

    (void)state;
    memset(deep, '-', N);
    memcpy(deep, "{{", 2);
    memcpy(deep + N - 3, "1}}", 3);
    assert_int_equal(jinja_parse(&t, deep, N, &err), E_LIMIT);
    assert_non_null(strstr(err.text, "nested more than 300 levels deep"));
    for (size_t i = 0; i + 10 <= N; i += 10)
        memcpy(deep + i, "{% if a %}", 10);
    assert_int_equal(jinja_parse(&t, deep, N, &err), E_LIMIT);
    check_error(endless, strlen(endless), &jinja_default_limits, E_LIMIT,
                "line 1, column 19: nested more than 300 levels deep");
    free(deep);
}

static void test_a_template_of_more_than_a_mebibyte_is_refused(void **state)
{
    struct jinja_template *t;
    struct error err = { 0 };
    char *big = calloc(1, JINJA_MAX_TEMPLATE_BYTES + 1);

    (void)state;
    assert_int_equal(jinja_parse(&t, big, JINJA_MAX_TEMPLATE_BYTES + 1, &err), E_LIMIT);
    assert_string_equal(err.text, "the template has 1048577 bytes, more than 1024 KiB");
    free(big);
}

/* Piece by piece to 3 MB: with a copy each time this would need 30 GB. */
static void test_text_that_grows_piece_by_piece_takes_linear_room(void **state)
{
    static const char t[] = "{% set n = namespace(s='') %}{% for i in range(30000) %}"
                            "{% set n.s = n.s ~ '0123456789' * 10 %}{% endfor %}{{ n.s|length }}";
    struct buffer out = { 0 };
    struct error err = { 0 };

    (void)state;
    if (render_within(t, strlen(t), &jinja_default_limits, &out, &err) != OK)
        fail_msg("%s", err.text);
    assert_int_equal(out.len, 7);
    assert_memory_equal(out.data, "3000000", 7);
    buffer_fini(&out);
}

static void test_a_grown_text_leaves_the_text_it_grew_from(void **state)
{
    static const struct example examples[] = {
        { "{% set a = 'x' ~ 'y' %}{% set b = a ~ '1' %}{% set c = a ~ '2' %}{{ a }} {{ b }} {{ c }}",
          "xy xy1 xy2" },
        { "{% set a = 'abc' ~ 'def' %}{% set p = a[:3] ~ 'X' %}{% set q = a[3:] ~ 'Y' %}{{ a }} {{ p }} {{ q "
          "}}",
          "abcdef abcX defY" },
        { "{% set a = 'ab' ~ 'cd' %}{{ a ~ a ~ a }} {{ a }}", "abcdabcdabcd abcd" },
    };

    (void)state;
    check_examples(examples, sizeof examples / sizeof *examples);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loops_count_filter_unpack_and_stop),
        cmocka_unit_test(test_macros_take_defaults_names_and_callers),
        cmocka_unit_test(test_assignments_keep_to_their_scope),
        cmocka_unit_test(test_white_space_is_cut_as_trim_and_lstrip_blocks_say),
        cmocka_unit_test(test_values_become_json_as_python_writes_it),
        cmocka_unit_test(test_tests_tell_kinds_apart),
        cmocka_unit_test(test_filters_of_lists_and_dicts),
        cmocka_unit_test(test_filters_of_text_and_numbers),
        cmocka_unit_test(test_methods_of_strings_and_dicts),
        cmocka_unit_test(test_operators_and_literals),
        cmocka_unit_test(test_errors_of_syntax_name_line_column_and_construct),
        cmocka_unit_test(test_errors_while_rendering_name_line_column_and_construct),
        cmocka_unit_test(test_numbers_out_of_range_are_refused_not_altered),
        cmocka_unit_test(test_what_is_not_there_is_named_where_it_is_used),
        cmocka_unit_test(test_a_template_that_would_run_for_ever_stops_at_the_step_limit),
        cmocka_unit_test(test_memory_and_output_have_limits),
        cmocka_unit_test(test_nesting_has_a_limit),
        cmocka_unit_test(test_a_template_of_more_than_a_mebibyte_is_refused),
        cmocka_unit_test(test_text_that_grows_piece_by_piece_takes_linear_room),
        cmocka_unit_test(test_a_grown_text_leaves_the_text_it_grew_from),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
