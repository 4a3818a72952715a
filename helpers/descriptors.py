"""A patch in a few dozen numbers: quantiles of maps that show what is bright and why.

Quantiles forget where in the patch a voxel lies, and with it the edge and the folds on which a
network trained on pixels spends its code.
"""

from __future__ import annotations

import numpy as np

from helpers.hemispheres import Midline, smooth_in_brain, unexplained_brightness

#: Shares of a patch's brain voxels at which the quantiles are taken.
SHARES = np.linspace(0.02, 0.98, 8)


def brightness_maps(
    relative: np.ndarray, brain: np.ndarray, midline: Midline | None = None
) -> dict[str, np.ndarray]:
    """Compute four maps of one scan, from what is bright to what is bright without a reason.

    Parameters
    ----------
    relative : ndarray, shape (slices, rows, columns)
        Intensities as `helpers.hemispheres.relative_to_mode` gives them; rows and columns are
        1 mm apart.
    brain : ndarray of bool, same shape
        The brain.
    midline : Midline, optional
        As for `helpers.hemispheres.mirror`.

    Returns
    -------
    dict of str to ndarray of float32, same shape
        ``"brightness"``, smoothed over 1.5 mm; ``"unexplained"``, see
        `helpers.hemispheres.unexplained_brightness`; ``"around, 8 mm"`` and ``"around, 16 mm"``,
        its positive part smoothed over the surroundings.

    Examples
    --------
    >>> brain = np.ones((1, 56, 56), bool)
    >>> sorted(brightness_maps(np.zeros(brain.shape), brain))
    ['around, 16 mm', 'around, 8 mm', 'brightness', 'unexplained']
    """
    unexplained = unexplained_brightness(relative, brain, midline)
    positive = np.maximum(unexplained, 0)
    return {
        "brightness": smooth_in_brain(relative, brain, 1.5),
        "unexplained": unexplained,
        "around, 8 mm": smooth_in_brain(positive, brain, 8),
        "around, 16 mm": smooth_in_brain(positive, brain, 16),
    }


def patch_quantiles(
    values: np.ndarray, inside: np.ndarray, shares: np.ndarray = SHARES
) -> np.ndarray:
    """Take quantiles of each patch over its brain voxels only.

    Parameters
    ----------
    values : ndarray of float, shape (n, height, width)
        Patches of a map.
    inside : ndarray of bool, same shape
        Which voxels count; at least one in each patch.
    shares : ndarray of float, shape (k,)
        Which quantiles, in [0, 1]; the nearest voxel below is taken.

    Returns
    -------
    ndarray of float32, shape (n, k)
        Increasing along each row if the shares are.

    Raises
    ------
    ValueError
        For arrays of different shape, or a patch without a voxel that counts.

    Examples
    --------
    >>> values = np.arange(4.0).reshape(1, 2, 2)
    >>> patch_quantiles(values, values < 3, np.array([0.0, 0.5, 1.0])).tolist()
    [[0.0, 1.0, 2.0]]
    """
    values, inside = np.asarray(values), np.asarray(inside, dtype=bool)
    if values.shape != inside.shape or values.ndim != 3:
        raise ValueError(
            "values and inside must be (n, height, width), found shapes "
            f"{values.shape} and {inside.shape}"
        )
    flat = np.where(inside, values, np.inf).reshape(len(values), -1)
    n_inside = inside.reshape(len(values), -1).sum(axis=1)
    if not n_inside.all():
        raise ValueError(f"{np.sum(n_inside == 0)} patches hold no voxel that counts")
    flat.sort(axis=1)  # what does not count ends up last
    rank = (np.outer(n_inside - 1, shares)).astype(int)
    return np.take_along_axis(flat, rank, axis=1).astype(np.float32)


def patch_means(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Average each patch over its brain voxels; shapes and errors as for `patch_quantiles`.

    Examples
    --------
    >>> values = np.arange(4.0).reshape(1, 2, 2)
    >>> patch_means(values, values < 3).tolist()
    [1.0]
    """
    values, inside = np.asarray(values), np.asarray(inside, dtype=bool)
    n_inside = inside.sum(axis=(1, 2))
    if not n_inside.all():
        raise ValueError(f"{np.sum(n_inside == 0)} patches hold no voxel that counts")
    return (np.sum(values, axis=(1, 2), where=inside) / n_inside).astype(np.float32)
