"""Debian's Chromium, headless and offline, driven by playwright; and what a page asked for and complained about."""

from __future__ import annotations

import importlib.util
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
INSTALL = "install it with `apt-get install chromium` (Debian), or name one in CXR_CHROMIUM"


def chromium_path() -> str | None:
    """Where Chromium is: `CXR_CHROMIUM`, else the first of its usual names."""
    return os.environ.get("CXR_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


def lacking() -> str:
    """Why no browser can be started and how to get one; nothing where there is one."""
    if importlib.util.find_spec("playwright") is None:
        return "the browser tests need playwright's driver: make setup"
    return "" if chromium_path() else f"the browser tests need Chromium: {INSTALL}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser for the tests of a module; a skip that says how to get one, or a failure if `CXR_NEED_BROWSER` is set.

    It ends with its module, because as long as it lives no other test of this process could run an event loop.
    """
    why = lacking()
    if why:
        (pytest.fail if os.environ.get("CXR_NEED_BROWSER") else pytest.skip)(why)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=chromium_path(), headless=True, args=FLAGS)
        yield chromium
        chromium.close()


class Tab:
    """A page in a window of its own that keeps what it asked for and what went wrong.

    Attributes:
        page: playwright's.
        requests: addresses asked for, but those inside the page itself (`data:`, `blob:`).
        errors: of the console, and uncaught ones.
    """

    def __init__(self, browser: Any, **settings: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings})
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self._asked(request.url))
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _asked(self, address: str) -> None:
        if not address.startswith(("data:", "blob:")):
            self.requests.append(address)

    def pixels(self, selector: str) -> bytes:
        """What the first such element looks like, as uncompressed pixels."""
        return Image.open(io.BytesIO(self.page.locator(selector).first.screenshot())).tobytes()


def save_screenshot(png: bytes, name: str) -> None:
    """Write a screenshot, in 256 colours, to the folder `CXR_SCREENSHOTS`; without one, nothing."""
    folder = os.environ.get("CXR_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        picture = Image.open(io.BytesIO(png)).convert("RGB").quantize(256, kmeans=2, dither=Image.Dither.NONE)
        picture.save(Path(folder) / f"{name}.png", optimize=True)
