/* A table for people on standard output. Cells are cleaned for the terminal. */
#ifndef WOOLLY_CLI_TABLE_H
#define WOOLLY_CLI_TABLE_H

#include <stdbool.h>
#include <stddef.h>

struct column {
    const char *heading;
    bool is_number; /* stands at the right */
};

struct table {
    const struct column *columns;
    size_t n_columns;
    char **cells; /* [rows][n_columns] */
    size_t n_cells;
};

void table_init(struct table *t, const struct column *columns, size_t n_columns);

/* The next cell, row by row. */
void table_add(struct table *t, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Prints and frees it. */
void table_print(struct table *t);

#endif
