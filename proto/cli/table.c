#include "proto/cli/table.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"
#include "proto/cli/terminal.h"

enum { MAX_CELL = 200, MAX_COLUMNS = 16 };

void table_init(struct table *t, const struct column *columns, size_t n_columns)
{
    assert(n_columns <= MAX_COLUMNS);
    *t = (struct table){ .columns = columns, .n_columns = n_columns };
}

void table_add(struct table *t, const char *format, ...)
{
    char text[MAX_CELL], clean[MAX_CELL];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    terminal_clean(text, clean, sizeof clean);
    t->cells = xrealloc(t->cells, (t->n_cells + 1) * sizeof *t->cells);
    t->cells[t->n_cells++] = xstrdup(clean);
}

/* Characters, of which each takes one column: close enough for names of models. */
static int width_of(const char *text)
{
    int n = 0;
    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

static void print_cell(const struct table *t, size_t column, const char *text, int width)
{
    int padding = width - width_of(text);
    bool is_last = column + 1 == t->n_columns;
    if (t->columns[column].is_number)
        printf("%*s%s", padding, "", text);
    else
        printf("%s%*s", text, is_last ? 0 : padding, "");
    fputs(is_last ? "\n" : "  ", stdout);
}

void table_print(struct table *t)
{
    int widths[MAX_COLUMNS];
    for (size_t c = 0; c < t->n_columns; c++) {
        widths[c] = width_of(t->columns[c].heading);
        for (size_t i = c; i < t->n_cells; i += t->n_columns)
            if (width_of(t->cells[i]) > widths[c])
                widths[c] = width_of(t->cells[i]);
    }
    for (size_t c = 0; c < t->n_columns; c++)
        print_cell(t, c, t->columns[c].heading, widths[c]);
    for (size_t i = 0; i < t->n_cells; i++) {
        print_cell(t, i % t->n_columns, t->cells[i], widths[i % t->n_columns]);
        free(t->cells[i]);
    }
    free(t->cells);
}
