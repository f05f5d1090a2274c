#include "common/progress.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"

enum { BAR_COLUMNS = 30, REDRAW_MS = 100 };

static int64_t next_draw_ms;
static bool is_drawn;

void progress_update(const char *what, uint64_t done, uint64_t total)
{
    int64_t now_ms = clock_ms();
    if (now_ms < next_draw_ms || !isatty(STDERR_FILENO))
        return;
    next_draw_ms = now_ms + REDRAW_MS;
    is_drawn = true;
    if (!total) {
        fprintf(stderr, "\r\033[K%s", what);
        fflush(stderr);
        return;
    }

    double share = (double)done / (double)total;
    int filled = (int)(share * BAR_COLUMNS);
    char bar[BAR_COLUMNS + 1];
    for (int i = 0; i < BAR_COLUMNS; i++)
        bar[i] = i < filled ? '#' : '.';
    bar[BAR_COLUMNS] = 0;
    fprintf(stderr, "\r\033[K%s [%s] %3.0f %%", what, bar, share * 100);
    fflush(stderr);
}

void progress_end(void)
{
    if (is_drawn)
        fputs("\r\033[K", stderr);
    is_drawn = false;
    next_draw_ms = 0;
}
