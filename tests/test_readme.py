"""The README's result section comes from records, and from nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from studies import make_run, make_study

from cxr_helpers.report import report
from cxr_helpers.report.comparisons import paired_table
from cxr_helpers.report.goals import GOALS
from cxr_helpers.report.lineage import run_label
from cxr_helpers.report.readme import films_first, goal_section, main, result_section, run_section, write_readme
from cxr_helpers.report.speed import speed_section
from cxr_helpers.report.tables import collect_runs

PAGE = "# Title\n\n<!-- results: written by make -->\nold\n<!-- /results -->\n\nrest\n"


def test_the_section_lists_every_configuration_with_seeds_interval_and_verdict(tmp_path: Path) -> None:
    make_study(tmp_path)
    section = result_section(films_first(tmp_path))
    for label in ("SimCLR", "VICReg", "Supervised", "Random encoder"):
        assert f"| {label} |" in section
    assert section.count("95 % interval") >= 3
    assert "SimCLR is **" in section or "SimCLR and Random encoder are **" in section
    first = next(line for line in section.splitlines() if line.startswith("- "))
    assert "SimCLR" in first and "VICReg" in first  # the question before its context
    opened, folded = section.split("<details>")  # which a reader opens; GitHub reads Markdown there after a blank line
    assert first in opened and first not in folded
    inside, _, _ = folded.partition("</details>")
    pairs = [line for line in inside.splitlines() if line.startswith("- ")]
    assert (
        f"<summary>{len(pairs)} more comparisons of rows" in inside and "</summary>\n\n- " in inside and len(pairs) > 1
    )


def test_data_sets_never_share_a_table_and_phantoms_are_left_out(tmp_path: Path) -> None:
    for dataset in ("pneumoniamnist", "chestmnist", "phantom"):
        make_run(tmp_path, dataset=dataset)
    section = result_section(films_first(tmp_path))
    assert section.count("test AUC by the protocol") == 2
    assert "phantom" not in section.lower()
    opened, folded = section.split("<details><summary>ChestMNIST, 64 px: 1 row</summary>\n\n")
    assert "**PneumoniaMNIST, 64 px" in opened and "details" not in opened  # the first data set is what a reader sees
    assert folded.startswith("**ChestMNIST, 64 px") and folded.endswith("\n</details>\n")


def test_every_row_is_set_against_frozen_imagenet_and_the_untrained_encoder(tmp_path: Path) -> None:
    make_run(tmp_path, quality=3.0)
    make_run(tmp_path, quality=2.0, policy="none", epochs=0, init="imagenet")
    make_run(tmp_path, quality=1.0, policy="none", epochs=0)
    lines = result_section(films_first(tmp_path)).splitlines()
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    column = {name: head.index(name) for name in ("minus frozen ImageNet, points", "minus untrained, points")}
    table = {row[0]: {name: row[i] for name, i in column.items()} for row in rows}
    members = {run_label(run): run for run in collect_runs(tmp_path)}
    pairs = paired_table(members.values(), [("SimCLR", name) for name in members if name != "SimCLR"]).set_index("b")
    for name, cell in (
        ("ImageNet, frozen", "minus frozen ImageNet, points"), ("Random encoder", "minus untrained, points"),
    ):  # fmt: skip
        found = pairs.loc[name]
        shown = f"{100 * found.difference:+.1f}".replace("-", "−")
        assert table["SimCLR"][cell].startswith(f"**{shown}** [" if found.low > 0 or found.high < 0 else f"{shown} [")
    assert table["ImageNet, frozen"]["minus frozen ImageNet, points"] == ""
    assert table["ImageNet, frozen"]["minus untrained, points"] and not any(table["Random encoder"].values())
    assert not [line for line in lines if line.startswith("- ")]  # nothing is said twice


def test_a_difference_is_bold_only_where_its_interval_excludes_zero() -> None:
    summary = pd.DataFrame({"label": ["A", "B"], "family": ["simclr", "random"]})
    pairs = pd.DataFrame({"a": ["A"], "b": ["B"], "difference": [-0.01], "low": [-0.02], "high": [0.001]})
    for verdict, cell in (("not distinguishable", "−1.0 [−2.0, +0.1]"), ("worse", "**−1.0** [−2.0, +0.1]")):
        columns = report._floor_columns(summary, pairs.assign(verdict=verdict))
        assert columns == {"minus untrained, points": {"A": cell}}


def test_two_floors_of_one_kind_have_a_column_each() -> None:
    summary = pd.DataFrame({"label": ["A", "B [1]", "B [2]"], "family": ["simclr", "random", "random"]})
    pairs = pd.DataFrame({"a": ["A", "A"], "b": ["B [1]", "B [2]"], "difference": [0.01, 0.02]})
    pairs = pairs.assign(low=0.005, high=0.03, verdict="better")
    columns = report._floor_columns(summary, pairs)
    assert columns["minus B [1], points"]["A"].startswith("**+1.0**")
    assert columns["minus B [2], points"]["A"].startswith("**+2.0**")


def test_training_on_part_of_the_labels_is_not_set_against_floors_probed_with_all(tmp_path: Path) -> None:
    make_study(tmp_path, (0,))
    make_run(tmp_path, method="supervised", policy="supervised", label_fraction=0.1)
    rows = [line for line in result_section(films_first(tmp_path)).splitlines() if line.startswith("| Supervised")]
    cells = {row.split("|")[1].strip(): row for row in rows}
    assert "**+" in cells["Supervised"] and "+" not in cells["Supervised, 10 % of labels"]


def test_supervised_training_is_what_pretraining_is_measured_by(tmp_path: Path) -> None:
    make_study(tmp_path)
    said = [line for line in result_section(films_first(tmp_path)).splitlines() if line.startswith("- ")]
    for name in ("SimCLR", "VICReg"):
        assert any(line.startswith(f"- {name}") and "Supervised" in line for line in said)


def test_controls_that_were_measured_say_what_else_explains_an_auc(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    columns = ("control", "kind", "auc", "low", "high", "difference", "difference_low", "difference_high")
    measured = ("as measured", "measured", 0.9, 0.8, 0.95, 0.0, 0.0, 0.0)
    frame = ("border 1/8", "alone", 0.7, 0.6, 0.8, -0.2, -0.3, -0.1)
    without = ("grey levels equalised", "removed", 0.85, 0.8, 0.9, -0.05, -0.08, -0.02)
    table = pd.DataFrame([measured, frame, without], columns=columns).assign(split="test")
    assert "what survives" not in result_section(films_first(tmp_path))
    table.to_csv(run.path / "controls.csv", index=False)
    line = next(line for line in result_section(films_first(tmp_path)).splitlines() if "what survives" in line)
    assert line.startswith(
        "- **SimCLR, seed 0, 0.900 [0.800, 0.950]: what survives.** Alone, more than chance is reached by: "
    )
    assert "border 1/8 0.700" in line and "none of them, as far as a linear probe reads it, is all of it" in line
    assert "What costs AUC: grey levels equalised (−5.0 points)." in line


def test_cifar_stands_last_and_under_its_own_metric(tmp_path: Path) -> None:
    run = make_run(tmp_path, dataset="cifar10", size=32)
    make_run(tmp_path, dataset="pneumoniamnist")
    metrics = json.loads((run.path / "metrics.json").read_text())
    for split in ("val", "test"):
        table = pd.read_csv(run.path / f"predictions_{split}.csv.gz")
        right = float(((table["score/ill"] > 0.5) == table["label"]).mean())
        metrics["linear"][split] = {"accuracy": right, "accuracy_low": right - 0.1, "accuracy_high": right + 0.1}
        metrics["knn"][split] = {"accuracy": 0.5}
    (run.path / "metrics.json").write_text(json.dumps(metrics))
    titles = [line for line in result_section(films_first(tmp_path)).splitlines() if line.startswith("**")]
    assert ["test AUC by" in titles[0], "test accuracy by" in titles[1]] == [True, True]
    assert titles[1].startswith("**CIFAR-10, 32 px")


def test_without_a_record_the_section_says_so(tmp_path: Path) -> None:
    assert result_section(films_first(tmp_path)) == "No finished run with a test figure is recorded yet.\n"


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


def test_every_run_is_listed_once_with_the_command_that_repeats_it(tmp_path: Path) -> None:
    runs = make_study(tmp_path, (0, 1))
    for run in runs:
        environment = json.loads((run.path / "environment.json").read_text())
        command = f"python train.py --method {run.record['method']} --epochs {run.record['epochs']} --seed "
        environment |= {"command": f"{command}{run.record['seed']}", "seconds": 60.0 * (1 + 2 * run.record["seed"])}
        (run.path / "environment.json").write_text(json.dumps(environment))
    section = run_section(films_first(tmp_path))
    assert all(section.count(f"](runs/{run.id})") == 1 for run in runs)
    pair = [run.id for run in runs if run_label(run) == "SimCLR"]
    line = f"- **SimCLR**, seeds [0](runs/{pair[0]}), [1](runs/{pair[1]}); a processor, 1 to 3 min each:\n"
    assert f"{line}  `python train.py --method simclr --epochs 6 --seed N --test`" in section
    for run in runs:
        if run.id != pair[0] and run.record["seed"] == 0:
            (run.path / "metrics.json").unlink()  # not finished: not among what was measured
    section = run_section(films_first(tmp_path))
    assert section.count("](runs/") == 5 and ", seed [1](" in section and "--epochs 6 --seed 1 --test" in section
    assert run_section([]) == "No finished run with a test figure is recorded yet.\n"


def test_both_pages_are_written_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = tmp_path / "results"
    make_run(results)
    monkeypatch.chdir(tmp_path)
    Path("README.md").write_text(PAGE)
    main(results)
    assert "old" not in Path("README.md").read_text() and not (results / "README.md").exists()
    (results / "README.md").write_text("# A\n\n<!-- runs: here -->\nold\n<!-- /runs -->\n")
    main(results)
    text = (results / "README.md").read_text()
    assert "old" not in text and text.count("](runs/") == 1 and text.startswith("# A\n") and "| SimCLR |" not in text


def test_a_page_without_markers_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("# Title\n")
    with pytest.raises(ValueError, match=r"README.md must hold the lines <!-- results"):
        write_readme(page, tmp_path)


def benchmark(folder: Path, name: str = "throughput-cpu") -> None:
    """A table of two contenders and one that is not installed, as `benchmarks.throughput` writes it."""
    folder = folder / "benchmarks"
    folder.mkdir()
    rows = [("this package", 30.0, 28.0, 31.0, 1.0, 5, ""), ("peer", 12.5, 12.0, 13.0, 2.4, 5, "")]
    rows.append(("absent", None, None, None, None, 0, "absent is not installed"))
    columns = ["contender", "per_second", "slowest", "fastest", "ours_over_it", "rounds", "note"]
    table = pd.DataFrame(rows, columns=columns).assign(what="training, images/s", size=224, batch=16)
    table.to_csv(folder / f"{name}.csv", index=False)
    machine = {"device_name": "A Processor", "threads": 2, "precision": "32-true", "torch": "2.12.1"}
    machine |= {"peers": {"lightly": "1.6.0"}, "started": "2026-11-22T05:00:00+00:00", "command": "python -m x"}
    (folder / f"{name}.json").write_text(json.dumps(machine))


def test_the_speed_section_shows_medians_ranges_ratios_and_what_was_not_measured(tmp_path: Path) -> None:
    benchmark(tmp_path)
    section = speed_section(tmp_path)
    assert "On CUDA: not measured." in section and "On CPU" not in section
    assert "| peer | 12.5 [12, 13] | 2.40 |" in section and "| absent | absent is not installed |" in section
    assert "A Processor, 2 threads, 32-true" in section and "2026-11-22 (`python -m x`)" in section


def test_memory_counted_on_a_cpu_is_not_passed_off_as_measured(tmp_path: Path) -> None:
    (tmp_path / "benchmarks").mkdir()
    rows = {"micro_batch": [256, 64], "sum_gib": [5.84, 1.66], "measured_gib": [float("nan")] * 2}
    table = pd.DataFrame(rows).assign(size=224, method="simclr", precision="bf16-mixed", batch=256)
    table.to_csv(tmp_path / "benchmarks" / "memory.csv", index=False)
    section = speed_section(tmp_path)
    assert "| 224 | simclr | bf16-mixed | 5.84 | 1.66 | not measured |" in section


def test_speed_is_written_where_the_page_has_a_place_for_it(tmp_path: Path) -> None:
    make_run(tmp_path)
    benchmark(tmp_path)
    page = tmp_path / "README.md"
    page.write_text(PAGE + "<!-- speed: written by make -->\nstale\n<!-- /speed -->\n")
    write_readme(page, tmp_path)
    text = page.read_text()
    assert "stale" not in text and "12.5 [12, 13]" in text and text.endswith("<!-- /speed -->\n")


def test_few_labels_are_compared_draw_by_draw_once_supervised_training_had_the_same(tmp_path: Path) -> None:
    run = make_run(tmp_path, quality=3.0)
    draws = range(3)
    curve = [
        {
            "fraction": 0.01,
            "draw": i,
            "num_labels": 50,
            "num_patients": 40,
            "c": 1.0,
            "val": 0.9,
            "test": 0.95 + i / 100,
        }
        for i in draws
    ]
    pd.DataFrame(curve).to_csv(run.path / "label_curve.csv", index=False)
    assert "Few labels" not in result_section(films_first(tmp_path))
    parts = [make_run(tmp_path, method="supervised", policy="supervised", label_fraction=0.01, seed=i) for i in draws]
    line = next(line for line in result_section(films_first(tmp_path)).splitlines() if "**1 %** (50 labels)" in line)
    differences = [row["test"] - part.metrics["head"]["test"]["auc"] for row, part in zip(curve, parts, strict=True)]
    mean = f"{100 * sum(differences) / 3:+.1f}".replace("-", "−")
    assert line.strip().startswith(f"- **1 %** (50 labels): SimCLR {mean} [")
    assert "nan" not in line and "inf" not in line


def test_every_goal_stands_once_with_the_best_that_was_reached_at_any_size(tmp_path: Path) -> None:
    made = [make_run(tmp_path, dataset="pneumoniamnist", size=size, quality=q) for size, q in ((64, 1.0), (224, 1.5))]
    small, large = (run.metrics["linear"]["test"]["auc"] for run in made)
    assert small < large
    section = goal_section(films_first(tmp_path))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"][
        2:
    ]
    assert len(rows) == len(GOALS) and section.startswith(f"Of {len(GOALS)} goals: ")
    by_goal = {(row[1], row[2]): row for row in rows}
    assert by_goal["SimCLR, frozen, linear probe", "0.970"][0] == "PneumoniaMNIST, 64 px"
    assert by_goal["SimCLR, frozen, linear probe", "0.970"][3].startswith(f"{small:.3f} [")
    assert by_goal["SimCLR, frozen, linear probe", "0.980"][3].startswith(f"{large:.3f} [")
    best = by_goal["best frozen ResNet-18, however read", "0.985"]  # set for no size: one row, the larger figure
    assert best[0] == "PneumoniaMNIST, 224 px" and best[3].startswith(f"{large:.3f} [")
    absent = [row for row in rows if row[-1] == "not measured"]
    assert {"ChestMNIST", "CIFAR-10"} <= {row[0] for row in absent} and all(row[3] == "–" for row in absent)


def test_a_goal_set_for_all_images_is_not_reached_nor_missed_on_a_part(tmp_path: Path) -> None:
    what = "| SimCLR, linear probe, all training images | 0.860 |"
    make_run(tmp_path / "part", dataset="cifar10", size=32, notes=["subset: 10,000 training images"])
    line = next(line for line in goal_section(films_first(tmp_path / "part")).splitlines() if what in line)
    assert line.endswith("| not measured |")
    make_run(tmp_path / "all", dataset="cifar10", size=32)
    line = next(line for line in goal_section(films_first(tmp_path / "all")).splitlines() if what in line)
    assert not line.endswith("| not measured |") and line.startswith("| CIFAR-10, 32 px |")


def test_goals_are_written_where_the_page_has_a_place_for_them(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(PAGE + "<!-- goals: written -->\nstale\n<!-- /goals -->\n")
    write_readme(page, tmp_path)
    text = page.read_text()
    assert "stale" not in text and f"Of {len(GOALS)} goals: {len(GOALS)} not measured." in text
