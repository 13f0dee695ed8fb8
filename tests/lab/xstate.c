/* Preloaded into User Mode Linux: processors with more registers than it knows.
 *
 * Its kernel hands the 2,696 bytes of registers that processors had when it was written to
 * PTRACE_SETREGSET, which takes those of the whole processor or nothing (Linux,
 * arch/x86/kernel/fpu/regset.c, xstateregs_set). With AMX that is 11,008, and no program would
 * start. What lies behind the kernel's part is in its initial state: nobody in there may use it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

typedef long (*tracer)(enum __ptrace_request, pid_t, void *, void *);

static char registers[1 << 16];

static long put_all(tracer real, pid_t pid, void *kind, struct iovec *given)
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
    if (request == PTRACE_SETREGSET && (long)where == NT_X86_XSTATE)
        return put_all(real, pid, where, data);
    return real(request, pid, where, data);
}
