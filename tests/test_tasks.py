"""Other questions to the same films: what the labels become, and what stays."""

from dataclasses import replace

import pytest
import torch
from conftest import texture_dataset

from cxr_helpers.data import Dataset, load_dataset
from cxr_helpers.data.tasks import relabel


def films(*rows: list[int]) -> Dataset:
    """A set with the findings heart, pneumonia and fluid, whose first train films are labelled so."""
    data = texture_dataset("multilabel")
    labels = data.train.labels.clone()
    labels[: len(rows)] = torch.tensor(rows).view(-1, 3)
    return replace(data, class_names=("heart", "pneumonia", "fluid"), train=replace(data.train, labels=labels))


def test_a_film_is_ill_with_any_finding_and_has_pneumonia_before_others() -> None:
    data = films([0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 1], [0, 0, 1], [-1, -1, -1])
    anomaly, pneumonia = relabel(data, "anomaly"), relabel(data, "pneumonia")
    assert anomaly.train.labels[:6].tolist() == [0, 1, 1, 1, 1, -1] and anomaly.task == "binary"
    assert pneumonia.train.labels[:6].tolist() == [0, 2, 1, 1, 2, -1] and pneumonia.task == "multiclass"
    assert pneumonia.class_names == ("no finding", "pneumonia", "other")


@pytest.mark.parametrize("task", ["anomaly", "pneumonia"])
def test_films_patients_and_splits_stay(task: str) -> None:
    few = {"max_train_images": 40, "max_eval_images": 30}
    asked, data = (load_dataset(name, 32, **few) for name in (f"phantom_multilabel_{task}", "phantom_multilabel"))
    assert asked.name == f"phantom_multilabel_{task}" and asked.fingerprint != data.fingerprint
    for name, split in asked.splits.items():
        assert torch.equal(split.images, data.splits[name].images)
        assert (split.groups == data.splits[name].groups).all()
        assert torch.equal(split.labels > 0, data.splits[name].labels.any(dim=1))
    assert "of the 5 labels of phantom_multilabel" in asked.provenance["notes"][-1]


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(ValueError, match="task must be one of anomaly, pneumonia, got 'tumour'"):
        relabel(films(), "tumour")
    with pytest.raises(ValueError, match="textures must be multi-label to be relabelled, got 'binary'"):
        relabel(texture_dataset(), "anomaly")
    with pytest.raises(ValueError, match="labels of textures must be with pneumonia"):
        relabel(texture_dataset("multilabel"), "pneumonia")
