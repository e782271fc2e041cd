"""Without a browser the browser's tests say how to get one; where one is demanded they fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import browsers
import pytest

start: Callable[[], Iterator[Any]] = browsers.browser.__wrapped__  # type: ignore[attr-defined]


@pytest.fixture
def no_chromium(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CXR_CHROMIUM", "CXR_NEED_BROWSER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(browsers.shutil, "which", lambda name: None)


def test_a_missing_browser_is_a_skip_that_names_the_command(no_chromium: None) -> None:
    with pytest.raises(pytest.skip.Exception, match="need Chromium: install it with `apt-get install chromium`"):
        next(start())


def test_a_missing_browser_fails_where_one_is_needed(no_chromium: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXR_NEED_BROWSER", "1")
    with pytest.raises(pytest.fail.Exception, match="need Chromium"):
        next(start())


def test_a_browser_can_be_named(no_chromium: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXR_CHROMIUM", "here/chromium")
    assert browsers.chromium_path() == "here/chromium" and browsers.lacking() == ""
