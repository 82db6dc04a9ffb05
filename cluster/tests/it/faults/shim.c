/* Makes the disk under chosen files slow or broken: preloaded into a process, it asks the file named by
 * MENAGERIE_SHIM before each sync. Its lines are "PART MILLISECONDS" or "PART EIO"; a line counts for files whose
 * path contains PART. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int hindered(int fd) {
    const char *control = getenv("MENAGERIE_SHIM");
    FILE *lines = control ? fopen(control, "re") : NULL;
    if (!lines) return 0;
    char link[64], path[4096], part[1024], what[32];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length < 0 ? 0 : length] = 0;
    int broken = 0;
    while (fscanf(lines, "%1023s %31s", part, what) == 2) {
        if (!strstr(path, part)) continue;
        if (!strcmp(what, "EIO")) {
            broken = 1;
        } else {
            long ms = atol(what);
            struct timespec pause = {ms / 1000, ms % 1000 * 1000000};
            nanosleep(&pause, NULL);
        }
    }
    fclose(lines);
    return broken;
}

int fdatasync(int fd) {
    if (hindered(fd)) { errno = EIO; return -1; }
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    return real(fd);
}

int fsync(int fd) {
    if (hindered(fd)) { errno = EIO; return -1; }
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    return real(fd);
}
