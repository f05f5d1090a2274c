#include "bench/child.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/process.h"
#include "common/xalloc.h"

enum { MAX_OUTPUT = 16 << 20, READ_SIZE = 1 << 16, COULD_NOT_START = 127 };

static void add_word(struct command *c, char *word)
{
    c->words = xrealloc(c->words, (c->n + 2) * sizeof *c->words);
    c->words[c->n++] = word;
    c->words[c->n] = NULL;
}

void command_add(struct command *c, const char *format, ...)
{
    va_list args;
    char *word;
    va_start(args, format);
    if (vasprintf(&word, format, args) < 0)
        abort();
    va_end(args);
    add_word(c, word);
}

void command_add_words(struct command *c, const char *text)
{
    for (;;) {
        text += strspn(text, " ");
        size_t len = strcspn(text, " ");
        if (!len)
            return;
        add_word(c, xstrndup(text, len));
        text += len;
    }
}

void command_fini(struct command *c)
{
    for (size_t i = 0; i < c->n; i++)
        free(c->words[i]);
    free(c->words);
    *c = (struct command){ 0 };
}

enum status child_add_own(struct command *c, const char *name, struct error *err)
{
    char folder[3000];
    if (process_folder(folder, sizeof folder) != OK)
        return error_set(err, E_IO, "cannot find the folder of this program");
    command_add(c, "%s/%s", folder, name);
    return OK;
}

/* Never returns. */
static void become(const struct command *c, int output, int complaints, pid_t parent)
{
    process_die_with(parent);
    dup2(output, STDOUT_FILENO);
    if (complaints >= 0)
        dup2(complaints, STDERR_FILENO);
    execv(c->words[0], c->words);
    _exit(COULD_NOT_START);
}

static enum status read_all(int fd, struct buffer *to, struct error *err)
{
    for (;;) {
        char *room = buffer_reserve(to, READ_SIZE);
        ssize_t n = read(fd, room, READ_SIZE - 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            room[0] = 0;
            return n ? error_errno(err, "cannot read what a program prints") : OK;
        }
        to->len += (size_t)n;
        if (to->len > MAX_OUTPUT)
            return error_set(err, E_LIMIT, "a program prints more than %d MB", MAX_OUTPUT >> 20);
    }
}

/* The last line with anything on it, fit for a message. */
static void last_line(const struct buffer *text, char *line, size_t size)
{
    size_t end = text->len;
    while (end && strchr("\n\r ", text->data[end - 1]))
        end--;
    size_t begin = end;
    while (begin && text->data[begin - 1] != '\n')
        begin--;
    snprintf(line, size, "%.*s", (int)(end - begin), text->data + begin);
    for (char *c = line; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 127)
            *c = '?';
}

static enum status judge(const char *program, int wait_status, const struct buffer *complaints,
                         struct error *err)
{
    char line[300] = "", how[64];
    if (complaints)
        last_line(complaints, line, sizeof line);
    if (WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == COULD_NOT_START)
        return error_set(err, E_NOTFOUND, "there is no program %s that runs here", program);
    if (!WIFEXITED(wait_status) || (complaints && WEXITSTATUS(wait_status)))
        return error_set(err, E_IO, "%s ended with %s%s%s", program,
                         process_describe_end(wait_status, how, sizeof how), *line ? "; it said: " : "",
                         line);
    return OK;
}

enum status child_run(const struct command *c, struct buffer *output, struct buffer *complaints,
                      int *exit_status, struct error *err)
{
    int ends[2] = { -1, -1 }, said = -1, wait_status = 0;
    enum status s = OK;

    /* Complaints go to a file in memory: nobody need read them while the program runs. */
    if (pipe2(ends, O_CLOEXEC) < 0 || (complaints && (said = memfd_create("complaints", MFD_CLOEXEC)) < 0))
        s = error_errno(err, "cannot prepare to run %s", c->words[0]);
    pid_t parent = getpid(), pid = s == OK ? fork() : -1;
    if (pid == 0)
        become(c, ends[1], said, parent);
    if (s == OK && pid < 0)
        s = error_errno(err, "cannot fork to run %s", c->words[0]);
    close(ends[1]);
    if (pid > 0)
        s = read_all(ends[0], output, err);
    close(ends[0]); /* so that one who prints too much ends */
    while (pid > 0 && waitpid(pid, &wait_status, 0) < 0 && errno == EINTR)
        ;
    if (s == OK && complaints && lseek(said, 0, SEEK_SET) == 0)
        s = read_all(said, complaints, err);
    if (said >= 0)
        close(said);
    if (s == OK)
        s = judge(c->words[0], wait_status, complaints, err);
    *exit_status = WEXITSTATUS(wait_status);
    return s;
}
