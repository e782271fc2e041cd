"""Procedural chest radiographs: anatomy, findings and film, drawn in coordinates relative to the image side.

The image is the logarithm of the attenuation along each ray, as a digital film shows it: soft tissue adds, air takes
away, bone and fluid add. The frame runs from -1 to 1 in x (image left to right) and y (top to bottom); lengths are in
half image sides, so a finding looks the same at any size. Image right is the patient's left.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["Array", "Parameters", "draw_anatomy", "draw_texture", "render_chest"]

Array = NDArray[np.float32]
Parameters = dict[str, NDArray[Any]]  # name -> [N, 1, 1], a value per image, or [N, S, S], a place per pixel

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
    """Draw the anatomy of each patient, and breath, pose and film of each image, whose patients 0 … P-1 are given."""
    num_patients = int(patient.max()) + 1
    values = {name: rng.uniform(low, high, num_patients)[patient] for name, (low, high) in _PATIENT.items()}
    values |= {name: rng.uniform(low, high, len(patient)) for name, (low, high) in _IMAGE.items()}
    return {name: value.astype(np.float32)[:, None, None] for name, value in values.items()}


def render_chest(
    p: Parameters, findings: Mapping[str, NDArray[np.bool_]], texture: Array, grain: Array
) -> tuple[Array, dict[str, Array]]:
    """Draw films [B, S, S] in 0 … 255, and the strength of each finding [B, S, S], 0 … 1.

    Args:
        p: `draw_anatomy`'s values and those of the findings, [B, 1, 1].
        findings: name -> [B], which films show it.
        texture: `draw_texture`'s noise.
        grain: [B, S, S] white noise of deviation 1.
    """
    p = p | _place(p, grain.shape[-1])
    inside = np.clip(4 * p["across"] * (1 - p["across"]), 0, 1) * _step(p["depth"] - 0.02, 0.006)
    lung = np.sqrt(inside) * _step(p["diaphragm"] - p["y"], 0.010)
    heart = _silhouette(p)[0]
    strength: dict[str, Array] = {}
    for name, present in findings.items():
        strength[name] = np.zeros_like(lung)
        rows = np.flatnonzero(present)
        if len(rows):
            part = {key: value[rows] for key, value in p.items()}
            strength[name][rows] = _finding(name, part, texture, lung[rows] * (1 - 0.6 * heart[rows]))
    return _film(p, _density(p, lung, heart, strength, texture), grain), strength


def _place(p: Parameters, size: int) -> Parameters:
    """Undo the pose: where each pixel centre lies in the patient, [B, S, S].

    `left` is the patient's, image right; `depth` goes down the lung, 0 at its apex, 1 at its base, `across` from the
    mediastinum, 0, to the chest wall, 1; `diaphragm` is its y.
    """
    centres = ((np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1).astype(np.float32)
    column, row = centres[None, None, :] - p["shift_x"], centres[None, :, None] - p["shift_y"]
    cosine, sine = np.cos(p["rotation"]) / p["scale"], np.sin(p["rotation"]) / p["scale"]
    x, y = (cosine * column + sine * row) * p["aspect"], cosine * row - sine * column
    left, lateral = x > 0, np.abs(x)
    depth = (y - p["lung_top"]) / (p["lung_bottom"] - p["lung_top"])
    medial_edge, lateral_edge = _lung_edges(p, depth)
    across = (lateral - medial_edge) / (lateral_edge - medial_edge)
    dome = p["dome_right"] + p["breath"] + np.where(left, p["dome_drop"], np.float32(0))
    diaphragm = dome + p["dome_curve"] * np.square(np.clip(across, 0, 1.2) - np.float32(0.42))
    return {"x": x, "y": y, "lateral": lateral, "left": left, "depth": depth, "across": across, "diaphragm": diaphragm}


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


def _lung_edges(p: Parameters, depth: Array) -> tuple[Array, Array]:
    """Distance from the midline of the lung's medial and lateral edge at a depth."""
    down = np.clip(depth, 0.002, 1)
    lateral = _APEX_X + (p["lung_width"] - _APEX_X) * np.sqrt(1 - (1 - down) ** 2.8)
    medial = _APEX_X - (_APEX_X - p["medial"]) * np.sqrt(1 - (1 - np.minimum(down / 0.22, 1)) ** 2)
    return medial, lateral


def _bones(p: Parameters) -> Array:
    """Ribs (back: bright, arching; front: faint, falling inwards), clavicles, shoulder blades and spine."""
    y, lateral, across = p["y"], p["lateral"], p["across"]

    def cage(curve: NDArray[np.floating], width: float) -> Array:
        phase = (y - curve) / p["rib_spacing"] + p["rib_phase"]
        distance = np.abs(phase - np.floor(phase) - 0.5) * 2  # 0 in the middle of a rib, 1 between two
        return _step(width - distance, 0.05) + 0.7 * _bump(distance - width, 0.10)

    wall = _step(1.06 - across, 0.02) * _step(lateral - 0.07, 0.02) * _step(p["depth"] + 0.02, 0.02)
    back = cage(p["rib_slope"] * lateral**2 - 0.04 * lateral + 0.06 * y**2, 0.42)
    front = cage(0.55 * (0.85 - lateral) + 0.08 * y**2, 0.38) * _step(lateral - 0.36, 0.05)
    ribs = p["rib_contrast"] * wall * (back + 0.45 * front) * (0.75 + 0.6 * np.clip(across, 0, 1) ** 3)
    ribs *= _step(p["diaphragm"] + 0.20 - y, 0.06)
    off = np.abs(y - (p["clavicle_y"] - p["clavicle_slope"] * lateral + 0.03 * np.sin(6 * lateral)))
    clavicles = p["clavicle"] * (_step(0.036 - off, 0.008) + 0.6 * _bump(off - 0.032, 0.012))
    clavicles *= _step(lateral - 0.06, 0.012) * _step(0.95 - lateral, 0.02)
    border = lateral - 0.70 - 0.10 * (y + 0.5)
    scapulae = p["scapula"] * _step(border, 0.015) * _step(y + 0.72, 0.04)
    scapulae *= _step(-0.02 - 0.6 * border - y, 0.02)
    spine = p["spine"] * _step(0.095 - lateral, 0.012) * (0.8 + 0.2 * np.cos(y * 46))
    return ribs + clavicles + scapulae + spine


def _silhouette(p: Parameters) -> tuple[Array, Array]:
    """The shadow between the lungs (great vessels, aortic knob, heart), 0 … 1, and the heart's part of it."""
    y = p["y"]
    down = (y - p["heart_top"]) / (p["dome_right"] + 0.12 - p["heart_top"])  # 0 … 1 over the heart
    bulge = np.sqrt(np.clip(1 - (2 * np.clip(down, 0, 1) ** 0.8 - 1) ** 2, 0, 1))
    knob, trunk = _bump(y + 0.30, 0.075), _bump(y + 0.13, 0.10)
    left = p["knob"] * (knob + 0.6 * trunk) + p["heart_left"] * bulge * np.sqrt(np.clip(down, 0.05, 1))
    right = 0.03 * trunk + p["heart_right"] * bulge
    shadow = _step(p["medial"] - 0.03 + np.where(p["left"], left, right) - p["lateral"], 0.012)
    return shadow, shadow * _step(down - 0.02, 0.03) * _step(0.98 - down, 0.03)


def _focus(p: Parameters, name: str) -> tuple[Array, Array]:
    """Centre of a finding, placed in a lung by its depth and its way across."""
    depth = p[f"{name}_depth"]
    medial, lateral = _lung_edges(p, depth)
    x = (medial + p[f"{name}_across"] * (lateral - medial)) * np.sign(p[f"{name}_side"])
    return x, p["lung_top"] + depth * (p["lung_bottom"] - p["lung_top"])


def _finding(name: str, p: Parameters, texture: Array, lung: Array) -> Array:
    """How much of a finding each pixel holds, 0 … 1."""
    x, y, across, u, v = p["x"], p["y"], p["across"], p["texture_u"], p["texture_v"]
    if name == "cardiomegaly":
        return _silhouette(p)[1] * _step(p["diaphragm"] + 0.03 - y, 0.012)
    same_side = (np.sign(x) == np.sign(p.get(f"{name}_side", x))).astype(np.float32)
    if name == "effusion":
        level = p["effusion_level"] + p["diaphragm"] - 0.55 * p["effusion_rise"] * np.clip(across, 0, 1) ** 3
        chest = np.minimum(8 * np.clip(across * (1 - across), 0, 1), 1) * _step(p["diaphragm"] + 0.03 - y, 0.008)
        return chest * same_side * _step(y - level, 0.025) * (1 - _silhouette(p)[0])
    if name == "pneumothorax":
        edge = 1 - p["pneumothorax_gap"] * (1.5 - p["depth"])
        return lung * same_side * _step(across - edge, 0.03)
    if name == "nodule":
        centre_x, centre_y = _focus(p, name)
        distance = np.sqrt((x - centre_x) ** 2 + (y - centre_y) ** 2)
        return np.sqrt(np.clip(1 - (distance / p["nodule_radius"]) ** 2, 0, 1)) * np.minimum(lung * 2, 1)
    shape, fluff = _sample(texture, x * 7 + u, y * 7 + v), _sample(texture, x * 20 + v, y * 20 + u)
    if name == "infiltrate":  # patches in both lungs
        return lung * _step(shape + 0.45 * fluff - p["infiltrate_cut"], 0.30)
    centre_x, centre_y = _focus(p, name)  # a lobe: round but for a straight fissure
    radius = np.sqrt(((x - centre_x) / p[f"{name}_width"]) ** 2 + ((y - centre_y) / p[f"{name}_height"]) ** 2)
    blob = _step(1 - radius + 0.18 * shape + 0.10 * fluff, 0.11)
    fissure = _step((centre_y - y + 0.10 * (p["lateral"] - 0.4)) * p[f"{name}_fissure"] + 0.10, 0.012)
    return lung * same_side * blob * fissure


def _density(p: Parameters, lung: Array, heart: Array, strength: Mapping[str, Array], texture: Array) -> Array:
    """Attenuation along each ray, about .2 in the lung and 1 behind the heart."""
    x, y, lateral, nothing = p["x"], p["y"], p["lateral"], np.zeros((1, 1, 1), dtype=np.float32)
    filled = np.clip(strength.get("consolidation", nothing) + strength.get("infiltrate", nothing), 0, 1)
    free_air, fluid = strength.get("pneumothorax", nothing), strength.get("effusion", nothing)

    width = p["body_width"] + 0.5 * _step(-0.45 - y, 0.10)
    body = np.sqrt(np.clip(1 - (lateral / width) ** 2, 0, 1))
    above = y - p["shoulder"] - 0.30 * np.clip(lateral - 0.35, 0, 1) ** 1.5
    body *= np.maximum(_step(above, 0.02), _step(0.30 - lateral, 0.03))
    density = 0.80 * p["thickness"] * body
    breast = (lateral - 0.46) ** 2 / 0.36**2 + (y - p["breast_y"]) ** 2 / 0.30**2
    density += np.maximum(p["breast"], 0) * _step(1 - breast, 0.10)
    bubble = (x - 0.38) ** 2 / 0.17**2 + (y - p["dome_right"] - p["dome_drop"] - 0.20) ** 2 / 0.09**2
    density -= np.maximum(p["gas"], 0) * _step(1 - bubble, 0.16)
    density -= 0.14 * _step(0.040 - np.abs(x), 0.010) * _step(-0.32 - y, 0.03)  # windpipe

    hilum_x, hilum_y = lateral - 0.17, y + 0.02
    far = np.sqrt(hilum_x**2 + hilum_y**2)
    angle = np.arctan2(hilum_y, hilum_x) + np.where(p["left"], np.float32(9), np.float32(0))
    angle += 0.10 * _sample(texture, x * 6 + p["vessel_v"], y * 6 + p["vessel_u"])  # vessels bend
    branches = _sample(texture, angle * 5 + p["vessel_u"], far * 3 + p["vessel_v"])
    vessels = _bump(branches, 0.35) * np.exp(-far / 0.45)

    air = p["air"] * lung * (1 - 0.80 * heart) + p["haze"] * lung
    density -= air * (1 - filled * p["fill"]) * (1 - fluid)
    density += p["heart_density"] * heart * body * _step(p["diaphragm"] + 0.05 - y, 0.03)
    fluff = _sample(texture, x * 26 + p["texture_u"], y * 26 + p["texture_v"])
    marks = p["vessels"] * vessels * (1 - 1.8 * filled) * (1 - free_air) + p["hilum"] * _bump(far, 0.11)
    density += lung * (1 - heart) * (marks + 0.012 * fluff + 0.03 * filled * fluff * p["fill"])
    density += _bones(p) * (1 - 0.5 * fluid) + 0.03 * fluid
    if "pneumothorax" in strength:
        density += 0.18 * (free_air * (lung - free_air) * 4) - 0.10 * free_air
    if "nodule" in strength:
        density += p["nodule_density"] * strength["nodule"]
    return density


def _film(p: Parameters, density: Array, grain: Array) -> Array:
    """Exposure: heel effect, window, tone curve and grain; [B, S, S] in 0 … 255."""
    density = density * (1 + p["tilt_x"] * p["x"] + p["tilt_y"] * p["y"])
    shoulder = np.tanh(np.maximum(density, 0)) * np.float32(1.15)  # a film saturates gently
    toned = shoulder ** p["gamma"] * p["gain"] + p["offset"]
    noise = grain * p["noise"] * min(1.6, np.sqrt(density.shape[-1] / 64))
    return np.clip((toned + noise) * 235 + 8, 0, 255)
