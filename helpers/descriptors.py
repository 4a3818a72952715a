"""A patch in a few dozen numbers: quantiles of maps that show what is bright and why.

Quantiles forget where in the patch a voxel lies, and with it the edge and the folds on which a
network trained on pixels spends its code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from helpers.hemispheres import (
    Midline,
    find_midline,
    mirror_excess,
    relative_to_mode,
    smooth_in_brain,
    unexplained_brightness,
)
from helpers.intensity import normalize_intensity
from helpers.patches import extract_patches
from helpers.scans import Scan

#: Shares of a patch's brain voxels at which the quantiles are taken.
SHARES = np.linspace(0.02, 0.98, 8)


@dataclass(frozen=True, eq=False)
class Descriptors:
    """What is known of each patch of one or more scans, a row a patch.

    Attributes
    ----------
    quantiles : ndarray of float32, shape (n, 32)
        Eight quantiles of each of the four `brightness_maps`; the inverse hyperbolic sine has
        tamed their bright tail.
    percentile, excess, unexplained, around : ndarray of float32, shape (n,)
        One number a patch: 95th percentile of the normalised intensity and of the mirror excess;
        mean unexplained brightness in the patch, and around it within 16 mm.
    locations : ndarray of int, shape (n, 3)
        Slice, row and column of each patch's first voxel.
    lesion_fraction, brain_fraction : ndarray of float32, shape (n,)
        Share of each patch's voxels inside the mask; NaN where there is none.
    subject_ids : ndarray of str, shape (n,)
        The patient each patch comes from.
    """

    quantiles: np.ndarray
    percentile: np.ndarray
    excess: np.ndarray
    unexplained: np.ndarray
    around: np.ndarray
    locations: np.ndarray
    lesion_fraction: np.ndarray
    brain_fraction: np.ndarray
    subject_ids: np.ndarray

    def __len__(self) -> int:
        return len(self.quantiles)

    @staticmethod
    def concatenate(parts: Sequence[Descriptors]) -> Descriptors:
        """Join the descriptors of several scans."""
        names = [field.name for field in fields(Descriptors)]
        return Descriptors(
            **{name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        )


def describe(
    scan: Scan,
    patch: int = 28,
    *,
    offsets: Sequence[tuple[int, int]] = ((0, 0),),
    min_brain: float = 0.25,
    midline: Midline | None = None,
) -> Descriptors:
    """Describe every patch of one scan, without looking at any other patient or at its lesion.

    Parameters
    ----------
    scan : Scan
        Rows and columns 1 mm apart.
    patch : int
        Rows and columns of a patch.
    offsets : sequence of (int, int)
        First row and column of each grid of patches; several make overlapping patches.
    min_brain : float
        Patches with a smaller share of brain are left out.
    midline : Midline, optional
        Where to put the mirror, if that is known; it is found otherwise.

    Returns
    -------
    Descriptors
        Grid after grid, each in the order of `helpers.patches.extract_patches`; no row at all if
        no patch holds brain.

    Examples
    --------
    >>> brain = np.ones((2, 56, 56), bool)
    >>> dwi = np.random.default_rng(0).uniform(1, 2, brain.shape).astype(np.float32)
    >>> describe(Scan("a", dwi, None, brain, (5, 1, 1))).quantiles.shape
    (8, 32)
    """
    if midline is None:
        midline = find_midline(scan.dwi, scan.brain, scan.spacing)
    # Far from the brain there is nothing to compute.
    box = tuple(slice(i.min(), i.max() + 1) for i in np.nonzero(scan.brain))
    brain = scan.brain[box]
    midline = midline.seen_from([i.start for i in box])
    relative = relative_to_mode(scan.dwi[box], brain)
    maps = brightness_maps(relative, brain, midline)
    maps["plain"] = normalize_intensity(scan.dwi[box], mask=brain)
    maps["excess"] = mirror_excess(maps["plain"], brain, midline)

    def whole(values):
        volume = np.zeros(scan.brain.shape, values.dtype)
        volume[box] = values
        return volume

    maps = {name: whole(values) for name, values in maps.items()}
    grids = [_describe_grid(scan, maps, patch, offset, min_brain) for offset in offsets]
    return Descriptors.concatenate(grids)


def _describe_grid(scan, maps, patch, offset, min_brain) -> Descriptors:
    def cut(volume, **masks):
        return extract_patches(volume[:, offset[0] :, offset[1] :], (patch, patch), **masks)

    lesion = None if scan.lesion is None else scan.lesion[:, offset[0] :, offset[1] :]
    grid = cut(scan.brain, lesion_mask=lesion, subject_id=scan.subject_id)
    brain_fraction = grid.patches.mean(axis=(1, 2), dtype=np.float32)
    kept = brain_fraction >= min_brain
    inside = grid.patches[kept]
    pixels = {name: cut(volume).patches[kept] for name, volume in maps.items()}
    quantiles = [
        patch_quantiles(pixels[name], inside)
        for name in ("brightness", "unexplained", "around, 8 mm", "around, 16 mm")
    ]
    return Descriptors(
        # 12: the knee between straight and logarithmic lies at 8 % above ordinary brightness.
        quantiles=np.arcsinh(12 * np.hstack(quantiles)),
        percentile=patch_quantiles(pixels["plain"], inside, np.array([0.95]))[:, 0],
        excess=patch_quantiles(pixels["excess"], inside, np.array([0.95]))[:, 0],
        unexplained=patch_means(np.maximum(pixels["unexplained"], 0), inside),
        around=patch_means(pixels["around, 16 mm"], inside),
        locations=grid.locations[kept] + (0, *offset),
        lesion_fraction=grid.lesion_fraction[kept],
        brain_fraction=brain_fraction[kept],
        subject_ids=grid.subject_ids[kept],
    )


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
    values, inside, n_inside = _checked(values, inside)
    flat = np.where(inside, values, np.inf).reshape(len(values), math.prod(values.shape[1:]))
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
    values, inside, n_inside = _checked(values, inside)
    return (np.sum(values, axis=(1, 2), where=inside) / n_inside).astype(np.float32)


def _checked(values, inside) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    values, inside = np.asarray(values), np.asarray(inside, dtype=bool)
    if values.shape != inside.shape or values.ndim != 3:
        raise ValueError(
            "values and inside must be (n, height, width), found shapes "
            f"{values.shape} and {inside.shape}"
        )
    n_inside = inside.sum(axis=(1, 2))
    if not n_inside.all():
        raise ValueError(f"{np.sum(n_inside == 0)} patches hold no voxel that counts")
    return values, inside, n_inside
