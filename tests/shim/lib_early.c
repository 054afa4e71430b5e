/*
 * A library whose constructor does direct I/O before the shim's own constructor has run: loaded behind the shim, it is
 * initialised first. BOUNCEIO_TEST_EARLY names the file that the constructor writes one block of and reads it back from.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BLOCK_BYTES = 4096 };

/* 1 when the constructor's direct I/O did what it should; the test program looks. */
__attribute__((visibility("default"))) int early_succeeded;

/* Left open for the program: a descriptor that was opened before the shim was up. */
__attribute__((visibility("default"))) int early_fd = -1;

__attribute__((constructor)) static void write_before_main(void)
{
    static char block[BLOCK_BYTES] __attribute__((aligned(BLOCK_BYTES)));
    static char back[BLOCK_BYTES] __attribute__((aligned(BLOCK_BYTES)));
    const char *path = getenv("BOUNCEIO_TEST_EARLY");

    if (!path)
        return;
    memset(block, 'e', sizeof(block));
    early_fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_DIRECT | O_CLOEXEC, 0600);
    early_succeeded = early_fd >= 0 && pwrite(early_fd, block, sizeof(block), 0) == BLOCK_BYTES &&
                      pread(early_fd, back, sizeof(back), 0) == BLOCK_BYTES && memcmp(block, back, BLOCK_BYTES) == 0;
}
