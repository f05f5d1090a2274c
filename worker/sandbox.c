/* An allow-list of system calls by libseccomp. What is on no list fails with ENOSYS, as on a kernel without
 * it, for which libraries have a second way; what only an intruder would try (the list `deadly`) ends the
 * process. Memory never becomes executable. */
#include "worker/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "common/log.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define IS_SANITIZED true
#endif
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define IS_SANITIZED true
#endif
#ifndef IS_SANITIZED
#define IS_SANITIZED false
#endif

enum { MAX_FILES = 256 }; /* a worker has some 20 open */

static const int always[] = {
    /* memory; mmap and mprotect have rules of their own */
    SCMP_SYS(brk), SCMP_SYS(madvise), SCMP_SYS(mremap), SCMP_SYS(munmap),
    /* threads and time */
    SCMP_SYS(clock_getres), SCMP_SYS(clock_gettime), SCMP_SYS(clock_nanosleep), SCMP_SYS(exit),
    SCMP_SYS(exit_group), SCMP_SYS(futex), SCMP_SYS(getpid), SCMP_SYS(getppid), SCMP_SYS(getrandom),
    SCMP_SYS(getrusage), SCMP_SYS(gettid), SCMP_SYS(gettimeofday), SCMP_SYS(membarrier), SCMP_SYS(nanosleep),
    SCMP_SYS(restart_syscall), SCMP_SYS(rseq), SCMP_SYS(sched_getaffinity), SCMP_SYS(sched_getparam),
    SCMP_SYS(sched_getscheduler), SCMP_SYS(sched_setscheduler), SCMP_SYS(sched_yield),
    SCMP_SYS(set_robust_list), SCMP_SYS(setpriority),
    /* signals: tgkill is abort's */
    SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn), SCMP_SYS(sigaltstack),
    SCMP_SYS(tgkill),
    /* open descriptors */
    SCMP_SYS(close), SCMP_SYS(epoll_create1), SCMP_SYS(epoll_ctl), SCMP_SYS(epoll_pwait),
    SCMP_SYS(epoll_wait), SCMP_SYS(eventfd2), SCMP_SYS(fcntl), SCMP_SYS(fstat), SCMP_SYS(lseek),
    SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(pselect6), SCMP_SYS(read), SCMP_SYS(readv), SCMP_SYS(select),
    SCMP_SYS(write), SCMP_SYS(writev),
    /* sockets; socket has a rule of its own */
    SCMP_SYS(connect), SCMP_SYS(getpeername), SCMP_SYS(getsockname), SCMP_SYS(getsockopt), SCMP_SYS(recvfrom),
    SCMP_SYS(recvmsg), SCMP_SYS(sendmsg), SCMP_SYS(sendto), SCMP_SYS(setsockopt), SCMP_SYS(shutdown)
};

/* getaddrinfo: asks the kernel for its addresses, reads the resolver's files, asks several servers at once.
 */
static const int for_network[] = { SCMP_SYS(bind),     SCMP_SYS(ioctl), SCMP_SYS(newfstatat),
                                   SCMP_SYS(sendmmsg), SCMP_SYS(stat),  SCMP_SYS(recvmmsg),
                                   SCMP_SYS(uname) };

static const int for_files[] = { SCMP_SYS(fsync),   SCMP_SYS(ftruncate),  SCMP_SYS(mkdir),
                                 SCMP_SYS(mkdirat), SCMP_SYS(newfstatat), SCMP_SYS(open),
                                 SCMP_SYS(openat),  SCMP_SYS(pread64),    SCMP_SYS(pwrite64),
                                 SCMP_SYS(rename),  SCMP_SYS(renameat),   SCMP_SYS(stat),
                                 SCMP_SYS(statfs),  SCMP_SYS(fstatfs),    SCMP_SYS(unlink),
                                 SCMP_SYS(unlinkat) };

static const int deadly[] = { SCMP_SYS(execve),
                              SCMP_SYS(execveat),
                              SCMP_SYS(ptrace),
                              SCMP_SYS(process_vm_readv),
                              SCMP_SYS(process_vm_writev),
                              SCMP_SYS(bpf),
                              SCMP_SYS(mount),
                              SCMP_SYS(unshare),
                              SCMP_SYS(setns),
                              SCMP_SYS(init_module),
                              SCMP_SYS(finit_module),
                              SCMP_SYS(io_uring_setup),
                              SCMP_SYS(perf_event_open),
                              SCMP_SYS(userfaultfd),
                              SCMP_SYS(keyctl) };

#define N_OF(list) (sizeof(list) / sizeof *(list))

/* Some calls do not exist on every processor: EDOM, and nothing to allow. */
static bool add(scmp_filter_ctx filter, uint32_t action, int call)
{
    int code = seccomp_rule_add(filter, action, call, 0);
    return code == 0 || code == -EDOM;
}

static bool add_list(scmp_filter_ctx filter, uint32_t action, const int *list, size_t n)
{
    bool ok = true;
    for (size_t i = 0; i < n && ok; i++)
        ok = add(filter, action, list[i]);
    return ok;
}

/* If these bits of an argument have this value. */
static bool allow_if(scmp_filter_ctx filter, int call, unsigned argument, uint64_t bits, uint64_t value)
{
    struct scmp_arg_cmp condition = { argument, SCMP_CMP_MASKED_EQ, bits, value };
    int code = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, call, 1, &condition);
    return code == 0 || code == -EDOM;
}

/* The kernel reads 32 bits of these. */
static bool allow_first(scmp_filter_ctx filter, int call, int value)
{
    return allow_if(filter, call, 0, UINT32_MAX, (uint64_t)value);
}

static bool allow_reading_files(scmp_filter_ctx filter)
{
    const uint64_t writing = O_ACCMODE | O_CREAT | O_TRUNC;
    return allow_if(filter, SCMP_SYS(open), 1, writing, O_RDONLY) &&
           allow_if(filter, SCMP_SYS(openat), 2, writing, O_RDONLY);
}

static bool add_rules(scmp_filter_ctx filter, const struct sandbox *needs)
{
    bool ok = add_list(filter, SCMP_ACT_ALLOW, always, N_OF(always)) &&
              add_list(filter, SCMP_ACT_KILL_PROCESS, deadly, N_OF(deadly)) &&
              allow_if(filter, SCMP_SYS(mmap), 2, PROT_EXEC, 0) &&
              allow_if(filter, SCMP_SYS(mprotect), 2, PROT_EXEC, 0) &&
              allow_first(filter, SCMP_SYS(prctl), PR_SET_NAME) &&
              allow_first(filter, SCMP_SYS(socket), AF_UNIX);
    if (ok && needs->has_network)
        ok = add_list(filter, SCMP_ACT_ALLOW, for_network, N_OF(for_network)) &&
             allow_first(filter, SCMP_SYS(socket), AF_INET) &&
             allow_first(filter, SCMP_SYS(socket), AF_INET6) &&
             allow_first(filter, SCMP_SYS(socket), AF_NETLINK) && allow_reading_files(filter);
    if (ok && needs->has_files)
        ok = add_list(filter, SCMP_ACT_ALLOW, for_files, N_OF(for_files));
    return ok;
}

/* The kernel's audit log tells what was refused. */
static const char *install(const struct sandbox *needs)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(ENOSYS));
    if (!filter)
        return "no memory";
    const char *problem = NULL;
    if (seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1) != 0)
        problem = "the kernel cannot filter all threads at once";
    else if (!add_rules(filter, needs))
        problem = "libseccomp does not take the rules";
    else if (seccomp_attr_set(filter, SCMP_FLTATR_CTL_LOG, 1) != 0 || seccomp_load(filter) != 0)
        problem = "the kernel does not take the filter";
    seccomp_release(filter);
    return problem;
}

static void limit_files(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_max > MAX_FILES) {
        limit.rlim_cur = limit.rlim_max = MAX_FILES;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

void sandbox_enter(const struct sandbox *needs)
{
    limit_files();
    const char *problem = IS_SANITIZED ? "a sanitizer needs more than a worker" : install(needs);
    if (problem)
        log_warn("sandbox", "filter=off why=\"%s\"", problem);
    else
        log_info("sandbox", "filter=on network=%s files=%s", needs->has_network ? "yes" : "no",
                 needs->has_files ? "yes" : "no");
}
