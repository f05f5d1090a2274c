#include "broker/runtime.h"

#include <bsd/string.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "proto/wire.h"

enum { MAX_SOCKET_PATH = sizeof((struct sockaddr_un *)0)->sun_path - 1, PATH_BYTES = 512 };

static const char *const boot_files[] = { "lock", "clients.sock", "workers.sock" };

static void remove_boot_folder(const char *folder)
{
    char path[PATH_BYTES];
    for (size_t i = 0; i < sizeof boot_files / sizeof *boot_files; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, boot_files[i]);
        unlink(path);
    }
    rmdir(folder);
}

static int open_lock(const char *path)
{
    return open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
}

static void remove_if_left_over(const char *folder)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/lock", folder);
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        remove_boot_folder(folder);
    close(fd);
}

static void remove_left_overs(const struct runtime *r)
{
    DIR *dir = opendir(r->folder);
    if (!dir)
        return;
    for (struct dirent *e; (e = readdir(dir));) {
        char path[sizeof r->folder + sizeof e->d_name];
        if (!strncmp(e->d_name, "boot-", 5)) {
            snprintf(path, sizeof path, "%s/%s", r->folder, e->d_name);
            remove_if_left_over(path);
        }
    }
    closedir(dir);
}

/* Made under another name and renamed once it is locked, so that no other server ever sees it unlocked. */
static enum status make_boot_folder(struct runtime *r, struct error *err)
{
    char fresh[sizeof r->folder + 16], path[sizeof fresh + 8];
    snprintf(fresh, sizeof fresh, "%s/new-XXXXXX", r->folder);
    if (!mkdtemp(fresh))
        return error_errno(err, "cannot make a folder in %s", r->folder);
    snprintf(path, sizeof path, "%s/lock", fresh);
    r->boot_lock_fd = open_lock(path);
    snprintf(r->boot, sizeof r->boot, "%s/boot-%s", r->folder, strrchr(fresh, '-') + 1);
    if (r->boot_lock_fd < 0 || flock(r->boot_lock_fd, LOCK_EX | LOCK_NB) != 0 ||
        rename(fresh, r->boot) != 0) {
        error_errno(err, "cannot set up %s", fresh);
        remove_boot_folder(fresh);
        r->boot[0] = 0;
        return E_IO;
    }
    return OK;
}

static enum status refuse_second_server(const struct runtime *r, struct error *err)
{
    char pid[24] = "";
    ssize_t n = pread(r->lock_fd, pid, sizeof pid - 1, 0);
    pid[n > 0 ? n : 0] = 0;
    pid[strcspn(pid, "\n")] = 0;
    return error_set(err, E_INVALID,
                     "a server of this user runs already (pid %s): stop it, or give this one an endpoint of "
                     "its own with --zmq",
                     pid);
}

static enum status take_lock(struct runtime *r, struct error *err)
{
    char path[sizeof r->folder + 16];
    snprintf(path, sizeof path, "%s/lock", r->folder);
    r->lock_fd = open_lock(path);
    if (r->lock_fd < 0)
        return error_errno(err, "cannot open %s", path);
    if (flock(r->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        enum status s =
            errno == EWOULDBLOCK ? refuse_second_server(r, err) : error_errno(err, "cannot lock %s", path);
        close(r->lock_fd);
        r->lock_fd = -1;
        return s;
    }
    if (ftruncate(r->lock_fd, 0) != 0 || dprintf(r->lock_fd, "%d\n", (int)getpid()) < 0)
        return error_errno(err, "cannot write %s", path);
    return OK;
}

static enum status name_sockets(struct runtime *r, const char *zmq, struct error *err)
{
    if (strlen(r->boot) + sizeof "/clients.sock" > MAX_SOCKET_PATH)
        return error_set(err, E_LIMIT,
                         "the path %s is too long for a socket (set WOOLLY_RUNTIME_DIR to a shorter one)",
                         r->boot);
    char boot[MAX_SOCKET_PATH]; /* says to the compiler what was just checked */
    strlcpy(boot, r->boot, sizeof boot);
    snprintf(r->workers, sizeof r->workers, "ipc://%s/workers.sock", boot);
    snprintf(r->clients, sizeof r->clients, "ipc://%s/clients.sock", boot);
    if (zmq && strlcpy(r->clients, zmq, sizeof r->clients) >= sizeof r->clients)
        return error_set(err, E_LIMIT, "--zmq: the endpoint is longer than %zu bytes", sizeof r->clients - 1);
    return OK;
}

enum status runtime_open(struct runtime *r, const char *zmq, struct error *err)
{
    enum status s;

    *r = (struct runtime){ .lock_fd = -1, .boot_lock_fd = -1 };
    umask(077);
    if ((s = wire_runtime_folder(r->folder, sizeof r->folder, err)) != OK)
        return s;
    if ((!zmq && (s = take_lock(r, err)) != OK) || (s = make_boot_folder(r, err)) != OK ||
        (s = name_sockets(r, zmq, err)) != OK)
        goto fail;
    remove_left_overs(r);
    return OK;

fail:
    runtime_close(r);
    return s;
}

static void endpoint_path(const struct runtime *r, char *out, size_t size)
{
    snprintf(out, size, "%s/endpoint", r->folder);
}

enum status runtime_publish(const struct runtime *r, const char *endpoint, struct error *err)
{
    char path[sizeof r->folder + 16], fresh[sizeof path + 8];
    endpoint_path(r, path, sizeof path);
    snprintf(fresh, sizeof fresh, "%s.new", path);
    FILE *f = fopen(fresh, "we");
    if (!f)
        return error_errno(err, "cannot write %s", fresh);
    bool ok = fprintf(f, "%s\n", endpoint) > 0;
    ok = fclose(f) == 0 && ok;
    if (!ok || rename(fresh, path) != 0)
        return error_errno(err, "cannot write %s", path);
    return OK;
}

void runtime_close(struct runtime *r)
{
    char path[sizeof r->folder + 16];
    wire_remove_socket(r->clients);
    if (r->boot[0])
        remove_boot_folder(r->boot);
    if (r->boot_lock_fd >= 0)
        close(r->boot_lock_fd);
    if (r->lock_fd >= 0) {
        endpoint_path(r, path, sizeof path);
        unlink(path);
        close(r->lock_fd);
    }
    *r = (struct runtime){ .lock_fd = -1, .boot_lock_fd = -1 };
}
