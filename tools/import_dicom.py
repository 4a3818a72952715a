"""From DICOM to scans: ``python -m tools.import_dicom FOLDER OUT`` takes each patient's DWI.

dcm2niix converts. What is here finds the series in a folder of any depth, sees that no image is
missing, takes the diffusion-weighted volume, and leaves behind what tells who the patient is. Not
the face: a head with its skull on can be recognised, whatever its file is called.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import re
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import dcm2niix
import nibabel as nib
import numpy as np
import pydicom
from pydicom.encaps import encapsulate, generate_frames
from pydicom.tag import Tag
from pydicom.uid import MediaStorageDirectoryStorage
from scipy.stats import gmean
from tqdm import tqdm

from helpers import in_words
from helpers.scans import load_volume
from tools import speak_to_any_console

# Below this b-value, in s/mm², an image shows T2 rather than diffusion: fluid is still bright.
_LOWEST_B = 300
# No head is longer, in mm.
_HEAD = 350
_TAGS = (
    "PatientID PatientName StudyInstanceUID SeriesInstanceUID SOPInstanceUID SOPClassUID Modality "
    "SeriesNumber SeriesDescription ImageType AcquisitionNumber InstanceNumber "
    "ImagePositionPatient ImageOrientationPatient PixelSpacing NumberOfFrames DiffusionBValue "
    "DiffusionDirectionality ImagesInAcquisition"
).split()
# Where older software of Siemens, GE, Philips and United Imaging has the b-value.
_PRIVATE_B_VALUES = (
    ("SIEMENS MR HEADER", 0x0019, 0x0C),
    ("GEMS_PARM_01", 0x0043, 0x39),
    ("Philips Imaging DD 001", 0x2001, 0x03),
    ("Image Private Header", 0x0065, 0x09),
)
_PRIVATE_TAGS = [Tag(group, 0x1000 + at) for _, group, at in _PRIVATE_B_VALUES]
_PRIVATE_TAGS += [Tag(group, 0x0010) for _, group, _ in _PRIVATE_B_VALUES]  # whose they are
# Words of an image's type or of a series' name, in small letters and between signs.
_MAP = re.compile(
    r"[a-z]?adc(map|trace\w*)?\d?|avdc|dc|(col|color)?fa(map|col|color)?|md|rd|expon\w*|exp|tensor"
    r"|coeff\w*|\w*koeffizient\w*|fract|fractional|aniso\w*|mask|phase"
)
_UNWEIGHTED = re.compile(r"\bb ?0+\b|\bt2w?\b|\blow ?b\b|\bsbref\b|\bnodif\b")
_TRACE = re.compile(r"trace\w*|isotropic|iso")
_DIFFUSION = re.compile(r"dwi\w*|\w*diff\w*|trace\w*|b[1-9]\d{2,3}\w?")


_Files = dict[Path, pydicom.Dataset]  # each with its header


@dataclass(frozen=True)
class _Series:
    """The images of one series, as far as their headers tell.

    Some scanners put the maps that they compute into the series that they compute them from. These
    are a series of their own here; `numbers` are those of all images, to know which is missing.
    """

    headers: _Files
    numbers: set[int]

    @property
    def first(self) -> pydicom.Dataset:
        return next(iter(self.headers.values()))

    @property
    def patient(self) -> tuple[str, str]:
        known = [str(self.first.get(k, "")).upper() for k in ("PatientID", "PatientName")]
        known = [text.strip(" ^") for text in known]  # empty parts of a name may be left out
        return tuple(known) if any(known) else (str(self.first.get("StudyInstanceUID", "")), "")

    @property
    def name(self) -> list[str]:
        return _words(self.first, "SeriesDescription")

    @property
    def types(self) -> list[str]:
        return _words(self.first, "ImageType")

    def __str__(self) -> str:
        name = str(self.first.get("SeriesDescription", "")) or "without a name"
        return f"series {self.first.get('SeriesNumber', '?')} ({name}), {len(self.headers)} files"


class _Converted(NamedTuple):
    """A volume as dcm2niix makes it; of b-value and direction, NaN is what is not told."""

    data: np.ndarray  # (x, y, z)
    affine: np.ndarray
    b_value: float
    direction: np.ndarray
    facts: dict[str, float]


@dataclass(frozen=True)
class _Volume:
    """A diffusion-weighted volume, and how it was chosen."""

    series: _Series
    image: nib.Nifti1Image
    b_value: float | None
    is_trace: bool
    why: str
    facts: dict[str, float]

    @property
    def rank(self) -> tuple:
        later = self.series.first.get("SeriesNumber") or 0
        return self.is_trace, self.b_value or 0, self.image.shape[2], later


class _Unusable(ValueError):
    """Why a series is left, in words."""


def _words(header: pydicom.Dataset, tag: str) -> list[str]:
    return re.findall(r"[^\W_]+", str(header.get(tag, "")).lower())


def import_dicom(
    folder: str | os.PathLike, out: str | os.PathLike, *, name: str | None = None
) -> list[Path]:
    """Write the diffusion-weighted scan of each patient in a folder of DICOM files.

    Of a series, the trace-weighted volume is taken, else the one with the highest b-value; where
    that was measured in several directions, their geometric mean, which is trace-weighted. Of
    several series, a trace-weighted one comes first, then the highest b-value, the most slices,
    the latest. What was taken, and why, and what was left is printed.

    Parameters
    ----------
    folder : path
        DICOM files of one patient or of many, at any depth, among other files or not.
    out : path
        Where ``sub-<name>_dwi.nii.gz`` and a side-car go; made if missing. Scans that are there
        already keep their names, and are not written twice.
    name : str, optional
        The patient's name in the file's name, letters and digits; for a folder with one patient.
        Else patients are numbered, and go on from the numbers that are there.

    Returns
    -------
    list of Path
        The scans, which `helpers.scans.find_cases` finds: in the scanner's own voxels, with
        nothing of the patient in name, header or side-car.

    Raises
    ------
    FileNotFoundError
        There is no such folder, or no DICOM file in it.
    FileExistsError
        There is another scan of that name.
    OSError
        A folder cannot be listed or written to.
    ValueError
        No series is a diffusion-weighted scan that can be used, or the name cannot name a file.

    Examples
    --------
    >>> import_dicom("no-such-folder", "data/clinic")
    Traceback (most recent call last):
    ...
    FileNotFoundError: no-such-folder: expected a folder of DICOM files, found no folder
    >>> from helpers.scans import find_cases
    >>> import_dicom("from_the_scanner", "data/clinic")  # doctest: +SKIP
    >>> [case.subject_id for case in find_cases("data/clinic")]  # doctest: +SKIP
    ['sub-1', 'sub-2']
    """
    out = Path(out)
    if name is not None and not re.fullmatch(r"[A-Za-z0-9]+", name):
        raise ValueError(f"name: expected letters and digits, found {name!r}")
    patients: dict[tuple[str, str], list[_Volume]] = {}
    found, left = _find_series(Path(folder))
    for series in tqdm(found, desc="Series", unit="series", leave=False):
        try:
            volume = _take_volume(series)
            _require_readable(volume.image)
        except OSError:
            raise  # the disk or a program that is missing, not the series
        except Exception as error:  # a header may hold anything; it costs its own series only
            reason = str(error) if isinstance(error, _Unusable) else in_words(error)
            left.append(f"left: {series}: {reason}")
        else:
            patients.setdefault(series.patient, []).append(volume)
    taken = [max(volumes, key=lambda volume: volume.rank) for volumes in patients.values()]
    if not taken:
        raise ValueError(
            f"{folder}: expected a diffusion-weighted series, found none that can be used; "
            + "; ".join(left)
        )
    if name is not None and len(taken) > 1:
        raise ValueError(f"name: expected one patient in {folder}, found {len(taken)}")
    out.mkdir(parents=True, exist_ok=True)
    written = [_write(volume, out, name) for volume in taken]
    for path, volume in zip(written, taken, strict=True):
        n_slices, step = volume.image.shape[2], volume.image.header.get_zooms()[2]
        extent = f"{n_slices} slices over {n_slices * step:.0f} mm"
        print(f"{path}: {volume.series}: {volume.why}; {extent}")
        for other in patients[volume.series.patient]:
            if other is not volume:
                print(
                    f"left: {other.series}: {other.why}; of this patient, {volume.series} was "
                    f"taken, because {_advantage(volume, other)}"
                )
    print(*left, sep="\n", end="\n" if left else "")
    return list(dict.fromkeys(written))


def _find_series(folder: Path) -> tuple[list[_Series], list[str]]:
    """Read the headers of all DICOM files, and put those of one patient's series together."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: expected a folder of DICOM files, found no folder")
    series: dict[tuple, _Series] = {}
    numbers: dict[str, set[int]] = {}
    images, others, damaged = set(), Counter(), []
    for path in tqdm(_walk(folder), desc="Files", unit="file", leave=False):
        if path.is_symlink() and not path.exists():
            damaged.append(f"left: {path}: expected a file, found a link to what is not there")
            continue
        header = _read_header(path)
        if header is None:
            others["".join(path.suffixes[-2:]).lower() or "no suffix"] += 1
        elif header.get("SOPClassUID") == MediaStorageDirectoryStorage:
            continue  # DICOMDIR, the table of contents of a disc
        elif not (uid := str(header.get("SeriesInstanceUID", ""))):
            damaged.append(
                f"left: {path}: expected a DICOM image, found one cut short, damaged, or without "
                "the number of its series (SeriesInstanceUID)"
            )
        elif (image := str(header.get("SOPInstanceUID", path))) not in images:
            images.add(image)  # the same file may lie in two folders
            numbers.setdefault(uid, set()).add(int(header.get("InstanceNumber") or 0))
            one = _Series({path: header}, numbers[uid])
            maps = tuple(word for word in one.types if _MAP.fullmatch(word))
            series.setdefault((one.patient, uid, maps), one).headers[path] = header
    if not series:
        kinds = ", ".join(f"{n} with {suffix}" for suffix, n in others.most_common(5))
        hint = "; unpack the archive first" if any("zip" in suffix for suffix in others) else ""
        raise FileNotFoundError(
            f"{folder}: expected DICOM files, found {others.total()} other files"
            + (f" ({kinds}){hint}" if kinds else "")
            + "".join(f"; {line}" for line in damaged)
        )
    return list(series.values()), damaged


def _walk(folder: Path) -> Iterator[Path]:
    """Go through all files beneath a folder, through links too, and to none of them twice."""
    seen = set()

    def stop(error: OSError) -> None:
        raise error

    for root, folders, files in os.walk(folder, followlinks=True, onerror=stop):
        if (place := os.path.realpath(root)) in seen:
            folders.clear()
            continue
        seen.add(place)
        folders.sort()
        for path in (Path(root, file) for file in sorted(files)):
            if path.is_file() or path.is_symlink():
                yield path


def _read_header(path: Path) -> pydicom.Dataset | None:
    """Read what is needed of a DICOM file's header; None where it is no DICOM file."""
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # clinics' headers break rules that do not matter here
        start = file.read(132)
        file.seek(0)
        bare = start[:2] == b"\x08\x00"  # without the preamble, as old archives send it
        if not bare and start[128:] != b"DICM":
            return None
        try:
            tags = [*_TAGS, *_PRIVATE_TAGS]
            header = pydicom.dcmread(file, force=bare, stop_before_pixels=True, specific_tags=tags)
            for tag in _TAGS:  # pydicom makes sense of a value when it is asked for
                header.get(tag)
            if header.get("DiffusionBValue") is None:
                header.DiffusionBValue = _private_b_value(header)
        except Exception:  # whatever damage does to a parser
            return pydicom.Dataset()
        # A table of contents says what it is before its header begins.
        meta = getattr(header, "file_meta", {})
        header.SOPClassUID = meta.get("MediaStorageSOPClassUID", header.get("SOPClassUID", ""))
        return header


def _private_b_value(header: pydicom.Dataset) -> float | None:
    """Read the b-value where a maker kept it before there was a place for it."""
    for creator, group, at in _PRIVATE_B_VALUES:
        try:
            value = header.private_block(group, creator)[at].value
            if isinstance(value, bytes):  # of a type that was not written down
                value = value.decode("ascii").rstrip("\0 ").split("\\")
            return float(np.ravel(value)[0]) % 1e8  # GE adds 1e9 to some
        except (KeyError, ValueError, IndexError):  # none, or none that can be read
            continue
    return None


def _take_volume(series: _Series) -> _Volume:
    """Convert a series and take its diffusion-weighted volume, or say why there is none."""
    if (modality := series.first.get("Modality") or "MR") != "MR":
        raise _Unusable(f"it is no MRI but {modality}")
    if maps := [word for word in series.types if _MAP.fullmatch(word)]:
        raise _Unusable(f"it is a map ({maps[0].upper()}), not a scan")
    with tempfile.TemporaryDirectory() as temporary:
        volumes = [
            volume for files in _split(series, Path(temporary)) for volume in _convert(files)
        ]
    b_values = np.array([volume.b_value for volume in volumes])
    if (b_values > 0).any():
        b_values[np.isnan(b_values)] = 0  # where only weighted volumes have one
    directions = np.array([volume.direction for volume in volumes])
    named = [word for word in series.name if _MAP.fullmatch(word)]
    if named and len(np.unique(b_values)) < 2:
        raise _Unusable(f"by its name it is a map ({named[0].upper()}), not a scan")
    is_trace = any(_TRACE.fullmatch(word) for word in series.name + series.types)
    if np.isnan(b_values).any():
        return _without_b_value(series, volumes, is_trace)
    highest = float(b_values.max())
    if highest < _LOWEST_B:
        raise _Unusable(f"its highest b-value is {highest:g}, expected at least {_LOWEST_B}")
    # A scanner may round what it applied, or vary it a little from one direction to the next.
    chosen = np.flatnonzero(b_values > 0.95 * highest)
    # A b-value without a direction is that of a trace-weighted volume.
    still = chosen[(directions[chosen] == 0).all(axis=1)]
    if 0 < len(still) < len(chosen):
        chosen = still[-1:]  # the scanner put it behind the directions that it is made of
    is_trace |= len(chosen) == 1 and len(still) > 0
    why = f"b = {highest:g}"
    if len(lower := np.unique(b_values)) > 1:
        why += f", the highest of {_listed(lower)}"
    if len(volumes) > 1 and len(chosen) == 1:
        why += f", volume {chosen[0] + 1} of {len(volumes)}"
    if len(chosen) > 1:
        why += f", the geometric mean of {len(chosen)} volumes, which is trace-weighted"
    elif is_trace:
        why += ", trace-weighted by the scanner"
    elif np.isfinite(directions[chosen]).all():
        why += ", of one direction, not trace-weighted"
    return _Volume(
        series, _merge([volumes[i] for i in chosen]), highest, is_trace, why, volumes[0].facts
    )


def _without_b_value(series: _Series, volumes: list[_Converted], is_trace: bool) -> _Volume:
    """Take a volume by the name of its series, for want of anything better."""
    if not any(_DIFFUSION.fullmatch(word) for word in series.name + series.types):
        raise _Unusable("nothing in it says that it is diffusion-weighted")
    if len(volumes) > 1:
        raise _Unusable(f"it has {len(volumes)} volumes, and nothing says which b-value each has")
    if found := _UNWEIGHTED.search(" ".join(series.name)):
        raise _Unusable(f"by its name it has no diffusion weighting ({found[0]})")
    why = "by its name it is diffusion-weighted; its b-value is not told"
    return _Volume(series, _merge(volumes), None, is_trace, why, volumes[0].facts)


def _listed(b_values) -> str:
    return ", ".join(f"{b:g}" for b in sorted(b_values))


def _advantage(one: _Volume, other: _Volume) -> str:
    """Say in what a volume comes before another one."""
    reasons = ("it is trace-weighted", "its b-value is higher", "it has more slices", "it is later")
    pairs = zip(one.rank, other.rank, reasons, strict=True)
    return next((reason for mine, its, reason in pairs if mine > its), "it came first")


def _split(series: _Series, folder: Path) -> list[_Files]:
    """Share the images of a series out among its volumes, or say what is missing of it.

    dcm2niix would do so, too. But where images are missing, or come slice by slice, it makes
    volumes of what there is, mixed, and only sometimes says so. A file with several frames is taken
    apart into the folder, a file a volume: there it mistakes b-values.
    """
    paths, headers = list(series.headers), list(series.headers.values())
    if any(int(header.get("NumberOfFrames") or 1) > 1 for header in headers):
        return [files for path in paths for files in _split_frames(path, folder)]
    return [
        {paths[i]: headers[i] for i in volume}
        for volume in _share(headers, series.numbers, "original" in series.types)
    ]


def _split_frames(path: Path, folder: Path) -> list[_Files]:
    """Write each volume of a file with several frames into a file of its own."""
    try:
        whole = pydicom.dcmread(path)
        n_frames = int(whole.get("NumberOfFrames") or 1)
        if n_frames == 1 or "PerFrameFunctionalGroupsSequence" not in whole:
            return [{path: _read_header(path)}]
        if "PixelData" not in whole:
            raise ValueError("it has no pixels")
        if whole.file_meta.TransferSyntaxUID.is_encapsulated:
            pixels = list(generate_frames(whole.PixelData, number_of_frames=n_frames))
        else:
            n_bytes = whole.Rows * whole.Columns * whole.BitsAllocated // 8
            pixels = [whole.PixelData[i * n_bytes :][:n_bytes] for i in range(n_frames)]
            if len(pixels[-1]) < n_bytes:
                raise ValueError(f"its pixels end after {len(whole.PixelData):,} bytes")
        groups = list(whole.PerFrameFunctionalGroupsSequence)
        frames = [_frame_header(whole, group, number) for number, group in enumerate(groups)]
    except Exception as error:  # whatever damage does to a parser
        raise _Unusable(f"{path} is cut short or damaged: {in_words(error)}") from error
    frames = [f for f in frames if not any(map(_MAP.fullmatch, _words(f, "ImageType")))]
    volumes = []
    for volume in _share(frames, set(), False):
        numbers = [int(frames[i].InstanceNumber) for i in volume]
        part = pydicom.Dataset(whole)
        part.file_meta = whole.file_meta
        part.NumberOfFrames = len(numbers)
        part.PerFrameFunctionalGroupsSequence = [groups[i] for i in numbers]
        part.PixelData = b"".join(pixels[i] for i in numbers)
        if part.file_meta.TransferSyntaxUID.is_encapsulated:
            part.PixelData = encapsulate([pixels[i] for i in numbers])
            part["PixelData"].is_undefined_length = True
        file = folder / str(len(os.listdir(folder)))
        part.save_as(file, enforce_file_format=True)
        volumes.append({file: frames[volume[0]]})
    return volumes


def _frame_header(whole: pydicom.Dataset, own: pydicom.Dataset, number: int) -> pydicom.Dataset:
    """Gather what a frame's header says, as that of a file with one image would."""
    header = pydicom.Dataset()
    header.InstanceNumber = number
    shared = whole.SharedFunctionalGroupsSequence[0]
    for sequence, tag, name in (
        ("PlanePositionSequence", "ImagePositionPatient", "ImagePositionPatient"),
        ("PlaneOrientationSequence", "ImageOrientationPatient", "ImageOrientationPatient"),
        ("PixelMeasuresSequence", "PixelSpacing", "PixelSpacing"),
        ("MRDiffusionSequence", "DiffusionBValue", "DiffusionBValue"),
        ("MRDiffusionSequence", "DiffusionDirectionality", "DiffusionDirectionality"),
        ("MRImageFrameTypeSequence", "FrameType", "ImageType"),
    ):
        if group := own.get(sequence) or shared.get(sequence):
            if (value := group[0].get(tag)) is not None:
                setattr(header, name, value)
    return header


def _share(headers: list[pydicom.Dataset], numbers: set[int], is_original: bool) -> list[list[int]]:
    """Share images out among volumes: of each slice one."""
    try:
        orientations = np.array([h.ImageOrientationPatient for h in headers], float)
        places = np.array([h.ImagePositionPatient for h in headers], float)
    except (AttributeError, TypeError, ValueError):
        raise _Unusable("its images do not say where they lie") from None
    try:
        pixels = np.array([h.PixelSpacing for h in headers], float)
    except (AttributeError, TypeError, ValueError):
        pixels = np.zeros(2)
    if not (np.isfinite(pixels) & (pixels > 0)).all():  # dcm2niix would take a millimetre
        raise _Unusable("its images do not say how large a pixel is")
    if np.ptp(orientations, axis=0).max() > 1e-3:
        raise _Unusable("its images lie in several directions, as those of a localizer do")
    normal = np.cross(orientations[0, :3], orientations[0, 3:])
    heights, slice_of, counts = np.unique(
        np.round(places @ normal, 2), return_inverse=True, return_counts=True
    )
    if counts.min() < counts.max():
        raise _Unusable(
            f"images are missing: some of its {len(heights)} slices have {counts.max()} images, "
            f"others {counts.min()}"
        )
    steps = np.diff(heights)
    if len(steps) and steps.max() > 1.2 * np.median(steps):
        raise _Unusable(
            f"slices are missing: they are {np.median(steps):g} mm apart, and {steps.max():g} mm "
            "in one place"
        )
    own = [int(header.get("InstanceNumber") or 0) for header in headers]
    if cut := _cut_off(own, slice_of, heights, numbers):
        raise _Unusable(
            f"images are missing: of those numbered {min(numbers)} to {max(numbers)}, none is "
            f"{cut[0]} to {cut[-1]}, where a volume ends"
        )
    wanted = int(headers[0].get("ImagesInAcquisition") or 0)
    if len(headers) < wanted and is_original:
        raise _Unusable(f"images are missing: expected {wanted}, found {len(headers)}")

    if len(heights) == 1:
        return [list(range(len(headers)))]  # mosaics: each image is a volume
    order = ("DiffusionBValue", "AcquisitionNumber", "InstanceNumber")
    slices = [[] for _ in heights]
    for i in sorted(range(len(headers)), key=lambda i: [headers[i].get(k) or 0 for k in order]):
        slices[slice_of[i]].append(i)
    volumes = [list(volume) for volume in zip(*slices, strict=True)]
    for volume in volumes:
        if len(b := {headers[i].get("DiffusionBValue") for i in volume}) > 1:
            found = ", ".join(sorted(map(str, b)))
            raise _Unusable(f"images are missing: expected one b-value in a volume, found {found}")
    return volumes


def _cut_off(
    own: list[int], slice_of: np.ndarray, heights: np.ndarray, numbers: set[int]
) -> list[int]:
    """Tell which images were cut off at the ends of volumes, by the numbers that have no image.

    That all slices are there, and equally often, is told by where they lie, whatever their numbers:
    these may begin anywhere, go in steps, or leave out what was not exported. But where every
    volume has lost the same slices at its top or bottom, only the numbers tell: they go in one step
    within the volumes, and between two of them some are missing, neither those of whole volumes nor
    more than a head has room for.
    """
    last = len(heights) - 1
    within, between = set(), []
    for i, j in pairwise(np.lexsort((slice_of, own))):
        missing = [n for n in range(own[i] + 1, own[j]) if n not in numbers]
        at_ends = {slice_of[i], slice_of[j]} == {0, last}
        between.append(missing) if at_ends else within.add(len(missing))
    if last < 1 or len(within) > 1:
        return []
    step, thickness = min(within, default=0) + 1, (heights[-1] - heights[0]) / last
    for missing in between:
        lost = len(missing) // step
        if lost % len(heights) and lost * thickness < _HEAD:
            return missing
    return []


def _convert(files: _Files) -> list[_Converted]:
    """Have dcm2niix convert files to volumes."""
    with tempfile.TemporaryDirectory() as temporary:
        source, target = Path(temporary, "in"), Path(temporary, "out")
        source.mkdir()
        target.mkdir()
        links = {source / f"{i:06}.dcm": path for i, path in enumerate(files)}
        for link, path in links.items():
            try:
                link.symlink_to(path.resolve())
            except OSError:  # Windows, without the right to make links
                shutil.copyfile(path, link)
        # -g i: no settings of the user's; -b y -ba y: facts, without the patient; -z n: no gzip.
        options = "-g i -b y -ba y -z n -f scan -o".split()
        run = dcm2niix.main(
            [*options, str(target), str(source)],
            capture_output=True, encoding="utf-8", errors="replace",
        )  # fmt: skip
        told = run.stdout + run.stderr
        for link, path in links.items():
            told = told.replace(str(link), str(path))
        said = re.findall(r"(?m)^\s*((?:Error|.*not large enough).*?)\s*$", told)
        found = [
            path
            for path in sorted(target.glob("*.nii"))
            if not re.search(r"_(ADC|ph|real|imaginary|ROI\d*)[a-z]?\.nii$", path.name)
        ]
        if run.returncode or said or len(found) != 1:
            reason = "; ".join(said) or f"it makes {len(found)} images, expected 1"
            raise _Unusable(f"dcm2niix does not put it together: {reason}")
        image = nib.load(found[0])
        data = np.asanyarray(image.dataobj).copy()
        data = data[..., np.newaxis] if data.ndim == 3 else data
        if data.ndim != 4 or data.shape[2] < 2:
            raise _Unusable("it is one slice, not a volume")
        n_volumes = data.shape[3]
        b_values, directions = np.full(n_volumes, np.nan), np.full((3, n_volumes), np.nan)
        if (path := found[0].with_suffix(".bval")).exists():
            b_values = np.loadtxt(path, ndmin=1)
        if (path := found[0].with_suffix(".bvec")).exists():
            directions = np.loadtxt(path, ndmin=2)
        facts = json.loads(found[0].with_suffix(".json").read_text(encoding="utf-8"))
    if b_values.shape != (n_volumes,) or directions.shape != (3, n_volumes):
        raise _Unusable(f"it has {n_volumes} volumes and {len(b_values)} b-values")
    in_header = {header.get("DiffusionBValue") for header in files.values()} - {None}
    if len(in_header) == 1:
        directions[:, ~(b_values > 0)] = np.nan  # a direction was not looked for
        b_values[:] = float(in_header.pop())
    if {header.get("DiffusionDirectionality") for header in files.values()} == {"ISOTROPIC"}:
        directions[:] = 0
    kept = ("MagneticFieldStrength", "EchoTime", "RepetitionTime", "SliceThickness")
    facts = {key: facts[key] for key in kept if key in facts}
    return [
        _Converted(data[..., i], image.affine, b_values[i], directions[:, i], facts)
        for i in range(n_volumes)
    ]


def _merge(volumes: Sequence[_Converted]) -> nib.Nifti1Image:
    """Make one scan of volumes, with a header of its own."""
    data, affine = volumes[0].data, volumes[0].affine
    if len(volumes) > 1:
        stack = np.stack([volume.data for volume in volumes]).clip(0)
        with np.errstate(divide="ignore"):  # the geometric mean of anything and 0 is 0
            data = gmean(stack.astype(float))
    if data.dtype not in (np.int16, np.uint16):
        data = data.astype(np.float32)
    scan = nib.Nifti1Image(data, affine)
    scan.set_sform(affine, code="scanner")
    scan.set_qform(affine, code="scanner")
    scan.header.set_xyzt_units("mm")
    return scan


def _require_readable(image: nib.Nifti1Image) -> None:
    """Raise where the book cannot read what was made, as of a gantry that was tilted."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary, "scan.nii")
        nib.save(image, path)
        try:
            load_volume(path)
        except (OSError, ValueError) as error:
            reason = in_words(error).removeprefix(f"{path}: ")
            raise _Unusable(f"the book cannot read the scan that it makes: {reason}") from error


def _write(volume: _Volume, out: Path, name: str | None) -> Path:
    """Write a scan and its side-car under a name that is not the patient's, whole or not at all."""
    numbered = {
        int(match[1]): path
        for path in out.iterdir()
        if (match := re.fullmatch(r"sub-(\d+)_dwi\.nii\.gz", path.name))
    }
    path = out / f"sub-{name or max(numbered, default=0) + 1}_dwi.nii.gz"
    temporary = out / f"._{path.name}"
    try:
        nib.save(volume.image, temporary)
        for there in [path] if name else numbered.values():
            if there.exists() and filecmp.cmp(there, temporary, shallow=False):
                return there
        if path.exists():
            raise FileExistsError(f"{path}: expected no scan of this name, found another one")
        facts = {"BValue": volume.b_value, "How": volume.why} | volume.facts
        sidecar = path.with_name(path.name.replace(".nii.gz", ".json"))
        sidecar.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def main(arguments: list[str] | None = None) -> int:
    """Import what the command line names; return the exit status."""
    speak_to_any_console()
    parser = argparse.ArgumentParser(
        prog="python -m tools.import_dicom",
        description="Write the diffusion-weighted scan of each patient in a folder of DICOM files "
        "as OUT/sub-NUMBER_dwi.nii.gz, without the patient's name, dates and numbers. The face "
        "stays in the scan.",
    )
    parser.add_argument("folder", metavar="FOLDER", help="DICOM files, at any depth")
    parser.add_argument("out", metavar="OUT", help="where the scans go")
    parser.add_argument("--name", help="for one patient: sub-NAME in place of a number")
    chosen = parser.parse_args(arguments)
    try:
        import_dicom(chosen.folder, chosen.out, name=chosen.name)
    except (OSError, ValueError) as error:
        print(f"{parser.prog}: {in_words(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
