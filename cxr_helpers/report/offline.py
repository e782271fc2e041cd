"""An executed notebook as a page that needs nothing but itself: nbconvert's basic template in a frame of ours."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from bs4 import BeautifulSoup
from jinja2 import pass_context
from latex2mathml.converter import convert as to_mathml
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode

__all__ = ["outside_references", "settle", "title_of", "to_html"]

FOLDER = Path(__file__).parent
WIDGET = "application/vnd.jupyter.widget-view+json"
NO_KERNEL = "Interactive in JupyterLab; what follows works without a kernel."
BAR = re.compile(r"\[\d+:\d\d[<,]")  # "[00:01<00:05, 3 img/s]" ends the text form of a progress bar
LOADS = {"src", "srcset", "poster", "data", "background", "action", "formaction", "manifest", "ping"}
STYLE = re.compile(r"@import|url\(\s*['\"]?(?!\s*['\"]?(?:data:|#))[^)]*\)?", re.IGNORECASE)


def title_of(notebook: NotebookNode) -> str:
    """The first heading of a notebook."""
    found = re.search(r"^#\s+(.+)$", "\n".join(cell.source for cell in notebook.cells), re.MULTILINE)
    return found[1].strip() if found else "Untitled"


def settle(notebook: NotebookNode) -> list[dict[str, Any]]:
    """Make an executed notebook one that is read without a kernel: widgets become a sentence, progress bars go.

    Returns:
        What its outputs say of themselves (`show`), numbered in their order: a page's `#told-<number>`.
    """
    told: list[dict[str, Any]] = []
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        cell.metadata.pop("execution", None)  # times
        for output in list(cell.outputs):
            data, about = output.get("data", {}), output.get("metadata", {}).get("cxr")
            if WIDGET in data and BAR.search(data.get("text/plain", "")):
                cell.outputs.remove(output)
            elif WIDGET in data:
                output.update(data={"text/markdown": f"*{NO_KERNEL}*", "text/plain": NO_KERNEL}, metadata={})
            elif about:
                about["number"] = len(told)
                told.append(dict(about))
    notebook.metadata.pop("widgets", None)
    return told


class _Renderer(IPythonRenderer):
    """nbconvert's, with formulas that need no script."""

    def block_math(self, body: str) -> str:
        return self._formula(body.strip(), "block")

    def inline_math(self, body: str) -> str:
        return self._formula(body, "inline")

    def _formula(self, latex: str, display: str) -> str:
        try:
            return str(to_mathml(latex, display=display))
        except Exception:  # a dozen classes with no common one, and IndexErrors: a formula is never worth a page
            return f"<code>{self.escape_html(latex)}</code>"


class _Exporter(HTMLExporter):
    @pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        attachments = context.get("cell", {}).get("attachments", {})
        return MarkdownWithMath(renderer=_Renderer(escape=False, attachments=attachments)).render(source)


def to_html(notebook: NotebookNode, **page: Any) -> str:
    """An executed notebook as a self-contained page.

    Args:
        page: `name` of the page; `links` to all pages as (name, title); `banner`, none where empty; `made`, the last
            line.
    Raises:
        ValueError: the page would load something from elsewhere; the message names it.
    """
    template = str(FOLDER / "frame.html.j2")
    exporter = _Exporter(template_file=template, exclude_input_prompt=True, exclude_output_prompt=True)
    page |= {"title": title_of(notebook), "style": (FOLDER / "style.css").read_text()}
    html, _ = exporter.from_notebook_node(notebook, resources={"page": page})
    found = outside_references(html)
    if found:
        raise ValueError(f"page {page['name']} must load nothing from elsewhere, got {', '.join(found[:3])}")
    return html


def outside_references(html: str) -> list[str]:
    """What a page would load from elsewhere when it is opened; links that a reader must click do not count."""
    soup, found = BeautifulSoup(html, "html.parser"), []
    for tag in soup.find_all(True):
        for name, value in tag.attrs.items():
            address = str(value).strip()
            loads = name in LOADS or (name.endswith("href") and tag.name != "a") or address.lower() == "refresh"
            if loads and address and not address.startswith(("data:", "#")):
                found.append(f"<{tag.name} {name}={address[:80]}>")
            found += [f"<{tag.name} style: {hit[:80]}>" for hit in STYLE.findall(address) if name == "style"]
    return found + [f"<style>: {hit[:80]}" for style in soup("style") for hit in STYLE.findall(style.text)]
