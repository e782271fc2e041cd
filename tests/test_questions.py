"""What the notebooks ask of finished runs: anchors of the sanity check, ImageNet's pairs, going through a plan."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import texture_config, texture_dataset
from studies import make_run

from cxr_helpers import plans, report
from cxr_helpers.config import RuntimeConfig
from cxr_helpers.pretrain import pretrain
from cxr_helpers.report import comparisons, prose_study, tables
from cxr_helpers.report.published import published_table


def test_every_start_from_imagenet_meets_its_twin_and_what_it_started_from() -> None:
    names = ["SimCLR", "SimCLR from ImageNet (layer4 refit)", "ImageNet (layer4 refit), frozen", "Supervised"]
    names += ["SimCLR, fine-tuned", "SimCLR from ImageNet (layer4 refit), fine-tuned"]
    names += ["ImageNet (layer4 refit), fine-tuned", "Random encoder"]
    pairs = comparisons.imagenet_pairs(pd.DataFrame({"label": names}))
    wanted = [(1, 0), (1, 2), (1, 3), (5, 4), (5, 6), (5, 3), (6, 4), (6, 3)]
    assert pairs == [(names[a], names[b]) for a, b in wanted]
    assert comparisons.imagenet_pairs(pd.DataFrame({"label": ["VICReg from ImageNet", "SimCLR"]})) == []
    started = ["SimCLR from ImageNet", "VICReg from ImageNet", "VICReg from ImageNet, fine-tuned"]
    assert comparisons.imagenet_pairs(pd.DataFrame({"label": started})) == [(started[0], started[1])]  # frozen both


@pytest.mark.parametrize(
    ("quality", "word"), [(6.0, "helps"), (0.2, "hurts"), (3.0, "no difference that could be shown")]
)
def test_the_verdict_says_helps_or_hurts_only_where_the_interval_excludes_0(
    tmp_path: Path, quality: float, word: str
) -> None:
    runs = [make_run(tmp_path, method="simclr", seed=s, quality=3.0, noise=s) for s in (0, 1, 2)]
    runs += [
        make_run(tmp_path, method="simclr", seed=s, quality=quality, noise=10 + s, init="imagenet") for s in (0, 1, 2)
    ]
    runs.append(make_run(tmp_path, method="supervised", policy="supervised", quality=9.0))
    summary = tables.summary_table(runs, num_resamples=50)
    pairs = comparisons.paired_table(runs, comparisons.imagenet_pairs(summary), num_resamples=300)
    text = prose_study.imagenet_verdict(pairs, imagenet=True)
    assert f"**{word}**" in text or f"**makes {word}**" in text
    assert f"{100 * abs(pairs.difference[0]):.1f} points" in text
    against_labels = next(line for line in text.splitlines() if line.startswith("- Beside training on the labels"))
    assert "Supervised" in against_labels and "helps" not in against_labels and "hurts" not in against_labels


def test_two_methods_from_one_start_are_compared_without_a_word_on_the_start(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, method=m, init="imagenet", quality=q) for m, q in (("simclr", 1.0), ("vicreg", 5.0))]
    summary = tables.summary_table(runs, num_resamples=50)
    pairs = comparisons.paired_table(runs, comparisons.imagenet_pairs(summary), num_resamples=300)
    (line,) = (line for line in prose_study.imagenet_verdict(pairs, imagenet=True).splitlines() if line[:1] == "-")
    assert line.startswith("- Two methods, both started from ImageNet: SimCLR from ImageNet is **worse** than VICReg")
    assert "helps" not in line and "hurts" not in line


def test_the_verdict_stays_open_without_weights_or_runs() -> None:
    missing = prose_study.imagenet_verdict(pd.DataFrame(), imagenet=False)
    assert "verdict is open" in missing and "CXR_IMAGENET_WEIGHTS" in missing
    assert "verdict is open" in prose_study.imagenet_verdict(pd.DataFrame(), imagenet=True)
    assert "leaves ImageNet" in prose_study.imagenet_verdict(pd.DataFrame(), imagenet=False, planned=False)


def test_a_short_or_substituted_sanity_check_is_not_compared_with_the_band() -> None:
    row = {"label": "SimCLR", "family": "simclr", "metric": "accuracy", "test_mean": 0.5, "test_low": 0.4}
    row |= {"test_high": 0.6, "test_knn": 0.45}
    floor = {**row, "label": "Random encoder", "family": "random", "test_mean": 0.3}
    data = dataclasses.replace(texture_dataset("multiclass"), name="cifar10")
    pair = {"a": "SimCLR", "b": "Random encoder", "difference": 0.2, "low": 0.17, "high": 0.23}
    text = prose_study.reading_of_sanity(pd.DataFrame([row, floor]), pd.DataFrame([pair]), data, 10)
    assert "50.0 % by linear probe [40.0, 60.0], 45.0 % by kNN; +20.0 points [+17.0, +23.0]" in text
    assert "10 epochs instead of 100" in text and "40 of CIFAR-10's training images" in text
    alone = prose_study.reading_of_sanity(pd.DataFrame([row]), pd.DataFrame(), texture_dataset(), 100)
    assert "instead of CIFAR-10" in alone and "untrained" not in alone
    assert set(published_table("cifar10").value) >= {0.8, 0.83, 0.856}


@pytest.mark.parametrize(("quality", "said"), [(4.0, "**Above the untrained encoder**"), (0.1, "**Not shown to have")])
def test_a_method_has_learnt_only_where_it_is_above_the_untrained_encoder_beyond_doubt(
    tmp_path: Path, quality: float, said: str
) -> None:
    runs = [
        make_run(tmp_path, method="simclr", quality=quality),
        make_run(tmp_path, epochs=0, policy="none", quality=0.1),
    ]
    summary = tables.summary_table(runs, num_resamples=50)
    floors = comparisons.paired_table(runs, comparisons.floor_pairs(summary), num_resamples=300)
    text = prose_study.reading_of_sanity(summary, floors, texture_dataset(), 6)
    first, *others = text.splitlines()
    assert first.startswith(said) and first.endswith(": SimCLR.")
    assert not any(line.startswith("**") for line in others)


def test_the_first_loss_is_that_of_the_first_batch_and_stands_beside_theory(
    tiny_net: None, runtime: RuntimeConfig
) -> None:
    data = texture_dataset()
    simclr = pretrain(texture_config(epochs=2), data, runtime)
    one_step = texture_config(epochs=1, batch_size=40)
    assert simclr.history.first_loss.notna().all()
    alone = pretrain(one_step, data, runtime).history.iloc[0]
    assert alone.first_loss == alone.loss  # an epoch of one batch
    vicreg = pretrain(texture_config(method="vicreg"), data, runtime)
    text = prose_study.reading_of_first_losses([simclr, vicreg])
    assert f"log 31 = {math.log(31):.3f}" in text
    assert "24.750, its variance term alone" in text  # 25 (1 - sqrt(1e-4))
    assert f"{simclr.history.first_loss[0]:.3f}" in text
    assert "No record" in prose_study.reading_of_first_losses([])


def test_a_plan_is_gone_through_or_what_is_missing_is_listed(tiny_net: None, runtime: RuntimeConfig) -> None:
    data = {"textures": texture_dataset()}
    plan = [texture_config(epochs=0, policy="none"), texture_config(seed=1)]
    part = report.run_plan(plan, data, runtime, train_missing=False)
    assert [run.record["epochs"] for run in part.runs] == [0] and list(part.missing.seed) == [1]
    assert "test" in part.runs[0].metrics["linear"]
    whole = report.run_plan(plan, data, runtime, test=False)
    assert len(whole.runs) == 2 and whole.missing.empty and whole.of("textures") == whole.runs and not whole.of("x")
    assert "test" not in whole.runs[1].metrics["linear"]
    assert report.run_plan([], data, runtime, train_missing=False).runs == []
    work = report.work_list(plan, data, runtime)
    assert f"| none | 0: loaded, {report.page_commit()} |" in report.shown_work(work, by="policy")
    assert list(tables.joined(part.missing, whole.missing).seed) == [1] and tables.joined(whole.missing).empty


def test_methods_meet_each_other_and_every_encoder_of_their_own_protocol() -> None:
    names = ["SimCLR", "VICReg", "Random encoder", "Supervised", "SimCLR, fine-tuned", "VICReg, fine-tuned"]
    summary = pd.DataFrame({"label": [*names, "SimCLR (Films)"], "family": [*names, "file"]})
    pairs = comparisons.method_pairs(summary, "SimCLR", "VICReg")
    assert "Films" not in str(pairs)  # of other data: `transfer_pairs`
    assert pairs[0] == ("SimCLR", "VICReg") and ("VICReg", "Random encoder") in pairs
    assert [pair for pair in pairs if "fine-tuned" in str(pair)] == [
        ("SimCLR, fine-tuned", "VICReg, fine-tuned"),
        ("SimCLR, fine-tuned", "Supervised"), ("VICReg, fine-tuned", "Supervised"),
    ]  # fmt: skip


def test_an_encoder_of_other_data_is_named_after_them_and_set_against_its_twin_and_the_floor(
    tiny_net: None, runtime: RuntimeConfig
) -> None:
    films = dataclasses.replace(texture_dataset(counts=(44, 24, 24)), name="films")
    colour = dataclasses.replace(texture_dataset(channels=3), name="colour")
    data = {"textures": texture_dataset(), "films": films, "colour": colour}
    plan = [texture_config(dataset=name, seed=seed) for name, seed in (("textures", 0), ("films", 0), ("films", 1))]
    plan.append(texture_config(epochs=0, policy="none"))
    done = report.run_plan(plan, data, runtime)
    transfer = plans.plan_transfer(done.runs, data)
    assert [(c.dataset, c.seed, c.epochs) for c in transfer] == [
        ("films", 0, 0), ("textures", 0, 0), ("textures", 1, 0)
    ]  # fmt: skip
    carried = report.run_plan(transfer, data, runtime, train_missing=False)
    assert carried.missing.empty and len(carried.runs) == 3
    parent, child = done.of("textures")[0], carried.of("films")[0]
    before, after = (run.backbone().net.state_dict() for run in (parent, child))
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert "test" in child.metrics["linear"]
    runs = [*done.of("textures"), *carried.of("textures")]
    summary = tables.summary_table(runs, num_resamples=50)
    assert summary.set_index("label").num_seeds["SimCLR (films)"] == 2
    pairs = comparisons.transfer_pairs(summary)
    assert pairs == [("SimCLR (films)", "SimCLR"), ("SimCLR (films)", "Random encoder")]
    compared = comparisons.paired_table(runs, pairs, num_resamples=50)
    assert list(zip(compared.a, compared.b, strict=True)) == pairs

    (parent.weights).unlink()  # records travel without weights
    assert report.run_plan(transfer, data, runtime, train_missing=False).missing.empty
    for file in sorted(child.path.iterdir(), reverse=True):
        file.unlink()
    (missing,) = report.run_plan(transfer, data, runtime, train_missing=False).missing.itertuples()
    assert missing.status == "its weights are not here" and "--init" in missing.command


def test_fine_tuning_and_imagenet_have_their_own_columns() -> None:
    base = texture_config()
    plan = [base, dataclasses.replace(base, init="imagenet"), texture_config(method="supervised")]
    plan += [texture_config(method="supervised", init="x/backbone.safetensors", backbone_lr_factor=0.1)]
    table = report.hyperparameter_table(plan).set_index("parameter")
    columns = ["SimCLR", "SimCLR from ImageNet", "Supervised", "Fine-tuned", "probes", "what it is and why"]
    assert list(table) == columns
    assert table["Fine-tuned"]["backbone_lr_factor"] == 0.1 and table["Supervised"]["backbone_lr_factor"] == 1
    assert table["SimCLR"]["temperature"] == table["SimCLR from ImageNet"]["temperature"]
    assert list(table.index).count("temperature") == 1


def test_reasons_stand_beside_the_values_they_were_given_for(runtime: RuntimeConfig) -> None:
    own = report.hyperparameter_table([texture_config(batch_size=None)]).set_index("parameter")
    assert own["SimCLR"]["batch_size"] == 256 and "510 negatives" in own["what it is and why"]["batch_size"]
    other = report.hyperparameter_table([texture_config(batch_size=48)]).set_index("parameter")
    assert "510 negatives" not in other["what it is and why"]["batch_size"]
    for given, said in (
        ({}, "correlate by .75"),
        ({"invariance_weight": 25}, "the paper"),
        ({"invariance_weight": 3}, ""),
    ):
        table = report.hyperparameter_table([texture_config(method="vicreg", options=given)]).set_index("parameter")
        why = table["what it is and why"]["invariance_weight"]
        assert said in why and ("the paper (" in why) is (said == "the paper") and bool(why) is bool(said)
    both = [
        texture_config(method="vicreg", options={"output_dim": 64}),
        texture_config(method="vicreg", init="imagenet", options={"output_dim": 8192}),
    ]
    why = report.hyperparameter_table(both).set_index("parameter")["what it is and why"]["output_dim"]
    assert why.startswith("64: of the order of the batch") and "; 8192: the paper" in why
