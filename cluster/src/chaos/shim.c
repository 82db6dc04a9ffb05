/* Laid under a node by LD_PRELOAD: a clock that is wrong or goes wrong, syncs that are slow or fail, writes to the log
   that fail, and an end, also of the power, right before or behind a step towards the disk, as a shared page says.
   Invariant: what is not asked for is passed on unchanged; each time something was, it is counted. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* Orders, and behind them in the same order how often each had an effect. */
struct control {
    volatile int64_t clock_offset_s, sync_delay_us, sync_fails, write_fails, clock_drift_permille, clock_drift_from_s,
        end_at_step, end_behind, end_power_of;
    volatile int64_t clocks_shifted, syncs_delayed, syncs_failed, writes_failed, clocks_drifted, unused, ended,
        unused_too, powers_lost;
    /* Only steps whose path has this in it count; and the step at which it ended, in words. */
    char only[128], ended_at[256];
};

static struct control nothing;
static struct control *control = &nothing;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("MENAGERIE_SHIM");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *page = mmap(0, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page != MAP_FAILED) control = page;
    close(fd);
}

int clock_gettime(clockid_t id, struct timespec *now) {
    long result = syscall(SYS_clock_gettime, id, now);
    if (result != 0 || (id != CLOCK_REALTIME && id != CLOCK_REALTIME_COARSE)) return (int)result;
    if (control->clock_offset_s) {
        now->tv_sec += control->clock_offset_s;
        control->clocks_shifted++;
    }
    if (control->clock_drift_permille) {
        int64_t passed_us = (now->tv_sec - control->clock_drift_from_s) * 1000000 + now->tv_nsec / 1000;
        int64_t at_us = now->tv_sec * 1000000 + now->tv_nsec / 1000 + passed_us * control->clock_drift_permille / 1000;
        now->tv_sec = at_us / 1000000;
        now->tv_nsec = at_us % 1000000 * 1000;
        control->clocks_drifted++;
    }
    return 0;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec precise;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *to) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (to) *to = now.tv_sec;
    return now.tv_sec;
}

static int spoiled(void) {
    if (control->sync_delay_us) {
        control->syncs_delayed++;
        usleep((useconds_t)control->sync_delay_us);
    }
    if (control->sync_fails) {
        control->syncs_failed++;
        errno = EIO;
        return 1;
    }
    return 0;
}

static void path_of(int fd, char *path, size_t size) {
    char link[32];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, size - 1);
    path[length < 0 ? 0 : length] = 0;
}

/* Whether this is the step at which it is to end. Where the power is to go too, only those on that disk are. */
static int is_last(int fd, const char *path) {
    struct stat file;
    if (!strstr(path, control->only)) return 0;
    if (control->end_power_of && (fstat(fd, &file) || (int64_t)file.st_dev != control->end_power_of)) return 0;
    return __sync_sub_and_fetch(&control->end_at_step, 1) == 0;
}

/* The end of the process, and before it of the power of the disk on which the file is. Does not return. */
static void end(const char *step, int fd, const char *path) {
    static const uint32_t without_flush = 2;
    snprintf(control->ended_at, sizeof control->ended_at, "%s %s", step, path);
    control->ended++;
    if (control->end_power_of && !ioctl(fd, _IOR('X', 125, uint32_t), &without_flush)) control->powers_lost++;
    for (;;) kill(getpid(), SIGKILL);
}

static int sync_with(long call, const char *step, int fd) {
    if (spoiled()) return -1;
    if (!control->end_at_step) return (int)syscall(call, fd);
    char path[512];
    path_of(fd, path, sizeof path);
    int last = is_last(fd, path);
    if (last && !control->end_behind) end(step, fd, path);
    int result = (int)syscall(call, fd);
    if (last) end(step, fd, path);
    return result;
}

int fsync(int fd) { return sync_with(SYS_fsync, "fsync", fd); }
int fdatasync(int fd) { return sync_with(SYS_fdatasync, "fdatasync", fd); }

/* The folder that a name is in, and the whole path of the name. */
static int folder_of(int at, const char *name, char *path, size_t size) {
    char above[1100], folder[512] = "";
    if (at != AT_FDCWD && name[0] != '/') path_of(at, folder, sizeof folder - 1);
    if (folder[0]) strcat(folder, "/");
    snprintf(path, size, "%s%s", folder, name);
    snprintf(above, sizeof above, "%s", path);
    return open(dirname(above), O_RDONLY | O_CLOEXEC);
}

/* A step that changes names, in up to five words for the kernel; the folder lies on the disk of the name. */
static int name_with(long call, const char *step, int at, const char *name, int to_at, const char *to, int flags) {
    int last = 0, fd = -1;
    char path[1100];
    if (control->end_at_step) {
        fd = folder_of(at, name, path, sizeof path);
        last = is_last(fd, path);
        if (last && !control->end_behind) end(step, fd, path);
    }
    int result = (int)(to ? syscall(call, at, name, to_at, to, flags) : syscall(call, at, name, flags));
    int error = errno;
    if (last) end(step, fd, path);
    if (fd >= 0) close(fd);
    errno = error;
    return result;
}

int renameat(int at, const char *name, int to_at, const char *to) {
    return name_with(SYS_renameat2, "rename", at, name, to_at, to, 0);
}
int rename(const char *name, const char *to) { return renameat(AT_FDCWD, name, AT_FDCWD, to); }
int linkat(int at, const char *name, int to_at, const char *to, int flags) {
    return name_with(SYS_linkat, "link", at, name, to_at, to, flags);
}
int link(const char *name, const char *to) { return linkat(AT_FDCWD, name, AT_FDCWD, to, 0); }
int unlinkat(int at, const char *name, int flags) {
    return name_with(SYS_unlinkat, "unlink", at, name, 0, 0, flags);
}
int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }

/* Only the log: everything else may fail for reasons that are not asked about here. */
static int refused(int fd) {
    char path[512];
    if (!control->write_fails) return 0;
    path_of(fd, path, sizeof path);
    if (!strstr(path, "/raft/db/") || !strstr(path, ".log")) return 0;
    control->writes_failed++;
    errno = EIO;
    return 1;
}

ssize_t write(int fd, const void *bytes, size_t count) {
    return refused(fd) ? -1 : syscall(SYS_write, fd, bytes, count);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t place) {
    return refused(fd) ? -1 : syscall(SYS_pwrite64, fd, bytes, count, place);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t place) {
    return refused(fd) ? -1 : syscall(SYS_pwrite64, fd, bytes, count, place);
}
