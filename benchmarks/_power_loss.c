/* Power loss for tests: remembers what a disk has really kept of the files in one folder.

   Loaded with LD_PRELOAD. Whenever a file in the folder POWER_FOLDER is synced, its content of that moment is copied into
   the folder POWER_IMAGE: the image. What was written later is, for the image, still in the memory that a power cut
   wipes. Copies of several processes take turns by a lock, and each begins after its lock is held, so that an image
   never goes back in time; a copy gets its name when it is whole. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

typedef int (*sync_call)(int);

static int copy(int from, int to)
{
    char block[65536];
    off_t at = 0;
    for (;;) {
        ssize_t got = pread(from, block, sizeof block, at);
        if (got <= 0)
            return (int)got;
        if (pwrite(to, block, (size_t)got, at) != got)
            return -1;
        at += got;
    }
}

/* The file's name below the folder, or NULL for files that are none of ours. */
static const char *below(int handle, char *path)
{
    const char *folder = getenv("POWER_FOLDER");
    char link[64];
    if (folder == NULL || getenv("POWER_IMAGE") == NULL)
        return NULL;
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    size_t start = strlen(folder);
    if (length <= 0)
        return NULL;
    path[length] = 0;
    if (strncmp(path, folder, start) != 0 || path[start] != '/' || strchr(path + start + 1, '/') != NULL)
        return NULL;
    return path + start + 1;
}

static int synced(const char *call, int handle)
{
    sync_call real = (sync_call)dlsym(RTLD_NEXT, call);
    char path[PATH_MAX], lock_at[PATH_MAX], made[PATH_MAX], named[PATH_MAX];
    const char *name = below(handle, path), *image = getenv("POWER_IMAGE");
    if (name == NULL)
        return real(handle);
    snprintf(lock_at, sizeof lock_at, "%s/.lock", image);
    snprintf(made, sizeof made, "%s/.new-%s", image, name);
    snprintf(named, sizeof named, "%s/%s", image, name);
    int lock = open(lock_at, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (lock < 0 || flock(lock, LOCK_EX) != 0)
        abort();
    /* A handle may be open for writing only. A file that has lost its name is nobody's any more. What is written while
       the disk syncs need not be kept, so the copy comes first. */
    int from = open(path, O_RDONLY | O_CLOEXEC);
    if (from >= 0) {
        int to = open(made, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (to < 0 || copy(from, to) != 0 || close(to) != 0)
            abort();
        close(from);
    }
    int result = real(handle);
    int error = errno;
    if (result == 0 && from >= 0 && rename(made, named) != 0)
        abort();
    close(lock);
    errno = error;
    return result;
}

int fsync(int handle)
{
    return synced("fsync", handle);
}

int fdatasync(int handle)
{
    return synced("fdatasync", handle);
}
