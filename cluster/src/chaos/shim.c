/* Laid under a node by LD_PRELOAD: a clock that is wrong, and syncs that are slow or fail, as a shared page says.
   Invariant: what is not asked for is passed on unchanged; each time something was, it is counted. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct control {
    volatile int64_t clock_offset_s, sync_delay_us, sync_fails;
    volatile int64_t clocks_shifted, syncs_delayed, syncs_failed;
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
    if (result == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) && control->clock_offset_s) {
        now->tv_sec += control->clock_offset_s;
        control->clocks_shifted++;
    }
    return (int)result;
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
