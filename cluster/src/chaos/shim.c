/* Laid under a node by LD_PRELOAD: a clock that is wrong or goes wrong, syncs that are slow or fail, and writes to the
   log that fail, as a shared page says.
   Invariant: what is not asked for is passed on unchanged; each time something was, it is counted. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* Orders, and behind them in the same order how often each had an effect. */
struct control {
    volatile int64_t clock_offset_s, sync_delay_us, sync_fails, write_fails, clock_drift_permille, clock_drift_from_s;
    volatile int64_t clocks_shifted, syncs_delayed, syncs_failed, writes_failed, clocks_drifted, unused;
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

int fsync(int fd) { return spoiled() ? -1 : (int)syscall(SYS_fsync, fd); }
int fdatasync(int fd) { return spoiled() ? -1 : (int)syscall(SYS_fdatasync, fd); }

/* Only the log: everything else may fail for reasons that are not asked about here. */
static int refused(int fd) {
    char link[32], path[512];
    if (!control->write_fails) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
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
