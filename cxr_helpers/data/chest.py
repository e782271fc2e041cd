"""Procedural chest radiographs: anatomy, findings and film, drawn in coordinates relative to the image side.

The image is the logarithm of the attenuation along each ray, as a digital film shows it: soft tissue adds,
air takes away, bone and fluid add. The frame runs from -1 to 1 in x (image left to right) and y (top to
bottom); lengths below are in half image sides, so a finding looks the same at any size. Image right is the
patient's left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["Array", "Parameters", "draw_anatomy", "draw_texture", "render_chest"]

Array = NDArray[np.float32]
Parameters = dict[str, Array]  # name -> [N, 1, 1], one value per image

_TEXTURE_SIDE = 1024  # a power of two: wrapping is a bit mask
_APEX_X = 0.31  # distance of the lungs' tips from the midline
_TEXTURE_CELL = 16.0  # texture pixels per unit of noise: about one blob


def draw_texture(rng: np.random.Generator) -> Array:
    """Draw a periodic, smooth noise, mean 0 and deviation 1; each image samples it at its own offset."""
    white = rng.standard_normal((_TEXTURE_SIDE, _TEXTURE_SIDE), dtype=np.float32)
    smooth = ndimage.gaussian_filter(white, _TEXTURE_CELL / 2, mode="wrap")
    return ((smooth - smooth.mean()) / smooth.std()).astype(np.float32)


# name -> (low, high): one value per patient, the same in each of the patient's images
_PATIENT = {
    "lung_top": (-0.86, -0.72), "lung_bottom": (0.66, 0.80), "lung_width": (0.74, 0.88),
    "medial": (0.12, 0.18),
    "dome_right": (0.34, 0.46), "dome_drop": (0.02, 0.10), "dome_curve": (0.45, 0.75),
    "body_width": (1.00, 1.18), "thickness": (0.86, 1.12), "shoulder": (-0.98, -0.82),
    "heart_top": (-0.14, -0.04), "heart_left": (0.24, 0.34), "heart_right": (0.04, 0.11),
    "heart_density": (0.00, 0.10), "knob": (0.02, 0.07), "spine": (0.04, 0.10),
    "rib_spacing": (0.155, 0.195), "rib_phase": (0.0, 1.0), "rib_slope": (0.35, 0.60),
    "rib_contrast": (0.05, 0.11),
    "clavicle_y": (-0.62, -0.50), "clavicle_slope": (0.12, 0.30), "clavicle": (0.06, 0.13),
    "scapula": (0.0, 0.10), "breast": (-0.12, 0.10), "breast_y": (0.18, 0.36), "gas": (-0.10, 0.14),
    "vessels": (0.07, 0.14), "vessel_u": (0.0, 64.0), "vessel_v": (0.0, 64.0), "hilum": (0.05, 0.14),
}  # fmt: skip
# one value per image: breath, pose and film differ between two films of the same patient
_IMAGE = {
    "breath": (-0.06, 0.06), "air": (0.44, 0.60), "haze": (-0.05, 0.05),
    "rotation": (-0.12, 0.12), "shift_x": (-0.09, 0.09), "shift_y": (-0.08, 0.08), "scale": (0.88, 1.12),
    "aspect": (0.95, 1.05), "tilt_x": (-0.10, 0.10), "tilt_y": (-0.10, 0.10),
    "gain": (0.80, 1.12), "offset": (-0.06, 0.10), "gamma": (0.75, 1.30), "noise": (0.005, 0.018),
    "texture_u": (0.0, 64.0), "texture_v": (0.0, 64.0),
}  # fmt: skip


def draw_anatomy(rng: np.random.Generator, patient: NDArray[np.int64]) -> Parameters:
    """Draw the anatomy of each patient and the breath, pose and film of each image.

    Args:
        rng: its state decides everything.
        patient: [N] index of each image's patient, 0 … P-1.

    Returns:
        one [N, 1, 1] value per name.
    """
    num_patients = int(patient.max()) + 1
    values = {name: rng.uniform(low, high, num_patients)[patient] for name, (low, high) in _PATIENT.items()}
    values |= {name: rng.uniform(low, high, len(patient)) for name, (low, high) in _IMAGE.items()}
    return {name: value.astype(np.float32)[:, None, None] for name, value in values.items()}


@dataclass(frozen=True, eq=False)
class _Frame:
    """Where each pixel lies in the patient."""

    x: Array  # [B, S, S]
    y: Array
    lateral: Array  # |x|
    left: NDArray[np.bool_]  # the patient's left, image right
    depth: Array  # down the lung, 0 at its apex, 1 at its base
    across: Array  # across the lung, 0 at the mediastinum, 1 at the chest wall
    diaphragm: Array  # y of the diaphragm


def _step(distance: NDArray[np.floating], width: float) -> Array:
    """A soft step from 0 to 1 where distance changes sign; a tanh, which cannot overflow."""
    return (0.5 + 0.5 * np.tanh(distance * (0.5 / width))).astype(np.float32)


def _bump(distance: NDArray[np.floating], width: float) -> Array:
    return np.exp(-((distance / width) ** 2)).astype(np.float32)


def _sample(texture: Array, u: Array, v: Array) -> Array:
    """Look the noise up at (u, v), in units of one blob; it is smooth, so the nearest value will do."""
    columns = (u * _TEXTURE_CELL).astype(np.int32) & (_TEXTURE_SIDE - 1)
    rows = (v * _TEXTURE_CELL).astype(np.int32) & (_TEXTURE_SIDE - 1)
    return texture.ravel()[rows * _TEXTURE_SIDE + columns]


def _lung_edges(p: Mapping[str, Array], depth: Array) -> tuple[Array, Array]:
    """Distance from the midline of the lung's medial and lateral edge at a depth."""
    down = np.clip(depth, 0.002, 1)
    lateral = _APEX_X + (p["lung_width"] - _APEX_X) * np.sqrt(1 - (1 - down) ** 2.8)
    medial = _APEX_X - (_APEX_X - p["medial"]) * np.sqrt(1 - (1 - np.minimum(down / 0.22, 1)) ** 2)
    return medial, lateral


def _place(p: Mapping[str, Array], size: int) -> _Frame:
    """Undo the pose: the patient's coordinates of each pixel centre."""
    centres = ((np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1).astype(np.float32)
    column, row = centres[None, None, :] - p["shift_x"], centres[None, :, None] - p["shift_y"]
    cosine, sine = np.cos(p["rotation"]) / p["scale"], np.sin(p["rotation"]) / p["scale"]
    x = (cosine * column + sine * row) * p["aspect"]
    y = cosine * row - sine * column
    left, lateral = x > 0, np.abs(x)
    depth = (y - p["lung_top"]) / (p["lung_bottom"] - p["lung_top"])
    medial_edge, lateral_edge = _lung_edges(p, depth)
    across = (lateral - medial_edge) / (lateral_edge - medial_edge)
    dome = p["dome_right"] + p["breath"] + np.where(left, p["dome_drop"], np.float32(0))
    diaphragm = dome + p["dome_curve"] * np.square(np.clip(across, 0, 1.2) - np.float32(0.42))
    return _Frame(x, y, lateral, left, depth, across, diaphragm)


def _bones(p: Mapping[str, Array], f: _Frame) -> Array:
    """Ribs (back: bright, arching; front: faint, falling inwards), clavicles, shoulder blades and spine."""
    wall = _step(1.06 - f.across, 0.02) * _step(f.lateral - 0.07, 0.02) * _step(f.depth + 0.02, 0.02)

    def cage(curve: Array, width: float) -> Array:
        phase = (f.y - curve) / p["rib_spacing"] + p["rib_phase"]
        distance = np.abs(phase - np.floor(phase) - 0.5) * 2  # 0 in the middle of a rib, 1 between two
        return _step(width - distance, 0.05) + 0.7 * _bump(distance - width, 0.10)

    back = cage(p["rib_slope"] * f.lateral**2 - 0.04 * f.lateral + 0.06 * f.y**2, 0.42)
    front = cage(0.55 * (0.85 - f.lateral) + 0.08 * f.y**2, 0.38) * _step(f.lateral - 0.36, 0.05)
    ribs = p["rib_contrast"] * wall * (back + 0.45 * front) * (0.75 + 0.6 * np.clip(f.across, 0, 1) ** 3)
    ribs *= _step(f.diaphragm + 0.20 - f.y, 0.06)

    arch = p["clavicle_y"] - p["clavicle_slope"] * f.lateral + 0.03 * np.sin(6 * f.lateral)
    off = np.abs(f.y - arch)
    clavicles = p["clavicle"] * (_step(0.036 - off, 0.008) + 0.6 * _bump(off - 0.032, 0.012))
    clavicles *= _step(f.lateral - 0.06, 0.012) * _step(0.95 - f.lateral, 0.02)
    border = f.lateral - 0.70 - 0.10 * (f.y + 0.5)
    scapulae = p["scapula"] * _step(border, 0.015) * _step(f.y + 0.72, 0.04)
    scapulae *= _step(-0.02 - 0.6 * border - f.y, 0.02)
    vertebrae = 0.8 + 0.2 * np.cos(f.y * 46)
    spine = p["spine"] * _step(0.095 - f.lateral, 0.012) * vertebrae
    return ribs + clavicles + scapulae + spine


def _silhouette(p: Mapping[str, Array], f: _Frame) -> tuple[Array, Array]:
    """The shadow between the lungs (great vessels, aortic knob, heart), 0 … 1, and the heart's part of it."""
    down = (f.y - p["heart_top"]) / (p["dome_right"] + 0.12 - p["heart_top"])  # 0 … 1 over the heart
    bulge = np.sqrt(np.clip(1 - (2 * np.clip(down, 0, 1) ** 0.8 - 1) ** 2, 0, 1))
    knob, trunk = _bump(f.y + 0.30, 0.075), _bump(f.y + 0.13, 0.10)
    left = p["knob"] * (knob + 0.6 * trunk) + p["heart_left"] * bulge * np.sqrt(np.clip(down, 0.05, 1))
    right = 0.03 * trunk + p["heart_right"] * bulge
    inside = p["medial"] - 0.03 + np.where(f.left, left, right) - f.lateral
    shadow = _step(inside, 0.012)
    return shadow, shadow * _step(down - 0.02, 0.03) * _step(0.98 - down, 0.03)


def _focus(p: Mapping[str, Array], name: str) -> tuple[Array, Array]:
    """Centre of a finding, placed in a lung by its depth and its way across."""
    depth = p[f"{name}_depth"]
    medial, lateral = _lung_edges(p, depth)
    x = (medial + p[f"{name}_across"] * (lateral - medial)) * np.sign(p[f"{name}_side"])
    return x, p["lung_top"] + depth * (p["lung_bottom"] - p["lung_top"])


def _finding(name: str, p: Mapping[str, Array], f: _Frame, texture: Array, lung: Array) -> Array:
    """How much of a finding each pixel holds, 0 … 1."""
    u, v = p["texture_u"], p["texture_v"]
    if name == "cardiomegaly":
        return _silhouette(p, f)[1] * _step(f.diaphragm + 0.03 - f.y, 0.012)
    same_side = (np.sign(f.x) == np.sign(p.get(f"{name}_side", f.x))).astype(np.float32)
    if name == "effusion":
        level = p["effusion_level"] + f.diaphragm - 0.55 * p["effusion_rise"] * np.clip(f.across, 0, 1) ** 3
        chest = np.minimum(8 * np.clip(f.across * (1 - f.across), 0, 1), 1) * _step(f.diaphragm + 0.03 - f.y, 0.008)
        return chest * same_side * _step(f.y - level, 0.025) * (1 - _silhouette(p, f)[0])
    if name == "pneumothorax":
        edge = 1 - p["pneumothorax_gap"] * (1.5 - f.depth)
        return lung * same_side * _step(f.across - edge, 0.03)
    if name == "nodule":
        x, y = _focus(p, name)
        distance = np.sqrt((f.x - x) ** 2 + (f.y - y) ** 2)
        return np.sqrt(np.clip(1 - (distance / p["nodule_radius"]) ** 2, 0, 1)) * np.minimum(lung * 2, 1)
    shape = _sample(texture, f.x * 7 + u, f.y * 7 + v)
    fluff = _sample(texture, f.x * 20 + v, f.y * 20 + u)
    if name == "infiltrate":  # patches in both lungs
        return lung * _step(shape + 0.45 * fluff - p["infiltrate_cut"], 0.30)
    x, y = _focus(p, name)  # a lobe: round but for a straight fissure
    radius = np.sqrt(((f.x - x) / p[f"{name}_width"]) ** 2 + ((f.y - y) / p[f"{name}_height"]) ** 2)
    blob = _step(1 - radius + 0.18 * shape + 0.10 * fluff, 0.11)
    fissure = _step((y - f.y + 0.10 * (f.lateral - 0.4)) * p[f"{name}_fissure"] + 0.10, 0.012)
    return lung * same_side * blob * fissure


def _film(p: Mapping[str, Array], f: _Frame, density: Array, grain: Array) -> Array:
    """Exposure: heel effect, window, tone curve and grain; [B, S, S] in 0 … 255."""
    density = density * (1 + p["tilt_x"] * f.x + p["tilt_y"] * f.y)
    shoulder = np.tanh(np.maximum(density, 0)) * np.float32(1.15)  # a film saturates gently
    toned = shoulder ** p["gamma"] * p["gain"] + p["offset"]
    size = density.shape[-1]
    noise = grain * p["noise"] * min(1.6, np.sqrt(size / 64))
    return np.clip((toned + noise) * 235 + 8, 0, 255)


def render_chest(
    p: Parameters,
    findings: Mapping[str, NDArray[np.bool_]],
    texture: Array,
    grain: Array,
) -> tuple[Array, dict[str, Array]]:
    """Draw films.

    Args:
        p: `draw_anatomy`'s values and those of the findings, [B, 1, 1].
        findings: name -> [B], which films show it.
        texture: `draw_texture`'s noise.
        grain: [B, S, S] white noise of deviation 1, as large as the films.

    Returns:
        films [B, S, S] in 0 … 255, and for each finding its strength [B, S, S], 0 … 1 (0 where absent).
    """
    f = _place(p, grain.shape[-1])
    inside = np.clip(4 * f.across * (1 - f.across), 0, 1) * _step(f.depth - 0.02, 0.006)
    lung = np.sqrt(inside) * _step(f.diaphragm - f.y, 0.010)
    heart = _silhouette(p, f)[0]
    strength: dict[str, Array] = {}
    for name, present in findings.items():
        strength[name] = np.zeros_like(lung)
        rows = np.flatnonzero(present)
        if len(rows):
            part = {key: value[rows] for key, value in p.items()}
            frame = _Frame(**{key: value[rows] for key, value in vars(f).items()})
            strength[name][rows] = _finding(name, part, frame, texture, lung[rows] * (1 - 0.6 * heart[rows]))
    return _film(p, f, _density(p, f, lung, heart, strength, texture), grain), strength


def _density(
    p: Mapping[str, Array],
    f: _Frame,
    lung: Array,
    heart: Array,
    strength: Mapping[str, Array],
    texture: Array,
) -> Array:
    """Attenuation along each ray, about .2 in the lung and 1 behind the heart."""
    nothing = np.zeros((1, 1, 1), dtype=np.float32)
    filled = np.clip(strength.get("consolidation", nothing) + strength.get("infiltrate", nothing), 0, 1)
    free_air = strength.get("pneumothorax", nothing)
    fluid = strength.get("effusion", nothing)

    width = p["body_width"] + 0.5 * _step(-0.45 - f.y, 0.10)
    body = np.sqrt(np.clip(1 - (f.lateral / width) ** 2, 0, 1))
    above = f.y - p["shoulder"] - 0.30 * np.clip(f.lateral - 0.35, 0, 1) ** 1.5
    body *= np.maximum(_step(above, 0.02), _step(0.30 - f.lateral, 0.03))
    density = 0.80 * p["thickness"] * body
    breast = (f.lateral - 0.46) ** 2 / 0.36**2 + (f.y - p["breast_y"]) ** 2 / 0.30**2
    density += np.maximum(p["breast"], 0) * _step(1 - breast, 0.10)
    bubble = (f.x - 0.38) ** 2 / 0.17**2 + (f.y - p["dome_right"] - p["dome_drop"] - 0.20) ** 2 / 0.09**2
    density -= np.maximum(p["gas"], 0) * _step(1 - bubble, 0.16)
    density -= 0.14 * _step(0.040 - np.abs(f.x), 0.010) * _step(-0.32 - f.y, 0.03)  # windpipe

    hilum_x, hilum_y = f.lateral - 0.17, f.y + 0.02
    far = np.sqrt(hilum_x**2 + hilum_y**2)
    angle = np.arctan2(hilum_y, hilum_x) + np.where(f.left, np.float32(9), np.float32(0))
    angle += 0.10 * _sample(texture, f.x * 6 + p["vessel_v"], f.y * 6 + p["vessel_u"])  # vessels bend
    branches = _sample(texture, angle * 5 + p["vessel_u"], far * 3 + p["vessel_v"])
    vessels = _bump(branches, 0.35) * np.exp(-far / 0.45)

    air = p["air"] * lung * (1 - 0.80 * heart) + p["haze"] * lung
    air = air * (1 - filled * p["fill"]) * (1 - fluid)
    fluff = _sample(texture, f.x * 26 + p["texture_u"], f.y * 26 + p["texture_v"])
    density -= air
    density += p["heart_density"] * heart * body * _step(f.diaphragm + 0.05 - f.y, 0.03)
    marks = p["vessels"] * vessels * (1 - 1.8 * filled) * (1 - free_air) + p["hilum"] * _bump(far, 0.11)
    density += lung * (1 - heart) * (marks + 0.012 * fluff + 0.03 * filled * fluff * p["fill"])
    density += _bones(p, f) * (1 - 0.5 * fluid) + 0.03 * fluid
    if "pneumothorax" in strength:
        rim = free_air * (lung - free_air) * 4
        density += 0.18 * rim - 0.10 * free_air
    if "nodule" in strength:
        density += p["nodule_density"] * strength["nodule"]
    return density
