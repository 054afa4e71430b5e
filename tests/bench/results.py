"""The records of a run, and the questions that are asked of them."""
import json
import math

SIZES = [4 << 10, 16 << 10, 64 << 10, 1 << 20, 4 << 20]
# Bounced sides whose blocks the shim did not nearly all sum or verify were not bounced: their times say nothing.
COVERED_MIN = 0.95
# A ratio that is known to less than this is marked.
UNCERTAIN = 0.03


def size_name(size):
    return f"{size >> 20}M" if size >= 1 << 20 else f"{size >> 10}K"


def geometric_mean(values):
    return math.exp(sum(math.log(value) for value in values) / len(values)) if values else None


class Cell:
    """One comparison: what was done, and each side's outcome by its name."""

    def __init__(self, record):
        self.experiment = record["experiment"]
        self.filesystem = record["filesystem"]
        self.door = record["door"]
        self.depth = record["depth"]
        self.size = record["size"]
        self.order = record["order"]
        self.operation = record["operation"]
        self.rounds = record["rounds"]
        self.covered = record["covered"]
        self.sides = {side["name"]: side for side in record["sides"]}

    @property
    def has_bounced(self):
        return "bounced" in self.sides

    @property
    def is_valid(self):
        return not self.has_bounced or self.covered >= COVERED_MIN

    @property
    def ratio(self):
        return self.sides["bounced"]["ratio"]

    @property
    def uncertainty(self):
        """Twice the standard error of the ratio, a median: from the quartiles of the rounds, as if they were normal."""
        side = self.sides["bounced"]
        return 2 * 0.93 * (side["ratio_high"] - side["ratio_low"]) / math.sqrt(self.rounds)

    @property
    def is_uncertain(self):
        return self.uncertainty > UNCERTAIN * self.ratio

    @property
    def way(self):
        return f"{self.door} QD{self.depth}"

    def __str__(self):
        return f"{self.filesystem} {self.way} {self.order} {size_name(self.size)} {self.operation}s"


class Results:
    def __init__(self, path):
        with open(path) as file:
            self.records = [json.loads(line) for line in file]
        self.cells = [Cell(record) for record in self.records if "sides" in record]
        self.values = [record for record in self.records if "value" in record]

    def matching(self, experiment, **wanted):
        """Cells of an experiment, valid or not; wanted: attribute=value or attribute=collection of values."""

        def fits(cell):
            for name, value in wanted.items():
                mine = getattr(cell, name)
                if mine not in value if isinstance(value, (list, tuple, set)) else mine != value:
                    return False
            return cell.experiment == experiment

        return [cell for cell in self.cells if fits(cell)]

    def valid(self, experiment, **wanted):
        return [cell for cell in self.matching(experiment, **wanted) if cell.is_valid]

    @property
    def sizes(self):
        """That were measured in anything that is shown by size."""
        return [size for size in SIZES if any(cell.size == size for cell in self.cells)]

    def number(self, experiment, name, filesystem=None):
        for record in self.values:
            if record["experiment"] == experiment and record["name"] == name:
                if filesystem is None or record.get("filesystem") == filesystem:
                    return record["value"]
        return None

    def filesystems(self, experiment):
        """In the order in which they were measured."""
        return list(dict.fromkeys(r["filesystem"] for r in self.records if r["experiment"] == experiment))

    @property
    def real_filesystems(self):
        return [name for name in self.filesystems("matrix") if name != "tmpfs"]

    def buffered(self, operation):
        """Of each size that was measured: times of btrfs's buffered way, of zero-copy, and of bounced requests."""
        for size in SIZES:
            for cell in self.valid("buffered", operation=operation, size=size):
                yield size, {name: side["time"] for name, side in cell.sides.items()}
