"""Augmentation policies are data: what a policy is, and the catalogue."""

from .catalogue import POLICIES, get_policy
from .policy import AugmentationPolicy, Normalisation, Operation, describe, magnitude_fields

__all__ = [
    "POLICIES",
    "AugmentationPolicy",
    "Normalisation",
    "Operation",
    "describe",
    "get_policy",
    "magnitude_fields",
]
