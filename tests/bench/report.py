#!/usr/bin/env python3
"""What the benchmark's records say: a table on the terminal, bench.json, bench.txt and bench.svg, and whether the targets are reached.

    report.py BUILD [--check] [--quick] [--seconds N]

Reads BUILD/bench.records. --check: exit status 1 when a target is missed. Times are nanoseconds for a request; "ratio" is zero-copy time
divided by bounceio time, so that above 1 bounceio is faster.
"""
import argparse
import json
import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import machine  # noqa: E402
import picture  # noqa: E402
import tables  # noqa: E402
import targets  # noqa: E402
from results import Results  # noqa: E402


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seconds", type=int, default=0)
    return parser.parse_args()


def main():
    options = arguments()
    path = lambda name: os.path.join(options.build, name)  # noqa: E731
    results = Results(path("bench.records"))
    facts = machine.facts()
    verdicts = targets.judge(results)

    tables.summary(results, verdicts, facts)
    with open(path("bench.txt"), "w") as file:
        tables.details(results, file)
    with open(path("bench.json"), "w") as file:
        json.dump(
            {
                "machine": facts,
                "quick": options.quick,
                "seconds": options.seconds,
                "targets": [verdict.as_dict() for verdict in verdicts],
                "results": results.records,
            },
            file,
            indent=1,
        )
        file.write("\n")
    written = ["bench.txt (every cell)", "bench.json"]
    if picture.draw(results, facts, path("bench.svg")):
        written.append("bench.svg")
    print(f"\n{options.seconds // 60} min {options.seconds % 60} s; in {options.build}: {', '.join(written)}")
    missed = [verdict for verdict in verdicts if verdict.reached is not True]
    return 1 if options.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
