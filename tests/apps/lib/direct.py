"""Direct I/O as a Python program does it: usage direct.py FILE EXPECTED.

Writes FILE through O_DIRECT with vectors whose buffers lie at any address, from threads, while subprocesses come and go
(vfork: the child closes and duplicates descriptors on the parent's memory), reads everything back and compares it with what a
plain bytearray says. EXPECTED receives that bytearray through the page cache.
"""

import os
import random
import subprocess
import sys
import threading

BLOCK = 4096
BLOCKS = 1024
WORKERS = 4


def odd_buffer(data, shift):
    """A writable view of `data` that begins `shift` bytes into its memory."""
    memory = bytearray(shift + len(data))
    view = memoryview(memory)[shift:]
    view[:] = data
    return view


def one_worker(fd, model, first, last, seed):
    chance = random.Random(seed)
    for _ in range(150):
        count = chance.randint(1, 16)
        start = chance.randrange(first, last - count + 1)
        offset = start * BLOCK
        data = chance.randbytes(count * BLOCK)
        cut = chance.randrange(len(data))
        pieces = [odd_buffer(data[:cut], chance.randrange(64)), odd_buffer(data[cut:], chance.randrange(64))]
        assert os.pwritev(fd, pieces, offset) == len(data)
        model[offset : offset + len(data)] = data

        back = [odd_buffer(bytes(len(data) - cut), 3), odd_buffer(bytes(cut), 17)]
        assert os.preadv(fd, back, offset) == len(data)
        assert b"".join(back) == data, f"block {start}: read differs from what was written"


def subprocesses(stop):
    while not stop.is_set():
        said = subprocess.run(
            ["/bin/echo", "hello"], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, close_fds=True, check=True
        )
        assert said.stdout == b"hello\n"


def main():
    path, expected = sys.argv[1:]
    model = bytearray(BLOCK * BLOCKS)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_DIRECT, 0o600)
    for block in range(0, BLOCKS, 64):
        model[block * BLOCK : (block + 64) * BLOCK] = random.Random(block).randbytes(64 * BLOCK)
        os.pwrite(fd, odd_buffer(model[block * BLOCK : (block + 64) * BLOCK], 1), block * BLOCK)

    failures = []

    def guarded(function, *arguments):
        try:
            function(*arguments)
        except BaseException as error:  # reported by the main thread
            failures.append(error)

    stop = threading.Event()
    share = BLOCKS // WORKERS
    workers = [
        threading.Thread(target=guarded, args=(one_worker, fd, model, i * share, (i + 1) * share, i))
        for i in range(WORKERS)
    ]
    spawner = threading.Thread(target=guarded, args=(subprocesses, stop))
    spawner.start()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    stop.set()
    spawner.join()
    if failures:
        raise failures[0]

    child = os.fork()
    if child == 0:
        whole = odd_buffer(bytes(len(model)), 5)
        same = os.preadv(fd, [whole], 0) == len(model) and bytes(whole) == bytes(model)
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0, "the forked child read something else"

    whole = odd_buffer(bytes(len(model)), 7)
    assert os.preadv(fd, [whole], 0) == len(model)
    assert bytes(whole) == bytes(model)
    with open(expected, "wb") as copy:
        copy.write(model)
    os.close(fd)


main()
