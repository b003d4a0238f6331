/* Preloaded into a process: numbers what it does to files below a folder, and ends it by SIGKILL at a chosen number.
 *
 * Counted are the calls that change files or wait for the disk: opening that creates or empties a file, write, pwrite,
 * truncation, fsync and fdatasync, rename, unlink, mkdir and rmdir. Each can be logged with what it wrote, so that the
 * folder can be rebuilt as a power cut would have left it. Nothing happens before `watch` is called.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static char folder[PATH_MAX];
static size_t folder_length;
static long last = -1;
static int torn;
static int log_file = -1;
static long counted;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* Watches what happens below `path`; ends the process at operation `kill_at` (0 is the first; -1 for never): before it,
 * or with `half` in the middle of it, where it writes. Logs to the descriptor `log`, if that is not -1. */
void watch(const char *path, long kill_at, int half, int log) {
    snprintf(folder, sizeof folder, "%s", path);
    folder_length = strlen(folder);
    last = kill_at;
    torn = half;
    log_file = log;
    counted = 0;
}

long operations(void) { return counted; }

static int is_watched(const char *path) {
    return folder_length && path && !strncmp(path, folder, folder_length) &&
           (path[folder_length] == '/' || path[folder_length] == 0);
}

static int is_watched_file(int file, char *path) {
    char link[64];
    if (!folder_length) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_watched(path);
}

static void end(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* Returns whether this is the operation in the middle of which the process is to end. */
static int step(int writes) {
    long number = counted++;
    if (number != last) return 0;
    if (torn && writes) return 1;
    end();
    return 0;
}

static void put(const void *data, size_t size) {
    const char *rest = data;
    while (size) {
        ssize_t done = syscall(SYS_write, log_file, rest, size);
        if (done <= 0) abort();
        rest += done;
        size -= done;
    }
}

static unsigned long inode_of(int file) {
    struct stat status;
    return fstat(file, &status) ? 0 : status.st_ino;
}

static void record(char kind, unsigned long inode, long number, const char *path, const char *other, const void *data,
                   size_t size) {
    char line[128];
    if (log_file < 0) return;
    int length = snprintf(line, sizeof line, "%c %lu %ld %zu %zu %zu\n", kind, inode, number, strlen(path),
                          strlen(other), size);
    put(line, length);
    put(path, strlen(path));
    put(other, strlen(other));
    put(data, size);
}

static int opened(const char *path, int flags, mode_t mode) {
    struct stat before;
    int is_new = 0, changes = 0;
    if (is_watched(path)) {
        is_new = stat(path, &before) != 0 && (flags & O_CREAT);
        changes = is_new || ((flags & O_TRUNC) && before.st_size > 0);
    }
    if (!changes) return syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    pthread_mutex_lock(&turn);
    step(0);
    int file = syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    int error = errno;
    if (file >= 0) record(is_new ? 'c' : 't', inode_of(file), 0, path, "", "", 0);
    pthread_mutex_unlock(&turn);
    errno = error;
    return file;
}

#define OPEN(name)                                   \
    int name(const char *path, int flags, ...) {     \
        va_list rest;                                \
        va_start(rest, flags);                       \
        mode_t mode = va_arg(rest, mode_t);          \
        va_end(rest);                                \
        return opened(path, flags, mode);            \
    }
OPEN(open)
OPEN(open64)

static ssize_t written(int file, const void *data, size_t size, off_t offset, int here) {
    char path[PATH_MAX];
    if (!is_watched_file(file, path))
        return here ? syscall(SYS_write, file, data, size) : syscall(SYS_pwrite64, file, data, size, offset);
    pthread_mutex_lock(&turn);
    if (step(1)) {
        if (here) syscall(SYS_write, file, data, size / 2);
        else syscall(SYS_pwrite64, file, data, size / 2, offset);
        end();
    }
    ssize_t done = here ? syscall(SYS_write, file, data, size) : syscall(SYS_pwrite64, file, data, size, offset);
    int error = errno;
    if (done >= 0) {
        long place = here ? lseek(file, 0, SEEK_CUR) - done : offset;
        record('w', inode_of(file), place, path, "", data, done);
    }
    pthread_mutex_unlock(&turn);
    errno = error;
    return done;
}

ssize_t write(int file, const void *data, size_t size) { return written(file, data, size, 0, 1); }
ssize_t pwrite(int file, const void *data, size_t size, off_t offset) { return written(file, data, size, offset, 0); }
ssize_t pwrite64(int file, const void *data, size_t size, off64_t offset) {
    return written(file, data, size, offset, 0);
}

/* What is done to an open file, or to names; `RECORD` is what is logged of it once it has gone well. */
#define WATCHED(CONDITION, CALL, RECORD)       \
    int result;                                \
    if (!(CONDITION)) return CALL;             \
    pthread_mutex_lock(&turn);                 \
    step(0);                                   \
    result = CALL;                             \
    int error = errno;                         \
    if (result == 0) RECORD;                   \
    pthread_mutex_unlock(&turn);               \
    errno = error;                             \
    return result

int fsync(int file) {
    char path[PATH_MAX];
    WATCHED(is_watched_file(file, path), REAL(fsync)(file), record('s', inode_of(file), 0, path, "", "", 0));
}

int fdatasync(int file) {
    char path[PATH_MAX];
    WATCHED(is_watched_file(file, path), REAL(fdatasync)(file), record('s', inode_of(file), 0, path, "", "", 0));
}

int ftruncate(int file, off_t size) {
    char path[PATH_MAX];
    WATCHED(is_watched_file(file, path), REAL(ftruncate)(file, size),
            record('t', inode_of(file), size, path, "", "", 0));
}

int ftruncate64(int file, off64_t size) { return ftruncate(file, size); }

int rename(const char *path, const char *other) {
    WATCHED(is_watched(path) || is_watched(other), REAL(rename)(path, other),
            record('r', 0, 0, path, other, "", 0));
}

int unlink(const char *path) {
    struct stat status;
    WATCHED(is_watched(path) && !lstat(path, &status), REAL(unlink)(path), record('u', 0, 0, path, "", "", 0));
}

int rmdir(const char *path) {
    WATCHED(is_watched(path), REAL(rmdir)(path), record('u', 0, 0, path, "", "", 0));
}

int mkdir(const char *path, mode_t mode) {
    struct stat status;
    WATCHED(is_watched(path) && stat(path, &status), REAL(mkdir)(path, mode), record('d', 0, 0, path, "", "", 0));
}
