/* What this machine can do at most, as far as simple loops show it: reading memory, and dot products of every
 * kind its CPU has instructions for. Each loop does nothing else, so a kernel's figure beside it says how
 * much of the machine the kernel uses. Any thread may run a loop, each for itself. */
#ifndef WOOLLY_TOOLS_BENCH_CEILINGS_H
#define WOOLLY_TOOLS_BENCH_CEILINGS_H

#include <stddef.h>
#include <stdint.h>

/* Reads all bytes, a multiple of READ_GRAIN, by so many streams at once that each begin in a part of their
 * own: 1 or 4. `p` is 64-byte aligned. */
enum { READ_GRAIN = 4096 };
void ceiling_read(const char *p, size_t bytes, int n_streams);

struct ceiling {
    const char *name; /* "int8", "bf16", "f32" */
    const char *how;  /* "vpdpbusd 512" */
    double round_ops; /* operations per round; a multiply-add is two */
    void (*run)(uint64_t rounds);
};

/* Those this CPU can run, widest first, ended by a NULL name; the same array at every call. For one thread.
 */
const struct ceiling *ceilings_here(void);

#endif
