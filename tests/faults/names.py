"""Hostile names of data sets and classes: they stay in their folder and are shown on a page, never obeyed."""

from __future__ import annotations

import os
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from cxr_helpers.profiles import get_profile
from cxr_helpers.report.claims import PAGE
from IPython.core.formatters import DisplayFormatter
from IPython.display import Markdown
from PIL import Image
from reports import assert_self_contained, code, notebook, shown

from cxr_helpers import eda, plots
from cxr_helpers.config import PretrainConfig
from cxr_helpers.data import Dataset, load_dataset
from cxr_helpers.recipes import run_id
from cxr_helpers.report import pages, prose, prose_eda, report

from .archives import said_in_one_sentence
from .code import set_variable
from .registry import fault

HOSTILE = (
    *("<script>alert(1)<script>", "<img src=x onerror=alert(1)>", '"><svg onload=alert(1)>', "&lt;b&gt; & 'quotes'"),
    *("![spy](https:evil.example)", "[a](javascript:alert(1))", "`code` **bold** | bar", "a$\\frac{$b$", "$$x$$", "#"),
    *("..", "...", "-rf", "~", "%2e%2e", "..\\..\\up", "CON", "a" * 90, "ⅷ é 漢字", "e\u0301", "\\", "{{ 7*7 }}", "{%"),
    *("line\nbreak", "\u202egnp.exe", "tab\there", "bell\x07", "zero\u200bwidth", "b" * 200, "\udcff", "ａ．．／"),
)


def write_folder(folder: Path, classes: tuple[str, str]) -> None:
    """Six small pictures of two classes in each split."""
    for split in ("train", "val", "test"):
        for j, name in enumerate(classes):
            (folder / split / name).mkdir(parents=True)
            for k in range(3):
                pixels = np.full((8, 8), 40 * j + 20 * k + 10, np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{k}.png")


def loaded(name: str, root: Path) -> Dataset | None:
    """The data set, or None where its name was refused in one sentence."""
    try:
        return load_dataset(name, 8, root)
    except (ValueError, FileNotFoundError) as error:
        said = said_in_one_sentence(error)
        assert said.isprintable(), f"a message that a terminal would obey: {said[:80]!r}"
        return None


@fault("a data set with a hostile name", category="names", tries=len(HOSTILE), quick=6)
def of_data_set(folder: Path, seed: int) -> None:
    name = HOSTILE[seed]
    if name != "..":
        write_folder(folder / "root" / name, ("ill", "well"))
    dataset = loaded(name, folder / "root")
    if dataset is None:
        return
    record = {**asdict(PretrainConfig(dataset=dataset.name, size=64, method="supervised")), "fingerprint": "f"}
    run = folder / "runs" / run_id(record)
    run.mkdir(parents=True)
    assert run.resolve().parent == (folder / "runs").resolve(), "a run left its folder"
    assert len(os.fsencode(run.name)) < 255 and run.name.isprintable()
    assert dataset.name not in prose.heading(dataset) or dataset.name.isprintable()


@fault("a data set's name that leads out of its folder", category="names", tries=12, quick=4)
def out_of_root(folder: Path, seed: int) -> None:
    write_folder(folder / "outside", ("ill", "well"))
    (folder / "root").mkdir()
    names = (
        "..",
        ".",
        "",
        "../outside",
        "..\\outside",
        "x/../../outside",
        "\0",
        "../outside\0",
        "./..",
        "//",
        "a" * 5000,
    )
    try:
        load_dataset((*names, "…/outside")[seed], 8, folder / "root")
    except (ValueError, FileNotFoundError) as error:
        assert said_in_one_sentence(error).isprintable()
    else:
        raise AssertionError("data outside the root were read")


@fault("a slug that leads out of the report's folder", category="names", tries=9, quick=3)
def of_figure(folder: Path, seed: int) -> None:
    slugs = ("../04_x", "04_../x", "/04_x", "04_x/y", "04_x\0", "04_" + "x" * 300, "04_é", "04_x\n", "04_X")
    with set_variable("CXR_REPORT", str(folder / "report")), set_variable("CXR_PROFILE", None):
        try:
            report.save_answer(slugs[seed], "text", get_profile("cpu"))
        except ValueError as error:
            assert said_in_one_sentence(error).isprintable()
        else:
            raise AssertionError("a file was written")
    assert not [path for path in folder.rglob("*") if path.is_file()]


def displayed(value: Any) -> Any:
    """An output as the kernel would keep it."""
    import base64

    data, metadata = DisplayFormatter().format(value)
    data = {k: base64.b64encode(v).decode() if isinstance(v, bytes) else v for k, v in data.items()}
    return shown(data, **metadata)


@fault("classes with hostile names, from the folder to the page", category="names", tries=len(HOSTILE), quick=5)
def of_class(folder: Path, seed: int) -> None:
    names = (HOSTILE[seed], HOSTILE[(seed + 7) % len(HOSTILE)])
    if any(name.startswith(".") for name in names):  # hidden folders are no classes
        return
    write_folder(folder / "root" / "scans", names)
    dataset = loaded("scans", folder / "root")
    if dataset is None:
        return
    assert dataset.class_names == tuple(sorted(names))
    profile = get_profile("cpu")
    counts, form = eda.class_counts(dataset), eda.label_format(dataset)
    variables = (set_variable("CXR_REPORT", str(folder / "report")), set_variable("CXR_PROFILE", None))
    with variables[0], variables[1], warnings.catch_warnings(action="ignore"):  # matplotlib's, of glyphs and room
        try:
            head = prose.page_head(profile, {"scans": dataset}, imagenet=True, commit="0123456789")
            outputs = [
                Markdown(head),
                counts,
                Markdown(prose_eda.shown(counts)),
                Markdown(prose_eda.reading_of_format(dataset, form)),
                Markdown(prose_eda.reading_of_counts(counts, eda.prevalence_shift(counts))),
                report.save_figure(plots.plot_balance(counts), "01_balance", profile, alt=names[0]),
                report.save_answer("01_a", f"{prose.heading(dataset)}\n\n{names[0]}", profile),
            ]
        finally:
            PAGE.profile, PAGE.data = None, {}
    content = notebook(*(code("f()", displayed(value)) for value in outputs), number="01")
    page = assert_self_contained(pages.notebook_page(content, profile).html)
    assert len(page.named("script")) == 1 and not page.named("iframe")
    assert all(str(picture["src"]).startswith("data:") for picture in page.named("img"))
    for name in names:
        if name.isalnum() or name.startswith("<"):
            assert name in page.text, "a name is not shown as it is"
