"""ISLES stroke scans: find the cases in a folder, and load one as checked arrays."""

from __future__ import annotations

import gzip
import io
import logging
import math
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from numpy.typing import ArrayLike
from scipy.ndimage import binary_fill_holes

from helpers import silent_stderr

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
        Where the skull-stripped scan is above zero, with holes filled.
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


def load_case(case: Case, *, spacing: Sequence[float] | None = None) -> Scan:
    """Load one patient's scan and lesion mask, checked against each other.

    Parameters
    ----------
    case : Case
        Where the files are.
    spacing : (z, y, x) in millimetres, or None
        Voxel size to resample to, linearly for the scan and by nearest neighbour for the mask;
        None keeps the file's own.

    Returns
    -------
    Scan
        Arrays (z, y, x) in LPS, whatever the orientation in the files.

    Raises
    ------
    FileNotFoundError
        A file is missing.
    VolumeReadError
        A file is damaged, or the scan holds NaN, infinity, one single value or no brain.
    GeometryMismatchError
        The mask does not lie on the scan's voxels.
    LabelError
        The mask holds values other than {0, 1} or {0, 255}. An empty mask is legitimate.
    ValueError
        The spacing is not three positive lengths, or leaves no voxel along an axis.

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
    image = _read_oriented(case.dwi)
    _require_finite(image, case.dwi)
    mask = None
    if case.lesion is not None:
        mask = _read_oriented(case.lesion)
        _require_same_geometry(image, mask, case)
        mask = _binarise(mask, case.lesion)
        mask.CopyInformation(image)  # the header's rounding noise ends here
    if target is not None:
        image = _resample(image, target, sitk.sitkLinear)
        mask = None if mask is None else _resample(mask, target, sitk.sitkNearestNeighbor)

    dwi = sitk.GetArrayFromImage(image)
    if dwi.min() == dwi.max() or dwi.max() <= 0:
        raise VolumeReadError(
            f"{case.dwi}: expected a brain above zero, found intensities from {dwi.min():g} "
            f"to {dwi.max():g}"
        )
    return Scan(
        subject_id=case.subject_id,
        dwi=dwi,
        lesion=None if mask is None else sitk.GetArrayFromImage(mask).astype(bool),
        brain=binary_fill_holes(dwi > 0),
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


def _require_same_geometry(image: sitk.Image, mask: sitk.Image, case: Case) -> None:
    expected, found = _geometry(image), _geometry(mask)
    if name := _difference(expected, found):
        raise GeometryMismatchError(
            f"{case.lesion}: expected the {name} {getattr(expected, name)} (z, y, x in LPS) of "
            f"{case.dwi}, found {getattr(found, name)}"
        )


def _binarise(mask: sitk.Image, path: Path) -> sitk.Image:
    found = np.unique(sitk.GetArrayViewFromImage(mask))
    # A slope a rounding away from one moves a label by as much.
    labels = set(np.where(np.isclose(found, np.rint(found), rtol=1e-6), np.rint(found), found))
    if not (labels <= {0, 1} or labels <= {0, 255}):
        shown = ", ".join(np.format_float_positional(value, trim="-") for value in found[:5])
        more = ", …" if len(found) > 5 else ""
        raise LabelError(f"{path}: expected labels 0 and 1, or 0 and 255, found {shown}{more}")
    return mask > 0.5


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


def _resample(image: sitk.Image, spacing: Sequence[float], interpolator: int) -> sitk.Image:
    """Change the voxel size; the outer faces of the first voxels stay where they are."""
    old, new = np.array(image.GetSpacing()), np.array(spacing[::-1])
    extent = image.GetSize() * old
    size = np.rint(extent / new).astype(int).tolist()
    if 0 in size:
        raise ValueError(
            f"spacing must leave a voxel of the scan's {extent[::-1].tolist()} mm (z, y, x), "
            f"found {tuple(spacing)}"
        )
    origin = image.TransformContinuousIndexToPhysicalPoint(((new / old - 1) / 2).tolist())
    return sitk.Resample(
        image, size, sitk.Transform(), interpolator, origin, new.tolist(), image.GetDirection()
    )
