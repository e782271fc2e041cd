"""A finished study into the tracked folders: `python -m cxr_helpers.report.publish --profile cpu` (`make publish`).

Everything is checked before the first byte is copied.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat

from ..planning import project_root
from ..profiles import PROFILES, Profile, get_profile
from ..runs import read_json, write_bytes, write_json
from .build import notebook_files, sources
from .index import files_of, is_current, read_build

__all__ = ["MOST_BYTES", "plan_copies", "problems", "publish"]

MOST_BYTES = 20_000_000  # of one tracked file
PAGES = "results/html"
MANIFEST = f"{PAGES}/published.json"
TARGETS = {"notebooks": "notebooks", "figures": "figures", "tables": "results/tables"}  # report folder → checkout


def plan_copies(folder: Path, stems: Sequence[str]) -> dict[str, Path]:
    """What publishing copies: path below the checkout → file of the report."""
    copies = {f"{PAGES}/{name}.html": folder / f"{name}.html" for name in ("index", *stems)}
    numbers = tuple(f"{stem[:2]}_" for stem in stems)
    for kind, target in TARGETS.items():
        files = sorted(path for path in (folder / kind).glob("*") if path.is_file() and path.name.startswith(numbers))
        copies |= {f"{target}/{path.name}": path for path in files}
    return copies


def _changed(entry: Mapping[str, Any], folder: Path, stem: str) -> list[str]:
    """Files of a notebook that are not the ones its build made: written or changed since."""
    then = entry.get("files", {})
    return [name for name, digest in files_of(folder, stem).items() if then.get(name) != digest]


def _contents(pages: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Data sets that two pages have with different content."""
    found: dict[tuple[str, str], set[str]] = {}
    for entry in pages.values():
        for row in entry.get("data", []):
            found.setdefault((str(row.get("data")), str(row.get("px"))), set()).add(str(row.get("content")))
    return [f"{name} {px} px: {', '.join(sorted(kinds))}" for (name, px), kinds in found.items() if len(kinds) > 1]


def _page_problems(stem: str, entry: Mapping[str, Any], record: Mapping[str, Any], profile: Profile) -> list[str]:
    """Why one notebook's page may not be published."""
    if entry.get("state") != "done":
        return [f"{stem} is {entry.get('state', 'not built')}"]
    found = [] if is_current(entry, record) else [f"{stem} is of an earlier build"]
    if entry.get("commit", "unknown") == "unknown":
        found.append(f"{stem} does not say which commit made it")
    elif entry["profile"] != profile.name:
        found.append(f"{stem} was made with profile {entry['profile']}")
    if entry.get("dirty"):
        found.append(f"{stem} was made with changes that are not committed")
    elif not entry.get("committed"):
        found.append(f"{stem} was made from a notebook that is not committed")
    return found


def problems(profile: Profile, root: Path, folder: Path) -> list[str]:
    """Every reason why a report may not be published; none means that it may."""
    if not profile.is_evidence:
        return [f"profile {profile.name} is not evidence"]
    record, files = read_build(folder), notebook_files(root / "notebooks")
    if not record:
        return [f"there is no build of profile {profile.name}: run `make report PROFILE={profile.name}` first"]
    pages = record.get("pages", {})
    if not record.get("finished"):
        return ["the last build did not finish"] + [e["error"] for e in pages.values() if e.get("state") == "failed"]
    found = [text for p in files for text in _page_problems(p.stem, pages.get(p.stem, {}), record, profile)]
    commits = {entry["commit"] for entry in pages.values() if "commit" in entry}
    if len(commits) > 1:
        found.append(f"pages were made at different commits: {', '.join(sorted(commits))}")
    found += [f"pages were made from different data under one name: {text}" for text in _contents(pages)]
    if found:
        return found
    copies = plan_copies(folder, [path.stem for path in files])
    missing = [name for name, path in copies.items() if not path.is_file()]
    large = [name for name, path in copies.items() if path.is_file() and path.stat().st_size > MOST_BYTES]
    found += [f"{name} is not there" for name in missing]
    found += [f"{name} has more than {MOST_BYTES:,} bytes" for name in large]
    for path in files:
        changed = _changed(pages[path.stem], folder, path.stem)
        if changed:
            found.append(f"{path.stem} was built without {', '.join(changed[:3])}{', …' if len(changed) > 3 else ''}")
        executed = folder / "notebooks" / path.name
        if not executed.is_file():
            found.append(f"the executed {path.name} is not there")
        elif sources(nbformat.read(executed, as_version=4)) != sources(nbformat.read(path, as_version=4)):
            found.append(f"the cells of {path.name} have changed since it was executed")
    return found


def publish(profile: Profile, *, root: Path | None = None, folder: Path | None = None) -> list[str]:
    """Copy a finished report of an evidence profile into the tracked folders; returns the paths written, sorted.

    Files that the last publication of the same notebooks wrote and that this report no longer has are removed;
    nothing else in those folders is touched.

    Raises:
        ValueError: the report may not be published; the message gives every reason. Nothing has been copied then.
    """
    root = root or project_root()
    folder = folder or root / "report" / profile.name
    found = problems(profile, root, folder)
    if found:
        raise ValueError(f"report {profile.name} must not be published: {'; '.join(found)}")
    record = read_build(folder)
    stems = [path.stem for path in notebook_files(root / "notebooks")]
    copies = plan_copies(folder, stems)
    contents = {name: path.read_bytes() for name, path in copies.items()}
    numbers = {stem[:2] for stem in stems}
    before = read_json(root / MANIFEST).get("files", [])
    for name in before:
        figure_or_table = name.startswith((f"{TARGETS['figures']}/", f"{TARGETS['tables']}/"))
        if name not in copies and figure_or_table and Path(name).name[:2] in numbers:
            (root / name).unlink(missing_ok=True)
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_bytes(root / name, content)
    made = {key: record[key] for key in ("profile", "started", "finished")}
    commits = {entry["commit"] for entry in record["pages"].values()}
    write_json(root / MANIFEST, {**made, "commit": commits.pop(), "files": sorted(copies)})
    return sorted(copies)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m cxr_helpers.report.publish")
    parser.description = "Copy a finished report into notebooks/, figures/ and results/."
    parser.add_argument("--profile", default="cpu", help=f"a profile that is evidence, of {', '.join(PROFILES)}")
    given = parser.parse_args(arguments)
    try:
        written = publish(get_profile(given.profile))
    except ValueError as error:
        print(f"{error}.", file=sys.stderr)
        return 1
    print(f"{len(written)} files published; look at them with `git status` and commit them.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
