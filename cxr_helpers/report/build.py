"""The report from one command: `python -m cxr_helpers.report.build --profile quick` (or `make report`)."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from tqdm import tqdm

from ..planning import project_root
from ..profiles import PROFILES, Profile, get_profile
from ..runs import commit_record, now, write_bytes
from .index import MADE, entry_of, files_of, read_build, write_build
from .pages import notebook_page, question_of, settle_widgets, title_of

__all__ = ["NotebookError", "Progress", "build", "execute", "notebook_files", "sources"]

NAMES = "[0-9][0-9]_*.ipynb"


class NotebookError(RuntimeError):
    """A notebook that could not be finished; the message names it, the cell and the error."""


def notebook_files(folder: Path) -> list[Path]:
    """The report's notebooks, in order."""
    return sorted(folder.glob(NAMES))


def sources(notebook: NotebookNode) -> list[tuple[str, str]]:
    """Kind and text of every cell: what a notebook is without its outputs."""
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


# ---- executing one notebook


class _Client(NotebookClient):
    """Runs cells as nbclient does, passes on what a cell says while it runs, and lets Ctrl-C be Ctrl-C."""

    said: Callable[[str], None] | None = None

    async def async_start_new_kernel(self, **kwargs: Any) -> None:
        # nbclient has just set a handler under which an interruption looks like a dead kernel
        asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)
        await super().async_start_new_kernel(**kwargs)

    def process_message(self, msg: dict[str, Any], cell: NotebookNode, cell_index: int) -> NotebookNode | None:
        if msg["header"]["msg_type"] == "update_display_data" and self.said:
            self.said(str(msg["content"]["data"].get("text/markdown", "")))
        return super().process_message(msg, cell, cell_index)


class Progress:
    """One bar over the code cells of all notebooks; it names the notebook, its cell and what the cell says.

    Args:
        cells: code cells in all.
        shown: draw the bar.
    """

    def __init__(self, cells: int, *, shown: bool = True) -> None:
        layout = "{desc} {percentage:3.0f}% |{bar:20}| {elapsed}{postfix}"
        self.bar = tqdm(total=cells, disable=not shown, bar_format=layout, dynamic_ncols=True)
        self.stem, self.total, self.number, self.line = "", 0, 0, ""

    def open(self, notebook: NotebookNode, stem: str) -> None:
        """Go on to the next notebook."""
        self.stem, self.number, self.line = stem, 0, ""
        self.total = len([cell for cell in notebook.cells if cell.cell_type == "code"])
        self.bar.set_description_str(f"{stem} starting")

    def start(self, cell: NotebookNode, cell_index: int) -> None:
        """For nbclient: a cell begins."""
        if cell.cell_type != "code":
            return
        self.number += 1
        self.line = next((line.strip() for line in cell.source.splitlines() if line.strip()), "")
        self.bar.set_description_str(f"{self.stem} cell {self.number}/{self.total}")
        self.say(self.line)

    def end(self, cell: NotebookNode, cell_index: int) -> None:
        """For nbclient: a cell is done."""
        if cell.cell_type == "code":
            self.bar.update()

    def say(self, text: str) -> None:
        """Show a short text behind the bar."""
        self.bar.set_postfix_str(text[:60])

    def place(self) -> str:
        """Notebook and cell, for a message."""
        if not self.number:
            return f"{self.stem}, before its first cell,"
        return f"{self.stem}, code cell {self.number} of {self.total} (`{self.line}`),"

    def close(self, text: str = "") -> None:
        """Stop, with a last word."""
        if text:
            self.bar.set_description_str(text)
            self.bar.set_postfix_str("")
        self.bar.close()


def execute(notebook: NotebookNode, progress: Progress, *, root: Path, profile: Profile, folder: Path) -> None:
    """Run a notebook in place, from the root of the checkout.

    Args:
        folder: where its figures, tables and answers go.
    Raises:
        NotebookError: a cell raised an error, or the kernel died.
    """
    near = folder.relative_to(root) if folder.is_relative_to(root) else folder  # no machine's path in an output
    environment = {**os.environ, "CXR_PROFILE": profile.name, "CXR_REPORT": str(near)}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times that an earlier execution left
    client = _Client(
        notebook, timeout=None, kernel_name="python3", store_widget_state=False, record_timing=False,
        extra_arguments=["--log-level=ERROR"],  # ipykernel's warning about local TCP would break the bar
        shutdown_kernel="immediate", on_cell_start=progress.start, on_cell_complete=progress.end,
    )  # fmt: skip
    client.said = progress.say
    try:
        asyncio.run(client.async_execute(cwd=str(root), env=environment))
    except CellExecutionError as error:
        said = (error.evalue.strip().splitlines() or [""])[0].rstrip(".")
        raise NotebookError(f"{progress.place()} failed with {error.ename}: {said}") from None
    except Exception as error:  # nbclient and jupyter_client raise half a dozen kinds where a kernel cannot go on
        said = (str(error).strip().splitlines() or [""])[0].rstrip(".")
        raise NotebookError(f"{progress.place()} failed: {type(error).__name__}: {said}") from None


# ---- the build


def _forget(folder: Path, stem: str) -> None:
    """Remove what an earlier build made of a notebook."""
    for path in (folder / f"{stem}.html", folder / "notebooks" / f"{stem}.ipynb"):
        path.unlink(missing_ok=True)
    for kind in MADE:
        for path in (folder / kind).glob(f"{stem[:2]}_*"):
            path.unlink()


def _is_committed(path: Path, notebook: NotebookNode) -> bool:
    """Whether the last commit holds a notebook with the same cells."""
    command = ["git", "show", f"HEAD:./{path.name}"]
    found = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, check=False)
    return found.returncode == 0 and sources(nbformat.reads(found.stdout, as_version=4)) == sources(notebook)


def _begin(files: Sequence[Path], chosen: Sequence[Path], folder: Path, profile: Profile) -> dict[str, Any]:
    """The record of a build that starts: chosen notebooks wait, the others keep what an earlier build made."""
    earlier = read_build(folder).get("pages", {})
    for stem in set(earlier) - {path.stem for path in files}:
        _forget(folder, stem)
    pages = {}
    for path in files:
        notebook = nbformat.read(path, as_version=4)
        said = {"title": title_of(notebook), "question": question_of(notebook)}
        pages[path.stem] = earlier.get(path.stem, {"state": "waiting", **said})
        if pages[path.stem]["state"] != "done":
            pages[path.stem] = {"state": "waiting", **said}
    return {
        "profile": profile.name, "started": now(), **commit_record(), "finished": None,
        "chosen": [path.stem for path in chosen], "pages": pages,
    }  # fmt: skip


def _build_one(
    path: Path, record: dict[str, Any], progress: Progress, *, root: Path, profile: Profile, folder: Path
) -> None:
    """Execute one notebook and write it and its page; the record follows each step."""
    notebook, begun = nbformat.read(path, as_version=4), time.monotonic()
    entry: dict[str, Any] = {"state": "running", "title": title_of(notebook), "question": question_of(notebook)}
    record["pages"][path.stem] = entry | {"build": record["started"]}
    committed = _is_committed(path, notebook)
    _forget(folder, path.stem)
    write_build(folder, record, profile)
    progress.open(notebook, path.stem)
    executed = folder / "notebooks" / path.name
    executed.parent.mkdir(exist_ok=True)
    try:
        execute(notebook, progress, root=root, profile=profile, folder=folder)
        made = now()
        page = notebook_page(settle_widgets(notebook), profile, made=f"Made {made} by {path.name}")
        write_bytes(folder / f"{path.stem}.html", page.html.encode())
        seconds = round(time.monotonic() - begun, 1)
        entry = entry_of(page) | {"made": made, "seconds": seconds, "committed": committed}
    except (NotebookError, ValueError) as error:
        text = str(error) if isinstance(error, NotebookError) else f"{path.stem} could not be made a page: {error}"
        entry |= {"state": "failed", "error": text}
        raise NotebookError(text) from None
    except BaseException:  # Ctrl-C, above all
        entry |= {"state": "interrupted"}
        raise
    finally:
        write_bytes(executed, nbformat.writes(notebook).encode())
        entry["files"] = files_of(folder, path.stem)
        record["pages"][path.stem] = entry | {"build": record["started"]}
        write_build(folder, record, profile)


def build(
    profile: Profile, *, only: Sequence[str] = (), root: Path | None = None, folder: Path | None = None,
    shown: bool = True,
) -> Path:  # fmt: skip
    """Execute notebooks in order and write their pages and the index; returns the index.

    Args:
        only: beginnings of notebook names; the others keep the pages of an earlier build, which the index marks.
        root: of the checkout, with `notebooks/` in it.
        folder: where everything is written; `report/<profile>` of the root without one.
        shown: draw the progress bar.
    Raises:
        NotebookError: a notebook could not be finished; those after it are not run, finished pages stay.
        ValueError: no notebook has such a name.
    """
    root = root or project_root()
    folder = folder or root / "report" / profile.name
    files = notebook_files(root / "notebooks")
    chosen = [path for path in files if not only or path.name.startswith(tuple(only))]
    unknown = [name for name in only if not any(path.name.startswith(name) for path in files)]
    if unknown or not chosen:
        known = ", ".join(path.stem for path in files) or "none at all"
        raise ValueError(f"notebooks must be among {known}, got {', '.join(unknown) or 'nothing'}")
    record = _begin(files, chosen, folder, profile)
    write_build(folder, record, profile)
    cells = [len([c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]) for path in chosen]
    progress = Progress(sum(cells), shown=shown)
    try:
        for path in chosen:
            _build_one(path, record, progress, root=root, profile=profile, folder=folder)
    except NotebookError:
        progress.close(f"{progress.stem} cell {progress.number}/{progress.total} failed")
        raise
    except KeyboardInterrupt:
        progress.close(f"{progress.stem} cell {progress.number}/{progress.total} interrupted")
        raise
    record["finished"] = now()
    write_build(folder, record, profile)
    progress.close(f"{len(chosen)} notebook{'s' if len(chosen) > 1 else ''} done")
    return folder / "index.html"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m cxr_helpers.report.build", description=main.__doc__)
    parser.description = "Execute the notebooks and write the report's pages."
    parser.add_argument("--profile", help=f"{', '.join(PROFILES)}; else CXR_PROFILE, else quick")
    parser.add_argument("--only", nargs="+", default=(), metavar="NN", help="only notebooks whose names begin so")
    given = parser.parse_args(arguments)
    folder: Path | None = None
    try:
        profile = get_profile(given.profile)
        folder = project_root() / "report" / profile.name
        index = build(profile, only=given.only, folder=folder)
    except (NotebookError, ValueError) as error:
        kept = f" Finished pages stay: {folder / 'index.html'}" if isinstance(error, NotebookError) and folder else ""
        print(f"{error}.{kept}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        kept = f" Finished pages stay: {folder / 'index.html'}" if folder else ""
        print(f"Interrupted.{kept}", file=sys.stderr)
        return 130  # as shells say it
    print(f"The report: {index}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
