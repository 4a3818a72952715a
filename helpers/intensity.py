"""Intensity: put every scan on the same scale, whatever its scanner's units."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from helpers import as_array, yes_or_no


def normalize_intensity(
    volume: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    percentiles: tuple[float, float] = (0.5, 99.5),
) -> np.ndarray:
    """Map a scan's intensities to [0, 1] between two percentiles of its brain.

    Magnetic resonance intensities have no unit: a gain and an offset differ from scanner to
    scanner. Percentiles undo both, and unlike the minimum and the maximum they are not moved by
    one hot voxel. Taken inside the brain, they do not depend on how much air surrounds it.

    Parameters
    ----------
    volume : array_like of real numbers, any shape
        The scan.
    mask : array_like of bool, the volume's shape, or None
        Where to take the percentiles: the brain. None takes all voxels.
    percentiles : (float, float)
        The two percentiles that become 0 and 1, each from 0 to 100.

    Returns
    -------
    ndarray of float32, the volume's shape
        The same map applied to every voxel, inside the mask and outside, clipped to [0, 1].

    Raises
    ------
    ValueError
        For voxels that are not finite real numbers, for a mask of another shape, with other values
        than 0 and 1, or empty, for two percentiles of equal intensity (a constant brain, or one of
        a single voxel), and for percentiles that do not ascend within 0 to 100.

    References
    ----------
    Nyúl and Udupa (1999), On standardizing the MR image intensity scale, Magnetic Resonance in
    Medicine 42:1072, whose outermost two landmarks these percentiles are.

    Examples
    --------
    >>> normalize_intensity([100, 150, 200, 300], percentiles=(0, 100)).tolist()
    [0.0, 0.25, 0.5, 1.0]
    >>> normalize_intensity([-5, 100, 200, 9000], mask=[0, 1, 1, 0], percentiles=(0, 100)).tolist()
    [0.0, 0.0, 1.0, 1.0]
    """
    percents = _checked_percentiles(percentiles)
    voxels = _finite_voxels(volume)
    brain = voxels.ravel() if mask is None else voxels[_checked_mask(mask, voxels.shape)]
    if brain.size == 0:
        raise ValueError(
            f"mask must hold at least one voxel, found 0 of {voxels.size}: there is no brain"
        )

    with np.errstate(over="ignore", invalid="ignore"):  # told in words just below
        low, high = np.percentile(brain, percents)
        contrast = high - low
    if not 0 < contrast < math.inf:
        # All digits that tell one number from another, and no more.
        first, second, *found = (str(n).removesuffix(".0") for n in (*percents, low, high))
        raise ValueError(
            f"percentiles {first} and {second} of the brain's {brain.size} voxels must be two "
            f"intensities of finite difference, found {' and '.join(found)}"
        )
    # Clipped first, so that both ends come out as exactly 0 and 1.
    return ((np.clip(voxels, low, high) - low) / contrast).astype(np.float32)


def _checked_percentiles(percentiles: tuple[float, float]) -> tuple[float, float]:
    try:
        low, high = (float(percent) for percent in percentiles)
    except (TypeError, ValueError):
        low = high = math.nan
    if not 0 <= low < high <= 100:
        raise ValueError(f"percentiles must be two ascending from 0 to 100, found {percentiles!r}")
    return low, high


def _finite_voxels(volume: ArrayLike) -> np.ndarray:
    voxels = as_array("volume", volume)
    if voxels.dtype.kind not in "buif":
        raise ValueError(f"volume must hold real numbers, found dtype {voxels.dtype}")
    # In double precision, so that no integer overflows and no large offset swallows the contrast.
    with np.errstate(over="ignore"):  # what is too long for it is counted with the infinities
        voxels = voxels.astype(np.float64)
    if n_bad := np.count_nonzero(~np.isfinite(voxels)):
        raise ValueError(
            f"volume must be finite, found {n_bad} of {voxels.size} voxels NaN or infinite"
        )
    return voxels


def _checked_mask(mask: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    mask = as_array("mask", mask)
    if mask.shape != shape:
        raise ValueError(f"mask must have the volume's shape {shape}, found {mask.shape}")
    return yes_or_no("mask", mask)
