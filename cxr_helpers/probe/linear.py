"""The linear probe: logistic regression to convergence, its C chosen on folds of train by the one-standard-error rule.

Statistics and C come from train, the decision threshold from val; test is only scored.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, logit, softmax
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from ..config import ProbeConfig
from .features import Features, standardisation
from .metrics import Floats, classification_metrics, threshold_from, weighted_accuracy, weighted_macro_auc

if TYPE_CHECKING:
    from ..data import Task

Fold = tuple[NDArray[np.intp], NDArray[np.intp]]  # row indices: train, held out


def targets(labels: NDArray[np.int64], task: Task, num_outputs: int | None) -> Floats:
    """Labels as float columns [N, L]: one-hot for multi-class (None takes the classes there are), 0 / 1 else."""
    if task == "multiclass":
        return (labels[:, None] == np.arange(num_outputs or labels.max() + 1)).astype(np.float64)
    return labels.reshape(len(labels), -1).astype(np.float64)


def predict(logits: Floats, task: Task) -> Floats:
    """Probabilities of logits [N, L]: softmax for multi-class, sigmoid else; binary as [N]."""
    if task == "multiclass":
        return np.asarray(softmax(logits, axis=1))
    return np.asarray(expit(logits[:, 0] if task == "binary" else logits))


def mean_of_logits(scores: Sequence[Floats], task: Task) -> Floats:
    """Probabilities of several classifiers as one, by the mean of their logits: [N] or [N, L], as each of them."""
    tiny = np.finfo(np.float64).tiny
    if task == "multiclass":
        return np.asarray(softmax(np.mean([np.log(p + tiny) for p in scores], axis=0), axis=1))
    return np.asarray(expit(np.mean([logit(np.clip(p, 1e-15, 1 - 1e-15)) for p in scores], axis=0)))


@dataclass(frozen=True, eq=False, kw_only=True)
class LinearHead:
    """A fitted linear probe: features are standardised by train's statistics, then mapped to logits."""

    weights: Floats  # [D, L], for standardised features
    bias: Floats  # [L]
    mean: Floats  # [D], of train
    std: Floats  # [D]
    converged: bool

    def logits(self, x: NDArray[Any]) -> Floats:
        """Logits [N, L] of raw features [N, D]."""
        return (x - self.mean) / self.std @ self.weights + self.bias


class Logistic:
    """Logistic regressions on standardised features: 0.5 |w|^2 + C * sum of losses, all outputs in one L-BFGS.

    C and the optimum are scikit-learn's; the intercept is not penalised. Solved in coordinates where the Hessian is
    near the identity: along the eigenvectors of X'X, divided by sqrt(1 + C s eigenvalue), s being the mean p (1 - p) of
    the output. That leaves tens of iterations where plain L-BFGS takes hundreds. Losses are softmax's for multi-class,
    sigmoid's else: of labels [N, L] a regression per column.
    """

    def __init__(self, x: NDArray[Any], labels: NDArray[np.int64], *, task: Task, num_outputs: int | None) -> None:
        self.y, self.softmax = targets(labels, task, num_outputs), task == "multiclass"  # [N, L]
        self.mean, self.std = standardisation(x)
        x = (x - self.mean) / self.std
        if len(x) < x.shape[1]:  # the optimum is a combination of the rows: N directions hold it
            _, singular, rows = np.linalg.svd(x, full_matrices=False)
            self.eigenvalues, self.rotation = singular**2, rows.T
        else:
            eigenvalues, self.rotation = np.linalg.eigh(x.T @ x)
            self.eigenvalues = np.maximum(eigenvalues, 0.0)
        self.z = x @ self.rotation  # [N, R], R = min(N, D)
        rate = np.clip(self.y.mean(axis=0), 1 / (len(x) + 1), len(x) / (len(x) + 1))
        self.weights = np.zeros((self.z.shape[1], len(rate)))  # rotated; each fit starts from the one before
        self.bias = np.log(rate) if self.softmax else np.log(rate / (1 - rate))

    def fit(self, c: float, *, max_iter: int, tolerance: float = 1e-5) -> LinearHead:
        """Minimise for one C, starting from the last solution; of softmax the intercepts have mean 0."""
        _, p = self._losses(self.z @ self.weights + self.bias)
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
        limits = {"maxiter": max_iter, "maxfun": 2 * max_iter, "gtol": tolerance, "ftol": 0.0, "maxcor": 20}
        found = minimize(objective, start, jac=True, method="L-BFGS-B", options=limits)
        self.weights, self.bias = found.x[:cut].reshape(shape) * scale, found.x[cut:] * bias_scale
        # The line search may end at the limit of float64, just above the tolerance.
        converged = bool(np.abs(found.jac).max() <= 100 * tolerance)
        weights, bias = self.rotation @ self.weights, self.bias - (self.bias.mean() if self.softmax else 0.0)
        return LinearHead(weights=weights, bias=bias, mean=self.mean, std=self.std, converged=converged)

    def _losses(self, logits: Floats) -> tuple[float, Floats]:
        """Sum of losses, and probabilities [N, L]."""
        if self.softmax:
            logs = log_softmax(logits, axis=1)
            return -float(np.vdot(self.y, logs)), np.exp(logs)
        return float(np.logaddexp(0, logits).sum() - np.vdot(self.y, logits)), expit(logits)


def fit_head(x: NDArray[Any], labels: NDArray[np.int64], *, c: float, max_iter: int, **of: Any) -> LinearHead:
    """The logistic regression of labelled features [N, D] with this C; of: its `task` and `num_outputs`."""
    return Logistic(x, labels, **of).fit(c, max_iter=max_iter)


# ---- the choice of C


def split_folds(labels: NDArray[np.int64], groups: NDArray[Any] | None, *, folds: int, seed: int) -> Iterator[Fold]:
    """Row indices of each fold, stratified (multi-label by the rarest label of a row); no patient on both sides."""
    units = len(labels) if groups is None else len(np.unique(groups))
    if units < folds:
        name = "labelled train images" if groups is None else "patients with labelled train images"
        raise ValueError(f"folds must be at most the number of {name}, got {folds} folds of {units}")
    strata = labels
    if labels.ndim == 2:
        order = np.argsort(labels.sum(axis=0), kind="stable")  # rarest first
        strata = np.where(labels.any(axis=1), labels[:, order].argmax(axis=1), labels.shape[1])
    if np.unique(strata, return_counts=True)[1].max() < folds:  # then scikit-learn refuses
        strata = np.zeros(len(labels), dtype=np.int64)
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer images than folds is scored as nan
        yield from kind(n_splits=folds, shuffle=True, random_state=seed).split(labels, strata, groups)


def cross_validate(
    data: Features, folds: Iterable[Fold], *, task: Task, num_outputs: int | None, cs: Sequence[float], max_iter: int
) -> Floats:
    """Metric [folds, len(cs)] of each fold at each C (ascending), standardised within the fold.

    Accuracy for multi-class, else macro AUC over the labels with both classes among those held out, nan without any.
    """
    metric = weighted_accuracy if task == "multiclass" else weighted_macro_auc
    table = []
    for train, held in ((data.take(rows) for rows in fold) for fold in folds):
        model = Logistic(train.x, train.labels, task=task, num_outputs=num_outputs)
        heads = [model.fit(c, max_iter=max_iter, tolerance=1e-3) for c in cs]  # far finer than a rank changes
        scores = [predict(head.logits(held.x), task) for head in heads]
        table.append([metric(held.labels, one, np.ones((1, len(held))))[0] for one in scores])
    return np.array(table)


def choose_c(cs: Sequence[float], table: Floats) -> tuple[float, tuple[dict[str, float], ...]]:
    """The smallest C (ascending) whose mean is within one standard error of the best, and the rows that show why.

    table: metric [folds, len(cs)]; a fold with a nan, without both classes of any label, says nothing.
    Source: Breiman et al. 1984; Hastie, Tibshirani & Friedman 2009, section 7.10.
    """
    usable = table[~np.isnan(table).any(axis=1)]
    if len(usable) == 0:
        raise ValueError("no fold of train has both classes: label more train images or use fewer folds")
    means = usable.mean(axis=0)
    spread = usable.std(axis=0, ddof=1) if len(usable) > 1 else np.zeros(len(cs))
    errors = spread / np.sqrt(len(usable))
    best = int(means.argmax())
    chosen = cs[int(np.flatnonzero(means >= means[best] - errors[best] - 1e-12)[0])]
    rows = zip(cs, means.tolist(), errors.tolist(), strict=True)
    return chosen, tuple({"C": c, "mean": m, "se": e, "num_folds": float(len(usable))} for c, m, e in rows)


# ---- the probe


@dataclass(frozen=True, eq=False, kw_only=True)
class ProbeResult(LinearHead):
    """A fitted linear probe: the head, what was chosen for it, and how it scores."""

    c: float  # chosen on folds of train
    cv: tuple[dict[str, float], ...]  # rows of C, mean, se, num_folds
    scores: dict[str, Floats]  # "val", and "test" where asked for
    metrics: dict[str, dict[str, float]]
    threshold: Floats  # [L], chosen on val; nan for a label without both classes there


def _check(name: str, split: Features) -> None:
    """Refuse labelled features that are not finite or of one class."""
    if not np.isfinite(split.x).all():
        raise ValueError(f"features must be finite, got nan or inf in {name}: has training diverged?")
    y = split.labels
    if len(y) == 0 or not (y.min(axis=0) < y.max(axis=0)).any():
        present = ", ".join(str(v) for v in np.unique(y)) or "no label at all"
        raise ValueError(f"AUC needs both classes: the labelled {name} images have only {present}; use more of them")


def linear_probe(
    train: Features,
    val: Features,
    test: Features | None = None,
    *,
    task: Task,
    config: ProbeConfig = ProbeConfig(),
    num_outputs: int | None = None,
) -> ProbeResult:
    """Logistic regression on frozen features, standardised on train, its C chosen on folds of train.

    One C for all labels, by macro AUC (multi-class: accuracy) on folds that part no patient. `val` is scored and sets
    the decision threshold; `test` is scored only when given and changes nothing else.

    Args:
        train, val, test: features; rows without a label are dropped.
        num_outputs: classes of a multi-class task; None takes those of train.
    Raises:
        ValueError: a split with a single class, or fewer patients (images) than folds.
    """
    splits = {"train": train, "val": val} | ({} if test is None else {"test": test})
    splits = {name: split.labelled() for name, split in splits.items()}
    for name, split in splits.items():
        _check(name, split)
    train = splits.pop("train")
    options: dict[str, Any] = {"task": task, "num_outputs": num_outputs, "max_iter": config.max_iter}
    cs = sorted(config.cs)
    folds = split_folds(train.labels, train.groups, folds=config.folds, seed=config.seed)
    c, cv = choose_c(cs, cross_validate(train, folds, cs=cs, **options))
    head = fit_head(train.x, train.labels, **options, c=c)

    scores = {name: predict(head.logits(split.x), task) for name, split in splits.items()}
    threshold = threshold_from(splits["val"].labels, scores["val"])
    metrics = {
        name: classification_metrics(task, splits[name].labels, scores[name], threshold=threshold) for name in splits
    }
    return ProbeResult(c=c, cv=cv, scores=scores, metrics=metrics, threshold=threshold, **vars(head))
