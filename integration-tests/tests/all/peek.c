/* `peek hold` says where a text of it lies and waits for its input to end; `peek at PID ADDRESS`
   reads such a text in another process; `peek lock FILE r|w START LENGTH` holds a lock like `hold`. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <unistd.h>

static char text[32] = "nothing yet";

static int wait_for_end(void) {
    char byte;
    fflush(stdout);
    while (read(0, &byte, 1) > 0) continue;
    return 0;
}

static int lock(char **words) {
    int fd = open(words[0], O_RDWR | O_CREAT, 0600);
    struct flock range = {.l_type = *words[1] == 'r' ? F_RDLCK : F_WRLCK,
                          .l_whence = SEEK_SET,
                          .l_start = atoll(words[2]),
                          .l_len = atoll(words[3])};
    if (fd < 0 || fcntl(fd, F_SETLK, &range) != 0) return perror(words[0]), 1;
    puts("locked");
    return wait_for_end();
}

int main(int count, char **words) {
    if (count == 6 && !strcmp(words[1], "lock")) return lock(words + 2);
    if (count == 2 && !strcmp(words[1], "hold")) {
        /* What MPI does where Yama restricts who may look. */
        prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
        strcpy(text, "text of another container");
        printf("%d %p\n", getpid(), (void *)text);
        return wait_for_end();
    }
    if (count != 4) return 2;
    struct iovec here = {text, sizeof text};
    struct iovec there = {(void *)strtoul(words[3], 0, 0), sizeof text};
    if (process_vm_readv(atoi(words[2]), &here, 1, &there, 1, 0) < 0) return perror("read"), 1;
    puts(text);
    return 0;
}
