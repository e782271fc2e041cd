"""Run folders: records that are committed, weights that are not, and nothing half-written.

    results/runs/<run_id>/
        config.json        the resolved configuration and the data's fingerprint
        history.csv        one row per epoch
        environment.json   versions, machine, commit, times, the command that repeats the run
        metrics.json       probes on val and, if asked for, test, with the number of times test was read
        probe_curve.csv    the SGD probe, one row per epoch
        label_curve.csv    the linear probe on parts of the labels; feature_map.csv: val features in two dimensions
        grad_cam.csv       the probe's evidence in test images; localisation.csv: maps against true masks
        neighbours.csv     nearest train images of every test image
        controls.csv       what is left of the test AUC under rival explanations; control_correlations.csv: of what
                           exposure and sharpness the scores follow
        predictions_*.csv  scores per image of the linear probe (a supervised run's own head), with patient groups
        backbone.safetensors, head.safetensors, features_*.safetensors, checkpoint*.pt   ignored by git
        lock.json          who trains or probes it, while that goes on

A folder is found by the hash of its whole configuration and used only if the stored configuration is equal.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from filelock import FileLock, Timeout

from .config import RuntimeConfig
from .environment import now
from .writing import PART, read_json, write_json

if TYPE_CHECKING:  # torch is loaded where it is needed, so that a command's mistake is answered at once
    from .models import Backbone

__all__ = [
    "LockedError",
    "Run",
    "RunWarning",
    "StoppedError",
    "results_root",
    "run_lock",
    "start_run",
    "writable",
]

LOCK = "lock.json"
TEST_COUNTS = ("test_reads", "control_reads", "readout_reads", "label_reads")  # in metrics.json: test's readers


class RunWarning(UserWarning):
    """Something was wrong with a run, and what was done about it."""


class StoppedError(KeyboardInterrupt):
    """A run was asked to stop, by Ctrl-C, a kernel's interrupt or SIGTERM; the message says where it stands.

    A KeyboardInterrupt, so that what catches errors does not swallow it and a notebook shows it as an interruption. Its
    note, which Python and notebooks print below the message, says how to go on; `train.py` prints its command instead.

    Attributes:
        signum: the signal.
        status: what a shell calls a process that this signal ended: 130 for SIGINT, 143 for SIGTERM.
    """

    def __init__(self, signum: int, where: str = "at once") -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name} {where}")
        self.add_note("To go on from what is kept, make the same call again, in a notebook by running the same cell.")
        self.signum = signum
        self.status = 128 + signum


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
    record: Mapping[str, Any]
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
        return pd.read_csv(file) if file.is_file() else pd.DataFrame()

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
        recorded = self.environment.get("backbone_sha256")
        if recorded is None and self.record.get("encoder") not in ("random", "imagenet"):  # whose stem is made to fit
            recorded = self.record.get("encoder_sha256")
        return recorded

    def backbone(self) -> Backbone:
        """The encoder, trained here or, for one that is probed as it is, built or read anew.

        Raises:
            FileNotFoundError: the records travel without weights; the message names the command that makes them anew.
            ValueError: the weights are not those that the record was made with.
        """
        from .models import state_digest

        backbone = self._untrained() if "encoder" in self.record else self._read(self.weights, self.environment)
        digest = state_digest(backbone.net.state_dict())
        if self.weights_sha256 not in (None, digest):
            raise ValueError(
                f"the encoder of run {self.id} must have the weights of its record (SHA-256 {self.weights_sha256}), "
                f"got {digest}; make them anew with: {self.command} --fresh"
            )
        return backbone

    @property
    def command(self) -> str:
        """The command that repeats the run, as far as it has been recorded."""
        return self.environment.get("command", "python train.py")

    def _read(self, file: Path, environment: Mapping[str, Any]) -> Backbone:
        from .models import load_backbone

        if file.is_file():
            return load_backbone(file)
        command = environment.get("command", "train.py")
        raise FileNotFoundError(
            f"run {file.parent.name} has its records but not its weights here; make them anew with: {command} --fresh"
        )

    def _untrained(self) -> Backbone:
        from .augment import Normalisation
        from .models import build_backbone

        r = self.record
        if r["encoder"] not in ("random", "imagenet"):
            file = self.source or self.path.parent / r["encoder"]
            return self._read(file, read_json(file.parent / "environment.json"))
        normalisation = Normalisation((0.5,), (0.5,)).for_channels(r["channels"])
        options = {"channels": r["channels"], "size": r["size"], "normalisation": normalisation, "seed": r["seed"]}
        return build_backbone(r["backbone"], init=r["encoder"], **options)

    def predictions(self, split: str) -> pd.DataFrame:
        """Labels, patient groups and scores per image of `val` or `test`."""
        file = self.path / f"predictions_{split}.csv.gz"
        return pd.read_csv(file if file.is_file() else file.with_suffix(""), dtype={"group": str})


@contextmanager
def writable(run: Run) -> Iterator[None]:
    """Turn what the system says about a results folder that cannot be written into one sentence.

    Raises:
        OSError: the sentence.
    """
    try:
        yield
    except OSError as error:
        root = run.path.parent.parent
        raise OSError(f"results folder must be writable, got {root} ({error.strerror or error})") from None


class LockedError(RuntimeError):
    """Another process is at work on the run; the message says which, where and since when."""


@contextmanager
def run_lock(run: Run, *, doing: str = "trained") -> Iterator[None]:
    """Hold a run, making its folder if need be. The operating system lets go of it however this process ends.

    Args:
        doing: what is being done to the run, for the others to read in the lock's file.
    Raises:
        LockedError: another process holds it. OSError: the results folder cannot be written.
    """
    path = run.path / LOCK
    with writable(run):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            raise LockedError(f"run {run.id} is being {_holder(path)}: wait for its end, or stop it first") from None
    try:
        path.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": now(), "doing": doing}))
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


def _holder(path: Path) -> str:
    try:
        return "{doing} by process {pid} on {host} since {since}".format_map(read_json(path))
    except (ValueError, KeyError):  # it has not written yet, or has just let go
        return "held by another process"


def start_run(run: Run, *, fresh: bool) -> None:
    """Make the folder of a run ready for training; with `fresh` all it held but the counts of test reads is removed.

    What says that the run is finished goes first, so that a run of which half was removed never counts as finished.

    Raises:
        OSError: the folder cannot be written.
    """
    with writable(run):
        run.path.mkdir(parents=True, exist_ok=True)
        if fresh:
            counts = {key: run.metrics[key] for key in TEST_COUNTS if run.metrics.get(key)}
            if counts:
                write_json(run.path / "metrics.json", counts)
            (run.path / "environment.json").unlink(missing_ok=True)
            kept = {LOCK, *(["metrics.json"] if counts else [])}
            _remove(path for path in run.path.iterdir() if path.name not in kept)
        _remove(run.path.glob(f"*{PART}"))  # of a process that was killed while it wrote
        write_json(run.path / "config.json", run.record)


def _remove(paths: Iterable[Path]) -> None:
    for path in list(paths):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
