/* Makes system calls and says what came of them: `calls refused|works|type`. A line for each, with
   the error number, 0 for success. Nothing here changes anything where no filter refuses it. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static void say(const char *name, long result) {
    printf("%s %d\n", name, result < 0 ? errno : 0);
    fflush(stdout);
}

static long clone_with(long flags) {
    long pid = syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0) _exit(0);
    if (pid > 0) waitpid(pid, 0, 0);
    return pid;
}

static void refused(void) {
    say("add_key", syscall(SYS_add_key, 0L, 0L, 0L, 0L, 0L));
    say("keyctl", syscall(SYS_keyctl, 0L, -3L, 1L));
    say("request_key", syscall(SYS_request_key, 0L, 0L, 0L, 0L));
    say("bpf", syscall(SYS_bpf, 0L, 0L, 0L));
    say("mount", syscall(SYS_mount, 0L, 0L, 0L, 0L, 0L));
    say("umount2", syscall(SYS_umount2, 0L, 0L));
    say("fsopen", syscall(SYS_fsopen, 0L, 0L));
    say("open_tree", syscall(SYS_open_tree, -1L, 0L, 0L));
    say("mount_setattr", syscall(SYS_mount_setattr, -1L, 0L, 0L, 0L, 0L));
    say("setns", syscall(SYS_setns, -1L, 0L));
    say("unshare-user", syscall(SYS_unshare, (long)CLONE_NEWUSER));
    say("unshare-net", syscall(SYS_unshare, (long)CLONE_NEWNET));
    say("clone-user", clone_with(CLONE_NEWUSER));
    say("clone-user-net", clone_with(CLONE_NEWUSER | CLONE_NEWNET));
    say("open_by_handle_at", syscall(SYS_open_by_handle_at, -1L, 0L, 0L));
    say("personality", syscall(SYS_personality, 0x0400000L));
    say("userfaultfd", syscall(SYS_userfaultfd, 0L));
    say("clone3", syscall(SYS_clone3, 0L, 0L));
    say("io_uring_setup", syscall(SYS_io_uring_setup, 1L, 0L));
    say("newer", syscall(900L));
}

static void *thread(void *value) {
    return value;
}

/* As MPI libraries copy between ranks, and as debuggers stop and look. */
static void other_process(void) {
    static volatile long value = 1;
    int ready[2];
    if (pipe(ready)) exit(1);
    pid_t child = fork();
    if (child == 0) {
        value = 42;
        if (write(ready[1], "x", 1) != 1) _exit(1);
        for (;;) pause();
    }
    char byte;
    if (read(ready[0], &byte, 1) != 1) exit(1);
    long copy = 0;
    struct iovec here = {&copy, sizeof copy}, there = {(void *)&value, sizeof value};
    say("process_vm_readv", process_vm_readv(child, &here, 1, &there, 1, 0) == 8 && copy == 42 ? 0 : -1);
    copy = 43;
    say("process_vm_writev", process_vm_writev(child, &here, 1, &there, 1, 0) == 8 ? 0 : -1);
    say("ptrace-attach", ptrace(PTRACE_ATTACH, child, 0, 0));
    waitpid(child, 0, __WALL);
    say("ptrace-peek", ptrace(PTRACE_PEEKDATA, child, &value, 0) == 43 ? 0 : -1);
    say("ptrace-detach", ptrace(PTRACE_DETACH, child, 0, 0));
    kill(child, SIGKILL);
    waitpid(child, 0, 0);
}

static void works(void) {
    pthread_t other;
    errno = pthread_create(&other, 0, thread, 0);
    say("pthread_create", errno ? -1 : 0);
    pthread_join(other, 0);
    say("system", system("true") == 0 ? 0 : -1);
    cpu_set_t cpus;
    say("sched_getaffinity", sched_getaffinity(0, sizeof cpus, &cpus));
    say("sched_setaffinity", sched_setaffinity(0, sizeof cpus, &cpus));
    say("memfd_create", memfd_create("memory", 0));
    void *memory = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    say("mbind", syscall(SYS_mbind, memory, 4096L, 0L, 0L, 0L, 0L));
    say("set_mempolicy", syscall(SYS_set_mempolicy, 0L, 0L, 0L));
    int status;
    say("move_pages", syscall(SYS_move_pages, 0L, 1L, &memory, 0L, &status, 0L));
    say("no-randomization", syscall(SYS_personality, 0x0040000L));
    say("personality", syscall(SYS_personality, 0xffffffffL));
    say("unshare-files", unshare(CLONE_FILES));
    say("pidfd_open", syscall(SYS_pidfd_open, (long)getpid(), 0L));
    other_process();
}

/* Types into the terminal, with any bits where the kernel does not look. */
static void type(void) {
    say("TIOCSTI", syscall(SYS_ioctl, 0L, (long)TIOCSTI, "x"));
    say("TIOCSTI-long", syscall(SYS_ioctl, 0L, 0x700000000L | TIOCSTI, "x"));
    say("TIOCLINUX", syscall(SYS_ioctl, 0L, (long)TIOCLINUX, "\003"));
    struct winsize size;
    say("TIOCGWINSZ", syscall(SYS_ioctl, 0L, (long)TIOCGWINSZ, &size));
}

int main(int argc, char **argv) {
    if (argc == 2 && !strcmp(argv[1], "refused")) refused();
    if (argc == 2 && !strcmp(argv[1], "works")) works();
    if (argc == 2 && !strcmp(argv[1], "type")) type();
    return 0;
}
