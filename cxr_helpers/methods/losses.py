"""Pretext losses: pure functions of embeddings, in float32 or wider whatever the model ran in."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["nt_xent_loss", "vicreg_loss"]


def _check_pair(z_a: Tensor, z_b: Tensor) -> tuple[Tensor, Tensor]:
    if z_a.ndim != 2 or z_a.shape != z_b.shape:
        raise ValueError(f"embeddings must be two [B, D] tensors of one shape, got {[*z_a.shape]} and {[*z_b.shape]}")
    if not (z_a.is_floating_point() and z_b.is_floating_point()):
        raise ValueError(f"embeddings must be floating-point numbers, got {z_a.dtype} and {z_b.dtype}")
    if len(z_a) < 2:
        raise ValueError(f"a batch must be at least 2 images for a pretext loss, got {len(z_a)}")
    # half precision overflows in exp(1 / T) and loses the covariance; float64 stays float64 (tests)
    wide = torch.promote_types(z_a.dtype, torch.float32)
    return z_a.to(wide), z_b.to(wide)


def nt_xent_loss(z_a: Tensor, z_b: Tensor, *, temperature: float) -> Tensor:
    """Normalised temperature-scaled cross-entropy over cosine similarities, mean of the 2B anchors.

    Args:
        z_a, z_b: embeddings of the two views `[B, D]`, B at least 2; normalised here.
        temperature: positive; the similarities are divided by it.
    Returns:
        A scalar. Identical embeddings give log(2B - 1).
    Source:
        SimCLR, arXiv 2002.05709, eq. 1 and algorithm 1. An anchor is never its own negative: its similarity to
        itself is -inf, not a small number.
    """
    z_a, z_b = _check_pair(z_a, z_b)
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be above 0 and finite, got {temperature}")
    num_images = len(z_a)
    z = F.normalize(torch.cat([z_a, z_b]), dim=1)  # [2B, D]
    logits = (z @ z.T / temperature).fill_diagonal_(float("-inf"))  # [2B, 2B]
    positives = torch.arange(2 * num_images, device=z.device).roll(num_images)  # [2B] the other view's row
    return F.cross_entropy(logits, positives)


def _variance(z: Tensor) -> Tensor:
    return F.relu(1 - torch.sqrt(z.var(dim=0) + 1e-4)).mean()


def _covariance(z: Tensor) -> Tensor:
    num_images, dim = z.shape
    z = z - z.mean(dim=0)
    covariance = z.T @ z / (num_images - 1)  # [D, D]
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / dim


def vicreg_loss(
    z_a: Tensor,
    z_b: Tensor,
    *,
    invariance_weight: float = 25.0,  # lambda in the paper
    variance_weight: float = 25.0,  # mu
    covariance_weight: float = 1.0,  # nu
) -> dict[str, Tensor]:
    """Variance-invariance-covariance regularisation, normalised as facebookresearch/vicreg does.

    Invariance is the mean squared difference over all elements; variance the hinge at a standard deviation of 1
    (epsilon 1e-4), averaged over the two views; covariance the off-diagonal squares over D, summed over the views.

    Args:
        z_a, z_b: embeddings of the two views `[B, D]`, B at least 2, not normalised.
    Returns:
        `loss` and its unweighted terms `invariance`, `variance`, `covariance`: loss is the weighted sum.
    Source:
        VICReg, arXiv 2105.04906, and its official code, which halves the variance of each view; libraries that do
        not halve it minimise another objective under the same three weights.
    """
    z_a, z_b = _check_pair(z_a, z_b)
    invariance = F.mse_loss(z_a, z_b)
    variance = (_variance(z_a) + _variance(z_b)) / 2
    covariance = _covariance(z_a) + _covariance(z_b)
    loss = invariance_weight * invariance + variance_weight * variance + covariance_weight * covariance
    return {"loss": loss, "invariance": invariance, "variance": variance, "covariance": covariance}
