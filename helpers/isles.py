"""ISLES stroke scans: find the cases in a folder, and load one as checked arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np


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
