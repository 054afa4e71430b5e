"""damage.py FILE OFFSET: flip one bit of the byte at OFFSET, and let the file's times be what they were: what a medium does that rots."""
import os
import sys

path, offset = sys.argv[1], int(sys.argv[2])
fd = os.open(path, os.O_RDWR)
before = os.fstat(fd)
byte = os.pread(fd, 1, offset)
assert len(byte) == 1, "the file is shorter than that"
assert os.pwrite(fd, bytes([byte[0] ^ 16]), offset) == 1
# Before the times are restored: writing back may stamp the inode again.
os.fdatasync(fd)
os.utime(fd, ns=(before.st_atime_ns, before.st_mtime_ns))
os.fsync(fd)
