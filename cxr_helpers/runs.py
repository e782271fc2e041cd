"""Run folders: records that are committed, weights that are not, and nothing half-written.

    results/runs/<run_id>/
        config.json        the resolved configuration and the data's fingerprint; environment.json: machine, command
        history.csv        one row per epoch
        metrics.json       probes on val and, if asked for, test, with the number of times test was read
        *.csv, *.csv.gz    what probes and controls found; predictions_<split>: scores per image, with patient groups
        *.safetensors, checkpoint*.pt, lock.json    ignored by git

A folder is found by the hash of its whole configuration and used only if the stored configuration is equal.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from filelock import FileLock, Timeout

from .config import RuntimeConfig
from .environment import now
from .writing import PART, read_json, write_json

if TYPE_CHECKING:  # torch is loaded where it is needed, so that a command's mistake is answered at once
    from .models import Backbone

__all__ = ["LockedError", "Run", "StoppedError", "results_root", "run_lock", "start_run"]

BUILT = ("random", "imagenet")  # encoders that come from no file
LOCK = "lock.json"
TEST_COUNTS = ("test_reads", "control_reads", "readout_reads", "label_reads")  # in metrics.json: test's readers


class LockedError(RuntimeError):
    """Another process is at work on the run; the message says which, where and since when."""


class StoppedError(KeyboardInterrupt):
    """A run was asked to stop, by Ctrl-C, a kernel's interrupt or SIGTERM; the message says where it stands.

    Attributes:
        signum: the signal. status: what a shell calls a process that it ended: 130 for SIGINT, 143 for SIGTERM.
    """

    def __init__(self, signum: int, where: str = "at once") -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name} {where}")
        self.add_note("To go on from what is kept, make the same call again, in a notebook by running the same cell.")
        self.signum, self.status = signum, 128 + signum


def results_root(runtime: RuntimeConfig) -> Path:
    """The results folder: the runtime's, else `CXR_RESULTS`, else `results` here."""
    return Path(runtime.results or os.environ.get("CXR_RESULTS") or "results")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run folder; what it holds is read when asked for.

    Attributes:
        path: the folder. record: the resolved configuration it belongs to, `fingerprint` included.
        status: `trained` (in this call), `resumed` (ditto, from a checkpoint) or `loaded` (found finished).
        source: the file of an encoder that is probed as it is, where that is known.
    """

    path: Path
    record: Mapping[str, Any] = field(repr=False)
    status: str = "loaded"
    source: Path | None = None

    @property
    def id(self) -> str:
        """Name of the run and of its folder."""
        return self.path.name

    @property
    def history(self) -> pd.DataFrame:
        """One row per finished epoch; empty before the first."""
        file = self.path / "history.csv"
        if not file.is_file():
            return pd.DataFrame()
        history = pd.read_csv(file)
        if "epoch" not in history:
            raise ValueError(f"{file} must have a row per epoch, got a damaged file: train anew with --fresh")
        return history

    @property
    def metrics(self) -> dict[str, Any]:
        """What the probes measured, empty before the first probe."""
        return read_json(self.path / "metrics.json")

    @property
    def environment(self) -> dict[str, Any]:
        """Versions, machine, commit, times and command."""
        return read_json(self.path / "environment.json")

    @property
    def finished(self) -> bool:
        """Whether training reached its last epoch."""
        return "finished" in self.environment

    @property
    def weights(self) -> Path:
        """Where the backbone lies if it has not been removed."""
        return self.path / "backbone.safetensors"

    @property
    def weights_sha256(self) -> str | None:
        """Digest of the encoder's weights, by the record; None of one that was built from a seed and not probed yet."""
        built = self.record.get("encoder") in BUILT  # whose stem is made to fit
        return self.environment.get("backbone_sha256", None if built else self.record.get("encoder_sha256"))

    def backbone(self) -> Backbone:
        """The encoder, trained here or, for one that is probed as it is, built or read anew.

        Raises:
            FileNotFoundError: the records travel without weights; the message names the command that makes them anew.
            ValueError: the weights are not those that the record was made with.
        """
        from .models import load_backbone, state_digest

        encoder = self.record.get("encoder")
        file = self.source or (self.weights if encoder in (None, *BUILT) else self.path.parent / encoder)
        command = read_json(file.parent / "environment.json").get("command", "python train.py")
        if encoder not in BUILT and not file.is_file():
            lacks = f"run {file.parent.name} has its records but not its weights here"
            raise FileNotFoundError(f"{lacks}; make them anew with: {command} --fresh")
        backbone = self._built() if encoder in BUILT else load_backbone(file)
        digest = state_digest(backbone.net.state_dict())
        if self.weights_sha256 not in (None, digest):
            must = f"the encoder of run {self.id} must have the weights of its record (SHA-256 {self.weights_sha256})"
            raise ValueError(f"{must}, got {digest}; make them anew with: {command} --fresh")
        return backbone

    def _built(self) -> Backbone:
        from .augment import Normalisation
        from .models import build_backbone

        r = self.record
        normalisation = Normalisation((0.5,), (0.5,)).for_channels(r["channels"])
        about = {"channels": r["channels"], "size": r["size"], "normalisation": normalisation, "seed": r["seed"]}
        return build_backbone(r["backbone"], init=r["encoder"], **about)

    def predictions(self, split: str) -> pd.DataFrame:
        """Labels, patient groups and scores per image of `val` or `test`."""
        return pd.read_csv(self.path / f"predictions_{split}.csv.gz", dtype={"group": str})


@contextmanager
def run_lock(run: Run, *, doing: str = "trained") -> Iterator[None]:
    """Hold a run, making its folder if need be. The operating system lets go of it however this process ends.

    Args:
        doing: what is being done to the run, for the others to read.
    Raises:
        LockedError: another process holds it. OSError: the results folder cannot be written.
    """
    path = run.path / LOCK
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout:
        raise LockedError(f"run {run.id} is being {_holder(path)}: wait for its end, or stop it first") from None
    except OSError as error:
        got = f"{run.path.parent.parent} ({error.strerror or error})"
        raise OSError(f"results folder must be writable, got {got}") from None
    try:
        path.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": now(), "doing": doing}))
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


def _holder(path: Path) -> str:
    try:
        return "{doing} by process {pid} on {host} since {since}".format_map(read_json(path))
    except (OSError, ValueError, KeyError):  # it has not written yet, or has just let go
        return "held by another process"


def start_run(run: Run, *, fresh: bool) -> None:
    """Make the folder of a run ready for training; with `fresh` all it held but the counts of test reads is removed.

    What says that the run is finished goes first, so that a run of which half was removed never counts as finished.

    Raises:
        OSError: the folder cannot be written.
    """
    run.path.mkdir(parents=True, exist_ok=True)
    gone = list(run.path.glob(f"*{PART}"))  # of a process that was killed while it wrote
    if fresh:
        counts = {key: run.metrics[key] for key in TEST_COUNTS if run.metrics.get(key)}
        if counts:
            write_json(run.path / "metrics.json", counts)
        (run.path / "environment.json").unlink(missing_ok=True)
        kept = {LOCK, *(["metrics.json"] if counts else [])}
        gone = [path for path in run.path.iterdir() if path.is_file() and path.name not in kept]
    for path in gone:
        path.unlink()
    write_json(run.path / "config.json", run.record)
