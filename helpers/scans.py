"""ISLES stroke scans: find the cases in a folder, and load one as checked arrays."""

from __future__ import annotations

import gzip
import io
import logging
import math
import re
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
from scipy.ndimage import binary_fill_holes, distance_transform_edt

from helpers import silent_stderr
from helpers.brain import find_brain

_SUFFIXES = (".nii", ".nii.gz", ".mha")
_ISLES_2022 = re.compile(r"(?P<subject>sub-[^_]+)_(?:.+_)?(?P<kind>dwi|msk)\.[^_]+$")
_ISLES_2015 = re.compile(r"VSD\..+\.(?P<kind>MR_DWI|OT)\.")
_KINDS = {"dwi": "scan", "MR_DWI": "scan", "msk": "lesion mask", "OT": "lesion mask"}
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
    """Find the patients beneath a folder.

    Two naming schemes are understood, at any depth, as ``.nii``, ``.nii.gz`` or ``.mha``:
    ISLES 2022's ``sub-<id>[_ses-<id>]_dwi`` with its mask ``…_msk`` (the Zenodo archive, the
    challenge's ``rawdata`` and ``derivatives``, the book's own cohort), and ISLES 2015's
    ``VSD.….MR_DWI.<number>`` with its mask ``VSD.….OT.<number>``, whose numbers do not match: there
    the folder that holds both is the patient.

    Parameters
    ----------
    root : str or Path
        The folder.

    Returns
    -------
    list of Case
        In natural order: 2 before 10. A scan without a mask has ``lesion=None``.

    Raises
    ------
    FileNotFoundError
        There is no such folder, no diffusion-weighted scan in it, or a mask without its scan.
    ValueError
        Two scans or two masks claim one patient.

    References
    ----------
    Maier et al. (2017), ISLES 2015, Medical Image Analysis 35:250. Hernandez Petzsche et al.
    (2022), ISLES 2022, Scientific Data 9:762.

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
    volumes = [path for path in sorted(root.rglob("*")) if _is_volume(path, root)]
    scans: dict[str, Path] = {}
    masks: dict[str, Path] = {}
    for path in volumes:
        if role := _role(path):
            kind, subject_id = role
            files = scans if kind == "scan" else masks
            if subject_id in files:
                raise ValueError(
                    f"{subject_id}: expected one {kind} per patient, found {files[subject_id]} "
                    f"and {path}; remove one, or name a folder that holds one"
                )
            files[subject_id] = path
    if orphans := sorted(masks.keys() - scans.keys(), key=_natural):
        raise FileNotFoundError(
            f"{masks[orphans[0]]}: expected a diffusion-weighted scan (…_dwi…) for each lesion "
            f"mask, found none for {', '.join(orphans)}"
        )
    if not scans:
        raise FileNotFoundError(
            f"{root}: expected ISLES scans (sub-…_dwi or VSD.….MR_DWI.… as .nii, .nii.gz or .mha), "
            f"found {len(volumes)} other volumes"
        )
    return [Case(name, scans[name], masks.get(name)) for name in sorted(scans, key=_natural)]


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
        Where the brain is. ``"stripped"``: everything above zero, in a scan without its skull.
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
        all six sides of the volume, or more than 1 % of the scan lies below zero.

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
    if doubts := _doubts(image, found):
        warnings.warn(f"{case.dwi}: {'; '.join(doubts)}", stacklevel=2)
    if target is not None:
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
        brain=binary_fill_holes(dwi > 0 if found is None else sitk.GetArrayViewFromImage(found)),
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


def _is_volume(path: Path, root: Path) -> bool:
    """Tell a volume from everything else, and from what a Mac's archiver leaves beside it."""
    parts = path.relative_to(root).parts
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    # Not is_file: a link whose target was never fetched is a missing scan, not an absent one.
    return path.name.endswith(_SUFFIXES) and not hidden and not path.is_dir()


def _role(path: Path) -> tuple[str, str] | None:
    """Read from a file's name what it is, "scan" or "lesion mask", and whose."""
    if match := _ISLES_2022.match(path.name):
        return _KINDS[match["kind"]], match["subject"]
    if match := _ISLES_2015.match(path.name):
        folders = path.absolute().parents
        return _KINDS[match["kind"]], next(f.name for f in folders if not f.name.startswith("VSD."))
    return None


def _natural(name: str) -> tuple[list[str | int], str]:
    parts = re.split(r"(\d+)", name)
    return [int(part) if part.isdecimal() else part for part in parts], name


def _read_oriented(path: str | Path, volume_index: int | None = None) -> sitk.Image:
    """Read one 3-D volume as float32 in LPS; NaN and infinity stay what they are."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: expected a volume, found no such file")
    if not path.name.endswith(_SUFFIXES):
        raise VolumeReadError(f"{path}: expected a .nii, .nii.gz or .mha file")
    try:
        # What overflows is counted with the other infinities.
        with np.errstate(over="ignore", invalid="ignore"):
            voxels, geometry = (_read_mha if path.suffix == ".mha" else _read_nifti)(path)
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
    if path.suffix == ".gz":
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
    if above.mean() > 0.9 or above.sum() * math.prod(spacing) / 1000 > _BRAIN_ML[1]:
        return False
    step = max(1, round(2.0 / min(spacing[1:])))  # every 2 mm are enough
    thinned = np.s_[:, ::step, ::step]
    # Slice by slice, because the volume may be a slab that goes on above and below.
    sampling = (1e6, step * spacing[1], step * spacing[2])
    depth = distance_transform_edt(np.pad(above[thinned], ((0, 0), (1, 1), (1, 1))), sampling)
    depth = depth[:, 1:-1, 1:-1]
    rim, core = (dwi[thinned][where] for where in ((depth > 2) & (depth < 8), depth > 20))
    return not (rim.size and core.size) or bool(np.median(rim) > 0.5 * np.median(core))


def _doubts(image: sitk.Image, found: sitk.Image | None) -> list[str]:
    """Say what makes a brain unlikely to be one; of a small crop, nothing is known."""
    dwi, spacing = sitk.GetArrayViewFromImage(image), _geometry(image).spacing
    brain = dwi > 0 if found is None else sitk.GetArrayViewFromImage(found) > 0
    (least, most), voxel = _BRAIN_ML, math.prod(spacing) / 1000
    if brain.size * voxel < least:
        return []
    doubts, ml = [], brain.sum() * voxel
    is_whole = (np.multiply(brain.shape, spacing) >= _HEAD_MM).all()
    if ml > most or (ml < least and is_whole):
        doubts.append(f"expected a brain of {least:g} to {most:g} ml in a head, found {ml:.0f} ml")
    if all(brain.take(end, axis).any() for axis in range(3) for end in (0, -1)):
        doubts.append(f"expected air around the brain, found all six sides in its {ml:.0f} ml")
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
