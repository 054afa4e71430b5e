"""Tables of text: the summary on the terminal, and every cell in a file."""
import os
import sys

import machine
from results import SIZES, UNCERTAIN, size_name

LOW = 0.95


def styles():
    plain = not sys.stdout.isatty() or os.environ.get("NO_COLOR")
    return ("", "", "", "") if plain else ("\033[1m", "\033[32m", "\033[31m", "\033[0m")


def duration(nanoseconds):
    for unit, length in (("ns", 1), ("µs", 1e3), ("ms", 1e6)):
        if nanoseconds < 999.5 * length or unit == "ms":
            return f"{nanoseconds / length:.3g} {unit}" if nanoseconds < 99.95 * length else f"{nanoseconds / length:.0f} {unit}"
    return ""


def ratio_text(cell):
    """Six columns: the ratio, marked when it is uncertain or low; a dash when nothing was bounced."""
    if not cell.is_valid:
        return "     -"
    return f"{cell.ratio:5.2f}" + ("?" if cell.is_uncertain else "!" if cell.ratio < LOW else " ")


def ratio_table(results, filesystem):
    cells = {(c.way, c.order, c.operation, c.size): c for c in results.matching("matrix", filesystem=filesystem)}
    sizes = [size for size in SIZES if any(key[3] == size for key in cells)]
    bold, _, _, plain = styles()
    heads = "".join(f"{size_name(size):>5} " for size in sizes)
    print(f"\n{bold}{filesystem:<28}{plain}{'writes':<{6 * len(sizes) + 3}}reads")
    print(f"{'':<28}{heads}   {heads}")
    for way, order in dict.fromkeys((key[0], key[1]) for key in cells):
        line = f"  {way:<14}{order:<12}"
        for operation in ("write", "read"):
            for size in sizes:
                cell = cells.get((way, order, operation, size))
                line += ratio_text(cell) if cell else "      "
            line += "   "
        print(line.rstrip())


def one_line(name, cells):
    texts = [f"{size_name(c.size)} {c.operation} {ratio_text(c).strip()}" for c in cells]
    print(f"  {name:<26}{', '.join(texts)}")


def other_ratios(results):
    bold, _, _, plain = styles()
    if results.cells and results.matching("new files"):
        print(f"\n{bold}New files, from open to close{plain} (created, written, fsync, closed; their maps on the same file system)")
        for filesystem in results.filesystems("new files"):
            one_line(filesystem, results.matching("new files", filesystem=filesystem))
    if results.matching("control"):
        print(f"\n{bold}Zero-copy against zero-copy{plain} (how far from 1 a ratio is by chance; random)")
        for filesystem in results.filesystems("control"):
            cells = results.matching("control", filesystem=filesystem)
            texts = [
                f"{c.way} {size_name(c.size)} {c.operation} {c.sides['zero-copy-twin']['ratio']:.2f}" for c in cells
            ]
            print(f"  {filesystem:<14}{', '.join(texts[:4])}")
            print(f"  {'':<14}{', '.join(texts[4:])}")


def buffered_table(results):
    if not results.valid("buffered"):
        return
    bold, _, _, plain = styles()
    print(f"\n{bold}btrfs, blocking, sequential, MB/s{plain}")
    print(f"  {'':<12}{'data checksums':>16}{'NOCOW':>12}{'NOCOW under':>14}")
    print(f"  {'':<12}{'(buffered)':>16}{'zero-copy':>12}{'bounceio':>14}")
    for operation in ("write", "read"):
        for size, times in results.buffered(operation):
            rate = {name: size / time * 1e3 for name, time in times.items()}
            print(
                f"  {size_name(size) + ' ' + operation + 's':<12}{rate['buffered']:>16.0f}{rate['zero-copy']:>12.0f}"
                f"{rate['bounced']:>14.0f}   {times['buffered'] / times['bounced']:.1f} x buffered"
            )


def added_table(results):
    bold, _, _, plain = styles()
    cells = results.matching("added")
    if cells:
        print(f"\n{bold}A request of 4K on tmpfs{plain} (ns; floor: copying and hashing 4 KiB, for reads hashing alone)")
        print(f"  {'':<22}{'zero-copy':>11}{'bounceio adds':>15}{'floor':>7}{'excluded file adds':>20}")
    for cell in cells:
        more = f"{cell.sides['bounced']['added']:+.0f}" if cell.is_valid else "-"
        print(
            f"  {cell.way + ' ' + cell.operation:<22}{cell.sides['zero-copy']['time']:>11.0f}{more:>15}"
            f"{cell.sides['floor']['time']:>7.0f}{cell.sides['excluded']['added']:>+20.0f}"
        )


def single_numbers(results):
    bold, _, _, plain = styles()
    for experiment, title in (("internals", "Inside"), ("idle", "A program without direct I/O: what the shim adds")):
        numbers = [record for record in results.values if record["experiment"] == experiment]
        if numbers:
            print(f"\n{bold}{title}{plain}")
        for record in numbers:
            print(f"  {record['name']:<34}{record['value']:>10.5g} {record['unit']}")
    for filesystem in results.filesystems("threads"):
        print(f"\n{bold}Threads that write 4K at random places in one file, {filesystem}{plain} (times as fast as one)")
        for side in ("zero-copy", "bounced"):
            numbers = [
                f"{count}: {results.number('threads', f'{side}, {count} threads', filesystem):.2f}" for count in (2, 4, 8)
            ]
            print(f"  {side:<12}{', '.join(numbers)}")


def target_table(verdicts):
    bold, green, red, plain = styles()
    print(f"\n{bold}Targets{plain}")
    for verdict in verdicts:
        mark = {True: f"{green}ok{plain}      ", False: f"{red}MISSED{plain}  ", None: "not seen"}[verdict.reached]
        value = "" if verdict.value is None else f"{verdict.value:.4g}"
        note = f"  ({verdict.note})" if verdict.note else ""
        print(f"  {mark} {verdict.name}: {value} {verdict.limit}{note}")


def summary(results, verdicts, facts):
    print(machine.caption(facts))
    print(f"Zero-copy time / bounceio time: above 1 bounceio is faster. Marked: below {LOW} !, not known to {UNCERTAIN:.0%} ?")
    for filesystem in results.filesystems("matrix"):
        ratio_table(results, filesystem)
    buffered_table(results)
    other_ratios(results)
    added_table(results)
    single_numbers(results)
    target_table(verdicts)


def details(results, file):
    """Every side of every cell: time of a request, latencies, processor time."""
    for cell in results.cells:
        state = "" if cell.is_valid else "   NOT BOUNCED"
        print(f"{cell.experiment}: {cell}: {cell.rounds} rounds{state}", file=file)
        for name, side in cell.sides.items():
            print(
                f"    {name:<15} {duration(side['time']):>8}   median {duration(side['latency50']):>8}   "
                f"99% {duration(side['latency99']):>8}   processor {duration(side['processor']):>8}   "
                f"ratio {side['ratio']:6.3f} ({side['ratio_low']:.3f} to {side['ratio_high']:.3f})   "
                f"added {side['added']:+.0f} ns",
                file=file,
            )
    for record in results.values:
        where = f" {record['filesystem']}" if "filesystem" in record else ""
        print(f"{record['experiment']}:{where} {record['name']}: {record['value']} {record['unit']}", file=file)
