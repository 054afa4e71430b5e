/*
 * A file system on a disk that can be stalled: its image lies on another file system, which is frozen for a while. What is on its way to the
 * disk then stays there, and lands afterwards, whatever became of the process that sent it.
 */
#ifndef BOUNCEIO_TESTS_STALL_H
#define BOUNCEIO_TESTS_STALL_H

#include <stdbool.h>
#include <sys/types.h>

struct stalled_disk {
    char outer[4200];     /* where the image's file system is mounted */
    char directory[4300]; /* where the one on the disk is */
    int outer_fd;
    int wire; /* the guardian thaws the disk when this is closed, by whatever end the test comes to */
    pid_t guardian;
};

/* Make one of `kind` below `base`. @return false, having said why, when the run may not do that. */
bool stalled_disk_new(struct stalled_disk *disk, const char *kind, const char *base);
void stalled_disk_free(struct stalled_disk *disk);

void disk_stall(struct stalled_disk *disk);
void disk_go_on(struct stalled_disk *disk);

/* How many writes are under way to the disk. */
unsigned disk_writes_under_way(const struct stalled_disk *disk);

/*
 * Send one write of `length` bytes at `offset` by io_uring, and do not wait for it. `data` and `fd` as direct I/O demands. @return false when
 * there is no io_uring here.
 */
bool uring_write(int fd, const void *data, size_t length, off_t offset);

#endif
