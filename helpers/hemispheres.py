"""What a radiologist removes by eye: the scanner's scale, and the anatomy both sides share.

A stroke lies on one side. The other side shows, at the mirrored place, what the tissue would look
like without it, so the difference of the two is closer to disease than either. At the end of the
file, a patch is described by these maps in a few dozen numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import (
    gaussian_filter,
    gaussian_filter1d,
    grey_dilation,
    map_coordinates,
)
from scipy.optimize import minimize

from helpers import as_array, yes_or_no
from helpers.intensity import normalize_intensity
from helpers.patches import extract_patches
from helpers.scans import Scan

# How far a head may be tilted (tangents, about 22 degrees) and lie off centre (in 10 mm).
BOUNDS = ((-0.4, 0.4), (-0.4, 0.4), (-3, 3))


@dataclass(frozen=True)
class Midline:
    """The plane between the hemispheres: all places p with ``normal · p == offset``.

    Attributes
    ----------
    normal : (float, float, float)
        Unit vector (z, y, x), pointing to the patient's left.
    offset : float
        Distance of the plane from the first voxel's centre along the normal, in mm.
    spacing : (float, float, float)
        Voxel size (z, y, x) in mm.
    """

    normal: tuple[float, float, float]
    offset: float
    spacing: tuple[float, float, float]

    def seen_from(self, first_voxel: Sequence[int]) -> Midline:
        """Return the same plane for a part of the volume that begins at `first_voxel`."""
        moved = float(np.dot(np.multiply(first_voxel, self.spacing), self.normal))
        return replace(self, offset=self.offset - moved)


def relative_to_mode(volume: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Tell how much brighter each voxel is than the brain's commonest intensity, its mode.

    The mode is where healthy tissue piles up; unlike a mean or a high percentile it does not move
    when a large stroke brightens part of the brain. What is darker than half of the brain's median
    is taken for fluid, and is not asked.

    Parameters
    ----------
    volume : ndarray, shape (slices, rows, columns)
        Finite intensities of one patient, 0 meaning no signal.
    brain : ndarray of bool, same shape
        Where the mode is taken; zero outside in the result.

    Returns
    -------
    ndarray of float32
        ``volume / mode - 1`` inside the brain: 0 is ordinary tissue, 1 is twice as bright.

    Raises
    ------
    ValueError
        For other shapes, an empty brain, one intensity throughout, or a mode that is not positive.

    Examples
    --------
    >>> volume = np.random.default_rng(0).normal(300, 20, (1, 64, 64))
    >>> relative = relative_to_mode(volume, np.ones(volume.shape, bool))
    >>> bool(abs(np.median(relative)) < 0.02)
    True
    """
    volume = as_array("volume", volume).astype(np.float32, copy=False)
    brain = yes_or_no("brain", brain)
    if volume.shape != brain.shape:
        raise ValueError(f"volume has shape {volume.shape}, brain has {brain.shape}")
    inside = volume[brain]
    if not inside.size:
        raise ValueError("brain must hold at least one voxel, found none")
    low, high = np.percentile(inside, [25, 75])
    if not high > low:
        raise ValueError(f"the brain's quartiles must differ, found {low:.9g} twice")
    # Bins an eighth of the quartiles' distance wide, smoothed: fine enough, and not ragged.
    # What lies far above the quartiles is not the mode, and would only need more bins.
    width = (high - low) / 8
    edges = np.arange(max(inside.min(), low - 5 * (high - low)), high + 5 * (high - low), width)
    # Fluid is dark and piles up, too, in wide ventricles even higher than tissue does.
    median = np.median(inside)
    tissue = inside[inside > median - abs(median) / 2]
    counts = gaussian_filter(np.histogram(tissue, edges)[0].astype(float), 1.5, mode="constant")
    mode = edges[counts.argmax()] + width / 2
    if not mode > 0:
        raise ValueError(f"the brain's mode must be positive, found {mode:.9g}")
    return np.where(brain, volume / mode - 1, 0).astype(np.float32)


def find_midline(volume: np.ndarray, brain: np.ndarray, spacing: Sequence[float]) -> Midline:
    """Find the plane in which the brain is most like its own mirror image.

    Parameters
    ----------
    volume : ndarray, shape (slices, rows, columns)
        Intensities of one patient, in any scale.
    brain : ndarray of bool, same shape
        The brain.
    spacing : (float, float, float)
        Voxel size (z, y, x) in mm.

    Returns
    -------
    Midline
        Right to a degree and a millimetre or so, for a head turned by up to 20 degrees.

    Raises
    ------
    ValueError
        For other shapes, a brain of fewer than 100 voxels, a brain whose intensities are not finite
        or mostly not positive, or a spacing that is not three positive lengths.

    References
    ----------
    Ardekani et al. (1997), Automatic detection of the mid-sagittal plane in 3-D brain images,
    IEEE Trans Med Imaging 16:947.

    Examples
    --------
    >>> brain = np.zeros((9, 40, 41), bool)
    >>> brain[2:7, 5:35, 4:35] = True
    >>> midline = find_midline(brain * 1.0, brain, (5, 1, 1))
    >>> round(midline.offset)  # the middle of columns 4 to 34, in mm
    19
    """
    volume = as_array("volume", volume).astype(np.float32, copy=False)
    brain = yes_or_no("brain", brain)
    if volume.shape != brain.shape or volume.ndim != 3:
        raise ValueError(
            "volume and brain must be (slices, rows, columns), found shapes "
            f"{volume.shape} and {brain.shape}"
        )
    if brain.sum() < 100:
        raise ValueError(f"brain must hold at least 100 voxels, found {brain.sum()}")
    spacing = np.asarray(spacing, dtype=float)
    if spacing.shape != (3,) or not (np.isfinite(spacing) & (spacing > 0)).all():
        raise ValueError(f"spacing must be three positive lengths, found {spacing.tolist()}")
    ordinary = float(np.median(volume[brain]))
    if not (ordinary > 0 and np.isfinite(volume[brain]).all()):
        n_odd = int((~np.isfinite(volume[brain])).sum())
        raise ValueError(
            "the brain's intensities must be finite and their median positive, found median "
            f"{ordinary} and {n_odd} voxels that are not finite"
        )
    smooth = np.where(brain, volume / ordinary, 0)
    # Capped at ordinary tissue: outline, folds and ventricles count, a bright stroke does not.
    smooth = np.minimum(smooth, 1.0)
    smooth = gaussian_filter(smooth, 3 / spacing)
    # A voxel every 6 mm within the slice is plenty (0.1 degrees off), and many times faster.
    stride = [1, *np.maximum(1, (6 / spacing[1:]).astype(int))]
    thinned = tuple(slice(None, None, step) for step in stride)
    places = np.argwhere(brain[thinned]) * stride * spacing
    values = smooth[thinned][brain[thinned]]
    centre = places.mean(axis=0)
    columns, mm = np.ascontiguousarray(places.T), spacing[:, None]

    def normal_of(parameters):
        normal = np.array([parameters[0], parameters[1], 1.0])
        return normal / np.linalg.norm(normal)

    def asymmetry(parameters):
        normal = normal_of(parameters)
        reflection = np.eye(3) - 2 * np.outer(normal, normal)
        shift = 2 * (centre @ normal + 10 * parameters[2]) * normal
        mirrored = (reflection / mm) @ columns + shift[:, None] / mm
        found = map_coordinates(smooth, mirrored, order=1)
        return np.mean(np.abs(values - found))

    best = minimize(
        asymmetry, np.zeros(3), method="Powell", bounds=BOUNDS, options={"xtol": 2e-3, "ftol": 1e-4}
    )
    normal = normal_of(best.x)
    return Midline(tuple(normal), float(centre @ normal + 10 * best.x[2]), tuple(spacing))


def mirror(
    volume: np.ndarray, midline: Midline | None = None, *, outside: float = 0.0
) -> np.ndarray:
    """Show at each voxel what the other hemisphere holds at the mirrored place.

    Parameters
    ----------
    volume : ndarray, shape (slices, rows, columns)
        Values of any kind; what falls between voxels is interpolated.
    midline : Midline, optional
        Where to put the mirror; without one, in the middle of the columns, and exactly.
    outside : float
        What to show where the mirrored place lies outside the volume, whose outer voxels reach
        half a voxel beyond their middles.

    Returns
    -------
    ndarray
        The same shape; float32 if there is a midline.

    Examples
    --------
    >>> mirror(np.array([[[1, 2, 3]]])).tolist()
    [[[3, 2, 1]]]
    """
    volume = as_array("volume", volume)
    if midline is None:
        return volume[..., ::-1]
    normal, spacing = np.asarray(midline.normal), np.asarray(midline.spacing)
    if midline.normal == (0, 0, 1) and (last := 2 * midline.offset / spacing[2]).is_integer():
        return _reversed_columns(volume.astype(np.float32), int(last), outside)
    image = sitk.GetImageFromArray(volume.astype(np.float32))
    image.SetSpacing(spacing[::-1].tolist())
    x_y_z = normal[::-1]  # as SimpleITK counts
    reflection = sitk.AffineTransform(3)  # p - 2 (n·p - d) n, in millimetres
    reflection.SetMatrix((np.eye(3) - 2 * np.outer(x_y_z, x_y_z)).ravel().tolist())
    reflection.SetTranslation((2 * midline.offset * x_y_z).tolist())
    mirrored = sitk.Resample(image, reflection, sitk.sitkLinear, float(outside))
    return sitk.GetArrayFromImage(mirrored)


def _reversed_columns(volume: np.ndarray, last: int, outside: float) -> np.ndarray:
    """Put column `last` - j where column j is: what a mirror on or between two columns shows."""
    columns = last - np.arange(volume.shape[2])
    there = (columns >= 0) & (columns < len(columns))
    return np.where(there, volume[..., np.where(there, columns, 0)], np.float32(outside))


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
    >>> round(float(smooth_in_brain(np.full((1, 8, 8), 5.0), brain, 2)[0, 0, 0]), 5)
    5.0
    """
    brain = yes_or_no("brain", brain)
    values = np.where(brain, volume, 0).astype(np.float32)
    if not sigma:
        return values
    # Smoothing along an axis is linear, so it is a product with a matrix: many times faster.
    # Beyond the array there is no brain: a crop around it gives the same values.
    along_rows, along_columns = (_smoothing_matrix(n, sigma) for n in brain.shape[1:])

    def smooth(x):  # all rows of all slices at once first
        return along_rows @ (x.reshape(-1, x.shape[2]) @ along_columns).reshape(x.shape)

    weight, total = smooth(brain.astype(np.float32)), smooth(values)
    return np.divide(total, weight, out=np.zeros_like(total), where=brain)


@lru_cache(maxsize=32)
def _smoothing_matrix(n: int, sigma: float) -> np.ndarray:
    return gaussian_filter1d(np.eye(n, dtype=np.float32), sigma, mode="constant")


def even_out(
    dwi: np.ndarray,
    brain: np.ndarray,
    midline: Midline,
    *,
    reach: float = 15.0,
    ordinary: float = 0.15,
) -> np.ndarray:
    """Make both sides equally bright where they differ slowly, as an uneven coil makes them.

    The logarithm of one side over the other is averaged over the surroundings, and half of it is
    taken off either side. What differs much more than its surroundings counts for little in that
    average: a stroke is no unevenness.

    Parameters
    ----------
    dwi : ndarray, shape (slices, rows, columns)
        Intensities, 0 meaning no signal.
    brain : ndarray of bool, same shape
        The brain.
    midline : Midline
        The plane between the halves.
    reach : float
        Standard deviation of the averaging Gaussian, in mm.
    ordinary : float
        How far, in logarithms, a voxel may differ from its surroundings and still count much.

    Returns
    -------
    ndarray of float32
        Zero outside the brain.

    References
    ----------
    Huber (1964), Robust estimation of a location parameter, Annals of Mathematical Statistics
    35:73: the idea; the weights here fall off as a bell curve does.

    Examples
    --------
    The left half is a tenth brighter throughout, and one spot on it three times as bright:

    >>> dwi, brain = np.full((1, 40, 40), 100.0), np.ones((1, 40, 40), bool)
    >>> dwi[..., 20:] = 110
    >>> dwi[0, 10, 30] = 330
    >>> even = even_out(dwi, brain, Midline((0.0, 0.0, 1.0), 39.0, (5.0, 2.0, 2.0)))
    >>> [round(float(even[0, 10, column])) for column in (5, 35, 30)]
    [105, 105, 317]
    """
    brain = yes_or_no("brain", brain)
    positive = as_array("dwi", dwi)[brain]
    lowest = 0.05 * np.median(positive)
    level = np.where(brain, np.log(np.maximum(dwi, lowest)), 0).astype(np.float32)
    both = (brain & (mirror(brain.astype(np.float32), midline) > 0.99)).astype(np.float32)
    difference = (level - mirror(level, midline)) * both
    sigma = reach / np.asarray(midline.spacing)
    slow = np.zeros_like(difference)
    for _ in range(4):
        weight = both * np.exp(-0.5 * ((difference - slow) / ordinary) ** 2)
        total = gaussian_filter(weight, sigma)
        slow = gaussian_filter(weight * difference, sigma) / np.maximum(total, 0.01)
    return np.where(brain, dwi * np.exp(-0.5 * slow), 0).astype(np.float32)


def mirror_excess(
    volume: np.ndarray,
    brain: np.ndarray,
    midline: Midline | None = None,
    *,
    sigma: float = 2.0,
) -> np.ndarray:
    """How much brighter each voxel is than its mirror image, after smoothing.

    Parameters
    ----------
    volume : ndarray, shape (slices, rows, columns)
        Intensities.
    brain : ndarray of bool, same shape
        The brain.
    midline : Midline, optional
        As for `mirror`.
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
    brain = yes_or_no("brain", brain)
    smooth = smooth_in_brain(volume, brain, sigma)
    in_both = brain & (mirror(brain, midline) > 0.99)
    return np.where(in_both, smooth - mirror(smooth, midline), 0).astype(np.float32)


def unexplained_brightness(
    volume: np.ndarray,
    brain: np.ndarray,
    midline: Midline | None = None,
    *,
    sigma: float = 3.0,
    reach: int = 6,
) -> np.ndarray:
    """How much brighter each voxel is than anything that would explain it.

    Two things explain brightness: that healthy tissue has it anyway, and that the other side has
    it too. The halves of a brain do not match to the voxel, so the other side is allowed its
    brightest value within `reach` of the mirrored place. What is left over is the smaller of the
    two excesses.

    Parameters
    ----------
    volume : ndarray, shape (slices, rows, columns)
        Intensities with healthy tissue around 0, as `relative_to_mode` gives them.
    brain : ndarray of bool, same shape
        The brain.
    midline : Midline, optional
        As for `mirror`.
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
    smooth = smooth_in_brain(volume, brain, sigma)
    # Outside the brain nothing explains anything: the smallest value never wins a maximum.
    lowest = float(smooth.min())
    other = mirror(np.where(brain, smooth, lowest), midline, outside=lowest)
    explained = grey_dilation(other, size=(1, 2 * reach + 1, 2 * reach + 1))
    return np.where(brain, np.minimum(smooth, smooth - explained), 0).astype(np.float32)


def gather(
    values: np.ndarray,
    brain: np.ndarray,
    spacing: Sequence[float],
    *,
    beyond: float = 2.0,
    reach: float = 8.0,
) -> np.ndarray:
    """Let each voxel of a map count by itself and by what lies around it, in all three directions.

    A lesion is many bright voxels side by side, and a false alarm often a few alone. So the result
    is a geometric mean: of the voxel, and of its surroundings' mean of what lies beyond a limit.

    Parameters
    ----------
    values : ndarray, shape (slices, rows, columns)
        A map, as `helpers.mirror_vae.surprise_map` or `unexplained_brightness` makes it; what is
        negative counts as 0.
    brain : ndarray of bool, same shape
        The brain; what lies outside is not used.
    spacing : (float, float, float)
        Voxel size (z, y, x) in mm.
    beyond : float
        The limit, in the map's unit: two tolerances for a surprise.
    reach : float
        Standard deviation in mm of the Gaussian that weights the surroundings.

    Returns
    -------
    ndarray of float32
        In the map's unit; 0 outside the brain, and where nothing around is beyond the limit.

    Raises
    ------
    ValueError
        For other shapes, a spacing that is not three positive lengths, or a reach that is not one.

    Examples
    --------
    Two voxels of one height, the one alone and the other among its like:

    >>> values = np.zeros((1, 40, 40))
    >>> values[0, 10, 10] = values[0, 25:35, 25:35] = 5
    >>> found = gather(values, np.ones(values.shape, bool), (5, 1, 1))
    >>> [round(float(found[0, n, n]), 1) for n in (10, 30, 20)]
    [0.3, 2.1, 0.0]
    """
    values = as_array("values", values).astype(np.float32, copy=False)
    brain = yes_or_no("brain", brain)
    if values.shape != brain.shape or values.ndim != 3:
        raise ValueError(
            "values and brain must be (slices, rows, columns), found shapes "
            f"{values.shape} and {brain.shape}"
        )
    lengths = np.append(np.asarray(spacing, dtype=float), reach)
    if lengths.shape != (4,) or not (np.isfinite(lengths) & (lengths > 0)).all():
        raise ValueError(
            f"spacing and reach must be four positive lengths, found {lengths.tolist()}"
        )
    sigma = reach / lengths[:3]

    def smooth(x):  # beyond the array there is no brain
        return gaussian_filter(x.astype(np.float32), sigma, mode="constant", truncate=3)

    weight = np.maximum(smooth(brain), 1e-6)
    around = smooth(np.where(brain, np.maximum(values - beyond, 0), 0)) / weight
    return np.where(brain, np.sqrt(np.maximum(values, 0) * around), 0).astype(np.float32)


# -- a patch in a few dozen numbers ----------------------------------------------------------------
# Quantiles forget where in the patch a voxel lies, and with it the edge and the folds on which a
# network trained on pixels spends its code.

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
    maps["plain"] = np.where(brain, normalize_intensity(scan.dwi[box], mask=brain), 0)
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
    values, inside = as_array("values", values), yes_or_no("inside", inside)
    if values.shape != inside.shape or values.ndim != 3:
        raise ValueError(
            "values and inside must be (n, height, width), found shapes "
            f"{values.shape} and {inside.shape}"
        )
    n_inside = inside.sum(axis=(1, 2))
    if not n_inside.all():
        raise ValueError(f"{np.sum(n_inside == 0)} patches hold no voxel that counts")
    return values, inside, n_inside
