"""What a command line needs: configurations as flags, and whatever goes wrong answered in one sentence."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, fields
from typing import Any, NoReturn

from .fields import help_of, kind_of, read, require
from .runs import StoppedError

__all__ = ["parse", "run_command", "say_notes"]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message.removeprefix('argument ')}; {self.prog} --help explains it")


def parse(kinds: Mapping[type, str], words: list[str], *, program: str, description: str) -> list[Any]:
    """What a command line says, as one configuration of each kind, in their order.

    Args:
        kinds: configurations, each with what its flags begin with, such as `probe.`.
    Raises:
        ValueError: an unknown flag, a word of another kind than its field, a value out of range.
    """
    parser = _Parser(prog=program, usage=f"{program} [options]", description=description, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    for kind, prefix in kinds.items():
        for item in fields(kind):
            parser.add_argument(f"--{prefix}{item.name}".replace("_", "-"), **_how(item))
    known, unknown = parser.parse_known_args([_dashed(word) for word in words])
    require(not unknown, "options", f"those that {program} --help lists", " ".join(unknown))
    return [_made(kind, prefix, vars(known)) for kind, prefix in kinds.items()]


def _dashed(word: str) -> str:
    flag, equals, value = word.partition("=")
    return flag.replace("_", "-") + equals + value if word.startswith("--") else word


def _how(item: Field[Any]) -> dict[str, Any]:
    """How argparse takes a field: its words are read afterwards, by its annotation."""
    kind = kind_of(item)
    how = {"help": help_of(item).replace("%", "%%"), "default": argparse.SUPPRESS}
    if kind == "bool":
        return {**how, "action": argparse.BooleanOptionalAction}
    if kind.startswith("Mapping"):
        return {**how, "nargs": "*", "metavar": "NAME VALUE"}
    one = kind.removeprefix("tuple[").removesuffix(", ...]")
    return {**how, "nargs": "*" if one != kind else None, "metavar": one.removesuffix(" | None").upper()}


def _made(kind: type, prefix: str, given: Mapping[str, Any]) -> Any:
    """A configuration from what was given of it."""
    own = [item for item in fields(kind) if prefix + item.name in given]
    return kind(**{f.name: _value(prefix + f.name, kind_of(f), given[prefix + f.name]) for f in own})


def _value(name: str, kind: str, said: Any) -> Any:
    """What the words after a flag say, by the annotation of its field."""
    if kind == "bool":
        return said
    if kind.startswith("Mapping"):
        require(len(said) % 2 == 0, name, "followed by names, each with its value", " ".join(said))
        return dict(zip(said[::2], said[1::2], strict=True))
    if kind.startswith("tuple"):
        return tuple(read(name, word, kind.removeprefix("tuple[").removesuffix(", ...]")) for word in said)
    optional = kind.endswith(" | None")
    return None if optional and said == "None" else read(name, said, kind.removesuffix(" | None"))


def say_notes(name: str, notes: Iterable[str]) -> None:
    """What matters about the data, a line each on stderr, of the first process alone."""
    for note in notes if os.environ.get("RANK", "0") == "0" else ():
        print(f"{name}: {note}", file=sys.stderr)


def run_command(program: str, work: Callable[[list[str]], str | None]) -> None:
    """Run a command line: its last line on success; one line on stderr and a status of 1, 130 or 143 otherwise."""
    warnings.formatwarning = lambda message, *_, **__: f"{program}: {message}\n"
    signal.signal(signal.SIGTERM, _terminate)  # while data are read and probes fitted, at once
    try:
        closing_line = work(sys.argv[1:])
        if closing_line is not None:
            print(closing_line)
    except (ValueError, OSError, RuntimeError) as error:  # the last: divergence, a lock, memory of the device
        sys.exit(f"{program}: {' '.join(str(error).split())}")
    except KeyboardInterrupt as error:
        stopped = error if isinstance(error, StoppedError) else StoppedError(signal.SIGINT)
        launcher = "torchrun [as before]" if "TORCHELASTIC_RUN_ID" in os.environ else "python"
        words = shlex.join(word for word in sys.argv if word not in ("--fresh", "--no-fresh"))  # which begins anew
        if os.environ.get("RANK", "0") == "0":
            print(f"{program}: {stopped}; go on with: {launcher} {words}", file=sys.stderr)
        sys.exit(stopped.status)


def _terminate(signum: int, frame: object) -> None:
    raise StoppedError(signum)
