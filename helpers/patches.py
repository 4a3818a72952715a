"""Cut a volume into a grid of patches, remember where each came from, and put them back."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

import numpy as np

from helpers import as_array


@dataclass(frozen=True, eq=False)
class PatchSet:
    """Patches of one or more volumes, with what is known about each.

    Attributes
    ----------
    patches : ndarray, shape (n, h, w)
        The pixels, in the dtype of the volume they were cut from.
    locations : ndarray of int, shape (n, 3)
        Slice, row and column of each patch's first voxel.
    lesion_fraction, brain_fraction : ndarray of float32, shape (n,)
        Share of each patch's h·w voxels inside the mask; NaN where no mask was given.
    subject_ids : ndarray of str, shape (n,)
        The patient each patch comes from.
    dropped_lesion_voxels, dropped_brain_voxels : int
        Mask voxels that lay in the margin that ``remainder="drop"`` left out. They describe the
        volumes that were cut: a subset keeps its source's numbers.

    Examples
    --------
    >>> left, right = extract_patches(np.zeros((1, 28, 56)), subject_id="a"), \\
    ...     extract_patches(np.ones((2, 28, 28)), subject_id="b")
    >>> both = PatchSet.concatenate([left, right])
    >>> len(both), len(both[both.subject_ids == "b"])
    (4, 2)
    """

    patches: np.ndarray
    locations: np.ndarray
    lesion_fraction: np.ndarray
    brain_fraction: np.ndarray
    subject_ids: np.ndarray
    dropped_lesion_voxels: int = 0
    dropped_brain_voxels: int = 0

    def __post_init__(self) -> None:
        lengths = {name: len(getattr(self, name)) for name in _PER_PATCH}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"every array of a PatchSet needs one entry a patch, found {lengths}")

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, index) -> PatchSet:
        """Return the chosen patches: ``index`` is a slice, or an array of int or bool."""
        if not isinstance(index, slice):
            index = np.asarray(index)
            if index.ndim != 1 or index.dtype.kind not in "biu":
                raise TypeError(
                    "a PatchSet is indexed by a slice or a one-dimensional array of int or bool, "
                    f"found {index.dtype} of shape {index.shape}"
                )
        return replace(self, **{name: getattr(self, name)[index] for name in _PER_PATCH})

    @staticmethod
    def concatenate(sets: Iterable[PatchSet]) -> PatchSet:
        """Join the patches of several volumes; all must have one patch size and dtype.

        Parameters
        ----------
        sets : iterable of PatchSet
            At least one.

        Returns
        -------
        PatchSet
            The patches in the order given; the dropped voxels are added up.

        Raises
        ------
        ValueError
            For no set at all, or sets whose patches differ in shape or dtype.
        """
        sets = list(sets)
        kinds = {(s.patches.shape[1:], str(s.patches.dtype)) for s in sets}
        if len(kinds) != 1:
            raise ValueError(f"sets must share one patch size and dtype, found {sorted(kinds)}")
        return PatchSet(
            **{name: np.concatenate([getattr(s, name) for s in sets]) for name in _PER_PATCH},
            dropped_lesion_voxels=sum(s.dropped_lesion_voxels for s in sets),
            dropped_brain_voxels=sum(s.dropped_brain_voxels for s in sets),
        )


_PATCH_AXES = ("height", "width")
_PER_PATCH = [f.name for f in fields(PatchSet) if not f.name.startswith("dropped")]

# Copying patches is bound by memory, so it goes in pieces that stay in a usual processor's caches.
_L1_LINES = 2**9  # cache lines of 64 bytes: 32 KB
_L2_BYTES = 2**18  # a quarter of 1 MB, which source and destination share


def extract_patches(
    volume: np.ndarray,
    patch_size: tuple[int, int] = (28, 28),
    *,
    lesion_mask: np.ndarray | None = None,
    brain_mask: np.ndarray | None = None,
    subject_id: str = "",
    remainder: str = "drop",
) -> PatchSet:
    """Cut every slice into a grid of patches that do not overlap.

    Parameters
    ----------
    volume : ndarray, shape (slices, rows, columns)
        Any dtype, any memory layout.
    patch_size : (int, int)
        Height and width (h, w) of a patch in voxels.
    lesion_mask, brain_mask : ndarray of the volume's shape, optional
        False/True or 0/1; their share of each patch is reported.
    subject_id : str
        The patient, written beside every patch so that patients can be kept apart.
    remainder : {"drop", "pad", "error"}
        What to do where the grid does not fill the slice: leave the margin at the far edge out,
        fill it up with zeros, or refuse. With ``"pad"``, fractions are still of all h·w voxels.

    Returns
    -------
    PatchSet
        In the order slice, row, column; C-contiguous, and the owner of its memory.

    Raises
    ------
    ValueError
        For a volume that is not three-dimensional or has no voxel, a slice smaller than a patch,
        a mask of another shape or with values other than 0 and 1, or a margin under ``"error"``.
    TypeError
        For a patch size that is not two whole numbers.

    Examples
    --------
    >>> volume = np.arange(2 * 60 * 57).reshape(2, 60, 57)
    >>> cut = extract_patches(volume)
    >>> cut.patches.shape, cut.locations[-1].tolist()
    ((8, 28, 28), [1, 28, 28])
    """
    volume = as_array("volume", volume)
    if volume.ndim != 3 or volume.size == 0:
        raise ValueError(
            f"volume must have the axes (slices, rows, columns), found shape {volume.shape}"
        )
    if remainder not in ("drop", "pad", "error"):
        raise ValueError(f"remainder must be 'drop', 'pad' or 'error', found {remainder!r}")
    size = _whole_numbers("patch_size", patch_size, _PATCH_AXES)
    counts = _grid_counts(volume.shape, size, remainder)

    patches = _cut(volume, size, counts)
    locations = np.indices(counts).reshape(3, -1).T * (1, *size)
    lesion_fraction, dropped_lesion = _mask_fraction(
        "lesion_mask", lesion_mask, volume, size, counts
    )
    brain_fraction, dropped_brain = _mask_fraction("brain_mask", brain_mask, volume, size, counts)
    return PatchSet(
        patches=patches,
        locations=np.ascontiguousarray(locations),
        lesion_fraction=lesion_fraction,
        brain_fraction=brain_fraction,
        subject_ids=np.full(len(patches), subject_id),
        dropped_lesion_voxels=dropped_lesion,
        dropped_brain_voxels=dropped_brain,
    )


def reconstruct_from_patches(
    patches: np.ndarray,
    locations: np.ndarray,
    volume_shape: tuple[int, int, int],
    *,
    patch_size: tuple[int, int] | None = None,
    fill_value: float = 0,
) -> np.ndarray:
    """Put patches, or one value per patch, back where they came from.

    Parameters
    ----------
    patches : ndarray, shape (n, h, w) or (n,)
        The patches, or one value (a score, say) to spread over each patch.
    locations : ndarray of int, shape (n, 3)
        Slice, row and column of each patch's first voxel, as `extract_patches` gives them:
        any subset of its grid, in any order.
    volume_shape : (int, int, int)
        Slices, rows and columns of the result. What a padded patch has beyond it is cut off.
    patch_size : (int, int), optional
        Height and width; needed for one value per patch, and taken from `patches` otherwise.
    fill_value : number
        The value of every voxel that no patch covers.

    Returns
    -------
    ndarray, shape volume_shape
        In the dtype of `patches`.

    Raises
    ------
    ValueError
        For shapes that do not fit each other, a location off the grid, outside the volume or
        given twice, or a fill value that the dtype cannot hold.
    TypeError
        For locations that are not whole numbers, or a shape or size that is not 3 or 2 of them.

    Examples
    --------
    >>> volume = np.arange(56 * 56).reshape(1, 56, 56)
    >>> cut = extract_patches(volume)
    >>> back = reconstruct_from_patches(cut.patches, cut.locations, volume.shape)
    >>> bool((back == volume).all())
    True
    """
    patches, locations = as_array("patches", patches), as_array("locations", locations)
    if patches.ndim == 1:
        if patch_size is None:
            raise ValueError("one value per patch needs patch_size, found None")
        size = _whole_numbers("patch_size", patch_size, _PATCH_AXES)
        patches = np.repeat(patches[:, None, None], size[1], axis=2)
    elif patches.ndim == 3:
        size = patches.shape[1:] if patch_size is None else patch_size
        size = _whole_numbers("patch_size", size, _PATCH_AXES)
        if size != patches.shape[1:]:
            raise ValueError(f"patch_size is {size}, but the patches are {patches.shape[1:]}")
    else:
        raise ValueError(f"patches must have shape (n, h, w) or (n,), found {patches.shape}")
    shape = _whole_numbers("volume_shape", volume_shape, ("slices", "rows", "columns"))
    counts = _grid_counts(shape, size, "pad")
    cells, in_order = _grid_cells(locations, len(patches), size, counts)

    with np.errstate(invalid="ignore", over="ignore"):  # told in words just below
        fill = np.asarray(fill_value).astype(patches.dtype)
    rounded = patches.dtype.kind in "biu" and fill != fill_value
    overflowed = patches.dtype.kind in "fc" and np.isinf(fill) != np.isinf(fill_value)
    if rounded or overflowed:
        raise ValueError(f"fill_value {fill_value!r} does not fit the patches' {patches.dtype}")
    return _put_back(patches, cells, in_order, shape, size, fill)


def _whole_numbers(name, values, axes) -> tuple[int, ...]:
    """Check that there is one positive whole number for each axis."""
    try:
        if any(isinstance(n, (bool, np.bool_)) for n in values):
            raise TypeError
        numbers = tuple(operator.index(n) for n in values)
    except TypeError:
        numbers = ()
    if len(numbers) != len(axes):
        raise TypeError(
            f"{name} must be {len(axes)} whole numbers ({', '.join(axes)}), found {values!r}"
        )
    if min(numbers) < 1:
        raise ValueError(f"{name} must be positive, found {values!r}")
    return numbers


def _grid_counts(shape, size, remainder) -> tuple[int, int, int]:
    """How many patches fit along (slices, rows, columns)."""
    counts = [shape[0]]
    for axis, length, patch in zip(("rows", "columns"), shape[1:], size, strict=True):
        if length < patch and remainder != "pad":
            raise ValueError(f"the volume has {length} {axis}, fewer than one patch's {patch}")
        if length % patch and remainder == "error":
            raise ValueError(
                f"the volume's {length} {axis} are not a multiple of the patch's {patch}: "
                f"{length % patch} would be left over (remainder='drop' or 'pad' allows that)"
            )
        counts.append(-(-length // patch) if remainder == "pad" else length // patch)
    return tuple(counts)


def _cut(volume, size, counts) -> np.ndarray:
    """Copy the volume once, into (n, h, w); zeros beyond its edge."""
    cut = np.empty((math.prod(counts), *size), volume.dtype)
    rows, columns = volume.shape[1:]
    overhang = counts[1] * size[0] > rows or counts[2] * size[1] > columns
    if len(volume) > 1 and abs(volume.strides[0]) < abs(volume.strides[2]) and not overhang:
        _cut_across_slices(volume, size, cut.reshape(*counts, *size))
        return cut
    # Slices stream through a buffer that stays in the cache, where the patches are gathered.
    height, width = counts[1] * size[0], counts[2] * size[1]
    plane = max(rows, height), max(columns, width)
    at_once = max(1, _L2_BYTES // (math.prod(plane) * max(1, volume.itemsize)))
    buffer = np.zeros((min(at_once, len(volume)), *plane), volume.dtype)
    grid = _as_grid(_as_items(buffer[:, :height, :width], size[1]), size[0])
    items = _as_items(cut, size[1]).reshape(*counts, *grid.shape[3:])
    for start in range(0, len(volume), len(buffer)):
        piece = volume[start : start + len(buffer)]
        buffer[: len(piece), :rows, :columns] = piece
        items[start : start + len(buffer)] = grid[: len(piece)]
    return cut


def _cut_across_slices(volume, size, cut) -> None:
    """Cut a volume whose slices lie side by side in memory, as in (row, column, slice) order.

    A cache line then holds one pixel of many slices. Few pixels at a time, and all of their slices
    are written before the lines are gone.
    """
    height, width = size
    _, n_rows, n_columns = cut.shape[:3]
    runs = volume[:, : n_rows * height, : n_columns * width].reshape(
        len(volume), n_rows * height, n_columns, width
    )
    grid = _as_grid(runs, height)
    at_once = max(1, _L1_LINES // (height * width))  # patches,
    step = -(-height // -(-height * width // _L1_LINES))  # or rows of one
    for row, column, top in itertools.product(
        range(n_rows), range(0, n_columns, at_once), range(0, height, step)
    ):
        block = np.s_[:, row, column : column + at_once, top : top + step]
        cut[block] = grid[block]


def _put_back(patches, cells, in_order, shape, size, fill) -> np.ndarray:
    """Copy patches, (n, h, w) or (n, 1, w), to their cells of a new volume."""
    height, width = size
    counts = cells.max(axis=1, initial=0) + 1
    rows, columns = int(counts[1]) * height, int(counts[2]) * width
    volume = np.empty((shape[0], max(shape[1], rows), max(shape[2], columns)), patches.dtype)
    grid = _as_grid(_as_items(volume[:, :rows, :columns], width), height)
    items = _as_items(np.ascontiguousarray(patches), width)[:, :, 0]
    if in_order and cells.shape[1] == math.prod(grid.shape[:3]):  # all there are
        volume[:, rows:] = fill
        volume[:, :, columns:] = fill
        grid[...] = items.reshape(*grid.shape[:3], *items.shape[1:])
    else:
        volume[...] = fill
        grid[tuple(cells)] = items
    return volume if volume.shape == shape else volume[:, : shape[1], : shape[2]].copy()


def _as_grid(runs, height) -> np.ndarray:
    """View (slice, row, grid column, ...) as (slice, grid row, grid column, row in patch, ...)."""
    n_slices, _, *rest = runs.shape
    return runs.reshape(n_slices, -1, height, *rest).swapaxes(2, 3)


def _as_items(pixels, width) -> np.ndarray:
    """View each row of a patch as one item, which NumPy moves faster than its pixels one by one."""
    if pixels.dtype.hasobject:  # cannot be viewed as bytes
        return pixels.reshape(*pixels.shape[:-1], pixels.shape[-1] // width, width)
    return pixels.view(f"V{width * pixels.itemsize}")


def _mask_fraction(name, mask, volume, size, counts) -> tuple[np.ndarray, int]:
    """Each patch's share of mask voxels, and the mask voxels outside the grid."""
    if mask is None:
        return np.full(math.prod(counts), np.nan, np.float32), 0
    mask = as_array(name, mask)
    if mask.shape != volume.shape:
        raise ValueError(f"{name} has shape {mask.shape}, the volume has {volume.shape}")
    if mask.dtype != bool:
        ones, zeros = mask == 1, mask == 0
        if np.count_nonzero(ones) + np.count_nonzero(zeros) < mask.size:
            found = np.unique(mask[~(ones | zeros)])[:5]
            raise ValueError(f"{name} must hold 0 and 1 only, found also {found.tolist()}")
        mask = ones
    (height, width), (_, n_rows, n_columns) = size, counts
    sizes = zip(counts, (1, *size), mask.shape, strict=True)
    overhang = [(0, max(0, n * s - have)) for n, s, have in sizes]
    grid = np.pad(mask, overhang) if np.any(overhang) else mask
    grid = grid[:, : n_rows * height, : n_columns * width].view(np.uint8)
    # Bytes add up fastest, and down one patch's column they hold the sum.
    down = grid.reshape(-1, n_rows, height, n_columns * width).sum(
        axis=2, dtype=np.uint8 if height < 256 else np.intp
    )
    inside = down.reshape(*counts, width).sum(axis=-1, dtype=np.intp).ravel()
    dropped = np.count_nonzero(mask) - inside.sum()
    return (inside / (height * width)).astype(np.float32), int(dropped)


def _grid_cells(locations, n_patches, size, counts) -> tuple[np.ndarray, bool]:
    """Grid slices, rows and columns (3, n) of the locations, checked; are they in order?"""
    if locations.shape != (n_patches, 3):
        raise ValueError(
            f"locations must have shape ({n_patches}, 3), one row a patch, found {locations.shape}"
        )
    if locations.dtype.kind not in "iu":
        raise TypeError(f"locations must be whole numbers, found {locations.dtype}")
    # An axis at a time is several times faster than a location at a time.
    along_axes = locations.T.astype(np.int64, order="C")
    cells, off_grid = np.divmod(along_axes, np.reshape((1, *size), (3, 1)))
    for fault, where in {
        f"lie off the grid of {size[0]} × {size[1]} patches": off_grid != 0,
        "lie outside the volume": (cells < 0) | (cells >= np.reshape(counts, (3, 1))),
    }.items():
        if where.any():
            wrong = locations[where.any(axis=0)]
            raise ValueError(f"{len(wrong)} of the locations {fault}, first {wrong[0].tolist()}")
    places = np.ravel_multi_index(tuple(cells), counts)
    in_order = bool((np.diff(places) > 0).all())
    if not in_order:
        order = np.argsort(places, kind="stable")
        again = np.diff(places[order]) == 0
        if again.any():
            first = locations[order[again.argmax()]].tolist()
            raise ValueError(f"{again.sum()} locations are given twice, first {first}")
    return cells, in_order
