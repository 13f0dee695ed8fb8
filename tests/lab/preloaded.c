/* Preloaded into User Mode Linux: what it lacks for the processors of today.
 *
 * Registers. Its kernel hands the 2,696 bytes of registers that processors had when it was written to
 * PTRACE_SETREGSET, which takes those of the whole processor or nothing (Linux,
 * arch/x86/kernel/fpu/regset.c, xstateregs_set). With AMX that is 11,008, and no program would
 * start. What lies behind the kernel's part is in its initial state: nobody in there may use it. It
 * reads them after each stop of a program and writes them before it goes on, mostly the same: that is
 * left out, as each write allocates and frees those 11,008 bytes in the host's kernel.
 *
 * Its place. It and the program that runs in it wait for each other at each system call and never
 * work at the same time. On two processors each wait wakes an idle one, which on a virtual machine
 * takes ten times as long as the call. So all of it stays on one processor, which no other such
 * kernel has if there are enough: that is known by the name of a socket (unix(7), abstract).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <sched.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>

#define KERNELS 4096 /* bytes, at least what the kernel reads and writes */
#define PROGRAMS 1024

typedef long (*tracer)(enum __ptrace_request, pid_t, void *, void *);

/* The registers that a stopped program is known to have; length 0: it ran since. */
static struct {
    pid_t pid;
    size_t length;
    char bytes[KERNELS];
} known[PROGRAMS];

static char registers[1 << 16];

static void know(pid_t pid, const struct iovec *part)
{
    size_t length = part->iov_len <= KERNELS ? part->iov_len : 0;
    known[pid % PROGRAMS].pid = pid;
    known[pid % PROGRAMS].length = length;
    memcpy(known[pid % PROGRAMS].bytes, part->iov_base, length);
}

static int has(pid_t pid, const struct iovec *part)
{
    return known[pid % PROGRAMS].pid == pid && known[pid % PROGRAMS].length == part->iov_len &&
           !memcmp(known[pid % PROGRAMS].bytes, part->iov_base, part->iov_len);
}

static long put(tracer real, pid_t pid, void *kind, struct iovec *given)
{
    static size_t whole;
    if (!whole) {
        struct iovec all = {registers, sizeof registers};
        if (real(PTRACE_GETREGSET, pid, kind, &all) < 0)
            return -1;
        whole = all.iov_len;
        memset(registers, 0, sizeof registers);
    }
    if (given->iov_len >= whole)
        return real(PTRACE_SETREGSET, pid, kind, given);
    memcpy(registers, given->iov_base, given->iov_len);
    struct iovec all = {registers, whole};
    return real(PTRACE_SETREGSET, pid, kind, &all);
}

static int taken(int cpu)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int length = snprintf(name.sun_path + 1, sizeof name.sun_path - 1, "hsmfs-lab-%d", cpu);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    return bind(fd, (void *)&name, offsetof(struct sockaddr_un, sun_path) + 1 + length);
}

__attribute__((constructor)) static void stay(void)
{
    cpu_set_t allowed, one;
    int first = sched_getcpu(), cpu = first;
    if (first < 0 || sched_getaffinity(0, sizeof allowed, &allowed))
        return;
    while (!CPU_ISSET(cpu, &allowed) || taken(cpu))
        if ((cpu = (cpu + 1) % CPU_SETSIZE) == first)
            break;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    sched_setaffinity(0, sizeof one, &one);
}

long ptrace(enum __ptrace_request request, ...)
{
    static tracer real;
    if (!real)
        real = (tracer)dlsym(RTLD_NEXT, "ptrace");
    va_list rest;
    va_start(rest, request);
    pid_t pid = va_arg(rest, pid_t);
    void *where = va_arg(rest, void *);
    void *data = va_arg(rest, void *);
    va_end(rest);
    int whole = (request == PTRACE_GETREGSET || request == PTRACE_SETREGSET) &&
                (long)where == NT_X86_XSTATE;
    if (request == PTRACE_SETREGSET && whole && has(pid, data))
        return 0;
    if (!whole && request != PTRACE_GETREGS && request != PTRACE_SETREGS)
        known[pid % PROGRAMS].length = 0;
    long result = request == PTRACE_SETREGSET && whole ? put(real, pid, where, data)
                                                       : real(request, pid, where, data);
    if (whole && result >= 0)
        know(pid, data);
    else if (whole)
        known[pid % PROGRAMS].length = 0;
    return result;
}
