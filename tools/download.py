"""Get the real data: ``python -m tools.download isles2022`` fetches, checks and unpacks them.

Everything is done in a folder of its own beside the place of the data set, and moved there once it
is whole. So what a failed or interrupted run leaves is no data set, and the next run goes on.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import zipfile
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pooch
import requests
from tqdm import tqdm

from helpers import mnist
from helpers.data import data_folder, find_data
from helpers.scans import find_cases

# Zenodo turns away the library's own name, which robots use.
_HEADERS = {"User-Agent": "vae-medical-images", "Accept-Encoding": "identity"}
_CHUNK = 2**16  # bytes: at most this much is lost when a connection breaks


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
        The server, the network or the disk fails, or there is too little space.
    ValueError
        The file is not the published one, or not the archive that is expected.

    Examples
    --------
    >>> from helpers.scans import find_cases
    >>> len(find_cases(download("isles2022")))  # doctest: +SKIP
    250
    """
    data_set = DATA_SETS[name]
    if there := find_data(data_set.place):
        print(f"{there} is already there: {_contents(there)}. To get it anew, remove it first.")
        return there
    checksum = f"md5:{md5}" if md5 else data_set.checksum
    print(f"{data_set.what}\nLicence: {data_set.licence}\nPlease cite: {data_set.citation}")
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


def _staging(data_set: DataSet) -> Path:
    return data_folder() / f"{data_set.place}.part"


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
            f"{data_set.url}: the download stopped: {error}. {kept} kept in {staging}; "
            "the same command goes on from there."
        ) from error
    except ValueError as error:  # pooch names the file and both checksums
        part.unlink(missing_ok=True)
        raise ValueError(f"{data_set.url}: {error} {data_set.unverified}".rstrip()) from error
    part.unlink(missing_ok=True)
    return archive


def _resume(url: str, output_file: str, _pooch, *, part: Path) -> None:
    """Download to `part`, from where it ends; pooch then checks `output_file`, the same bytes."""
    have = part.stat().st_size if part.exists() else 0
    headers = _HEADERS | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=30) as response:
        sent = response.headers.get("Content-Range", "")
        if have and response.status_code == 416:  # there are no bytes from there on
            if sent != f"bytes */{have}":
                part.unlink()  # longer than the file: left from another one
                return _resume(url, output_file, _pooch, part=part)
        else:
            response.raise_for_status()
            if response.status_code != 206:  # the server sends the whole file in any case
                have = 0
            elif not sent.startswith(f"bytes {have}-"):
                raise OSError(f"expected the bytes from {have} on, found Content-Range {sent!r}")
            _write(response, part, have)
    # A second name for the same bytes: pooch removes its own where its check is interrupted.
    os.remove(output_file)
    try:
        os.link(part, output_file)
    except OSError:  # a file system without hard links
        os.replace(part, output_file)


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
        raise ValueError(f"{archive}: expected a whole zip archive, found: {error}") from error
    return folder


def _require_space(folder: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < n_bytes:
        raise OSError(
            f"{folder}: expected {n_bytes / 1e9:.1f} GB of free disk space, found {free / 1e9:.1f}"
        )


def main(arguments: list[str] | None = None) -> int:
    """Download what the command line names; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.download",
        description="Download a data set into the data folder, check it and unpack it. "
        "After an interruption the same command goes on.",
        epilog="\n".join(f"{name:10} {data_set.what}" for name, data_set in DATA_SETS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=DATA_SETS, help="which data set")
    parser.add_argument(
        "--md5", help="expect this checksum, for a data set whose own is unverified (isles2015)"
    )
    chosen = parser.parse_args(arguments)
    data_set = DATA_SETS[chosen.name]
    if chosen.md5 and not data_set.unverified:
        parser.error(f"--md5: the checksum of {chosen.name} is its publisher's; expected no other")
    try:
        download(chosen.name, md5=chosen.md5)
    except KeyboardInterrupt:
        kept = _staging(data_set)
        print(f"Interrupted. The same command goes on from what is in {kept}.", file=sys.stderr)
        return 130
    except (OSError, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
