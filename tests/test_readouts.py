"""Other ways to read a frozen encoder: the probe by hand, chosen on train alone, test read once per way and counted."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import texture_config, texture_dataset
from torchvision.models.feature_extraction import create_feature_extractor

from cxr_helpers import readouts
from cxr_helpers.augment import eval_transform
from cxr_helpers.config import ProbeConfig, RuntimeConfig
from cxr_helpers.data import Dataset
from cxr_helpers.evaluate import evaluate, run_features
from cxr_helpers.pretrain import pretrain
from cxr_helpers.probe import auc_score, linear_probe
from cxr_helpers.readouts import LAST_STAGE, READOUTS, choose_readout, readout_test_scores, readout_trials
from cxr_helpers.report import prose_rereading, rereading
from cxr_helpers.runs import Run, write_json

PROBE = ProbeConfig(cs=(0.01, 1.0), folds=2, sgd_epochs=1)
OTHER = "last two stages, mirrored too"


@pytest.fixture
def data() -> Dataset:
    return texture_dataset()


@pytest.fixture
def run(data: Dataset, runtime: RuntimeConfig) -> Run:
    return pretrain(texture_config(epochs=0, policy="none"), data, runtime)


def test_the_last_stage_of_the_whole_image_is_what_every_other_probe_reads(
    run: Run, data: Dataset, runtime: RuntimeConfig
) -> None:
    read = readouts._read(run, "val", data.val, runtime)
    plain = run_features(run, "val", data.val, runtime)
    np.testing.assert_allclose(read.features(READOUTS[LAST_STAGE]).x, plain.x, rtol=1e-4, atol=1e-5)
    assert read.widths == (256, 512)
    both = read.features(READOUTS["last two stages"]).x
    assert both.shape[1] == 768
    np.testing.assert_array_equal(both[:, -512:], read.features(READOUTS[LAST_STAGE]).x)
    backbone = run.backbone().eval()
    earlier = create_feature_extractor(backbone.net, return_nodes=["layer3"])
    with torch.no_grad():
        third = earlier(eval_transform(data.val.images, backbone.normalisation))["layer3"].mean(dim=(2, 3))
    np.testing.assert_allclose(both[:, :-512], third.numpy(), rtol=1e-3, atol=1e-4)
    again = readouts._read(run, "val", data.val, runtime)  # from the file beside the weights
    np.testing.assert_array_equal(again.views, read.views)
    np.testing.assert_allclose(read.features(READOUTS[OTHER]).x, read.views.mean(axis=0), rtol=1e-6)


def test_a_mirrored_image_is_read_like_the_image(run: Run, data: Dataset, runtime: RuntimeConfig) -> None:
    flipped = dataclasses.replace(data.val, images=data.val.images.flip(-1))
    way = READOUTS[OTHER]
    one, other = (readouts._read(run, name, split, runtime) for name, split in (("a", data.val), ("b", flipped)))
    np.testing.assert_allclose(one.features(way).x, other.features(way).x, rtol=1e-3, atol=1e-5)
    assert not np.allclose(
        one.features(READOUTS["last two stages"]).x, other.features(READOUTS["last two stages"]).x, rtol=1e-3
    )


def test_trials_are_the_linear_probe_of_every_way_and_leave_test_alone(
    run: Run, data: Dataset, runtime: RuntimeConfig
) -> None:
    trials = readout_trials(run, data, runtime, PROBE)
    assert list(trials.readout) == list(READOUTS)
    train, val = (readouts._read(run, n, data.splits[n], runtime).features(READOUTS[OTHER]) for n in ("train", "val"))
    by_hand = linear_probe(train, val, task="binary", config=PROBE)
    row = trials.set_index("readout").loc[OTHER]
    assert (row.dims, row.c) == (768, by_hand.c) and row.val == pytest.approx(by_hand.metrics["val"]["auc"])
    assert row.cv in [pytest.approx(cv["mean"]) for cv in by_hand.cv if cv["C"] == by_hand.c]
    assert not list(run.path.glob("features_stages_test*")) and "readout_reads" not in run.metrics
    for file in run.path.glob("*.safetensors"):
        file.unlink()
    again = readout_trials(run, data, runtime, PROBE)  # from the record
    pd.testing.assert_frame_equal(again, trials, check_dtype=False)


def test_the_choice_is_made_on_folds_of_train_and_of_equals_takes_the_first() -> None:
    def table(*cv: float, val: tuple[float, ...]) -> pd.DataFrame:
        return pd.DataFrame({"readout": ["plain", "more", "most"], "cv": cv, "val": val})

    one, other = table(0.7, 0.9, 0.6, val=(0.1, 0.1, 0.9)), table(0.7, 0.6, 0.8, val=(0.1, 0.1, 0.9))
    assert choose_readout([one]) == "more" and choose_readout([other]) == "most"
    assert choose_readout([one, other]) == "more"  # .75 in the mean, against .70 and .70
    assert choose_readout([table(0.7, 0.7, 0.7, val=(0.1, 0.2, 0.3))]) == "plain"


def test_reading_test_is_counted_once_per_way(run: Run, data: Dataset, runtime: RuntimeConfig) -> None:
    evaluate(run, data, runtime, PROBE, test=True)
    scores = readout_test_scores(run, data, OTHER, runtime, PROBE)
    splits = {name: readouts._read(run, name, split, runtime) for name, split in data.splits.items()}
    by_hand = linear_probe(*(read.features(READOUTS[OTHER]) for read in splits.values()), task="binary", config=PROBE)
    np.testing.assert_allclose(scores["score/pneumonia"], by_hand.scores["test"], atol=1e-6)
    recorded = run.predictions("test")
    assert list(scores.columns) == list(recorded.columns) and scores.group.equals(recorded.group)
    assert run.metrics["readout_reads"] == 1
    pd.testing.assert_frame_equal(readout_test_scores(run, data, OTHER, runtime, PROBE), scores)
    assert run.metrics["readout_reads"] == 1 and run.metrics["test_reads"] == 1
    readout_test_scores(run, data, "last two stages", runtime, PROBE)
    assert evaluate(run, data, runtime, PROBE, test=True)["readout_reads"] == 2
    with pytest.raises(ValueError, match="readout must be one of last stage"):
        readout_test_scores(run, data, "every stage", runtime, PROBE)
    other = dataclasses.replace(data, test=data.val)
    for ask in (lambda: readout_trials(run, other, runtime), lambda: readout_test_scores(run, other, OTHER, runtime)):
        with pytest.raises(ValueError, match="must be the one that run"):
            ask()


def _trials(run: Run, best: str) -> None:
    rows = [
        {"readout": n, "dims": 9, "c": 0.01, "cv": 0.8 + (n == best) / 10, "cv_se": 0.01, "val": 0.7} for n in READOUTS
    ]
    write_json(run.path / "readouts.json", {"probe_config": dataclasses.asdict(ProbeConfig()), "trials": rows})


def test_every_encoder_gets_its_own_way_and_pairs_compare_what_was_chosen(
    data: Dataset, runtime: RuntimeConfig
) -> None:
    runs = [pretrain(texture_config(epochs=0, policy="none", seed=seed), data, runtime) for seed in (0, 1)]
    learnt = pretrain(texture_config(), data, runtime)
    for found in (*runs, learnt):
        evaluate(found, data, runtime, PROBE, test=True)
        _trials(found, LAST_STAGE if found is learnt else OTHER)
    result = rereading.reread([*runs, learnt], data, runtime, num_resamples=50)
    table = result.summary.set_index("label")
    assert list(table.readout[["Random encoder", "SimCLR"]]) == [OTHER, LAST_STAGE]
    assert table.difference["SimCLR"] == 0 and "readout_reads" not in learnt.metrics  # as recorded: not read again
    tables = [readout_test_scores(found, data, OTHER, runtime) for found in runs]
    mean = np.mean([auc_score(t["label"].to_numpy(), t["score/pneumonia"].to_numpy()) for t in tables])
    row = table.loc["Random encoder"]
    assert row.test == pytest.approx(mean) and row.low <= row.test <= row.high
    plain = np.mean([found.metrics["linear"]["test"]["auc"] for found in runs])
    assert row.test_last == pytest.approx(plain, abs=1e-6)
    assert row.difference == pytest.approx(mean - plain, abs=1e-6) and row.cv == pytest.approx(0.9)
    pair = result.pairs([("SimCLR", "Random encoder")], num_resamples=50).iloc[0]
    assert (pair.mean_a, pair.mean_b) == (pytest.approx(table.test["SimCLR"]), pytest.approx(mean))

    shown = prose_rereading.shown_rereading(result)
    assert OTHER in shown and f"{row.test:.3f} [" in shown
    assert prose_rereading.shown_trials(result).count("**0.9000 / 0.7000**") == 2
    assert f"{result.summary.test.max():.3f}" in prose_rereading.reading_of_rereading(result)
    (learnt.path / "readouts.json").unlink()
    learnt.weights.unlink()
    left = rereading.reread([*runs, learnt], data, runtime, num_resamples=50)
    assert [found.id for found in left.absent] == [learnt.id]
    assert learnt.id in prose_rereading.reading_of_rereading(left)


def test_without_any_encoder_the_page_says_so(data: Dataset, runtime: RuntimeConfig) -> None:
    nothing = rereading.reread([], data, runtime)
    assert "No encoder" in prose_rereading.reading_of_rereading(nothing)
    assert prose_rereading.shown_trials(nothing) == prose_rereading.shown_rereading(nothing) == "*(no rows)*"


def test_what_is_said_names_who_gains_who_loses_and_who_does_neither() -> None:
    rows = [("A", 0.01, 0.001, 0.02), ("B", -0.01, -0.02, -0.001), ("C", 0.002, -0.01, 0.01), ("D", 0.02, 0.01, 0.03)]
    table = pd.DataFrame(rows, columns=["label", "difference", "difference_low", "difference_high"])
    table = table.assign(dataset="x", size=64, content="c", readout=OTHER, images=9, patients=3, low=0.5, high=0.9)
    table = table.assign(test=[0.7, 0.6, 0.8, 0.7])
    found = rereading.Reread(trials=pd.DataFrame(), summary=table, absent=(), members=(), scores={})
    said = prose_rereading.reading_of_rereading(found)
    assert "A (+1.0), D (+2.0) gain; B (−1.0) loses; C: no difference" in said
    assert f"The best is C, {OTHER}: 0.800 [0.500, 0.900] on 9 test images of 3 patients" in said
    without = dataclasses.replace(found, summary=table[table.label == "A"])
    assert prose_rereading.reading_of_rereading(without).startswith("On test, A (+1.0) gains. The best is A")
