"""Body parts of the phantom pictures. Each painter fills the canvas and returns where the finding is.

Crude on purpose: each finding changes the pixels in a way of its own, so that a small model can tell it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from harness.datasets.phantom.canvas import Canvas, Mask, Spot

NOWHERE: Spot = (0.0, 0.0)
HEAD_VALUES = {  # grey value of: brain, ventricle, hemorrhage, infarct, mass, edema
    "CT": (0.42, 0.25, 0.85, 0.15, 0.65, 0.22),
    "T1": (0.55, 0.15, 0.95, 0.25, 0.80, 0.30),
    "T2": (0.40, 0.95, 0.10, 0.70, 0.80, 0.85),
    "PET": (0.45, 0.20, 0.00, 0.00, 0.00, 0.00),
}


def head(c: Canvas) -> Spot:
    """An axial section through the skull, seen from below."""
    modality = c.factors.modality
    brain_value, ventricle, *_ = HEAD_VALUES[c.factors.weighting if modality == "MRI" else modality]
    width = 0.62 * (1 + c.jitter(0.06))
    brain = c.ellipse(0, 0, width, 0.80)
    if modality == "CT":
        c.pixels[c.ellipse(0, 0, width + 0.08, 0.88)] = 0.95
    elif modality == "MRI":
        c.pixels[c.ellipse(0, 0, width + 0.12, 0.92)] = 0.60  # scalp
        c.pixels[c.ellipse(0, 0, width + 0.08, 0.88)] = 0.12  # bone has no signal
    grain = {"CT": 0.03, "MRI": 0.06, "PET": 0.12}[modality]
    c.pixels[brain] = (brain_value + grain * c.texture(14))[brain]
    for k in (-1, 1):
        c.pixels[c.ellipse(0.13 * k, -0.05, 0.06, 0.24, 0.25 * k)] = ventricle
    if c.factors.finding == "none":
        return NOWHERE
    return head_lesion(c, brain)


def head_lesion(c: Canvas, brain: Mask) -> Spot:
    """Bright pool, dark wedge, ring, soft patch or hot spot in one hemisphere."""
    modality, finding, r = c.factors.modality, c.factors.finding, c.radius
    *_, blood, dead, tumour, wet = HEAD_VALUES[c.factors.weighting if modality == "MRI" else modality]
    spot = (c.sign * (0.33 + c.jitter(0.04)), c.jitter(0.30))
    if finding == "hemorrhage":
        c.pixels[c.ellipse(*spot, r, r * (1 + c.jitter(0.2)), c.jitter(1)) & brain] = blood
    elif finding == "infarct":  # a vessel's territory: a sector that reaches the skull
        angle = np.arctan2(c.y - spot[1], c.x * c.sign - 0.12)
        c.pixels[(np.abs(angle) < 0.35 + r) & (c.x * c.sign > 0.16) & brain] = dead
    elif finding == "mass":
        c.pixels[c.disc(spot, r * 1.15) & brain] = tumour
        c.pixels[c.disc(spot, r * 0.6) & brain] = tumour * 0.3
    elif finding == "edema":
        distance = ((c.x - spot[0]) ** 2 + (c.y - spot[1]) ** 2) / (r * 1.5) ** 2
        share = np.exp(-distance)[brain]
        c.pixels[brain] = c.pixels[brain] * (1 - share) + wet * share
    else:  # metastasis
        c.pixels[c.disc(spot, r) & brain] = 1.0
    return spot


def ct_body(c: Canvas) -> None:
    """Fat, muscle and a vertebra."""
    depth = 1 + c.jitter(0.06)
    c.pixels[c.ellipse(0, 0, 0.92, 0.66 * depth)] = 0.30
    c.pixels[c.ellipse(0, 0, 0.84, 0.58 * depth)] = 0.48
    c.pixels[c.ellipse(0, 0.42, 0.13, 0.12)] = 0.95


def ct_chest(c: Canvas) -> Spot:
    """An axial section: two lungs and the heart. The back lies at the bottom."""
    ct_body(c)
    for k in (-1, 1):
        c.pixels[c.ellipse(0.42 * k, -0.02, 0.32, 0.42)] = 0.10
    c.pixels[c.ellipse(0.08, -0.08, 0.20, 0.24)] = 0.55
    finding, s = c.factors.finding, c.sign
    lung = c.ellipse(0.42 * s, -0.02, 0.32, 0.42)
    if finding == "effusion":  # water sinks to the back
        c.pixels[lung & (c.y > 0.14 + c.jitter(0.05))] = 0.50
        return (s * 0.45, 0.28)
    if finding == "pneumothorax":  # air rises to the front, the lung shrinks
        c.pixels[lung] = 0.0
        c.pixels[c.ellipse(0.38 * s, 0.16, 0.24, 0.22 + c.jitter(0.03))] = 0.28
        return (s * 0.45, -0.25)
    spot = (s * (0.46 + c.jitter(0.06)), c.jitter(0.18))
    if finding == "nodule":
        c.pixels[c.disc(spot, c.radius * 0.65)] = 0.75
    elif finding == "pneumonia":
        zone = c.disc(spot, 0.22) & lung
        c.pixels[zone] = (0.36 + 0.10 * c.texture(20))[zone]
    return spot


def ct_abdomen(c: Canvas) -> Spot:
    """An axial section: liver on the patient's right, two kidneys."""
    ct_body(c)
    c.pixels[c.ellipse(-0.42, -0.12, 0.36, 0.34)] = 0.62
    for k in (-1, 1):
        c.pixels[c.ellipse(0.45 * k, 0.26, 0.12, 0.18)] = 0.80
    finding, s = c.factors.finding, c.sign
    spot = (s * 0.45, 0.26)
    if finding == "mass":
        spot = (-0.42 + c.jitter(0.1), -0.12 + c.jitter(0.08))
        c.pixels[c.disc(spot, c.radius)] = 0.36
    elif finding == "cyst":  # sits on the kidney's outer border
        spot = (s * (0.55 + c.jitter(0.03)), 0.16)
        c.pixels[c.disc(spot, c.radius)] = 0.20
    elif finding == "hydronephrosis":
        c.pixels[c.ellipse(*spot, 0.15, 0.21)] = 0.80
        c.pixels[c.ellipse(s * 0.42, 0.26, 0.09, 0.14)] = 0.22
    elif finding == "stone":
        spot = (s * 0.43, 0.26 + c.jitter(0.06))
        c.pixels[c.ellipse(s * 0.43, 0.26, 0.06, 0.12)] = 0.55
        c.pixels[c.disc(spot, 0.055)] = 1.0
    return spot


def mr_spine(c: Canvas) -> Spot:
    """A sagittal section: vertebrae, discs, spinal canal."""
    t1 = c.factors.weighting == "T1"
    bone, disc, fluid = (0.55, 0.30, 0.15) if t1 else (0.42, 0.70, 0.90)
    c.pixels[:] = 0.20 + 0.05 * c.texture(8)
    curve = np.float32(0.10) * np.sin(np.float32(2.2) * c.y + np.float32(c.jitter(0.3)))
    column = np.abs(c.x - curve + 0.10) < 0.19
    for level in np.linspace(-0.80, 0.80, 6):
        c.pixels[(np.abs(c.y - level) < 0.12) & column] = bone
        c.pixels[(np.abs(c.y - level - 0.16) < 0.035) & column] = disc
    c.pixels[np.abs(c.x - curve - 0.20) < 0.07] = fluid
    c.pixels[np.abs(c.x - curve - 0.20) < 0.03] = 0.50
    if c.factors.finding == "fracture":  # one flattened vertebra
        spot = (-0.10, -0.80 + 0.32 * float(c.rng.integers(1, 5)))
        c.pixels[(np.abs(c.y - spot[1]) < 0.13) & column] = 0.05
        c.pixels[(np.abs(c.y - spot[1] - 0.06) < 0.05) & column] = bone
        return spot
    spot = (0.12, c.jitter(0.4))
    if c.factors.finding == "mass":
        c.pixels[c.ellipse(*spot, c.radius * 0.9, c.radius * 1.1)] = 0.98
    return spot


def xray_chest(c: Canvas) -> Spot:
    """A frontal projection: lungs, ribs, spine, heart."""
    c.pixels[:] = 0.55 + 0.2 * c.y
    c.pixels[c.ellipse(0, 0.15, 0.95, 1.15)] += 0.12
    for k in (-1, 1):
        c.pixels[c.ellipse(0.42 * k, -0.02, 0.34, 0.66)] = 0.22
        ribs = np.abs((c.y - 0.22 * (c.x * k - 0.4) ** 2 + 0.62) % 0.19) < 0.036
        c.pixels[ribs & c.ellipse(0.42 * k, -0.02, 0.36, 0.68)] += 0.14
    c.pixels[np.abs(c.x) < 0.07] = 0.75
    heart = 0.46 if c.factors.finding == "cardiomegaly" else 0.22
    c.pixels[c.ellipse(0.12, 0.30, heart, 0.30 + (heart - 0.22) / 3)] = 0.80
    return xray_lung_finding(c)


def xray_lung_finding(c: Canvas) -> Spot:
    """Fluid level, missing lung markings, cloud or spot in one lung."""
    finding, s = c.factors.finding, c.sign
    lung = c.ellipse(0.42 * s, -0.02, 0.34, 0.66)
    if finding == "effusion":
        c.pixels[lung & (c.y > 0.26 + c.jitter(0.06) - 0.3 * (c.x * s - 0.42))] = 0.88
        return (s * 0.50, 0.40)
    if finding == "pneumothorax":
        c.pixels[lung] = 0.03
        c.pixels[c.ellipse(0.27 * s, 0.05, 0.17, 0.40 + c.jitter(0.05))] = 0.42
        return (s * 0.58, -0.25)
    if finding == "pneumonia":
        spot = (s * 0.44, 0.05 + c.jitter(0.2))
        zone = c.disc(spot, 0.26) & lung
        c.pixels[zone] = (0.58 + 0.08 * c.texture(16))[zone]
        return spot
    if finding == "nodule":
        spot = (s * (0.45 + c.jitter(0.08)), -0.15 + c.jitter(0.25))
        c.pixels[c.disc(spot, c.radius * 0.7)] = 0.85
        return spot
    return (0.30, 0.30)


def xray_limb(c: Canvas) -> Spot:
    """Two bones of equal width in the arm, a thick and a thin one in the leg."""
    wide = 0.42 * (1 + c.jitter(0.06))
    c.pixels[:] = 0.08
    c.pixels[np.abs(c.x) < wide] = 0.28
    bones = ((-0.13, 0.075), (0.13, 0.075)) if c.factors.region == "arm" else ((-0.06, 0.14), (0.22, 0.05))
    spot = (bones[0][0], c.jitter(0.5))
    broken = c.factors.finding == "fracture"
    below = (c.y > spot[1]) if broken else np.zeros_like(c.y, dtype=np.bool_)
    for centre, half in bones:
        shift = np.where(below & (centre == bones[0][0]), np.float32(-0.07), np.float32(0))
        edge = half * (1 + 0.5 * np.abs(c.y) ** 3)
        c.pixels[np.abs(c.x - centre - shift - 0.04 * np.sin(2 * c.y)) < edge] = 0.85
    if broken:
        gap = np.abs(c.y - spot[1] - 0.3 * (c.x - spot[0])) < 0.04
        c.pixels[gap & (c.x < bones[0][0] + 0.2) & (np.abs(c.x) < wide)] = 0.22
    return spot


def ultrasound(c: Canvas) -> Spot:
    """A sector with speckle; the probe is at the top."""
    angle, depth = np.arctan2(c.x, c.y + 1.05), np.hypot(c.x, c.y + 1.05)
    c.pixels[:] = 0.38 + 0.08 * c.texture(10)
    if c.factors.region == "liver":
        organ = c.ellipse(0, 0.1, 0.7, 0.7)
        c.pixels[organ] = (0.45 + 0.05 * c.texture(24))[organ]
    elif c.factors.region == "kidney":
        c.pixels[c.ellipse(0, 0.1, 0.58, 0.32, 0.15)] = 0.22
        c.pixels[c.ellipse(0, 0.1, 0.32, 0.13, 0.15)] = 0.75
    else:
        c.pixels[c.ellipse(0, 0.05, 0.40, 0.24, -0.3)] = 0.03
    spot = ultrasound_finding(c)
    fan = (np.abs(angle) < 0.62) & (depth > 0.18) & (depth < 1.95)
    speckle = c.rng.rayleigh(0.80, c.pixels.shape).astype(np.float32)
    c.pixels[:] = np.where(fan, c.pixels * speckle * (1.12 - 0.28 * depth), 0)
    return spot


def ultrasound_finding(c: Canvas) -> Spot:
    """Fluid is black with a brighter zone behind it; a stone is bright with a shadow behind it."""
    finding, r = c.factors.finding, c.radius
    spot = (c.jitter(0.25), 0.1 + c.jitter(0.12))
    if finding == "cyst":
        c.pixels[c.disc(spot, r)] = 0.02
        c.pixels[(np.abs(c.x - spot[0]) < r * 0.8) & (c.y > spot[1] + r)] += 0.25
    elif finding == "mass":
        c.pixels[c.disc(spot, r)] = 0.85
    elif finding == "hydronephrosis":
        spot = (0.0, 0.1)
        c.pixels[c.ellipse(*spot, 0.36, 0.17, 0.15)] = 0.02
    elif finding in ("stone", "gallstone"):
        spot = (c.jitter(0.15), 0.12)
        c.pixels[(np.abs(c.x - spot[0]) < 0.07) & (c.y > spot[1])] = 0.04
        c.pixels[c.ellipse(*spot, 0.09, 0.05)] = 1.0
    return spot


def angiogram(c: Canvas) -> Spot:
    """A dark contrast-filled tree on a bright ground, on the side of the vessel."""
    size, finding = c.size, c.factors.finding
    ground = np.clip(0.70 + 0.05 * c.texture(8), 0, 1) * 255
    image = Image.fromarray(ground.astype(np.uint8))
    pen = ImageDraw.Draw(image)
    width = size * 0.06
    trunk = branch(c, pen, (size * (0.5 + 0.22 * c.sign), size * 0.06), 1.57, size * 0.42, width, 3)
    x, y = trunk[4]
    if finding == "aneurysm":
        r = size * c.radius / 2
        pen.ellipse((x - r + width / 2, y - r, x + r + width / 2, y + r), fill=35)
    elif finding == "stenosis":
        for edge in (x - width * 0.55, x + width * 0.55):
            pen.line([(edge, y - width), (edge, y + width)], fill=178, width=int(width * 0.8))
    c.pixels[:] = np.asarray(image, np.float32) / 255
    return (2 * x / size - 1, 2 * y / size - 1)


def branch(
    c: Canvas, pen: ImageDraw.ImageDraw, start: Spot, angle: float, length: float, width: float, depth: int
) -> list[Spot]:
    """A winding vessel that splits in two `depth` times; returns the points of its first part."""
    x, y = start
    points = [start]
    for _ in range(8):
        angle += c.jitter(0.18)
        x, y = x + float(np.cos(angle)) * length / 8, y + float(np.sin(angle)) * length / 8
        points.append((x, y))
    pen.line(points, fill=40, width=max(1, int(width)))
    if depth:
        for turn in (0.5, -0.5):
            branch(c, pen, (x, y), angle + turn, length * 0.7, width * 0.65, depth - 1)
    return points


PAINTERS: dict[tuple[str, str], Callable[[Canvas], Spot]] = {
    ("CT", "chest"): ct_chest,
    ("CT", "abdomen"): ct_abdomen,
    ("CT", "brain"): head,
    ("X-ray", "chest"): xray_chest,
    ("X-ray", "leg"): xray_limb,
    ("X-ray", "arm"): xray_limb,
    ("MRI", "brain"): head,
    ("MRI", "spine"): mr_spine,
    ("Ultrasound", "liver"): ultrasound,
    ("Ultrasound", "kidney"): ultrasound,
    ("Ultrasound", "gallbladder"): ultrasound,
    ("Angiography", "carotid"): angiogram,
    ("PET", "brain"): head,
}
