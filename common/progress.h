/* A progress line on standard error for long work; silent when that is no terminal. One at a time. */
#ifndef WOOLLY_COMMON_PROGRESS_H
#define WOOLLY_COMMON_PROGRESS_H

#include <stdint.h>

/* total 0: nobody knows how much there is, only the words are shown. */
void progress_update(const char *what, uint64_t done, uint64_t total);

/* Wipes the line. */
void progress_end(void);

#endif
