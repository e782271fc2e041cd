"""What a notebook writes and shows: figures, tables, the work list, and where its hyper-parameters come from."""

from __future__ import annotations

import ast
import inspect
import io
import os
import re
import textwrap
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import DisplayHandle, Image, Markdown
from matplotlib.figure import Figure

from ..config import PretrainConfig, ProbeConfig, RuntimeConfig
from ..data import Dataset
from ..methods import METHODS, get_options
from ..policies import POLICIES
from ..profiles import Profile
from ..recipes import command_of, resolve
from ..runs import Run, commit_record, write_bytes, write_table
from ..study import find_run, project_root
from .tables import commit_text, dataset_name, label_of, rows_of

__all__ = [
    "LiveStatus",
    "hyperparameter_table",
    "page_commit",
    "report_folder",
    "save_answer",
    "save_figure",
    "save_table",
    "shown_pairs",
    "shown_runs",
    "shown_summary",
    "shown_work",
    "status_of",
    "to_markdown",
    "work_list",
]

# ---- the only writers


def report_folder(profile: Profile) -> Path:
    """Where a page's figures and tables go: `CXR_REPORT`, else the checkout's ignored `report/<profile>`."""
    return Path(os.environ.get("CXR_REPORT") or project_root() / "report" / profile.name)


def _target(kind: str, slug: str, suffix: str, profile: Profile) -> Path:
    if not re.fullmatch(r"\d\d_[a-z0-9_]+", slug):
        raise ValueError(f"slug must be the notebook's two digits, _ and lower-case words, got {slug!r}")
    folder = report_folder(profile) / kind
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{slug}{suffix}"


def save_figure(figure: Figure, slug: str, profile: Profile, *, alt: str = "") -> Image:
    """Write `figures/<slug>.png` and return that very picture for display.

    Args:
        slug: `NN_words`, NN the notebook's number.
        alt: what the figure shows, for those who cannot see it.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160, bbox_inches="tight", metadata={"Software": None})
    write_bytes(_target("figures", slug, ".png", profile), buffer.getvalue())
    width = int(figure.get_figwidth() * 100)
    return Image(data=buffer.getvalue(), format="png", width=width, alt=alt or slug[3:].replace("_", " "))


def save_table(table: pd.DataFrame, slug: str, profile: Profile) -> pd.DataFrame:
    """Write `tables/<slug>.csv` and return the table."""
    write_table(_target("tables", slug, ".csv", profile), table)
    return table


def save_answer(slug: str, text: str, profile: Profile) -> Markdown:
    """Write `answers/<slug>.md` (Markdown), which the report's index shows below the notebook's question; show it here.

    Raises:
        ValueError: a text that says nothing.
    """
    if not text.strip():
        raise ValueError(f"an answer must say something, got {text!r}")
    write_bytes(_target("answers", slug, ".md", profile), f"{text.strip()}\n".encode())
    return Markdown(text)


# ---- tables as readers see them


def to_markdown(table: pd.DataFrame) -> str:
    """A table as Markdown: numbers to the right, nothing for missing values but a dash."""
    if table.empty:
        return "*(no rows)*"

    def cell(value: Any) -> str:
        missing = value is None or (isinstance(value, float) and pd.isna(value))
        return "–" if missing else str(value).replace("|", "\\|").replace("\n", " ")

    marks = ["---:" if pd.api.types.is_numeric_dtype(table[c]) else "---" for c in table]
    rows = [[cell(v) for v in row] for row in table.itertuples(index=False)]
    head = [[str(c) for c in table], marks]
    return "\n".join("| " + " | ".join(row) + " |" for row in [*head, *rows])


def _interval(mean: float, low: float, high: float, digits: int = 3) -> str:
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def shown_runs(table: pd.DataFrame) -> str:
    """`runs_table` for readers: every run, loaded or trained here, with its commit and command."""
    columns = {"data": "data", "size": "px", "label": "encoder", "seed": "seed", "epochs": "epochs"}
    shown = table[list(columns)].rename(columns=columns)
    for split in ("val", "test"):
        if split in table:
            shown[split] = [_interval(*v) for v in table[[split, f"{split}_low", f"{split}_high"]].to_numpy()]
            shown[f"kNN {split}"] = table[f"{split}_knn"].map("{:.3f}".format)
    shown["minutes"] = table.minutes.map("{:.0f}".format)
    return to_markdown(shown.assign(status=table.get("status"), commit=table.commit, run=table.run_id))


def shown_summary(summary: pd.DataFrame, published: pd.DataFrame | None = None) -> str:
    """`summary_table` for readers, published figures below the line that separates protocols."""
    rows = []
    for row in rows_of(summary.sort_values("test_mean", ascending=False)):
        spread = f"{row.test_mean:.3f} ± {row.test_sd:.3f}" if row.num_seeds > 1 else f"{row.test_mean:.3f}"
        rows.append(
            {
                "encoder": row.label,
                "protocol": row.protocol,
                "seeds": str(row.num_seeds),
                "val": f"{row.val_mean:.3f}",
                "test, mean ± sd of seeds": spread,
                "95 % interval (patients)": f"[{row.test_low:.3f}, {row.test_high:.3f}]",
                "kNN test": f"{row.test_knn:.3f}",
                "commit": row.commits,
            }
        )
    for other in [] if published is None else rows_of(published.sort_values("value", ascending=False)):
        rows.append(
            {
                "encoder": f"*{other.label}*",
                "protocol": f"*{other.status}: {other.protocol}; {other.source}*",
                "test, mean ± sd of seeds": f"*{other.value:g}*",
            }
        )
    return to_markdown(pd.DataFrame(rows))


def shown_pairs(pairs: pd.DataFrame) -> str:
    """`paired_table` for readers, in points (hundredths) of the metric."""
    if pairs.empty:
        return to_markdown(pairs)
    rows = [
        {
            "a": row.a,
            "b": row.b,
            "seeds": f"{len(row.seeds_a)} / {len(row.seeds_b)}",
            "a − b, points": f"{100 * row.difference:+.1f}".replace("-", "−"),
            "95 % interval": f"[{100 * row.low:+.1f}, {100 * row.high:+.1f}]".replace("-", "−"),
            "p": f"{row.p_value:.3f}",
            "a is": row.verdict,
        }
        for row in rows_of(pairs)
    ]
    return to_markdown(pd.DataFrame(rows))


# ---- the work list


def work_list(plan: Iterable[PretrainConfig], datasets: Mapping[str, Dataset], runtime: RuntimeConfig) -> pd.DataFrame:
    """One row per planned run: whether it is there, from which commit, and the command that makes it.

    `ready` runs need no training: they are finished, or have no epochs.
    """
    rows = []
    for config in plan:
        data = datasets[config.dataset]
        run = find_run(config, data, runtime)
        finished = run is not None and run.finished
        rows.append(
            {
                "dataset": config.dataset,
                "size": config.size,
                "label": label_of({**vars(config), "init_sha256": run.record["init_sha256"] if run else None}),
                "seed": config.seed,
                "ready": finished or config.epochs == 0,
                "status": _status(config, run),
                "commit": commit_text(run.environment) if run is not None and finished else "–",
                "command": f"{command_of(config)} --test",
            }
        )
    return pd.DataFrame(rows)


def shown_work(work: pd.DataFrame) -> str:
    """`work_list` for readers: one row per configuration, the state of its seeds side by side."""
    rows = []
    for (dataset, size, label), members in work.groupby(["dataset", "size", "label"], sort=False):
        seeds = [f"{row.seed}: {row.status}" for row in rows_of(members)]
        rows.append(
            {"data": dataset_name(str(dataset)), "px": size, "encoder": label, "seed: status": "; ".join(seeds)}
        )
    return to_markdown(pd.DataFrame(rows))


def _status(config: PretrainConfig, run: Run | None) -> str:
    if run is not None and run.finished:
        return "loaded"
    if config.epochs == 0:
        return "nothing to train"
    done = 0 if run is None else len(run.history)
    return f"{done} of {config.epochs} epochs done" if done else "not run yet"


class LiveStatus:
    """One line under a cell that follows the runs and is replaced by their summary at the end.

    Args:
        plan: the configurations to go through, in order.
    """

    def __init__(self, plan: Iterable[PretrainConfig]) -> None:
        self.plan = list(plan)
        self.handle = DisplayHandle()
        self.now = ""
        self.counts: dict[str, int] = {}

    def __iter__(self) -> Iterator[PretrainConfig]:
        self.handle.display(Markdown("starting"))
        for i, config in enumerate(self.plan, start=1):
            name = label_of({**vars(config), "init_sha256": None})
            self.now = f"{i} of {len(self.plan)}: {dataset_name(config.dataset)}, {name}, seed {config.seed}"
            self.handle.update(Markdown(self.now))
            yield config
        parts = ", ".join(f"{count} {status}" for status, count in self.counts.items())
        self.handle.update(Markdown(f"{len(self.plan)} runs: {parts or 'none'}."))

    def epoch(self, history: pd.DataFrame) -> None:
        """For `pretrain(on_epoch=...)`: the figures of the last epoch."""
        row = history.iloc[-1]
        online = row.get("online_auc", row.get("online_accuracy"))
        text = f"{self.now}, epoch {int(row.epoch)}: loss {row.loss:.3f}, online val {online:.3f}, {row.seconds:.0f} s"
        self.handle.update(Markdown(text))

    def count(self, run: Run) -> Run:
        """Note how a run came to be there."""
        self.counts[status_of(run)] = self.counts.get(status_of(run), 0) + 1
        return run


def status_of(run: Run) -> str:
    """How a run came to be there: trained, resumed, loaded, or measured where there was nothing to train."""
    return "measured" if run.status == "trained" and run.record["epochs"] == 0 else run.status


def page_commit() -> str:
    """The commit that makes a page, with a + where the code differed from it."""
    return commit_text(commit_record())


# ---- hyper-parameters and why


def field_notes(source: type) -> dict[str, str]:
    """What a class says about its values where it defines them: comments at line ends, docstrings below fields."""
    text = textwrap.dedent(inspect.getsource(source))
    lines, comments, docs = text.splitlines(), {}, {}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        found = re.match(r"\s*(?:\"(\w+)\"|(\w+))\s*:", lines[token.start[0] - 1]) if token.string[:1] == "#" else None
        if found:
            comments[found[1] or found[2]] = token.string.lstrip("# ")
    body = ast.parse(text).body[0]
    assert isinstance(body, ast.ClassDef)
    for item, after in pairwise(body.body):
        if isinstance(item, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            docs[ast.unparse(item.target)] = str(after.value.value)
    return {key: " ".join(filter(None, (docs.get(key), comments.get(key)))) for key in {**docs, **comments}}


_TRAINING = ("epochs", "batch_size", "optimizer", "lr", "weight_decay", "warmup_epochs", "online_lr")


def hyperparameter_table(plan: Iterable[PretrainConfig], probe: ProbeConfig = ProbeConfig()) -> pd.DataFrame:
    """Every value the trained methods of a plan and the probes used, and the reason the code gives where it sets it."""
    trained = {config.method: resolve(config) for config in plan if config.epochs > 0}
    names = {method: label_of({**vars(config), "init_sha256": None}) for method, config in trained.items()}
    meanings, rows = field_notes(PretrainConfig), []
    for key in _TRAINING:
        given = {names[m]: field_notes(METHODS[m]).get(key) for m in trained}
        reasons = [f"{name}: {reason}" for name, reason in given.items() if reason]
        values = {names[m]: getattr(config, key) for m, config in trained.items()}
        rows.append({"parameter": key, **values, "what it is and why": " ".join([meanings.get(key, ""), *reasons])})
    policies = {names[m]: config.policy for m, config in trained.items()}
    why = " ".join(f"`{name}`: {POLICIES[name].reason}" for name in dict.fromkeys(policies.values()))
    rows.append({"parameter": "policy", **policies, "what it is and why": why})
    for method, config in trained.items():
        notes = field_notes(METHODS[method].Options)
        for key, value in vars(get_options(config.method, config.options)).items():
            rows.append({"parameter": key, names[method]: value, "what it is and why": notes.get(key, "")})
    notes = field_notes(ProbeConfig)
    for key, value in vars(probe).items():
        shown = ", ".join(f"{v:g}" for v in value) if isinstance(value, tuple) else value
        rows.append({"parameter": key, "probes": shown, "what it is and why": notes.get(key, "")})
    columns = ["parameter", *names.values(), "probes", "what it is and why"]
    return pd.DataFrame(rows, columns=columns, dtype=object)
