"""A page needs nothing but itself, shows what a notebook says without obeying it, and stays below its size."""

from __future__ import annotations

import base64
import io
import re
from html import escape, unescape
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image
from reports import Parsed, assert_self_contained, code, head_output, notebook, picture, png, shown

from cxr_helpers.profiles import get_profile
from cxr_helpers.report import pages
from cxr_helpers.report.index import answers_of, files_of, index_page
from cxr_helpers.report.markup import Body, outside_references

CPU, QUICK = get_profile("cpu"), get_profile("quick")
NAME = '<script>alert("x")</script> & "quotes"'


def page_of(*cells: object, profile: str = "cpu", **settings: object) -> Parsed:
    """The parsed page of a tiny notebook with a head, checked for being self-contained."""
    content = notebook(code("head()", head_output(profile)), *cells)  # type: ignore[arg-type]
    return assert_self_contained(pages.notebook_page(content, get_profile(profile), **settings).html)  # type: ignore[arg-type]


# ---- what a page shows


def test_a_page_says_at_its_top_which_profile_data_device_and_commit_made_it() -> None:
    text = page_of(profile="quick").text
    banner = text.index(
        "Profile quick: not evidence · Phantom 64 px, Films | plain 64 px · CPU, 2 threads · commit 0123"
    )
    assert banner < text.index("About these figures.") < text.index("04 · Tiny")
    assert text.count("About these figures.") == 1
    assert "not evidence" not in page_of().text


def test_a_page_without_provenance_says_so() -> None:
    page = pages.notebook_page(notebook(), CPU)
    assert page.provenance is None and "does not say which data, device and commit" in page.html


def test_the_title_and_the_question_come_from_the_first_cell() -> None:
    page = pages.notebook_page(notebook(title="A *title*"), CPU)
    assert page.title == "04 · A *title*" and page.question == "Does it run, and\nwhere?"


def test_names_of_data_sets_and_classes_are_shown_not_obeyed() -> None:
    said = shown(
        {"text/markdown": f"### {NAME}\n\n| class |\n|---|\n| {NAME} |\n\n<img src=x onerror=alert(1)> {NAME}"}
    )
    stream = {"output_type": "stream", "name": "stdout", "text": f"\x1b[31m{NAME}\x1b[0m"}
    page = page_of(code("f()", said, shown({"text/plain": NAME}), picture(png(), alt=NAME)))
    assert page.text.count('alert("x")') >= 4 and len(page.named("script")) == 1
    assert page.named("img") and all(a["alt"] == NAME for a in page.named("img"))
    assert "onerror" in page.text
    printed = page_of(code("f()", nbformat.from_dict(stream)))
    assert NAME in printed.text and "\x1b" not in printed.text


def test_a_name_cannot_fetch_a_picture_and_what_it_says_is_shown() -> None:
    page = page_of(code("f()", shown({"text/markdown": "### ![spy](https://example.org/x.png)\n\n![a](x.png)"})))
    assert "![spy](https://example.org/x.png)" in page.text and not page.named("img")


@pytest.mark.parametrize(
    "active",
    [
        "<script>alert(1)</script>",
        "<b onclick='alert(1)'>x</b>",
        "<a href='JavaScript:alert(1)'>x</a>",
        "<form></form>",
    ],
)
def test_a_cell_that_says_something_that_runs_makes_no_page(active: str) -> None:
    with pytest.raises(ValueError, match="must run nothing of what its cells say"):
        pages.notebook_page(notebook(code("f()", shown({"text/html": active}))), CPU)


def test_answers_written_after_a_build_are_not_shown_under_its_name(tmp_path: Path) -> None:
    (tmp_path / "answers").mkdir()
    (tmp_path / "answers" / "04_a.md").write_text("the build's answer")
    made = {"state": "done", "build": "today", "title": "04 · T", "files": files_of(tmp_path, "04_tiny")}
    record = {"profile": "cpu", "started": "today", "finished": "today", "pages": {"04_tiny": made}}
    assert "the build's answer" in Parsed(index_page(record, tmp_path, CPU)).text
    (tmp_path / "answers" / "04_b.md").write_text("an afterthought")
    text = Parsed(index_page(record, tmp_path, CPU)).text
    assert "afterthought" not in text and "written after this build" in text


def test_links_cannot_run_code() -> None:
    page = page_of("[here](javascript:alert(1)) and [there](https://doi.org/10.1000/1)")
    addresses = [a["href"] for a in page.named("a")]
    assert "https://doi.org/10.1000/1" in addresses and not [a for a in addresses if a and "javascript" in a]


def test_equal_headings_get_different_ids_and_the_contents_list_has_them_all() -> None:
    page = page_of(
        "## Loss\n\n### Set, 64 px", code("f()", shown({"text/markdown": "### Set, 64 px"})), "## Loss\n\n## –"
    )
    contents = [a["href"] for a in page.named("a") if str(a["href"]).startswith("#")]
    assert contents == ["#loss", "#set-64-px", "#set-64-px-2", "#loss-2", "#part"]


def test_code_is_folded_and_prose_and_results_are_not() -> None:
    page = page_of(code("first = 1\nsecond = 2", shown({"text/plain": "result"})))
    folded = [a for a in page.named("details") if a.get("class") == "code"]
    assert len(folded) == 2 and not [a for a in folded if "open" in a]
    assert "code cell 2, 2 lines" in page.text and "result" in page.text


def test_a_widget_becomes_a_sentence_and_loses_its_text_form() -> None:
    widget = {pages.WIDGET: {"model_id": "1", "version_major": 2}, "text/plain": "Box(children=(IntSlider(value=0),))"}
    content = notebook(code("explore()", shown(widget)))
    text = Parsed(pages.notebook_page(content, CPU).html).text
    assert "Box(children" not in text and "Interactive in JupyterLab; the static sheet follows." in text
    settled = pages.settle_widgets(content)
    assert settled.cells[1].outputs[0].data["text/plain"] == pages.INTERACTIVE
    assert "Interactive in JupyterLab" in Parsed(pages.notebook_page(settled, CPU).html).text


def test_a_progress_bar_leaves_nothing_behind() -> None:
    view = {pages.WIDGET: {"model_id": "1", "version_major": 2}}
    bars = [f"decoding films:   0%|          | 0/40 [00:00<?, ?{unit}/s]" for unit in ("img", "B")]
    bars.append("12.0B [00:01, ?B/s]")  # of a download without a length
    content = notebook(
        code("load()", *(shown({**view, "text/plain": bar}) for bar in bars), shown({"text/plain": "7"}))
    )
    content.cells[1].outputs[-1].data["text/plain"] = "told [00:00<?] as text"  # no widget: stays
    (kept,) = pages.settle_widgets(content).cells[1].outputs
    assert kept.data["text/plain"] == "told [00:00<?] as text"


def test_tables_scroll_by_themselves_and_keep_the_side_of_their_numbers() -> None:
    pandas = shown({"text/html": '<table border="1" class="dataframe"><thead><tr><th>n</th></tr></thead></table>'})
    page = page_of("| name | n |\n|---|---:|\n| a | 1 |", code("f()", pandas))
    boxes = [a for a in page.named("div") if a.get("class") == "table"]
    assert len(boxes) == 3 and all(a["tabindex"] == "0" for a in boxes)  # the head's table is the third
    assert not [a for a in page.named("table") if a]
    assert {"style": "text-align:right", "class": "short"} in page.named("td")


def test_values_stay_on_one_line_and_several_commits_do_not() -> None:
    page = page_of("| a | b |\n|---|---|\n| [0.671, 0.704] | 0446442a5f, 8ddb7fadf1 |")
    assert page.named("td")[-2:] == [{"class": "short"}, {}]


# ---- pictures


def test_a_picture_keeps_every_pixel_its_alternative_text_and_its_width() -> None:
    content = png(64)
    page = page_of(code("f()", picture(content, alt="a grey square", width=550)))
    (found,) = page.named("img")
    assert found["alt"] == "a grey square" and found["width"] == "550"
    again = Image.open(io.BytesIO(base64.b64decode(str(found["src"]).split(",")[1])))
    assert np.array_equal(np.asarray(again.convert("RGB")), np.asarray(Image.open(io.BytesIO(content))))


def test_pictures_are_compressed_until_the_page_is_small_enough_and_no_further_than_that() -> None:
    content = notebook(code("f()", picture(png(256, noisy=True))))
    whole = len(pages.notebook_page(content, CPU).html.encode())
    smaller = len(pages.notebook_page(content, CPU, most_bytes=whole - 1).html.encode())
    assert smaller < whole
    with pytest.raises(ValueError, match="a page must have at most 1,000 bytes, got"):
        pages.notebook_page(content, CPU, most_bytes=1000)


# ---- nothing from elsewhere


@pytest.mark.parametrize(
    "outside",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<link rel="stylesheet" href="//cdn.example/x.css">',
        '<img src="picture.png">',
        '<img srcset="http://example.org/x.png 2x">',
        "<style>@import 'https://example.org/x.css';</style>",
        "<style>p { background: url(https://example.org/x.png) }</style>",
        "<p style=\"background: url('http://example.org/x.png')\">x</p>",
        '<iframe src="https://example.org"></iframe>',
        '<object data="x.svg"></object>',
        '<meta http-equiv="refresh" content="0; url=https://example.org">',
        '<svg><use xlink:href="x.svg#a"></use></svg>',
    ],
)
def test_a_page_that_would_load_something_is_refused(outside: str) -> None:
    assert outside_references(outside)
    with pytest.raises(ValueError, match="must load nothing from elsewhere"):
        pages.notebook_page(notebook(code("f()", shown({"text/html": outside}))), CPU)


@pytest.mark.parametrize(
    "inside",
    [
        '<img src="data:image/png;base64,AAAA">',
        '<a href="https://example.org">a link to click</a>',
        "<style>p { background: url(data:image/png;base64,AAAA) }</style>",
        '<svg><use href="#a"></use></svg>',
        '<script>const text = "https://example.org";</script>',
        '<meta http-equiv="Content-Security-Policy" content="x"><meta http-equiv>',
    ],
)
def test_what_lies_in_the_page_itself_is_not_an_outside_reference(inside: str) -> None:
    assert outside_references(inside) == []


def test_formulas_become_mathml_with_their_parts_in_place() -> None:
    html = Body().markdown("The temperature $\\tau < 1$ and\n\n$$\\frac{a}{b}$$")
    formulas = re.findall(r'<math xmlns="http://www.w3.org/1998/Math/MathML" display="(\w+)">(.*?)</math>', html)
    assert [kind for kind, _ in formulas] == ["inline", "block"]
    assert unescape(re.sub(r"<[^>]+>", "", formulas[0][1])) == "τ<1"
    assert formulas[1][1] == "<mrow><mfrac><mrow><mi>a</mi></mrow><mrow><mi>b</mi></mrow></mfrac></mrow>"
    assert page_of(nbformat.v4.new_markdown_cell("$$x^2$$")).named("math")  # and such a page is self-contained


@pytest.mark.parametrize(
    "latex",
    [
        r"\unknowncommand{x}",
        r"\frac{1}{",
        r"\text{<img src=x onerror=alert(1)>}",
        r"\text{<img src=https://example.org/x.png>}",
        r"\href{javascript:alert(1)}{x}",
    ],
)
def test_what_is_no_formula_or_would_act_on_the_page_stays_text(latex: str) -> None:
    html = Body().markdown(f"See ${latex}$.")
    assert html == f'<p>See <code class="math inline">{escape(latex)}</code>.</p>\n'


def test_dollars_in_what_a_cell_says_are_no_formula() -> None:
    assert "<math" not in Body().markdown("classes $a$ and $b$", said=True)


def test_an_option_in_a_command_is_not_broken_between_its_dashes() -> None:
    assert Body().markdown("`train.py --seed 1`") == "<p><code>train.py <span>--seed</span> 1</code></p>\n"


# ---- the index


def record_of(**states: str) -> dict[str, object]:
    """A build's record: a page per notebook; `earlier` was finished by the build before."""
    made = {"profile": "cpu", "device": "CPU, 2 threads", "commit": "0123456789", "dirty": False, "head": "The head."}
    done = {
        **made,
        "data": [{"data": "Phantom", "px": "64"}],
        "shown_data": "Phantom 64 px",
        "made": "now",
        "seconds": 90,
    }
    entries = {}
    for name, state in states.items():
        about = {"title": f"{name[1:3]} · About {name}", "question": f"Why {name}?"}
        values = {**about, "state": state, "build": "second", "error": f"{name[1:]}, code cell 3 of 5, failed"}
        if state in ("done", "earlier"):
            values |= {**done, "state": "done", "build": "second" if state == "done" else "first"}
        entries[name[1:]] = values
    return {"profile": "cpu", "started": "second", "pages": entries}


def write_answer(folder: Path, slug: str, text: str) -> None:
    (folder / "answers").mkdir(exist_ok=True)
    (folder / "answers" / f"{slug}.md").write_text(text)


def test_the_index_opens_with_the_result_then_policy_and_imagenet_then_the_rest(tmp_path: Path) -> None:
    for slug in ("01_data", "03_policy", "04_b", "04_a", "05_imagenet"):
        write_answer(tmp_path, slug, f"Answer {slug}.\n\n# Heading of {slug}")
    record = record_of(n00_a="done", n01_b="done", n03_c="done", n04_d="done", n05_e="done")
    page = assert_self_contained(index_page(record, tmp_path, CPU))
    order = [page.text.index(f"Answer {slug}.") for slug in ("04_a", "04_b", "03_policy", "05_imagenet", "01_data")]
    assert order == sorted(order)
    assert page.text.index("Why n04_d?") < order[0] < page.text.index("Why n03_c?")
    assert len(page.named("h1")) == 1 and "The notebook states its answer on its own page: 00 · About" in page.text
    assert {f"{stem}.html" for stem in record["pages"]} <= {a["href"] for a in page.named("a")}  # type: ignore[attr-defined]
    assert "incomplete" not in page.text
    assert answers_of(tmp_path, "04_d") == [f"Answer 04_{x}.\n\n# Heading of 04_{x}" for x in "ab"]


def test_the_index_names_the_failed_notebook_and_shows_no_answer_of_it(tmp_path: Path) -> None:
    write_answer(tmp_path, "03_policy", "A stale answer.")
    write_answer(tmp_path, "05_imagenet", "An older answer.")
    record = record_of(n00_a="done", n03_c="failed", n04_d="waiting", n05_e="earlier")
    page = Parsed(index_page(record, tmp_path, QUICK))
    assert "03_c, code cell 3 of 5, failed." in page.text and "A stale answer." not in page.text
    assert "incomplete: 03_c failed; 04_d has not been run; 05_e ran in an earlier build (first)." in page.text
    assert page.text.index("From an earlier build, first.") < page.text.index("An older answer.")
    links = {a["href"] for a in page.named("a")}
    assert {"00_a.html", "05_e.html"} <= links and not {"03_c.html", "04_d.html"} & links
    assert "not evidence" in page.text


def test_pages_of_different_commits_are_called_that(tmp_path: Path) -> None:
    record = record_of(n00_a="done", n01_b="earlier")
    record["pages"]["01_b"]["commit"] = "abcdef"  # type: ignore[index]
    assert "made at different commits: 0123456789, abcdef." in Parsed(index_page(record, tmp_path, CPU)).text


def test_the_style_is_for_light_dark_narrow_and_paper() -> None:
    style = (Path(pages.__file__).parent / "page.css").read_text()
    for rule in ("prefers-color-scheme: dark", "max-width: 62rem", "@media print"):
        assert rule in style
    shared = set(re.findall(r"(--[a-z-]+):", style.partition("prefers-color-scheme")[0]))
    dark = re.findall(r"(--[a-z-]+):", style.partition("prefers-color-scheme")[2].partition("figure")[0])
    assert shared == set(dark)


def test_answers_stand_in_the_order_in_which_data_sets_are_studied(tmp_path: Path) -> None:
    names = ["04_chestmnist_1", "04_pneumoniamnist_2", "04_pneumoniamnist_1", "04_all"]
    for name in names:
        write_answer(tmp_path, name, name)
    expected = ["04_pneumoniamnist_1", "04_pneumoniamnist_2", "04_chestmnist_1", "04_all"]
    assert [text.strip() for text in answers_of(tmp_path, "04_d")] == expected
