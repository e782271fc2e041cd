"""Exported pages in a real browser: they ask for nothing, complain of nothing, and their parts work.

`CXR_PAGES` names the folder of a report to be opened instead of the small one made here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsers import Tab, save_screenshot
from cxr_helpers.profiles import get_profile
from cxr_helpers.report.index import entry_of, write_build
from reports import code, head_output, notebook, png, shown

from cxr_helpers import load_dataset, plots, report
from cxr_helpers.augment.sweep import sweep_operation
from cxr_helpers.report.pages import notebook_page
from cxr_helpers.runs import write_bytes

SMOKE = get_profile("smoke")
PAGE_BYTES, REPORT_BYTES = 3_000_000, 15_000_000
FIELDS = ("rotation_deg", "brightness", "hue", "invert_prob", "flip_prob")
TABLE = "| name | AUC | n |\n|---|---|---:|\n| b | .91 [.9, .92] | 1,200 |\n| c | −.5 | 30 |\n| a | 1e-3 | 7 |"


def small_report(folder: Path) -> None:
    """An index and the page of one notebook with everything that a page can have."""
    image = load_dataset("phantom", size=64, max_train_images=1, max_eval_images=1).train.images[0]
    sweeps = [sweep_operation(image, field, 64) for field in FIELDS]
    sheet = report.save_figure(plots.plot_sweeps(sweeps), "02_sweeps", SMOKE, alt="one film")
    data, metadata = report.with_slider(sheet, sweeps, about="one film")._repr_mimebundle_()
    prose = [f"## Part {i}\n\n" + "Some words. " * 300 for i in range(3)]
    cells = ["## Views", code("f()", shown(data, **metadata)), f"## Table\n\n{TABLE}", code("x = 1"), *prose]
    page = notebook_page(notebook(code("head()", head_output("smoke")), *cells, number="02"), SMOKE)
    write_bytes(folder / "02_tiny.html", page.html.encode())
    (folder / "answers").mkdir()
    (folder / "answers" / "02_tiny.md").write_text(f"It can be seen.\n\n{TABLE}")
    made = {"build": "now", "made": "now", "seconds": 1.0, "committed": True}
    write_build(folder, {"profile": "smoke", "started": "now", "pages": {"02_tiny": entry_of(page) | made}}, SMOKE)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of pages: `CXR_PAGES`, else a small report."""
    if os.environ.get("CXR_PAGES"):
        yield Path(os.environ["CXR_PAGES"]).resolve()
        return
    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXR_REPORT", str(folder))
        small_report(folder)
        yield folder


def opened(browser: Any, path: Path, **settings: Any) -> Tab:
    tab = Tab(browser, offline=True, **settings)
    tab.page.goto(path.as_uri())
    return tab


@pytest.fixture
def augmentations(browser: Any, site: Path) -> Iterator[Tab]:
    """The page of notebook 02."""
    tab = opened(browser, next(site.glob("02_*.html")))
    yield tab
    tab.context.close()


def test_no_page_asks_for_anything_or_complains_and_its_contents_lead_to_its_headings(browser: Any, site: Path) -> None:
    paths = sorted(site.glob("*.html"))
    assert len(paths) >= 2 and sum(path.stat().st_size for path in paths) <= REPORT_BYTES
    for path in paths:
        assert path.stat().st_size <= PAGE_BYTES, path.name
        tab = opened(browser, path)
        links = tab.page.locator("nav li a")
        assert links.count() > 0
        for link in (links.first, links.last):
            link.click()
            box = tab.page.locator(f'[id="{str(link.get_attribute("href"))[1:]}"]').bounding_box()
            assert box and 0 <= box["y"] < 900, (path.name, link.get_attribute("href"))
        assert tab.requests == [path.as_uri()] and tab.errors == [], path.name
        pictures = tab.page.evaluate("[...document.images].filter(i => !i.complete || !i.naturalWidth).length")
        assert pictures == 0, path.name
        tab.context.close()


def test_the_index_leads_to_a_page_and_back(browser: Any, site: Path) -> None:
    tab = opened(browser, site / "index.html")
    save_screenshot(tab.page.screenshot(), "report")
    tab.page.locator('main a[href="02_"], main a[href^="02_"]').first.click()
    tab.page.wait_for_selector("details.code")
    tab.page.locator("nav .home a").click()
    tab.page.wait_for_selector("main h1")
    assert tab.page.url.endswith("/index.html") and tab.errors == []
    tab.context.close()


def test_the_slider_changes_the_pictures_by_key_and_by_mouse(augmentations: Tab) -> None:
    page = augmentations.page
    choice, strength = page.locator(".slider select"), page.locator(".slider input")
    choice.select_option("rotation")
    seen = {augmentations.pixels(".pane.view")}
    strength.focus()
    page.keyboard.press("Home")
    assert page.locator(".slider output").inner_text() == "−20°"
    seen.add(augmentations.pixels(".pane.view"))
    box = strength.bounding_box()
    assert box
    page.mouse.move(box["x"] + 8, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 8, box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()
    assert page.locator(".slider output").inner_text() == "+20°"
    seen.add(augmentations.pixels(".pane.view"))
    assert len(seen) == 3
    difference, curve = augmentations.pixels(".pane.difference"), page.locator(".after").get_attribute("d")
    choice.select_option("brightness")
    page.keyboard.press("Tab")
    assert augmentations.pixels(".pane.difference") != difference
    assert page.locator(".after").get_attribute("d") != curve
    assert augmentations.errors == []


def test_the_middle_of_a_two_sided_operation_changes_nothing_and_an_inert_one_says_so(augmentations: Tab) -> None:
    page = augmentations.page
    page.locator(".slider select").select_option("brightness")
    page.locator(".slider input").fill("3")
    assert page.locator(".slider output").inner_text() == "× 1.00"
    bars = page.locator(".before").get_attribute("d"), page.locator(".after").get_attribute("d")
    assert bars[0] == bars[1]
    page.locator(".slider select").select_option("hue")
    assert "one-channel" in page.locator(".slider .remark").inner_text()


def test_the_sheet_is_folded_on_a_screen_and_stands_alone_on_paper(augmentations: Tab) -> None:
    page = augmentations.page
    sheet, live = page.locator(".slider .sheet"), page.locator(".slider .live")
    assert live.is_visible() and not sheet.is_visible()
    page.locator(".slider button").press("Enter")
    assert sheet.is_visible() and page.locator(".slider button").get_attribute("aria-expanded") == "true"
    page.locator(".slider button").press("Enter")
    page.emulate_media(media="print")
    assert sheet.is_visible() and not live.is_visible() and not page.locator("nav").is_visible()


def test_without_scripts_the_sheet_is_there(browser: Any, site: Path) -> None:
    tab = opened(browser, next(site.glob("02_*.html")), java_script_enabled=False)
    assert tab.page.locator(".slider .sheet").is_visible() and not tab.page.locator(".slider .live").is_visible()
    tab.context.close()


def test_code_is_folded_until_it_is_asked_for(augmentations: Tab) -> None:
    page = augmentations.page
    cells = page.locator("details.code pre")
    assert cells.count() > 1 and not cells.first.is_visible()
    page.locator(".unfold button").click()
    assert cells.first.is_visible() and cells.last.is_visible()


def test_a_table_is_sorted_by_value_both_ways(browser: Any, tmp_path: Path) -> None:
    page = notebook_page(notebook(f"## Table\n\n{TABLE}", code("f()", shown({"text/plain": str(len(png()))}))), SMOKE)
    write_bytes(tmp_path / "table.html", page.html.encode())
    tab = opened(browser, tmp_path / "table.html")

    def column() -> str:
        return "".join(tab.page.locator("main section tbody tr td:first-child").all_inner_texts())

    for name, up in (("name", "abc"), ("AUC", "cab"), ("n", "acb")):
        head = tab.page.locator(f'main section th button:text-is("{name}")')
        head.click()
        assert column() == up, name
        head.press("Enter")
        assert column() == up[::-1], name
    tab.context.close()


def test_a_page_is_dark_where_the_reader_wants_it_dark(browser: Any, site: Path) -> None:
    shades = []
    for scheme in ("light", "dark"):
        tab = opened(browser, site / "index.html", color_scheme=scheme)
        shades.append(tab.page.evaluate("getComputedStyle(document.body).backgroundColor"))
        tab.context.close()
    light, dark = ([int(part) for part in shade[4:-1].split(",")] for shade in shades)
    assert min(light) > 200 and max(dark) < 60
