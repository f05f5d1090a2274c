/* Signals as flags. A handler only sets its flag and wakes signals_fd, so that a poll loop neither misses one
 * nor waits out its timeout. After a fork the child calls signals_init again (it must not share the fd). */
#ifndef WOOLLY_COMMON_SIGNALS_H
#define WOOLLY_COMMON_SIGNALS_H

#include <stdbool.h>

/* Handles SIGTERM and SIGINT (stop), SIGCHLD (child), SIGHUP (reload); ignores SIGPIPE. Clears all flags. */
void signals_init(void);

/* Readable when a signal came since the last signals_drain; for poll. */
int signals_fd(void);
void signals_drain(void);

bool signals_stop_wanted(void);

/* How often a stop was asked for: a second time means at once. */
int signals_stop_count(void);

/* True once per burst of SIGCHLD: the caller then reaps until there is none left. */
bool signals_take_child(void);
bool signals_take_reload(void);

#endif
