"""A run whose steps two processes share: `torchrun --nproc-per-node 2 tests/shares.py FOLDER` writes what they did."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conftest import TinyNet, new_run, texture_config, texture_dataset
from lightning_fabric import Fabric
from torch import Tensor, nn

from cxr_helpers.config import RuntimeConfig
from cxr_helpers.loop import devices, fit
from cxr_helpers.methods import METHODS, Batch
from cxr_helpers.methods.joint import SimCLR
from cxr_helpers.models import resnet
from cxr_helpers.pretrain import Pretext
from cxr_helpers.recipes import resolve

SHARED = {"simclr": None, "vicreg": 3, "alone": 3}  # with the images of one pass


class Alone(SimCLR):
    """Images do not meet in its loss; it counts its passes and looks at its own draws."""

    pairwise, num_draws, passes = False, 2, 0

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        type(self).passes += 1
        assert batch.draws is not None
        return {**super().forward(batch), "draws": batch.draws}

    def loss(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        error = (outputs["z_a"] - outputs["z_b"]).square().mean(1) * outputs["draws"][:, 1]
        return {"loss": error.mean(), "spread": outputs["z_a"].square().mean()}


def in_float64(fabric: Fabric) -> Fabric:
    """Fabric's `64-true` without its cast of a network's outputs to float32."""
    fabric.strategy.precision.convert_output = lambda data: data  # type: ignore[method-assign]
    return fabric


def doubled(batch: Batch) -> Batch:
    batch.views = tuple(view.double() for view in batch.views)
    return batch


def frozen_task(method: str, micro_batch: int | None) -> Pretext:
    """Two epochs in float64 whose BatchNorm layers stay at their initial statistics; no pixel noise.

    SGD: AdamW divides tiny gradients by their own size and so magnifies the rounding of sums in another order.
    """
    usual, devices._precision = devices._precision, lambda *_: "64-true"
    changes: dict[str, Any] = {"optimizer": "sgd", "lr": 0.3, "policy_changes": {"noise_prob": 0.0}, "epochs": 2}
    try:
        config = resolve(texture_config(method=method, **changes))
        runtime = RuntimeConfig(device="cpu", threads=1, micro_batch=micro_batch, progress=False)
        task = Pretext(config, texture_dataset(), runtime)
    finally:
        devices._precision = usual
    in_float64(task.fabric)
    made = task._batch
    task._batch = lambda *of: doubled(made(*of))  # type: ignore[method-assign]
    task.measure = lambda row: {}  # type: ignore[method-assign]  # which is done in float32
    object.__setattr__(task.method, "train", lambda mode=True: nn.Module.train(task.method, False))
    return task


def weights_of(task: Pretext) -> dict[str, Tensor]:
    """The method's parameters and buffers, copied."""
    return {name: value.clone() for name, value in task.method.state_dict().items()}


def main(folder: Path) -> None:
    """One epoch of each method, whose checkpoint stays where the run could go on."""
    resnet.BUILDERS["resnet18"], METHODS["alone"] = TinyNet, Alone
    for method, micro_batch in SHARED.items():
        task = frozen_task(method, micro_batch)
        assert task.fabric.world_size == 2
        fit(task, new_run(folder / method), 1, progress=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
