"""In a real browser: pages ask for nothing and fit any screen, their slider moves.

`CXR_PAGES` names the folder of a report to be opened in place of two small pages; Chromium is the first of the usual
names or `CXR_CHROMIUM`. Without one these tests are skipped, or fail where `CXR_NEED_BROWSER` is set.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from cxr_helpers import load_dataset
from cxr_helpers.augment import sweep_operation
from cxr_helpers.report.offline import to_html
from cxr_helpers.report.pictures import slider_html

PATIENCE_MS = 90_000  # for a machine that does other things
CHROMIUM = os.environ.get("CXR_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """It ends with its module: while it lives no other test of its process can run an event loop."""
    if not CHROMIUM:
        (pytest.fail if os.environ.get("CXR_NEED_BROWSER") else pytest.skip)("apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        yield driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])


def opened(browser: Any, address: str, width: int = 1400, **settings: Any) -> tuple[Any, list[str]]:
    """A page at a width, and a list that gathers its requests, complaints and errors."""
    page, heard = browser.new_page(viewport={"width": width, "height": 900}, **settings), []
    page.on("request", lambda request: heard.append(request.url) if request.url[:5] != "data:" else None)
    page.on("console", lambda said: heard.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.set_default_timeout(PATIENCE_MS)
    page.goto(address)
    return page, heard


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of pages: `CXR_PAGES`, else two made here."""
    if os.environ.get("CXR_PAGES"):
        return Path(os.environ["CXR_PAGES"]).resolve()
    image = load_dataset("phantom", size=64, max_train_images=1, max_eval_images=1).train.images[0]
    slider = slider_html({"film": [sweep_operation(image, field, 64) for field in ("flip_prob", "rotation_deg")]})
    cells = [new_markdown_cell("# Views"), new_code_cell(outputs=[new_output("display_data", {"text/html": slider})])]
    folder, names = tmp_path_factory.mktemp("site"), ("index", "02_views")
    for name in names:
        (folder / f"{name}.html").write_text(to_html(new_notebook(cells=cells), name, names))
    return folder


@pytest.mark.parametrize("width", [1400, 390])
def test_a_page_asks_for_nothing_complains_of_nothing_and_scrolls_one_way(browser: Any, site: Path, width: int) -> None:
    assert {"index.html"} < {path.name for path in site.glob("*.html")}
    for path in site.glob("*.html"):
        page, heard = opened(browser, path.as_uri(), width, offline=True)
        assert heard == [path.as_uri()]
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path.name
        assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth)"), path.name
        page.locator("nav a[href^='index']").click()
        page.wait_for_url("**/index.html")


def test_the_slider_of_a_page_moves_its_pictures(browser: Any, site: Path) -> None:
    page, heard = opened(browser, next(site.glob("02_*.html")).as_uri(), 390, offline=True)
    page.locator(".film-slider .operation").select_option("rotation")
    seen, output = set(), page.locator(".film-slider output")
    for key in ("Home", "End"):
        page.locator(".film-slider .strength").press(key)
        drawn = "text => document.querySelector('.view').getAttribute('aria-label').endsWith(text)"
        page.wait_for_function(drawn, arg=f": rotation {output.inner_text()}")
        seen |= {page.locator(f".film-slider {what}").first.screenshot() for what in (".view", ".change")}
    assert len(seen) == 4 and len(heard) == 1
