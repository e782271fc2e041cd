"""Notebook 02 in JupyterLab, in a real browser: it runs, and the explorer follows mouse, keys and buttons."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from browsers import Tab, save_screenshot
from nbformat.reader import NotJSONError

from cxr_helpers.profiles import get_profile
from cxr_helpers.report.pages import notebook_page, settle_widgets
from cxr_helpers.study import project_root

pytestmark = pytest.mark.slow
NAME = "02_augmentations.ipynb"
PATIENCE = 300  # seconds; for a machine that does other things
ALONE = "--no-browser --allow-root --ServerApp.port=8888 --ServerApp.port_retries=200 --IdentityProvider.token="
PICTURE = ".cxr-explorer .cxr-picture"


def lab_environment(folder: Path) -> dict[str, str]:
    """JupyterLab with no settings but its own, asking nobody for news; the notebook on drawn images."""
    names = ("CONFIG", "DATA", "RUNTIME")
    own = {f"JUPYTER_{name}_DIR": folder / name.lower() for name in names}
    own |= {f"JUPYTERLAB_{name}_DIR": folder / name.lower() for name in ("SETTINGS", "WORKSPACES")}
    own |= {"IPYTHONDIR": folder / "ipython", "CXR_RESULTS": folder / "results", "CXR_REPORT": folder / "report"}
    notes = folder / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    notes.parent.mkdir(parents=True)
    notes.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))
    where = os.pathsep.join(filter(None, [str(project_root()), os.environ.get("PYTHONPATH")]))
    fixed = {"CXR_PROFILE": "smoke", "PYTHONPATH": where, "OMP_NUM_THREADS": "1"}
    return {**os.environ, **{key: str(path) for key, path in own.items()}, **fixed}


def waiting_for(what: str, found: Any) -> Any:
    """What a call returns as soon as that is true; fails with what was waited for."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        value = found()
        if value:
            return value
        time.sleep(0.2)
    return pytest.fail(f"waited {PATIENCE} s for {what}")


@pytest.fixture(scope="module")
def lab(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Address of a running JupyterLab, and the notebook it has; both end with the module."""
    folder = tmp_path_factory.mktemp("lab")
    content = nbformat.read(project_root() / "notebooks" / NAME, as_version=4)
    for cell in content.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    work = folder / "work"
    work.mkdir()
    nbformat.write(content, work / NAME)
    command = [sys.executable, "-m", "jupyterlab", *ALONE.split(), f"--ServerApp.root_dir={work}"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            command, cwd=work, env=lab_environment(folder), stdout=log, stderr=log, start_new_session=True
        )
    try:
        record = waiting_for("JupyterLab", lambda: next(folder.glob("runtime/jpserver-*.json"), None))
        yield str(json.loads(waiting_for("its address", record.read_text))["url"]), work / NAME
    finally:
        server.send_signal(signal.SIGTERM)  # its kernels end with it
        server.wait(60)


@pytest.fixture(scope="module")
def tab(browser: Any, lab: tuple[str, Path]) -> Iterator[Tab]:
    """The notebook after *Run All*."""
    opened = Tab(browser)
    page = opened.page
    page.set_default_timeout(1000 * PATIENCE)
    page.goto(f"{lab[0]}lab/tree/{NAME}")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    page.get_by_text("| Idle").first.wait_for()  # the status bar: the kernel is there
    page.locator('li.lm-MenuBar-item:has-text("Run")').click()
    page.locator('li.lm-Menu-item[data-command="runmenu:run-all"]').click()
    page.wait_for_selector(PICTURE)
    yield opened
    opened.context.close()


def read_whole(path: Path) -> nbformat.NotebookNode | None:
    """The notebook; None while JupyterLab is writing it."""
    try:
        return nbformat.read(path, as_version=4)
    except NotJSONError:
        return None


def picture(tab: Tab) -> bytes:
    """The explorer's picture once the kernel has nothing left to do and it has stopped changing."""
    before = b""
    for _ in range(PATIENCE):
        tab.page.get_by_text("| Idle").first.wait_for()
        now = tab.pixels(PICTURE)
        if now == before:
            return now
        before = now
        tab.page.wait_for_timeout(700)  # several times what a redraw takes
    return pytest.fail("the picture never rests")


def changed(tab: Tab, before: bytes) -> bytes:
    """The picture after it has become another one."""
    waiting_for("another picture", lambda: tab.pixels(PICTURE) != before)
    return picture(tab)


def line(tab: Tab) -> str:
    return str(tab.page.locator(".cxr-explorer code").inner_text())


def wait_for_line(tab: Tab, expected: str) -> None:
    waiting_for(f"the line {expected}", lambda: line(tab) == expected)


def handle(tab: Tab, field: str) -> Any:
    """The part of a field's slider that is moved."""
    row = tab.page.locator(".cxr-fields .widget-slider", has=tab.page.locator(f'label:text-is("{field}")'))
    return row.locator(".noUi-handle")


def test_the_notebook_runs_top_to_bottom_and_its_export_asks_for_nothing(
    tab: Tab, lab: tuple[str, Path], browser: Any, tmp_path: Path
) -> None:
    notebook = waiting_for("the notebook", lambda: read_whole(lab[1]))
    count = sum(cell.cell_type == "code" for cell in notebook.cells)
    last = f".jp-Notebook .jp-CodeCell .jp-InputPrompt:text-is('[{count}]:')"
    tab.page.wait_for_selector(last, state="attached")
    tab.page.keyboard.press("Control+s")

    def saved() -> Any:
        found = read_whole(lab[1])
        executed = found and all(cell.execution_count for cell in found.cells if cell.cell_type == "code")
        return found if executed else None

    executed = waiting_for("the saved notebook", saved)
    outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
    assert outputs and not [output for output in outputs if output.output_type == "error"]
    executed = settle_widgets(executed)
    (tmp_path / "02.html").write_text(notebook_page(executed, get_profile("smoke")).html)
    exported = Tab(browser, offline=True)
    exported.page.goto((tmp_path / "02.html").as_uri())
    assert exported.requests == [(tmp_path / "02.html").as_uri()] and exported.errors == []
    before = exported.pixels(".pane.view")
    exported.page.locator(".slider input").press("Home")
    assert exported.pixels(".pane.view") != before
    exported.context.close()


def test_another_policy_brings_its_own_numbers_and_no_step_of_a_slider_rounds_them(tab: Tab) -> None:
    before = picture(tab)
    tab.page.locator(".cxr-explorer select").first.select_option("imagenet")  # the notebook's last was ssl
    changed(tab, before)
    wait_for_line(tab, 'replace(POLICIES["imagenet"])')


def test_a_slider_moved_by_keys_changes_the_picture_in_its_place(tab: Tab) -> None:
    before = picture(tab)
    tab.page.locator(PICTURE).evaluate("element => { element.dataset.same = 'yes' }")
    height = tab.page.locator(".cxr-explorer").bounding_box()["height"]
    handle(tab, "crop_scale_min").focus()
    for _ in range(5):
        tab.page.keyboard.press("ArrowRight")
    changed(tab, before)
    wait_for_line(tab, 'replace(POLICIES["imagenet"], crop_scale_min=0.13)')
    picture(tab)
    assert tab.page.locator(PICTURE).count() == 1  # nothing is stacked, and the element is not made anew
    assert tab.page.locator(PICTURE).get_attribute("data-same") == "yes"
    assert tab.page.locator(".cxr-explorer").bounding_box()["height"] == pytest.approx(height, abs=40)


def test_a_slider_moved_by_mouse_changes_the_picture_and_what_is_said(tab: Tab) -> None:
    before = picture(tab)
    grip = handle(tab, "rotation_deg")
    grip.scroll_into_view_if_needed()
    box = grip.bounding_box()
    tab.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tab.page.mouse.down()
    tab.page.mouse.move(box["x"] + 150, box["y"] + box["height"] / 2, steps=4)
    tab.page.mouse.up()
    probability = handle(tab, "affine_prob")
    probability.focus()
    tab.page.keyboard.press("End")
    changed(tab, before)
    waiting_for("both in the line", lambda: "rotation_deg=" in line(tab) and "affine_prob=1.0" in line(tab))
    waiting_for("what is said", lambda: "outside 0 to 20" in tab.page.locator(".cxr-fields").inner_text())
    assert tab.page.locator(PICTURE).is_visible()


def test_reset_policy_and_resample_each_bring_another_picture(tab: Tab) -> None:
    before = picture(tab)
    tab.page.locator('button:has-text("reset to policy")').click()
    reset = changed(tab, before)
    wait_for_line(tab, 'replace(POLICIES["imagenet"])')
    tab.page.locator(".cxr-explorer select").first.select_option("ssl")
    other = changed(tab, reset)
    wait_for_line(tab, 'replace(POLICIES["ssl"])')
    tab.page.locator('button:has-text("resample")').click()
    changed(tab, other)


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (1920, 1080)])
def test_picture_and_sliders_are_on_the_screen_together(tab: Tab, width: int, height: int) -> None:
    tab.page.set_viewport_size({"width": width, "height": height})
    tab.page.locator('button:has-text("reset to policy")').click()
    handle(tab, "blur_sigma_max").scroll_into_view_if_needed()
    tab.page.locator(".cxr-scroll").evaluate("element => element.scrollIntoView({block: 'end'})")
    picture(tab)
    shown, box = (tab.page.locator(part).bounding_box() for part in (PICTURE, ".cxr-scroll"))
    assert shown["y"] >= 0 and box["y"] + box["height"] <= height
    assert shown["x"] + shown["width"] <= width and box["x"] + box["width"] <= width
    assert tab.page.locator(".cxr-scroll").evaluate("element => element.scrollWidth <= element.clientWidth")


def test_the_whole_explorer_is_photographed(tab: Tab) -> None:
    tab.page.set_viewport_size({"width": 1280, "height": 1040})
    tab.page.locator(".cxr-scroll").evaluate("element => { element.scrollTop = 0 }")
    tab.page.locator(".cxr-explorer").evaluate("element => element.scrollIntoView({block: 'start'})")
    picture(tab)
    for part in ('.cxr-explorer button:has-text("reset to policy")', PICTURE, ".cxr-scroll"):
        box = tab.page.locator(part).bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= 1040, part
    save_screenshot(tab.page.screenshot(), "explorer")


def test_nothing_was_asked_of_another_machine(tab: Tab, lab: tuple[str, Path]) -> None:
    assert [address for address in tab.requests if not address.startswith((lab[0], lab[0].replace("http", "ws")))] == []
