"""Pretrain one encoder, probe it, and print where the run lies and what the probe measured.

    python train.py --dataset pneumoniamnist --size 64 --method vicreg --policy ssl --epochs 50 --seed 0

The same command again returns the finished run at once, or resumes an interrupted one. Ctrl-C and SIGTERM save at the
next step, print the command that goes on, and exit with 130 and 143; a mistake exits with 1 and one line.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import signal
import sys
import warnings
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Annotated, Any

import tyro

from cxr_helpers.config import PretrainConfig, ProbeConfig, RuntimeConfig
from cxr_helpers.data import load_dataset
from cxr_helpers.evaluate import evaluate, summary_line
from cxr_helpers.export import export_run, require_target
from cxr_helpers.loop.interrupts import StoppedError
from cxr_helpers.pretrain import pretrain, resolve
from cxr_helpers.runs import RunWarning


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Pretrain one encoder on images alone, then probe it."""

    config: Annotated[PretrainConfig, tyro.conf.arg(name="")] = field(default_factory=PretrainConfig)
    runtime: Annotated[RuntimeConfig, tyro.conf.arg(name="")] = field(default_factory=RuntimeConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    test: bool = False
    """Score the test split too; the run's record counts how often."""
    max_train_images: int | None = None
    """Train on a fixed draw of at most so many training images, as the smaller profiles do (None: all of them)."""
    max_eval_images: int | None = None
    """Probe on a fixed draw of at most so many images of val, and of test."""
    fresh: bool = False
    """Retrain from the start even if the run is there."""
    export: str | None = None
    """Folder to write the probed backbone to, as backbone.safetensors with a model card (README.md)."""


def train(arguments: Arguments) -> str | None:
    """Train, probe, and return the closing line; None in processes other than torchrun's first, which only train."""
    config = resolve(arguments.config)
    if arguments.export is not None:
        require_target(arguments.export)  # before hours of training, not after
    dataset = load_dataset(
        config.dataset, config.size, arguments.runtime.root,
        max_train_images=arguments.max_train_images, max_eval_images=arguments.max_eval_images,
    )  # fmt: skip
    run = pretrain(config, dataset, arguments.runtime, fresh=arguments.fresh)
    if int(os.environ.get("RANK", "0")):
        return None
    metrics = evaluate(run, dataset, arguments.runtime, arguments.probe, test=arguments.test)
    if arguments.export is not None:
        print(f"exported to {export_run(run, arguments.export)}")
    return summary_line(run, metrics)


def parse(words: list[str]) -> Arguments:
    """What a command line says; what it should not say ends the process with one sentence and a status of 2."""
    said = io.StringIO()
    try:
        with redirect_stderr(said):  # `--help` goes to stdout and stays as it is
            return tyro.cli(Arguments, args=words, description=__doc__)
    except SystemExit as end:
        if end.code == 2:
            said = io.StringIO(f"train.py: {in_one_sentence(said.getvalue(), words)}\n")
        raise
    finally:
        sys.stderr.write(said.getvalue())


SAID = re.compile(r"Error parsing |Unrecognized options: |Missing value ")  # how tyro's sentences begin


def in_one_sentence(box: str, words: list[str]) -> str:
    """What tyro says of words that it cannot read, in a frame of many lines and below it what the option is for."""
    plain = re.sub(r"\x1b\[[\d;]*m", "", box)
    rows = [re.sub(r"^[│|]?\s*|\s*[│|]?$", "", row) for row in plain.splitlines()]
    begin = next((i for i, row in enumerate(rows) if SAID.match(row)), 0)
    said = " ".join(takewhile(lambda row: row.strip("─-"), rows[begin:])) if rows else "it could not be read"
    explained = [found.groups() for row in rows if (found := re.match(r"(--[a-z]\S*) ?(.*)", row))]
    if said.startswith("Unrecognized options: "):
        near = " or ".join(flag for flag, _ in explained[:3])
        guess = f"did you mean {near}?" if near else "train.py --help lists them"
        return f"options must be those of train.py, got {said.partition(': ')[2]}; {guess}"
    if missing := re.match(r"Missing value for argument '(\S+)'", said):
        return f"{missing[1]} must be followed by a value, got none; train.py --help explains it"
    if explained and said.startswith("Error parsing --"):
        flag, kind = explained[0]
        at = [i for i, word in enumerate(words) if word.split("=")[0].replace("_", "-") == flag]
        given = [[*words[i].split("=")[1:], *takewhile(lambda w: w[:2] != "--", words[i + 1 :])] for i in at]
        got = shlex.join(given[-1]) if given else "something else"
        return f"{flag} must be followed by {kind}, got {got}; train.py --help explains it"
    return said.removeprefix("Error parsing ")


def continuing(arguments: list[str]) -> str:
    """The command that goes on with an interrupted run: the same one, without what would throw its state away."""
    words = [word for word in arguments if word not in ("--fresh", "--no-fresh")]
    launcher = "torchrun [as before] " if "TORCHELASTIC_RUN_ID" in os.environ else "python "
    return launcher + shlex.join(words)


def _terminate(signum: int, frame: object) -> None:
    raise StoppedError(signum)


def _one_line(message: Any, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:
    """A warning about the run as one line for its user, any other as Python shows it."""
    if issubclass(category, RunWarning):
        return f"train.py: {message}\n"
    return f"{filename}:{lineno}: {category.__name__}: {message}\n"


def main() -> None:
    """The command: its last line on success; one line on stderr and a status of 1, 2, 130 or 143 otherwise."""
    formatted, warnings.formatwarning = warnings.formatwarning, _one_line
    before = signal.signal(signal.SIGTERM, _terminate)  # while data are read and probes fitted, at once
    try:
        closing_line = train(parse(sys.argv[1:]))
        if closing_line is not None:
            print(closing_line)
    except (ValueError, OSError, RuntimeError) as error:  # the last: divergence, a lock, memory of the device
        sys.exit(f"train.py: {' '.join(str(error).split())}")
    except KeyboardInterrupt as error:
        stopped = error if isinstance(error, StoppedError) else StoppedError(signal.SIGINT)
        if not int(os.environ.get("RANK", "0")):
            print(f"train.py: {stopped}; go on with: {continuing(sys.argv)}", file=sys.stderr)
        sys.exit(stopped.status)
    finally:
        signal.signal(signal.SIGTERM, before)
        warnings.formatwarning = formatted


if __name__ == "__main__":
    main()
