"""Markdown, code, tables and pictures as HTML that asks the network for nothing."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import unescape
from html.parser import HTMLParser
from typing import Any

from latex2mathml.converter import convert as to_mathml
from nbconvert.filters.highlight import Highlight2HTML
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from PIL import Image

__all__ = ["Body", "Heading", "active_parts", "outside_references", "wrap_tables"]

TABLE = '<div class="table" role="region" aria-label="table" tabindex="0"><table>'  # scrolls by itself when too wide

SHORT, LONG = 40, 60  # characters: values, names and run ids are not broken; a sentence in a cell gets room
COMMITS = re.compile(r"^[0-9a-f]{10}\+?, ")  # several in a cell: below each other they leave room for the figures


@dataclass(frozen=True)
class Heading:
    """One entry of a page's contents list: level (2 or 3), id, and its text without marks."""

    level: int
    anchor: str
    text: str


@dataclass(kw_only=True)
class Body:
    """Makes the parts of one page and keeps what they share: ids that are used once, and the headings in order.

    Args:
        quality: of pictures, 1 to 100 (WebP); None keeps every pixel.
        top: headings of a higher rank are lowered to this level.
    """

    quality: int | None = None
    top: int = 1
    headings: list[Heading] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    said: bool = field(default=False, init=False)

    def add_heading(self, level: int, text: str) -> str:
        """The id of a heading, unique on this page; levels 2 and 3 join the contents list."""
        anchor = self.unique(re.sub(r"\W+", "-", text.lower()).strip("-") or "part")
        if level in (2, 3):
            self.headings.append(Heading(level, anchor, text))
        return anchor

    def unique(self, slug: str) -> str:
        """An id that nothing else on this page has: the slug, with a number where it is taken."""
        anchor, count = slug, 1
        while anchor in self.anchors:
            count += 1
            anchor = f"{slug}-{count}"
        self.anchors.add(anchor)
        return anchor

    def markdown(self, text: str, attachments: Mapping[str, Any] | None = None, *, said: bool = False) -> str:
        """Markdown as HTML; HTML inside it (a class name in angle brackets, say) is shown, never obeyed.

        Args:
            said: by a cell, not written by an author: it may hold names from data, which fetch no picture.
        """
        self.said = said
        renderer = _Renderer(self, dict(attachments or {}))
        return str(MarkdownWithMath(renderer=renderer).render(text))

    def code(self, source: str) -> str:
        """Python source, highlighted by classes."""
        return str(Highlight2HTML(pygments_lexer="ipython3")(source))

    def picture(self, content: bytes, mime: str) -> str:
        """A `data:` address of a picture, re-encoded where that makes it smaller."""
        if mime in ("image/png", "image/jpeg"):
            smaller = _webp(content, self.quality)
            if len(smaller) < len(content):
                content, mime = smaller, "image/webp"
        return f"data:{mime};base64,{base64.b64encode(content).decode()}"


def _webp(content: bytes, quality: int | None) -> bytes:
    """A picture as WebP: the same pixels without a quality, similar ones with one."""
    buffer = io.BytesIO()
    image = Image.open(io.BytesIO(content))
    if quality is None:
        image.save(buffer, "WEBP", lossless=True, method=3)  # of 0 to 6: beyond 3 four times the time for some percent
    else:
        image.save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()


class _Renderer(IPythonRenderer):
    """nbconvert's renderer with this page's headings, tables that scroll, and formulas that need no script."""

    def __init__(self, body: Body, attachments: dict[str, Any]) -> None:
        super().__init__(escape=True, allow_harmful_protocols=False, attachments=attachments)
        self.body = body

    def heading(self, text: str, level: int, **attrs: Any) -> str:
        level = max(level, self.body.top)
        anchor = self.body.add_heading(level, unescape(re.sub(r"<[^>]+>", "", text)).strip())
        return f'<h{level} id="{anchor}">{text}</h{level}>\n'

    def table(self, text: str) -> str:
        return f"{TABLE}\n{text}</table></div>\n"

    def table_cell(self, text: str, align: str | None = None, head: bool = False) -> str:
        tag, length = ("th" if head else "td"), len(unescape(re.sub(r"<[^>]+>", "", text)))
        kept = length <= SHORT and not COMMITS.search(text)
        size = ' class="short"' if kept else ' class="long"' if length >= LONG else ""
        style = f' style="text-align:{align}"' if align else ""
        return f"  <{tag}{'' if head else size}{style}>{text}</{tag}>\n"

    def image(self, text: str, url: str, title: str | None = None) -> str:
        """A picture; what a cell says may show those that the page carries, of others it shows the address alone."""
        if not self.body.said or url.startswith(("data:image/", "attachment:")):
            return str(super().image(text, url, title))
        return self.escape_html(f"![{unescape(text)}]({url})")

    def codespan(self, text: str) -> str:
        words = text.split(" ")  # an option is broken before its dashes, not between them
        return f"<code>{' '.join(f'<span>{w}</span>' if w.startswith('-') else w for w in words)}</code>"

    def block_math(self, body: str) -> str:
        return self._formula(body.strip(), "block")

    def inline_math(self, body: str) -> str:
        return self._formula(body, "inline")

    def latex_environment(self, name: str, body: str) -> str:
        return self.block_math(body)

    def _formula(self, latex: str, display: str) -> str:
        """An author's formula as MathML, which browsers draw by themselves; else its LaTeX, as text.

        Left as text: what a cell says (a dollar in a name from data is no formula), what the converter does not know,
        and what would do something on the page (LaTeX has links, and the converter does not escape its texts).
        """
        made = "" if self.body.said else _mathml(latex, display)
        safe = set(_TAG.findall(made)) <= _MATHML and not active_parts(made) and not outside_references(made)
        if not made or "\\" in made or not safe:
            return f'<code class="math {display}">{self.escape_html(latex)}</code>'
        return made


_TAG = re.compile(r"</?([^\s>/]*)")
_MATHML = {"math", "mfrac", "mi", "mn", "mo", "mover", "mroot", "mrow", "mspace", "msqrt", "mstyle", "msub", "msubsup"}
_MATHML |= {"msup", "mtable", "mtd", "mtext", "mtr", "munder", "munderover"}


def _mathml(latex: str, display: str) -> str:
    """A formula as MathML; empty where it is not one."""
    try:
        return str(to_mathml(latex, display=display))
    except Exception:  # a dozen classes with no common one, and IndexErrors: a formula is never worth a page
        return ""


def wrap_tables(html: str) -> str:
    """Tables of an HTML output made like those of Markdown: without pandas' border, in a box that scrolls."""
    html = re.sub(r"<table\b[^>]*>", TABLE, html)
    return html.replace("</table>", "</table></div>")


# ---- what a page may not hold

_LOADS = {"src", "srcset", "poster", "data", "background", "action", "formaction", "manifest", "ping", "xlink:href"}
_STYLE = re.compile(r"@import|url\(\s*['\"]?(?!\s*['\"]?(?:data:|#))[^)]*\)?", re.IGNORECASE)


class _References(HTMLParser):
    """Everything in a page that a browser would fetch without being asked."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inside_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside_style = tag == "style"
        for name, value in attrs:
            address = (value or "").strip()
            loads = name in _LOADS or (name == "href" and tag in ("link", "image", "use", "base"))
            if loads and address and not address.startswith(("data:", "#")):
                self.found.append(f"<{tag} {name}={address[:80]}>")
            if name == "style":
                self.found += [f"<{tag} style: {hit[:80]}>" for hit in _STYLE.findall(address)]
        if tag == "meta" and (dict(attrs).get("http-equiv") or "").lower() == "refresh":
            self.found.append("<meta refresh>")

    def handle_endtag(self, tag: str) -> None:
        self.inside_style = False

    def handle_data(self, data: str) -> None:
        if self.inside_style:
            self.found += [f"<style>: {hit[:80]}" for hit in _STYLE.findall(data)]


def outside_references(html: str) -> list[str]:
    """What a page would load from elsewhere when it is opened; links that a reader must click do not count."""
    parser = _References()
    parser.feed(html)
    return parser.found


_ACTIVE = {"script", "iframe", "object", "embed", "base", "form", "frame", "link", "meta"}


class _Active(HTMLParser):
    """Everything in a part of a page that would do something there."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        addresses = {name: re.sub(r"[\x00-\x20]", "", value or "").lower() for name, value in attrs}  # as browsers do
        does = [name for name in addresses if name.startswith("on") or addresses[name].startswith("javascript:")]
        self.found += [f"<{tag}>"] * (tag in _ACTIVE) + [f"<{tag} {name}>" for name in does]


def active_parts(html: str) -> list[str]:
    """Scripts, handlers and frames in an HTML output; a table of values has none, whatever its values are called."""
    parser = _Active()
    parser.feed(html)
    return parser.found
