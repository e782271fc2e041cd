"""The report from one command: `python -m cxr_helpers.report.pages --profile quick` (or `make report`).

Notebooks are executed in order, `index` last, and become offline pages below `report/<profile>`, beside their executed
copies and what they saved; `build.json` records what made each.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
import tyro
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_notebook
from tqdm import tqdm

from ..environment import commit_record, now
from ..study import Profile, get_profile, project_root
from ..writing import read_json, write_bytes, write_json
from .offline import settle, title_of, to_html

__all__ = ["NotebookError", "build", "cells_of", "files_of", "notebooks_of", "read"]


class NotebookError(RuntimeError):
    """A notebook that could not be finished; the message names it, the cell and the error."""


def notebooks_of(root: Path) -> list[Path]:
    """The report's notebooks in order; the index, which rests on all others, last."""
    return [*sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb")), *(root / "notebooks").glob("index.ipynb")]


def read(path: Path) -> NotebookNode:
    """A notebook file."""
    return nbformat.read(path, as_version=4)


def cells_of(notebook: NotebookNode) -> list[tuple[str, str]]:
    """What a notebook is without its outputs."""
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


# ---- executing


class Progress(tqdm):
    """One bar over all code cells, each as long as it took last time; `place` is where it stands, for a message."""

    def __init__(self, weights: Mapping[str, Sequence[float]], *, shown: bool = True) -> None:
        layout = "{desc} {percentage:3.0f}% |{bar:20}| {elapsed}, {remaining} left{postfix}"
        total = sum(map(sum, weights.values()))
        super().__init__(total=total, disable=not shown, bar_format=layout, dynamic_ncols=True, smoothing=0)
        self.weights = weights

    def open(self, stem: str) -> None:
        """Go on to the next notebook."""
        self.stem, self.place = stem, f"{stem}, before its first cell,"
        self.seconds: list[float] = []

    def start(self, cell: NotebookNode, cell_index: int) -> None:
        """For nbclient: a code cell begins."""
        number, of, line = len(self.seconds) + 1, len(self.weights[self.stem]), cell.source.strip().splitlines()[0]
        self.begun, self.place = time.monotonic(), f"{self.stem}, code cell {number} of {of} (`{line}`),"
        self.set_description_str(f"{self.stem} cell {number}/{of}")
        self.say(line)

    def end(self, cell: NotebookNode, cell_index: int, execute_reply: Any) -> None:
        """For nbclient: a code cell is done."""
        self.update(self.weights[self.stem][len(self.seconds)])
        self.seconds.append(round(time.monotonic() - self.begun, 2))

    def say(self, text: str) -> None:
        """Show a short text behind the bar."""
        self.set_postfix_str(text[:60])


def _stopped(number: int, frame: Any) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


class _Client(NotebookClient):
    """Runs cells as nbclient does, passes on what a cell says while it runs, and lets signals be signals."""

    said: Callable[[str], None]

    async def async_start_new_kernel(self, **kwargs: Any) -> None:
        # nbclient has just set handlers under which an interruption looks like a dead kernel
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().remove_signal_handler(number)
            signal.signal(number, _stopped)
        await super().async_start_new_kernel(**kwargs)

    def process_message(self, msg: dict[str, Any], cell: NotebookNode, cell_index: int) -> NotebookNode | None:
        if msg["header"]["msg_type"] == "update_display_data":
            self.said(str(msg["content"]["data"].get("text/plain", "")))
        return super().process_message(msg, cell, cell_index)


def execute(notebook: NotebookNode, progress: Progress, *, root: Path, environment: Mapping[str, str]) -> None:
    """Run a notebook in place, from the root of the checkout.

    Raises:
        NotebookError: a cell raised an error, or the kernel died.
    """
    client = _Client(
        notebook, timeout=None, kernel_name="python3", store_widget_state=False, record_timing=False,
        extra_arguments=["--log-level=ERROR"],  # ipykernel's warning about local TCP would break the bar
        shutdown_kernel="immediate", on_cell_execute=progress.start, on_cell_executed=progress.end,
    )  # fmt: skip
    client.said = progress.say
    try:
        asyncio.run(client.async_execute(cwd=str(root), env={**os.environ, **environment}))
    except Exception as error:  # jupyter_client raises half a dozen kinds where a kernel cannot go on
        name, text = type(error).__name__, str(error)
        if isinstance(error, CellExecutionError):
            name, text = error.ename, error.evalue
        said = (text.strip().splitlines() or [""])[0].rstrip(".")
        raise NotebookError(f"{progress.place} failed with {name}: {said}") from None


# ---- the build


def files_of(folder: Path, stem: str) -> dict[str, str]:
    """What there is of a notebook in a report's folder: path below it -> SHA-256."""
    paths = [folder / f"{stem}.html", folder / "notebooks" / f"{stem}.ipynb"]
    paths += [path for kind in ("figures", "tables") for path in folder.glob(f"{kind}/{stem.split('_')[0]}_*")]
    kept = [path for path in sorted(paths) if path.is_file()]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}


def _forget(folder: Path, stem: str) -> None:
    """Remove what an earlier build made of a notebook."""
    for name in files_of(folder, stem):
        (folder / name).unlink()


def _is_committed(path: Path) -> bool:
    """Whether the last commit holds a notebook with the same cells."""
    command = ["git", "show", f"HEAD:./{path.name}"]
    found = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, check=False)
    return found.returncode == 0 and cells_of(nbformat.reads(found.stdout, as_version=4)) == cells_of(read(path))


def _tail(record: Mapping[str, Any]) -> str:
    """Markdown below the index: what this build has not made, and every claim that it does not bear out."""
    missing, listed, count = [], [], 0
    states = {"done": "is of an earlier build", "waiting": "has not been run"}
    for stem, entry in record["pages"].items():
        if entry["state"] != "done" or entry["build"] != record["started"]:
            state = states.get(entry["state"], "is running, or was cut off")
            missing.append(f"- {entry.get('error') or f'{stem} {state}'}")
        for claim in (told for told in entry.get("told", []) if told["kind"] == "claim"):
            count += 1
            if claim["holds"] is not True:
                mark = "– not measured:" if claim["holds"] is None else "✗"
                listed.append(f"- {mark} {claim['sentence']} ([{stem}]({stem}.html#told-{claim['number']}))")
    parts = ["## This report is incomplete", "", *missing, ""] if missing else []
    return "\n".join([*parts, "## Claims that these runs do not bear out", "", *(listed or [f"None of {count}."])])


def _write_page(folder: Path, stem: str, record: Mapping[str, Any], profile: Profile) -> None:
    """A page from an executed notebook; the index says more below it, and is there from the beginning."""
    path, entry = folder / "notebooks" / f"{stem}.ipynb", record["pages"].get(stem, {})
    notebook = read(path) if path.is_file() else new_notebook(cells=[new_markdown_cell("# Report")])
    if stem == "index":
        notebook.cells.append(new_markdown_cell(_tail(record)))
    links = {"index": "the answers"} | {name: page.get("title", name) for name, page in record["pages"].items()}
    banner = "" if profile.is_evidence else f"Profile {profile.name}: not evidence"
    commit = str(entry.get("commit", "unknown"))[:10] + "+" * bool(entry.get("dirty"))
    made = f"Profile {profile.name}, made {entry.get('made', record['started'])} at commit {commit}"
    html = to_html(notebook, name=stem, links=links, banner=banner, made=made)
    write_bytes(folder / f"{stem}.html", html.encode())


def _save(folder: Path, record: Mapping[str, Any], profile: Profile) -> None:
    """The record of a build, and the index that shows it."""
    _write_page(folder, "index", record, profile)
    if "index" in record["pages"]:
        record["pages"]["index"]["files"] = files_of(folder, "index")
    write_json(folder / "build.json", record)


def _build_one(path: Path, record: dict[str, Any], progress: Progress, root: Path, profile: Profile) -> None:
    """Execute one notebook and write it and its page; the record follows each step."""
    stem, notebook, near = path.stem, read(path), Path("report", profile.name)  # no machine's path in an output
    folder, entry = root / near, {"state": "running", "build": record["started"], **commit_record()}
    entry |= {"title": title_of(notebook), "committed": _is_committed(path)}
    record["pages"][stem] = entry
    _forget(folder, stem)
    _save(folder, record, profile)
    progress.open(stem)
    try:
        try:
            execute(notebook, progress, root=root, environment={"CXR_PROFILE": profile.name, "CXR_REPORT": str(near)})
        finally:
            entry |= {"told": settle(notebook), "made": now(), "cell_seconds": progress.seconds}
            write_bytes(folder / "notebooks" / path.name, nbformat.writes(notebook).encode())
        _write_page(folder, stem, record, profile)
        entry["state"] = "done"
    except (NotebookError, ValueError) as error:
        entry |= {"state": "failed", "error": str(error)}
        raise
    finally:
        entry["files"] = files_of(folder, stem)
        _save(folder, record, profile)


def build(profile: Profile, *, only: Sequence[str] = (), root: Path | None = None, shown: bool = True) -> Path:
    """Execute notebooks in order and write their pages and the index, which is returned.

    All goes to `report/<profile>`; the notebooks themselves stay as they are.

    Args:
        only: beginnings of notebook names; the others keep the pages of an earlier build, which the index marks.
        root: of the checkout, with `notebooks/` in it.
        shown: draw the progress bar.
    Raises:
        NotebookError: a notebook could not be finished; those after it are not run, finished pages stay.
        ValueError: no notebook has such a name, or a page would load something from elsewhere.
    """
    root = root or project_root()
    folder, files = root / "report" / profile.name, notebooks_of(root)
    unknown = [name for name in only if not any(path.name.startswith(name) for path in files)]
    if unknown or not files:
        known = ", ".join(path.stem for path in files) or "none at all"
        raise ValueError(f"notebooks must be among {known}, got {', '.join(unknown) or 'nothing'}")
    (folder / "notebooks").mkdir(parents=True, exist_ok=True)
    earlier = read_json(folder / "build.json").get("pages", {})
    for stem in set(earlier) - {path.stem for path in files}:
        _forget(folder, stem)
    pages = {path.stem: earlier.get(path.stem, {"state": "waiting"}) for path in files}
    record = {"profile": profile.name, "started": now(), "finished": None, "pages": pages}
    chosen = [path for path in files if not only or path.name.startswith(tuple(only))]
    weights = {}
    for path in chosen:
        count = sum(kind == "code" and bool(text.strip()) for kind, text in cells_of(read(path)))
        last = pages[path.stem].get("cell_seconds", [])
        weights[path.stem] = last if len(last) == count else [1.0] * count
    with Progress(weights, shown=shown) as progress:
        for path in chosen:
            _build_one(path, record, progress, root, profile)
    record["finished"] = now()
    _save(folder, record, profile)
    return folder / "index.html"


def main(profile: str | None = None, only: tuple[str, ...] = ()) -> int:
    """Execute the notebooks and write the report's pages; returns the exit status.

    Args:
        profile: smoke, quick, cpu or full; else CXR_PROFILE, else quick.
        only: beginnings of notebook names, such as 03.
    """
    before = signal.signal(signal.SIGTERM, _stopped)
    try:
        print(f"The report: {build(get_profile(profile), only=only)}")
        return 0
    except (NotebookError, ValueError) as error:
        print(f"{error}.{' Finished pages stay.' * isinstance(error, NotebookError)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print(f"Stopped by {stop or 'SIGINT'}. Finished pages stay.", file=sys.stderr)
        return 143 if str(stop) == "SIGTERM" else 130  # as shells say it
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
