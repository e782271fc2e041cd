"""The command line: every flag explained, one line for every mistake, nothing half-written."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_pretrain import CLOCK

import train
from cxr_helpers import recipes
from cxr_helpers.command import in_one_sentence, parse, run_command
from cxr_helpers.config import PretrainConfig, ProbeConfig, RuntimeConfig
from cxr_helpers.runs import RunWarning, StoppedError

ROOT = Path(__file__).resolve().parents[1]
CLOSED = "http://127.0.0.1:9"  # nobody listens there: a download fails at once
QUICK = [
    *("--size", "64", "--epochs", "1", "--batch-size", "8", "--device", "cpu", "--threads", "1", "--no-progress"),
    *("--probe.folds", "2", "--probe.cs", "0.01", "1", "--probe.sgd-epochs", "2"),
]


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Forty textures of two classes, half of them bright."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 20), ("val", 10), ("test", 10)):
        for level, name in enumerate(("dark", "bright")):
            folder = tmp_path / "data" / "films" / split / name
            folder.mkdir(parents=True)
            for i in range(count // 2):
                pixels = rng.integers(0, 128, (64, 64)) + 60 * level
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "data" / "films"


def write_npz(folder: Path, name: str = "pneumoniamnist_64.npz", dtype: type = np.uint8, size: int = 64) -> Path:
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = rng.integers(0, 255, (12, size, size)).astype(dtype)
        arrays[f"{split}_labels"] = (np.arange(12) % 2)[:, None].astype(np.uint8)
    folder.mkdir(exist_ok=True)
    np.savez(folder / name, **arrays)
    return folder / name


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    run_command("train.py", train.train)


def complaint(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """The one line that the command ends with; `sys.exit` with a text prints it and makes the status 1."""
    with pytest.raises(SystemExit) as caught:
        run_main(monkeypatch, *arguments)
    line = caught.value.code
    assert isinstance(line, str) and line.startswith("train.py: ") and "\n" not in line
    return line


def test_help_names_and_explains_every_field(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as caught:
        run_main(monkeypatch, "--help")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    flags = [f"--{f.name.replace('_', '-')}" for f in (*fields(PretrainConfig), *fields(RuntimeConfig))]
    flags += [f"--probe.{f.name.replace('_', '-')}" for f in fields(ProbeConfig)]
    missing = [flag for flag in (*flags, "--test", "--fresh") if flag not in text]
    assert not missing
    for words in ("CIFAR", "counts how often", "bf16-mixed where", "iterations of L-BFGS"):
        assert words in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--dataset", "pneumoniamnst"), "data set must be one of .*did you mean pneumoniamnist"),
        (("--dataset", "./no/such/folder"), "got no folder at './no/such/folder'"),
        (("--method", "byol"), "method must be one of simclr, vicreg, supervised or my_module:Name, got 'byol'"),
        (("--policy", "strong"), "policy must be one of .*, got 'strong'"),
        (("--options", "temprature", "0.1"), "options of simclr must be among temperature, .* got temprature"),
        (("--options", "temperature", "0"), "temperature must be above 0, got 0"),
        (("--policy-changes", "cropp", "0.1"), "a policy's field must be one of .*, got 'cropp'"),
        (("--policy-changes", "crop_scale_min", "7"), "crop_scale"),
        (("--size", "100"), "size of pneumoniamnist must be one of 28, 64, 128, 224 px, got 100"),
        (("--batch-size", "1"), "batch_size must be at least 2, got 1"),
        (("--epochs", "-1"), "epochs must be at least 0, got -1"),
        (("--lr", "0"), "lr must be above 0, got 0"),
        (("--device", "tpu"), "device must be one of auto, cpu, cuda, mps, got 'tpu'"),
        (("--optimizer", "adam"), "optimizer must be one of adamw, sgd, lars, got 'adam'"),
        (("--label-fraction", "0"), "label_fraction must be above 0 and at most 1, got 0"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(
    arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_npz(tmp_path / "data")
    results = tmp_path / "results"
    base = ("--size", "64", "--results", str(results), "--root", str(tmp_path / "data"))
    line = complaint(monkeypatch, *base, *arguments)
    assert re.search(message, line), line
    assert not results.exists()


KINDS_OF_CS = "[FLOAT [FLOAT ...]]"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--epochs", "ten", "--lr", "x"), "--epochs must be followed by INT, got ten; train.py --help explains it"),
        (("--epochs=ten",), "--epochs must be followed by INT, got ten; train.py --help explains it"),
        (
            ("--batch_size", "a b"),
            "--batch-size must be followed by {None}|INT, got 'a b'; train.py --help explains it",
        ),
        (
            ("--probe.cs", "1", "x"),
            f"--probe.cs must be followed by {KINDS_OF_CS}, got 1 x; train.py --help explains it",
        ),
        (("--dataset",), "--dataset must be followed by a value, got none; train.py --help explains it"),
        (("--sise", "64"), "options must be those of train.py, got --sise, 64; did you mean --size?"),
        (("frog",), "options must be those of train.py, got frog; train.py --help lists them"),
    ],
)
def test_what_the_parser_refuses_is_one_line_with_a_status_of_2(
    arguments: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        run_main(monkeypatch, *arguments)
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"train.py: {said}\n")


@pytest.mark.parametrize("frame", ["╭─╮│╰╯", "   |  ", "      ", "\x1b[31m"])
def test_a_frame_of_any_make_becomes_one_sentence(frame: str) -> None:
    side, rule = (frame[3], "─" * 9) if len(frame) == 6 else (f"{frame}│\x1b[0m", "-" * 9)
    rows = [
        "Error parsing --epochs: not a",
        "number: ten",
        rule,
        "Argument helptext:",
        "    --epochs INT",
        "    Passes",
    ]
    box = "\n".join([f" Value error {rule}", *(f"{side} {row:30} {side}" for row in rows), f" {rule} "])
    said = in_one_sentence(box, ["--epochs", "ten"], "train.py")
    assert said == "--epochs must be followed by INT, got ten; train.py --help explains it"
    assert in_one_sentence(box, [], "train.py").startswith("--epochs must be followed by INT, got something else")


@pytest.mark.slow
def test_what_tyro_says_to_a_terminal_in_utf_8_is_understood_too() -> None:  # it draws another frame there
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "--sise", "4"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "OMP_NUM_THREADS": "1"},
        check=False,
    )
    said = "train.py: options must be those of train.py, got --sise, 4; did you mean --size?\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


def test_what_is_no_frame_at_all_is_kept_as_one_line() -> None:
    assert in_one_sentence("tyro says\n  something new\n", ["x"], "train.py") == "tyro says something new"
    assert in_one_sentence("", ["x"], "train.py") == "it could not be read"


def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, CLOSED)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("CXR_MIRROR", CLOSED)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between tries


def test_a_size_that_is_not_there_and_no_network_names_the_ways_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = write_npz(tmp_path / "data")
    no_network(monkeypatch)
    line = complaint(monkeypatch, "--size", "128", "--root", str(file.parent), "--results", str(tmp_path / "results"))
    assert "pneumoniamnist_128.npz is not in" in line and "could not be downloaded" in line
    assert "take a size that is there (64 px)" in line and "CXR_DATA" in line and "phantom" in line
    assert [p.name for p in file.parent.iterdir()] == [file.name]
    assert not (tmp_path / "results").exists()


def damaged(file: Path) -> str:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return "must be a complete .npz of plain arrays, got one damaged or truncated"


def float_images(file: Path) -> str:
    write_npz(file.parent, dtype=np.float32)
    return r"train_images must be uint8 \[N, S, S\] .*, got \[dtype\('float32'\)"


def small_images(file: Path) -> str:
    write_npz(file.parent, size=28)
    return r"train images must be \[12, 1, 64, 64\], got \[12, 1, 28, 28\]"


def few_images(file: Path) -> str:
    return "batch_size must be at most the 12 training images of pneumoniamnist, got 256"


@pytest.mark.parametrize("spoil", [damaged, float_images, small_images, few_images])
def test_data_that_cannot_be_used_are_one_line(spoil: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = write_npz(tmp_path / "data")
    assert callable(spoil)
    message = spoil(file)
    results = tmp_path / "results"
    line = complaint(monkeypatch, "--size", "64", "--root", str(file.parent), "--results", str(results))
    assert re.search(message, line), line
    assert not results.exists()


def test_a_results_folder_that_cannot_be_written_is_one_line(
    monkeypatch: pytest.MonkeyPatch, image_folder: Path, tmp_path: Path, tiny_net: None
) -> None:
    (tmp_path / "results").write_text("in its place")
    line = complaint(monkeypatch, "--dataset", str(image_folder), "--results", str(tmp_path / "results"), *QUICK)
    assert line.startswith(f"train.py: results folder must be writable, got {tmp_path / 'results'} (")


def test_images_without_any_label_are_trained_on_and_nothing_is_probed(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    image_folder: Path,
    tmp_path: Path,
    tiny_net: None,
) -> None:
    flat = tmp_path / "data" / "plain" / "train"
    flat.mkdir(parents=True)
    for number, file in enumerate(sorted(image_folder.glob("train/*/*.png"))):
        file.rename(flat / f"{number}.png")
    words = ("--dataset", str(flat.parent), "--results", str(tmp_path / "results"))
    run_main(monkeypatch, *words, *QUICK)
    assert "no labels, nothing probed · val loss " in capsys.readouterr().out
    assert "must be labelled to be probed" in complaint(monkeypatch, *words, "--size", "64", "--encoder", "random")


def test_an_empty_class_folder_is_one_line(monkeypatch: pytest.MonkeyPatch, image_folder: Path, tmp_path: Path) -> None:
    for file in (image_folder / "val" / "dark").iterdir():
        file.unlink()
    line = complaint(monkeypatch, "--dataset", str(image_folder), "--results", str(tmp_path / "results"), *QUICK)
    assert "dark" in line and not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (KeyboardInterrupt(), 130, "stopped by SIGINT at once"),
        (StoppedError(signal.SIGINT, "after step 3 of 9 in epoch 2"), 130, "stopped by SIGINT after step 3 of 9"),
        (StoppedError(signal.SIGTERM), 143, "stopped by SIGTERM at once"),
    ],
)
def test_an_interruption_says_how_to_go_on(
    error: BaseException,
    status: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupt(arguments: object) -> str:
        raise error

    monkeypatch.setattr(train, "train", interrupt)
    with pytest.raises(SystemExit) as caught:
        run_main(monkeypatch, "--dataset", "a b", "--fresh", "--seed", "1")
    (line,) = capsys.readouterr().err.splitlines()
    assert caught.value.code == status and line.startswith(f"train.py: {words}")
    assert line.endswith("; go on with: python train.py --dataset 'a b' --seed 1")  # --fresh would begin anew


def test_sigterm_while_data_are_read_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("cxr_helpers.data.load_dataset", lambda *_, **__: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit) as caught:
        run_main(monkeypatch)
    assert caught.value.code == 143 and "stopped by SIGTERM" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_warning_about_the_run_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def warn(arguments: object) -> str:
        warnings.warn("the latest checkpoint is damaged", RunWarning, stacklevel=2)
        warnings.warn("something else", stacklevel=2)
        return "done"

    monkeypatch.setattr(train, "train", warn)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", lambda *w, **_: sys.stderr.write(warnings.formatwarning(*w[:4])))
        run_main(monkeypatch)
    first, *others = capsys.readouterr().err.splitlines()
    assert first == "train.py: the latest checkpoint is damaged" and "UserWarning: something else" in others[0]


def test_the_command_trains_probes_and_counts_readings_of_test(
    monkeypatch: pytest.MonkeyPatch,
    image_folder: Path,
    tmp_path: Path,
    tiny_net: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["--dataset", "films", "--root", str(image_folder.parent), "--results", str(tmp_path / "results")]
    options = ["--options", "hidden_dim", "16", "output_dim", "8", "--policy-changes", "gamma", "0.2"]
    run_main(monkeypatch, *arguments, *QUICK, *options)
    first = capsys.readouterr().out.splitlines()[-1]
    run_main(monkeypatch, *arguments, *QUICK, *options, "--test")
    second = capsys.readouterr().out.splitlines()[-1]
    assert first.startswith("trained ") and " val auc " in first and " test auc " not in first
    assert second.startswith("loaded ") and " val auc " in second and " test auc " in second
    assert first.split()[1] == second.split()[1]
    assert len(list((tmp_path / "results" / "runs").iterdir())) == 1


def test_a_draw_of_the_images_can_be_asked_for_and_repeated(
    monkeypatch: pytest.MonkeyPatch, image_folder: Path, tmp_path: Path, tiny_net: None
) -> None:
    arguments = ["--dataset", "films", "--root", str(image_folder.parent), "--results", str(tmp_path / "results")]
    run_main(monkeypatch, *arguments, *QUICK, "--max-train-images", "16", "--max-eval-images", "6")
    run_main(monkeypatch, *arguments, *QUICK)
    drawn, whole = sorted(
        (json.loads(file.read_text()) for file in tmp_path.glob("results/runs/*/environment.json")),
        key=lambda environment: "drawn" not in environment["data"],
    )
    assert drawn["command"].endswith(" --max-train-images 16 --max-eval-images 6")
    assert "--max-" not in whole["command"]  # two runs: the draw decides what is learnt
    words = shlex.split(drawn["command"])[2:]
    run_main(monkeypatch, *words, "--root", str(image_folder.parent), "--results", str(tmp_path / "results"))
    assert len(list(tmp_path.glob("results/runs/*"))) == 2
    said = complaint(monkeypatch, *arguments, "--max-train-images", "0")
    assert said == "train.py: max_train_images must be at least 1, got 0"


def test_every_recorded_run_is_named_by_the_command_in_its_record(monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [file.parent for file in (ROOT / "results" / "runs").glob("*/environment.json")]
    assert folders
    for folder in folders:
        stored, environment = (json.loads((folder / f"{name}.json").read_text()) for name in ("config", "environment"))
        asked = parse(train.KINDS, shlex.split(environment["command"])[2:], program="train.py", description="")
        data = SimpleNamespace(name=stored["dataset"], fingerprint=stored["fingerprint"])
        if "encoder" in stored:
            (encoder,) = asked.command.encoder
            assert encoder.removeprefix("results/runs/") == stored["encoder"] and recipes.run_id(stored) == folder.name
            assert [getattr(asked.config, name) for name in ("dataset", "size", "seed")] == [
                stored[name] for name in ("dataset", "size", "seed")
            ] or encoder not in ("random", "imagenet")  # the seed of a run's encoder is its run's
            continue
        monkeypatch.setattr(recipes, "_init_digest", lambda _, digest=stored["init_sha256"]: digest)  # records only
        assert recipes.run_id(recipes.record_of(recipes.resolve(asked.config), data)) == folder.name


def command(*arguments: str, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *launcher, str(ROOT / "train.py"), *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=600,
        check=False,
    )


@pytest.mark.slow
def test_a_mistake_exits_with_status_1_and_one_line_on_stderr(tmp_path: Path) -> None:
    done = command("--method", "byol", "--results", str(tmp_path / "results"))
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == "train.py: method must be one of simclr, vicreg, supervised or my_module:Name, got 'byol'\n"


@pytest.mark.slow
def test_the_same_command_trains_and_then_returns_the_finished_run(image_folder: Path, tmp_path: Path) -> None:
    arguments = ["--dataset", str(image_folder), "--results", str(tmp_path / "results"), *QUICK, "--backbone"]
    first, second = (command(*arguments, "resnet18") for _ in range(2))
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert first.stdout.splitlines()[-1].startswith("trained ")
    assert second.stdout.splitlines()[-1] == first.stdout.splitlines()[-1].replace("trained ", "loaded ", 1)


@pytest.mark.slow
def test_a_real_run_that_is_terminated_goes_on_with_the_command_it_prints(image_folder: Path, tmp_path: Path) -> None:
    def arguments(results: str) -> list[str]:
        return ["--dataset", str(image_folder), "--results", str(tmp_path / results), *QUICK, "--epochs", "3"]

    whole = command(*arguments("whole"))
    assert whole.returncode == 0, whole.stderr
    script = [sys.executable, str(ROOT / "train.py"), *arguments("stopped")]
    with subprocess.Popen(
        script, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    ) as first:
        while not list((tmp_path / "stopped").glob("runs/*/history.csv")):
            assert first.poll() is None
            time.sleep(0.01)
        first.terminate()
        said = first.communicate()[1]
    assert first.returncode == 143, said
    printed = said.splitlines()[-1].partition("; go on with: python ")[2]
    resumed = command(*shlex.split(printed)[1:])
    assert resumed.returncode == 0 and resumed.stdout.splitlines()[-1].startswith("resumed "), resumed.stderr
    (a,), (b,) = ((tmp_path / name / "runs").iterdir() for name in ("whole", "stopped"))
    for name in ("backbone.safetensors", "predictions_val.csv.gz", "metrics.json"):
        assert (a / name).read_bytes() == (b / name).read_bytes(), f"{name} differs"


def held_by(folder: Path, pid: int) -> bool:
    """Whether that process has begun the run."""
    try:
        return json.loads(next(folder.glob("runs/*/lock.json")).read_text())["pid"] == pid
    except (StopIteration, FileNotFoundError, ValueError):  # not yet, or just being written
        return False


def rows_of_history(folder: Path) -> int:
    return sum(len(file.read_text().splitlines()) - 1 for file in folder.glob("runs/*/history.csv"))


MOMENTS: tuple[tuple[Callable[[Path, int], bool], float | None], ...] = (  # when; seconds from SIGTERM to SIGKILL
    (held_by, None),
    (lambda folder, pid: rows_of_history(folder) >= 1, 0.1),  # while it saves its 150 MB
    (lambda folder, pid: held_by(folder, pid) and rows_of_history(folder) >= 2, None),
    (lambda folder, pid: bool(list(folder.glob("runs/*/backbone.safetensors"))), None),
)


@pytest.mark.slow
def test_a_real_run_killed_again_and_again_ends_as_one_that_was_not(image_folder: Path, tmp_path: Path) -> None:
    def arguments(results: str) -> list[str]:
        return ["--dataset", str(image_folder), "--results", str(tmp_path / results), *QUICK, "--epochs", "4"]

    whole = command(*arguments("whole"))
    assert whole.returncode == 0, whole.stderr
    script, place = [sys.executable, str(ROOT / "train.py"), *arguments("killed")], tmp_path / "killed"
    for come, saving in MOMENTS:
        with subprocess.Popen(script, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
            while not come(place, process.pid):
                assert process.poll() is None, "it has ended before its moment"
                time.sleep(0.005)
            if saving is not None:
                process.terminate()
                time.sleep(saving)
            process.kill()
        assert process.returncode == -signal.SIGKILL or (saving is not None and process.returncode == 143)
    last = command(*arguments("killed"))
    assert last.returncode == 0, last.stderr
    (a,), (b,) = ((tmp_path / name / "runs").iterdir() for name in ("whole", "killed"))
    assert {path.name for path in a.iterdir()} == {path.name for path in b.iterdir()}
    for name in ("backbone.safetensors", "predictions_val.csv.gz", "metrics.json", "probe_curve.csv"):
        assert (a / name).read_bytes() == (b / name).read_bytes(), f"{name} differs"
    histories = [pd.read_csv(run / "history.csv").drop(columns=CLOCK) for run in (a, b)]
    pd.testing.assert_frame_equal(*histories, check_exact=True)


@pytest.mark.slow
def test_torchrun_starts_two_processes_that_write_one_run(image_folder: Path, tmp_path: Path) -> None:
    arguments = ["--dataset", str(image_folder), "--results", str(tmp_path / "results"), *QUICK]
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
    odd = command(*arguments, "--batch-size", "9", launcher=(*launcher, "2"))
    assert odd.returncode != 0 and "multiple of the number of processes, got 9 for 2" in odd.stderr
    assert not (tmp_path / "results").exists()
    done = command(*arguments, launcher=(*launcher, "2"))
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1 and done.stdout.startswith("trained ")  # the other prints nothing
    (folder,) = (tmp_path / "results" / "runs").iterdir()
    assert json.loads((folder / "environment.json").read_text())["processes"] == 2
    again = command(*arguments, launcher=(*launcher, "1"))
    assert again.stdout.startswith("loaded "), again.stderr
    assert not list(folder.glob("checkpoint*")) and not (folder / "lock.json").exists()
