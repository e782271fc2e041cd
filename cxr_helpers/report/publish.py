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

TARGETS = {"": "results/html", "notebooks": "notebooks", "figures": "figures", "tables": "results/tables"}


def _page_problems(path: Path, record: Mapping[str, Any], folder: Path) -> list[str]:
    """Why one notebook's page may not be published."""
    entry = record["pages"].get(path.stem, {"error": f"{path.stem} is not built"})
    if "error" in entry:
        return [entry["error"]]
    if entry["build"] != record["started"]:
        return [f"{path.stem} is of an earlier build"]
    changed = {name for name, _ in entry["files"].items() ^ files_of(folder, path.stem).items()}
    executed = folder / "notebooks" / path.name
    checks = {
        "was made with changes that are not committed": entry["dirty"],
        f"has files that its build did not make so: {', '.join(sorted(changed))}": changed,
        "has changed since it was executed": executed.is_file() and cells_of(read(executed)) != cells_of(read(path)),
    }
    return [f"{path.stem} {said}" for said, wrong in checks.items() if wrong]


def problems(profile: Profile, root: Path) -> list[str]:
    """Every reason why a report may not be published; none means that it may."""
    folder = root / "report" / profile.name
    record = read_json(folder / "build.json")
    if not profile.is_evidence:
        return [f"profile {profile.name} is not evidence"]
    if not record:
        return [f"there is no build of profile {profile.name}: run `make report PROFILE={profile.name}` first"]
    found = [said for path in notebooks_of(root) for said in _page_problems(path, record, folder)]
    commits = {entry["commit"] for entry in record["pages"].values() if "commit" in entry}
    return found + [f"pages were made at different commits: {', '.join(sorted(commits))}"] * (len(commits) > 1)


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
    names = [name.rpartition("/") for entry in record["pages"].values() for name in entry["files"]]
    copies = {f"{TARGETS[kind]}/{name}": folder / kind / name for kind, _, name in sorted(names)}
    for name in set(read_json(manifest).get("files", [])) - set(copies):
        (root / name).unlink(missing_ok=True)
    for name, path in copies.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_bytes(root / name, path.read_bytes())
    commit = next(iter(record["pages"].values()))["commit"]
    write_json(manifest, {"started": record["started"], "commit": commit, "files": list(copies)})
    return list(copies)


def main(profile: str = "cpu") -> None:
    """Copy a finished report into notebooks/, figures/ and results/."""
    try:
        written = publish(get_profile(profile))
    except ValueError as error:
        sys.exit(f"{error}.")
    print(f"{len(written)} files published; look at them with `git status` and commit them.")


if __name__ == "__main__":
    tyro.cli(main)
