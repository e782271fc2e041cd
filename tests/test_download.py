"""The downloader against a local server: what it asks for, and when it gives up; more in `faults/downloads.py`."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from faults.downloads import BODY, MD5, fetch, serving

from cxr_helpers.data.download import MAX_WAIT_S, DownloadError, download


def test_a_truncated_answer_is_resumed_where_it_broke_off_however_often_it_gets_on(tmp_path: Path) -> None:
    with serving(["truncate"] * 6) as server:
        assert fetch(server, tmp_path / "new", tries=2).read_bytes() == BODY
    begins = [int((asked or "bytes=0-")[6:-1]) for _, asked in server.asked]
    assert begins[:3] == [0, len(BODY) // 2, len(BODY) * 3 // 4] and begins == sorted(set(begins))
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.npz"]


def test_a_partial_file_of_an_earlier_call_is_resumed_and_one_of_other_bytes_costs_one_fresh_start(
    tmp_path: Path,
) -> None:
    for begin, asked in ((BODY[:1000], ["bytes=1000-"]), (b"x" * 1000, ["bytes=1000-", None])):
        (tmp_path / "a.npz").unlink(missing_ok=True)
        (tmp_path / "a.npz.part").write_bytes(begin)
        with serving([]) as server:
            assert fetch(server, tmp_path).read_bytes() == BODY
        assert [byte_range for _, byte_range in server.asked] == asked


def test_pauses_double_up_to_a_bound_and_end_after_the_tries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    with serving(["503"] * 9) as server, pytest.raises(DownloadError, match=r"HTTP 503 .* after 6 tries"):
        fetch(server, tmp_path, tries=6, wait_s=MAX_WAIT_S / 5)
    assert pauses == pytest.approx([MAX_WAIT_S * share for share in (0.2, 0.4, 0.8, 1, 1)])
    assert len(server.asked) == 6


def test_a_target_that_exists_is_never_touched_and_no_one_asked(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"mine")
    with serving([]) as server:
        assert fetch(server, tmp_path).read_bytes() == b"mine" and server.asked == []


def test_the_mirror_is_asked_first_and_the_origin_after_it_where_it_has_no_file_or_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for script, body in ((["404"], BODY), ([], b"an old version")):
        (tmp_path / "a.npz").unlink(missing_ok=True)
        with serving(script, body) as mirror, serving([]) as origin:
            monkeypatch.setenv("CXR_MIRROR", f"{mirror.base}/copies/")
            assert fetch(origin, tmp_path).read_bytes() == BODY
        assert [path for path, _ in mirror.asked] == ["/copies/a.npz"]
        assert [path for path, _ in origin.asked] == ["/a.npz"]


def test_what_will_not_pass_is_said_at_once(tmp_path: Path) -> None:
    with serving(["404"] * 9) as server, pytest.raises(DownloadError, match=r"127.0.0.1:\d+: HTTP 404"):
        fetch(server, tmp_path)
    assert len(server.asked) == 1
    with pytest.raises(DownloadError, match=r"nowhere\.invalid: host not found, is there a network"):
        download("http://nowhere.invalid/a.npz", tmp_path / "new" / "a.npz", MD5, wait_s=60)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("in the way")
    with serving([]) as server, pytest.raises(DownloadError, match="File exists"):
        fetch(server, tmp_path / "file")
