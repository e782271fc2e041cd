"""Backbones, where their weights come from and the file they travel in."""

from .backbones import Backbone, backbone_bytes, build_backbone, imagenet_state, load_backbone, state_digest

__all__ = [
    "Backbone",
    "backbone_bytes",
    "build_backbone",
    "imagenet_state",
    "load_backbone",
    "state_digest",
]
