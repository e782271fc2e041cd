"""Configurations: one declaration for checks, help and tables; the name of a run, and the command that repeats it."""

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import texture_config, texture_dataset
from samples import one_sentence

from cxr_helpers import PretrainConfig, ProbeConfig, RuntimeConfig
from cxr_helpers.augment import Normalisation
from cxr_helpers.data import Dataset, draw_images
from cxr_helpers.fields import KINDS, Checked, declare, help_of, kind_of, table
from cxr_helpers.methods import METHODS, load_method
from cxr_helpers.models import build_backbone, save_backbone
from cxr_helpers.recipes import command_of, differing, find_run, record_of, resolve, run_id
from cxr_helpers.runs import start_run

NAN = float("nan")
OF_OTHER_KINDS: dict[str, tuple[Any, ...]] = {  # by the kind that an annotation names
    "str": (3, True, Path("x"), ["x"]),
    "bool": (0, "yes"),
    "int": (64.0, 1.5, NAN, True, "3", np.zeros((3, 3))),
    "float": (NAN, float("inf"), True, "1", (1.0,)),
    "tuple[str, ...]": (1.0, "1", (1.0,)),
    "tuple[float, ...]": (1.0, "1", (NAN, 1.0), (True,), ("1",)),
    "tuple[int, ...]": (1, "1", (1.5,), (True,), ("1",)),
    "Mapping[str, Any]": ([], "ab", {5: 1.0}),
}
CLASSES = (PretrainConfig, RuntimeConfig, ProbeConfig, *(load_method(name).Options for name in METHODS))


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__qualname__)
def test_no_field_takes_a_value_of_another_kind_or_one_that_is_not_finite(kind: Any) -> None:
    assert set(OF_OTHER_KINDS) == set(KINDS)
    for f in fields(kind):
        others = OF_OTHER_KINDS[kind_of(f).removesuffix(" | None")]
        for value in others if "| None" in kind_of(f) else (*others, None):
            with pytest.raises(ValueError, match=rf"^(\w+ in )?{f.name} must be .+, got ") as error:
                kind(**{f.name: value})
            assert one_sentence(error.value)


@dataclass(frozen=True, kw_only=True)
class Toy(Checked):
    rate: float = declare(0.5, "how fast", unit="per step", low=0, above=True, high=1, below=True)
    kind: str = declare("a", "which", choices=("a", "b"))


def test_one_declaration_gives_range_help_and_the_row_of_a_table() -> None:
    with pytest.raises(ValueError, match=r"^rate must be above 0 and below 1, got 1\.0$"):
        Toy(rate=1.0)
    assert help_of(fields(Toy)[0]) == "how fast (per step; above 0 and below 1; default 0.5)"
    assert help_of(fields(Toy)[1]) == "which (one of a, b; default a)"
    row = {"name": "rate", "value": 0.25, "default": 0.5, "unit": "per step", "why": "how fast"}
    assert row.items() <= table(Toy(rate=0.25))[0].items()


def record(**changes: Any) -> dict[str, Any]:
    data: Any = SimpleNamespace(name="phantom", fingerprint="data")
    return record_of(resolve(PretrainConfig(dataset="phantom", size=64, **changes)), data)


def test_a_field_added_later_a_default_spelt_out_and_another_order_name_the_same_run() -> None:
    whole = record()
    older = {key: value for key, value in whole.items() if key != "backbone_lr_factor"}
    older["options"] = {key: value for key, value in whole["options"].items() if key != "output_dim"}
    older["policy_fields"] = {key: v for key, v in whole["policy_fields"].items() if key != "randaugment_magnitude"}
    assert run_id(older) == run_id(whole)
    assert run_id(record(lr=2e-3, options={"temperature": 0.2})) == run_id(record())
    assert run_id(record(policy_changes={"gamma": 0.1})) == run_id(record(policy_changes={"gamma": "0.1"}))
    options = {"temperature": 0.1, "hidden_dim": 64}
    assert run_id(record(options=options)) == run_id(record(options=dict(reversed(options.items()))))


def test_only_what_differs_from_the_declared_defaults_is_hashed() -> None:
    recipe = {"optimizer": "adamw", "lr": 2e-3, "weight_decay": 1e-4, "batch_size": 256, "warmup_epochs": 3.0}
    asked = {"dataset": "phantom", "size": 64, "policy": "none", "fingerprint": "data"}
    assert differing(record(policy="none", epochs=50)) == asked | recipe


def test_a_folder_that_holds_another_record_is_refused_and_one_with_absent_defaults_is_not(tmp_path: Path) -> None:
    run = find_run(tmp_path, record())
    start_run(run, fresh=False)
    stored = json.loads((run.path / "config.json").read_text())
    (run.path / "config.json").write_text(json.dumps({k: v for k, v in stored.items() if k != "online_lr"}))
    assert find_run(tmp_path, record()).path == run.path
    (run.path / "config.json").write_text(json.dumps({**stored, "seed": 1}))
    with pytest.raises(ValueError, match="must hold the configuration that names it, got another; move it away"):
        find_run(tmp_path, record())


CHANGES: dict[str, Any] = {
    **{"size": 32, "method": "vicreg", "options": {"temperature": 0.3}, "policy": "ref", "backbone": "resnet50"},
    **{"policy_changes": {"crop_scale_min": 0.9}, "epochs": 2, "batch_size": 8, "optimizer": "sgd", "lr": 0.5},
    **{"weight_decay": 0.5, "warmup_epochs": 0.25, "backbone_lr_factor": 0.5, "label_fraction": 0.5},
    **{"online_lr": 0.5, "seed": 1, "channels": 3, "keep": "best"},
}


def test_any_changed_field_changes_the_name_of_the_run(textures: Dataset, tmp_path: Path) -> None:
    assert set(CHANGES) == {f.name for f in fields(PretrainConfig)} - {"dataset", "init"}
    config = texture_config(options={})
    names = {name_of(config, data) for data in (textures, texture_dataset(counts=(38, 24, 24)))}
    names |= {name_of(replace(config, **{field: value}), textures) for field, value in CHANGES.items()}
    names |= {name_of(replace(config, backbone="vit_tiny6"), textures)}
    about: dict[str, Any] = {"channels": 1, "size": 64, "normalisation": Normalisation((0.5,), (0.5,))}
    for seed in (0, 1):  # a file by what is in it
        save_backbone(build_backbone("resnet18", init="random", seed=seed, **about), tmp_path / "backbone.safetensors")
        names.add(name_of(replace(config, init=str(tmp_path / "backbone.safetensors")), textures))
    assert len(names) == 2 + len(CHANGES) + 1 + 2


def name_of(config: PretrainConfig, dataset: Dataset) -> str:
    return run_id(record_of(resolve(config), dataset))


def test_the_command_repeats_what_is_not_a_default_in_names_of_a_checkout(textures: Dataset, tmp_path: Path) -> None:
    options = {"temperature": 0.1, "output_dim": 64}
    command = command_of(PretrainConfig(size=64, options=options, policy_changes={"gamma": 0.2}, init="my file"))
    assert command.startswith("python train.py --dataset pneumoniamnist --size 64 --method simclr")
    assert "--options temperature 0.1 output_dim 64" in command
    assert "--policy-changes gamma 0.2" in command and "--init 'my file'" in command
    assert "--backbone " not in command and "--lr " not in command
    weights = tmp_path / "elsewhere" / "runs" / "parent-64" / "backbone.safetensors"
    assert " --init results/runs/parent-64/backbone.safetensors " in command_of(texture_config(init=str(weights)))
    assert command_of(texture_config(), draw_images(textures, 20, 8)).endswith("images 20 --max-eval-images 8")
