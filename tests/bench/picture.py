"""bench.svg, drawn by gnuplot: ratios by file system, and the comparison with btrfs's buffered way."""
import re
import subprocess

import machine
from results import geometric_mean, size_name

COLOURS = ["#1b6ca8", "#d1495b", "#3a7d44", "#8d6a9f"]


def series(results, operation):
    """For each file system the geometric means of its ratios at QD1 and QD16: [(name, [value or None, ...])]."""
    found = []
    for filesystem in results.filesystems("matrix"):
        means = []
        for size in results.sizes:
            cells = results.valid("matrix", filesystem=filesystem, operation=operation, size=size, depth=[1, 16])
            means.append(geometric_mean([cell.ratio for cell in cells]))
        if any(means):
            found.append((filesystem, means))
    return found


def rates(results, operation):
    names = [("buffered", "data checksums, buffered"), ("zero-copy", "NOCOW, zero-copy"), ("bounced", "NOCOW, bounceio")]
    times = dict(results.buffered(operation))
    if not times:
        return []
    return [
        (title, [size / times[size][name] if size in times else None for size in results.sizes]) for name, title in names
    ]


def block(name, columns, sizes):
    """A gnuplot data block: a line for each size, a column for each series."""
    lines = [f"${name} << EOD"]
    for i, size in enumerate(sizes):
        values = " ".join("NaN" if values[i] is None else f"{values[i]:.4f}" for _, values in columns)
        lines.append(f"{size_name(size)} {values}")
    return lines + ["EOD"]


def lines_of(name, columns):
    return ", ".join(
        f"${name} using 0:{i + 2}:xtic(1) with linespoints lw 2 pt 7 ps 0.6 lc rgb '{COLOURS[i]}' title '{title}'"
        for i, (title, _) in enumerate(columns)
    )


def bars_of(name, columns):
    return ", ".join(
        f"${name} using {i + 2}:xtic(1) with histograms fs solid 0.9 noborder lc rgb '{COLOURS[(1, 0, 2)[i]]}' title '{title}'"
        for i, (title, _) in enumerate(columns)
    )


def panel(name, title, axis, plot, before=()):
    return [f"set title '{title}'", f"set ylabel '{axis}'", *before, f"plot {plot}"]


def script(results, facts, path):
    caption = machine.caption(facts).replace("'", "")
    panels, blocks = [], []
    for operation in ("write", "read"):
        columns = series(results, operation)
        if columns:
            blocks += block(f"ratio_{operation}", columns, results.sizes)
            panels.append(
                panel(
                    operation,
                    f"{operation}s: zero-copy time / bounceio time (QD1, QD16)",
                    "above 1: bounceio is faster",
                    "1 with lines dt 2 lc rgb '#888888' notitle, " + lines_of(f"ratio_{operation}", columns),
                    ["set yrange [0.4:*]", f"set xrange [-0.3:{len(results.sizes) - 0.7}]", "set key bottom right"],
                )
            )
    for operation in ("write", "read"):
        columns = rates(results, operation)
        if columns:
            blocks += block(f"rate_{operation}", columns, results.sizes)
            panels.append(
                panel(
                    operation,
                    f"btrfs, sequential {operation}s, blocking",
                    "GB/s",
                    bars_of(f"rate_{operation}", columns),
                    ["set yrange [0:*]", f"set xrange [-0.6:{len(results.sizes) - 0.4}]", "set style data histograms", "set key top left"],
                )
            )
    if not panels:
        return None
    rows = (len(panels) + 1) // 2
    head = [
        f"set terminal svg size 1080,{60 + 380 * rows} font 'sans-serif,13' background rgb 'white'",
        f"set output '{path}'",
        "set datafile missing 'NaN'",
        "set border 3",
        "set tics nomirror",
        "set grid ytics lc rgb '#dddddd' lt 1",
        *blocks,
        f"set multiplot layout {rows},2 title '{caption}' noenhanced",
    ]
    return "\n".join(head + [line for lines in panels for line in lines] + ["unset multiplot", ""])


def compact(path):
    """gnuplot writes empty groups, and text in three lines: half of the file."""
    with open(path) as file:
        text = file.read()
    text = re.sub(r"<g [^>]*>\s*</g>\s*\n", "", text)
    text = re.sub(r"\s*\n\s*(?=<text>|</g>)", "", text)
    with open(path, "w") as file:
        file.write(text)


def draw(results, facts, path):
    """False, with a line that says why, when there is nothing to draw or nobody to do it."""
    text = script(results, facts, path)
    if text is None:
        return False
    try:
        answer = subprocess.run(["gnuplot"], input=text, capture_output=True, text=True)
    except OSError as error:
        print(f"no picture: gnuplot: {error.strerror}")
        return False
    if answer.returncode != 0:
        print(f"no picture: {answer.stderr.strip()}")
        return False
    compact(path)
    return True
