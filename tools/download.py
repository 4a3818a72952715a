"""Get the real data: ``python -m tools.download isles2022`` fetches, checks and unpacks them.

Everything is done in a folder of its own beside the place of the data set, and moved there once it
is whole. So what a failed or interrupted run leaves is no data set, and the next run goes on.

Most data sets are one file. SOOP and its slices are thousands, of which the lists beside this file
say length and checksum: they come several patients at a time, and each patient whole or not at all.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import sys
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pandas as pd
import pooch
import requests
from PIL import Image
from tqdm import tqdm

from helpers import in_words, mnist
from helpers.data import data_folder, find_data
from helpers.scans import find_cases
from tools import speak_to_any_console

# Zenodo turns away the library's own name, which robots use.
_HEADERS = {"User-Agent": "vae-medical-images", "Accept-Encoding": "identity"}
_CHUNK = 2**16  # bytes: at most this much is lost when a connection breaks
_SILENCE = 30.0  # seconds without a byte after which a connection is given up
_AT_ONCE = 8  # connections: most files of SOOP are small, and each waits for its own answer
_TRIES, _PAUSE = 5, 1.0  # how often one of many files is asked for; seconds, doubled at each try
_BUSY = (408, 425, 429, 500, 502, 503, 504)  # what a server says that may do better in a moment


@dataclass(frozen=True)
class DataSet:
    """A published data set, where it is to be had, and on which terms.

    Attributes
    ----------
    what : str
        What it is, in words.
    place : str
        Its name in the data folder, where `find_data` looks.
    url : str
        The one file to download.
    file : str
        That file's name: a ``.zip`` is unpacked.
    size : int
        The file's length in bytes.
    checksum : str
        ``"sha256:…"`` or ``"md5:…"`` of the file.
    licence, citation : str
        What the reader is told before the download.
    unverified : str
        What to know where the checksum is not the publisher's own statement; else empty.
    members : str
        Regular expression; what it finds in the archive is unpacked.
    """

    what: str
    place: str
    url: str
    file: str
    size: int
    checksum: str
    licence: str
    citation: str
    unverified: str = ""
    members: str = ""


#: The data sets that can be downloaded, by the name on the command line.
DATA_SETS = {
    "mnist": DataSet(
        what="MNIST: 70,000 handwritten digits",
        place="mnist.npz",
        url=mnist.URL,
        file="mnist.npz",
        size=11_490_434,
        checksum=mnist.CHECKSUM,
        licence="CC BY-SA 3.0 (Yann LeCun and Corinna Cortes)",
        citation="LeCun et al. (1998), Proceedings of the IEEE 86:2278",
    ),
    "isles2015": DataSet(
        what="ISLES 2015, SISS training: 28 sub-acute stroke patients with lesion masks",
        place="isles2015",
        url="https://zenodo.org/records/19135955/files/ISLES2015.zip?download=1",
        file="ISLES2015.zip",
        # Size, rounded, and checksum as one user of the record noted them.
        size=763_400_000,
        checksum="md5:3b6a2226e3814faf272868a96e4837d1",
        unverified="This checksum is itself unverified: it was noted by a user, not seen at the "
        "publisher's. https://zenodo.org/records/19135955 shows the true one beside the file. If "
        "it is another, run: python -m tools.download isles2015 --md5 THE_TRUE_ONE",
        # Its other half, SPES, has another kind of lesion, and patients for testing have no mask.
        members=r"(?i)(?=.*SISS)(?=.*train)",
        licence="as https://zenodo.org/records/19135955 states it; please read it there first",
        citation="Maier et al. (2017), Medical Image Analysis 35:250",
    ),
    "isles2022": DataSet(
        what="ISLES 2022: 250 acute to sub-acute stroke patients with lesion masks",
        place="isles2022",
        url="https://zenodo.org/records/7153326/files/ISLES-2022.zip?download=1",
        file="ISLES-2022.zip",
        size=1_692_717_470,
        checksum="md5:302ee280373cdd5c190ab763d72a7a50",
        licence="CC BY 4.0",
        citation="Hernandez Petzsche et al. (2022), Scientific Data 9:762",
    ),
}


@dataclass(frozen=True)
class FileSet:
    """A published data set of many files, each of which has an address and a checksum.

    Attributes
    ----------
    what, place, licence, citation : str
        As in `DataSet`.
    url : str
        The address of a file, with a column of the list in braces for what differs.
    files : Path
        The list, a CSV file: ``path`` in the data set, ``bytes``, and ``sha256`` or
        ``git_blob_sha1``, which is SHA-1 of ``blob <bytes>\\0`` and the content.
    """

    what: str
    place: str
    url: str
    files: Path
    licence: str
    citation: str


#: The data sets of many files, by the name on the command line.
FILE_SETS = {
    "soop": FileSet(
        what="SOOP: acute stroke patients, TRACE with the skull on and lesion masks; up to 1,451",
        place="soop",
        url="https://s3.amazonaws.com/openneuro.org/ds004889/{path}?versionId={s3_version_id}",
        files=Path(__file__).with_name("soop.csv.xz"),
        licence="CC0",
        citation="Absher et al. (2024), Scientific Data 11:839; OpenNeuro ds004889 1.1.2",
    ),
    "soop-slices": FileSet(
        what="SOOP, one FLAIR slice of each of 1,449 stroke patients, and its lesion mask",
        place="soop_flair/axial_slices.npz",
        url="https://raw.githubusercontent.com/neurolabusc/StrokeOutcomeOptimizationProjectDemo"
        "/ae553f82c24721dec4cd3bcffdd6c952257e8dba/{path}",
        files=Path(__file__).with_name("soop_slices.csv.xz"),
        licence="CC0",
        citation="Absher et al. (2024), Scientific Data 11:839; pictures by way of "
        "neurolabusc/StrokeOutcomeOptimizationProjectDemo",
    ),
}


def download(name: str, *, md5: str | None = None) -> Path:
    """Download a data set into the data folder, unless it is there already.

    What arrives is kept in ``<place>.part/`` beside the data set's place until it is whole, checked
    and unpacked; a call after an interrupted one asks the server for the rest only.

    Parameters
    ----------
    name : str
        A key of `DATA_SETS`.
    md5 : str, optional
        Expect this checksum of the file and not the one in `DATA_SETS`.

    Returns
    -------
    Path
        The data set: a file, or a folder in which `find_cases` finds patients.

    Raises
    ------
    OSError
        The server, the network or the disk fails, there is too little space, or something else
        has the data set's name.
    ValueError
        The file is not the published one, or not the archive that is expected.

    Examples
    --------
    >>> from helpers.scans import find_cases
    >>> len(find_cases(download("isles2022")))  # doctest: +SKIP
    250
    """
    data_set = DATA_SETS[name]
    if there := _already_there(data_set):
        return there
    checksum = f"md5:{md5}" if md5 else data_set.checksum
    _introduce(data_set)
    print(f"Expected checksum: {checksum}. {data_set.unverified}".rstrip(), flush=True)
    staging = _staging(data_set)
    archive = _fetch(data_set, staging, checksum)
    whole = _unpack(archive, data_set.members) if archive.suffix == ".zip" else archive
    contents = _contents(whole)
    target = data_folder() / data_set.place
    os.replace(whole, target)
    shutil.rmtree(staging)
    print(f"{target}: {contents}")
    return target


def download_soop(patients: int = 100, *, adc: bool = False) -> Path:
    """Download patients of SOOP into the data folder, those that are not there already.

    The patients have one order for all times, drawn by lot: the first hundred are among the first
    five hundred. A patient is there when the scan, TRACE, and the mask of the acute lesion are.

    Parameters
    ----------
    patients : int
        How many there shall be, 1 to 1,451.
    adc : bool
        Whether to fetch the maps of the apparent diffusion coefficient, too.

    Returns
    -------
    Path
        The folder, in the layout of OpenNeuro.

    Raises
    ------
    OSError
        The server, the network or the disk fails, or there is too little space.
    ValueError
        There are not so many patients, or a file is not the published one.
    FileExistsError
        The folder that ``VAE_BOOK_DATA`` names has fewer patients of SOOP, and would hide these.

    Examples
    --------
    >>> download_soop(1452)
    Traceback (most recent call last):
    ...
    ValueError: patients: expected 1 to 1,451, found 1,452
    >>> from helpers.scans import find_cases
    >>> len(find_cases(download_soop(200)))  # doctest: +SKIP
    200
    """
    file_set = FILE_SETS["soop"]
    listed = _list_files(file_set)
    if not 1 <= patients <= len(listed):
        raise ValueError(f"patients: expected 1 to {len(listed):,}, found {patients:,}")
    # By their paths, the mask is the first to be put into its place, and the scan the last: a scan
    # that can be found has its mask.
    chosen = [
        [file for file in listed[name] if adc or "_rec-ADC_" not in file.path]
        for name in _drawn(listed)[:patients]
    ]
    target = data_folder() / file_set.place
    there = find_data(file_set.place)
    _expect_kind(there, file_set)
    if there and there.resolve() != target.resolve():
        n_whole = sum(all(file.is_at(there / file.path) for file in files) for files in chosen)
        if n_whole < patients:
            raise FileExistsError(
                f"{there}: expected {patients:,} patients, found {n_whole:,} of them, and the book "
                "looks here first; unset VAE_BOOK_DATA to download to data/, or take them away here"
            )
        print(f"{there} is already there: {patients:,} patients.")
        return there
    _introduce(file_set)
    staging = _staging(file_set)
    _fetch_many(chosen, staging, target)
    shutil.rmtree(staging)
    print(f"{target}: {patients:,} patients of {len(listed):,}")
    return target


def _drawn(patients: Iterable[str]) -> list[str]:
    """Put patients in an order that is random, and the same everywhere and for ever."""
    return sorted(patients, key=lambda name: hashlib.sha256(name.encode()).digest())


def download_slices() -> Path:
    """Download the FLAIR slices of SOOP, and put them into one file, unless it is there already.

    The slices are published as pictures that were drawn to check the lesions: the axial slice at
    z = 18 mm of the standard space MNI, in grey, with the lesion half red. Its other half is what
    shone through, so the slice is had back, to the even number.

    Returns
    -------
    Path
        ``axial_slices.npz``, with a row for each patient, by number: ``image``, uint8 (n, 189,
        157), from anterior to posterior, and ``lesion``, bool, in voxels of 1 mm; ``subject_id``,
        int64; and ``lesion_ml``, float32, the volume of the whole lesion in ml.

    Raises
    ------
    OSError
        The server, the network or the disk fails, or there is too little space.
    ValueError
        A file is not the published one.

    Examples
    --------
    >>> np.load(download_slices())["image"].shape  # doctest: +SKIP
    (1449, 189, 157)
    """
    file_set = FILE_SETS["soop-slices"]
    if there := _already_there(file_set):
        return there
    _introduce(file_set)
    target = data_folder() / file_set.place
    target.parent.mkdir(exist_ok=True)
    staging = _staging(file_set)
    listed = _list_files(file_set)
    _fetch_many(list(listed.values()), staging, staging)
    numbers = sorted(int(name.removeprefix("sub-")) for name in listed)
    rows = []
    for number in tqdm(numbers, desc="Slices", unit="slice"):
        mask, picture = (staging / file.path for file in listed[f"sub-{number}"])
        rows.append(_recover_slice(picture, mask))
    image, lesion, lesion_ml = map(np.stack, zip(*rows, strict=True))
    temporary = target.with_name(f"._{target.name}")
    with temporary.open("wb") as file:
        np.savez_compressed(
            file,
            image=image,
            lesion=lesion,
            subject_id=np.array(numbers, np.int64),
            lesion_ml=lesion_ml,
        )
    os.replace(temporary, target)
    shutil.rmtree(staging)
    print(f"{target}: {len(numbers):,} patients")
    return target


def _recover_slice(picture: Path, mask: Path) -> tuple[np.ndarray, np.ndarray, np.float32]:
    """Take one slice and its lesion out of the picture and the lesion's volume."""
    volume = nib.load(mask)
    whole = np.asanyarray(volume.dataobj) > 0
    lesion = whole[:, :, 68].T[::-1, ::-1].copy()  # a view would keep the whole in memory
    with Image.open(picture) as opened:
        green = np.asarray(opened)[:, : lesion.shape[1], 1].astype(np.uint16)
    image = np.minimum(np.where(lesion, 2 * green, green), 255) & ~np.uint16(1)
    millilitres = whole.sum() * np.prod(volume.header.get_zooms(), dtype=float) / 1000
    return image.astype(np.uint8), lesion, np.float32(millilitres)


def _introduce(data_set: DataSet | FileSet) -> None:
    print(f"{data_set.what}\nLicence: {data_set.licence}\nPlease cite: {data_set.citation}")
    sys.stdout.flush()


def _staging(data_set: DataSet | FileSet) -> Path:
    place = data_folder() / data_set.place
    if place.is_symlink():  # to a larger disk, from which a file is not moved to this one
        place = place.resolve()
    return place.with_name(f"{place.name}.part")


def _already_there(data_set: DataSet | FileSet) -> Path | None:
    """Find the data set in the data folder, and tell so; a damaged file of our own is not it."""
    there = find_data(data_set.place)
    if there is None:
        return None
    _expect_kind(there, data_set)
    # A link leads to somebody else's file, and so does a shared folder.
    ours = there == data_folder() / data_set.place and there.is_file() and not there.is_symlink()
    if ours and (damage := _damage(there)):
        print(f"{there} is damaged ({damage}); it is downloaded anew.", file=sys.stderr)
        return None
    print(f"{there} is already there: {_contents(there)}. To get it anew, remove it first.")
    return there


def _expect_kind(there: Path | None, data_set: DataSet | FileSet) -> None:
    """Refuse a folder in the place of a data set that is a file, and the other way round."""
    if there is None:
        return
    found = "a file" if there.is_file() else "a folder" if there.is_dir() else "something else"
    wanted = "a file" if Path(data_set.place).suffix else "a folder"
    if found != wanted:
        raise FileExistsError(
            f"{there}: expected {wanted}, found {found}; move it away, and run the same command "
            "again"
        )


def _damage(path: Path) -> str:
    """Say why an archive of arrays cannot be read to its end; "" where it can."""
    try:
        with zipfile.ZipFile(path) as archive:
            first = archive.testzip()
    except OSError:
        raise  # the disk or the permission, not the file
    except Exception as error:  # a damaged archive raises many kinds
        return in_words(error)
    return f"{first} in it is not what was written" if first else ""


def _contents(path: Path) -> str:
    """Say what the book will find there; an error where it will find nothing."""
    if path.is_dir():
        return f"{len(find_cases(path))} patients"
    return f"{path.stat().st_size:,} bytes"


def _fetch(data_set: DataSet, staging: Path, checksum: str) -> Path:
    """Download the file into the staging folder and check it."""
    staging.mkdir(exist_ok=True)
    archive, part = staging / data_set.file, staging / f"{data_set.file}.part"
    have = max((path.stat().st_size for path in (archive, part) if path.exists()), default=0)
    # What an archive holds takes at least as much again.
    _require_space(staging, data_set.size * (2 if archive.suffix == ".zip" else 1) - have)
    try:
        pooch.retrieve(
            data_set.url,
            known_hash=checksum,
            fname=archive.name,
            path=staging,
            downloader=partial(_resume, part=part),
        )
    except OSError as error:  # the requests library's errors are among these
        kept = f"{part.stat().st_size:,} bytes are" if part.exists() else "Nothing is"
        raise OSError(
            f"{data_set.url}: the download stopped: {in_words(error)}. {kept} kept in {staging}; "
            "the same command goes on from there."
        ) from error
    except ValueError as error:  # pooch names the file and both checksums
        part.unlink(missing_ok=True)
        raise ValueError(
            f"{data_set.url}: {in_words(error)} {data_set.unverified}".rstrip()
        ) from error
    part.unlink(missing_ok=True)
    return archive


def _resume(url: str, output_file: str, _pooch, *, part: Path) -> None:
    """Download to `part`, from where it ends; pooch then checks `output_file`, the same bytes."""
    _get(url, part, _write)
    # A second name for the same bytes: pooch removes its own where its check is interrupted.
    os.remove(output_file)
    try:
        os.link(part, output_file)
    except OSError:  # a file system without hard links
        os.replace(part, output_file)


def _get(
    url: str, part: Path, write: Callable[[requests.Response, Path, int], None], session=requests
) -> None:
    """Ask for what comes after the end of `part`, and have it written there."""
    have = part.stat().st_size if part.exists() else 0
    headers = _HEADERS | ({"Range": f"bytes={have}-"} if have else {})
    with session.get(url, headers=headers, stream=True, timeout=_SILENCE) as response:
        sent = response.headers.get("Content-Range", "")
        if have and response.status_code == 416:  # there are no bytes from there on
            if sent != f"bytes */{have}":
                part.unlink()  # longer than the file: left from another one
                return _get(url, part, write, session)
            return
        response.raise_for_status()
        if response.status_code != 206:  # the server sends the whole file in any case
            have = 0
        elif not sent.startswith(f"bytes {have}-"):
            raise OSError(f"expected the bytes from {have} on, found Content-Range {sent!r}")
        # A store may say so of a file that is gzip itself, and it would be unpacked on the way.
        response.raw.headers.pop("Content-Encoding", None)
        write(response, part, have)


def _write(response: requests.Response, part: Path, have: int) -> None:
    length = response.headers.get("Content-Length")
    total = None if length is None else have + int(length)
    bar = tqdm(desc=part.stem, total=total, initial=have, unit="B", unit_scale=True)
    with part.open("ab" if have else "wb") as file, bar:
        for chunk in response.iter_content(_CHUNK):
            bar.update(file.write(chunk))


def _unpack(archive: Path, members: str) -> Path:
    """Unzip beside the archive; zipfile keeps every member inside the folder."""
    folder = archive.with_name("unpacked")
    shutil.rmtree(folder, ignore_errors=True)  # an interrupted run's may end in half a file
    try:
        with zipfile.ZipFile(archive) as zipped:
            wanted = [item for item in zipped.infolist() if re.search(members, item.filename)]
            if not wanted:
                found = sorted({item.filename.split("/")[0] for item in zipped.infolist()})
                raise ValueError(
                    f"{archive}: expected names that match {members}, found {found[:9]}"
                )
            _require_space(archive.parent, sum(item.file_size for item in wanted))
            for item in tqdm(wanted, desc="Unpacking", unit="file"):
                zipped.extract(item, folder)
    except (zipfile.BadZipFile, zlib.error) as error:
        archive.unlink()
        raise ValueError(
            f"{archive}: expected a whole zip archive, found: {in_words(error)}"
        ) from error
    return folder


class _File(NamedTuple):
    """One file of a `FileSet`: its place in it, its address, and how to know it."""

    path: str
    url: str
    size: int
    algorithm: str
    checksum: str

    def is_at(self, path: Path) -> bool:
        return path.is_file() and path.stat().st_size == self.size and not self.fault(path)

    def fault(self, path: Path) -> str:
        """Say in words how the file at a path differs from the published one; "" where it is it."""
        if (found := path.stat().st_size) != self.size:
            return f"expected {self.size:,} bytes, found {found:,}"
        if self.algorithm == "git_blob_sha1":
            start = partial(hashlib.sha1, b"blob %d\0" % self.size, usedforsecurity=False)
        else:
            start = partial(hashlib.new, self.algorithm)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, start).hexdigest()
        if digest != self.checksum:
            return f"expected {self.algorithm} {self.checksum}, found {digest}"
        return ""


class _FileError(ValueError):
    """One of many files is not to be had as it was published; the others may be."""


class _Stopped(Exception):
    """Another thread has failed, or Ctrl-C was pressed."""


def _list_files(file_set: FileSet) -> dict[str, list[_File]]:
    """List the files of each patient, by their paths."""
    table = pd.read_csv(file_set.files, dtype=str)
    algorithm = next(name for name in ("sha256", "git_blob_sha1") if name in table)
    patients: dict[str, list[_File]] = {}
    for row in table.sort_values("path").to_dict("records"):
        url = file_set.url.format(**row)
        file = _File(row["path"], url, int(row["bytes"]), algorithm, row[algorithm])
        patients.setdefault(re.search(r"sub-[^_/]+", file.path)[0], []).append(file)
    return patients


def _fetch_many(patients: Sequence[Sequence[_File]], staging: Path, target: Path) -> None:
    """Download the files of each patient to `staging`, several patients at a time.

    A patient's files are moved to `target`, in their order, when all of them are there and right;
    a file that is not to be had costs no other patient theirs. Right ones are not fetched again.
    """
    files = [file for patient in patients for file in patient]
    there = [f for f in files if f.is_at(target / f.path) or f.is_at(staging / f.path)]
    have, total = sum(file.size for file in there), sum(file.size for file in files)
    print(f"{len(files):,} files, {total / 1e6:,.0f} MB, of which {len(there):,} are there.")
    staging.mkdir(parents=True, exist_ok=True)
    _require_space(staging, total - have)
    todo, stop, faults = set(files) - set(there), threading.Event(), []
    bar = tqdm(
        desc=target.name.removesuffix(".part"), total=total, initial=have, unit="B", unit_scale=True
    )
    with bar, ThreadPoolExecutor(_AT_ONCE) as pool:
        show = _counter(bar)
        calls = [
            pool.submit(_fetch_patient, patient, todo, staging, target, show, stop)
            for patient in patients
        ]
        try:
            for call in as_completed(calls):
                if isinstance(error := call.exception(), _FileError):
                    faults.append(str(error))
                elif error:
                    raise error
        except BaseException as error:
            stop.set()
            pool.shutdown(cancel_futures=True)
            if isinstance(error, OSError):  # the requests library's errors are among these
                raise OSError(
                    f"the download stopped: {in_words(error)}. What has arrived is kept in "
                    f"{staging} and {target}; the same command goes on from there."
                ) from error
            raise
    if faults:
        more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise ValueError(
            f"{len(faults)} of {len(patients)} patients have a file that is not to be had as it "
            f"was published: {'; '.join(faults[:5])}{more}. The others are kept; the same command "
            "asks for what is missing."
        )


def _counter(bar: tqdm) -> Callable[[_File, int], None]:
    """Tell a bar of all files how many bytes there are of one; from any thread, also backwards."""
    lock, seen = threading.Lock(), {}

    def show(file: _File, n_bytes: int) -> None:
        with lock:
            bar.update(n_bytes - seen.get(file.path, 0))
            seen[file.path] = n_bytes

    return show


def _fetch_patient(
    patient: Iterable[_File], todo: set[_File], staging: Path, target: Path, show, stop
) -> None:
    with requests.Session() as session:
        for file in patient:
            if file in todo:
                _fetch_file(file, staging / file.path, partial(show, file), stop, session)
    for file in patient:
        if (arrived := staging / file.path).exists() and staging != target:
            (target / file.path).parent.mkdir(parents=True, exist_ok=True)
            os.replace(arrived, target / file.path)


def _fetch_file(file: _File, path: Path, show, stop: threading.Event, session) -> None:
    """Download one of many files, whole and right, or raise; what breaks off is asked for again."""
    part = path.with_name(f"{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)

    def write(response: requests.Response, part: Path, have: int) -> None:
        length = response.headers.get("Content-Length")
        if length is not None and have + int(length) != file.size:
            raise _FileError(
                f"{file.url}: expected {file.size:,} bytes, found {have + int(length):,}"
            )
        with part.open("ab" if have else "wb") as opened:
            for chunk in response.iter_content(_CHUNK):
                have += opened.write(chunk)
                show(have)
                if stop.is_set():
                    raise _Stopped

    for attempt in range(1, _TRIES + 1):
        if stop.wait(0 if attempt == 1 else _PAUSE * 2 ** (attempt - 2)):
            raise _Stopped
        if part.exists() and part.stat().st_size >= file.size:
            part.unlink()  # not this file's beginning
        resumed = part.exists()
        try:
            _get(file.url, part, write, session)
            if part.stat().st_size < file.size:
                raise requests.ConnectionError(
                    f"{file.url}: {part.stat().st_size:,} of {file.size:,} bytes came"
                )
        except requests.RequestException as error:
            answer = error.response
            if answer is not None and answer.status_code not in _BUSY:
                raise _FileError(
                    f"{file.url}: expected the file, found {in_words(error)}"
                ) from error
            if attempt == _TRIES:
                raise requests.ConnectionError(
                    f"{file.url}: asked {_TRIES} times, the last time: {in_words(error)}"
                ) from error
            continue
        fault = file.fault(part)
        if not fault:
            return os.replace(part, path)
        part.unlink()
        show(0)
        if not resumed:  # else the first half may have been left from another file
            raise _FileError(f"{file.url}: {fault}")
    raise _FileError(f"{file.url}: {fault}")


def _require_space(folder: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < n_bytes:
        raise OSError(
            f"{folder}: expected {n_bytes / 1e9:.1f} GB of free disk space, found {free / 1e9:.1f}"
        )


def main(arguments: list[str] | None = None) -> int:
    """Download what the command line names; return the exit status."""
    speak_to_any_console()
    everything = {**DATA_SETS, **FILE_SETS}
    parser = argparse.ArgumentParser(
        prog="python -m tools.download",
        description="Download a data set into the data folder, check it and unpack it. "
        "After an interruption the same command goes on.",
        epilog="\n".join(f"{name:10} {one.what}" for name, one in everything.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=everything, help="which data set")
    parser.add_argument(
        "--md5", help="expect this checksum, for a data set whose own is unverified (isles2015)"
    )
    parser.add_argument(
        "--patients", type=int, help="how many of soop, 100 unless said; more add to those there"
    )
    parser.add_argument("--adc", action="store_true", help="of soop, the maps of ADC, too")
    chosen = parser.parse_args(arguments)
    if chosen.md5 and not getattr(everything[chosen.name], "unverified", ""):
        parser.error(f"--md5: the checksum of {chosen.name} is its publisher's; expected no other")
    if chosen.name != "soop" and (chosen.patients is not None or chosen.adc):
        parser.error(f"--patients and --adc: expected with soop, found with {chosen.name}")
    try:
        if chosen.name == "soop":
            patients = 100 if chosen.patients is None else chosen.patients
            download_soop(patients, adc=chosen.adc)
        elif chosen.name == "soop-slices":
            download_slices()
        else:
            download(chosen.name, md5=chosen.md5)
    except KeyboardInterrupt:
        kept = _staging(everything[chosen.name])
        print(f"Interrupted. The same command goes on from what is in {kept}.", file=sys.stderr)
        return 130
    except (OSError, ValueError) as error:
        print(f"{parser.prog}: {in_words(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
