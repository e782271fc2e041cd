"""One contract for every method: those of the package, one of somebody's own, and one with draws of its own."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from samples import random_bytes
from torch import Tensor

from cxr_helpers.augment import NUM_DRAWS, POLICIES, Normalisation, draw_patches, draw_rectangles
from cxr_helpers.methods import METHODS, Batch, Method, Target, get_options, load_method
from cxr_helpers.models import SHAPES, ViT
from cxr_helpers.models.resnet import ResNet

BINARY = Target(task="binary", num_outputs=1, positive_weight=torch.tensor([0.5]))
BYOL, ALONE = "examples.byol:BYOL", "shares:Alone"  # a part outside the head; draws of its own
ALL, PRETEXTS = (*METHODS, BYOL, ALONE), ("rotation", "inpainting", "consistency", "mae")
SEE_LESS = ("inpainting", "mae")


def build(name: str, target: Target = BINARY, seed: int = 0, **changes: Any) -> Method:
    """The method on a real ResNet-18, or on the ViT that it wants, its heads made narrow."""
    narrow = {f: 32 for f in vars(get_options(name, {})) if f in ("hidden_dim", "output_dim", "decoder_dim")}
    torch.manual_seed(seed)
    grey, vit = Normalisation((0.5,), (0.5,)), name == "mae"
    backbone = ViT("vit_tiny6", 1, "patch8", grey, 8) if vit else ResNet("resnet18", 1, "imagenet", grey)
    return load_method(name)(backbone, get_options(name, narrow | changes), target)


def batch_for(method: Method, labels: Tensor | None = None, count: int = 4) -> Batch:
    views, generator = method.views(POLICIES["ssl"], 64), torch.Generator().manual_seed(1)
    draws = torch.rand(count, views.num_views, NUM_DRAWS, generator=generator)
    own = torch.rand(count, method.num_draws, generator=generator) if method.num_draws else None
    labels = torch.arange(count) % 2 if labels is None else labels
    images = views(random_bytes(count, 64), draws, generator)
    return Batch(views=images, indices=torch.arange(count), labels=labels, draws=own)


@pytest.mark.parametrize("name", ALL)
def test_every_method_keeps_the_contract_and_an_optimizer_gets_each_parameter_once(name: str) -> None:
    method = build(name)
    batch, seen = batch_for(method), []
    assert len(batch.views) == (1 if name in ("supervised", *PRETEXTS) else 2)
    assert method.needs_labels is (name == "supervised") and (method.classifier() is None) is not method.needs_labels
    method.backbone.register_forward_hook(lambda module, args, output: seen.append(len(args[0])))
    outputs = method(batch)
    copies = {"rotation": 4, "consistency": 2}.get(name, len(batch.views))
    assert seen == [4 * copies] or name in SEE_LESS  # all views pass as one batch
    assert bool(method.val_figures(outputs)) is method.measures_val
    assert outputs["features"].shape == (4, method.backbone.feature_dim)
    assert all(value.shape[:1] == (4,) for value in outputs.values())
    terms = method.loss(outputs)
    assert all(term.ndim == 0 and torch.isfinite(term) for term in terms.values())
    terms["loss"].backward()
    assert [key for key, p in method.named_parameters() if p.requires_grad and p.grad is None] == []
    method.after_step(1, 10)
    groups = method.parameter_groups(weight_decay=0.1, backbone_lr_factor=0.25)
    listed = [id(p) for group in groups for p in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in method.parameters() if p.requires_grad)
    inside = {id(p) for p in method.backbone.parameters()}
    for group in groups:
        assert {p.ndim > 1 for p in group["params"]} == {group["weight_decay"] == 0.1}
        assert {id(p) in inside for p in group["params"]} == {group["lr_factor"] == 0.25}
        assert group["weight_decay"] in (0.0, 0.1) and group["lr_factor"] in (0.25, 1.0)
    if name == "simclr":  # the order decides the last bits of a step
        assert [len(group["params"]) for group in groups] == [20, 40, 2, 3]


@pytest.mark.parametrize("name", ALL)
@torch.no_grad()
def test_every_methods_state_reproduces_its_outputs_and_its_features_are_those_of_the_first_view(name: str) -> None:
    method, other = build(name, seed=0), build(name, seed=1)
    batch = batch_for(method)
    method(batch)  # running statistics of its own
    method.eval(), other.eval()
    expected = method(batch)
    assert not torch.equal(expected["features"], other(batch)["features"])
    other.load_state_dict(method.state_dict())
    for key, value in other(batch).items():
        assert torch.equal(value, expected[key]), key
    if name not in SEE_LESS:
        torch.testing.assert_close(expected["features"], method.encode(batch.views[0]))


@pytest.mark.parametrize("patch", [0, 16])
def test_the_encoder_cannot_see_what_is_hidden_and_only_that_is_scored(patch: int) -> None:
    method: Any = build("inpainting", patch=patch, mask_ratio=0.4, centring=1.0).eval()
    batch = batch_for(method)
    hidden = draw_rectangles(batch.draws, 64, method.options.area_min, method.options.area_max)
    hidden = draw_patches(batch.draws, 64, 0.4, 1.0) if patch else hidden
    (x,) = batch.views
    with torch.no_grad():
        first, (_, painted) = method(batch), method.paint(x, hidden)
        mean, inside = (x * ~hidden).sum((2, 3)) / (~hidden).sum((2, 3)), hidden.sum((1, 2, 3))
        torch.testing.assert_close(method.encode(torch.where(hidden, mean[..., None, None], x)), first["features"])
        torch.testing.assert_close(first["error"], ((painted - x).abs() * hidden).sum((1, 2, 3)) / inside)
        torch.testing.assert_close(first["l1"], first["error"] * 0.5)  # of greys from 0 to 1
        batch.views = (torch.where(hidden, -x, x),)
        torch.testing.assert_close(method(batch)["features"], first["features"])
        maps = method.backbone.stages(torch.where(hidden, mean[..., None, None], x))
        assert not torch.allclose(method.head(maps, ~hidden), painted)  # the decoder is told where


REFUSED: dict[tuple[str, str, Any], str] = {  # method, option, value: what is said
    ("simclrv2", "", 0): f"method must be one of {', '.join(METHODS)} or my_module:Name, got 'simclrv2'",
    ("nowhere:BYOL", "", 0): r"a module that can be imported, got 'nowhere:BYOL' \(No module named",
    ("examples.byol:Byol", "", 0): "a class of examples.byol that is a Method, got 'examples.byol:Byol'",
    (
        "consistency",
        "corruptions",
        "colours",
    ): "corruptions must be among rotations, flips, halves, quadrants, got 'colo",
    ("consistency", "corruptions", ""): "corruptions must be among rotations, flips, halves, quadrants, got ''",
    ("inpainting", "area_max", "0.1"): "area_max must be at least area_min, 0.2, got 0.1",
    ("mae", "mask_ratio", "1"): r"mask_ratio must be above 0 and below 1, got 1\.0",
    ("mae", "decoder_dim", "100"): "decoder_dim must be a multiple of 32, got 100",
    ("simclr", "temperature", 0.0): "temperature must be above 0, got 0.0",
    (BYOL, "momentum", "1.5"): "momentum must be at least 0 and at most 1, got 1.5",
}


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_what_is_mistyped_is_refused_with_what_there_is(case: tuple[str, str, Any]) -> None:
    method, option, value = case
    with pytest.raises(ValueError, match=REFUSED[case]):
        get_options(method, {option: value} if option else {})


TASKS = {"binary": [0, 1, 1, 1], "multiclass": [0, 1, 2, 1], "multilabel": [[0, 1], [1, 1], [0, 0], [1, 0]]}


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("task", TASKS)
def test_the_supervised_loss_is_cross_entropy_with_the_labels_of_every_task(task: Any, smoothing: float) -> None:
    outputs, labels = {"binary": 1, "multiclass": 3, "multilabel": 2}[task], torch.tensor(TASKS[task])
    weight = None if task == "multiclass" else torch.linspace(0.5, 2, outputs)
    target = Target(task=task, num_outputs=outputs, positive_weight=weight)
    method = build("supervised", target, label_smoothing=smoothing)
    result = method(batch_for(method, labels))
    logits = result["logits"].double()
    if weight is None:
        y = F.one_hot(labels, outputs) * (1 - smoothing) + smoothing / outputs
        expected = -(y * logits.log_softmax(1)).sum(1).mean()
    else:
        y, p = labels.reshape(4, outputs) * (1 - smoothing) + smoothing / 2, logits.sigmoid()
        expected = -(weight.double() * y * p.log() + (1 - y) * (1 - p).log()).mean()
    torch.testing.assert_close(method.loss(result)["loss"].double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "blocks"), [("vit_tiny6", 6), ("resnet18", 8)])
def test_layer_decay_gives_each_block_its_part_of_the_next_ones_rate_and_at_1_changes_nothing(
    name: str, blocks: int
) -> None:
    groups: dict[float, list[dict[str, Any]]] = {}
    for decay in (1.0, 0.5):
        grey = Normalisation((0.5,), (0.5,))
        backbone = ViT(name, 1, "patch8", grey, 8) if name in SHAPES else ResNet(name, 1, "imagenet", grey)
        method: Any = load_method("supervised")(backbone, get_options("supervised", {"layer_decay": decay}), BINARY)
        groups[decay] = method.parameter_groups(weight_decay=0.1, backbone_lr_factor=0.1)
    assert len(groups[1.0]) == 4 and {g["lr_factor"] for g in groups[1.0]} == {0.1, 1.0}
    found = {id(p): group for group in groups[0.5] for p in group["params"]}
    assert sum(len(g["params"]) for g in groups[0.5]) == len(found) == sum(p.requires_grad for p in method.parameters())
    for key, p in method.named_parameters():
        if p.requires_grad:
            expected = 1.0 if key.startswith("head") else 0.1 * 0.5 ** (blocks + 1 - backbone.depth(key[9:]))
            assert found[id(p)]["lr_factor"] == pytest.approx(expected)
            assert found[id(p)]["weight_decay"] == (0.1 if p.ndim > 1 else 0.0)


def test_drop_path_is_an_option_of_fine_tuning_that_a_resnet_has_not() -> None:
    method: Any = load_method("supervised")(
        ViT("vit_tiny6", 1, "patch8", Normalisation((0.5,), (0.5,)), 8),
        get_options("supervised", {"drop_path": 0.2}),
        BINARY,
    )
    assert method.backbone.net.blocks[5].drop_path1.drop_prob == 0.2
    with pytest.raises(ValueError, match=r"^drop_path must be 0 for resnet18, .*got 0\.2$"):
        build("supervised", drop_path=0.2)
