"""What is to be reached, and whether it was. Every target is reported, also those that could not be measured."""
from results import geometric_mean

LARGE = [1 << 20, 4 << 20]
DEPTHS = [1, 16]


class Verdict:
    """reached: True, False, or None when nothing was measured."""

    def __init__(self, name, limit, value, reached, note=""):
        self.name = name
        self.limit = limit
        self.value = value
        self.reached = reached
        self.note = note

    def as_dict(self):
        return {"name": self.name, "limit": self.limit, "value": self.value, "reached": self.reached, "note": self.note}


def at_least(name, limit, value, note=""):
    return Verdict(name, f">= {limit:g}", value, None if value is None else value >= limit, note)


def at_most(name, limit, value, unit, note=""):
    return Verdict(name, f"<= {limit:g} {unit}".strip(), value, None if value is None else value <= limit, note)


def worst(cells, key=lambda cell: cell.ratio):
    """The lowest ratio and where it was."""
    if not cells:
        return None, ""
    cell = min(cells, key=key)
    return key(cell), str(cell)


def all_covered(results):
    cells = [cell for cell in results.cells if cell.has_bounced]
    bad = [cell for cell in cells if not cell.is_valid]
    share = 1 - len(bad) / len(cells) if cells else None
    note = f"{len(bad)} of {len(cells)} were not, as {bad[0]}" if bad else ""
    return at_least("comparisons in which every bounced block had its checksum", 1, share, note)


def ratios(results):
    real = {"filesystem": results.real_filesystems, "depth": DEPTHS}
    cells = results.valid("matrix", **real)
    yield at_least("disk file systems, QD1 and QD16: geometric mean", 1.05, geometric_mean([c.ratio for c in cells]))
    low = [cell for cell in cells if cell.ratio < 0.95]
    uncertain = sum(cell.is_uncertain for cell in cells)
    value, where = worst(cells)
    note = f"{where}; {len(low)} of {len(cells)} below; {uncertain} uncertain"
    yield at_least("the same: lowest", 0.95, value, note)
    memory = [name for name in results.real_filesystems if name in ("xfs", "btrfs-nocow")]
    value, where = worst(results.valid("matrix", filesystem=memory, depth=DEPTHS, size=LARGE, operation="write"))
    yield at_least("RAM-backed devices, writes of 1M and 4M: lowest", 1.15, value, where)
    value, where = worst(results.valid("matrix", filesystem="tmpfs", depth=DEPTHS))
    yield at_least("tmpfs: lowest", 0.85, value, where)
    value, where = worst(results.valid("buffered", operation="write"))
    yield at_least("btrfs's own way with data checksums: writes, lowest", 2.5, value, where)
    value, where = worst(results.valid("new files"))
    yield at_least("new files, from open to close: lowest", 0.9, value, where)


def added(results):
    for door, depth, operation, allowed in (
        ("blocking", 1, "write", 150),
        ("blocking", 1, "read", 100),
        ("libaio", 16, "write", 250),
        ("libaio", 16, "read", 250),
        ("io_uring", 16, "write", 250),
        ("io_uring", 16, "read", 250),
    ):
        name = f"a 4K {door} {operation} at QD{depth} adds beyond copying and hashing"
        cells = results.valid("added", door=door, depth=depth, operation=operation)
        if not cells:
            yield at_most(name, allowed, None, "ns")
            continue
        sides = cells[0].sides
        floor = sides["floor"]["time"]
        more = sides["bounced"]["added"]
        yield at_most(name, allowed, more - floor, "ns", f"{more:.0f} ns, of which {floor:.0f} are the floor")


def idle(results):
    pipe = results.number("idle", "write+read of a pipe")
    yield at_most("a call on a pipe adds", 3, pipe, "ns")
    yield at_most("start-up without direct I/O adds", 0.2, results.number("idle", "start of /bin/true"), "ms")


def scaling(results):
    name = "scaling from 1 to 8 threads, against zero-copy's: lowest"
    found = [(results.number("threads", "scaling ratio, 8 threads", fs), fs) for fs in results.filesystems("threads")]
    value, where = min(found, default=(None, ""))
    return at_least(name, 0.95, value, where)


def processor(results):
    """Per GiB means per request here: both sides' requests are of one size."""
    share = lambda cell: cell.sides["zero-copy"]["processor"] / cell.sides["bounced"]["processor"]  # noqa: E731
    cells = results.valid("matrix", filesystem=results.real_filesystems, size=LARGE)
    value, where = worst(cells, share)
    mean = geometric_mean([share(cell) for cell in cells])
    note = f"{where}; geometric mean {1 / mean:.2f}" if cells else ""
    return at_most(
        "processor time per GiB at 1M and 4M, against zero-copy's: highest", 1, value and 1 / value, "", note
    )


def judge(results):
    return [
        all_covered(results),
        *ratios(results),
        *added(results),
        *idle(results),
        scaling(results),
        processor(results),
    ]

