"""Pretraining: repeatable, resumable, blind to test, and honest about what it was given."""

import importlib
import math
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import texture_config, texture_dataset
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from cxr_helpers.config import PretrainConfig, RuntimeConfig
from cxr_helpers.data import Dataset, keep_labels
from cxr_helpers.evaluate import evaluate
from cxr_helpers.loop import lr_at, validate
from cxr_helpers.methods import METHODS, Batch
from cxr_helpers.methods.joint import SimCLR
from cxr_helpers.methods.supervised import Supervised
from cxr_helpers.pretrain import Pretext, pretrain
from cxr_helpers.recipes import resolve
from cxr_helpers.runs import Run, StoppedError

pretraining = importlib.import_module("cxr_helpers.pretrain")  # the package's attribute of this name is the function
pytestmark = pytest.mark.usefixtures("tiny_net")
CLOCK = ["images_per_second", "train_seconds", "seconds", "session"]


def weights(run: Run) -> dict[str, Tensor]:
    return dict(run.backbone().net.state_dict())


def same_weights(a: Run, b: Run) -> bool:
    left, right = weights(a), weights(b)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def must_be_equal(a: Run, b: Run) -> None:
    assert same_weights(a, b)
    pd.testing.assert_frame_equal(*(run.history.drop(columns=CLOCK) for run in (a, b)), check_exact=True)


def elsewhere(runtime: RuntimeConfig) -> RuntimeConfig:
    return replace(runtime, results=f"{runtime.results}-2")


class Drawing(SimCLR):
    """A method that draws from torch's own generator in every step, and is stopped after the sixth of twelve."""

    def make_head(self) -> nn.Module:
        return nn.Sequential(nn.Dropout(0.5), super().make_head())

    def after_step(self, step: int, total: int) -> None:
        if (step, total) == (6, 12):
            signal.raise_signal(signal.SIGINT)


def test_a_run_stopped_inside_an_epoch_equals_one_that_was_not(
    textures: Dataset, runtime: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, "simclr", Drawing)
    config = texture_config(epochs=3, batch_size=10, optimizer="lars", warmup_epochs=1)
    with pytest.raises(StoppedError, match="until step 2 of epoch 2 is kept"):
        pretrain(config, textures, runtime)
    monkeypatch.setattr(Drawing, "after_step", SimCLR.after_step)
    resumed, whole = pretrain(config, textures, runtime), pretrain(config, textures, elsewhere(runtime))
    assert resumed.status == "resumed" and resumed.environment["sessions"] == 2
    must_be_equal(whole, resumed)


def test_the_best_epoch_on_val_is_kept_the_earlier_of_equals_and_over_a_stop(
    textures: Dataset, runtime: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Tensor]] = []

    def scripted(method: Any, *args: Any, **how: Any) -> dict[str, float]:
        seen.append({name: value.clone() for name, value in method.state_dict().items()})
        return {**validate(method, *args, **how), "head_auc": (0.6, 0.8, 0.8, 0.7)[(len(seen) - 1) % 4]}

    monkeypatch.setattr(pretraining, "validate", scripted)
    config = texture_config(method="supervised", epochs=4, batch_size=10, keep="best")
    whole, last = pretrain(config, textures, runtime), pretrain(replace(config, keep="last"), textures, runtime)
    with monkeypatch.context() as patch, pytest.raises(StoppedError, match="until step 2 of epoch 3 is kept"):
        patch.setattr(Supervised, "after_step", lambda _, step, __: step == 10 and signal.raise_signal(signal.SIGINT))
        pretrain(config, textures, elsewhere(runtime))
    resumed = pretrain(config, textures, elsewhere(runtime))
    must_be_equal(whole, resumed)
    left, right = (run.history.drop(columns=CLOCK) for run in (whole, last))
    pd.testing.assert_frame_equal(left, right[list(left)], check_exact=True)
    assert whole.environment["kept_epoch"] == resumed.environment["kept_epoch"] == 2
    for run, kept in ((whole, seen[1]), (resumed, seen[1]), (last, seen[7])):
        assert all(torch.equal(value, kept[f"backbone.net.{name}"]) for name, value in weights(run).items())
        assert torch.equal(load_file(run.path / "head.safetensors")["weight"], kept["head.weight"])


@pytest.mark.parametrize("task", ["binary", "multilabel", "multiclass"])
def test_what_is_kept_scores_as_the_history_says_however_seldom_val_is_seen(task: Any, runtime: RuntimeConfig) -> None:
    data, config = texture_dataset(task), texture_config(method="supervised", epochs=3, keep="best")
    run = pretrain(config, data, replace(runtime, measure_every=3))
    metric = "accuracy" if task == "multiclass" else "auc"
    assert evaluate(run, data, runtime)["head"]["val"][metric] == pytest.approx(run.history[f"head_{metric}"].max())


def test_a_finished_run_is_returned_at_once_and_fresh_retrains_it(
    textures: Dataset, runtime: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = pretrain(texture_config(), textures, runtime)
    (first.path / "marker").write_text("kept unless retrained")
    with monkeypatch.context() as patch:
        patch.delattr(pretraining, "Pretext")  # a finished run is not built again
        second = pretrain(texture_config(), textures, replace(runtime, precision="bf16-mixed", threads=2, knn_bank=3))
    assert second.status == "loaded" and second.path == first.path
    assert first.environment["data"] == textures.provenance and first.environment["precision"] == "32-true"
    assert first.environment["command"].startswith("python train.py --dataset textures --size 64")
    before = weights(first)
    with pytest.raises(ValueError, match="device must be one that this machine has, got 'mps'; use --device auto"):
        pretrain(texture_config(), textures, replace(runtime, device="mps"), fresh=True)
    assert (first.path / "marker").exists() and first.finished  # what cannot be built destroys nothing
    third = pretrain(texture_config(), textures, runtime, fresh=True)
    assert third.status == "trained" and not (third.path / "marker").exists()
    assert all(torch.equal(value, before[name]) for name, value in weights(third).items())


COMMON = {"epoch", "loss", "gradient_norm", "first_loss", "online_loss", "lr", "feature_std", "effective_rank", *CLOCK}
OWN = {  # what val says of a task that images set themselves
    "rotation": ("accuracy", "val_accuracy", *(f"val_accuracy/rot{turn}" for turn in (0, 90, 180, 270))),
    "consistency": (
        *("accuracy", "val_accuracy", "val_accuracy/intact"),
        *(f"val_accuracy/{kind}" for kind in ("rotations", "flips", "halves", "quadrants")),
    ),
    "inpainting": ("l1", "val_l1"),
    "mae": ("mse", "val_mse"),
}
SCORES = {
    "binary": {"online_auc", "knn_auc"},
    "multilabel": {"online_auc", "online_auc/x", "online_auc/y", "online_auc/z", "knn_auc"},
    "multiclass": {"online_accuracy", "knn_accuracy"},
}


@pytest.mark.parametrize("task", SCORES)
@pytest.mark.parametrize("method", [*METHODS, "examples.byol:BYOL"])  # one of somebody's own
def test_the_history_has_the_promised_columns_in_every_task(task: Any, method: str, runtime: RuntimeConfig) -> None:
    terms = {"vicreg": {"invariance", "variance", "covariance"}}.get(method, set())
    panel = {"alignment", "uniformity", "projection_std"} if method not in ("supervised", *OWN) else set()
    terms |= {"val_loss", *OWN[method]} if method in OWN else set()
    dataset, precision = texture_dataset(task, channels=3), "bf16-mixed" if task == "multiclass" else "32-true"
    network, first = {"mae": ("vit_tiny6", "patch_embed.proj.weight")}.get(method, ("resnet18", "conv1.weight"))
    config = texture_config(method=method, policy="cifar", backbone=network)
    run = pretrain(config, dataset, replace(runtime, precision=precision))
    history = run.history
    assert run.environment["precision"] == precision and weights(run)[first].shape[1] == 3
    assert set(history) == COMMON | SCORES[task] | terms | panel
    assert np.isfinite(history.to_numpy()).all()


def test_what_a_method_draws_does_not_hang_on_the_precision(textures: Dataset, runtime: RuntimeConfig) -> None:
    """Half precision rounds draws below 1 to 1, and images to 256 levels: neither may happen before the network."""
    config, seen = texture_config(method="consistency", policy="none", batch_size=40), []
    for precision in ("32-true", "bf16-mixed"):
        task = Pretext(resolve(config), textures, replace(runtime, precision=precision))
        with torch.no_grad():
            outputs = task.model(next(iter(task.batches(0))))
        seen.append(outputs["kinds"])
    assert torch.equal(*seen) and len(seen[0].unique()) > 5


def test_the_neighbours_of_val_are_train_images(textures: Dataset, runtime: RuntimeConfig) -> None:
    """Where train's labels are exchanged they vote against val's; among itself val would agree."""
    exchanged = replace(textures, train=replace(textures.train, labels=1 - textures.train.labels))
    assert pretrain(texture_config(), exchanged, runtime).history["knn_auc"].iloc[-1] < 0.2


def test_the_schedule_moves_every_step_but_the_probes_rate(textures: Dataset, runtime: RuntimeConfig) -> None:
    rates: list[list[float]] = []
    hook = register_optimizer_step_post_hook(lambda o, *_: rates.append([g["lr"] for g in o.param_groups]))
    base: dict[str, Any] = {"optimizer": "sgd", "lr": 0.256, "backbone_lr_factor": 0.5}
    run = pretrain(texture_config(**base, epochs=4, batch_size=10, warmup_epochs=1), textures, runtime)
    expected = [lr_at(i, base_lr=0.01, warmup_steps=4, total_steps=16) for i in range(16)]
    assert [r[-1] for r in rates[::2]] == pytest.approx(expected)
    assert [r[0] for r in rates[::2]] == pytest.approx([0.5 * rate for rate in expected])
    assert list(run.history["lr"]) == pytest.approx(expected[3::4]) and rates[1::2] == [[run.record["online_lr"]]] * 16
    rates.clear()
    pretrain(texture_config(**base, epochs=3, batch_size=20, warmup_epochs=10), textures, runtime)
    hook.remove()
    assert np.argmax([r[-1] for r in rates[::2]]) == 2  # at most a third of a run is warmed up


def batches_of(config: PretrainConfig, dataset: Dataset, runtime: RuntimeConfig, epoch: int = 0) -> list[Batch]:
    return list(Pretext(resolve(config), dataset, runtime).batches(epoch))


def test_batches_and_views_are_of_no_method(textures: Dataset, runtime: RuntimeConfig) -> None:
    plain = texture_config(policy="none")
    noisy = replace(plain, policy_changes={"noise_prob": 1.0, "noise_std": 0.1})
    of_noise, again, without = (
        batches_of(config, textures, runtime, 3) for config in (noisy, replace(noisy, method="vicreg", lr=1.0), plain)
    )
    assert all(torch.equal(a.views[1], b.views[1]) for a, b in zip(of_noise, again, strict=True))
    assert not torch.equal(of_noise[0].indices, batches_of(noisy, textures, runtime, 4)[0].indices)  # another order
    noise = [a.views[0] - b.views[0] for a, b in zip(of_noise, without, strict=True)]
    assert noise[0].std() > 0.1 and not torch.allclose(noise[0], noise[1])


def test_views_and_draws_do_not_depend_on_the_size_of_the_batch(
    textures: Dataset, runtime: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SimCLR, "num_draws", 3)  # a method's own

    def by_image(batch_size: int, epoch: int = 0, seed: int = 0) -> dict[int, Any]:
        config = texture_config(batch_size=batch_size, policy="ref", seed=seed)
        batches: Any = batches_of(config, textures, runtime, epoch)
        seen = torch.cat([b.indices for b in batches])
        assert len(seen) == 40 // batch_size * batch_size == len(seen.unique())  # the last partial batch is dropped
        assert torch.equal(torch.cat([b.labels for b in batches]), textures.train.labels[seen])
        return {int(i): (b.views[1][row], b.draws[row]) for b in batches for row, i in enumerate(b.indices)}

    small, large, later, other = by_image(8), by_image(16), by_image(8, epoch=1), by_image(8, seed=1)
    assert list(small)[:32] == list(large) and list(small) != list(later)
    for i, (view, draws) in large.items():
        assert torch.allclose(small[i][0], view, atol=1e-6) and torch.equal(small[i][1], draws)
        assert not torch.allclose(later[i][0], view, atol=1e-3)
        assert not torch.equal(later[i][1], draws) and not torch.equal(other[i][1], draws)
    assert len(torch.cat([draws for _, draws in small.values()]).unique()) == 120


def test_supervised_training_sees_labelled_images_only(textures: Dataset, runtime: RuntimeConfig) -> None:
    config = texture_config(method="supervised", label_fraction=0.5, batch_size=4)
    hidden = keep_labels(textures, 0.5, config.seed)
    both = config, replace(config, method="simclr")
    seen, every = (torch.cat([b.indices for b in batches_of(c, hidden, runtime)]) for c in both)
    assert hidden.train.labelled[seen].all() and not hidden.train.labelled[every].all()
    assert pretrain(config, textures, runtime).record["fingerprint"] == textures.fingerprint != hidden.fingerprint


def test_a_backbone_is_fine_tuned_under_its_own_normalisation(textures: Dataset, runtime: RuntimeConfig) -> None:
    parent = pretrain(texture_config(policy="cifar"), textures, runtime)
    base: dict[str, Any] = {"method": "supervised", "init": str(parent.weights), "weight_decay": 0.1}
    start = pretrain(texture_config(**base, epochs=0, batch_size=256), textures, runtime)
    assert same_weights(parent, start) and start.finished and start.history.empty
    assert start.backbone().normalisation == parent.backbone().normalisation
    frozen = pretrain(texture_config(**base, backbone_lr_factor=0), textures, runtime).backbone()
    assert all(torch.equal(p, q) for p, q in zip(frozen.parameters(), start.backbone().parameters(), strict=True))


def test_what_does_not_fit_is_refused_before_anything_is_written(textures: Dataset, runtime: RuntimeConfig) -> None:
    one_class = replace(textures, val=replace(textures.val, labels=0 * textures.val.labels))
    for config, data, message in (
        (texture_config(batch_size=41), textures, "batch_size must be at most the 40 training images .* got 41"),
        (texture_config(size=128), textures, "size must be the data set's 64 px, got 128"),
        (texture_config(keep="best"), textures, "keep must be last for a method without a classifier of its own, got"),
        (texture_config(), one_class, "the val split of textures must hold at least two classes for AUC"),
    ):
        with pytest.raises(ValueError, match=message):
            pretrain(config, data, runtime)
    assert not Path(str(runtime.results)).exists()


def test_pretraining_never_reads_the_test_split(textures: Dataset, runtime: RuntimeConfig) -> None:
    test = replace(textures.test, images=255 - textures.test.images, labels=1 - textures.test.labels)
    config = texture_config(method="supervised")
    a, b = pretrain(config, textures, runtime), pretrain(config, replace(textures, test=test), runtime)
    assert a.id != b.id
    must_be_equal(a, b)


def test_without_labels_the_pretexts_own_val_loss_is_in_the_history(textures: Dataset, runtime: RuntimeConfig) -> None:
    splits = {k: replace(s, labels=torch.full_like(s.labels, -1)) for k, s in textures.splits.items()}
    labelled, run = (
        pretrain(texture_config(epochs=2, lr=0.01), data, runtime) for data in (textures, replace(textures, **splits))
    )
    assert same_weights(labelled, run)  # which an online probe leaves untouched
    assert set(labelled.history) - set(run.history) == {"online_loss", "online_auc", "knn_auc"}
    assert run.history["val_loss"].iloc[1] < run.history["val_loss"].iloc[0] < math.log(2 * 16 - 1) * 1.2
