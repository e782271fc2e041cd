"""An executed notebook as a page that needs nothing but itself: nbconvert's basic template in a frame of ours."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nbconvert.exporters import HTMLExporter
from nbformat import NotebookNode

__all__ = ["settle", "to_html"]

FOLDER = Path(__file__).parent
WIDGET = "application/vnd.jupyter.widget-view+json"
OURS = r"""(?!\s*["']?(?:data:|\#))"""  # not followed by an address within the page
OUTSIDE = re.compile(  # what would be loaded when a page is opened; a link that a reader must click is not
    rf"<(?!a\b)\w[^>]*\s(?:src|srcset|(?:\w+:)?href)={OURS}[^>]*|@import[^;]*|url\({OURS}[^)]*", re.IGNORECASE
)


def settle(notebook: NotebookNode) -> list[dict[str, Any]]:
    """Make an executed notebook one that is read without a kernel: widgets and progress bars go.

    Returns:
        Its claims (`show.claim`), numbered in their order: a page's `#claim-<number>`.
    """
    claims: list[dict[str, Any]] = []
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
        for about in (output.get("metadata", {}).get("cxr", {}) for output in cell.outputs):
            if about.get("kind") == "claim":
                about["number"] = len(claims)
                claims.append(dict(about))
    return claims


def to_html(notebook: NotebookNode, name: str, names: Iterable[str], *, banner: str = "", made: str = "") -> str:
    """An executed notebook as a self-contained page.

    Args:
        name: of the page. names: of all pages, to be linked.
        banner: above it, none where empty. made: the last line.
    Raises:
        ValueError: the page would load something from elsewhere; the message names it.
    """
    template = str(FOLDER / "frame.html.j2")
    hidden = {f"exclude_{part}": True for part in ("input_prompt", "output_prompt", "anchor_links")}
    exporter = HTMLExporter(template_file=template, **hidden)
    style = (FOLDER / "style.css").read_text()
    page = {"name": name, "names": list(names), "banner": banner, "made": made, "style": style}
    heading = re.search(r"^# +(.+)$", "\n".join(cell.source for cell in notebook.cells), re.MULTILINE)
    page["title"] = heading[1] if heading else name
    html, _ = exporter.from_notebook_node(notebook, resources={"page": page})
    if found := OUTSIDE.search(html):
        raise ValueError(f"page {name} must load nothing from elsewhere, got {found[0][:120]}")
    return html
