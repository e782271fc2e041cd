"""The command line: every flag explained, one line for every mistake, nothing half-written."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest
from datafiles import write_folder

import detect
import train
from cxr_helpers import recipes
from cxr_helpers.command import parse, run_command
from cxr_helpers.config import DETECTOR

ROOT = Path(__file__).resolve().parents[1]
QUICK = [
    *("--size", "64", "--epochs", "1", "--batch-size", "8", "--device", "cpu", "--threads", "1", "--no-progress"),
    *("--probe.folds", "2", "--probe.cs", "0.01", "1"),
]


@pytest.fixture(autouse=True)
def own_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a command sets for its process is taken back."""
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def films(tmp_path: Path) -> list[str]:
    """The words that name forty images of two classes, and where results go."""
    counts = {f"{split}/{name}": n for split, n in (("train", 10), ("val", 5), ("test", 5)) for name in ("a", "b")}
    write_folder(tmp_path / "data" / "films", counts, size=64)
    return ["--dataset", "films", "--root", str(tmp_path / "data"), "--results", str(tmp_path / "results"), *QUICK]


def command(*arguments: str, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, *launcher, str(ROOT / "train.py"), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(words, capture_output=True, text=True, env=environment, timeout=600, check=False)


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    run_command("train.py", train.train)


def test_help_explains_every_field(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(SystemExit):
        run_main(monkeypatch, "--help")
    text = capsys.readouterr().out
    names = [prefix + item.name for kind, prefix in train.KINDS.items() for item in fields(kind)]
    assert [name for name in names if f"--{name.replace('_', '-')}" not in text] == []
    assert "counts how often" in text and "above 0; default 0.07)" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--dataset pneumoniamnst", "data set must be one of .*did you mean pneumoniamnist"),
        ("--options temprature 0.1", "options of simclr must be among temperature, .* got temprature"),
        ("--options temperature", "options must be followed by names, each with its value, got 'temperature'"),
        ("--epochs ten", r"epochs must be a whole number \(an int\), got 'ten'"),
        ("--probe.cs 1 x", r"probe.cs must be a finite number \(an int or a float\), got 'x'"),
        ("--dataset", "--dataset: expected one argument; train.py --help explains it"),
        ("--sise 64", "options must be those that train.py --help lists, got '--sise 64'"),
        ("--encoder random --epochs 3", "epochs must be left out where --encoder trains nothing, got 3"),
        (f"--export {ROOT / 'pyproject.toml'}", "--export must name a new folder or .pth file"),
        ("--max-train-images 0", "max_train_images must be at least 1, got 0"),
    ],
)
def test_a_mistake_is_one_line(arguments: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    results = tmp_path / "results"
    with pytest.raises(SystemExit) as caught:
        run_main(monkeypatch, "--size", "64", "--results", str(results), *arguments.split())
    line = caught.value.code  # printed on stderr, with a status of 1
    assert isinstance(line, str) and re.match(f"train.py: .*{message}", line) and "\n" not in line
    assert not results.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--probe.folds 21", "folds must be at most the number of labelled train images, got 21 folds of 20"),
        ("--threads 100000", r"threads must be at most the \d+ cores of this machine, got 100000"),
        ("--label-fraction 0.01", "no fold of train has both classes: label more train images or use fewer folds"),
        ("--size 28 --batch-size 64", "batch_size must be at most the 20 training images of films, got 64"),
    ],
)
def test_what_cannot_end_well_is_refused_before_it_begins(
    films: list[str], arguments: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as caught:
        run_main(monkeypatch, *films, *arguments.split())
    assert re.match(f"train.py: .*{message}", str(caught.value.code))
    assert not (tmp_path / "results").exists()


@pytest.mark.usefixtures("tiny_net")
def test_what_matters_about_the_data_is_said_before_training(
    films: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tmp_path / "data" / "films"
    (folder / "test" / "a" / "copy.png").write_bytes((folder / "train" / "a" / "000.png").read_bytes())
    run_main(monkeypatch, *films)
    out, said = capsys.readouterr()
    assert "films: 1 of 11 test files are also in train, byte for byte" in said.splitlines()
    assert len(out.splitlines()) == 1


@pytest.mark.usefixtures("tiny_net")
def test_a_batch_that_nobody_typed_fits_the_data_and_says_so(
    films: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    where = films.index("--batch-size")
    with pytest.warns(
        UserWarning, match="batch_size is 5, not the recipe's 256, so that an epoch of films has 4 steps"
    ):
        run_main(monkeypatch, *films[:where], *films[where + 2 :])
    (folder,) = (tmp_path / "results" / "runs").iterdir()
    assert json.loads((folder / "config.json").read_text())["batch_size"] == 5


@pytest.mark.usefixtures("tiny_net")
@pytest.mark.parametrize("name", ["config.json", "metrics.json", "environment.json"])
def test_a_damaged_record_is_named_with_the_way_out(
    films: list[str], name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run_main(monkeypatch, *films)
    (folder,) = (tmp_path / "results" / "runs").iterdir()
    (folder / name).write_text('{"half')
    with pytest.raises(SystemExit) as caught:
        run_main(monkeypatch, *films)
    assert f"{name} must be a whole JSON file, got a damaged one: restore {name}, or remove it" in str(
        caught.value.code
    )


def test_flags_have_dashes_or_underscores_and_the_last_one_counts() -> None:
    words = "--batch_size None --batch-size 8 --lr 1e-3 --options temperature 0.1 hidden_dim 64 --no-progress "
    words += "--compile --probe.knn_k 3 --probe.cs 1 10 --encoder random a_b=c --policy-changes gamma -1"
    config, runtime, probe, command = parse(train.KINDS, words.split(), program="train.py", description="")
    assert (config.batch_size, config.lr, config.policy_changes) == (8, 1e-3, {"gamma": "-1"})
    assert config.options == {"temperature": "0.1", "hidden_dim": "64"}
    assert (runtime.progress, runtime.compile) == (False, True)
    assert (probe.knn_k, probe.cs, command.encoder) == (3, (1.0, 10.0), ("random", "a_b=c"))


@pytest.mark.parametrize("words", [["--method", "x"], ["--options", "no", "1"], ["--policy-changes", "no", "1"]])
def test_a_mistake_is_answered_before_torch_is_loaded(words: list[str]) -> None:
    code = f"import sys, train\ntry: train.train({words})\nexcept ValueError: assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_says_how_to_go_on(
    number: signal.Signals, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train, "train", lambda words: signal.raise_signal(number))
    with pytest.raises(SystemExit) as caught:
        run_main(monkeypatch, "--dataset", "a b", "--fresh", "--seed", "1")
    (line,) = capsys.readouterr().err.splitlines()
    assert caught.value.code == status and line.startswith(f"train.py: stopped by {number.name} at once")
    assert line.endswith("; go on with: python train.py --dataset 'a b' --seed 1")  # --fresh would begin anew


@pytest.mark.usefixtures("tiny_net")
def test_the_command_trains_probes_counts_readings_of_test_and_exports(
    films: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    films += ["--options", "hidden_dim", "16", "output_dim", "8", "--max-train-images", "16"]
    run_main(monkeypatch, *films)
    run_main(monkeypatch, *films, "--test", "--export", str(tmp_path / "out.pth"))
    first, exported, second = capsys.readouterr().out.splitlines()
    assert first.startswith("trained ") and " val auc " in first and " test auc " not in first
    assert second.startswith("loaded ") and " val auc " in second and " test auc " in second
    assert first.split()[1] == second.split()[1] and exported == f"exported to {tmp_path / 'out.pth'}"
    (folder,) = (tmp_path / "results" / "runs").iterdir()
    assert json.loads((folder / "metrics.json").read_text())["test_reads"] == 1
    assert "--max-train-images 16" in json.loads((folder / "environment.json").read_text())["command"]


def test_every_recorded_run_is_named_by_the_command_in_its_record(monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [file.parent for file in (ROOT / "results" / "runs").glob("*/environment.json")]
    assert folders
    for folder in folders:
        stored, environment = (json.loads((folder / f"{name}.json").read_text()) for name in ("config", "environment"))
        words = shlex.split(environment["command"])[2:]
        data = SimpleNamespace(name=stored["dataset"], fingerprint=stored["fingerprint"])
        monkeypatch.setattr(recipes, "_digest_of", lambda *_, digest=stored.get("init_sha256"): digest)  # records only
        if stored.get("method") == DETECTOR:
            kinds = dict.fromkeys(detect.KINDS[words[0]], "")
            config = parse(kinds, words[1:], program="detect.py", description="")[0]
            assert recipes.run_id(recipes.record_of(config, data)) == folder.name
            continue
        config, _, _, asked = parse(train.KINDS, words, program="train.py", description="")
        if "encoder" in stored:
            named = " + ".join(one.removeprefix("results/runs/") for one in asked.encoder)
            assert named == stored["encoder"] and recipes.run_id(stored) == folder.name
            assert (config.dataset, config.size) == (stored["dataset"], stored["size"])
            assert (asked.stage, asked.join) == (stored.get("stage"), stored.get("join"))
            continue
        assert recipes.run_id(recipes.record_of(recipes.resolve(config), data)) == folder.name


@pytest.mark.slow
def test_torchrun_starts_two_processes_that_write_one_run(films: list[str], tmp_path: Path) -> None:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    odd = command(*films, "--batch-size", "9", launcher=launcher)
    assert odd.returncode != 0 and "multiple of the number of processes, got 9 for 2" in odd.stderr
    done = command(*films, launcher=launcher)
    assert len(done.stdout.splitlines()) == 1 and done.stdout.startswith("trained "), done.stderr  # by one of them
    (folder,) = (tmp_path / "results" / "runs").iterdir()
    assert json.loads((folder / "environment.json").read_text())["processes"] == 2


@pytest.mark.slow
def test_a_real_run_that_is_killed_goes_on_with_the_command_it_prints(films: list[str], tmp_path: Path) -> None:
    films += ["--epochs", "3"]
    whole = command(*films)
    assert whole.returncode == 0 and whole.stdout.splitlines()[-1].startswith("trained "), whole.stderr
    again = command(*films)
    assert again.stdout.splitlines()[-1] == whole.stdout.splitlines()[-1].replace("trained ", "loaded ", 1)
    stopped, script = tmp_path / "stopped", [sys.executable, str(ROOT / "train.py"), *films, "--results"]
    for rows, number in ((1, signal.SIGKILL), (2, signal.SIGTERM)):  # when so many epochs are in the history
        with subprocess.Popen([*script, str(stopped)], stderr=subprocess.PIPE, text=True) as process:
            while sum(len(f.read_text().splitlines()) - 1 for f in stopped.glob("runs/*/history.csv")) < rows:
                assert process.poll() is None
                time.sleep(0.01)
            process.send_signal(number)
            said = process.communicate()[1]
        assert process.returncode in (-number, 128 + number), said
    resumed = command(*shlex.split(said.splitlines()[-1].partition("; go on with: python ")[2])[1:])
    assert resumed.returncode == 0 and resumed.stdout.splitlines()[-1].startswith("resumed "), resumed.stderr
    (a,), (b,) = ((tmp_path / name / "runs").iterdir() for name in ("results", "stopped"))
    assert {path.name for path in a.iterdir()} == {path.name for path in b.iterdir()}
    for name in ("backbone.safetensors", "predictions_val.csv.gz", "metrics.json"):
        assert (a / name).read_bytes() == (b / name).read_bytes(), f"{name} differs"


def test_the_lowest_layers_rate_is_printed_and_recorded(
    films: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    tuned = ["--method", "supervised", "--backbone", "vit_tiny6", "--lr", "3.2e-3", "--options", "layer_decay", "0.5"]
    run_main(monkeypatch, *films, *tuned)
    said, last = capsys.readouterr().out.splitlines()
    assert said == "the lowest layer's rate was 7.8e-07 at most, the head's 1.0e-04" and last.startswith("trained ")
    (file,) = (tmp_path / "results" / "runs").glob("*/environment.json")
    assert json.loads(file.read_text())["peak_lr"] == pytest.approx([1e-4 * 0.5**7, 1e-4])
