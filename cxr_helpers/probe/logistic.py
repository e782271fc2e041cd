"""Logistic regression to convergence and the cross-validated choice of its C; arrays in, arrays out."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from .metrics import accuracy, per_label_auc

if TYPE_CHECKING:
    from ..data import Task

__all__ = [
    "LinearHead",
    "Logistic",
    "choose_c",
    "cross_validate",
    "fit_head",
    "one_standard_error",
    "predict",
    "split_folds",
    "standardisation",
    "targets",
]

Floats = NDArray[np.float64]


def standardisation(x: NDArray[Any]) -> tuple[Floats, Floats]:
    """Mean and standard deviation [D] of the columns; the latter 1 for a constant column, which becomes 0."""
    mean, std = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
    return mean, np.where(std > 1e-6 * np.abs(mean) + 1e-12, std, 1.0)


def targets(labels: NDArray[np.int64], task: Task, num_outputs: int) -> Floats:
    """Labels as float columns [N, num_outputs]: one-hot for multi-class, 0 / 1 else."""
    if task == "multiclass":
        return (labels[:, None] == np.arange(num_outputs)).astype(np.float64)
    return labels.reshape(len(labels), -1).astype(np.float64)


def predict(logits: Floats, task: Task) -> Floats:
    """Probabilities of logits [N, L]: softmax for multi-class, sigmoid else; binary as [N]."""
    if task == "multiclass":
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        return p / p.sum(axis=1, keepdims=True)
    return expit(logits[:, 0] if task == "binary" else logits)


class Logistic:
    """Logistic regressions on one matrix: 0.5 |w|^2 + C * sum of losses, all outputs in one L-BFGS.

    C is scikit-learn's; the intercept is not penalised. Sigmoid losses, one per column (binary, multi-label),
    or softmax (multi-class). Solved in coordinates where the Hessian is near the identity: along the
    eigenvectors of X'X, divided by sqrt(1 + C s eigenvalue), s being the mean p (1 - p) of the output. That
    leaves tens of iterations where plain L-BFGS takes hundreds, and the optimum is the same.

    Args:
        x: [N, D] float64, standardised.
        y: [N, L] in {0, 1}; one-hot for softmax.
    """

    def __init__(self, x: Floats, y: Floats, *, softmax: bool) -> None:
        self.y, self.softmax = y, softmax
        if len(x) < x.shape[1]:  # the optimum is a combination of the rows: N directions hold it
            _, singular, rows = np.linalg.svd(x, full_matrices=False)
            self.eigenvalues, self.rotation = singular**2, rows.T
        else:
            eigenvalues, self.rotation = np.linalg.eigh(x.T @ x)
            self.eigenvalues = np.maximum(eigenvalues, 0.0)
        self.z = x @ self.rotation  # [N, R], R = min(N, D)
        rate = np.clip(y.mean(axis=0), 1 / (len(y) + 1), len(y) / (len(y) + 1))
        self.weights = np.zeros((self.z.shape[1], y.shape[1]))  # rotated; each fit starts from the one before
        self.bias = np.log(rate) if softmax else np.log(rate / (1 - rate))

    def fit(self, c: float, *, max_iter: int, tolerance: float = 1e-5) -> bool:
        """Minimise for one C, starting from the last solution; returns whether the gradient vanished."""
        p = self._losses(self.z @ self.weights + self.bias)[1]
        spread = np.maximum((p * (1 - p)).mean(axis=0), 1e-4)  # [L]
        scale = 1 / np.sqrt(1 + c * self.eigenvalues[:, None] * spread)  # [R, L]
        bias_scale = 1 / np.sqrt(c * len(self.y) * spread)
        shape, cut = self.weights.shape, self.weights.size

        def objective(flat: Floats) -> tuple[float, Floats]:
            w, b = flat[:cut].reshape(shape) * scale, flat[cut:] * bias_scale
            loss, p = self._losses(self.z @ w + b)
            p -= self.y
            slope = (w + c * (self.z.T @ p)) * scale
            return 0.5 * float(np.vdot(w, w)) + c * loss, np.append(slope, c * p.sum(axis=0) * bias_scale)

        start = np.append(self.weights / scale, self.bias / bias_scale)
        found = minimize(
            objective,
            start,
            jac=True,
            method="L-BFGS-B",
            options={
                "maxiter": max_iter,
                "maxfun": 2 * max_iter,
                "gtol": tolerance,
                "ftol": 0.0,
                "maxcor": 20,
            },
        )
        self.weights, self.bias = found.x[:cut].reshape(shape) * scale, found.x[cut:] * bias_scale
        # The line search may end at the limit of float64, just above the tolerance.
        return bool(np.abs(found.jac).max() <= 100 * tolerance)

    def _losses(self, logits: Floats) -> tuple[float, Floats]:
        """Sum of losses, and probabilities [N, L]."""
        if self.softmax:
            logits = logits - logits.max(axis=1, keepdims=True)
            p = np.exp(logits)
            total = p.sum(axis=1, keepdims=True)
            return float(np.log(total).sum() - np.vdot(self.y, logits)), p / total
        return float(np.logaddexp(0, logits).sum() - np.vdot(self.y, logits)), expit(logits)

    def coefficients(self) -> tuple[Floats, Floats]:
        """Weights [D, L] and intercepts [L] in the coordinates of x (softmax: intercepts of mean 0)."""
        return self.rotation @ self.weights, self.bias - self.bias.mean() if self.softmax else self.bias


@dataclass(frozen=True, eq=False, kw_only=True)
class LinearHead:
    """A fitted linear probe: features [N, D] are standardised by train's statistics, then mapped to logits."""

    weights: Floats  # [D, L], for standardised features
    bias: Floats  # [L]
    mean: Floats  # [D], of train
    std: Floats  # [D]
    converged: bool

    def logits(self, x: NDArray[Any]) -> Floats:
        """Logits [N, L] of raw features [N, D]."""
        return (x - self.mean) / self.std @ self.weights + self.bias


def fit_head(
    x: NDArray[np.float32], labels: NDArray[np.int64], *, task: Task, num_outputs: int, c: float, max_iter: int
) -> LinearHead:
    """Standardise labelled features and fit the logistic regression with this C."""
    mean, std = standardisation(x)
    model = Logistic((x - mean) / std, targets(labels, task, num_outputs), softmax=task == "multiclass")
    converged = model.fit(c, max_iter=max_iter)
    weights, bias = model.coefficients()
    return LinearHead(weights=weights, bias=bias, mean=mean, std=std, converged=converged)


def split_folds(
    labels: NDArray[np.int64], groups: NDArray[Any] | None, *, folds: int, seed: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """(train, held out) row indices of each fold, stratified; no patient on both sides.

    Multi-label rows are stratified by the rarest label they carry, or none.

    Raises:
        ValueError: fewer rows, or fewer patients, than folds.
    """
    units = len(labels) if groups is None else len(np.unique(groups))
    if units < folds:
        name = "labelled train images" if groups is None else "patients with labelled train images"
        raise ValueError(f"folds must be at most the number of {name}, got {folds} folds of {units}")
    strata = labels
    if labels.ndim == 2:
        order = np.argsort(labels.sum(axis=0), kind="stable")  # rarest first
        strata = np.where(labels.any(axis=1), labels[:, order].argmax(axis=1), labels.shape[1])
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    splitter = kind(n_splits=folds, shuffle=True, random_state=seed)
    if np.unique(strata, return_counts=True)[1].max() < folds:  # then scikit-learn refuses
        strata = np.zeros(len(labels), dtype=np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer images than folds is scored as nan
        yield from splitter.split(np.zeros(len(labels)), strata, groups)


def cross_validate(
    x: NDArray[np.float32],
    labels: NDArray[np.int64],
    folds: Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]],
    *,
    task: Task,
    num_outputs: int,
    cs: Sequence[float],
    max_iter: int,
) -> Floats:
    """Metric of each fold at each C (ascending): [folds, len(cs)], standardised within the fold.

    The metric is accuracy for multi-class, else macro AUC over the labels with both classes among the fold's
    held-out rows, nan without any.
    """
    rows = []
    for train, held in folds:
        mean, std = standardisation(x[train])
        y = targets(labels[train], task, num_outputs)
        model = Logistic((x[train] - mean) / std, y, softmax=task == "multiclass")
        query, row = (x[held] - mean) / std, []
        for c in cs:
            model.fit(c, max_iter=max_iter, tolerance=1e-3)  # far finer than a rank changes
            weights, bias = model.coefficients()
            row.append(_fold_metric(labels[held], predict(query @ weights + bias, task), task))
        rows.append(row)
    return np.array(rows)


def one_standard_error(means: Floats, errors: Floats) -> int:
    """Index of the smallest C (ascending) whose mean is within one standard error of the best.

    Source: Breiman et al. 1984; Hastie, Tibshirani & Friedman 2009, section 7.10.
    """
    best = int(np.nanargmax(means))
    return int(np.flatnonzero(means >= means[best] - errors[best] - 1e-12)[0])


def _fold_metric(labels: NDArray[np.int64], scores: Floats, task: Task) -> float:
    if task == "multiclass":
        return accuracy(labels, scores)
    values = per_label_auc(labels, scores)
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def choose_c(cs: list[float], table: Floats) -> tuple[float, tuple[dict[str, float], ...]]:
    """C by the one-standard-error rule, and the rows that show why."""
    usable = table[~np.isnan(table).any(axis=1)]  # a fold without both classes of any label says nothing
    if len(usable) == 0:
        raise ValueError("no fold of train has both classes: label more train images or use fewer folds")
    means = usable.mean(axis=0)
    spread = usable.std(axis=0, ddof=1) if len(usable) > 1 else np.zeros(len(cs))
    errors = spread / np.sqrt(len(usable))
    rows = zip(cs, means.tolist(), errors.tolist(), strict=True)
    cv = tuple({"C": c, "mean": m, "se": e, "num_folds": float(len(usable))} for c, m, e in rows)
    return cs[one_standard_error(means, errors)], cv
