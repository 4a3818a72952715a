"""Which patients a chapter runs on, and the patches of all of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np

from helpers.data import cached, data_folder, file_hash, find_data
from helpers.descriptors import Descriptors, describe
from helpers.intensity import normalize_intensity
from helpers.parallel import map_cases
from helpers.patches import PatchSet, extract_patches
from helpers.phantom import write_cohort
from helpers.rehearsal import fewer, is_quick
from helpers.scans import Case, Scan, find_cases, load_case

#: Voxel size (z, y, x) in millimetres that every scan is brought to, so that a patch of 28 × 28
#: voxels shows 28 × 28 mm of anybody's brain.
SPACING = (5.0, 1.0, 1.0)

Result = TypeVar("Result")


@dataclass(frozen=True)
class Cohort:
    """Patients with lesion masks, and what to call them on a page.

    Attributes
    ----------
    name : str
        What they are, in words a caption can use.
    cases : list of Case
        Labelled patients, in natural order.
    synthetic : bool
        Whether they were simulated.
    """

    name: str
    cases: list[Case]
    synthetic: bool


def find_real_cohorts() -> list[Cohort]:
    """List the real cohorts in the data folder, the one with most labelled patients first.

    Returns
    -------
    list of Cohort
        ISLES 2015 and ISLES 2022, as far as they are there and have lesion masks.

    Raises
    ------
    FileNotFoundError
        A folder is there but holds no scan, or a mask without its scan.

    Examples
    --------
    >>> [cohort.synthetic for cohort in find_real_cohorts() if cohort.synthetic]
    []
    """
    cohorts = []
    for folder, name in (("isles2015", "ISLES 2015"), ("isles2022", "ISLES 2022")):
        if root := find_data(folder):
            try:
                found = find_cases(root)
            except FileNotFoundError as error:
                error.add_note(
                    f"Fetch it again, python -m tools.download {folder}, or take the folder "
                    "away: then other patients are used."
                )
                raise
            cases = [case for case in found if case.lesion is not None]
            if not cases:
                warnings.warn(
                    f"{root} is not used: {len(found)} scans were found, and no lesion mask "
                    "(…_msk… or VSD.….OT.…)",
                    stacklevel=2,
                )
            else:
                cohorts.append(Cohort(name, cases, synthetic=False))
    return sorted(cohorts, key=lambda cohort: -len(cohort.cases))


def find_cohort(*, min_cases: int = 10, n_synthetic: int = 28) -> Cohort:
    """Find patients to judge a method on: the largest real cohort, else the built-in one.

    Parameters
    ----------
    min_cases : int
        A real cohort with fewer labelled patients says too little about new ones.
    n_synthetic : int
        Patients in the built-in cohort, if that is what is used; 28 are as many as ISLES 2015 has.
        In a rehearsal (`helpers.rehearsal`) it has fewer.

    Returns
    -------
    Cohort
        The built-in cohort is simulated on the first call, into the data folder.

    Examples
    --------
    >>> cohort = find_cohort()  # doctest: +SKIP
    >>> cohort.name, len(cohort.cases)  # doctest: +SKIP
    ('the built-in synthetic cohort', 28)
    """
    for cohort in find_real_cohorts():
        if len(cohort.cases) >= min_cases:
            return cohort
    # A class's shared folder may hold the cohort ready-made, and may be read-only.
    root = find_data("phantom") or data_folder() / "phantom"
    name = "the built-in synthetic cohort" + (", in a quick rehearsal" if is_quick() else "")
    return Cohort(name, write_cohort(root, fewer(n_synthetic, min_cases)), synthetic=True)


def load_patches(
    cases: Sequence[Case],
    patch_size: tuple[int, int] = (28, 28),
    *,
    min_brain_fraction: float = 0.25,
) -> PatchSet:
    """Load scans, normalise each within its brain, and cut them into patches of brain.

    What was cut is kept, by the content of the scan's files; see `helpers.data`.

    Parameters
    ----------
    cases : sequence of Case
        The patients; each scan is resampled to `SPACING`.
    patch_size : (int, int)
        Height and width in voxels.
    min_brain_fraction : float
        Patches with a smaller share of brain are left out: they show mostly air.

    Returns
    -------
    PatchSet
        Intensities in [0, 1]; patient after patient. ``dropped_lesion_voxels`` and
        ``dropped_brain_voxels`` count what lies outside the grid or in patches left out.

    Raises
    ------
    ValueError
        No case was given.
    ExceptionGroup
        Some scans could not be cut; see `helpers.parallel.map_cases`.

    Examples
    --------
    >>> load_patches([])
    Traceback (most recent call last):
    ...
    ValueError: cases must name at least one patient, found none
    """
    settings = {"patch_size": patch_size, "min_brain_fraction": min_brain_fraction}
    return PatchSet.concatenate(map_cases(partial(_kept, _cut_case, **settings), cases))


def _cut_case(case: Case, **settings) -> PatchSet:
    return brain_patches(load_case(case, spacing=SPACING), **settings)


def _kept(compute: Callable[..., Result], case: Case, **settings) -> Result:
    """Compute something of a scan once, and keep it by the content of the scan's files."""
    content = file_hash(case.dwi, case.lesion)
    return cached(compute, case, depends_on=(case.subject_id, content), **settings)


def brain_patches(
    scan: Scan, patch_size: tuple[int, int] = (28, 28), *, min_brain_fraction: float = 0.25
) -> PatchSet:
    """Normalise one scan within its brain and cut it into patches of brain.

    Parameters and result are those of `load_patches`, for a scan in the spacing `SPACING`.

    Examples
    --------
    >>> brain = np.ones((1, 28, 56), bool)
    >>> dwi = np.random.default_rng(0).random(brain.shape, dtype=np.float32)
    >>> len(brain_patches(Scan("a", dwi, None, brain, SPACING)))
    2
    """
    patches = extract_patches(
        normalize_intensity(scan.dwi, mask=scan.brain),
        patch_size,
        lesion_mask=scan.lesion,
        brain_mask=scan.brain,
        subject_id=scan.subject_id,
    )
    kept = patches.brain_fraction >= min_brain_fraction
    left_out, n_voxels = patches[~kept], patch_size[0] * patch_size[1]

    def voxels(fraction):
        return round(float(np.nansum(fraction, dtype=float)) * n_voxels)

    return replace(
        patches[kept],
        dropped_lesion_voxels=patches.dropped_lesion_voxels + voxels(left_out.lesion_fraction),
        dropped_brain_voxels=patches.dropped_brain_voxels + voxels(left_out.brain_fraction),
    )


def load_descriptors(cases: Sequence[Case], *, client=None) -> Descriptors:
    """Describe the patches that `load_patches` cuts, each by quantiles of four maps.

    A scan takes about a second; what was computed is kept, as for `load_patches`.

    Parameters
    ----------
    cases : sequence of Case
        The patients; each scan is resampled to `SPACING`.
    client : distributed.Client, optional
        As for `helpers.parallel.map_cases`.

    Returns
    -------
    Descriptors
        One row a patch, in the order of `load_patches`.

    Raises
    ------
    ValueError
        No case was given.
    ExceptionGroup
        Some scans could not be described; see `helpers.parallel.map_cases`.

    Examples
    --------
    >>> load_descriptors([])
    Traceback (most recent call last):
    ...
    ValueError: cases must name at least one patient, found none
    """
    return Descriptors.concatenate(map_cases(partial(_kept, _describe_case), cases, client=client))


def _describe_case(case: Case) -> Descriptors:
    return describe(load_case(case, spacing=SPACING))
