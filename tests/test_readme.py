"""The README's result section comes from records, and from nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from studies import make_run, make_study

from cxr_helpers.report.readme import result_section, write_readme

PAGE = "# Title\n\n<!-- results: written by make -->\nold\n<!-- /results -->\n\nrest\n"


def test_the_section_lists_every_configuration_with_seeds_interval_and_verdict(tmp_path: Path) -> None:
    make_study(tmp_path)
    section = result_section(tmp_path)
    for label in ("SimCLR", "VICReg", "Supervised", "Random encoder"):
        assert f"| {label} |" in section
    assert section.count("95 % interval") >= 3
    assert "SimCLR is **" in section or "SimCLR and Random encoder are **" in section
    first = next(line for line in section.splitlines() if line.startswith("- "))
    assert "SimCLR" in first and "VICReg" in first  # the question before its context


def test_data_sets_never_share_a_table_and_phantoms_are_left_out(tmp_path: Path) -> None:
    for dataset in ("pneumoniamnist", "chestmnist", "phantom"):
        make_run(tmp_path, dataset=dataset)
    section = result_section(tmp_path)
    assert section.count("test AUC by the protocol") == 2
    assert "phantom" not in section.lower()


def test_without_a_record_the_section_says_so(tmp_path: Path) -> None:
    assert result_section(tmp_path) == "No finished run with a test figure is recorded yet.\n"


def test_writing_replaces_what_stands_between_the_markers_and_nothing_else(tmp_path: Path) -> None:
    make_run(tmp_path)
    page = tmp_path / "README.md"
    page.write_text(PAGE)
    write_readme(page, tmp_path)
    first = page.read_text()
    assert first.startswith("# Title\n\n<!-- results: written by make -->\n") and first.endswith("\n\nrest\n")
    assert "old" not in first and "SimCLR" in first
    write_readme(page, tmp_path)
    assert page.read_text() == first


def test_a_page_without_markers_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("# Title\n")
    with pytest.raises(ValueError, match=r"README.md must hold the lines <!-- results"):
        write_readme(page, tmp_path)
