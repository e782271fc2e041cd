"""Compare two revisions bit for bit on this machine: `python -m tests.guards.compare REV_A REV_B [--threads 1]`.

Each revision, checked out in a folder of its own (`.` is the working tree as it is), trains, interrupts, resumes and
probes small runs on drawn films, makes views of every policy and loads every drawn data set, all by the public API.
Every figure that both name must be equal, and no group of figures may have lost all its names.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from sklearn.metrics import roc_auc_score
from torch.optim.optimizer import register_optimizer_step_post_hook

HERE = Path(__file__).resolve()
CLOCK = re.compile(r"second|session|time|finished|started|commit|date")  # names of what no two runs share
HEAD = {"options": {"hidden_dim": 64, "output_dim": 32}}
BASE = {"policy": "ssl", "batch_size": 10, "epochs": 3, "warmup_epochs": 1.0}
TRAININGS: dict[str, dict[str, Any]] = {
    "simclr": BASE | HEAD,
    "vicreg": BASE | HEAD | {"optimizer": "lars", "lr": 0.8, "seed": 1},
    "supervised": BASE | {"policy": "supervised", "optimizer": "sgd", "lr": 0.1, "label_fraction": 0.6},
}
STOP = 5  # the step after which an interrupted run is stopped: inside an epoch for steps per epoch of 2 to 4


def digest(*values: Any) -> str:
    """SHA-256 of arrays and texts, whatever their order and names."""
    parts = [v.encode() if isinstance(v, str) else f"{v.dtype}{v.shape}".encode() + v.tobytes() for v in values]
    return hashlib.sha256(b"".join(sorted(hashlib.sha256(part).digest() for part in parts))).hexdigest()[:16]


def leaves(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Numbers of a record with their paths in it."""
    if isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, f"{name}.{key}")
    elif isinstance(value, (int, float)):
        yield name, repr(value)


def stop_at(step: int) -> Any:
    """SIGINT to this process when an optimizer (but a probe's, of two tensors) has made so many steps."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background has ignored
    done = []

    def look(optimizer: Any, *_: Any) -> None:
        done.extend([1] * (sum(len(group["params"]) for group in optimizer.param_groups) > 4))
        if len(done) == step:
            done.append(1)  # the probe's step follows: once only
            signal.raise_signal(signal.SIGINT)

    return register_optimizer_step_post_hook(look)


def train(name: str, way: str, dataset: Any, folder: str, threads: int) -> Iterator[tuple[str, str]]:
    """One small run, plain, in parts or resumed: its weights, history, scores and figures."""
    import cxr_helpers as cxr  # the revision's

    config = cxr.PretrainConfig(dataset=dataset.name, size=dataset.size, method=name, **TRAININGS[name])
    how: dict[str, Any] = {"device": "cpu", "precision": "32-true", "threads": threads, "progress": False}
    runtime = cxr.RuntimeConfig(results=folder, micro_batch=4 if way == "parts" else None, **how)
    if way == "resumed":
        hook = stop_at(STOP)
        with suppress(KeyboardInterrupt):
            cxr.pretrain(config, dataset, runtime)
            raise AssertionError("the run was not interrupted")
        hook.remove()
    run = cxr.pretrain(config, dataset, runtime)
    yield "weights/all", digest(*(value.numpy() for value in run.backbone().state_dict().values()))
    yield from ((f"history/{column}", "\n".join(map("{:.7g}".format, run.history[column]))) for column in run.history)
    record = cxr.evaluate(run, dataset, runtime, test=True)
    table = pd.read_csv(next(run.path.glob("predictions_test.csv*")), dtype=str)
    yield from ((f"scores/{column}", digest("\n".join(table[column]))) for column in table)
    scores = table.filter(like="score").iloc[:, 0].astype(float)
    yield "auc/test", repr(float(roc_auc_score(table["label"].astype(int), scores)))
    yield from leaves(record, "figures/")


def measure(threads: int) -> dict[str, str]:
    """Every figure of the revision that is imported here, by `case/kind/name`."""
    import cxr_helpers as cxr  # the revision's

    assert Path(cxr.__file__).is_relative_to(os.environ["PYTHONPATH"]), cxr.__file__
    torch.set_num_threads(threads)
    found: dict[str, str] = {}
    for name in ("phantom", "phantom_multilabel"):
        dataset = cxr.load_dataset(name, 64, max_train_images=40, max_eval_images=40)
        found[f"{name}/data/fingerprint"] = dataset.fingerprint
        draws = torch.rand(16, 2, 40, generator=torch.Generator().manual_seed(1))
        for key, policy in cxr.POLICIES.items():
            noise = torch.Generator().manual_seed(2)
            views = cxr.TwoViews(policy, 48)(dataset.train.images[:16], draws, noise)
            found |= {f"{name}/views/{key}-{i}": digest(view.numpy()) for i, view in enumerate(views)}
    films = cxr.load_dataset("phantom", 64, max_train_images=40, max_eval_images=40)
    for name, way in product(TRAININGS, ("plain", "parts", "resumed")):
        with tempfile.TemporaryDirectory() as folder:
            lines = dict(train(name, way, films, folder, threads))
        found |= {f"{name}-{way}/{key}": value for key, value in lines.items() if not CLOCK.search(key)}
    return found


@contextmanager
def checkout(revision: str) -> Iterator[Path]:
    """A folder that holds the revision."""
    git = ["git", "-C", str(HERE.parents[2]), "worktree"]
    if revision == ".":
        yield HERE.parents[2]
        return
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*git, "add", "--quiet", "--detach", f"{folder}/tree", revision], check=True)
        try:
            yield Path(folder).resolve() / "tree"
        finally:
            subprocess.run([*git, "remove", "--force", f"{folder}/tree"], check=True)


def figures(revision: str, threads: int) -> dict[str, str]:
    """What `measure` finds in a process of its own that imports the revision."""
    with checkout(revision) as folder:
        environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": str(threads)}
        command = [sys.executable, "-P", "-W", "ignore", str(HERE), "--measure", "--threads", str(threads)]
        done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare(a: dict[str, str], b: dict[str, str]) -> list[str]:
    """Print a line per group of figures and the names that one revision alone has; return what differs."""
    wrong = [f"{key}: {a[key]!r} against {b[key]!r}" for key in a if key in b and a[key] != b[key]]
    for group in dict.fromkeys("/".join(key.split("/")[:2]) for key in a | b):
        common = [key for key in a if key in b and key.startswith(f"{group}/")]
        wrong += [] if common else [f"{group}: no name in common"]
        print(group, *dict.fromkeys(digest(*(found[key] for key in common)) for found in (a, b)))
    print(*(f"note: {key} in one revision only" for key in sorted(a.keys() ^ b.keys())), sep="\n")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("revisions", nargs="*")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--measure", action="store_true", help="print the figures of the package that is imported")
    asked = parser.parse_args()
    if asked.measure:
        print(json.dumps(measure(asked.threads)))
        return
    with ThreadPoolExecutor() as pool:
        a, b = pool.map(lambda revision: figures(revision, asked.threads), asked.revisions)
    wrong = compare(a, b)
    sys.exit("\n".join([f"{len(wrong)} differences", *wrong]) if wrong else 0)


if __name__ == "__main__":
    main()
