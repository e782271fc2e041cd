"""Backbones, where their weights come from and the file they travel in."""

from .backbone import Backbone
from .files import (
    backbone_bytes,
    build_backbone,
    export_run,
    imagenet_state,
    load_backbone,
    require_target,
    save_backbone,
    state_digest,
)
from .vit import SHAPES, ViT, positions
