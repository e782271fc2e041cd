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
from collections.abc import Mapping
from contextlib import redirect_stderr
from dataclasses import MISSING, dataclass, field, fields, make_dataclass
from itertools import takewhile
from typing import Annotated, Any, get_type_hints

import tyro

from cxr_helpers.config import PretrainConfig, ProbeConfig, RuntimeConfig
from cxr_helpers.data import load_dataset
from cxr_helpers.evaluate import evaluate, summary_line
from cxr_helpers.export import export_run, require_target
from cxr_helpers.fields import check, declare, help_of
from cxr_helpers.loop.interrupts import StoppedError
from cxr_helpers.pretrain import pretrain, resolve
from cxr_helpers.runs import RunWarning


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What a command line says: three configurations, and what concerns this command alone."""

    config: PretrainConfig
    runtime: RuntimeConfig
    probe: ProbeConfig
    command: Command


@dataclass(frozen=True, kw_only=True)
class Command:
    """What concerns the command line alone."""

    test: bool = declare(False, "score the test split too; the run's record counts how often")
    max_train_images: int | None = declare(
        None, "train on a fixed draw of at most so many training images; None takes all of them", low=1
    )
    max_eval_images: int | None = declare(
        None, "probe on a fixed draw of at most so many images of val, and of test; None takes all of them", low=1
    )
    fresh: bool = declare(False, "retrain from the start even if the run is there")
    export: str | None = declare(
        None, "folder to write the probed backbone to, as backbone.safetensors with a model card"
    )

    def __post_init__(self) -> None:
        check(self)


def flags_of(config: type) -> Any:
    """A configuration as tyro reads it: every field with its declared sentence as help, mappings as pairs of words."""
    kinds = get_type_hints(config)
    return make_dataclass(
        config.__name__,
        [
            (
                f.name,
                Annotated[
                    dict[str, str] if kinds[f.name] == Mapping[str, Any] else kinds[f.name],
                    tyro.conf.arg(help=help_of(f)),
                ],
                field(default=f.default) if f.default is not MISSING else field(default_factory=dict),
            )
            for f in fields(config)
        ],
        frozen=True,
        kw_only=True,
    )


def train(arguments: Arguments) -> str | None:
    """Train, probe, and return the closing line; None in processes other than torchrun's first, which only train."""
    config, command = resolve(arguments.config), arguments.command
    if command.export is not None:
        require_target(command.export)  # before hours of training, not after
    dataset = load_dataset(
        config.dataset, config.size, arguments.runtime.root,
        max_train_images=command.max_train_images, max_eval_images=command.max_eval_images,
    )  # fmt: skip
    run = pretrain(config, dataset, arguments.runtime, fresh=command.fresh)
    if int(os.environ.get("RANK", "0")):
        return None
    metrics = evaluate(run, dataset, arguments.runtime, arguments.probe, test=command.test)
    if command.export is not None:
        print(f"exported to {export_run(run, command.export)}")
    return summary_line(run, metrics)


KINDS = {"config": PretrainConfig, "runtime": RuntimeConfig, "probe": ProbeConfig, "command": Command}


def parse(words: list[str]) -> Arguments:
    """What a command line says; what it should not say ends the process with one sentence and a status of 2.

    Raises:
        ValueError: a value out of range.
    """
    flat = {name: tyro.conf.arg(name="" if name != "probe" else name) for name in KINDS}
    flags = [(name, Annotated[flags_of(kind), flat[name]]) for name, kind in KINDS.items()]
    said = io.StringIO()
    try:
        with redirect_stderr(said):  # `--help` goes to stdout and stays as it is
            got: Any = tyro.cli(make_dataclass("Flags", flags), args=words, description=__doc__)
        return Arguments(**{name: kind(**vars(getattr(got, name))) for name, kind in KINDS.items()})
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
