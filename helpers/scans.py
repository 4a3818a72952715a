"""ISLES stroke scans: find the cases in a folder, and load one as checked arrays."""

from __future__ import annotations

import gzip
import io
import logging
import math
import os
import re
import shlex
import subprocess
import unicodedata
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import psutil
import SimpleITK as sitk
from numpy.typing import ArrayLike
from scipy.ndimage import distance_transform_edt, find_objects

from helpers import silent_stderr
from helpers.brain import fill_holes, find_brain

_SUFFIXES = (".nii", ".nii.gz", ".mha")
_ISLES_2015 = re.compile(r"VSD\..+\.(?P<kind>MR_DWI|OT)\.")
# Words of a name, in small letters: of diffusion-weighted images, of maps that are none, of masks.
_DWI = re.compile(r"[a-z]{0,4}dwi(b?\d+)?|(iso)?tracew?|b=?([3-9]\d\d|[1-9]\d{3})")
_MAP = re.compile(
    r"[a-z]{0,5}adc(map|s|m|val\w*|trace\w*)?\d*|avdc"
    r"|(col|color|colour|mean|g)?fa(map|c|col|color)?\d?|[mra][dk](map)?"
    r"|m?kurt\w*|fractional\w*|\w*anisotrop\w*|\w*diffusivity"
    r"|([a-z]{0,4}dwi)?b=?(0+|\d\d?|[12]\d\d)(map|mean)?|lowb|nodif\w*|[sm]0(map)?"
    r"|(t2|[a-z]{1,4})b0[a-z]{0,5}|b0[a-z]{2,5}|e?exp(o|onential)?(map)?|tensor\w*"
    r"|[vl][123]|lambda\d?|eigen\w*|evals?|evecs?|rgb|ivim|odi|fw|ficvf|prob(ability|map)s?"
    r"|t[12](w|wi|star|map)?|flair|pd|swi|pwi|phase(diff)?|fieldmap|sbref|noise|residuals?"
    r"|bias(field)?"
    r"|snr|apparent\w*|coefficient|ncct|cta|ctp?|cbf|cbv|mtt|tmax|ttp"
)
_MASK = re.compile(r"\w*(mask|msk)s?|roi")
# At the end; and, behind another word, anywhere: whatever it is, it is no scan.
_PERHAPS_MASK = re.compile(r"d?seg(m|mentation)?s?|labels?|gt|manual|annotations?")
_NO_SCAN = re.compile(
    r"\w*(lesion|infarct|annot|contour|msk|mask|label)\w*|(manual|d)?seg(m|mentation)?s?\d*|les"
    r"|roi\d*|voi\d*|stroke\w*|acute|core|manual|truth|gt|pred(ict)?(ion)?s?"
)
_LESION = re.compile(r"(acute)?(lesion|infarct)s?(acute|core|chronic)?\d*")
_OTHER_MASK = re.compile(
    r"\w*(brain|strip|skull|vessel|ventric)\w*|(hd)?bet|csf|[wg]m|head|air|lvo|cow"
)
_NOT_ACUTE = re.compile(  # lesions, but not those of an acute infarct
    r"\w*chronic\w*|old|prior|previous|remote|wmh?s?|white\w*|leuk\w*|hyperint\w*|c?mbs?|ich|sah"
    r"|ha?em(atoma|orr?h)\w*|\w*bleed\w*|o?edema|tumou?rs?|penumbra|\w*perfusion|lacun\w*"
)
# What is no patient's name: before a scan's kind how it was made, behind it what was done to it.
_MADE = re.compile(
    r"ax(ial)?|tra(ns\w*)?|cor(onal)?|sag(ittal)?|ep2d|epi|resolve|diff(usion)?|isotropic|mri|\d\.?\d?t"
)
_DONE = re.compile(
    r"\w*strip(ped)?|brain|(hd)?bet|ss|n4\w*|bias\w*|(co)?reg\w*|resampled?|denoised?|norm\w*"
    r"|eddy|topup|copy\d*|\(\d+\)|final|v\d+|new|edited|corr(ected)?|checked"
)
_VISIT = re.compile(  # folders that say when
    r"ses-(.+)|(?:session|day|visit|week|month|tp|timepoint|fu|follow-?up)[-_ ]?(\d+)"
    r"|(\d+ ?(?:h|hours|d|days)|baseline|follow-?up|admission|discharge|(?:sub)?acute|pre|post)",
    re.IGNORECASE,
)
_NO_PATIENT = re.compile(  # folders that say what is in them, and not whose
    r"dwi|anat|diff(usion)?|nifti|nii|raw_?data|derivatives|images?|labels?|(lesion_?)?masks?"
    r"|lesions?|scans?|data",
    re.IGNORECASE,
)
_OF_MASKS = re.compile(  # folders of nothing but masks
    r"(lesion_?)?(masks?|labels?|segmentations?)|lesions?|gt|ground_?truth", re.IGNORECASE
)
_NO_DATA = {"__MACOSX", "lost+found", "System Volume Information", "$RECYCLE.BIN"}
_HERE = {"dwi", "trace", "orig", "native", "individual", "scanner"}  # the space of the scan itself
# {0} is the file, and {1} what it is to be called then, both as a shell takes them.
_ITK = 'python -c "import sys, SimpleITK as s; s.WriteImage(s.ReadImage(sys.argv[1]), sys.argv[2])"'
_CONVERSIONS = {
    **dict.fromkeys((".nrrd", ".nhdr", ".mhd", ".gipl"), f"{_ITK} {{0}} {{1}}"),
    **dict.fromkeys(
        (".hdr", ".img"),
        'python -c "import sys, nibabel as n; n.save(n.load(sys.argv[1]), sys.argv[2])" {0} {1}',
    ),
    **dict.fromkeys((".mgz", ".mgh"), "mri_convert {0} {1}"),
    **dict.fromkeys((".mif", ".mif.gz"), "mrconvert {0} {1}"),
    ".mnc": "mnc2nii {0}",
    ".nii.bz2": "bunzip2 {0}",
    ".nii.xz": "unxz {0}",
    ".nii.zip": "unzip {0}",
    ".nii.zst": "unzstd {0}",
}
# What MetaImage calls the geometry, by any of these names, and how many numbers of n axes.
_MHA_GEOMETRY = {
    ("ElementSpacing", "ElementSize"): lambda n: n,
    ("Offset", "Position", "Origin"): lambda n: n,
    ("TransformMatrix", "Rotation", "Orientation"): lambda n: n * n,
}
_MHA_BYTES = {
    **{"MET_CHAR": 1, "MET_SHORT": 2, "MET_INT": 4, "MET_LONG": 4, "MET_LONG_LONG": 8},
    **{"MET_UCHAR": 1, "MET_USHORT": 2, "MET_UINT": 4, "MET_ULONG": 4, "MET_ULONG_LONG": 8},
    **{"MET_FLOAT": 4, "MET_DOUBLE": 8},
}
_MILLIMETRES = {0: 1.0, 1: 1e3, 2: 1.0, 3: 1e-3}  # by NIfTI's code; 0 says nothing
_GZIP = b"\x1f\x8b"
# A scanner's bore is 0.6 to 0.7 m wide: what is longer is a slip of units or of a decimal point.
_LONGEST_VOXEL, _LONGEST_EXTENT = 30.0, 1000.0  # mm
_SHORTEST_VOXEL, _SMALLEST_VOXEL = 0.05, 0.05  # mm, mm³: less was meant in another unit
_BRAIN_ML = 600.0, 2200.0  # what an adult's brain measures, children's and giants' with it
_HEAD_MM = 100.0, 120.0, 120.0  # (z, y, x): a volume that is as long as this shows a whole head
_BYTES_PER_VOXEL = 16  # of scan, mask, brain and what comes between while a case is loaded
# Headers store single precision: rounding noise passes, a shift of a hundredth of a millimetre no.
_TOLERANCES = {"size": 0, "spacing": 1e-3, "origin": 1e-2, "direction": 1e-3}


@dataclass(frozen=True)
class Case:
    """Where one patient's files are.

    Attributes
    ----------
    subject_id : str
        The patient's name, for example ``"sub-strokecase0009"``.
    dwi : Path
        The diffusion-weighted scan.
    lesion : Path or None
        The expert's lesion mask, where there is one.
    """

    subject_id: str
    dwi: Path
    lesion: Path | None = None


@dataclass(frozen=True, eq=False)
class Scan:
    """One patient's scan in memory: arrays (z, y, x) in LPS.

    Slices run from inferior to superior, rows from anterior to posterior, columns from the
    patient's right to left.

    Attributes
    ----------
    subject_id : str
        The patient's name.
    dwi : ndarray of float32, shape (z, y, x)
        Diffusion-weighted intensity, in the scanner's arbitrary units.
    lesion : ndarray of bool, shape (z, y, x), or None
        The expert's lesion mask.
    brain : ndarray of bool, shape (z, y, x)
        The brain, without holes; what it was taken from is said at `load_case`.
    spacing : tuple of three floats
        Voxel size (z, y, x) in millimetres.
    """

    subject_id: str
    dwi: np.ndarray
    lesion: np.ndarray | None
    brain: np.ndarray
    spacing: tuple[float, float, float]


class Geometry(NamedTuple):
    """Where a volume's voxels lie in the patient, every field in the array's order (z, y, x).

    World coordinates are LPS, in millimetres. SimpleITK's own order is each field reversed, for
    example ``image.SetDirection(geometry.direction[::-1])``.

    Attributes
    ----------
    size : tuple of three ints
        The array's shape.
    spacing : tuple of three floats
        Voxel size in millimetres.
    origin : tuple of three floats
        Centre of voxel [0, 0, 0]: towards superior, posterior and left, in millimetres.
    direction : tuple of nine floats
        Row by row, the matrix whose columns are the unit vectors along the array's axes.
    """

    size: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]


class VolumeReadError(OSError):
    """A file that cannot be trusted as a volume: damaged, cut short, or not an image at all."""


class GeometryMismatchError(ValueError):
    """A lesion mask that does not lie on its scan's voxels."""


class LabelError(ValueError):
    """A lesion mask that holds other values than lesion and not lesion."""


class _Fault(ValueError):
    """What is wrong with a file, in words; who knows the file's name puts it before them."""


def find_cases(root: str | Path) -> list[Case]:
    """Find the patients beneath a folder, by the names of their files.

    Names are read as ``.nii``, ``.nii.gz`` or ``.mha``, in small letters or capitals, at any depth
    and through links. A scan has ``dwi``, ``trace`` or its b-value (``b1000``) among the words of
    its name; a map that is no diffusion-weighted image (ADC, FA, b0, …) is never taken for one. A
    mask ends in ``mask``, ``msk`` or ``lesion``; one that says of something else than of an acute
    lesion, or of another image, is not used. So are found BIDS with or without sessions, ISLES 2022
    (the archive, the challenge) and 2024, SOOP, the book's own cohort, and any folder with
    ``<name>_DWI`` and ``<name>_lesion``. A name that says no patient leaves that to its folder:
    ``anna/DWI.nii.gz``. ISLES 2015's ``VSD.….MR_DWI.<number>`` and ``VSD.….OT.<number>`` belong to
    the patient whose folder holds both.

    Parameters
    ----------
    root : str or Path
        The folder.

    Returns
    -------
    list of Case
        In natural order: 2 before 10. A scan without a mask has ``lesion=None``. Of several scans
        of a patient, it is the trace-weighted one, or the only one with a mask.

    Warns
    -----
    UserWarning
        Once, with all files that look like a scan or a mask and are not used, and why.

    Raises
    ------
    FileNotFoundError
        There is no such folder, no diffusion-weighted scan in it, or a lesion's mask without its
        scan.
    OSError
        A folder cannot be listed.
    ValueError
        Two scans or two masks claim one patient, and nothing says which to take.

    References
    ----------
    Maier et al. (2017), ISLES 2015, Medical Image Analysis 35:250. Hernandez Petzsche et al.
    (2022), ISLES 2022, Scientific Data 9:762. Absher et al. (2024), SOOP, Scientific Data 11:839.
    Gorgolewski et al. (2016), BIDS, Scientific Data 3:160044.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for subject_id in ("sub-10", "sub-2"):
    ...         Path(folder, f"{subject_id}_dwi.nii.gz").touch()
    ...     [case.subject_id for case in find_cases(folder)]
    ['sub-2', 'sub-10']
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(
            f"{root}: expected a folder of scans, found no folder; python -m tools.download gets "
            "ISLES 2015 and ISLES 2022"
        )
    files = _walk(root)
    volumes = [path for path in files if path.name.lower().endswith(_SUFFIXES)]
    patients: dict[str, list[_Named]] = {}
    for path in volumes:
        if named := _read_name(path, root):
            # Some file systems take letters apart from their accents.
            subject = unicodedata.normalize("NFC", named.subject).casefold()
            patients.setdefault(subject, []).append(named)
    any_scan = any(file.kind == "scan" for found in patients.values() for file in found)
    unused = _unreadable(files, search=not any_scan)
    cases, orphans = [], []
    for found in patients.values():
        scans = [file for file in found if file.kind == "scan"]
        masks = [file for file in found if file.kind == "lesion mask"]
        if scans:
            cases.append(_choose(scans, masks, unused))
        else:
            orphans += [mask for mask in masks if mask.is_lesion]
        for file in found:
            used = cases[-1] if scans else None
            # A map or an old lesion beside what is used is what a data set is like.
            if file.kind == "map" and not scans:
                unused[file.path] = "a map that is no diffusion-weighted image"
            elif file.kind == "perhaps a mask" and used and not used.lesion:
                unused[file.path] = "perhaps a mask: called …_lesion_mask it would be taken"
            elif file.kind == "other mask" and not (file.is_lesion and used and used.lesion):
                unused[file.path] = "not the mask of an acute lesion on this scan"
                if "brain" in file.words:
                    unused[file.path] = "a brain's mask, load_case(case, brain=PATH) takes it"
            elif file.kind == "lesion mask" and not scans and not file.is_lesion:
                unused[file.path] = "a mask without its scan"
    told = "; ".join(f"{path} ({reason})" for path, reason in list(unused.items())[:20])
    told += f"; and {len(unused) - 20} more" if len(unused) > 20 else ""
    if orphans:
        orphans.sort(key=lambda mask: _natural(mask.subject))
        names = dict.fromkeys(mask.subject for mask in orphans)
        raise FileNotFoundError(
            f"{orphans[0].path}: expected a diffusion-weighted scan (…_dwi…) for each lesion "
            f"mask, found none for {', '.join(names)}" + (told and f"; not used: {told}")
        )
    if not cases:
        there = [path for path in volumes or files if path not in unused][:10]
        count = f"{len(volumes)} other volumes" + ", but other files" * bool(there and not volumes)
        raise FileNotFoundError(
            f"{root}: expected ISLES scans (sub-…_dwi or VSD.….MR_DWI.…) or others (…_trace, "
            f"…_b1000) as .nii, .nii.gz or .mha, found {count}"
            + "".join(f"; {path}" for path in there)
            + (told and f"; not used: {told}")
        )
    if told:
        warnings.warn(f"{root}: not used: {told}", stacklevel=2)
    return sorted(cases, key=lambda case: _natural(case.subject_id))


def load_case(
    case: Case, *, spacing: Sequence[float] | None = None, brain: str | Path = "auto"
) -> Scan:
    """Load one patient's scan, lesion mask and brain, checked against each other.

    Parameters
    ----------
    case : Case
        Where the files are.
    spacing : (z, y, x) in millimetres, or None
        Voxel size to resample to, linearly for the scan and by nearest neighbour for the masks;
        None keeps the file's own.
    brain : "auto", "stripped", "find" or path
        Where the brain is. ``"stripped"``: everything above zero, in a scan without its skull; as
        it is in the file, since resampling smears the rim into the air.
        ``"find"``: where `helpers.brain.find_brain` says, in a scan with it. ``"auto"`` looks which
        of them the scan is: stripped, if its air is exactly zero, and brain lies right beside the
        air. A path is that of a mask from another program, on the scan's voxels.

    Returns
    -------
    Scan
        Arrays (z, y, x) in LPS, whatever the orientation in the files. ``dwi`` is the scan as it
        is in the file: with its skull, if that is on.

    Warns
    -----
    UserWarning
        The brain of a whole head measures less than 0.6 or more than 2.2 litres, a brain reaches
        all six sides of the volume, a lesion takes more than half of it, or more than 1 % of the
        scan lies below zero.

    Raises
    ------
    FileNotFoundError
        A file is missing.
    VolumeReadError
        A file is damaged, or the scan holds NaN, infinity, one single value or no brain; or it was
        centred about zero (z-scores, [-1, 1]), so that nothing says what is air.
    GeometryMismatchError
        A mask does not lie on the scan's voxels.
    LabelError
        A mask holds values other than {0, 1} or {0, 255}, or the brain's is empty; an empty lesion
        mask is legitimate.
    ValueError
        The spacing is not three positive lengths, leaves no voxel along an axis, or asks for more
        voxels than memory holds; or `brain` is none of the above.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     scan = sitk.GetImageFromArray(np.eye(4, dtype=np.float32)[np.newaxis])
    ...     sitk.WriteImage(scan, f"{folder}/sub-1_dwi.mha")
    ...     loaded = load_case(find_cases(folder)[0], spacing=(1, 2, 2))
    >>> loaded.dwi.tolist(), loaded.spacing
    ([[[0.5, 0.0], [0.0, 0.5]]], (1.0, 2.0, 2.0))
    """
    target = None if spacing is None else _checked_spacing(spacing)
    brain = _checked_brain(brain)
    image = _read_oriented(case.dwi)
    _require_finite(image, case.dwi)
    lesion = None if case.lesion is None else _read_mask(case.lesion, image, case.dwi)
    if isinstance(brain, Path):
        found = _read_mask(brain, image, case.dwi)
        if not sitk.GetArrayViewFromImage(found).any():
            raise LabelError(f"{brain}: expected the brain of {case.dwi}, found an empty mask")
    else:
        found = _find_brain(image, brain, case.dwi)
    if doubts := _doubts(image, found, lesion):
        warnings.warn(f"{case.dwi}: {'; '.join(doubts)}", stacklevel=2)
    if target is not None:
        if found is None:  # now, before the rim is smeared into the air and the brain grows by it
            found = image > 0
        image = _resample(image, target, sitk.sitkLinear, case.dwi)
        lesion, found = (
            mask and _resample(mask, target, sitk.sitkNearestNeighbor, case.dwi)
            for mask in (lesion, found)
        )

    dwi = sitk.GetArrayFromImage(image)
    return Scan(
        subject_id=case.subject_id,
        dwi=dwi,
        lesion=None if lesion is None else sitk.GetArrayFromImage(lesion).astype(bool),
        brain=fill_holes(dwi > 0 if found is None else sitk.GetArrayFromImage(found) > 0),
        spacing=_geometry(image).spacing,
    )


def load_volume(
    path: str | Path, *, volume_index: int | None = None
) -> tuple[np.ndarray, Geometry]:
    """Load one volume, to the last byte or not at all.

    Every file is read to its end and, where it is compressed, to its checksum; SimpleITK fills a
    truncated file up with whatever it finds, without a word. An uncompressed file carries no
    checksum: a flipped bit there stays unseen. A header that leaves the orientation open, or that
    names two, is refused, because nothing else says which side is left.

    Parameters
    ----------
    path : str or Path
        A ``.nii``, ``.nii.gz`` (NIfTI-1 or NIfTI-2) or ``.mha`` file.
    volume_index : int or None
        Which volume of a file that holds several, counted from 0.

    Returns
    -------
    volume : ndarray of float32, shape (z, y, x)
        In LPS: slices inferior to superior, rows anterior to posterior, columns right to left.
    geometry : Geometry
        Where the voxels lie, after turning them to LPS.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    VolumeReadError
        The file is damaged, is no volume, holds NaN or infinity, or lies nowhere: its axes are
        sheared, its qform contradicts its sform, or it has neither.
    ValueError
        The file holds several volumes and ``volume_index`` does not pick one of them.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     image = sitk.GetImageFromArray(np.zeros((2, 3, 4), dtype=np.int16))
    ...     image.SetSpacing((0.5, 0.5, 5.0))
    ...     sitk.WriteImage(image, f"{folder}/scan.nii.gz")
    ...     volume, geometry = load_volume(f"{folder}/scan.nii.gz")
    >>> volume.shape, geometry.spacing
    ((2, 3, 4), (5.0, 0.5, 0.5))
    """
    image = _read_oriented(path, volume_index)
    _require_finite(image, path)
    return sitk.GetArrayFromImage(image), _geometry(image)


class _Named(NamedTuple):
    """What a file's name says."""

    path: Path
    kind: str  # scan, lesion mask, map, or other mask
    subject: str
    words: tuple[str, ...]
    place: dict[str, str]  # session, run and space, as far as they are told
    is_lesion: bool


def _walk(root: Path) -> list[Path]:
    """List the files beneath a folder, through links; each folder once, where it really lies."""
    files: list[Path] = []
    folders, links, seen = [root], [], set()
    while folders or links:
        folder = folders.pop() if folders else links.pop()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                names = sorted(entry.name for entry in entries)
        except OSError as error:
            # With its own type, PermissionError for example.
            raise type(error)(
                f"{folder}: expected a folder that can be listed, found {error.strerror or error}"
            ) from error
        # Hidden files too: a Mac's archiver leaves some beside each file.
        paths = [folder / name for name in names if name[0] != "." and name not in _NO_DATA]
        for path in reversed(paths):
            if os.path.isdir(path):
                (links if path.is_symlink() else folders).append(path)
        # A link whose target was never fetched is a missing scan, not an absent one.
        files += [path for path in paths if not os.path.isdir(path)]
    return sorted(files)


def _read_name(path: Path, root: Path) -> _Named | None:
    """Read from a file's name what it is, and whose."""
    if match := _ISLES_2015.match(path.name):
        folders = path.absolute().parents
        subject = next(f.name for f in folders if not f.name.startswith("VSD."))
        kind = "scan" if match["kind"] == "MR_DWI" else "lesion mask"
        return _Named(path, kind, subject, (), {}, True)
    stem = path.name[: re.search(r"\.(nii|mha)(\.gz)?$", path.name, re.IGNORECASE).start()]
    parts = [part for part in re.split(r"[_\s]+", stem) if part]
    entities = dict(part.split("-", 1) for part in parts if re.match(r"[A-Za-z]+-.", part))
    entities = {key.lower(): value for key, value in entities.items()}
    words = [
        word
        for part in parts
        if not re.match(r"(sub|ses|run|space|res|dir)-.", part.lower())
        for word in part.lower().split("-")
    ]

    def says(kind: re.Pattern) -> bool:
        return any(kind.fullmatch(word) for word in words)

    is_lesion = any(re.search("lesion|infarct|stroke|acute", word) for word in words)
    is_b0 = re.search(r"(^|[_-])b[_-]0+([_-]|$)", stem.lower())
    is_image = says(_DWI) or says(_MAP) or is_b0
    folders = [f for f in path.absolute().parents if f.is_relative_to(root.absolute())]
    named = [*parts, *(folder.name for folder in folders[:-1])]
    # Else the first word may be a patient's name, whatever it is.
    first = 0 if any(name.lower().startswith("sub-") for name in named) else 1
    no_scan = any(_NO_SCAN.fullmatch(w) for word in words[first:] for w in word.split("."))
    among_masks = _OF_MASKS.fullmatch(path.parent.name) and path.parent != root and not is_image
    if says(_MASK) or (says(_LESION) and (_LESION.fullmatch(words[-1]) or not is_image)):
        # A mask that is described, and not as a lesion's, is of something else.
        described = {"desc", "label"} & entities.keys() or re.search("-ma?sks?$", stem.lower())
        other = says(_NOT_ACUTE) or (says(_OTHER_MASK) and not is_lesion)
        kind = "other mask" if other or (described and not is_lesion) else "lesion mask"
        is_lesion |= "msk" in words
    elif _PERHAPS_MASK.fullmatch(words[-1] if words else "") or no_scan or among_masks:
        kind = "perhaps a mask"
    elif says(_DWI):
        kind = "map" if says(_MAP) or is_b0 else "scan"
    else:
        return None
    visits = [match for f in folders[:-1] if (match := _VISIT.fullmatch(f.name))]
    place = {"ses": "".join(filter(None, visits[0].groups()))} if visits else {}
    place |= {key: entities[key] for key in ("ses", "run", "space") if key in entities}
    place = {key: value.lower().lstrip("0") for key, value in place.items()}  # 01 is 1
    if place.get("space") in _HERE:
        del place["space"]
    return _Named(path, kind, _whose(stem, parts, folders), tuple(words), place, is_lesion)


def _whose(stem: str, parts: list[str], folders: list[Path]) -> str:
    """Find the patient in a file's name, or else in the names of the folders around it."""
    if match := re.search(r"(?:^|_)(sub-[^_]+)", stem, re.IGNORECASE):
        return match[1]
    if subjects := [f.name for f in folders[:-1] if f.name.lower().startswith("sub-")]:
        return subjects[0]
    own, kind_told = [], False
    for part in parts:
        if not re.match(r"(ses|run|space|desc|rec|acq|label)-.", part.lower()):
            no_names = [_DWI, _MAP, _MASK, _LESION]
            no_names += [_DONE, _NOT_ACUTE] if own or kind_told else [_MADE]
            words = part.split("-")
            words = [w for w in words if not any(no.fullmatch(w.lower()) for no in no_names)]
            kind_told |= any(_DWI.fullmatch(word) for word in part.lower().split("-"))
            if part is parts[-1] and _PERHAPS_MASK.fullmatch(part.lower()):
                continue
            if part is not parts[0] and re.fullmatch(f"(({_NO_SCAN.pattern})\\.?)+", part.lower()):
                continue
            own += ["-".join(words)] if words else []
    no_names = (_NO_PATIENT, _VISIT)
    named = (f.name for f in folders if not any(no.fullmatch(f.name) for no in no_names))
    return "_".join(own) or next(named, folders[-1].name)


def _choose(scans: list[_Named], masks: list[_Named], unused: dict[Path, str]) -> Case:
    """Take one scan of a patient, and its mask."""

    def of(scan: _Named) -> list[_Named]:
        """The masks in the same place: of the session and the run, as far as they are told."""
        return [
            mask
            for mask in masks
            if mask.place.get("space") == scan.place.get("space")
            and all(
                mask.place.get(key, scan.place.get(key)) == scan.place.get(key, mask.place.get(key))
                for key in ("ses", "run")
            )
        ]

    def one(kind: str, files: list[_Named], *preferred) -> _Named:
        files = sorted(files, key=lambda file: (not file.path.is_symlink(), file.path))
        files = sorted({os.path.realpath(file.path): file for file in files}.values())
        for is_better in preferred:
            files = [file for file in files if is_better(file)] or files
        if len(files) > 1:
            listed = " and ".join(str(file.path) for file in files)
            raise ValueError(
                f"{files[0].subject}: expected one {kind} per patient, found {listed}; remove all "
                "but one, name a folder that holds one, or write the patients down: Case(name, "
                "dwi, lesion)"
            )
        return files[0]

    scan = one(
        "scan",
        scans,
        of,  # a mask in a space of its own was drawn on the scan in that space
        lambda scan: "space" not in scan.place,
        lambda scan: any("trace" in word for word in scan.words),
        lambda scan: not any(_DONE.fullmatch(word) for word in scan.words),
    )
    mask = one("lesion mask", mine, lambda mask: mask.is_lesion) if (mine := of(scan)) else None
    kept = {os.path.realpath(file.path) for file in (scan, mask) if file}
    for file in (*scans, *masks):
        if os.path.realpath(file.path) not in kept:
            if file.kind == "scan" or file in mine:
                taken = scan if file.kind == "scan" else mask
                unused[file.path] = f"{taken.path.name} is taken for {scan.subject}"
            else:
                unused[file.path] = f"of another session, run or space than {scan.path.name}"
    return Case(scan.subject, scan.path, mask and mask.path)


def _unreadable(files: list[Path], search: bool) -> dict[Path, str]:
    """Tell how to convert what holds volumes in a format that is not read."""
    found: dict[Path, str] = {}
    dicom: set[Path] = set()
    for path in files:
        name = path.name.lower()
        suffix = next((suffix for suffix in _CONVERSIONS if name.endswith(suffix)), None)
        if suffix == ".img" and any(path.with_suffix(end) in found for end in (".hdr", ".HDR")):
            continue  # the other half of it
        if suffix:
            stem = path.name[: -len(suffix)]
            words = re.split(r"[_\s.-]+", stem.lower())
            kinds = (_DWI, _MASK, _LESION, _NO_SCAN)
            if search or any(kind.fullmatch(word) for kind in kinds for word in words):
                names = path, path.with_name(f"{stem}.nii.gz")
                command = _CONVERSIONS[suffix].format(*map(_for_the_shell, names))
                found[path] = f"{suffix[1:]} is not read, this converts it: {command}"
        elif path.parent not in dicom and (
            name.endswith((".dcm", ".ima"))
            or ((search or path.suffix[1:].isdigit() or not path.suffix) and _is_dicom(path))
        ):
            dicom.add(path.parent)
        elif not path.exists() and not path.suffix:
            found[path] = "a link to nothing"
    if dicom:
        folder = Path(os.path.commonpath(dicom))
        command = f"python -m tools.import_dicom {_for_the_shell(folder)} OUT"
        found[folder] = f"DICOM, this converts it: {command}"
    return found


def _for_the_shell(path: Path) -> str:
    return subprocess.list2cmdline([path]) if os.name == "nt" else shlex.quote(str(path))


def _is_dicom(path: Path) -> bool:
    if path.name.lower().endswith(_SUFFIXES):
        return False
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _natural(name: str) -> tuple[list[str | int], str]:
    parts = re.split(r"(\d+)", name)
    return [int(part) if part.isdecimal() else part for part in parts], name


def _read_oriented(path: str | Path, volume_index: int | None = None) -> sitk.Image:
    """Read one 3-D volume as float32 in LPS; NaN and infinity stay what they are."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: expected a volume, found no such file")
    if not path.name.lower().endswith(_SUFFIXES):
        raise VolumeReadError(f"{path}: expected a .nii, .nii.gz or .mha file")
    try:
        # What overflows is counted with the other infinities.
        with np.errstate(over="ignore", invalid="ignore"):
            voxels, geometry = (_read_mha if path.suffix.lower() == ".mha" else _read_nifti)(path)
            voxels = _as_float32(voxels)
    except _Fault as fault:
        raise VolumeReadError(f"{path}: {fault}") from fault
    except Exception as error:  # two readers and two decompressors, each with errors of its own
        raise VolumeReadError(
            f"{path}: expected a file in good order, found {type(error).__name__}: "
            f"{str(error).strip().splitlines()[-1] if str(error).strip() else 'no more is said'}"
        ) from error
    image = sitk.GetImageFromArray(_pick_volume(voxels, volume_index, path))
    _require_place(geometry, path)
    image.SetSpacing(geometry.spacing[::-1])
    image.SetOrigin(geometry.origin[::-1])
    image.SetDirection(geometry.direction[::-1])
    return sitk.DICOMOrient(image, "LPS")


def _read_nifti(path: Path) -> tuple[np.ndarray, Geometry]:
    content = path.read_bytes()
    if path.suffix.lower() == ".gz":
        if content and not content.startswith(_GZIP):
            raise _Fault("expected gzip, as its name .nii.gz says, found a file that is not")
        content = gzip.decompress(content)  # to the checksum at its end
        if content.startswith(_GZIP):
            raise _Fault("expected NIfTI in gzip, found gzip in gzip; gunzip it once")
    elif content.startswith(_GZIP):
        raise _Fault("expected plain NIfTI, as its name .nii says, found gzip; name it .nii.gz")
    kind = nib.Nifti2Header if content[4:8] == b"n+2\0" else nib.Nifti1Header
    if len(content) < kind.sizeof_hdr:
        raise _Fault(f"expected a NIfTI header of {kind.sizeof_hdr} bytes, found {len(content)}")
    header = kind(content[: kind.sizeof_hdr], check=False)
    if header["magic"] != header.single_magic:
        found = header["magic"].item()
        raise _Fault(f"expected a NIfTI header, marked {header.single_magic}, found {found}")
    # What nibabel would repair, and tell stderr, is an error here.
    header.check_fix(logging.Logger("unheard", logging.CRITICAL), error_level=30)
    voxels = memoryview(content)[header.get_data_offset() :]
    size, dtype = header.get_data_shape(), header.get_data_dtype()
    _require_bytes(voxels, math.prod(size) * dtype.itemsize)
    return header.data_from_fileobj(io.BytesIO(content)).T, _nifti_geometry(header)


def _nifti_geometry(header: nib.Nifti1Header) -> Geometry:
    """Where the qform says the voxels lie, or the sform, or both if they agree."""
    code = int(header["xyzt_units"]) % 8  # the rest is the unit of time
    if code not in _MILLIMETRES:
        raise _Fault(
            "expected lengths in metres (1), millimetres (2) or microns (3), found "
            f"{code} as the unit in its header (xyzt_units {header['xyzt_units']})"
        )
    # A qform that has to be mended is no witness against an sform.
    mended = _mend_quaternion(header)
    names = ("sform",) if mended and header["sform_code"] else ("qform", "sform")
    to_lps = _MILLIMETRES[code] * np.diag([-1, -1, 1])
    found = {}
    for name in names:
        affine, _ = getattr(header, f"get_{name}")(coded=True)
        if affine is not None:
            axes = to_lps @ affine[:3, :3]
            spacing = np.linalg.norm(axes, axis=0)
            size, origin = header.get_data_shape()[:3], to_lps @ affine[:3, 3]
            found[name] = _as_geometry(size, spacing, origin, axes / spacing)
    if not found:
        raise _Fault(
            "expected a place in the patient, found neither a qform nor an sform: nothing says "
            "which side is left"
        )
    if len(found) == 2 and (name := _difference(*found.values())):
        qform, sform = (getattr(geometry, name) for geometry in found.values())
        raise _Fault(
            f"expected one place, found two: the qform has the {name} {qform}, the sform {sform}"
        )
    return next(iter(found.values()))


def _mend_quaternion(header: nib.Nifti1Header) -> bool:
    """Shorten the qform's quaternion to 1 where rounding made it longer; tell whether it did."""
    names = ("quatern_b", "quatern_c", "quatern_d")
    parts = np.array([header[name] for name in names], dtype=float)
    length = np.linalg.norm(parts)
    if header["qform_code"] == 0 or length <= 1:
        return False
    if not length < 1 + _TOLERANCES["direction"]:
        raise _Fault(
            f"expected a qform whose quaternion is no longer than 1, found {parts.tolist()}, "
            f"of length {length:.9g}"
        )
    # A hair less than 1, so that single precision does not make it longer again.
    for name, part in zip(names, parts / length * (1 - 1e-7), strict=True):
        header[name] = part
    return True


def _read_mha(path: Path) -> tuple[np.ndarray, Geometry]:
    _check_mha(path.read_bytes())
    with silent_stderr():
        image = sitk.ReadImage(str(path), imageIO="MetaImageIO")
    return sitk.GetArrayFromImage(image), _geometry(image)


def _check_mha(content: bytes) -> None:
    """Find what SimpleITK would read wrongly without an error."""
    # As it does, up to the end of the line that says that the voxels follow.
    header = re.match(rb"(?:[^\n]*\n)*?\s*ElementDataFile\s*[=:]([^\n]*)\n", content)
    if header is None:
        raise _Fault("expected a MetaImage header, found none that ends in ElementDataFile")
    text, voxels = header[0].decode("latin-1"), content[header.end() :]
    fields = dict(re.findall(r"^[ \t]*(\w+)\s*[=:][ \t]*(.*?)\s*$", text, re.MULTILINE))
    if fields["ElementDataFile"].upper() != "LOCAL":
        raise _Fault(f"expected voxels in the file, found them in {fields['ElementDataFile']!r}")
    if missing := {"NDims", "DimSize", "ElementType"} - fields.keys():
        raise _Fault(f"expected a MetaImage header, found one without {', '.join(sorted(missing))}")
    (n_axes,) = _numbers(fields, "NDims", 1)
    size = _numbers(fields, "DimSize", int(n_axes))
    if min(size) < 1:
        raise _Fault(f"expected voxels along each axis, found DimSize {fields['DimSize']}")
    for names, count in _MHA_GEOMETRY.items():
        name = next((name for name in names if name in fields), None)
        if name is None:
            raise _Fault(f"expected a place in the patient, found a header without {names[0]}")
        values = _numbers(fields, name, count(int(n_axes)))
        if names[0] == "ElementSpacing" and min(values[:3]) <= 0:
            raise _Fault(f"expected positive spacing, found {fields[name]}")
    if fields["ElementType"] not in _MHA_BYTES:
        raise _Fault(f"expected voxels of numbers, found ElementType {fields['ElementType']}")
    if (n_channels := fields.get("ElementNumberOfChannels", "1")) != "1":
        raise _Fault(f"expected a scan, found not one number per voxel but {n_channels}")
    if not _flag(fields, "BinaryData", default=True):
        raise _Fault("expected binary voxels, found BinaryData = False: written out as text")
    for name in ("BinaryDataByteOrderMSB", "ElementByteOrderMSB"):
        _flag(fields, name)
    if fields.get("HeaderSize", "0") not in ("0", "-1"):
        raise _Fault(f"expected voxels after the header, found HeaderSize {fields['HeaderSize']}")
    if _flag(fields, "CompressedData"):
        if (told := fields.get("CompressedDataSize")) != str(len(voxels)):
            raise _Fault(
                f"expected the file to end with its compressed voxels, found {len(voxels)} bytes "
                f"where CompressedDataSize says {told}"
            )
        stream = zlib.decompressobj()
        voxels = stream.decompress(voxels)
        if not stream.eof or stream.unused_data:  # the checksum is its last word
            raise _Fault("expected compressed voxels that end where the file does, found others")
    _require_bytes(voxels, math.prod(map(int, size)) * _MHA_BYTES[fields["ElementType"]])


def _numbers(fields: dict[str, str], name: str, count: int) -> list[float]:
    """Read a field's numbers, all of which must be some; SimpleITK takes 0 for what is none."""
    try:
        numbers = [float(word) for word in re.split(r"[,\s]+", fields[name])]
    except ValueError:
        numbers = []
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise _Fault(f"expected {count} finite numbers as {name}, found {fields[name]!r}")
    return numbers


def _flag(fields: dict[str, str], name: str, default: bool = False) -> bool:
    """Read yes or no, by its first letter as SimpleITK does, which takes any other for no."""
    found = fields.get(name, str(default))
    if found[:1] not in tuple("Tt1Ff0"):
        raise _Fault(f"expected {name} to be True or False, found {found!r}")
    return found[0] in "Tt1"


def _require_bytes(voxels: bytes, expected: int) -> None:
    if len(voxels) != expected:
        raise _Fault(
            f"expected a complete volume, found {len(voxels)} bytes of voxels where its header "
            f"asks for {expected}"
        )


def _as_float32(voxels: np.ndarray) -> np.ndarray:
    if voxels.dtype.kind not in "iuf":
        raise _Fault(f"expected a scan, found not one real number per voxel but {voxels.dtype}")
    return voxels.astype(np.float32)


def _pick_volume(voxels: np.ndarray, volume_index: int | None, path: Path) -> np.ndarray:
    if voxels.ndim < 3 or voxels.size == 0:
        raise VolumeReadError(f"{path}: expected voxels along three axes, found {voxels.shape}")
    volumes = voxels.reshape(-1, *voxels.shape[-3:])
    if volume_index is None and len(volumes) == 1:
        volume_index = 0
    if volume_index not in range(len(volumes)):
        raise ValueError(
            f"{path}: expected volume_index from 0 to {len(volumes) - 1} to pick one of its "
            f"{len(volumes)} volumes (shape {voxels.shape}), found {volume_index!r}"
        )
    return volumes[int(volume_index)]


def _geometry(image: sitk.Image) -> Geometry:
    """Read the geometry of the first three axes: of a fourth, time, only the voxels matter."""
    n_axes = image.GetDimension()
    axes = np.reshape(image.GetDirection(), (n_axes, n_axes))[:3, :3]
    return _as_geometry(image.GetSize()[:3], image.GetSpacing()[:3], image.GetOrigin()[:3], axes)


def _as_geometry(*fields: ArrayLike) -> Geometry:
    """Turn size, spacing, origin and direction from (x, y, z) to the array's order."""
    return Geometry(*(tuple(np.ravel(field)[::-1].tolist()) for field in fields))


def _require_place(geometry: Geometry, path: Path) -> None:
    """Refuse a header that is no place in a patient: lengths must be lengths, axes not sheared."""
    rotation = np.reshape(geometry.direction, (3, 3))
    skew = np.abs(rotation.T @ rotation - np.eye(3)).max()
    lengths = np.array(geometry.spacing)
    # A comparison with NaN is false.
    if not (
        skew < _TOLERANCES["direction"]
        and (0 < lengths).all()
        and np.isfinite([*lengths, *geometry.origin]).all()
    ):
        raise VolumeReadError(
            f"{path}: expected positive spacing, a finite origin and axes at right angles, found "
            f"{geometry}"
        )
    if (lengths < _SHORTEST_VOXEL).any() or lengths.prod() < _SMALLEST_VOXEL:
        raise VolumeReadError(
            f"{path}: expected voxels of at least {_SHORTEST_VOXEL:g} mm and "
            f"{_SMALLEST_VOXEL:g} mm³, found a spacing of {geometry.spacing} mm (z, y, x); is the "
            "unit in its header right?"
        )
    extent = lengths * geometry.size
    if (lengths > _LONGEST_VOXEL).any() or (extent > _LONGEST_EXTENT).any():
        raise VolumeReadError(
            f"{path}: expected voxels of at most {_LONGEST_VOXEL:g} mm and at most "
            f"{_LONGEST_EXTENT:g} mm of them, found a spacing of {geometry.spacing} mm (z, y, x) "
            f"and an extent of {tuple(extent.tolist())} mm; is the unit in its header right?"
        )


def _difference(expected: Geometry, found: Geometry) -> str | None:
    """Name the first field in which two geometries differ by more than rounding noise."""
    for name, tolerance in _TOLERANCES.items():
        if not np.allclose(getattr(found, name), getattr(expected, name), rtol=0, atol=tolerance):
            return name
    return None


def _require_finite(image: sitk.Image, path: str | Path) -> None:
    voxels = sitk.GetArrayViewFromImage(image)
    if n_bad := np.count_nonzero(~np.isfinite(voxels)):
        raise VolumeReadError(
            f"{path}: expected finite intensities (float32), found {n_bad} of {voxels.size} voxels "
            "NaN or infinite"
        )


def _read_mask(path: Path, image: sitk.Image, scan: Path) -> sitk.Image:
    """Read a mask of 0 and 1 that lies on the voxels of an image."""
    mask = _read_oriented(path)
    expected, found = _geometry(image), _geometry(mask)
    if name := _difference(expected, found):
        raise GeometryMismatchError(
            f"{path}: expected the {name} {getattr(expected, name)} (z, y, x in LPS) of {scan}, "
            f"found {getattr(found, name)}"
        )
    mask = _binarise(mask, path)
    mask.CopyInformation(image)  # the header's rounding noise ends here
    return mask


def _binarise(mask: sitk.Image, path: Path) -> sitk.Image:
    found = np.unique(sitk.GetArrayViewFromImage(mask))
    # A slope a rounding away from one moves a label by as much.
    labels = set(np.where(np.isclose(found, np.rint(found), rtol=1e-6), np.rint(found), found))
    if not (labels <= {0, 1} or labels <= {0, 255}):
        shown = ", ".join(np.format_float_positional(value, trim="-") for value in found[:5])
        more = ", …" if len(found) > 5 else ""
        raise LabelError(f"{path}: expected labels 0 and 1, or 0 and 255, found {shown}{more}")
    return mask > 0.5


def _checked_brain(brain: str | Path) -> str | Path:
    words = ("auto", "stripped", "find")
    if isinstance(brain, str) and brain in words:
        return brain
    # A word misspelt is no missing file.
    if isinstance(brain, Path) or (isinstance(brain, str) and Path(brain).is_file()):
        return Path(brain)
    raise ValueError(f"brain must be one of {words} or the path of a mask, found {brain!r}")


def _find_brain(image: sitk.Image, how: str, path: Path) -> sitk.Image | None:
    """Find the brain in a head with its skull on; None stands for everything above zero."""
    dwi, spacing = sitk.GetArrayViewFromImage(image), _geometry(image).spacing
    low, high = dwi.min(), dwi.max()
    if low == high or high <= 0:
        raise VolumeReadError(
            f"{path}: expected a brain above zero, found intensities from {low:g} to {high:g}"
        )
    voxel = math.prod(spacing) / 1000
    is_crop = voxel * dwi.size < _BRAIN_ML[0]
    # Filters leave a few voxels a little below zero; what was centred leaves its air far below.
    far_below = np.mean(dwi < -0.05 * high)
    if far_below > 0.01 and not is_crop:
        raise VolumeReadError(
            f"{path}: expected intensities from zero upwards, found {far_below:.0%} of the voxels "
            f"far below (from {low:g} to {high:g}), as after z-scoring, which would leave a brain "
            f"of {np.sum(dwi > 0) * voxel:.0f} ml above zero; give the scan as the scanner wrote "
            "it, or the brain's mask (brain=PATH)"
        )
    if how == "stripped" or (how == "auto" and (is_crop or _is_stripped(dwi, spacing))):
        return None
    try:
        found = sitk.GetImageFromArray(find_brain(dwi, spacing).astype(np.uint8))
    except ValueError as error:
        raise VolumeReadError(
            f"{path}: {error}; where it has no skull, brain='stripped' takes all above zero"
        ) from error
    found.CopyInformation(image)
    return found


def _is_stripped(dwi: np.ndarray, spacing: Sequence[float]) -> bool:
    """Tell whether the air is exactly zero and has brain beside it, not scalp and bone."""
    above = dwi > 0
    ml = above.sum() * math.prod(spacing) / 1000
    if above.mean() > 0.9 or round(ml, -2) > _BRAIN_ML[1]:
        return False
    step = max(1, round(2.0 / min(spacing[1:])))  # every 2 mm are enough
    above, dwi = (values[:, ::step, ::step] for values in (above, dwi))
    if not above.any():
        return True
    (box,) = find_objects(above.astype(np.uint8))  # beyond it is air
    # Slice by slice, because the volume may be a slab that goes on above and below.
    sampling = (1e6, step * spacing[1], step * spacing[2])
    depth = distance_transform_edt(np.pad(above[box], ((0, 0), (1, 1), (1, 1))), sampling)
    depth = depth[:, 1:-1, 1:-1]
    rim, core = (dwi[box][where] for where in ((depth > 2) & (depth < 8), depth > 20))
    return not (rim.size and core.size) or bool(np.median(rim) > 0.5 * np.median(core))


def _doubts(image: sitk.Image, found: sitk.Image | None, lesion: sitk.Image | None) -> list[str]:
    """Say what makes a brain unlikely to be one; of a small crop, nothing is known."""
    dwi, spacing = sitk.GetArrayViewFromImage(image), _geometry(image).spacing
    brain = dwi > 0 if found is None else sitk.GetArrayViewFromImage(found) > 0
    (least, most), voxel = _BRAIN_ML, math.prod(spacing) / 1000
    if brain.size * voxel < least:
        return []
    doubts, ml = [], brain.sum() * voxel
    is_whole = (np.multiply(brain.shape, spacing) >= _HEAD_MM).all()
    if round(ml, -2) > most or (ml < least and is_whole):
        doubts.append(f"expected a brain of {least:g} to {most:g} ml in a head, found {ml:.0f} ml")
    if all(brain.take(end, axis).any() for axis in range(3) for end in (0, -1)):
        doubts.append(f"expected air around the brain, found all six sides in its {ml:.0f} ml")
    if lesion and (share := np.mean(sitk.GetArrayViewFromImage(lesion)[brain] > 0)) > 0.5:
        doubts.append(f"expected a lesion's mask, found one of {share:.0%} of the brain")
    if (below := np.mean(dwi < 0)) > 0.01:
        doubts.append(
            f"expected intensities from zero upwards, found {below:.0%} of the voxels below, and a "
            f"brain of {ml:.0f} ml"
        )
    return doubts


def _checked_spacing(spacing: Sequence[float]) -> tuple[float, ...]:
    try:
        checked = tuple(float(length) for length in spacing)
    except (TypeError, ValueError):
        checked = ()
    if len(checked) != 3 or not all(0 < length < math.inf for length in checked):
        raise ValueError(
            f"spacing must be three positive lengths (z, y, x) in mm, found {spacing!r}"
        )
    return checked


def _resample(
    image: sitk.Image, spacing: Sequence[float], interpolator: int, path: Path
) -> sitk.Image:
    """Change the voxel size; the outer faces of the first voxels stay where they are."""
    old, new = np.array(image.GetSpacing()), np.array(spacing[::-1])
    if np.allclose(old, new, rtol=1e-6, atol=0):
        return image
    extent = image.GetSize() * old
    size = np.rint(extent / new).astype(int).tolist()
    if 0 in size:
        raise ValueError(
            f"spacing must leave a voxel of the scan's {extent[::-1].tolist()} mm (z, y, x), "
            f"found {tuple(spacing)}"
        )
    free = psutil.virtual_memory().available
    if (needed := _BYTES_PER_VOXEL * math.prod(size)) > free:
        raise ValueError(
            f"{path}: expected a spacing at which the scan's {extent[::-1].tolist()} mm (z, y, x) "
            f"fit into memory, found {tuple(spacing)} mm: {math.prod(size):.2g} voxels, which take "
            f"{needed / 2**30:.3g} GiB of which {free / 2**30:.3g} are free"
        )
    origin = image.TransformContinuousIndexToPhysicalPoint(((new / old - 1) / 2).tolist())
    return sitk.Resample(
        image, size, sitk.Transform(), interpolator, origin, new.tolist(), image.GetDirection()
    )
