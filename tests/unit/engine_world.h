/* Models and engines for tests: random models that make_gguf writes into a folder of the test's own. The test
 * is built with MAKE_GGUF, where that program is. */
#ifndef WOOLLY_TESTS_ENGINE_WORLD_H
#define WOOLLY_TESTS_ENGINE_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/xalloc.h"
#include "worker/model/engine.h"

static char world_folder[] = "/tmp/woolly-test-engine-XXXXXX";

static inline char *world_model_path(const char *name)
{
    return xasprintf("%s/%s.gguf", world_folder, name);
}

/* Once, before the first model. */
static inline bool world_begin(void)
{
    return mkdtemp(world_folder);
}

/* The options are of make_gguf, in two parts for the caller's ease. */
static inline bool world_make_model(const char *name, const char *options, const char *more)
{
    char *path = world_model_path(name);
    char *command = xasprintf("'%s' --out '%s' %s %s >/dev/null", MAKE_GGUF, path, options, more);
    int code = system(command);
    free(command);
    free(path);
    return code == 0;
}

static inline bool world_has_model(const char *name)
{
    char *path = world_model_path(name);
    bool is_there = access(path, R_OK) == 0;
    free(path);
    return is_there;
}

/* A group's teardown: all models and the folder. */
static inline int world_end(void **state)
{
    char *command = xasprintf("rm -r '%s'", world_folder);
    int code = system(command);
    (void)state;
    free(command);
    return code;
}

static inline struct model *world_open_model(const char *name)
{
    struct model *m;
    struct error err;
    char *path = world_model_path(name);
    if (model_open(&m, path, &err) != OK)
        fail_msg("%s", err.text);
    free(path);
    return m;
}

static inline struct engine *world_create_engine(const struct model *m, const struct engine_options *o)
{
    struct engine *e;
    struct error err;
    if (engine_create(&e, m, o, &err) != OK)
        fail_msg("%s", err.text);
    return e;
}

#endif
