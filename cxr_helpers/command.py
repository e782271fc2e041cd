"""What the command lines share: configurations as flags, and whatever was mistyped answered in one sentence."""

from __future__ import annotations

import io
import os
import re
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr
from dataclasses import MISSING, field, fields, make_dataclass
from itertools import takewhile
from types import SimpleNamespace
from typing import Annotated, Any, get_type_hints

import tyro

from .fields import help_of
from .runs import RunWarning, StoppedError

__all__ = ["parse", "run_command"]


def parse(kinds: Mapping[str, type], words: list[str], *, program: str, description: str) -> SimpleNamespace:
    """What a command line says, one configuration per name; a name with a dot at its end prefixes its flags.

    A word that cannot be read ends the process with one sentence and a status of 2.

    Raises:
        ValueError: a value out of range.
    """
    flags = [
        (name.rstrip("."), Annotated[_flags_of(kind), tyro.conf.arg(name=name.rstrip(".") if name[-1] == "." else "")])
        for name, kind in kinds.items()
    ]
    said = io.StringIO()
    try:
        with redirect_stderr(said):  # `--help` goes to stdout and stays as it is
            got: Any = tyro.cli(make_dataclass("Flags", flags), args=words, description=description, prog=program)
    except SystemExit as end:
        if end.code == 2:
            said = io.StringIO(f"{program}: {in_one_sentence(said.getvalue(), words, program)}\n")
        raise
    finally:
        sys.stderr.write(said.getvalue())
    names = {name.rstrip("."): kind for name, kind in kinds.items()}
    return SimpleNamespace(**{name: kind(**vars(getattr(got, name))) for name, kind in names.items()})


def _flags_of(config: type) -> Any:
    """A configuration as tyro reads it: every field with its declared sentence as help, mappings as pairs of words."""
    kinds = get_type_hints(config)
    rows = []
    for item in fields(config):
        kind = dict[str, str] if kinds[item.name] == Mapping[str, Any] else kinds[item.name]
        default = field(default_factory=dict) if item.default is MISSING else field(default=item.default)
        rows.append((item.name, Annotated[kind, tyro.conf.arg(help=help_of(item))], default))
    return make_dataclass(config.__name__, rows, frozen=True, kw_only=True)


SAID = re.compile(r"Error parsing |Unrecognized options: |Missing value ")  # how tyro's sentences begin


def in_one_sentence(box: str, words: list[str], program: str) -> str:
    """What tyro says of words that it cannot read, in a frame of many lines and below it what the option is for."""
    plain = re.sub(r"\x1b\[[\d;]*m", "", box)
    rows = [re.sub(r"^[│|]?\s*|\s*[│|]?$", "", row) for row in plain.splitlines()]
    begin = next((i for i, row in enumerate(rows) if SAID.match(row)), 0)
    said = " ".join(takewhile(lambda row: row.strip("─-"), rows[begin:])) if rows else "it could not be read"
    explained = [found.groups() for row in rows if (found := re.match(r"(--[a-z]\S*) ?(.*)", row))]
    if said.startswith("Unrecognized options: "):
        near = " or ".join(flag for flag, _ in explained[:3])
        guess = f"did you mean {near}?" if near else f"{program} --help lists them"
        return f"options must be those of {program}, got {said.partition(': ')[2]}; {guess}"
    if missing := re.match(r"Missing value for argument '(\S+)'", said):
        return f"{missing[1]} must be followed by a value, got none; {program} --help explains it"
    if explained and said.startswith("Error parsing --"):
        flag, kind = explained[0]
        at = [i for i, word in enumerate(words) if word.split("=")[0].replace("_", "-") == flag]
        given = [[*words[i].split("=")[1:], *takewhile(lambda w: w[:2] != "--", words[i + 1 :])] for i in at]
        got = shlex.join(given[-1]) if given else "something else"
        return f"{flag} must be followed by {kind}, got {got}; {program} --help explains it"
    return said.removeprefix("Error parsing ")


def run_command(program: str, work: Callable[[list[str]], str | None]) -> None:
    """Run a command line: its last line on success; one line on stderr and a status of 1, 2, 130 or 143 otherwise."""
    formatted, warnings.formatwarning = warnings.formatwarning, _one_line(program)
    before = signal.signal(signal.SIGTERM, _terminate)  # while data are read and probes fitted, at once
    try:
        closing_line = work(sys.argv[1:])
        if closing_line is not None:
            print(closing_line)
    except (ValueError, OSError, RuntimeError) as error:  # the last: divergence, a lock, memory of the device
        sys.exit(f"{program}: {' '.join(str(error).split())}")
    except KeyboardInterrupt as error:
        stopped = error if isinstance(error, StoppedError) else StoppedError(signal.SIGINT)
        if not int(os.environ.get("RANK", "0")):
            print(f"{program}: {stopped}; go on with: {continuing(sys.argv)}", file=sys.stderr)
        sys.exit(stopped.status)
    finally:
        signal.signal(signal.SIGTERM, before)
        warnings.formatwarning = formatted


def continuing(arguments: list[str]) -> str:
    """The command that goes on with an interrupted run: the same one, without what would throw its state away."""
    words = [word for word in arguments if word not in ("--fresh", "--no-fresh")]
    launcher = "torchrun [as before] " if "TORCHELASTIC_RUN_ID" in os.environ else "python "
    return launcher + shlex.join(words)


def _terminate(signum: int, frame: object) -> None:
    raise StoppedError(signum)


def _one_line(program: str) -> Any:
    """How warnings are shown: one about the run as one line for its user, any other as Python shows it."""

    def show(message: Any, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:
        if issubclass(category, RunWarning):
            return f"{program}: {message}\n"
        return f"{filename}:{lineno}: {category.__name__}: {message}\n"

    return show
