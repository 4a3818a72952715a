"""A cohort larger than memory: the patches of each patient in a folder of plain NumPy files."""

from __future__ import annotations

import glob
import os
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path

import joblib
import numpy as np

from helpers.cohort import SPACING, brain_patches
from helpers.data import file_hash
from helpers.parallel import map_cases
from helpers.patches import PatchSet
from helpers.scans import Case, load_case

#: The helpers that decide what a patch looks like: a change in one of them makes shards anew.
_CUTTERS = [
    Path(__file__).with_name(f"{n}.py") for n in ("cohort", "intensity", "patches", "scans")
]
_FIELDS = [field.name for field in fields(PatchSet)]


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
    if it was cut from files of the same content, with the same settings and the same code; else
    it is made anew. So an interrupted call resumes where it stopped.

    Parameters
    ----------
    cases : sequence of Case
        The patients; each scan is resampled to `helpers.cohort.SPACING`.
    folder : path
        Where the shards go; made if missing. On a cluster, every worker must see it, and the
        scans, under the same path.
    patch_size, min_brain_fraction
        As for `helpers.cohort.load_patches`, which cuts the same patches.
    client : distributed.Client, optional
        As for `helpers.cohort.map_cases`.

    Returns
    -------
    list of Path
        The shard of each case, in order; `read_shard` opens one.

    Raises
    ------
    ValueError
        No case was given, or names of patients that cannot each name a folder.
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
    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"patch_size": tuple(patch_size), "min_brain_fraction": min_brain_fraction}
    return map_cases(partial(_write_shard, folder, settings), cases, client=client)


def find_shards(folder: str | os.PathLike) -> list[Path]:
    """List the shards in a folder, sorted by name.

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

    Examples
    --------
    >>> read_shard("no-such-shard")
    Traceback (most recent call last):
    ...
    FileNotFoundError: [Errno 2] No such file or directory: 'no-such-shard/patches.npy'
    """
    return PatchSet(**{name: _open(Path(shard) / f"{name}.npy") for name in _FIELDS})


def _open(path: Path) -> np.ndarray | int:
    if path.stem.startswith("dropped"):
        return int(np.load(path))
    return np.load(path, mmap_mode="r")


def _write_shard(folder: Path, settings: dict, case: Case) -> Path:
    shard, fingerprint = folder / case.subject_id, _fingerprint(settings, case)
    if _has(shard, fingerprint):
        return shard
    patches = brain_patches(load_case(case, spacing=SPACING), **settings)
    temporary = folder / f".{case.subject_id}.{uuid.uuid4().hex}"
    temporary.mkdir()
    for name in _FIELDS:
        np.save(temporary / f"{name}.npy", getattr(patches, name))
    (temporary / "fingerprint.txt").write_text(fingerprint)
    shutil.rmtree(shard, ignore_errors=True)
    try:
        os.replace(temporary, shard)
    except OSError:  # somebody else was quicker, as after a worker that was taken for dead
        if not _has(shard, fingerprint):
            raise
    for left_over in folder.glob(f".{glob.escape(case.subject_id)}.*"):  # of runs that were killed
        shutil.rmtree(left_over, ignore_errors=True)
    return shard


def _has(shard: Path, fingerprint: str) -> bool:
    path = shard / "fingerprint.txt"
    return path.exists() and path.read_text() == fingerprint


def _fingerprint(settings: dict, case: Case) -> str:
    content = file_hash(case.dwi, case.lesion), file_hash(*_CUTTERS)
    return joblib.hash((content, sorted(settings.items()), SPACING))
