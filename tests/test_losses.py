"""Losses against the papers' pseudocode as slow loops in float64, and in closed form."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cxr_helpers import nt_xent_loss, vicreg_loss

Loss = Callable[[Tensor, Tensor], Tensor]
LOSSES: tuple[Loss, ...] = (lambda a, b: nt_xent_loss(a, b, temperature=0.2), lambda a, b: vicreg_loss(a, b)["loss"])


def embeddings(num_images: int = 7, dim: int = 5, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    z_a = torch.randn(num_images, dim, generator=generator, dtype=dtype)
    return z_a, z_a + 0.7 * torch.randn(num_images, dim, generator=generator, dtype=dtype)


def slow_nt_xent(z_a: Tensor, z_b: Tensor, temperature: float) -> float:
    """SimCLR's algorithm 1, one anchor and one pair at a time: rows 2k and 2k + 1 are the views of image k."""
    z, total = [row for pair in zip(z_a, z_b, strict=True) for row in pair], 0.0
    for i, anchor in enumerate(z):
        wins = [math.exp(anchor @ other / anchor.norm() / other.norm() / temperature) for other in z]
        partner = i + 1 if i % 2 == 0 else i - 1
        total -= math.log(wins[partner] / sum(wins[:i] + wins[i + 1 :]))
    return total / len(z)


def slow_vicreg(z_a: Tensor, z_b: Tensor) -> dict[str, float]:
    """The three terms element by element, normalised as the official code: halved variance, covariance over D."""
    num_images, dim = z_a.shape
    invariance = sum((p - q) ** 2 for p, q in zip(z_a.flatten().tolist(), z_b.flatten().tolist(), strict=True))
    invariance /= num_images * dim
    variance = covariance = 0.0
    for z in (z_a.tolist(), z_b.tolist()):
        columns = [[row[d] for row in z] for d in range(dim)]
        centred = [[v - sum(c) / num_images for v in c] for c in columns]
        cov = [[sum(p * q for p, q in zip(a, b, strict=True)) / (num_images - 1) for b in centred] for a in centred]
        variance += sum(max(0.0, 1 - math.sqrt(cov[d][d] + 1e-4)) for d in range(dim)) / dim / 2
        covariance += sum(cov[i][j] ** 2 for i in range(dim) for j in range(dim) if i != j) / dim
    loss = 25 * invariance + 25 * variance + covariance
    return {"loss": loss, "invariance": invariance, "variance": variance, "covariance": covariance}


@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_nt_xent_equals_the_papers_loop(temperature: float) -> None:
    z_a, z_b = embeddings()
    ours = nt_xent_loss(z_a, z_b, temperature=temperature).item()
    assert ours == pytest.approx(slow_nt_xent(z_a, z_b, temperature), rel=1e-12)


def test_identical_embeddings_have_their_closed_forms() -> None:
    """NT-Xent is the log of the other rows; VICReg's variance 1 - sqrt(1e-4), its other terms are 0."""
    z = torch.ones(8, 3, dtype=torch.float64)
    assert nt_xent_loss(z, z, temperature=0.1).item() == pytest.approx(math.log(15), rel=1e-12)
    terms = {name: value.item() for name, value in vicreg_loss(z, z).items()}
    assert terms == pytest.approx({"loss": 25 * 0.99, "invariance": 0, "variance": 0.99, "covariance": 0})


def test_no_loss_changes_when_views_are_swapped_or_images_permuted_nor_nt_xent_when_they_are_scaled() -> None:
    z_a, z_b = embeddings()
    order = torch.randperm(len(z_a), generator=torch.Generator().manual_seed(3))
    swapped, permuted, scaled = (z_b, z_a), (z_a[order], z_b[order]), (3 * z_a, 0.2 * z_b)
    for loss, pairs in zip(LOSSES, ((swapped, permuted, scaled), (swapped, permuted)), strict=True):
        for pair in pairs:
            torch.testing.assert_close(loss(*pair), loss(z_a, z_b))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_nt_xent_stays_finite_in_half_precision_at_a_low_temperature(dtype: torch.dtype) -> None:
    z_a, z_b = embeddings(64, 32, dtype=torch.float32)
    half = nt_xent_loss(z_a.to(dtype), z_b.to(dtype), temperature=0.01)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, nt_xent_loss(z_a, z_b, temperature=0.01), rtol=0.05, atol=0.05)


def test_vicreg_and_its_terms_equal_the_slow_loop_and_each_weight_scales_its_own() -> None:
    z_a, z_b = embeddings()
    ours = {name: value.item() for name, value in vicreg_loss(0.4 * z_a, 0.6 * z_b).items()}
    assert ours == pytest.approx(slow_vicreg(0.4 * z_a, 0.6 * z_b), rel=1e-10)
    z_a, z_b = (0.3 * z for z in embeddings())
    terms = vicreg_loss(z_a, z_b)
    for name in ("invariance", "variance", "covariance"):
        weights = {f"{k}_weight": float(k == name) for k in ("invariance", "variance", "covariance")}
        torch.testing.assert_close(vicreg_loss(z_a, z_b, **weights)["loss"], terms[name])


@pytest.mark.parametrize("loss", LOSSES)
def test_embeddings_that_do_not_fit_are_refused(loss: Loss) -> None:
    with pytest.raises(ValueError, match="one shape"):
        loss(torch.zeros(4, 3), torch.zeros(4, 2))
    with pytest.raises(ValueError, match="at least 2 images"):
        loss(torch.zeros(1, 3), torch.zeros(1, 3))
    with pytest.raises(ValueError, match="temperature must be above 0"):
        nt_xent_loss(*embeddings(), temperature=0.0)
