"""The report from one command: `python -m cxr_helpers.report.pages --profile quick` (or `make report`).

Notebooks are executed in order, `index` last, and become offline pages below `report/<profile>`, beside their executed
copies and what they saved; `build.json` records what made each. `--publish` (or `make publish`) copies a finished study
into the tracked folders.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_notebook
from tqdm import tqdm

from ..command import parse, run_command
from ..environment import commit_record, now
from ..fields import Checked, declare
from ..study import Profile, get_profile, project_root
from ..writing import read_json, write_bytes, write_json
from .offline import settle, to_html

__all__ = ["NotebookError", "build", "problems", "publish"]

TARGETS = {"": "results/html", "notebooks": "notebooks", "figures": "figures", "tables": "results/tables"}
LAYOUT = "{desc} |{bar:20}| {n} of {total}, {elapsed}, {remaining} left"


class NotebookError(RuntimeError):
    """A notebook that could not be finished; the message names it, the cell and the error."""


def notebooks_of(root: Path) -> list[Path]:
    """The report's notebooks in order; the index, which rests on all others, last."""
    return [*sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb")), *(root / "notebooks").glob("index.ipynb")]


def read(path: Path) -> NotebookNode:
    """A notebook file."""
    return nbformat.read(path, as_version=4)


def count_code(notebook: NotebookNode) -> int:
    """How many cells are executed."""
    return sum(cell.cell_type == "code" and bool(cell.source.strip()) for cell in notebook.cells)


def files_of(folder: Path, stem: str) -> list[str]:
    """What there is of a notebook in a report's folder, as paths below it."""
    number = stem.split("_")[0]
    patterns = (f"{stem}.html", f"notebooks/{stem}.ipynb", f"figures/{number}_*", f"tables/{number}_*")
    return sorted(path.relative_to(folder).as_posix() for pattern in patterns for path in folder.glob(pattern))


def execute(notebook: NotebookNode, path: Path, bar: tqdm, profile: Profile) -> None:
    """Run a notebook in place, from the root of the checkout; the bar counts its code cells.

    Raises:
        NotebookError: a cell raised an error, the kernel died, or SIGINT or SIGTERM stopped it.
    """
    number, count = 0, count_code(notebook)
    place = f"{path.stem}, before its first cell,"

    def begin(cell: NotebookNode, cell_index: int) -> None:
        nonlocal number, place
        number, line = number + 1, cell.source.strip().splitlines()[0]
        place = f"{path.stem}, code cell {number} of {count} (`{line}`),"
        bar.set_description_str(f"{path.stem} cell {number}: {line[:40]}")
        bar.update()

    def heed(notebook: NotebookNode) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):  # nbclient's own handlers end in a failed assertion
            asyncio.get_running_loop().remove_signal_handler(number)
            signal.signal(number, signal.default_int_handler)

    client = NotebookClient(
        notebook, timeout=None, kernel_name="python3", store_widget_state=False, record_timing=False,
        extra_arguments=["--log-level=ERROR"],  # ipykernel's warning about local TCP would break the bar
        shutdown_kernel="immediate", on_cell_execute=begin, on_notebook_start=heed,
    )  # fmt: skip
    named = {"CXR_PROFILE": profile.name, "CXR_REPORT": f"report/{profile.name}"}  # no machine's path in an output
    try:
        asyncio.run(client.async_execute(cwd=str(path.parents[1]), env={**os.environ, **named}))
    except CellExecutionError as error:
        said = error.evalue.strip().partition("\n")[0].rstrip(".")
        raise NotebookError(f"{place} failed with {error.ename}: {said}") from None
    except (RuntimeError, KeyboardInterrupt):
        raise NotebookError(f"{place} was stopped, or its kernel died") from None


def _tail(record: Mapping[str, Any]) -> str:
    """Markdown below the index: what this build has not made, and every claim that it does not bear out."""
    missing, failed = [], []
    for stem, entry in record["pages"].items():
        if "error" in entry or entry.get("build") != record["started"]:
            missing.append(f"- {entry.get('error', f'{stem} is of an earlier build')}")
        for claim in entry.get("claims", []):
            if claim["holds"] is not True:
                mark = "– not measured:" if claim["holds"] is None else "✗"
                failed.append(f"- {mark} {claim['sentence']} ([{stem}]({stem}.html#claim-{claim['number']}))")
    parts = ["## This report is incomplete", "", *missing, ""] if missing else []
    return "\n".join([*parts, "## Claims that these runs do not bear out", "", *(failed or ["None."])])


def _write_page(folder: Path, stem: str, record: Mapping[str, Any], profile: Profile) -> None:
    """A page from an executed notebook; the index says more below it, and is there from the beginning."""
    path, entry = folder / "notebooks" / f"{stem}.ipynb", record["pages"].get(stem, {})
    notebook = read(path) if path.is_file() else new_notebook(cells=[new_markdown_cell("# Report")])
    if stem == "index":
        notebook.cells.append(new_markdown_cell(_tail(record)))
    names = sorted(record["pages"], key=lambda name: (name != "index", name))
    banner = "" if profile.is_evidence else f"Profile {profile.name}: not evidence"
    commit = str(entry.get("commit", "unknown"))[:10] + "+" * bool(entry.get("dirty"))
    made = f"Profile {profile.name}, made {entry.get('made', record['started'])} at commit {commit}"
    write_bytes(folder / f"{stem}.html", to_html(notebook, stem, names, banner=banner, made=made).encode())


def _build_one(path: Path, record: dict[str, Any], bar: tqdm, profile: Profile) -> None:
    """Execute one notebook and write it and its page; record and index follow, before and after."""
    stem, notebook, folder = path.stem, read(path), path.parents[1] / "report" / profile.name
    entry = {"build": record["started"], **commit_record(), "error": f"{stem} is running, or was cut off"}
    record["pages"][stem] = entry
    for name in files_of(folder, stem):
        (folder / name).unlink()
    _write_page(folder, "index", record, profile)
    write_json(folder / "build.json", record)
    try:
        execute(notebook, path, bar, profile)
        del entry["error"]
    except NotebookError as error:
        entry["error"] = str(error)
        raise
    finally:
        entry |= {"claims": settle(notebook), "made": now()}
        write_bytes(folder / "notebooks" / path.name, nbformat.writes(notebook).encode())
        for name in ["index"] if "error" in entry else [stem, "index"]:
            _write_page(folder, name, record, profile)
        write_json(folder / "build.json", record)


def build(profile: Profile, *, only: Sequence[str] = (), root: Path | None = None) -> Path:
    """Execute notebooks in order and write their pages and the index, which is returned.

    All goes to `report/<profile>`; the notebooks themselves stay as they are.

    Args:
        only: beginnings of notebook names; the others keep the pages of an earlier build, which the index marks.
        root: of the checkout, with `notebooks/` in it.
    Raises:
        NotebookError: a notebook could not be finished; those after it are not run, finished pages stay.
        ValueError: no notebook has such a name, or a page would load something from elsewhere.
    """
    root = root or project_root()
    folder, files = root / "report" / profile.name, notebooks_of(root)
    chosen = [path for path in files if not only or path.name.startswith(tuple(only))]
    unknown = [name for name in only if not any(path.name.startswith(name) for path in files)]
    if unknown or not chosen:
        known = ", ".join(path.stem for path in files) or "none at all"
        raise ValueError(f"notebooks must be among {known}, got {', '.join(unknown) or 'nothing'}")
    (folder / "notebooks").mkdir(parents=True, exist_ok=True)
    earlier = read_json(folder / "build.json").get("pages", {})
    pages = {path.stem: earlier.get(path.stem, {"error": f"{path.stem} has not been run"}) for path in files}
    record = {"started": now(), "pages": pages}
    total = sum(count_code(read(path)) for path in chosen)
    with tqdm(total=total, bar_format=LAYOUT, dynamic_ncols=True) as bar:
        for path in chosen:
            _build_one(path, record, bar, profile)
    return folder / "index.html"


def problems(profile: Profile, root: Path) -> list[str]:
    """Every reason why a report may not be published; none means that it may."""
    folder = root / "report" / profile.name
    record = read_json(folder / "build.json")
    if not profile.is_evidence:
        return [f"profile {profile.name} is not evidence"]
    if not record:
        return [f"there is no build of profile {profile.name}: run `make report PROFILE={profile.name}` first"]
    found, commits = [], set()
    for path in notebooks_of(root):
        entry = record["pages"].get(path.stem, {"error": f"{path.stem} is not built"})
        executed = folder / "notebooks" / path.name
        before, after = (
            [cell.source for cell in read(file).cells] if file.is_file() else [] for file in (executed, path)
        )
        checks = {
            entry.get("error", ""): "error" in entry,
            f"{path.stem} is of an earlier build": entry.get("build", record["started"]) != record["started"],
            f"{path.stem} was made with changes that are not committed": entry.get("dirty"),
            f"{path.stem} has changed since it was executed": before and before != after,
        }
        found += [said for said, wrong in checks.items() if wrong]
        commits |= {entry.get("commit", "unknown")}
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
    names = [name.rpartition("/") for stem in record["pages"] for name in files_of(folder, stem)]
    copies = {f"{TARGETS[kind]}/{name}": folder / kind / name for kind, _, name in sorted(names)}
    for name in set(read_json(manifest).get("files", [])) - set(copies):
        (root / name).unlink(missing_ok=True)
    for name, path in copies.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_bytes(root / name, path.read_bytes())
    commit = next(iter(record["pages"].values()))["commit"]
    write_json(manifest, {"started": record["started"], "commit": commit, "files": list(copies)})
    return list(copies)


@dataclass(frozen=True, kw_only=True)
class Options(Checked):
    """What is to be done."""

    profile: str | None = declare(None, "smoke, quick, cpu or full; else CXR_PROFILE, else quick")
    only: tuple[str, ...] = declare(
        (), "run the notebooks whose names begin so, such as 03; the others keep their page"
    )
    publish: bool = declare(False, "run nothing: copy a finished report into notebooks/, figures/ and results/")


def main(words: list[str]) -> str:
    """Make or publish a report; returns the closing line."""
    (options,) = parse({Options: ""}, words, program="report", description=__doc__)
    profile = get_profile(options.profile)
    if options.publish:
        return f"{len(publish(profile))} files published; look at them with `git status` and commit them."
    return f"The report: {build(profile, only=options.only)}"


if __name__ == "__main__":
    run_command("report", main)
