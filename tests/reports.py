"""Tiny notebooks, executed or not, and an HTML parser that sees what a browser would."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
from nbformat import NotebookNode
from PIL import Image

HEAD = (
    "**Profile `{profile}`** · page made on CPU, 2 threads · commit {commit}\n\nAbout these figures.\n\n"
    "| data | px | status |\n|---|---|---|\n| Phantom | 64 | drawn |\n| Films \\| plain | 64 | official |"
)
OPENING = "# {number} · {title}\n\n**Question.** Does it run, and\nwhere? The assignment asks:\n\n> Run it.\n\nMore."


def head_output(profile: str = "cpu", commit: str = "0123456789") -> NotebookNode:
    """What `prose.page_head` leaves in a notebook."""
    return shown({"text/markdown": HEAD.format(profile=profile, commit=commit), "text/plain": "<Markdown>"})


def shown(data: dict[str, Any], **metadata: Any) -> NotebookNode:
    """One displayed output."""
    return nbformat.v4.new_output("display_data", data, metadata=metadata)


def code(source: str, *outputs: NotebookNode) -> NotebookNode:
    """One code cell that has run."""
    return nbformat.v4.new_code_cell(source, outputs=list(outputs), execution_count=1)


def notebook(*cells: NotebookNode | str, number: str = "04", title: str = "Tiny") -> NotebookNode:
    """A notebook with the opening of the report's; strings are Markdown cells."""
    opening = nbformat.v4.new_markdown_cell(OPENING.format(number=number, title=title))
    others = [nbformat.v4.new_markdown_cell(cell) if isinstance(cell, str) else cell for cell in cells]
    return nbformat.v4.new_notebook(cells=[opening, *others])


def png(side: int = 8, *, noisy: bool = False) -> bytes:
    """A small picture: one grey, or noise that does not compress."""
    values = np.random.default_rng(0).integers(0, 256, (side, side, 3)) if noisy else np.full((side, side, 3), 128)
    buffer = io.BytesIO()
    Image.fromarray(values.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def picture(content: bytes, **metadata: Any) -> NotebookNode:
    """A displayed PNG."""
    return shown({"image/png": base64.b64encode(content).decode(), "text/plain": "<Image>"}, **{"image/png": metadata})


class Parsed(HTMLParser):
    """A page as lists: tags with attributes, ids, links, and the text outside style and script."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.style = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            self.style += data
        elif not {"script", "title"} & set(self.open):
            self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        """Attributes of every element of that name."""
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def ids(self) -> list[str | None]:
        """Every id, in order."""
        return [attributes["id"] for _, attributes in self.tags if "id" in attributes]


def assert_self_contained(html: str) -> Parsed:
    """Nothing in a page is fetched from elsewhere; ids are unique; links within the page resolve."""
    page = Parsed(html)
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            if name in ("src", "srcset", "poster", "data") or (tag in ("link", "base", "use") and name == "href"):
                assert (value or "").startswith("data:"), (tag, name, value)
            assert not name.startswith("on"), (tag, name)
        assert tag != "script" or not attributes
    assert "@import" not in page.style and "url(" not in page.style
    assert len(page.ids) == len(set(page.ids))
    links = {str(a["href"]) for a in page.named("a")} - {"#harmful-link"}  # mistune's for what it refuses
    assert {link[1:] for link in links if link.startswith("#")} <= set(page.ids)
    policy = next(m["content"] for m in page.named("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'; img-src data:;")
    return page


def write_notebooks(folder: Path, **notebooks: NotebookNode) -> None:
    """`notebooks/<name>.ipynb` below a folder; a leading n stands before the number."""
    (folder / "notebooks").mkdir(parents=True, exist_ok=True)
    for name, content in notebooks.items():
        nbformat.write(content, folder / "notebooks" / f"{name.lstrip('n')}.ipynb")
