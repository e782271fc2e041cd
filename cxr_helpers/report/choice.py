"""The choice of augmentations: policies ranked by the online probe, how sure that is, and what notebook 04 reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from ..augment import POLICIES
from ..config import RuntimeConfig
from ..data import Dataset
from ..planning import project_root
from ..plans import plan_runs
from ..profiles import Profile
from ..runs import Run
from .claims import content_of, one_data_set
from .report import report_folder, to_markdown
from .tables import history_table, rows_of, runs_table
from .work import work_list

__all__ = [
    "TAIL_EPOCHS",
    "Choice",
    "PolicyInUse",
    "agreement",
    "choice_table",
    "choose_policy",
    "policy_histories",
    "policy_in_use",
    "policy_scores",
    "policy_summary",
    "read_choice",
    "shown_policies",
    "single_seed_winners",
]

TAIL_EPOCHS = 3  # one epoch of an online probe that chases a moving encoder is noisy
MOST_SEEDS_ENUMERATED = 5  # 5^5 resamples of seeds; beyond that some are drawn
SLUG = "03_choice"


def policy_scores(runs: Iterable[Run]) -> pd.DataFrame:
    """One row per run of the search: what the online probe, kNN and the offline probe say on val.

    `online` is the mean of the last three epochs, the figure the choice is made on.
    """
    rows = []
    for run in runs:
        history, identity = run.history, runs_table([run]).iloc[0]
        metric = identity["metric"]
        tail = history[f"online_{metric}"].tail(TAIL_EPOCHS)
        keys = ("dataset", "data", "size", "content", "policy", "seed", "epochs", "metric")
        row = {key: identity[key] for key in keys}
        row |= {"online": tail.mean(), "knn": history[f"knn_{metric}"].iloc[-1], "linear": identity["val"]}
        rows.append(row | {"run_id": run.id, "commit": identity["commit"]})
    return pd.DataFrame(rows)


def policy_histories(runs: Iterable[Run]) -> pd.DataFrame:
    """Every epoch of every run of the search, called and coloured by its policy."""
    parts = []
    for run in runs:
        policy = str(run.record["policy"])
        parts.append(history_table([run]).assign(label=policy, family=f"policy:{policy}"))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _by_seed(scores: pd.DataFrame, column: str = "online") -> pd.DataFrame:
    """[seeds, policies], empty where a policy lacks a seed, policies in order of appearance."""
    table = one_data_set(scores).pivot_table(index="seed", columns="policy", values=column)
    return table[list(dict.fromkeys(scores["policy"]))]


def _above(table: pd.DataFrame, default: str) -> pd.DataFrame:
    """Each policy's figure minus the default's, seed by seed; empty where either lacks the seed."""
    return table.sub(table[default], axis="index")


def paired_interval(differences: NDArray[Any], level: float = 0.95) -> tuple[float, float, float]:
    """Mean of paired differences and its t interval; without a second one the interval is unbounded."""
    values = np.asarray(differences, dtype=np.float64)
    mean = float(values.mean())
    if len(values) < 2:
        return mean, -np.inf, np.inf
    half = float(stats.t.ppf(0.5 + level / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


def win_shares(table: pd.DataFrame, num_resamples: int = 3000) -> pd.Series:
    """How often each policy has the highest mean when seeds are drawn anew with replacement, the same for all."""
    values, count = table.to_numpy(), len(table)
    if count <= MOST_SEEDS_ENUMERATED:
        draws = np.array(list(product(range(count), repeat=count)))
    else:
        draws = np.random.default_rng(0).integers(0, count, (num_resamples, count))
    winners = values[draws].mean(axis=1).argmax(axis=1)
    return pd.Series(np.bincount(winners, minlength=values.shape[1]) / len(draws), index=table.columns)


def policy_summary(scores: pd.DataFrame, default: str) -> pd.DataFrame:
    """One row per policy of one data set, best first: mean and sd over its seeds, paired difference to the default.

    A difference is taken over the seeds that a policy shares with the default, so that a search of which some runs
    are missing shows what it has. `share`, how often a policy is best when seeds are redrawn, needs seeds that all
    have.
    """
    table = _by_seed(scores) if len(scores) else pd.DataFrame()
    if default not in table:
        return pd.DataFrame()
    above, common = _above(table, default), table.dropna()
    shares = win_shares(common) if len(common) > 1 else pd.Series(dtype=float)
    rows = []
    for policy in map(str, table):
        own, paired = table[policy].dropna(), above[policy].dropna()
        if paired.empty:
            continue
        difference, low, high = paired_interval(paired.to_numpy())
        members = scores[scores["policy"] == policy]
        row: dict[str, Any] = {"policy": policy, "default": default}
        row |= {"seeds": tuple(own.index), "shared_seeds": tuple(paired.index)}
        row |= {"online": own.mean(), "online_sd": own.std(ddof=1) if len(own) > 1 else np.nan}
        row |= {"above_default": difference, "low": low, "high": high, "share": shares.get(policy, np.nan)}
        row |= {"knn": members["knn"].mean(), "linear": members["linear"].mean()}
        rows.append(row | {"commits": ", ".join(dict.fromkeys(members.get("commit", pd.Series(dtype=str))))})
    return pd.DataFrame(rows).sort_values("above_default", ascending=False, ignore_index=True)


def shown_policies(summary: pd.DataFrame) -> str:
    """`policy_summary` for readers; an interval that one seed cannot have is a dash."""
    rows = []
    for row in rows_of(summary):
        spread = f"{row.online:.3f}" + (f" ± {row.online_sd:.3f}" if np.isfinite(row.online_sd) else "")
        interval = f"[{100 * row.low:+.1f}, {100 * row.high:+.1f}]".replace("-", "−") if np.isfinite(row.low) else None
        itself = row.policy == row.default
        rows.append(
            {
                "policy": row.policy,
                "seeds": str(len(row.seeds)),
                "online probe, mean ± sd of seeds": spread,
                f"minus {row.default}, points": None if itself else f"{100 * row.above_default:+.1f}".replace("-", "−"),
                "95 % interval of the difference": None if itself else interval,
                "best when seeds are redrawn": f"{100 * row.share:.0f} %" if np.isfinite(row.share) else None,
                "kNN": f"{row.knn:.3f}",
                "linear probe": f"{row.linear:.3f}",
                "commits": row.commits,
            }
        )
    return to_markdown(pd.DataFrame(rows))


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which policy is used from here on, and what it rests on.

    `best` is furthest above the default in the mean over the seeds that both have (`seeds`); `policy` is `default`
    unless the paired interval of best − default excludes 0. `winners` has the best policy of every seed that all
    policies have, `share` how often `best` is best when those are redrawn (not a number for fewer than two).
    """

    policy: str
    best: str
    default: str
    difference: float
    low: float
    high: float
    share: float
    seeds: tuple[int, ...]
    winners: tuple[str, ...]
    dataset: str
    size: int
    content: str
    epochs: int

    @property
    def decided(self) -> bool:
        """Whether the search changed anything or confirmed the default as the best."""
        return self.best == self.default or self.low > 0


def choose_policy(scores: pd.DataFrame, default: str, policies: Iterable[str]) -> Choice | None:
    """Choose on the online probe's val figure, paired with the default's over seeds, keeping the default in doubt.

    The default was argued for before any figure was seen; a handful of seeds on a saturated val split should not
    overturn it by chance. What a single seed would have chosen is kept beside it.

    Args:
        scores: `policy_scores`'s rows of one data set.
        default: the policy used where nothing speaks clearly against it.
        policies: what was to be compared.
    Returns:
        None while there is no seed that every policy has: what is missing might have won.
    """
    table = _by_seed(scores) if len(scores) else pd.DataFrame()
    if not {default, *policies} <= set(table) or table.dropna().empty:
        return None
    above, common = _above(table, default), table.dropna()
    best = str(above.mean().idxmax())
    paired = above[best].dropna()
    difference, low, high = paired_interval(paired.to_numpy())
    first = scores.iloc[0]
    return Choice(
        policy=best if low > 0 else default,
        best=best,
        default=default,
        difference=difference,
        low=low,
        high=high,
        share=float(win_shares(common)[best]) if len(common) > 1 else float("nan"),
        seeds=tuple(int(s) for s in paired.index),
        winners=tuple(str(w) for w in common.idxmax(axis=1)),
        dataset=str(first["dataset"]),
        size=int(first["size"]),
        content=str(first["content"]),
        epochs=int(first["epochs"]),
    )


def agreement(first: pd.DataFrame, second: pd.DataFrame) -> dict[str, float]:
    """Rank correlation (Spearman) of the policies' means over common seeds on two data sets, and how many both have."""
    a, b = (_by_seed(scores).dropna().mean().dropna() for scores in (first, second))
    common = [policy for policy in a.index if policy in b.index]
    if len(common) < 3:  # two ranks always agree or disagree wholly
        return {"policies": len(common), "spearman": float("nan")}
    return {"policies": len(common), "spearman": float(stats.spearmanr(a[common], b[common]).statistic)}


@dataclass(frozen=True, kw_only=True)
class PolicyInUse:
    """The augmentations of a page's runs: `policy`, what notebook 03 chose (None: nothing yet), and why this one.

    `why` is `named` (by the reader), `chosen` (by notebook 03), `profile` (no choice yet), or `no runs`: a page that
    trains nothing has no finished run with the chosen policy, and keeps the profile's.
    """

    policy: str
    chosen: str | None
    why: str


def policy_in_use(
    profile: Profile, datasets: Mapping[str, Dataset], runtime: RuntimeConfig, *, named: str | None = None
) -> PolicyInUse:
    """Which augmentations a page's runs have.

    A work list whose choice has changed would otherwise show nothing at all until hours of runs are made anew, though
    it has finished ones with another policy.

    Args:
        datasets: the page's, by name.
        named: the reader's own wish.
    """
    chosen = read_choice(profile, datasets.values())
    if named or chosen is None:
        return PolicyInUse(policy=named or profile.policy, chosen=chosen, why="named" if named else "profile")
    if profile.train_missing or chosen == profile.policy:
        return PolicyInUse(policy=chosen, chosen=chosen, why="chosen")
    plan = [config for config in plan_runs(profile, datasets, policy=chosen) if config.policy == chosen]
    there = work_list(plan, datasets, runtime)["ready"].any()
    return PolicyInUse(policy=chosen if there else profile.policy, chosen=chosen, why="chosen" if there else "no runs")


def choice_table(choice: Choice, profile: Profile) -> pd.DataFrame:
    """The choice as the one-row table that notebook 03 saves as `03_choice`."""
    row = asdict(choice) | {"seeds": " ".join(map(str, choice.seeds)), "winners": " ".join(choice.winners)}
    return pd.DataFrame([{"profile": profile.name, **row}])


def single_seed_winners(choice: Choice) -> dict[str, int]:
    """How many seeds alone would have chosen each policy."""
    return dict(Counter(choice.winners).most_common())


def read_choice(profile: Profile, datasets: Iterable[Dataset]) -> str | None:
    """The policy notebook 03 chose for this profile on one of these very data; None where it has not.

    Looked for in the page's own folder first, then among the published tables.
    """
    known = {(data.name, data.size, content_of(data.fingerprint)) for data in datasets}
    for folder in (report_folder(profile) / "tables", project_root() / "results" / "tables"):
        file = folder / f"{SLUG}.csv"
        for row in rows_of(pd.read_csv(file, dtype={"content": str})) if file.is_file() else ():
            of = (row.dataset, row.size, getattr(row, "content", None))
            if row.profile == profile.name and of in known and row.policy in POLICIES:
                return str(row.policy)
    return None
