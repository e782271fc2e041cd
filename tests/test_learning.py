"""Does it learn? SimCLR on the phantom, against the encoder it started from."""

from dataclasses import replace

import pytest

from cxr_helpers.config import PretrainConfig, RuntimeConfig
from cxr_helpers.data import load_dataset
from cxr_helpers.evaluate import evaluate
from cxr_helpers.pretrain import pretrain

GENTLE = {"crop_scale_min": 0.5, "invert_prob": 0.0, "blur_prob": 0.0, "noise_prob": 0.0}
CONFIG = PretrainConfig(dataset="phantom", size=64, policy_changes=GENTLE, epochs=10, batch_size=128)


@pytest.mark.slow
def test_ten_epochs_of_simclr_lift_the_linear_probe_above_the_random_encoder(runtime: RuntimeConfig) -> None:
    """Measured on one AVX2 core: .761 -> .885 in 10 epochs."""
    dataset, runtime = load_dataset("phantom", 64), replace(runtime, threads=None)
    learnt = pretrain(CONFIG, dataset, runtime)
    auc = [evaluate(one, dataset, runtime, test=True)["linear"]["test"]["auc"] for one in ("random", learnt)]
    assert auc[0] < 0.85 and auc[1] > auc[0] + 0.05
    assert learnt.history["loss"].iloc[-1] < learnt.history["loss"].iloc[0]
