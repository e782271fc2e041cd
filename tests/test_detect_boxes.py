"""Films with boxes: several readers become one truth, the folder it makes, and what it refuses."""

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import detect
from cxr_helpers import load_dataset
from cxr_helpers.command import run_command
from cxr_helpers.data import Split, boxes_of, on_square
from cxr_helpers.detect import convert, fuse

CORNERS = ["x_min", "y_min", "x_max", "y_max"]
NAMES = {0: "Aortic enlargement", 3: "Cardiomegaly", 14: "No finding"}


def test_boxes_are_fused_as_ensemble_boxes_does() -> None:
    boxes = np.array([[0.00, 0.51, 0.81, 0.91], [0.10, 0.31, 0.71, 0.61], [0.01, 0.32, 0.83, 0.93],
                      [0.02, 0.53, 0.80, 0.90], [0.61, 0.02, 0.93, 0.33]])  # fmt: skip
    fused, members = fuse(boxes, np.array([0.9, 0.8, 0.6, 0.5, 0.3]), 0.55)
    theirs = [[0.008, 0.458, 0.8135, 0.9135], [0.1, 0.31, 0.71, 0.61], [0.61, 0.02, 0.93, 0.33]]  # version 1.0.9
    np.testing.assert_allclose(fused, theirs, atol=1e-6)
    assert members == [[0, 2, 3], [1], [4]]
    apart, alone = fuse(boxes, np.ones(5), 0.99)
    np.testing.assert_array_equal(apart, boxes)
    assert alone == [[0], [1], [2], [3], [4]]


def rows_of(film: int) -> list[dict[str, Any]]:
    """Two readers agree on the aorta, one of them also sees the heart; a film of 60 x 80 or 80 x 60 px."""
    width, height = (60, 80) if film % 2 else (80, 60)
    boxes = [("R1", 0, (10, 10, 30, 30)), ("R2", 0, (12, 10, 32, 30)), ("R2", 3, (20, 30, 50, 55))]
    return [
        {"image_id": f"film{film:02d}", "class_name": NAMES[kind], "class_id": kind, "rad_id": reader,
         **dict(zip(CORNERS, map(float, box), strict=True)), "width": width, "height": height}
        for reader, kind, box in boxes
    ]  # fmt: skip


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Twenty films, and one without a finding."""
    folder = tmp_path / "vinbigdata"
    (folder / "train").mkdir(parents=True)
    rows = [row for film in range(20) for row in rows_of(film)]
    for film in range(20):
        pixels = np.full((80, 60) if film % 2 else (60, 80), 10 * film, np.uint8)
        pixels[10:30, 10:30] = 255
        Image.fromarray(pixels).save(folder / "train" / f"film{film:02d}.png")
    rows.append({"image_id": "film99", "class_name": NAMES[14], "class_id": 14, "rad_id": "R1"})
    pd.DataFrame(rows).to_csv(folder / "train.csv", index=False)
    return folder


def change(source: Path, **values: Any) -> None:
    """Other values in the first row of the table."""
    table = pd.read_csv(source / "train.csv").astype(object)
    for name, value in values.items():
        table.loc[0, name] = value
    table.to_csv(source / "train.csv", index=False)


def test_films_become_a_folder_of_whole_parts_that_holds_the_votes(source: Path, tmp_path: Path) -> None:
    said = convert(source, tmp_path / "root" / "vindr")
    assert said == ("20 films in vindr: 4 test, 10 unlabelled, 1 val, 5 train; 1 films without a finding left out")
    folder = tmp_path / "root" / "vindr"
    parts = {name: json.loads((folder / f"{name}.json").read_text()) for name in ("train", "val", "test", "unlabelled")}
    films = [film["file_name"] for part in parts.values() for film in part["images"]]
    assert len(films) == len(set(films)) == 20 and not parts["unlabelled"]["annotations"]
    first = [one for one in parts["train"]["annotations"] if one["image_id"] == parts["train"]["images"][0]["id"]]
    assert [(one["category_id"], one["votes"], one["bbox"]) for one in first] == [
        (1, 2, [11.0, 10.0, 20.0, 20.0]),
        (4, 1, [20.0, 30.0, 30.0, 25.0]),
    ]
    assert len(parts["train"]["readers"]) == 3 * len(parts["train"]["images"])
    again = convert(source, tmp_path / "again")
    assert again.partition("again")[2] == said.partition("vindr")[2]
    assert (tmp_path / "again" / "split.csv").read_bytes() == (folder / "split.csv").read_bytes()
    with pytest.raises(FileExistsError, match="target must be a new folder"):
        convert(source, folder)


def test_the_sources_own_split_is_kept(source: Path, tmp_path: Path) -> None:
    split = pd.DataFrame({"image_id": [f"film{i:02d}" for i in range(20)], "split": ["train"] * 17 + ["val"] * 3})
    split.to_csv(source / "source_split.csv", index=False)
    assert "3 test, 10 unlabelled, 1 val, 6 train" in convert(source, tmp_path / "vindr")
    test = json.loads((tmp_path / "vindr" / "test.json").read_text())
    assert [film["file_name"] for film in test["images"]] == ["film17.png", "film18.png", "film19.png"]


def test_a_folder_of_films_is_a_data_set_with_boxes_on_what_they_frame(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "vindr", threshold=0.9)  # the readers' boxes stay apart
    dataset = load_dataset("vindr", 80, tmp_path)
    assert (dataset.task, dataset.class_names) == ("multilabel", ("Aortic enlargement", "Cardiomegaly"))
    assert [len(split) for split in dataset.splits.values()] == [5, 1, 4]
    assert dataset.train.labels.tolist() == [[1, 1]] * 5
    for image, boxes in zip(dataset.train.images, boxes_of(dataset.train), strict=True):
        assert boxes.shape == (3, 5) and sorted(boxes[:, 4].tolist()) == [0, 0, 1]
        left, top, right, bottom = (80 * boxes[boxes[:, 4] == 0][:, :4]).round().int().tolist()[0]
        assert image[0, top:bottom, left:right].min() == 255 and image[0, top - 1, left:right].max() < 255
    film = {"width": 60, "height": 80}
    corners = np.array([[10.0, 10.0, 30.0, 30.0]])
    np.testing.assert_allclose(on_square(on_square(corners, film), film, back=True), corners)
    alone = load_dataset("vindr_unlabelled", 80, tmp_path)
    assert len(alone.train) == 10 and not alone.has_labels and alone.fingerprint != dataset.fingerprint
    assert not (alone.train.images[:, None] == dataset.train.images[None]).flatten(2).all(-1).any()  # no film twice
    moved = load_dataset("vindr", 80, tmp_path).train.take([4, 0])
    assert torch.equal(boxes_of(moved)[1], boxes_of(dataset.train)[0])


def test_the_commands_bring_films_in_train_score_and_draw(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # the command's own, for its process

    def say(words: str) -> str:
        monkeypatch.setattr("sys.argv", ["detect.py", *words.split()])
        run_command("detect.py", detect.detect)
        return capsys.readouterr().out

    small = "--size 64 --epochs 1 --films-per-epoch 4 --batch-size 2 --regions 4 --threads 1 --device cpu --no-progress"
    where = f"--root {tmp_path} --results {tmp_path / 'results'}"
    assert "20 films in vindr" in say(f"convert --source {source} --target {tmp_path / 'vindr'}")
    said = say(f"train {small} {where} --max-train-images 4 --test")
    assert said.splitlines()[-1].startswith("trained ") and " · test AP at .4 " in said and "Cardiomegaly" in said
    (folder,) = (tmp_path / "results" / "runs").iterdir()
    assert say(f"score --run {folder} --root {tmp_path} --test").replace("loaded", "trained", 1) == said
    assert say(f"draw --run {folder} --root {tmp_path} --target {tmp_path / 'x.png'}").startswith("drew ")
    with Image.open(tmp_path / "x.png") as picture:
        assert min(picture.size) > 300
    assert json.loads((folder / "metrics.json").read_text())["test_reads"] == 1
    with pytest.raises(SystemExit, match="the first word must be one of convert, train, score, draw, got 'trian'"):
        say("trian")
    with pytest.raises(SystemExit, match="run must be the folder of a trained detector"):
        say(f"score --run {tmp_path}")


def test_boxes_are_part_of_a_data_sets_fingerprint(source: Path, tmp_path: Path) -> None:
    prints = []
    for name, threshold in (("one", 0.4), ("two", 0.9)):
        convert(source, tmp_path / name, threshold)
        prints.append(load_dataset(name, 64, tmp_path).fingerprint)
    assert prints[0] != prints[1]


def test_drawn_films_have_a_box_around_each_part_of_their_masks() -> None:
    split = load_dataset("phantom_multilabel", 64, max_train_images=40, max_eval_images=8).train
    assert split.masks is not None
    for mask, label, boxes in zip(split.masks, split.labels, boxes_of(split), strict=True):
        assert set(boxes[:, 4].int().tolist()) == set(label.nonzero().flatten().tolist())
        framed = torch.zeros_like(mask)
        for left, top, right, bottom, kind in (boxes * torch.tensor([64, 64, 64, 64, 1])).round().int().tolist():
            framed[kind, top:bottom, left:right] = True
            assert mask[kind, top:bottom, left].any() and mask[kind, bottom - 1, left:right].any()
        assert not (mask & ~framed).any()


def test_data_sets_are_joined_without_labels_and_with_patients_apart(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "vindr")
    films, drawn = load_dataset("vindr_unlabelled", 64, tmp_path), load_dataset("phantom", 64, max_train_images=20)
    joined = load_dataset("vindr_unlabelled + phantom", 64, tmp_path, max_train_images=1000)
    assert joined.name == "vindr_unlabelled + phantom" and not joined.has_labels
    assert joined.train.groups is not None and len(joined.train) == 1000
    whole = load_dataset("vindr_unlabelled + phantom", 64, tmp_path)
    assert len(whole.train) == 1410 and torch.equal(whole.train.images[:10], films.train.images)
    assert torch.equal(whole.val.images, films.val.images)
    assert whole.train.groups is not None and len(set(whole.train.groups[:10])) == 10
    assert drawn.train.groups is not None and f"phantom:{drawn.train.groups[0]}" in whole.train.groups


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"class_name": "Aorta"}, "classes of train.csv must be one name for each class_id"),
        ({"class_name": None}, "classes of train.csv must be one name for each class_id"),
        ({"x_min": None}, "boxes of train.csv must be four numbers each"),
        ({"x_min": 100.0, "x_max": 120.0}, "boxes of film film00 must be on the film, 80 x 60 px"),
        ({"width": 81}, "film film00 must be 81 x 60 px by train.csv, got"),
        ({"image_id": "film77"}, "film film77 of train.csv must be in train/, got no image"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_and_nothing_is_written(
    source: Path, tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    change(source, **values)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        convert(source, tmp_path / "vindr")
    assert not list(tmp_path.glob("vindr*"))


def test_a_vote_is_a_readers_not_a_boxs(source: Path, tmp_path: Path) -> None:
    pd.read_csv(source / "train.csv").assign(rad_id="R2").to_csv(source / "train.csv", index=False)
    convert(source, tmp_path / "vindr")
    assert {one["votes"] for one in json.loads((tmp_path / "vindr" / "train.json").read_text())["annotations"]} == {1}


def test_boxes_of_no_use_are_counted(source: Path, tmp_path: Path) -> None:
    change(source, x_max=10.0)
    table = pd.read_csv(source / "train.csv")
    table.loc[1, "x_min"] = -3.0
    table.to_csv(source / "train.csv", index=False)
    said = convert(source, tmp_path / "vindr")
    assert "1 boxes without area left out; 1 boxes cut at the edge of their film" in said


def test_a_damaged_folder_is_refused_in_a_sentence(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "vindr")
    (tmp_path / "vindr" / "unlabelled.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"vindr must hold unlabelled.json, got none"):
        load_dataset("vindr_unlabelled", 64, tmp_path)
    (tmp_path / "vindr" / "train.json").write_text("{}")
    with pytest.raises(ValueError, match="vindr must hold COCO files, got one without"):
        load_dataset("vindr", 64, tmp_path)
    bare = Split(images=torch.zeros(1, 1, 8, 8, dtype=torch.uint8), labels=torch.zeros(1, dtype=torch.int64))
    with pytest.raises(ValueError, match="films must be with boxes or masks"):
        boxes_of(bare)
