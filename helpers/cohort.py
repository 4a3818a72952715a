"""Which patients a chapter runs on, and their patches: in memory, or in shards on disk.

A shard is the folder of one patient, of plain NumPy files, for a cohort larger than memory.
"""

from __future__ import annotations

import glob
import gzip
import json
import os
import re
import shutil
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import joblib
import numpy as np

from helpers import in_words, tell, yes_or_no
from helpers.brain import fill_holes
from helpers.data import cached, data_folder, file_hash, find_data, writable
from helpers.hemispheres import Descriptors, Midline, describe, find_midline
from helpers.intensity import normalize_intensity
from helpers.parallel import map_cases
from helpers.patches import PatchSet, extract_patches
from helpers.phantom import write_cohort
from helpers.rehearsal import fewer, is_quick
from helpers.scans import Case, Scan, find_cases, load_case

#: Voxel size (z, y, x) in millimetres that every scan is brought to, so that a patch of 28 × 28
#: voxels shows 28 × 28 mm of anybody's brain.
SPACING = (5.0, 1.0, 1.0)

#: Real cohorts, by their folder in the data folder.
_REAL = {"soop": "SOOP", "isles2015": "ISLES 2015", "isles2022": "ISLES 2022"}

Result = TypeVar("Result")

#: The helpers that decide what a patch looks like: a change in one of them makes shards anew.
_CUTTERS = [
    Path(__file__).with_name(f"{n}.py")
    for n in ("brain", "cohort", "intensity", "patches", "scans")
]
_ANEW = "write_shards makes it anew"
_FIELDS = [field.name for field in fields(PatchSet)]


@dataclass(frozen=True)
class Cohort:
    """Patients with lesion masks, and what to call them on a page.

    Attributes
    ----------
    name : str
        What they are, in words a caption can use.
    cases : list of Case, or of Scan
        Labelled patients, in natural order; slices that lie in memory are scans.
    synthetic : bool
        Whether they were simulated.
    midline : Midline or None
        Where the mirror stands, if the scans were brought to an atlas and it is known.
    """

    name: str
    cases: list[Case] | list[Scan]
    synthetic: bool
    midline: Midline | None = None


def find_real_cohorts() -> list[Cohort]:
    """List the real cohorts in the data folder, the one with most labelled patients first.

    Returns
    -------
    list of Cohort
        SOOP, ISLES 2015 and ISLES 2022, as far as they are there and have lesion masks.

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
    for folder, name in _REAL.items():
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
                    "(…_msk…, …_mask… or VSD.….OT.…)",
                    stacklevel=2,
                )
            else:
                cohorts.append(Cohort(name, cases, synthetic=False))
    return sorted(cohorts, key=lambda cohort: -len(cohort.cases))


def find_cohort(*, min_cases: int = 10, n_synthetic: int = 28) -> Cohort:
    """Find patients to judge a method on: a real cohort, else the built-in one.

    Of real cohorts with enough patients, SOOP comes first, else the largest. However many of SOOP
    were downloaded, they are drawn by lot from 1,451, and have the skull on, as in a clinic.

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
    large = [cohort for cohort in find_real_cohorts() if len(cohort.cases) >= min_cases]
    if large:
        return next((cohort for cohort in large if cohort.name == _REAL["soop"]), large[0])
    name = "the built-in synthetic cohort" + (", in a quick rehearsal" if is_quick() else "")
    return Cohort(name, _synthetic_cases(fewer(n_synthetic, min_cases)), synthetic=True)


def _synthetic_cases(n: int) -> list[Case]:
    """Take the cohort that is there, and simulate what is missing of it, or damaged."""
    # A class's shared folder may hold the cohort ready-made, and may be read-only.
    if found := find_data("phantom"):
        try:
            return _whole_cohort(found, n)
        except OSError as error:
            own = data_folder() / "phantom"
            if own == found:
                raise
            tell(f"{found}: cannot be made whole ({in_words(error)}); {own} is used instead")
    return _whole_cohort(data_folder() / "phantom", n)


def _whole_cohort(root: Path, n: int) -> list[Case]:
    for path, error in _damaged(root):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        tell(f"{path}: expected what was simulated, found {in_words(error)}; it is made anew")
    return write_cohort(root, n)


def _damaged(root: Path) -> Iterator[tuple[Path, Exception]]:
    """Read a synthetic cohort to the end of each file, where its checksum is."""
    for path in [*root.glob("manifest.json"), *root.glob("*/sub-phantom*/*/sub-*.nii.gz")]:
        try:  # what another notebook is writing now has another name until it is whole
            if path.name == "manifest.json":
                json.loads(path.read_text(encoding="utf-8"))["n_cases"]
            elif not gzip.decompress(path.read_bytes()):
                raise ValueError("an empty file")
        except Exception as error:  # a damaged file raises many kinds
            yield path, error


def find_slices(*, patch: int = 28) -> Cohort | None:
    """Find the real FLAIR slices of SOOP, one a patient, if they are in the data folder.

    They are FLAIR, not diffusion MRI, and were brought to an atlas: 1 mm pixels, the midline in the
    middle of the columns. Each gets a margin of air, so that whole patches lie on either side of
    the midline.

    Parameters
    ----------
    patch : int
        Rows and columns of the patches to come.

    Returns
    -------
    Cohort or None
        Scans of one slice; None where there is no ``soop_flair/axial_slices.npz``. In a rehearsal
        (`helpers.rehearsal`) fewer of them.

    Raises
    ------
    ValueError
        The file is not what `tools.download` makes.

    References
    ----------
    Absher et al. (2024), The stroke outcome optimization project, Scientific Data 11:839.

    Examples
    --------
    >>> cohort = find_slices()
    >>> cohort is None or cohort.cases[0].dwi.shape[0] == 1
    True
    """
    path = find_data("soop_flair/axial_slices.npz")
    if path is None:
        return None
    images, lesions, names = read_slices(path)
    # As many columns to either side of the midline, and whole patches.
    margins = [-n % (2 * patch if axis else patch) for axis, n in enumerate(images.shape[1:])]
    margins = [(m // 2, m - m // 2) for m in margins]
    spacing = (SPACING[0], 1.0, 1.0)
    scans = []
    for image, lesion, name in zip(images, lesions, names, strict=True):
        image, lesion = (np.pad(array, margins)[None] for array in (image, lesion))
        brain = fill_holes(image[0] > 0)[None]
        scans.append(Scan(name, image.astype(np.float32), lesion, brain, spacing))
    scans = scans[: fewer(len(scans), at_least=60)]
    middle = Midline((0.0, 0.0, 1.0), (scans[0].dwi.shape[2] - 1) / 2, spacing)
    return Cohort("SOOP FLAIR slices", scans, synthetic=False, midline=middle)


def read_slices(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read ``axial_slices.npz``, and see that it holds what `find_slices` needs.

    Returns
    -------
    (ndarray, ndarray of bool, ndarray of str)
        Images and lesions, of shape (n, rows, columns), and the names of their patients, (n,).

    Raises
    ------
    ValueError
        The file is not what `tools.download` makes.

    Examples
    --------
    >>> read_slices(Path("no-such.npz"))
    Traceback (most recent call last):
    ...
    ValueError: no-such.npz cannot be read ([Errno 2] No such file ...); delete it and fetch ...
    """
    try:
        if path.exists() and not path.is_file():  # to open a pipe is to wait for who writes to it
            raise ValueError("it is not a file")
        # A file that is opened here is closed, even if it is no archive.
        with path.open("rb") as file, np.load(file) as archive:
            images, lesions = archive["image"], archive["lesion"]
            names = archive["subject_id"].astype(str)
        shapes = images.shape, lesions.shape, names.shape
        if (
            images.ndim != 3
            or shapes != (images.shape, images.shape, (len(images),))
            or not images.size
        ):
            raise ValueError(
                f"image {images.shape}, lesion {lesions.shape} and subject_id {names.shape} must "
                "be (n, rows, columns), the same, and (n,), of one patient or more"
            )
        if images.dtype.kind not in "buif":
            raise ValueError(f"image must hold real numbers, found dtype {images.dtype}")
        lesions = yes_or_no("lesion", lesions)
    except Exception as error:  # a damaged file raises many kinds
        raise ValueError(
            f"{path} cannot be read ({in_words(error)}); delete it and fetch it anew: "
            "python -m tools.download soop-slices"
        ) from error
    return images, lesions, names


def find_cohorts(*, n_synthetic: int = 100) -> dict[str, Cohort]:
    """Find all patients that a page judges on, by the names that its tables give them.

    Parameters
    ----------
    n_synthetic : int
        As for `find_cohort`.

    Returns
    -------
    dict of str to Cohort
        What `find_cohort` finds, as ``"synthetic"`` or by its own name, and ``"real FLAIR"``,
        what `find_slices` finds, where it is in the data folder.

    Examples
    --------
    >>> list(find_cohorts())  # doctest: +SKIP
    ['synthetic', 'real FLAIR']
    """
    cohort = find_cohort(n_synthetic=n_synthetic)
    cohorts = {"synthetic" if cohort.synthetic else cohort.name: cohort}
    if slices := find_slices():
        cohorts["real FLAIR"] = slices
    return cohorts


def load_scan(case: Case | Scan) -> Scan:
    """Load a case in the spacing of the book's patches; a scan in memory is given back.

    Parameters
    ----------
    case : Case or Scan
        One of a `Cohort`'s.

    Returns
    -------
    Scan
        Resampled to `SPACING`.

    Examples
    --------
    >>> brain = np.ones((1, 28, 56), bool)
    >>> scan = Scan("a", np.ones(brain.shape, "float32"), None, brain, SPACING)
    >>> load_scan(scan) is scan
    True
    """
    return case if isinstance(case, Scan) else load_case(case, spacing=SPACING)


def load_sides(case: Case | Scan, midline: Midline | None = None) -> np.ndarray:
    """Load a case and its mirror image in wide pixels, computed once.

    Parameters
    ----------
    case : Case or Scan
        One of a `Cohort`'s.
    midline : Midline, optional
        Where the cohort has its mirror, if it is known: its scans are slices, not made uneven by a
        coil. It is found in the scan otherwise, which is evened out first.

    Returns
    -------
    ndarray of float32, shape (slices, rows, columns, 5)
        As `helpers.mirror_vae.both_sides` gives them, in pixels of 4 mm.

    Examples
    --------
    >>> brain = np.zeros((1, 60, 60), bool)
    >>> brain[:, 5:55, 5:55] = True
    >>> dwi = np.where(brain, np.random.default_rng(0).uniform(1, 2, brain.shape), 0)
    >>> load_sides(Scan("a", dwi.astype("float32"), None, brain, SPACING)).shape
    (1, 15, 15, 5)
    """
    return _kept(_both_sides, case, midline=midline)


def _both_sides(case: Case | Scan, midline: Midline | None) -> np.ndarray:
    from helpers.mirror_vae import both_sides  # here: it brings Keras, and takes as long

    scan, found = _load_with_midline(case, midline)
    return both_sides(scan, wide=True, even=midline is None, midline=found)


def _load_with_midline(case: Case | Scan, midline: Midline | None) -> tuple[Scan, Midline]:
    """Load a case, and find its midline once unless that is known."""
    scan = load_scan(case)
    if midline is None:
        midline = _kept(find_midline, case, scan.dwi, scan.brain, scan.spacing)
    return scan, midline


def load_patches(
    cases: Sequence[Case | Scan],
    patch_size: tuple[int, int] = (28, 28),
    *,
    min_brain_fraction: float = 0.25,
) -> PatchSet:
    """Load scans, normalise each within its brain, and cut them into patches of brain.

    What was cut is kept, by the content of the scan's files; see `helpers.data`.

    Parameters
    ----------
    cases : sequence of Case, or of Scan
        The patients; each file is resampled to `SPACING`, and a scan in memory has it.
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
    return brain_patches(load_scan(case), **settings)


def _kept(compute: Callable[..., Result], case: Case | Scan, *of_case, **settings) -> Result:
    """Compute something of a case, or of what it holds, once; kept by its files' content."""
    given = of_case or (case,)
    if isinstance(case, Scan):  # a slice in memory takes no longer than a look at what was kept
        return compute(*given, **settings)
    content = file_hash(case.dwi, case.lesion)
    return cached(compute, *given, depends_on=(case.subject_id, content), **settings)


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
    volume = normalize_intensity(scan.dwi, mask=scan.brain)
    patches = extract_patches(
        np.where(scan.brain, volume, 0),  # without the skull, where that is on
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


def load_descriptors(
    cases: Sequence[Case | Scan], *, midline: Midline | None = None, client=None
) -> Descriptors:
    """Describe the patches that `load_patches` cuts, each by quantiles of four maps.

    A scan takes about a second; what was computed is kept, as for `load_patches`.

    Parameters
    ----------
    cases : sequence of Case, or of Scan
        As for `load_patches`.
    midline : Midline, optional
        Where the mirror stands in all of them, if that is known.
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
    settings = {} if midline is None else {"midline": midline}
    if cases and all(isinstance(case, Scan) for case in cases):
        return cached(_describe_all, list(cases), **settings)
    return _describe_all(cases, client=client, **settings)


def _describe_all(cases: Sequence[Case | Scan], *, client=None, **settings) -> Descriptors:
    describe_one = partial(_kept, _describe_case, **settings)
    return Descriptors.concatenate(map_cases(describe_one, cases, client=client))


def _describe_case(case: Case | Scan, midline: Midline | None = None) -> Descriptors:
    scan, midline = _load_with_midline(case, midline)
    return describe(scan, midline=midline)


@dataclass
class Known:
    """What is known of the patches of a cohort, in one order.

    Attributes
    ----------
    images : ndarray of float32, shape (n, 28, 28)
        Intensities in [0, 1], as `load_patches` cuts them.
    described : Descriptors
        Quantiles of maps, and the plain numbers made of them.
    patients : ndarray of str, shape (n,)
        The patient of each patch.
    lesion : ndarray of float32, shape (n,)
        Share of lesion in each patch.
    targets : dict of str to ndarray of bool, shape (n,)
        ``"any lesion"`` and ``"> 25 % lesion"``.
    """

    images: np.ndarray
    described: Descriptors
    patients: np.ndarray
    lesion: np.ndarray
    targets: dict[str, np.ndarray]


def load_known(cohort: Cohort) -> Known:
    """Load the patches of a cohort, their descriptors, and what the masks say of them.

    Parameters
    ----------
    cohort : Cohort
        The patients.

    Returns
    -------
    Known
        A page may hang what it computes on it: folds, networks, codes.

    Raises
    ------
    ValueError, ExceptionGroup
        As `load_patches` and `load_descriptors`.

    Examples
    --------
    >>> load_known(Cohort("nobody", [], synthetic=False))
    Traceback (most recent call last):
    ...
    ValueError: cases must name at least one patient, found none
    """
    patches = load_patches(cohort.cases)
    described = load_descriptors(cohort.cases, midline=cohort.midline)
    lesion = patches.lesion_fraction
    targets = {"any lesion": lesion > 0, "> 25 % lesion": lesion > 0.25}
    return Known(patches.patches, described, patches.subject_ids, lesion, targets)


def write_shards(
    cases: Sequence[Case],
    folder: str | os.PathLike,
    patch_size: tuple[int, int] = (28, 28),
    *,
    min_brain_fraction: float = 0.25,
    client=None,
) -> list[Path]:
    """Cut scans into patches, a patient at a time, and write each patient's into a shard.

    A shard is a folder named after the patient, with one ``.npy`` file for each field of a
    `helpers.patches.PatchSet`. It appears whole or not at all. One that is there already is kept
    if it was cut from files of the same content, with the same settings and the same code, and is
    still what was written; else it is made anew. So an interrupted call resumes where it stopped.

    Parameters
    ----------
    cases : sequence of Case
        The patients; each scan is resampled to `SPACING`.
    folder : path
        Where the shards go; made if missing. On a cluster, every worker must see it, and the
        scans, under the same path.
    patch_size, min_brain_fraction
        As for `load_patches`, which cuts the same patches.
    client : distributed.Client, optional
        As for `helpers.parallel.map_cases`.

    Returns
    -------
    list of Path
        The shard of each case, in order; `read_shard` opens one.

    Raises
    ------
    ValueError
        No case was given, or names of patients that cannot each name a folder.
    OSError
        Nothing can be written into the folder.
    ExceptionGroup
        Some scans could not be cut. All other shards are written first; `find_shards` lists them.

    Examples
    --------
    >>> import tempfile
    >>> from helpers.phantom import write_cohort
    >>> with tempfile.TemporaryDirectory() as root:
    ...     cases = write_cohort(f"{root}/scans", n_cases=1)
    ...     (shard,) = write_shards(cases, f"{root}/shards")
    ...     shard.name, read_shard(shard).patches.shape[1:]
    ('sub-phantom0001', (28, 28))
    """
    names = [case.subject_id for case in cases]
    for name in names:
        if not name or name != Path(name).name or name.startswith("."):
            raise ValueError(f"a patient's name must be able to name a folder, found {name!r}")
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"each patient needs a name of their own, found twice: {', '.join(twice)}")
    folder = writable(Path(folder).resolve())  # or each patient would be told to have failed
    settings = {"patch_size": tuple(patch_size), "min_brain_fraction": min_brain_fraction}
    return map_cases(partial(_write_shard, folder, settings), cases, client=client)


def find_shards(folder: str | os.PathLike) -> list[Path]:
    """List the shards in a folder, sorted by name; one that is not whole is told of and left out.

    Raises
    ------
    FileNotFoundError
        There is none.

    Examples
    --------
    >>> find_shards("no-such-folder")
    Traceback (most recent call last):
    ...
    FileNotFoundError: no-such-folder: expected shards, found none; write_shards makes them
    """
    found = sorted(path.parent for path in Path(folder).glob("[!.]*/fingerprint.txt"))
    begun = {path.parent for path in Path(folder).glob("[!.]*/patches.npy")}
    for shard in sorted(begun.difference(found)):
        tell(f"{shard}: expected a fingerprint.txt, found none; it is left out, and {_ANEW}")
    if not found:
        raise FileNotFoundError(f"{folder}: expected shards, found none; write_shards makes them")
    return found


def read_shard(shard: str | os.PathLike) -> PatchSet:
    """Open one patient's patches without reading them: the arrays are mapped into memory.

    Parameters
    ----------
    shard : path
        As `write_shards` returns it.

    Returns
    -------
    PatchSet
        Its arrays are read-only, and read from the disk where they are indexed.

    Raises
    ------
    FileNotFoundError
        There is no such shard.
    ValueError
        One of its files is not what was written. What is mapped is not read, so this tells an
        array of another length, not one in which some values changed: `write_shards` does.

    Examples
    --------
    >>> read_shard("no-such-shard")
    Traceback (most recent call last):
    ...
    FileNotFoundError: [Errno 2] No such file or directory: 'no-such-shard/patches.npy'
    """
    arrays = {
        name: open_array(path) for name, path in zip(_FIELDS, _files(Path(shard)), strict=True)
    }
    lengths = {name: len(array) for name, array in arrays.items() if isinstance(array, np.ndarray)}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{shard}: expected arrays of one length, found {lengths}; {_ANEW}")
    return PatchSet(**arrays)


def _files(shard: Path) -> list[Path]:
    return [shard / f"{name}.npy" for name in _FIELDS]


def open_array(path: Path) -> np.ndarray | int:
    """Open one file of a shard: an array that is mapped into memory, or a number.

    Raises
    ------
    FileNotFoundError, ValueError
        As for `read_shard`.

    Examples
    --------
    >>> open_array(Path(__file__))
    Traceback (most recent call last):
    ...
    ValueError: ...: expected an array of a shard, found ...; write_shards makes it anew
    """
    try:
        if path.exists() and not path.is_file():
            raise ValueError("no file")
        if path.stem.startswith("dropped"):
            return int(np.load(path))
        mapped = np.load(path, mmap_mode="r")
        if (expected := mapped.offset + mapped.nbytes) != path.stat().st_size:
            raise ValueError(f"{path.stat().st_size} bytes in place of {expected}")
        return mapped
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged file raises many kinds
        raise ValueError(
            f"{path}: expected an array of a shard, found {in_words(error)}; {_ANEW}"
        ) from error


def _write_shard(folder: Path, settings: dict, case: Case) -> Path:
    named, fingerprint = folder / case.subject_id, _fingerprint(settings, case)
    if _has(named, fingerprint):
        return named
    _make_room(named, fingerprint)
    shard = named.resolve()  # where a link leads, perhaps to a larger disk
    patches = brain_patches(load_case(case, spacing=SPACING), **settings)
    temporary = shard.with_name(f".{case.subject_id}.{uuid.uuid4().hex}")
    try:
        temporary.mkdir()
        for name, path in zip(_FIELDS, _files(temporary), strict=True):
            np.save(path, getattr(patches, name))
        checksum = file_hash(*_files(temporary))
        (temporary / "fingerprint.txt").write_text(f"{fingerprint} {checksum}")
        shutil.rmtree(shard, ignore_errors=True)
        os.replace(temporary, shard)
    except OSError:  # somebody else was quicker, as after a worker that was taken for dead
        if not _has(shard, fingerprint):
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    left_overs = shard.parent.glob(f".{glob.escape(case.subject_id)}.*")  # of runs that were killed
    for left_over in left_overs:
        shutil.rmtree(left_over, ignore_errors=True)
    return named


def _has(shard: Path, fingerprint: str) -> bool:
    """Tell whether a shard is there, cut from this and so, and every byte as it was written."""
    try:
        if not all(path.is_file() for path in (shard / "fingerprint.txt", *_files(shard))):
            return False  # and to open a pipe is to wait for who writes to it
        written = (shard / "fingerprint.txt").read_text()
        return written == f"{fingerprint} {file_hash(*_files(shard))}"
    except (OSError, UnicodeDecodeError):
        return False


def _make_room(shard: Path, fingerprint: str) -> None:
    """See that what a shard will replace is a shard, and tell if it is damaged."""
    if not os.path.lexists(shard):
        return
    ours = [shard / "fingerprint.txt", *_files(shard)]
    if shard.is_dir():
        strange = set(os.listdir(shard)) - {path.name for path in ours}
        # Nor is ours what has such a name and is no file, but for a folder with nothing in it.
        strange |= {
            f"{path.name}, which is no file"
            for path in ours
            if (os.listdir(path) if path.is_dir() else path.exists() and not path.is_file())
        }
    else:
        strange = {"a link to nowhere" if shard.is_symlink() else "a file"}
    if strange := sorted(name for name in strange if not name.startswith(".")):
        raise FileExistsError(
            f"{shard}: expected a shard to replace, or nothing, found {', '.join(strange)[:99]}"
        )
    try:
        written = (shard / "fingerprint.txt").read_text()
        damaged = written.startswith(fingerprint) or not re.fullmatch("[0-9a-f]{32}( .+)?", written)
    except (OSError, UnicodeDecodeError):
        damaged = True
    if damaged:
        tell(f"{shard}: expected a shard as it was written, found a damaged one; it is cut anew")


def _fingerprint(settings: dict, case: Case) -> str:
    content = file_hash(case.dwi, case.lesion), file_hash(*_CUTTERS)
    return joblib.hash((content, sorted(settings.items()), SPACING))
