"""A finished study into the tracked folders: `python -m cxr_helpers.report.publish` (or `make publish`).

Everything is checked before the first byte is copied.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tyro

from ..study import Profile, get_profile, project_root
from ..writing import read_json, write_bytes, write_json
from .pages import cells_of, files_of, notebooks_of, read

__all__ = ["problems", "publish"]

MOST_BYTES = 20_000_000  # of one tracked file
TARGETS = {"": "results/html", "notebooks": "notebooks", "figures": "figures", "tables": "results/tables"}


def _page_problems(path: Path, entry: Mapping[str, Any], record: Mapping[str, Any], folder: Path) -> list[str]:
    """Why one notebook's page may not be published."""
    if entry.get("state") != "done":
        return [f"{path.stem} is {entry.get('state', 'not built')}"]
    then, files = entry["files"], files_of(folder, path.stem)
    changed = ", ".join(sorted(name for name in {*files, *then} if files.get(name) != then.get(name)))
    executed = folder / "notebooks" / path.name
    checks = {
        "is of an earlier build": entry["build"] != record["started"],
        "does not say which commit made it": entry["commit"] == "unknown",
        "was made with changes that are not committed": entry["dirty"],
        "was made from a notebook that is not committed": not entry["committed"],
        f"has files that its build did not make so: {changed}": bool(changed),
        "has changed since it was executed": executed.is_file() and cells_of(read(executed)) != cells_of(read(path)),
    }
    return [f"{path.stem} {said}" for said, wrong in checks.items() if wrong]


def _copies(folder: Path, pages: Mapping[str, Mapping[str, Any]]) -> dict[str, Path]:
    """What publishing copies: path below the checkout -> file of the report."""
    names = [name.rpartition("/") for entry in pages.values() for name in entry.get("files", {})]
    return {f"{TARGETS[kind]}/{name}": folder / kind / name for kind, _, name in sorted(names)}


def problems(profile: Profile, root: Path) -> list[str]:
    """Every reason why a report may not be published; none means that it may."""
    folder = root / "report" / profile.name
    record = read_json(folder / "build.json")
    if not profile.is_evidence:
        return [f"profile {profile.name} is not evidence"]
    if record.get("profile") != profile.name:
        return [f"there is no build of profile {profile.name}: run `make report PROFILE={profile.name}` first"]
    pages = record["pages"]
    if not record["finished"]:
        return ["the last build did not finish", *(entry["error"] for entry in pages.values() if "error" in entry)]
    found = [said for p in notebooks_of(root) for said in _page_problems(p, pages.get(p.stem, {}), record, folder)]
    commits = {entry["commit"] for entry in pages.values() if "commit" in entry}
    found += [f"pages were made at different commits: {', '.join(sorted(commits))}"] * (len(commits) > 1)
    data = {item for e in pages.values() for told in e.get("told", []) for item in told.get("data", {}).items()}
    if len(dict(data)) < len(data):
        found.append(f"pages rest on different data under one name: {sorted(data)}")
    large = [n for n, path in _copies(folder, pages).items() if path.is_file() and path.stat().st_size > MOST_BYTES]
    return found + [f"{name} has more than {MOST_BYTES:,} bytes" for name in large]


def publish(profile: Profile, *, root: Path | None = None) -> list[str]:
    """Copy a finished report into the tracked folders; returns the paths written.

    What the last publication wrote there and this report no longer has is removed, nothing else.

    Raises:
        ValueError: the report may not be published; the message gives every reason. Nothing has been copied then.
    """
    root = root or project_root()
    folder, manifest = root / "report" / profile.name, root / TARGETS[""] / "published.json"
    found = problems(profile, root)
    if found:
        raise ValueError(f"report {profile.name} must not be published: {'; '.join(found)}")
    record = read_json(folder / "build.json")
    copies = _copies(folder, record["pages"])
    for name in set(read_json(manifest).get("files", [])) - set(copies):
        (root / name).unlink(missing_ok=True)
    for name, path in copies.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_bytes(root / name, path.read_bytes())
    commit = next(iter(record["pages"].values()))["commit"]
    made = {key: record[key] for key in ("profile", "started", "finished")} | {"commit": commit}
    write_json(manifest, made | {"files": list(copies)})
    return list(copies)


def main(profile: str = "cpu") -> int:
    """Copy a finished report into notebooks/, figures/ and results/; returns the exit status."""
    try:
        written = publish(get_profile(profile))
    except ValueError as error:
        print(f"{error}.", file=sys.stderr)
        return 1
    print(f"{len(written)} files published; look at them with `git status` and commit them.")
    return 0


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
