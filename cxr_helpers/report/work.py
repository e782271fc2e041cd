"""The work list of a page: which runs it needs, which are there, and going through them one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from ..config import PretrainConfig, RuntimeConfig
from ..data import Dataset
from ..evaluate import evaluate
from ..planning import planned_run
from ..pretrain import pretrain
from ..recipes import command_of
from ..runs import Run, results_root
from .lineage import commit_text, dataset_name, label_of
from .live import LiveFigure
from .report import to_markdown
from .tables import rows_of

__all__ = ["Done", "LiveStatus", "run_plan", "shown_work", "status_of", "work_list"]


def work_list(
    plan: Iterable[PretrainConfig], datasets: Mapping[str, Dataset], runtime: RuntimeConfig, *, test: bool = True
) -> pd.DataFrame:
    """One row per planned run: whether it is there, from which commit, and the command that makes it.

    `ready` runs need no training: they are finished, or have no epochs and their weights are here.

    Args:
        test: whether the page scores test: the commands do so too, or leave it alone.
    """
    rows, runs = [], results_root(runtime) / "runs"
    for config in plan:
        data = datasets[config.dataset]
        run = planned_run(config, data, runtime)
        rows.append(
            {
                "dataset": config.dataset,
                "size": config.size,
                "label": label_of(run.record, runs),
                "policy": config.policy,
                "seed": config.seed,
                "ready": run.finished or _is_given(config),
                "status": _status(config, run),
                "commit": commit_text(run.environment) if run.finished else "–",
                "command": command_of(config, data, runtime) + " --test" * test,
            }
        )
    return pd.DataFrame(rows)


def shown_work(work: pd.DataFrame, by: str = "label") -> str:
    """`work_list` for readers: one row per configuration, the state of its seeds side by side.

    Args:
        by: the column that tells configurations apart: label (the encoder), or policy.
    """
    rows = []
    for (dataset, size, name), members in work.groupby(["dataset", "size", by], sort=False):
        seeds = [
            f"{row.seed}: {row.status}" + (f", {row.commit}" if row.status == "loaded" else "")
            for row in rows_of(members)
        ]
        first = {"data": dataset_name(str(dataset)), "px": size, "encoder" if by == "label" else by: name}
        rows.append(first | {"seed: status": "; ".join(seeds)})
    return to_markdown(pd.DataFrame(rows))


def _status(config: PretrainConfig, run: Run) -> str:
    if run.finished:
        return "loaded"
    if config.epochs == 0:
        return "nothing to train" if _is_given(config) else "its weights are not here"
    done = len(run.history)
    return f"{done} of {config.epochs} epochs done" if done else "not run yet"


def _is_given(config: PretrainConfig) -> bool:
    """Whether the initial weights are all that there is to the run, and at hand."""
    return config.epochs == 0 and (config.init in ("random", "imagenet") or Path(config.init).is_file())


class LiveStatus:
    """One output under a cell that follows the runs, line and training figure, and is their summary at the end.

    Args:
        plan: the configurations to go through, in order.
    """

    def __init__(self, plan: Iterable[PretrainConfig]) -> None:
        self.plan = list(plan)
        self.figure = LiveFigure()
        self.counts: dict[str, int] = {}
        self.histories: dict[str, list[pd.DataFrame]] = {}  # of finished seeds, by all else in their configuration

    def __iter__(self) -> Iterator[PretrainConfig]:
        self.figure.say("starting")
        for i, config in enumerate(self.plan, start=1):
            name = label_of({**vars(config), "init_sha256": None})
            now = f"{i} of {len(self.plan)}: {dataset_name(config.dataset)}, {name}, seed {config.seed}"
            earlier = self.histories.setdefault(str(replace(config, seed=0)), [])
            self.figure.follow(name=now, epochs=config.epochs, family=config.method, earlier=earlier)
            self.figure.say(now)
            yield config
        parts = ", ".join(f"{count} {status}" for status, count in self.counts.items())
        runs = "1 run" if len(self.plan) == 1 else f"{len(self.plan)} runs"
        self.figure.say(f"{runs}: {parts}." if self.plan else "Nothing to run here.")

    def epoch(self, history: pd.DataFrame) -> None:
        """For `pretrain(on_epoch=...)`: the figures and curves up to the last epoch."""
        self.figure.epoch(history)

    def count(self, run: Run) -> Run:
        """Note how a run came to be there."""
        self.counts[status_of(run)] = self.counts.get(status_of(run), 0) + 1
        self.figure.earlier.append(run.history)
        return run


def status_of(run: Run) -> str:
    """How a run came to be there: trained, resumed, loaded, or measured where there was nothing to train."""
    return "measured" if run.status == "trained" and run.record["epochs"] == 0 else run.status


# ---- going through it


@dataclass(frozen=True, kw_only=True)
class Done:
    """What came of a plan: its finished runs in order, and the rows of the work list that were left out."""

    runs: list[Run]
    missing: pd.DataFrame

    def of(self, dataset: str) -> list[Run]:
        """The runs on one data set."""
        return [run for run in self.runs if run.record["dataset"] == dataset]


def run_plan(
    plan: Iterable[PretrainConfig],
    datasets: Mapping[str, Dataset],
    runtime: RuntimeConfig,
    *,
    train_missing: bool = True,
    test: bool = True,
) -> Done:
    """Train or load every run of a plan and probe it, with one line under the cell that follows it.

    Args:
        train_missing: False leaves out what is not finished, except encoders without training.
        test: score test too, once per run: everything is chosen on train and val.
    """
    plan = list(plan)
    work = work_list(plan, datasets, runtime, test=test)
    ready = list(work["ready"]) if len(work) else []
    status = LiveStatus([config for config, there in zip(plan, ready, strict=True) if there or train_missing])
    runs = []
    for config in status:
        run = pretrain(config, datasets[config.dataset], runtime, on_epoch=status.epoch)
        evaluate(run, datasets[config.dataset], runtime, test=test)
        runs.append(status.count(run))
    return Done(runs=runs, missing=work.iloc[:0] if train_missing or not ready else work[~work["ready"]])
