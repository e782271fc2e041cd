"""`python -m tests.faults` (or `make faults`): the whole campaign, its table, a status of 1 if anything was lost."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from . import FAULTS, Fault, Tally, campaign, markdown

SECTION = re.compile(r"(<!-- faults:[^\n]*-->\n).*?(<!-- /faults -->)", re.DOTALL)


def write_readme(readme: Path, table: str) -> None:
    """Replace what stands between the README's markers of the campaign.

    Raises:
        ValueError: the README has no such markers.
    """
    text = readme.read_text("utf-8")
    if not SECTION.search(text):
        raise ValueError(f"{readme.name} must hold the lines <!-- faults: … --> and <!-- /faults -->")
    readme.write_text(SECTION.sub(lambda found: f"{found[1]}\n{table}\n\n{found[2]}", text), "utf-8")


def _chosen(only: Sequence[str]) -> list[Fault]:
    parts = {item.category for item in FAULTS}
    unknown = sorted(set(only) - parts)
    if unknown:
        raise ValueError(f"parts must be among {', '.join(sorted(parts))}, got {', '.join(unknown)}")
    return [item for item in FAULTS if not only or item.category in only]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Make things go wrong, many times.")
    parser.add_argument("--quick", action="store_true", help="only the tries that `make test` runs")
    parser.add_argument("--only", nargs="+", default=(), metavar="PART", help="only faults of these parts")
    parser.add_argument("--readme", type=Path, help="write the table between the markers of this file, too")
    given = parser.parse_args(arguments)
    try:
        chosen = _chosen(given.only)
    except ValueError as error:
        print(f"{error}.", file=sys.stderr)
        return 2
    tallies: list[Tally] = []
    for tally in campaign(chosen, quick=given.quick):
        tallies.append(tally)
        print(f"{tally.fault.category}: {tally.fault.name}: {tally.survived} of {tally.tries}", file=sys.stderr)
        for said in tally.losses:
            print(f"  LOST, {said}", file=sys.stderr)
    table = markdown(tallies)
    print(table)
    if given.readme:
        write_readme(given.readme, table)
    return 1 if any(tally.lost for tally in tallies) else 0


if __name__ == "__main__":
    sys.exit(main())
