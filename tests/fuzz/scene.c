/* See scene.h. */
#include "fuzz/scene.h"

#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/config.h"
#include "base/process.h"
#include "base/step.h"
#include "bounce/guard.h"
#include "checksum/mapping.h"
#include "checksum/store.h"

enum { SCENE_PATH = 4096 + MAP_NAME_BYTES + 32 };

const struct map_key scene_key = {.filesystem = "fuzz", .inode = 4711, .birth_seconds = 1, .device = 99, .modified = 5};

static struct {
    const char *store;
    int map, lock;
    int own, peer; /* session files */
    bool peer_is_alive;
    uint64_t size;      /* of the map's file */
    unsigned in_blocks; /* windows that the file holds at least the region words of */
    char map_path[SCENE_PATH];
    _Alignas(8) unsigned char page[2 * FORMAT_PAGE]; /* of a new map, as the code makes it */
    struct session_file session;                     /* of a new session, likewise */
    struct session_file image;                       /* of the peer's, before it is written */
} scene;

static _Noreturn void die(const char *what)
{
    perror(what);
    abort();
}

static void write_at(int fd, const void *data, size_t length, uint64_t offset)
{
    if (pwrite(fd, data, length, (off_t)offset) != (ssize_t)length)
        die("pwrite");
}

static void open_map_file(void)
{
    scene.map = open(scene.map_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (scene.map < 0)
        die(scene.map_path);
}

static void make_templates(void)
{
    struct map map = {0};
    if (map_open(&map, &scene_key, true) != 0 || map_cover(&map, 0, 1) != 0)
        die("the first map");
    snprintf(scene.map_path, sizeof scene.map_path, "%s/maps/%s", scene.store, map.name);
    memcpy(scene.page, map.header, sizeof scene.page);
    map_close(&map, false);
    memcpy(&scene.session, session_state->self, sizeof scene.session);
}

/* A fault that the guard does not repair is a finding. */
static void on_fault(int signal)
{
    (void)signal;
    abort();
}

static void install_guard(void)
{
    struct sigaction action = {.sa_handler = on_fault};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    guard_install();
    guard_thread();
}

void scene_make(void)
{
    char path[SCENE_PATH];
    if (!process_start() || !config.store)
        die("the store");
    scene.store = config.store;
    config.log_level = LOG_LEVEL_ERROR;
    install_guard();
    make_templates();
    open_map_file();
    snprintf(path, sizeof path, "%s/lock", scene.store);
    scene.lock = open(path, O_RDWR | O_CLOEXEC);
    snprintf(path, sizeof path, "%s/sessions/%d", scene.store, SCENE_PEER);
    scene.peer = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    snprintf(path, sizeof path, "%s/sessions/0", scene.store);
    scene.own = open(path, O_RDWR | O_CLOEXEC);
    if (scene.lock < 0 || scene.peer < 0 || scene.own < 0)
        die(path);
}

/* ---- the map ---- */

enum options {
    SEALED = 1,
    OF_OUR_BOOT = 2,
    OF_OUR_DEVICE = 4,
    PEER_LIVES = 8,
    NEW_SESSION = 16,
    RAW = 32,
    NEW_PEER = 64,
    LISTS_MAP = 128
};

/* FNV-1a, as the format has it. */
static uint64_t identity_sum(const struct map_identity *identity)
{
    uint64_t sum = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < sizeof *identity; i++)
        sum = (sum ^ ((const unsigned char *)identity)[i]) * UINT64_C(0x100000001b3);
    return sum;
}

/* What must hold for the map to be opened at all. */
static void seal(struct map_header *header, unsigned options)
{
    const struct map_identity *made = &((const struct map_header *)scene.page)->identity;
    if (options & SEALED) {
        uint64_t id = header->identity.map_id;
        header->identity = *made;
        header->identity.map_id = id ? id : 1;
        header->identity_sum = identity_sum(&header->identity);
    }
    header->boot[0] = session_state->boot[0] + !(options & OF_OUR_BOOT);
    header->boot[1] = session_state->boot[1];
    header->bound_device = scene_key.device + !(options & OF_OUR_DEVICE);
}

static void choose_size(struct input *input)
{
    uint8_t kind = input_byte(input);
    unsigned window = (kind >> 3) % 6; /* more of them only take longer */
    uint64_t first = FORMAT_PAGE + window_bytes(0);
    switch (kind % 8) {
    case 0:
        scene.size = input_take(input, 2);
        break;
    case 1:
        scene.size = 2 * FORMAT_PAGE + input_below(input, 17) * UNIT_BYTES;
        break;
    case 2:
    case 3:
    case 7:
        scene.size = window_offset(window) + window_state_bytes(window) + input_take(input, 3);
        break;
    default:
        scene.size = first;
        break;
    }
    scene.in_blocks = 0;
    while (scene.in_blocks < MAP_WINDOWS &&
           scene.size >= window_offset(scene.in_blocks) + window_state_bytes(scene.in_blocks))
        scene.in_blocks++;
}

static void poke_part(struct input *input, enum scene_part part);

static void set_map(struct input *input, unsigned options)
{
    _Alignas(8) unsigned char page[sizeof scene.page];
    struct map_header *header = (struct map_header *)page;
    memcpy(page, scene.page, sizeof page);
    choose_size(input);
    header->windows = scene.in_blocks > 0 ? scene.in_blocks : 1;
    if (options & RAW)
        input_copy(input, page, input->left < sizeof page ? input->left : sizeof page);
    unsigned patches = (unsigned)input_below(input, 8);
    for (unsigned i = 0; i < patches; i++) {
        /* Words 0-11 are the identity; it is left alone more often than not. */
        uint64_t which = input_below(input, 32), word = which < 20 ? 32 + which % 10 : which - 20;
        uint64_t value = scene_word(input);
        memcpy(page + word * 8, &value, sizeof value);
    }
    seal(header, options);
    /* What was there may have been set aside, and another one made. */
    close(scene.map);
    open_map_file();
    if (ftruncate(scene.map, 0) != 0 || ftruncate(scene.map, (off_t)scene.size) != 0)
        die("ftruncate");
    write_at(scene.map, page, scene.size < sizeof page ? scene.size : sizeof page, 0);
    patches = (unsigned)input_below(input, 8);
    for (unsigned i = 0; i < patches; i++)
        poke_part(input, (patches & 1) == (i & 1) ? PART_REGIONS : PART_BLOCKS);
}

/* ---- the sessions ---- */

static void set_alive(bool alive)
{
    struct flock byte = {
        .l_type = alive ? F_WRLCK : F_UNLCK, .l_whence = SEEK_SET, .l_start = STORE_LOCK_BYTE(SCENE_PEER), .l_len = 1};
    if (alive != scene.peer_is_alive && fcntl(scene.lock, F_OFD_SETLK, &byte) != 0)
        die("the peer's byte");
    scene.peer_is_alive = alive;
}

static void forget_peer(unsigned slot)
{
    struct session_file *file = atomic_exchange(&session_state->peers[slot], NULL);
    if (file)
        mapping_unmake(file, sizeof *file);
}

static uint64_t map_id(void)
{
    return ((const struct map_header *)scene.page)->identity.map_id;
}

static void set_entry(struct input *input, struct flight *entry)
{
    uint8_t what = input_byte(input), where = input_byte(input);
    entry->state = (what & 7) | (uint64_t)(what >> 3 & 3) << 8 | (uint64_t)(what >> 5) << 16;
    entry->map_id = where % 8 == 7 ? scene_word(input) : map_id();
    entry->first = scene_block(input);
    entry->blocks = where & 8 ? scene_block(input) : (uint64_t)where / 16;
    entry->issued = (int64_t)scene_word(input);
}

/* Its header and the first entries of its table. */
static void set_peer(struct input *input, unsigned options)
{
    enum { ENTRIES = 4, START = offsetof(struct session_file, flights) + ENTRIES * sizeof(struct flight) };
    struct session_file *file = &scene.image;
    memcpy(file, &scene.session, START);
    file->slot = SCENE_PEER;
    file->flights_high = ENTRIES;
    set_alive(options & PEER_LIVES);
    uint64_t size = sizeof *file;
    if (options & NEW_PEER) {
        forget_peer(SCENE_PEER);
        if (input_byte(input) % 8 == 0)
            size = input_take(input, 3);
    }
    if (input_byte(input) % 8 == 0) {
        uint64_t word = input_below(input, 12), value = scene_word(input);
        memcpy((char *)file + word * 8, &value, sizeof value);
    }
    unsigned entries = (unsigned)input_below(input, ENTRIES + 1);
    for (unsigned i = 0; i < entries; i++)
        set_entry(input, &file->flights[i]);
    if (!atomic_load(&session_state->peers[SCENE_PEER]) && ftruncate(scene.peer, (off_t)size) != 0)
        die("ftruncate");
    write_at(scene.peer, file, size < START ? size : START, 0);
    uint64_t listed = options & LISTS_MAP ? map_id() : 0;
    if (size == sizeof *file)
        write_at(scene.peer, &listed, sizeof listed, offsetof(struct session_file, maps));
}

static void open_session_again(void)
{
    atomic_store(&session_state->self, NULL);
    for (unsigned slot = 0; slot < 8; slot++)
        forget_peer(slot);
    if (session_open() != 0)
        die("a new session");
}

/* Take the slot again, on top of what is in its file. Where requests seem to be left there, it will be another slot. */
static void new_session(struct input *input)
{
    struct session_file *file = session_state->self;
    unsigned patches = (unsigned)input_below(input, 8);
    set_alive(true);
    for (unsigned i = 0; i < patches; i++) {
        uint64_t offset = input_below(input, sizeof *file / 8) * 8, value = input_take(input, 8);
        memcpy((char *)file + offset, &value, sizeof value);
    }
    open_session_again();
    if (session_state->slot == 0)
        return;
    struct flock byte = {.l_type = F_UNLCK, .l_start = STORE_LOCK_BYTE(session_state->slot), .l_len = 1};
    fcntl(store_lock_file(), F_OFD_SETLK, &byte);
    write_at(scene.own, &scene.session, sizeof scene.session, 0);
    open_session_again();
}

void scene_set(struct input *input)
{
    unsigned options = input_byte(input);
    atomic_store(&store_shared()->slots_high, SCENE_PEER + 2);
    if ((options & NEW_SESSION) && input_byte(input) % 8 == 0)
        new_session(input);
    set_peer(input, options);
    set_map(input, options);
}

/* ---- while the map is used ---- */

static struct {
    struct input rest;
    unsigned after; /* 0: none is due */
} pending_poke;

static void one_step(void)
{
    if (pending_poke.after > 0 && --pending_poke.after == 0)
        poke_part(&pending_poke.rest, input_byte(&pending_poke.rest) % PARTS);
}

void scene_poke(struct input *input, unsigned after)
{
    pending_poke.rest = *input;
    pending_poke.after = after + 1;
    one_step();
    /* A poke takes at most so many bytes. */
    uint8_t skipped[16];
    input_copy(input, skipped, sizeof skipped);
}

static void poke_map(uint64_t offset, uint64_t value)
{
    if (offset + 8 <= scene.size)
        write_at(scene.map, &value, 8, offset);
}

static uint64_t offset_of_region(uint64_t region)
{
    unsigned window = window_of_region(region);
    return window_offset(window) + (region - window_first_region(window)) * 8;
}

static uint64_t offset_of_block(uint64_t block)
{
    uint64_t region = block / REGION_BLOCKS;
    unsigned window = window_of_region(region);
    return window_offset(window) + window_state_bytes(window) +
           (region - window_first_region(window)) * REGION_WORD_BYTES + block % REGION_BLOCKS * 16;
}

static void poke_region(struct input *input)
{
    uint64_t region = scene_block(input) / REGION_BLOCKS, value = input_take(input, 1);
    unsigned units = input_byte(input);
    value |= REGION_UNIT(units % UNITS_PER_REGION) | REGION_UNIT(units / UNITS_PER_REGION);
    if (value & 128)
        value |= input_take(input, 8);
    if (region < (UINT64_C(1) << MAP_WINDOWS) - 1)
        poke_map(offset_of_region(region), value);
}

static void poke_session(struct session_file *file, struct input *input)
{
    uint8_t where = input_byte(input);
    uint64_t value = where & 64 ? scene_block(input) : scene_word(input);
    _Atomic uint64_t *header[] = {&file->boot[0], &file->boot[1], &file->flights_high, &file->flights_beyond,
                                  &file->maps_beyond};
    if (where & 128)
        atomic_store(header[where % 5], value);
    else if (where & 32)
        set_entry(input, &file->flights[where % 4]);
    else
        atomic_store((_Atomic uint64_t *)&file->flights[where % 4] + (where >> 2) % 5, value);
}

static void poke_part(struct input *input, enum scene_part part)
{
    uint64_t block;
    switch (part) {
    case PART_END:
        /* Memory beyond the end of the file faults, and is repaired. */
        choose_size(input);
        if (ftruncate(scene.map, (off_t)scene.size) != 0)
            die("ftruncate");
        break;
    case PART_HEADER:
        block = 32 + input_below(input, 10);
        poke_map(block * 8, scene_word(input));
        break;
    case PART_REGIONS:
        poke_region(input);
        break;
    case PART_BLOCKS:
        block = scene_block(input);
        if (block < MAP_BLOCKS_MAX)
            poke_map(offset_of_block(block) + (input_byte(input) & 1) * 8, scene_word(input));
        break;
    case PART_SESSION:
        poke_session(session_state->self, input);
        break;
    case PART_PEER:
        if (atomic_load(&session_state->peers[SCENE_PEER]))
            poke_session(session_state->peers[SCENE_PEER], input);
        break;
    default:
        /* Few slots: each is a look for a session's file. */
        atomic_store(&store_shared()->slots_high, input_byte(input) % 8);
        break;
    }
}

void scene_reset(void)
{
    struct session_file *self = session_state->self;
    pending_poke.after = 0;
    memcpy(self, &scene.session, offsetof(struct session_file, flights) + 64 * sizeof(struct flight));
    memcpy(self->maps, scene.session.maps, 64 * sizeof self->maps[0]);
}

/* In the place of what else happens at a step. */
void __wrap_step_reach(const char *name);
void __wrap_step_reach(const char *name)
{
    (void)name;
    one_step();
}

/* In the place of what blocks signals: a fault is to be reported. */
void __wrap_process_block_signals(uint64_t *saved);
void __wrap_process_block_signals(uint64_t *saved)
{
    *saved = 0;
}

void __wrap_process_lock(uint64_t *saved);
void __wrap_process_lock(uint64_t *saved)
{
    *saved = 0;
}

/* ---- numbers ---- */

uint64_t scene_block(struct input *input)
{
    uint8_t kind = input_byte(input);
    switch (kind & 7) {
    case 0:
        return kind >> 3;
    case 1:
        return UNIT_BLOCKS * (uint64_t)(kind >> 3) + input_byte(input);
    case 2:
        return REGION_BLOCKS * (uint64_t)(kind >> 3) + input_byte(input) % 4;
    case 3:
        return window_first_region(kind >> 3) * REGION_BLOCKS - 1 + input_byte(input) % 2;
    case 4:
        return input_take(input, 4);
    case 5:
        return (UINT64_C(1) << ((kind >> 3) * 2)) - 1 + input_byte(input) % 3;
    case 6:
        return kind & 128 ? FLIGHT_TO_END : 0;
    default:
        return input_take(input, 8);
    }
}

uint64_t scene_word(struct input *input)
{
    uint8_t kind = input_byte(input);
    switch (kind % 8) {
    case 0:
        return 0;
    case 1:
    case 2:
        return 1 + kind / 8; /* the sums of the operations */
    case 3:
        return WORD_CONTENDED + kind / 8;
    case 4:
        return (uint64_t)(kind / 8 % 4) << 62;
    case 5:
        return (uint64_t)(kind / 8 % 4) << 62 | WORD_SUM_MASK;
    case 6:
        return kind / 8;
    default:
        return input_take(input, 8);
    }
}
