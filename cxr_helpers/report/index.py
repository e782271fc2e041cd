"""The record of a build, and the report's first page made from it: the answers, then what made them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

from ..profiles import Profile, place_in_study
from ..runs import read_json, write_bytes, write_json
from .markup import Body
from .pages import Page, Provenance, banner_of, data_of, render

__all__ = ["MADE", "answers_of", "entry_of", "files_of", "index_page", "is_current", "read_build", "write_build"]

RECORD = "build.json"
MADE = ("figures", "tables", "answers")  # what notebooks write below the report's folder, named by their number
FIRST = ("04", "03", "05")  # the result table, the best policy, ImageNet; then what these rest on
TITLE = "Self-supervised learning on chest X-rays: the answers"


def read_build(folder: Path) -> dict[str, Any]:
    """What a report folder says of its builds; empty before the first.

    `profile, started, commit, dirty, finished` of the last build, and per notebook under `pages` its state
    (`waiting`, `running`, `done`, `failed`, `interrupted`), the build (`started`) that made it and what made it.
    """
    return read_json(folder / RECORD)


def write_build(folder: Path, record: Mapping[str, Any], profile: Profile) -> None:
    """Write the record of a build and the index that shows it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / RECORD, record)
    write_bytes(folder / "index.html", index_page(record, folder, profile).encode())


def entry_of(page: Page) -> dict[str, Any]:
    """What the record keeps of a finished page."""
    entry: dict[str, Any] = {"state": "done", "title": page.title, "question": page.question}
    if page.provenance:
        made = page.provenance
        entry |= {"profile": made.profile, "device": made.device, "commit": made.commit, "dirty": made.dirty}
        entry |= {"data": list(made.data), "shown_data": data_of(made), "head": made.text}
    return entry


def files_of(folder: Path, stem: str) -> dict[str, str]:
    """What there is of a notebook in a report's folder: path below it → SHA-256.

    A build keeps these digests, so that a file written later (by hand, by other code, with another profile) is not
    taken for what the build made.
    """
    paths = [folder / f"{stem}.html", folder / "notebooks" / f"{stem}.ipynb"]
    paths += [path for kind in MADE for path in (folder / kind).glob(f"{stem[:2]}_*")]
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(paths)
        if path.is_file()
    }


def is_current(entry: Mapping[str, Any], record: Mapping[str, Any]) -> bool:
    """Whether a page was finished by the last build, not by an earlier one."""
    return entry.get("state") == "done" and entry.get("build") == record.get("started")


def answers_of(folder: Path, stem: str) -> list[str]:
    """The Markdown that a notebook left with `save_answer`: by data set in the study's order, then by slug."""
    files = (folder / "answers").glob(f"{stem[:2]}_*.md")
    return [path.read_text("utf-8") for path in sorted(files, key=lambda p: (place_in_study(p.stem), p.name))]


def index_page(record: Mapping[str, Any], folder: Path, profile: Profile) -> str:
    """The first page: what went wrong, the answers, and what made each page.

    Answers of a notebook are shown only if its page is finished; those of an earlier build say so.
    """
    pages: Mapping[str, Mapping[str, Any]] = record.get("pages", {})
    order = sorted(pages, key=lambda stem: (FIRST.index(stem[:2]) if stem[:2] in FIRST else len(FIRST), stem))
    body = Body(top=3)
    parts = [f"<h1>{escape(TITLE)}</h1>"]
    for stem in order:
        parts += _answer(body, stem, pages[stem], record, folder)
    last = "What made these pages"
    about, table = _head(pages, record)
    parts.append(f'<h2 id="{body.add_heading(2, last)}">{last}</h2>')
    parts += [body.markdown(table, said=True), body.markdown(_made(pages, record), said=True)]
    head = "".join(f'<p class="warning">{escape(text)}</p>' for text in _troubles(pages, record))
    head += body.markdown(about)
    return render(
        title=TITLE, banner=_banner(pages, profile), caution=not profile.is_evidence, head=head,
        body="\n".join(parts), contents=body, home=None, made=f"Build of {record.get('started', 'unknown')}",
    )  # fmt: skip


def _answer(body: Body, stem: str, entry: Mapping[str, Any], record: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """One notebook's question and what it answers."""
    title = str(entry.get("title") or stem)
    name = re.sub(r"^\d\d\s*·\s*", "", title)
    yield f'<h2 id="{body.add_heading(2, name)}">{escape(name)}</h2>'
    if entry.get("question"):
        yield f'<div class="question">{body.markdown(str(entry["question"]))}</div>'
    if entry.get("state") != "done":
        yield f'<p class="note">No answer in this build: the notebook {_state(entry, record)}.</p>'
        return
    if not is_current(entry, record):
        yield f'<p class="note">From an earlier build, {escape(str(entry.get("build")))}.</p>'
    now, then = files_of(folder, stem), entry.get("files", {})
    changed = [name for name in now if name.startswith("answers/") and then and then.get(name) != now[name]]
    texts = [] if changed else answers_of(folder, stem)
    if changed:
        yield '<p class="note">The answers here were written after this build; they are not shown.</p>'
    yield from (f'<div class="answer">{body.markdown(text, said=True)}</div>' for text in texts)
    rest = "How it was found" if texts else "The notebook states its answer on its own page"
    yield f'<p><a href="{escape(stem)}.html">{rest}: {escape(title)}</a></p>'


def _state(entry: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    """What became of a notebook, as the end of a sentence."""
    if entry.get("state") == "done":
        return "ran" if is_current(entry, record) else f"ran in an earlier build ({entry.get('build')})"
    said = {"waiting": "has not been run", "running": "is running, or its build was cut off"}
    said |= {"interrupted": "was interrupted", "failed": "failed"}
    return said.get(str(entry.get("state")), "has not been run")


def _troubles(pages: Mapping[str, Mapping[str, Any]], record: Mapping[str, Any]) -> list[str]:
    """What a reader must know before the answers: failures, and pages that are not of this build."""
    texts = [f"{entry['error']}." for entry in pages.values() if entry.get("state") == "failed"]
    open_ones = [f"{stem} {_state(e, record)}" for stem, e in pages.items() if not is_current(e, record)]
    if open_ones:
        texts.append(f"This report is incomplete: {'; '.join(open_ones)}.")
    commits = {entry.get("commit") for entry in pages.values() if entry.get("state") == "done"}
    if len(commits) > 1:
        texts.append(f"Its pages were made at different commits: {', '.join(sorted(map(str, commits)))}.")
    return texts


def _last(pages: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """The finished page whose head stands for the report: that of the result table, else the last one."""
    done = {stem: entry for stem, entry in pages.items() if entry.get("state") == "done" and "head" in entry}
    return next((e for s, e in done.items() if s.startswith(FIRST[0])), list(done.values())[-1] if done else {})


def _head(pages: Mapping[str, Mapping[str, Any]], record: Mapping[str, Any]) -> tuple[str, str]:
    """Markdown: what the report is evidence for, which stands first, and its table of data, which stands last."""
    text = str(_last(pages).get("head") or f"Profile `{record.get('profile')}`: no page is finished yet.")
    about, bar, table = text.partition("\n|")
    return about, bar + table


def _banner(pages: Mapping[str, Mapping[str, Any]], profile: Profile) -> str:
    entry = _last(pages)
    if not entry:
        return banner_of(profile, None)
    fields = {key: entry[key] for key in ("profile", "device", "commit", "dirty")}
    return banner_of(profile, Provenance(text="", data=tuple(entry["data"]), **fields))


def _made(pages: Mapping[str, Mapping[str, Any]], record: Mapping[str, Any]) -> str:
    """A table of every page: data, device, commit, when, how long."""
    columns = ("page", "state", "data", "device", "commit", "made (UTC)", "minutes")
    rows = [f"| {' | '.join(columns)} |", f"|{' --- |' * (len(columns) - 1)} ---: |"]
    for stem, entry in pages.items():
        done = entry.get("state") == "done"
        link = f"[{stem}]({stem}.html)" if done else stem
        values = [entry.get(key, "–") if done else "–" for key in ("shown_data", "device", "commit", "made")]
        values[2] += "+" if done and entry.get("dirty") else ""
        minutes = f"{entry['seconds'] / 60:.1f}" if done and "seconds" in entry else "–"
        cells = [link, _state(entry, record), *values, minutes]
        rows.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)
