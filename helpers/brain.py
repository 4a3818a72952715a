"""Find the brain in a diffusion-weighted head with its skull on.

No network and no weights: a threshold that follows the coil's shading, and then the shape. What is
thin is not the brain, and what is left after thinning and hangs together is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from helpers import as_array, yes_or_no

# All lengths in mm. Of a head, 2 mm show what is brain; the skull leaves room for a slip of one.
_STEP = 2.0
_SHADING = 20.0  # over which coils and slices change the brightness of one tissue
_THINNING = 5.0  # nerves, vessels, muscles and scalp are thinner than twice that
_REGROWTH = 10.0  # to the end of the thinnest gyrus
_SULCUS = 10.0  # what is narrower than twice that, between gyri, lies within the brain
_TISSUE = 0.4, 0.5, 0.6  # of the brain's brightness: scalp, CSF, muscle and bone are darker
_HEAD, _PART = (120.0, 1000.0), 4.0  # ml of brain in what is that long, in each mm of a part
_LEAST, _MOST = 20.0, 2200.0  # ml that a brain in a scan, or in a part of one, may measure
_CROWDED = 0.9  # of the volume: a head has air about it


def find_brain(volume: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Find the brain in a diffusion-weighted scan that shows the whole head.

    Bright tissue is thinned until what connects brain, eyes and face is gone; the largest piece
    grows back where tissue is bright, and sulci and ventricles are filled. The intensities' unit
    does not matter, nor does the head's pose. A part of a head will do, without air above or below.

    Parameters
    ----------
    volume : array, shape (z, y, x)
        Diffusion-weighted intensity, 0 or noise in the air.
    spacing : (z, y, x) in millimetres
        Voxel size.

    Returns
    -------
    ndarray of bool, shape (z, y, x)
        The brain, with its sulci and ventricles.

    Raises
    ------
    ValueError
        The volume is not three-dimensional, holds NaN or infinity, or shows no brain; the spacing
        is not three positive lengths.

    Examples
    --------
    >>> z, y, x = np.ogrid[-80:81:2, -80:81:2, -80:81:2]
    >>> radius = np.sqrt(z**2 + y**2 + x**2)  # brain, bone, scalp and air
    >>> head = np.select([radius < 60, radius < 67, radius < 75], [300, 10, 60], 3)
    >>> brain = find_brain(head, (2, 2, 2))
    >>> round(float(np.mean(brain == (radius < 60))), 2)
    1.0
    """
    volume = as_array("volume", volume).astype(np.float32, copy=False)
    spacing = np.asarray(spacing, dtype=float)
    if volume.ndim != 3 or not volume.size or not np.isfinite(volume).all():
        bad = volume.size - np.isfinite(volume).sum()
        raise ValueError(
            f"volume must be finite and of shape (z, y, x), found shape {volume.shape} with {bad} "
            "values NaN or infinite"
        )
    if spacing.shape != (3,) or not (np.isfinite(spacing) & (spacing > 0)).all():
        raise ValueError(f"spacing must be three positive lengths (z, y, x) in mm, found {spacing}")
    coarse = _zoom(_averaged(np.maximum(volume, 0), spacing), volume.shape * spacing / _STEP)
    around = _brightness(coarse)
    if not np.any(around > 0):
        raise ValueError("volume must show a brain, found hardly a voxel above zero")
    # Where bone is hardly darker than scalp, a higher threshold parts the brain from both.
    for share in _TISSUE:
        brain = _main_piece(coarse > share * around)
        ml = brain.sum() * _STEP**3 / 1000
        if ml <= _MOST:
            break
    if ml < _LEAST or brain.mean() > _CROWDED:
        raise ValueError(
            f"volume must show a brain in darker surroundings, found {ml:.3g} ml, "
            f"{brain.mean():.0%} of it, bright and thicker than {2 * _THINNING:g} mm"
        )
    soft = ndimage.gaussian_filter(brain.astype(np.float32), 0.7)
    return _zoom(soft, volume.shape) > 0.5


def _averaged(volume: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Average over what will be one step, so that noise does not pass for tissue."""
    return ndimage.uniform_filter(volume, np.maximum(1, np.rint(_STEP / spacing).astype(int)))


def _zoom(volume: np.ndarray, shape: Sequence[float]) -> np.ndarray:
    factors = np.maximum(1, np.rint(shape)) / volume.shape
    return ndimage.zoom(volume, factors, order=1, mode="nearest", grid_mode=True)


def _brightness(volume: np.ndarray) -> np.ndarray:
    """How bright the brain is about each voxel."""
    # A head holds at least this much brain, and nothing as bright. Half of it may be an infarct.
    # Of a part of one, that may be the chin or the crown with little of it.
    length = len(volume) * _STEP
    least = (_HEAD[1] if length > _HEAD[0] else _PART * length) * 1000 / _STEP**3
    rank = max(volume.size - round(least / 2), volume.size // 2)
    level = np.partition(volume, rank, axis=None)[rank]
    bright = volume > 0.5 * level
    sigma = _SHADING / _STEP
    weight = ndimage.gaussian_filter(bright.astype(np.float32), sigma, truncate=2)
    total = np.where(bright, np.minimum(volume, 1.5 * level), 0)
    total = ndimage.gaussian_filter(total, sigma, truncate=2)
    # In the neck, where hardly anything is bright, the brain at large is the standard.
    return np.clip((total + 0.1 * level) / (weight + 0.1), 0.5 * level, 2 * level)


def _main_piece(tissue: np.ndarray) -> np.ndarray:
    """Keep of bright tissue what is thick and hangs together, with the dark that it encloses."""
    core = _largest_piece(_distance_to(~tissue) > _THINNING)
    piece = _largest_piece(tissue & (_distance_to(core) <= _THINNING + _REGROWTH))
    closed = _closed(piece, _SULCUS)
    # Plane by plane, because a ventricle may be open above and below.
    return np.stack([fill_holes(plane) for plane in closed])


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """Add to a mask what it encloses: SciPy's ``binary_fill_holes``, several times faster.

    Parameters
    ----------
    mask : ndarray of bool, or of 0 and 1, shape (z, y, x) or (y, x)
        A brain with ventricles that are dark.

    Returns
    -------
    ndarray of bool, same shape
        What hangs together with the edge of the array, by faces, is outside and stays so.

    Raises
    ------
    ValueError
        For a mask of anything else.

    Examples
    --------
    >>> fill_holes(np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool)).all()
    np.True_
    """
    mask = yes_or_no("mask", mask)
    # A frame of air makes one piece of all that is outside, the first that is found.
    pieces, _ = ndimage.label(np.pad(~mask, 1, constant_values=True))
    return pieces[(np.s_[1:-1],) * mask.ndim] != 1


def _distance_to(mask: np.ndarray) -> np.ndarray:
    """Distance in mm of each voxel to the nearest one of the mask; beyond the array nothing is."""
    if not mask.any():
        return np.full(mask.shape, np.inf, np.float32)
    distance = sitk.SignedMaurerDistanceMap(
        sitk.GetImageFromArray(mask.astype(np.uint8)), insideIsPositive=False, squaredDistance=False
    )
    return _STEP * np.maximum(sitk.GetArrayFromImage(distance), 0)


def _largest_piece(mask: np.ndarray) -> np.ndarray:
    pieces, _ = ndimage.label(mask)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return mask & (pieces == sizes.argmax())


def _closed(mask: np.ndarray, radius: float) -> np.ndarray:
    """Close what is narrower than two radii. A brain that is cut off goes on above and below."""
    margin = 1 + int(radius // _STEP)
    around = np.pad(mask, ((margin,) * 2, (0, 0), (0, 0)), mode="edge")
    around = np.pad(around, ((0, 0), (margin,) * 2, (margin,) * 2))
    closed = _distance_to(_distance_to(around) > radius) > radius
    inside = slice(margin, -margin)
    return mask | closed[inside, inside, inside]
