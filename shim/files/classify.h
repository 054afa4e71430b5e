/*
 * What is this number? The slow side of the descriptor table, and the layout of its words. For the files floor only.
 */
#ifndef BOUNCEIO_FILES_CLASSIFY_H
#define BOUNCEIO_FILES_CLASSIFY_H

#include "files/descriptor.h"

#define FD_FLAGS_MASK UINT64_C(0xf0)
#define FD_SEQUENCE_MASK (UINT64_C(0xffff) << 8)
#define FD_FILE_MASK (UINT64_C(0xfffff) << 24)
#define FD_OFFSET_MASK (UINT64_C(0xfffff) << 44)

static inline struct file *fd_word_file(uint64_t word)
{
    uint32_t index = (uint32_t)(word >> 24) & 0xfffff;
    return index ? file_at(index - 1) : NULL;
}

static inline struct offset *fd_word_offset(uint64_t word)
{
    uint32_t index = (uint32_t)(word >> 44);
    return index ? offset_at(index - 1) : NULL;
}

static inline uint64_t fd_word_make(enum fd_state state, unsigned flags, const struct file *file,
                                    const struct offset *offset)
{
    return (uint64_t)state | flags | (file ? (uint64_t)(file_index(file) + 1) << 24 : 0) |
           (offset ? (uint64_t)(offset_index(offset) + 1) << 44 : 0);
}

/* Take, and give back, the references that a word stands for. fd_word_hold fails when the entry has changed meanwhile. */
bool fd_word_hold(int fd, uint64_t word);
void fd_word_drop(uint64_t word);

/*
 * Replace an entry, if it still is `expected`, by `word` with the next sequence number. The references of the old word are dropped;
 * those of the new one must have been taken before, and are the entry's from then on. @return done?
 */
bool fd_replace(int fd, uint64_t expected, uint64_t word);

/* Classify view->fd, whose entry was view->word, remember it where possible, and complete the view. @return 0 or -EAGAIN. */
int fd_classify(struct fd_view *view, bool nowait);

/* Classify a number that was just opened with O_DIRECT. */
void fd_classify_opened(int fd, int flags, bool shared);

/* A map was created somewhere: every FD_FILE is FD_NEW again. */
void fd_files_changed(void);

#endif
