/* The other side of a comparison: the benchmark programs of llama.cpp and its relatives, each run a process
 * of its own. Only their command lines and what they print are known here. */
#ifndef WOOLLY_BENCH_PEER_H
#define WOOLLY_BENCH_PEER_H

#include "bench/trial.h"
#include "common/status.h"

/* How a llama-bench is asked to decode behind a prompt. */
enum peer_depth { PEER_NO_DEPTH, PEER_DEPTH_OPTION /* -d */, PEER_GP_OPTION /* -gp: decoding only */ };

/* Reads what the program says about its options; E_UNSUPPORTED when it has none of them. */
MUST_CHECK enum status peer_find_depth(const char *program, enum peer_depth *depth, struct error *err);

/* Runs the trials, which have the same threads and depth, once and adds a sample to each. E_FORMAT when the
 * program prints no figure for any of them: one without an option for depth only decodes there. */
MUST_CHECK enum status peer_measure(const struct engine_request *q, enum peer_depth depth,
                                    struct trial *trials, size_t n, struct error *err);

/* What the programs print, taken apart: adds a sample to each trial that a figure is of. */
void peer_take_json(const char *text, struct trial *trials, size_t n);
void peer_take_table(const char *text, struct trial *trials, size_t n);

#endif
