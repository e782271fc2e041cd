"""The detector: whole, placed and exact; boxes that follow their films; films of rare findings more often."""

import json
import math
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from samples import one_sentence
from torch import nn

from cxr_helpers.augment import Normalisation
from cxr_helpers.config import DetectConfig, RuntimeConfig
from cxr_helpers.data import Dataset, Split, load_dataset
from cxr_helpers.detect import (
    coco_ap,
    draw_films_of_round,
    labelled_part,
    repeat_factors,
    score_detector,
    train_detector,
)
from cxr_helpers.detect import training as door
from cxr_helpers.models import build_backbone, save_backbone, state_digest
from cxr_helpers.recipes import find_run, record_of
from cxr_helpers.runs import StoppedError, results_root
from cxr_helpers.study import CONSTANT, found_by, project_root, run_all

SIDE = 64


def squares(counts: tuple[int, int, int] = (12, 4, 4)) -> Dataset:
    """Dark films, each with a bright square (finding 0) or a grey one (finding 1)."""
    rng, splits = np.random.default_rng(0), {}
    for name, count in zip(("train", "val", "test"), counts, strict=True):
        images = rng.integers(0, 30, (count, 1, SIDE, SIDE), dtype=np.uint8)
        boxes, labels = list[torch.Tensor](), torch.zeros(count, 2, dtype=torch.int64)
        for film in range(count):
            left, top, side, kind = *rng.integers(4, 30, 2), rng.integers(14, 26), film % 2
            images[film, 0, top : top + side, left : left + side] = (250, 130)[kind]
            boxes.append(torch.tensor([[left, top, left + side, top + side]]) / SIDE)
            boxes[-1] = torch.cat([boxes[-1], torch.tensor([[float(kind)]])], dim=1)
            labels[film, kind] = 1
        splits[name] = Split(images=torch.from_numpy(images), labels=labels, boxes=tuple(boxes))
    about: dict[str, Any] = {"provenance": {"source": "squares", "notes": []}, "class_names": ("bright", "grey")}
    return Dataset(name="squares", size=SIDE, task="multilabel", **about, **splits)


@pytest.fixture(scope="module")
def films() -> Dataset:
    return squares()


def config(**changes: Any) -> DetectConfig:
    small = {"dataset": "squares", "size": SIDE, "epochs": 2, "films_per_epoch": 12, "batch_size": 4}
    return DetectConfig(**{**small, "pyramid_channels": 16, "head_width": 16, "regions": 8, **changes})


def task_of(films: Dataset, runtime: RuntimeConfig, **changes: Any) -> Any:
    return door.Detection(config(**changes), films, runtime, None)


# ---- sampling


def test_films_of_rare_findings_are_repeated_by_the_root_of_what_they_lack() -> None:
    labels = np.zeros((100, 3), int)
    labels[:1, 0] = labels[:25, 1] = labels[:90, 2] = 1
    factors = repeat_factors(labels, below=0.4)
    assert factors[[0, 1, 24, 25, 99]] == pytest.approx([math.sqrt(40), *[math.sqrt(1.6)] * 2, 1, 1])
    assert (repeat_factors(labels, below=0) == 1).all()


def test_a_round_has_as_many_films_at_any_number_of_labels_and_depends_on_seed_and_epoch_alone() -> None:
    factors = np.array([1.0, 1.5, 3.0])
    drawn = draw_films_of_round(factors, 11_000, seed=1, epoch=2)
    assert len(drawn) == 11_000 and (drawn == draw_films_of_round(factors, 11_000, seed=1, epoch=2)).all()
    assert (drawn[:50] != draw_films_of_round(factors, 50, seed=1, epoch=3)).any()
    assert (drawn[:50] != draw_films_of_round(factors, 50, seed=2, epoch=2)).any()
    assert np.bincount(drawn) / 2000 == pytest.approx(factors, abs=0.03)


def test_fewer_labels_are_a_part_of_more() -> None:
    few, more = labelled_part(216, 0.25, seed=3), labelled_part(216, 0.5, seed=3)
    assert len(few) == 54 and set(few) < set(more) and len(labelled_part(216, 1.0, seed=3)) == 216
    assert set(few) != set(labelled_part(216, 0.25, seed=4))


# ---- the network


def test_nothing_is_frozen_and_batchnorm_takes_the_batch(films: Dataset, runtime: RuntimeConfig) -> None:
    task = task_of(films, runtime)
    assert {type(m) for m in task.detector.modules() if "BatchNorm" in type(m).__name__} == {nn.BatchNorm2d}
    before = {name: value.clone() for name, value in task.detector.state_dict().items()}
    for number, batch in enumerate(task.batches(0)):
        task.step(batch, number)
    after = task.detector.state_dict()
    still = {name for name, value in before.items() if torch.equal(value, after[name])}
    assert still == set()


def test_films_are_looked_at_in_their_own_size(films: Dataset, runtime: RuntimeConfig) -> None:
    task, seen = task_of(films, runtime), list[tuple[int, ...]]()
    task.detector.backbone.register_forward_hook(lambda _, args, __: seen.append(tuple(args[0].shape)))
    task.step(next(task.batches(0)), 0)
    found = door.find_boxes(task.detector, films.val, task.fabric)
    assert seen == [(4, 1, SIDE, SIDE)] * 2
    assert found[["left", "top", "right", "bottom"]].to_numpy().max(initial=0) <= 1


def test_an_encoders_file_lands_in_every_key_or_the_detector_is_refused(
    films: Dataset, runtime: RuntimeConfig, tmp_path: Path
) -> None:
    about: dict[str, Any] = {"channels": 1, "size": SIDE, "normalisation": Normalisation((0.4,), (0.2,))}
    encoder = build_backbone("resnet18", init="random", seed=7, **about)
    save_backbone(encoder, tmp_path / "ssl.safetensors")
    asked = config(init=str(tmp_path / "ssl.safetensors"))
    record = record_of(asked, films)
    assert record["init_sha256"] == state_digest(encoder.net.state_dict())
    detector = door.build_detector(asked, films, record["init_sha256"])
    for name, value in encoder.net.state_dict().items():
        assert torch.equal(detector.backbone.body.net.state_dict()[name], value)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="the detector's backbone must be the encoder file's in every key") as error:
        door.build_detector(asked, films, "0" * 64)
    one_sentence(error.value)
    renamed = {f"encoder.{k.replace('layer', 'stage')}": v for k, v in encoder.net.state_dict().items()}
    torch.save(renamed, tmp_path / "renamed.pth")
    with pytest.raises(ValueError, match=r"renamed\.pth"):
        train_detector(config(init=str(tmp_path / "renamed.pth")), films, runtime)
    assert not results_root(runtime).exists()


def test_a_detector_is_scored_with_the_statistics_of_its_encoders_file(
    films: Dataset, runtime: RuntimeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about: dict[str, Any] = {"channels": 1, "size": SIDE, "normalisation": Normalisation((0.4,), (0.2,))}
    save_backbone(build_backbone("resnet18", init="random", seed=7, **about), tmp_path / "ssl.safetensors")
    find, seen = door.find_boxes, list[Normalisation]()

    def noted(detector: Any, *others: Any) -> pd.DataFrame:
        seen.append(detector.backbone.body.normalisation)
        return find(detector, *others)

    monkeypatch.setattr(door, "find_boxes", noted)
    run = train_detector(config(init=str(tmp_path / "ssl.safetensors"), epochs=1), films, runtime)
    score_detector(run, films, runtime)
    assert [(tuple(one.mean), tuple(one.std)) for one in seen] == [((0.4,), (0.2,))] * 2


def test_boxes_stay_exact_in_half_precision(films: Dataset, runtime: RuntimeConfig) -> None:
    task, seen = task_of(films, replace(runtime, precision="bf16-mixed")), list[torch.dtype]()
    task.detector.roi_heads.register_forward_pre_hook(lambda _, args: seen.extend(one.dtype for one in args[1]))
    for number, batch in enumerate(task.batches(0)):
        task.step(batch, number)
    found = door.find_boxes(task.detector, films.val, task.fabric)
    assert set(seen) == {torch.float32}
    quarters = found[["right", "bottom"]].to_numpy() * SIDE * 4
    quarters = quarters[quarters > 4 * 33]  # in half precision numbers above 32 are whole quarters
    assert len(quarters) > 20 and (np.abs(quarters - np.round(quarters)) > 0.04).mean() > 0.5


def test_a_colour_encoder_looks_at_grey_films(films: Dataset, runtime: RuntimeConfig, tmp_path: Path) -> None:
    about: dict[str, Any] = {"channels": 3, "size": SIDE, "normalisation": Normalisation((0.4,) * 3, (0.2,) * 3)}
    save_backbone(build_backbone("resnet18", init="random", seed=7, **about), tmp_path / "colour.safetensors")
    run = train_detector(config(init=str(tmp_path / "colour.safetensors"), epochs=1), films, runtime)
    figure = score_detector(run, films, runtime)["detection"]["val"]["ap40"]
    assert figure == pytest.approx(run.history["val_ap40"].iloc[-1], abs=1e-9)


@pytest.mark.parametrize("given", [{"micro_batch": 2}, {"compile": True}, {"knn_bank": 5}])
def test_what_a_detector_has_no_use_for_is_refused(
    films: Dataset, runtime: RuntimeConfig, given: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(given))} must be left out, since a detector has no use for it"):
        train_detector(config(), films, replace(runtime, **given))


def test_films_without_boxes_are_refused(runtime: RuntimeConfig) -> None:
    plain = squares()
    plain = replace(plain, train=replace(plain.train, boxes=None))
    with pytest.raises(ValueError, match="films must be with boxes or masks to detect findings in, got 'none'"):
        train_detector(config(), plain, runtime)


def test_a_vit_is_refused_in_a_sentence(films: Dataset, runtime: RuntimeConfig) -> None:
    about: dict[str, Any] = {"channels": 1, "size": SIDE, "normalisation": Normalisation((0.5,), (0.5,))}
    with pytest.raises(ValueError, match="backbone must be a ResNet, whose maps have several sizes, got 'vit_tiny6'"):
        door.Detector(build_backbone("vit_tiny6", init="random", seed=0, **about), 2, config())


# ---- training


def test_boxes_follow_their_films_into_the_view(films: Dataset, runtime: RuntimeConfig) -> None:
    how = {"affine_prob": 1.0, "rotation_deg": 0.0, "jitter_prob": 0.0, "gamma_prob": 0.0, "noise_prob": 0.0}
    task = task_of(films, runtime, policy_changes={**how, "motion_prob": 0.0, "vertical_flip_prob": 0.5})
    looked = 0
    for batch in task.batches(1):
        for image, target in zip(batch.images, batch.targets, strict=True):
            assert target["labels"].tolist() == [1 if image.max() > 0.5 else 2] * len(target["boxes"])  # 0: background
            for box in target["boxes"]:
                rows, columns = torch.nonzero(image[0] > 0.5 * (image.max() + image.min()), as_tuple=True)
                around = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                assert box.tolist() == pytest.approx([float(v) for v in around], abs=1.1)
                looked += 1
    assert looked > 8


@pytest.mark.parametrize("at", [2, 4])
def test_a_detector_that_was_stopped_goes_on_to_the_same_bit(
    films: Dataset, runtime: RuntimeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    whole = train_detector(config(), films, runtime)
    other = RuntimeConfig(**vars(runtime) | {"results": str(tmp_path / "stopped")})
    step: Callable[..., Any] = door.Detection.step

    def stopped(task: Any, batch: Any, number: int) -> Any:
        if number == at:
            signal.raise_signal(signal.SIGTERM)
        return step(task, batch, number)

    monkeypatch.setattr(door.Detection, "step", stopped)
    monkeypatch.setattr(signal, "getsignal", lambda _: signal.default_int_handler)
    with pytest.raises(StoppedError):
        train_detector(config(), films, other)
    monkeypatch.setattr(door.Detection, "step", step)
    resumed = train_detector(config(), films, other)
    assert (whole.status, resumed.status) == ("trained", "resumed")
    assert (whole.path / door.WEIGHTS).read_bytes() == (resumed.path / door.WEIGHTS).read_bytes()
    columns = ["loss", "loss_objectness", "val_ap40"]
    pd.testing.assert_frame_equal(whole.history[columns], resumed.history[columns], check_exact=True)


def test_a_run_is_found_again_scored_once_and_names_the_command_that_repeats_it(
    films: Dataset, runtime: RuntimeConfig
) -> None:
    run = train_detector(config(label_fraction=0.5, seed=3), films, runtime)
    assert "test_reads" not in score_detector(run, films, runtime)
    for _ in range(2):
        metrics = score_detector(run, films, runtime, test=True)
    assert metrics["test_reads"] == 1 and set(metrics["detection"]) == {"val", "test"}
    assert metrics["detection"]["val"]["ap40"] == pytest.approx(run.history["val_ap40"].iloc[-1], abs=1e-9)
    assert run.environment["films"] == 6 and "detect.py train --dataset squares" in run.environment["command"]
    assert train_detector(config(label_fraction=0.5, seed=3), films, runtime).status == "loaded"
    (run.path / door.WEIGHTS).unlink()
    assert score_detector(run, films, runtime, test=True) == metrics
    (run.path / "metrics.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"not its weights here; make them anew with: python detect.py train"):
        score_detector(run, films, runtime)
    with pytest.raises(ValueError, match="data must be those of run"):
        score_detector(run, squares((14, 4, 4)), runtime)


def test_a_plan_names_what_is_missing(films: Dataset, runtime: RuntimeConfig) -> None:
    plan = {"a": [config()], "b": [config(seed=1)]}
    done, todo = run_all(plan, {"squares": films}, runtime, train=False)
    assert not done.runs and not todo.runs
    assert todo.missing[0].startswith("python detect.py train") and "--seed 1 --" in todo.missing[0]
    assert done.missing[0] != todo.missing[0]


def test_a_declared_default_never_names_a_run(films: Dataset, runtime: RuntimeConfig) -> None:
    names = {find_run(results_root(runtime), record_of(DetectConfig(**how), films)).id
             for how in ({}, {"repeat_below": 0.4}, {"repeat_below": 0.0}, {"seed": 1})}  # fmt: skip
    assert len(names) == 3 and all(name.startswith("squares-256-faster_rcnn-s") for name in names)


@pytest.mark.slow
def test_torchrun_trains_one_detector_by_two_processes(tmp_path: Path) -> None:
    words = "--dataset phantom_multilabel --size 64 --epochs 1 --films-per-epoch 8 --batch-size 4 --max-train-images 8"
    words += f" --max-eval-images 8 --device cpu --threads 1 --no-progress --results {tmp_path}"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*launcher, str(project_root() / "detect.py"), "train", *words.split()], capture_output=True,
                          text=True, cwd=project_root(), check=False)  # fmt: skip
    assert done.returncode == 0 and "trained " in done.stdout.splitlines()[-1], done.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    assert json.loads((folder / "environment.json").read_text())["processes"] == 2


@pytest.mark.slow
def test_a_detector_finds_more_on_drawn_films_than_constant_boxes(runtime: RuntimeConfig) -> None:
    films = load_dataset("phantom_multilabel", 128, max_train_images=600, max_eval_images=60)
    asked = DetectConfig(dataset="phantom_multilabel", size=128, epochs=15, films_per_epoch=240)
    run = train_detector(asked, films, runtime)
    found = score_detector(run, films, runtime, test=True)["detection"]["test"]["ap50"]
    constant = next(one for one in found_by(films) if one.label == CONSTANT)
    assert found >= coco_ap(constant.seeds[0], constant.truth, 60, films.num_outputs)["ap50"] + 0.30
