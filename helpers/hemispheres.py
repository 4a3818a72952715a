"""What a radiologist removes by eye: the scanner's scale, and the anatomy both sides share.

A stroke lies on one side. The other side shows, at the mirrored place, what the tissue would look
like without it, so the difference of the two is closer to disease than either.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter, grey_dilation


def scale_to_mode(volume: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Scale intensities so that the brain's mode is 0 and its interquartile range is 1 wide.

    The mode is where healthy tissue piles up; unlike a high percentile it does not move when a
    large stroke brightens part of the brain.

    Parameters
    ----------
    volume : ndarray, shape (slices, rows, columns)
        Finite intensities of one patient.
    brain : ndarray of bool, same shape
        Where the mode and the quartiles are taken; zero outside in the result.

    Returns
    -------
    ndarray of float32
        ``(volume - mode) / iqr`` inside the brain, 0 outside.

    Raises
    ------
    ValueError
        For other shapes, an empty brain, or a brain whose middle half has one intensity.

    Examples
    --------
    >>> volume = np.random.default_rng(0).normal(300, 20, (1, 64, 64))
    >>> scaled = scale_to_mode(volume, np.ones(volume.shape, bool))
    >>> bool(abs(np.median(scaled)) < 0.2)
    True
    """
    volume, brain = np.asarray(volume, dtype=np.float32), np.asarray(brain, dtype=bool)
    if volume.shape != brain.shape:
        raise ValueError(f"volume has shape {volume.shape}, brain has {brain.shape}")
    inside = volume[brain]
    if not inside.size:
        raise ValueError("brain must hold at least one voxel, found none")
    low, high = np.percentile(inside, [25, 75])
    if not high > low:
        raise ValueError(f"the brain's quartiles must differ, found {low:g} twice")
    # Bins an eighth of the quartiles' distance wide, smoothed: fine enough, and not ragged.
    edges = np.arange(inside.min(), inside.max() + (high - low) / 8, (high - low) / 8)
    counts = gaussian_filter(np.histogram(inside, edges)[0].astype(float), 1.5, mode="constant")
    mode = edges[counts.argmax()] + (high - low) / 16
    return np.where(brain, (volume - mode) / (high - low), 0).astype(np.float32)


def mirror(volume: np.ndarray) -> np.ndarray:
    """Swap left and right: columns in reverse. The midline must be the middle of the columns.

    Examples
    --------
    >>> mirror(np.array([[[1, 2, 3]]])).tolist()
    [[[3, 2, 1]]]
    """
    return np.asarray(volume)[..., ::-1]


def smooth_in_brain(volume: np.ndarray, brain: np.ndarray, sigma: float) -> np.ndarray:
    """Smooth within each slice, by a Gaussian that does not look beyond the brain.

    Parameters
    ----------
    volume : ndarray, shape (slices, rows, columns)
        Values; what lies outside the brain is not used.
    brain : ndarray of bool, same shape
        The brain.
    sigma : float
        Standard deviation of the Gaussian in voxels; 0 leaves the values as they are.

    Returns
    -------
    ndarray of float32
        Zero outside the brain.

    References
    ----------
    Knutsson and Westin (1993), Normalized and differential convolution, CVPR.

    Examples
    --------
    >>> brain = np.ones((1, 8, 8), bool)
    >>> float(smooth_in_brain(np.full((1, 8, 8), 5.0), brain, 2)[0, 0, 0])
    5.0
    """
    brain = np.asarray(brain, dtype=bool)
    values = np.where(brain, volume, 0).astype(np.float32)
    if not sigma:
        return values
    sigmas = (0, sigma, sigma)
    weight = gaussian_filter(brain.astype(np.float32), sigmas)
    total = gaussian_filter(values, sigmas)
    return np.divide(total, weight, out=np.zeros_like(total), where=brain)


def mirror_excess(volume: np.ndarray, brain: np.ndarray, sigma: float = 2.0) -> np.ndarray:
    """How much brighter each voxel is than its mirror image, after smoothing.

    Parameters
    ----------
    volume : ndarray, shape (slices, rows, columns)
        Intensities, the midline in the middle of the columns.
    brain : ndarray of bool, same shape
        The brain.
    sigma : float
        Smoothing in voxels: no two halves match voxel by voxel.

    Returns
    -------
    ndarray of float32
        Positive where brighter than the other side; zero where either side is not brain.

    Examples
    --------
    A symmetric slice has no excess anywhere:

    >>> half = np.random.default_rng(0).random((1, 8, 4))
    >>> both = np.concatenate([half, half[..., ::-1]], axis=2)
    >>> float(np.abs(mirror_excess(both, np.ones(both.shape, bool))).max()) < 1e-6
    True
    """
    brain = np.asarray(brain, dtype=bool)
    smooth = smooth_in_brain(volume, brain, sigma)
    return np.where(brain & mirror(brain), smooth - mirror(smooth), 0).astype(np.float32)


def unexplained_brightness(
    volume: np.ndarray, brain: np.ndarray, sigma: float = 3.0, reach: int = 6
) -> np.ndarray:
    """How much brighter each voxel is than anything that would explain it.

    Two things explain brightness: that healthy tissue has it anyway, and that the other side has
    it too. The halves of a brain do not match to the voxel, so the other side is allowed its
    brightest value within `reach` of the mirrored place. What is left over is the smaller of the
    two excesses.

    Parameters
    ----------
    volume : ndarray, shape (slices, rows, columns)
        Intensities with healthy tissue around 0, as `scale_to_mode` gives them; the midline in the
        middle of the columns.
    brain : ndarray of bool, same shape
        The brain.
    sigma : float
        Smoothing in voxels before anything is compared.
    reach : int
        How far, in rows and columns, to look around the mirrored place.

    Returns
    -------
    ndarray of float32
        Positive where nothing explains the brightness; 0 outside the brain.

    Examples
    --------
    A spot that has a counterpart two voxels off its mirrored place is explained; alone, it is not:

    >>> brain, volume = np.ones((1, 9, 20), bool), np.zeros((1, 9, 20))
    >>> volume[0, 4, 3] = 1
    >>> float(unexplained_brightness(volume, brain, sigma=0, reach=3).max())
    1.0
    >>> volume[0, 4, 14] = 1
    >>> float(unexplained_brightness(volume, brain, sigma=0, reach=3).max())
    0.0
    """
    brain = np.asarray(brain, dtype=bool)
    smooth = smooth_in_brain(volume, brain, sigma)
    # Outside the brain nothing explains anything: the smallest value never wins a maximum.
    other = mirror(np.where(brain, smooth, smooth.min()))
    explained = grey_dilation(other, size=(1, 2 * reach + 1, 2 * reach + 1))
    return np.where(brain, np.minimum(smooth, smooth - explained), 0).astype(np.float32)
