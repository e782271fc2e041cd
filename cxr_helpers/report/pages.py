"""One executed notebook as one HTML page that needs nothing but itself."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from nbconvert.filters import strip_ansi
from nbformat import NotebookNode

from ..profiles import Profile
from .markup import Body, active_parts, outside_references, wrap_tables
from .slider import SLIDER, slider_html

__all__ = [
    "MOST_BYTES",
    "Page",
    "Provenance",
    "banner_of",
    "data_of",
    "notebook_page",
    "question_of",
    "read_provenance",
    "render",
    "settle_widgets",
    "title_of",
]

MOST_BYTES = 2_400_000  # six such pages and the index stay below 15 MB, the most a report may have
QUALITIES = (None, 90, 75, 50)  # of pictures: every pixel, then the best that keeps the page below that
INTERACTIVE = "Interactive in JupyterLab; the static sheet follows."
WIDGET = "application/vnd.jupyter.widget-view+json"
TIMES = re.compile(r"\[\d+:\d\d[<,]")  # "[00:01<00:05, 3 img/s]" ends a tqdm bar's text form


# ---- what a notebook says about itself


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What made a page, as its own head says: text is the head's Markdown, data its table's rows."""

    text: str
    profile: str
    device: str
    commit: str
    dirty: bool
    data: tuple[dict[str, str], ...]


_HEAD = re.compile(r"\*\*Profile `([^`]+)`\*\* · page made on (.+?) · commit (\w+)(\+?)")


def _heads(notebook: NotebookNode) -> list[dict[str, Any]]:
    """Every output of `prose.page_head` in an executed notebook."""
    outputs = (o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs)
    return [o for o in outputs if _HEAD.match(o.get("data", {}).get("text/markdown", ""))]


def _head_output(notebook: NotebookNode) -> dict[str, Any] | None:
    return next(iter(_heads(notebook)), None)


def read_provenance(notebook: NotebookNode) -> Provenance | None:
    """What made an executed notebook, read from what `prose.page_head` displayed in it; None where nothing did.

    Raises:
        ValueError: it displayed several that differ.
    """
    output = _head_output(notebook)
    if output is None:
        return None
    text = output["data"]["text/markdown"]
    others = {found["data"]["text/markdown"] for found in _heads(notebook)} - {text}
    if others:
        raise ValueError(f"a page must say one thing of what made it, got {1 + len(others)} different heads")
    found = _HEAD.match(text)
    assert found is not None
    lines = [line.strip().strip("|") for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)] for line in lines]
    data = tuple(dict(zip(rows[0], row, strict=False)) for row in rows[2:])
    profile, device, commit, plus = found.groups()
    return Provenance(text=text, profile=profile, device=device, commit=commit, dirty=bool(plus), data=data)


def _opening(notebook: NotebookNode) -> str:
    return next((cell.source for cell in notebook.cells if cell.cell_type == "markdown"), "")


def title_of(notebook: NotebookNode) -> str:
    """The first heading of a notebook, without its mark."""
    found = re.search(r"^#\s+(.+)$", _opening(notebook), re.MULTILINE)
    return found[1].strip() if found else "Untitled"


def question_of(notebook: NotebookNode) -> str:
    """The paragraph after **Question.** in a notebook's first cell, up to its last question mark; Markdown."""
    found = re.search(r"\*\*Question\.?\*\*\s*(.+?)(?:\n\s*\n|\Z)", _opening(notebook), re.DOTALL)
    text = found[1].strip() if found else ""
    return text[: text.rfind("?") + 1] or text


def settle_widgets(notebook: NotebookNode) -> NotebookNode:
    """Replace widgets, which are empty boxes without a kernel, by a sentence that says where they work.

    Progress bars (tqdm's) have nothing more to say and go.
    """
    for cell in notebook.cells:
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if not _is_bar(output.get("data", {}))]
        for output in cell.get("outputs", []):
            if WIDGET in output.get("data", {}):
                output["data"] = {"text/markdown": f"*{INTERACTIVE}*", "text/plain": INTERACTIVE}
                output["metadata"] = {}
    notebook.metadata.pop("widgets", None)
    return notebook


def _is_bar(data: Mapping[str, Any]) -> bool:
    return WIDGET in data and TIMES.search(data.get("text/plain", "")) is not None


# ---- cells and outputs


def _output(body: Body, output: Mapping[str, Any], about: str) -> str:
    """One output of a cell as HTML, the richest form that works without a kernel."""
    kind = output["output_type"]
    if kind == "stream":
        return f'<pre class="stream {escape(output["name"])}">{escape(strip_ansi(output["text"]))}</pre>'
    if kind == "error":
        return f'<pre class="error">{escape(strip_ansi(chr(10).join(output["traceback"])))}</pre>'
    data = output["data"]
    if WIDGET in data:
        return f'<p class="note">{INTERACTIVE}</p>'
    if "text/html" in data:
        active = [] if outside_references(data["text/html"]) else active_parts(data["text/html"])
        if active:
            raise ValueError(f"a page must run nothing of what its cells say, got {', '.join(active[:3])} in {about!r}")
        return f'<div class="html">{wrap_tables(data["text/html"])}</div>'
    if SLIDER in data:
        sheet = _figure(body, data["image/png"], "image/png", output.get("metadata", {}).get("image/png", {}), about)
        return slider_html(data[SLIDER], sheet, body.unique("sheet"))
    for mime in ("image/svg+xml", "image/png", "image/jpeg"):
        if mime in data:
            return _figure(body, data[mime], mime, output.get("metadata", {}).get(mime, {}), about)
    if "text/markdown" in data:
        return f'<div class="said">{body.markdown(data["text/markdown"], said=True)}</div>'
    return f"<pre>{escape(strip_ansi(data.get('text/plain', '')))}</pre>"


def _figure(body: Body, content: str, mime: str, metadata: Mapping[str, Any], about: str) -> str:
    raw = content.encode() if mime == "image/svg+xml" else base64.b64decode(content)
    alt = escape(str(metadata.get("alt") or f"Figure of: {about}"), quote=True)
    width = f' width="{int(metadata["width"])}"' if "width" in metadata else ""
    return f'<figure><img src="{body.picture(raw, mime)}" alt="{alt}"{width}></figure>'


def _cells(body: Body, notebook: NotebookNode) -> Iterator[str]:
    """The cells as HTML: prose as it is, code folded, outputs open; the provenance is left to the page's head."""
    head, number, about = _head_output(notebook), 0, title_of(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            yield f'<section class="prose">{body.markdown(cell.source, cell.get("attachments"))}</section>'
            about = body.headings[-1].text if body.headings else about
        if cell.cell_type != "code":
            continue
        number += 1
        if cell.source.strip():
            lines = len(cell.source.splitlines())
            shown = f"code cell {number}, {lines} line{'s' if lines > 1 else ''}"
            yield f'<details class="code"><summary>{shown}</summary>{body.code(cell.source)}</details>'
        outputs = [_output(body, output, about) for output in cell.outputs if output is not head]
        if outputs:
            yield f'<div class="outputs">{"".join(outputs)}</div>'


# ---- pages


@cache
def _environment() -> Environment:
    folder = Path(__file__).parent
    return Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True)


def _part(name: str) -> Markup:
    return Markup((Path(__file__).parent / name).read_text("utf-8"))


def banner_of(profile: Profile, provenance: Provenance | None) -> str:
    """The first line of a page: profile, whether that is evidence, data, device and commit."""
    parts = [f"Profile {profile.name}" + ("" if profile.is_evidence else ": not evidence")]
    if provenance:
        parts.append(data_of(provenance))
        parts += [provenance.device, f"commit {provenance.commit}{' with changes' if provenance.dirty else ''}"]
    return " · ".join(filter(None, parts))


def data_of(provenance: Provenance) -> str:
    """The data sets of a page with their sizes, in a few words."""
    return ", ".join(f"{row.get('data', '?')} {row.get('px', '?')} px" for row in provenance.data)


def render(
    *, title: str, banner: str, caution: bool, head: str, body: str, contents: Body, home: str | None, made: str
) -> str:
    """A whole page around a finished body.

    Args:
        banner: the line at the very top; caution: colour it as one that warns.
        head: HTML below it: what made the page.
        home: address of the index; None on the index itself.
        made: when and by which commit, for the last line.
    Raises:
        ValueError: the page would load something from elsewhere; the message names it.
    """
    html = (
        _environment()
        .get_template("page.html.j2")
        .render(
            title=title,
            banner=banner,
            caution=caution,
            head=Markup(head),
            body=Markup(body),
            headings=contents.headings,
            home=home,
            made=made,
            style=_part("page.css"),
            script=_part("page.js"),
        )
    )
    found = outside_references(html)
    if found:
        raise ValueError(f"a page must load nothing from elsewhere, got {', '.join(found[:3])} in {title!r}")
    return html


@dataclass(frozen=True, kw_only=True)
class Page:
    """A notebook's page and what the index needs of it."""

    html: str
    title: str
    question: str
    provenance: Provenance | None


def notebook_page(notebook: NotebookNode, profile: Profile, *, made: str = "", most_bytes: int = MOST_BYTES) -> Page:
    """An executed notebook as a self-contained page; pictures are compressed as far as its size demands.

    Args:
        made: when the page was made, for its last line.
        most_bytes: of the page.
    Raises:
        ValueError: the page would load something from elsewhere or run something of its own, its head names another
            profile than this, or it stays too large at the lowest picture quality.
    """
    title, provenance = title_of(notebook), read_provenance(notebook)
    if provenance and provenance.profile != profile.name:
        raise ValueError(f"{title!r} must be made with profile {profile.name}, its head says {provenance.profile}")
    html = ""
    for quality in QUALITIES:
        body = Body(quality=quality)
        cells = "\n".join(_cells(body, notebook))
        unknown = '<p class="warning">This notebook does not say which data, device and commit made it.</p>'
        head = Body(top=2).markdown(provenance.text, said=True) if provenance else unknown
        html = render(
            title=title, banner=banner_of(profile, provenance), caution=not profile.is_evidence, head=head,
            body=cells, contents=body, home="index.html", made=made,
        )  # fmt: skip
        if len(html.encode()) <= most_bytes:
            return Page(html=html, title=title, question=question_of(notebook), provenance=provenance)
    raise ValueError(
        f"a page must have at most {most_bytes:,} bytes, got {len(html.encode()):,} for {title!r} "
        f"with pictures at quality {QUALITIES[-1]}: show fewer or smaller pictures"
    )
