"""The loop: repeatable, resumable, blind to test, and honest about what it was given."""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import texture_config, texture_dataset
from torch import Tensor

from cxr_helpers.config import PretrainConfig, RuntimeConfig
from cxr_helpers.data import Dataset, draw_images, keep_labels
from cxr_helpers.loop import loop
from cxr_helpers.loop.devices import make_fabric
from cxr_helpers.loop.guards import DivergedError
from cxr_helpers.loop.optim import lr_at
from cxr_helpers.methods.methods import METHODS, Batch
from cxr_helpers.models.backbones import save_backbone
from cxr_helpers.pretrain import pretrain
from cxr_helpers.recipes import command_of, record_of, resolve, run_id
from cxr_helpers.runs import Run

pretraining = importlib.import_module("cxr_helpers.pretrain")  # the package's attribute of this name is the function
pytestmark = pytest.mark.usefixtures("tiny_net")
TIMINGS = ["images_per_second", "train_seconds", "seconds", "session"]


class StopError(Exception):
    """What a user's Ctrl-C or a machine's end does to a run."""


def after_epoch(last: int) -> Callable[[pd.DataFrame], None]:
    def interrupt(history: pd.DataFrame) -> None:
        if len(history) == last:
            raise StopError

    return interrupt


def weights(run: Run) -> dict[str, Tensor]:
    return dict(run.backbone().net.state_dict())


def same_weights(a: Run, b: Run, only: Callable[[str], bool] = lambda name: True) -> bool:
    left, right = weights(a), weights(b)
    assert left.keys() == right.keys()
    return all(torch.equal(left[name], right[name]) for name in left if only(name))


def learnt(run: Run) -> pd.DataFrame:
    """The history without what depends on the clock."""
    return run.history.drop(columns=TIMINGS)


def elsewhere(runtime: RuntimeConfig, name: str) -> RuntimeConfig:
    assert runtime.results is not None
    return replace(runtime, results=str(Path(runtime.results).parent / name))


@pytest.mark.parametrize("method", METHODS)
def test_a_repeated_run_is_bit_identical(method: str, textures: Dataset, runtime: RuntimeConfig) -> None:
    config = texture_config(method=method, epochs=2)
    a, b = pretrain(config, textures, runtime), pretrain(config, textures, elsewhere(runtime, "again"))
    assert (a.status, b.status, a.id) == ("trained", "trained", b.id)
    assert same_weights(a, b)
    pd.testing.assert_frame_equal(learnt(a), learnt(b), check_exact=True)


@pytest.mark.parametrize("optimizer", ["adamw", "lars"])
def test_a_resumed_run_equals_an_uninterrupted_one(optimizer: str, textures: Dataset, runtime: RuntimeConfig) -> None:
    config = texture_config(epochs=4, optimizer=optimizer)
    whole = pretrain(config, textures, runtime)
    broken = elsewhere(runtime, "interrupted")
    for last in (1, 2):
        with pytest.raises(StopError):
            pretrain(config, textures, broken, on_epoch=after_epoch(last))
    resumed = pretrain(config, textures, broken)
    assert resumed.status == "resumed"
    assert list(resumed.history["session"]) == [1, 2, 3, 3] and resumed.environment["sessions"] == 3
    assert same_weights(whole, resumed)
    pd.testing.assert_frame_equal(learnt(whole), learnt(resumed), check_exact=True)
    assert not (resumed.path / "checkpoint.pt").exists()


def test_a_run_killed_while_its_history_was_written_gets_the_whole_history(
    textures: Dataset, runtime: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(path: Path, table: pd.DataFrame) -> None:
        raise StopError

    with monkeypatch.context() as patch:
        patch.setattr(pretraining, "write_table", kill)
        with pytest.raises(StopError):
            pretrain(texture_config(epochs=1), textures, runtime)
    run = pretrain(texture_config(epochs=1), textures, runtime)
    assert run.finished and list(run.history["epoch"]) == [1]


def test_an_interrupted_run_is_not_finished_and_keeps_its_history(textures: Dataset, runtime: RuntimeConfig) -> None:
    histories: list[pd.DataFrame] = []

    def interrupt(history: pd.DataFrame) -> None:
        histories.append(history)
        raise StopError

    with pytest.raises(StopError):
        pretrain(texture_config(epochs=2), textures, runtime, on_epoch=interrupt)
    assert list(histories[0]["epoch"]) == [1]
    (folder,) = Path(str(runtime.results)).glob("runs/*")
    assert {p.name for p in folder.iterdir()} == {"config.json", "history.csv", "checkpoint.pt"}


def test_a_finished_run_is_returned_at_once_and_fresh_retrains_it(
    textures: Dataset, runtime: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = pretrain(texture_config(), textures, runtime)
    (first.path / "marker").write_text("kept unless retrained")

    def no_building(*args: object) -> None:
        raise AssertionError("a finished run was built again")

    with monkeypatch.context() as patch:
        patch.setattr(pretraining, "build_training", no_building)
        second = pretrain(texture_config(), textures, runtime)
    assert second.status == "loaded" and second.path == first.path and (second.path / "marker").exists()
    before = weights(first)
    third = pretrain(texture_config(), textures, runtime, fresh=True)
    assert third.status == "trained" and not (third.path / "marker").exists()
    assert all(torch.equal(value, before[name]) for name, value in weights(third).items())


def test_fresh_destroys_nothing_when_the_run_cannot_be_built(
    textures: Dataset, runtime: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = pretrain(texture_config(), textures, runtime)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device must be one that this machine has, got 'cuda'; use --device auto"):
        pretrain(texture_config(), textures, replace(runtime, device="cuda"), fresh=True)
    assert run.finished and run.weights.is_file()


CHANGES: dict[str, Any] = {
    "size": 32,
    "method": "vicreg",
    "options": {"temperature": 0.3},
    "policy": "ref",
    "policy_changes": {"crop_scale_min": 0.9},
    "backbone": "resnet50",
    "epochs": 2,
    "batch_size": 8,
    "optimizer": "sgd",
    "lr": 0.5,
    "weight_decay": 0.5,
    "warmup_epochs": 0.25,
    "backbone_lr_factor": 0.5,
    "label_fraction": 0.5,
    "online_lr": 0.5,
    "seed": 1,
}


def name_of(config: PretrainConfig, dataset: Dataset) -> str:
    config = resolve(config)
    return run_id(record_of(config, dataset))


def test_any_changed_field_changes_the_name_of_the_run(textures: Dataset, tmp_path: Path) -> None:
    assert set(CHANGES) == {f.name for f in dataclasses.fields(PretrainConfig)} - {"dataset", "init"}
    config = texture_config(options={})
    names = {name_of(config, textures)} | {name_of(replace(config, **{k: v}), textures) for k, v in CHANGES.items()}
    names.add(name_of(config, dataclasses.replace(textures, name="other")))
    names.add(name_of(config, texture_dataset(counts=(38, 24, 24))))
    for seed in (0, 1):
        torch.manual_seed(seed)
        file = tmp_path / "backbone.safetensors"
        save_backbone(_backbone(textures, seed), file)
        names.add(name_of(replace(config, init=str(file)), textures))
    assert len(names) == 1 + len(CHANGES) + 4


def _backbone(dataset: Dataset, seed: int) -> Any:
    from cxr_helpers.augment import Normalisation
    from cxr_helpers.models.backbones import build_backbone

    return build_backbone(
        "resnet18",
        channels=dataset.channels,
        size=64,
        init="random",
        normalisation=Normalisation((0.5,), (0.5,)),
        seed=seed,
    )


def test_what_is_executed_differently_keeps_the_name_and_is_recorded(textures: Dataset, runtime: RuntimeConfig) -> None:
    run = pretrain(texture_config(), textures, runtime)
    again = pretrain(texture_config(), textures, replace(runtime, precision="bf16-mixed", threads=2, knn_bank=3))
    assert again.status == "loaded" and again.id == run.id
    assert run.environment["runtime"]["threads"] == 1 and run.environment["precision"] == "32-true"


def test_the_record_and_the_command_name_no_place_of_this_machine(
    textures: Dataset, runtime: RuntimeConfig, tmp_path: Path
) -> None:
    parent = pretrain(texture_config(), textures, runtime)
    config = texture_config(init=str(parent.weights.resolve()), dataset=str(tmp_path / "textures"))
    run = pretrain(config, textures, runtime)
    for file in run.path.glob("*.json"):
        assert str(tmp_path) not in file.read_text(), file.name
    assert run.record["init"] == f"{parent.id}/backbone.safetensors" and run.record["init_sha256"]
    assert run.id.startswith("textures-64-simclr-s0-")


def test_the_command_repeats_every_field_that_is_not_a_default() -> None:
    config = PretrainConfig(
        size=64, options={"temperature": 0.1, "output_dim": 64}, policy_changes={"gamma": 0.2}, init="my file"
    )
    command = command_of(config)
    assert command.startswith("python train.py --dataset pneumoniamnist --size 64 --method simclr")
    assert "--options temperature 0.1 output_dim 64" in command
    assert "--policy-changes gamma 0.2" in command and "--init 'my file'" in command
    assert "--backbone " not in command and "--lr " not in command


def test_the_command_that_starts_from_a_run_names_its_weights_as_a_checkout_has_them(tmp_path: Path) -> None:
    weights = tmp_path / "elsewhere" / "runs" / "parent-64" / "backbone.safetensors"
    assert " --init results/runs/parent-64/backbone.safetensors " in command_of(texture_config(init=str(weights)))
    other = command_of(texture_config(init=str(tmp_path / "weights.safetensors")))
    assert f" --init .../{tmp_path.name}/weights.safetensors " in other
    here = command_of(texture_config(init=str(Path.cwd() / "runs" / "parent-64" / "backbone.safetensors")))
    assert " --init runs/parent-64/backbone.safetensors " in here


def test_the_command_of_a_run_on_a_draw_names_the_draw(textures: Dataset, runtime: RuntimeConfig) -> None:
    part = draw_images(textures, 20, None)
    run = pretrain(texture_config(epochs=0), part, runtime)
    assert run.environment["command"].endswith(" --max-train-images 20")
    assert run.environment["data"]["drawn"] == {"max_train_images": 20, "max_eval_images": None}
    assert command_of(texture_config(), draw_images(textures, 20, 8)).endswith("images 20 --max-eval-images 8")
    assert "max-" not in command_of(texture_config(), textures)


def test_val_is_looked_at_as_often_as_asked_and_after_the_last_epoch(textures: Dataset, runtime: RuntimeConfig) -> None:
    seldom = pretrain(texture_config(epochs=3), textures, replace(runtime, measure_every=2))
    measured = ["feature_std", "effective_rank", "online_auc", "knn_auc"]
    assert list(seldom.history["epoch"]) == [1, 2, 3]
    assert all(list(seldom.history[name].notna()) == [False, True, True] for name in measured)
    assert seldom.history[["loss", "online_loss", "collapsed"]].notna().all(axis=None)
    assert seldom.environment["command"].endswith(" --measure-every 2")
    always = pretrain(texture_config(epochs=3), textures, runtime, fresh=True)
    assert "measure-every" not in always.environment["command"]
    assert always.id == seldom.id and (always.path / "backbone.safetensors").is_file()
    assert always.environment["backbone_sha256"] == seldom.environment["backbone_sha256"]  # looking changes nothing
    for name in measured:
        assert list(always.history[name])[1:] == list(seldom.history[name])[1:]


def test_the_online_probe_leaves_the_backbone_untouched(textures: Dataset, runtime: RuntimeConfig) -> None:
    runs = [pretrain(texture_config(epochs=2, online_lr=lr), textures, runtime) for lr in (1e-3, 1.0)]
    assert same_weights(*runs)
    losses = [run.history["online_loss"].iloc[-1] for run in runs]
    assert losses[0] != losses[1]


def test_no_epochs_record_the_initial_backbone(textures: Dataset, runtime: RuntimeConfig) -> None:
    run = pretrain(texture_config(epochs=0, batch_size=256), textures, runtime)
    expected = _backbone(textures, seed=0).net.state_dict()
    assert run.finished and run.history.empty
    assert all(torch.equal(value, expected[name]) for name, value in weights(run).items())


PANEL = {"alignment", "uniformity", "projection_std"}
COMMON = {"epoch", "loss", "first_loss", "online_loss", "lr", "feature_std", "effective_rank", *TIMINGS}
COMMON |= {"skipped_steps", "collapsed"}
SCORES = {
    "binary": {"online_auc", "knn_auc"},
    "multilabel": {"online_auc", "online_auc/x", "online_auc/y", "online_auc/z", "knn_auc"},
    "multiclass": {"online_accuracy", "knn_accuracy"},
}


@pytest.mark.parametrize("task", SCORES)
@pytest.mark.parametrize("method", METHODS)
def test_the_history_has_the_promised_columns_in_every_task(task: Any, method: str, runtime: RuntimeConfig) -> None:
    terms = {"vicreg": {"invariance", "variance", "covariance"}}.get(method, set())
    history = pretrain(texture_config(method=method), texture_dataset(task), runtime).history
    assert set(history) == COMMON | SCORES[task] | terms | (PANEL if method != "supervised" else set())
    assert np.isfinite(history.to_numpy()).all()


def test_the_neighbours_of_val_are_train_images(textures: Dataset, runtime: RuntimeConfig) -> None:
    """Where train's labels are exchanged they vote against val's; among itself val would agree."""
    exchanged = replace(textures, train=replace(textures.train, labels=1 - textures.train.labels))
    assert pretrain(texture_config(), exchanged, runtime).history["knn_auc"].iloc[-1] < 0.2


def test_colour_images_and_bf16_go_through_the_same_loop(runtime: RuntimeConfig) -> None:
    dataset = texture_dataset(channels=3)
    run = pretrain(texture_config(policy="imagenet"), dataset, replace(runtime, precision="bf16-mixed"))
    assert np.isfinite(run.history["loss"]).all() and run.environment["precision"] == "bf16-mixed"
    assert weights(run)["conv1.weight"].shape[1] == 3 and weights(run)["conv1.weight"].dtype == torch.float32


def rates_of(monkeypatch: pytest.MonkeyPatch) -> list[list[float]]:
    """The rates of every group at every optimizer step from now on."""
    rates: list[list[float]] = []
    original = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, *args: Any, **kwargs: Any) -> Any:
        if "lr_factor" in self.param_groups[0]:  # not the online probe's
            rates.append([group["lr"] for group in self.param_groups])
        return original(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    return rates


def test_the_schedule_moves_with_every_step_and_the_probe_keeps_its_own_rate(
    textures: Dataset, runtime: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = rates_of(monkeypatch)
    probe_rates: list[float] = []
    original = loop.OnlineProbe.step

    def step(self: Any, *args: Any) -> Any:
        probe_rates.append(self.optimizer.param_groups[0]["lr"])
        return original(self, *args)

    monkeypatch.setattr(loop.OnlineProbe, "step", step)
    config = texture_config(epochs=4, batch_size=10, lr=0.256, warmup_epochs=1, backbone_lr_factor=0.5)
    run = pretrain(config, textures, runtime)
    expected = [lr_at(i, base_lr=0.01, warmup_steps=4, total_steps=16) for i in range(16)]
    assert [step[-1] for step in rates] == pytest.approx(expected)
    assert [step[0] for step in rates] == pytest.approx([0.5 * rate for rate in expected])
    assert rates[0] == [0.0] * len(rates[0]) and rates[4][-1] == pytest.approx(0.01)
    assert list(run.history["lr"]) == pytest.approx(expected[3::4])
    assert probe_rates == [config.online_lr] * 16


def test_at_most_a_third_of_a_run_is_warmed_up(
    textures: Dataset, runtime: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = rates_of(monkeypatch)
    pretrain(texture_config(epochs=3, batch_size=20, lr=0.256, warmup_epochs=10), textures, runtime)
    assert np.argmax([step[-1] for step in rates]) == 2


def batches_of(config: PretrainConfig, dataset: Dataset, runtime: RuntimeConfig, epoch: int) -> list[Batch]:
    return list(loop.batches(loop.build_training(resolve(config), dataset, runtime), epoch))


def test_batches_and_views_depend_on_seed_epoch_and_step_only(textures: Dataset, runtime: RuntimeConfig) -> None:
    noisy = {"noise_prob": 1.0, "noise_std": 0.1}
    config = texture_config(policy_changes=noisy)

    def views(config: PretrainConfig, epoch: int) -> Tensor:
        torch.manual_seed(torch.seed() % 1000)  # torch's own generator is in another state each time
        return torch.stack([torch.cat(b.views) for b in batches_of(config, textures, runtime, epoch)])

    first = views(config, 3)
    assert torch.equal(first, views(config, 3))
    assert torch.equal(first, views(replace(config, method="vicreg", lr=1.0), 3))
    assert not torch.equal(first, views(config, 4))
    assert not torch.equal(first, views(replace(config, seed=1), 3))
    one, two = batches_of(texture_config(policy="none", policy_changes=noisy), textures, runtime, 0)
    plain = batches_of(texture_config(policy="none"), textures, runtime, 0)
    noise = [noisy.views[0] - clean.views[0] for noisy, clean in zip((one, two), plain, strict=True)]
    assert noise[0].std() > 0.1 and not torch.allclose(noise[0], noise[1])


def test_without_noise_a_view_does_not_depend_on_the_size_of_the_batch(
    textures: Dataset, runtime: RuntimeConfig
) -> None:
    def by_image(batch_size: int) -> dict[int, Tensor]:
        config = texture_config(batch_size=batch_size, policy="ref")
        batches = batches_of(config, textures, runtime, 0)
        return {int(i): b.views[1][row] for b in batches for row, i in enumerate(b.indices)}

    small, large = by_image(8), by_image(20)
    assert len(small) == len(large) == 40
    assert all(torch.allclose(small[i], large[i], atol=1e-6) for i in small)


def test_an_epoch_sees_every_image_at_most_once_and_drops_the_last_partial_batch(
    textures: Dataset, runtime: RuntimeConfig
) -> None:
    batches = batches_of(texture_config(batch_size=16), textures, runtime, 0)
    seen = torch.cat([b.indices for b in batches])
    assert len(seen) == 32 == len(seen.unique())
    assert torch.equal(torch.cat([b.labels for b in batches]), textures.train.labels[seen])
    other = torch.cat([b.indices for b in batches_of(texture_config(batch_size=16), textures, runtime, 1)])
    assert not torch.equal(seen, other)


def test_supervised_training_sees_labelled_images_only(textures: Dataset, runtime: RuntimeConfig) -> None:
    config = texture_config(method="supervised", label_fraction=0.5, batch_size=4)
    hidden = keep_labels(textures, 0.5, config.seed)
    seen = torch.cat([b.indices for b in batches_of(config, hidden, runtime, 0)])
    assert hidden.train.labelled[seen].all() and len(seen) == int(hidden.train.labelled.sum()) // 4 * 4
    every = torch.cat([b.indices for b in batches_of(replace(config, method="simclr"), hidden, runtime, 0)])
    assert not hidden.train.labelled[every].all()
    run = pretrain(config, textures, runtime)
    assert run.record["fingerprint"] == textures.fingerprint != hidden.fingerprint  # draws share one configuration


def test_an_exported_backbone_is_fine_tuned_under_its_own_normalisation(
    textures: Dataset, runtime: RuntimeConfig
) -> None:
    parent = pretrain(texture_config(policy="cifar"), textures, runtime)
    tuned = pretrain(
        texture_config(method="supervised", init=str(parent.weights), backbone_lr_factor=0.1), textures, runtime
    )
    assert tuned.backbone().normalisation == parent.backbone().normalisation
    assert not same_weights(parent, tuned)
    start = pretrain(texture_config(method="supervised", init=str(parent.weights), epochs=0), textures, runtime)
    assert same_weights(parent, start)


def test_a_backbone_rate_of_zero_keeps_every_weight_but_the_running_statistics(
    textures: Dataset, runtime: RuntimeConfig
) -> None:
    frozen = pretrain(texture_config(method="supervised", backbone_lr_factor=0, weight_decay=0.1), textures, runtime)
    start = pretrain(texture_config(method="supervised", epochs=0), textures, runtime)
    assert same_weights(frozen, start, only=lambda name: "running" not in name and "num_batches" not in name)
    assert not same_weights(frozen, start)
    assert frozen.history["loss"].notna().all()


def test_a_diverging_run_stops_with_one_sentence_and_keeps_the_last_good_checkpoint(
    textures: Dataset, runtime: RuntimeConfig
) -> None:
    config = texture_config(method="vicreg", optimizer="sgd", lr=1e6, epochs=3, warmup_epochs=0)
    with pytest.raises(
        DivergedError, match=r"not finite, the last of them in epoch \d, step \d, at learning rate .* lower --lr"
    ) as caught:
        pretrain(config, textures, runtime)
    assert "\n" not in str(caught.value)
    (folder,) = Path(str(runtime.results)).glob("runs/*")
    assert not (folder / "backbone.safetensors").exists() and not (folder / "environment.json").exists()


def one_class(dataset: Dataset, split: str) -> Dataset:
    part = getattr(dataset, split)
    return replace(dataset, **{split: replace(part, labels=torch.zeros_like(part.labels))})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 41}, "batch_size must be at most the 40 training images of textures, got 41"),
        (
            {"batch_size": 21, "method": "supervised", "label_fraction": 0.5},
            r"at most the \d+ labelled training images of textures, got 21",
        ),
        ({"size": 128}, "size must be the data set's 64 px, got 128"),
        ({"method": "simclrv2"}, "method must be one of"),
        ({"policy": "none at all"}, "policy must be one of"),
        ({"policy_changes": {"cropp": 1.0}}, "policy's field must be one of"),
        ({"init": "not there"}, "init must be random, imagenet or a backbone file"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused_before_anything_is_written(
    changes: dict[str, Any], message: str, textures: Dataset, runtime: RuntimeConfig
) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        pretrain(texture_config(**changes), textures, runtime)
    assert not Path(str(runtime.results)).exists()


def test_a_backbone_file_that_does_not_fit_leaves_no_run_folder(textures: Dataset, runtime: RuntimeConfig) -> None:
    parent = pretrain(texture_config(), textures, runtime)
    with pytest.raises(ValueError, match="must hold a backbone with"):
        pretrain(texture_config(init=str(parent.weights), policy="cifar"), texture_dataset(channels=3), runtime)
    assert [p.name for p in parent.path.parent.iterdir()] == [parent.id]


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_of_one_class_is_refused(split: str, textures: Dataset, runtime: RuntimeConfig) -> None:
    with pytest.raises(ValueError, match=f"the {split} split of textures must hold at least two classes for AUC"):
        pretrain(texture_config(), one_class(textures, split), runtime)


def test_a_batch_of_one_image_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 2"):
        texture_config(batch_size=1)


def test_pretraining_never_reads_the_test_split(textures: Dataset, runtime: RuntimeConfig) -> None:
    poisoned = replace(
        textures,
        test=replace(textures.test, images=255 - textures.test.images, labels=1 - textures.test.labels),
    )
    for method in ("simclr", "supervised"):
        config = texture_config(method=method)
        a, b = pretrain(config, textures, runtime), pretrain(config, poisoned, runtime)
        assert a.id != b.id
        assert same_weights(a, b)
        pd.testing.assert_frame_equal(learnt(a), learnt(b), check_exact=True)


def test_processes_that_torchrun_did_not_start_are_refused(
    monkeypatch: pytest.MonkeyPatch, runtime: RuntimeConfig
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="must be started by torchrun, got WORLD_SIZE 2 without RANK"):
        make_fabric(runtime)


def test_the_environment_of_a_run_names_command_data_and_runtime(textures: Dataset, runtime: RuntimeConfig) -> None:
    run = pretrain(texture_config(), textures, runtime)
    assert run.environment["command"].startswith("python train.py --dataset textures --size 64")
    assert run.environment["data"] == textures.provenance
    assert run.environment["runtime"]["results"] is None
    assert json.loads((run.path / "config.json").read_text())["fingerprint"] == textures.fingerprint


def test_training_leaves_torchs_own_generator_as_it_was(textures: Dataset, runtime: RuntimeConfig) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    pretrain(texture_config(), textures, runtime)
    assert torch.equal(torch.rand(3), expected)
