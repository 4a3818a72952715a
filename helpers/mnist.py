"""Handwritten digits: MNIST where it can be had, scikit-learn's small digits where it cannot."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pooch
from scipy.ndimage import zoom
from sklearn.datasets import load_digits

from helpers import in_words, tell
from helpers.data import data_folder, find_data
from helpers.rehearsal import fewer

#: Where MNIST is to be had, and what it must be: as ``keras.datasets.mnist`` has them.
URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz"
CHECKSUM = "sha256:731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"

_KEYS = ("x_train", "y_train", "x_test", "y_test")


@dataclass(frozen=True, eq=False)
class Digits:
    """Images of handwritten digits, split as their collectors split them.

    Attributes
    ----------
    x_train, x_test : ndarray of float32, shape (n, 28, 28)
        Images in [0, 1]: 0 is paper, 1 is ink.
    y_train, y_test : ndarray of int, shape (n,)
        Which digit each image shows.
    source : str
        What the images are, in words a figure caption can use.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    source: str


def load_mnist(digits: Sequence[int] = (0, 1), *, source: str = "auto") -> Digits:
    """Load the images of the chosen digits.

    Parameters
    ----------
    digits : sequence of int
        Which digits to keep, each from 0 to 9.
    source : {"auto", "mnist", "sklearn"}
        ``"auto"`` takes ``mnist.npz`` from the data folder, and downloads it there if it is
        missing, or damaged since it was; else scikit-learn's bundled digits (8 × 8 pixels,
        enlarged and framed to 28 × 28) with a warning.
        ``"mnist"`` and ``"sklearn"`` insist on one.

    Returns
    -------
    Digits
        Training and test images with their labels, in the order of the data set; in a rehearsal
        (`helpers.rehearsal`) the first tenth of them.

    Raises
    ------
    ValueError
        For a digit outside 0–9, a repeated or missing one, an unknown source, or an
        ``mnist.npz`` of somebody else's that does not hold MNIST's arrays.
    FileNotFoundError
        For ``source="mnist"`` where no file is found and the download fails.

    References
    ----------
    LeCun, Bottou, Bengio and Haffner (1998), Gradient-based learning applied to document
    recognition, Proceedings of the IEEE 86:2278.

    Examples
    --------
    >>> zeros_and_ones = load_mnist(source="sklearn")
    >>> zeros_and_ones.x_train.shape[1:], sorted(set(zeros_and_ones.y_test.tolist()))
    ((28, 28), [0, 1])
    """
    try:
        wanted = list(digits)
        distinct = set(wanted)
    except TypeError:  # one digit alone, or lists in place of digits
        wanted, distinct = [], set()
    if not wanted or len(distinct) < len(wanted) or not distinct <= set(range(10)):
        raise ValueError(f"digits must be distinct whole numbers from 0 to 9, found {digits!r}")
    if source not in ("auto", "mnist", "sklearn"):
        raise ValueError(f"source must be 'auto', 'mnist' or 'sklearn', found {source!r}")

    if source == "sklearn":
        arrays, name = _sklearn_digits(), "scikit-learn's 8 × 8 digits, enlarged"
    else:
        try:
            arrays, name = _mnist(), "MNIST"
        except FileNotFoundError:
            if source == "mnist":
                raise
            warnings.warn(
                "MNIST was neither found nor downloaded: using scikit-learn's 1,797 small digits "
                "instead, so the numbers differ from the book's. For the real thing, run "
                "python -m tools.download mnist, or put mnist.npz into the data folder.",
                stacklevel=2,
            )
            return load_mnist(digits, source="sklearn")

    kept = {}
    for part in ("train", "test"):
        images, labels = arrays[f"x_{part}"], arrays[f"y_{part}"].astype(np.int64)
        chosen = np.flatnonzero(np.isin(labels, wanted))
        chosen = chosen[: fewer(len(chosen), at_least=300)]
        kept[f"x_{part}"] = images[chosen].astype(np.float32) / np.float32(images.max())
        kept[f"y_{part}"] = labels[chosen]
    return Digits(**kept, source=name)


def _mnist() -> dict[str, np.ndarray]:
    path = find_data("mnist.npz")
    if path is not None:
        try:
            return read_archive(path)
        except ValueError as error:
            # A damaged download is downloaded again; what somebody put there is theirs to mend.
            damaged = error.__cause__ is not None and path.is_file()
            if not damaged or path.parent != _own_folder():
                raise
            tell(f"{in_words(error).split(';')[0]}; it is downloaded anew")
    # Kept whole or not at all, and given up where 30 seconds pass without a byte.
    wait = pooch.HTTPDownloader(timeout=30)
    try:
        path = pooch.retrieve(URL, CHECKSUM, "mnist.npz", data_folder(), downloader=wait)
    except Exception as error:  # of the network, the disk, or a file that is another one
        raise FileNotFoundError(
            "mnist.npz is not in the data folder, and could not be downloaded: "
            f"{type(error).__name__}: {error}"
        ) from error
    return read_archive(Path(path))


def _own_folder() -> Path | None:
    try:
        return data_folder()
    except OSError:
        return None  # nothing can be written, so nothing was


def read_archive(path: Path) -> dict[str, np.ndarray]:
    """Read ``mnist.npz`` whole, and see that it holds MNIST's arrays.

    Returns
    -------
    dict of str to ndarray
        ``x_train``, ``y_train``, ``x_test`` and ``y_test`` as they are stored.

    Raises
    ------
    ValueError
        The file is damaged or another one; the message names it.

    Examples
    --------
    >>> read_archive(Path("no-such.npz"))
    Traceback (most recent call last):
    ...
    ValueError: no-such.npz is not a readable MNIST archive; fetch it again: ...
    """
    expected = {"x_train": (60000, 28, 28), "y_train": (60000,)}
    expected |= {"x_test": (10000, 28, 28), "y_test": (10000,)}
    if path.exists() and not path.is_file():  # to open a pipe is to wait for who writes to it
        raise ValueError(f"{path}: expected MNIST's file, found no file; move it away")
    try:
        with path.open("rb") as file, np.load(file) as archive:
            arrays = {key: archive[key] for key in _KEYS}
    except Exception as error:  # a damaged zip raises many kinds
        raise ValueError(
            f"{path} is not a readable MNIST archive; fetch it again: "
            "python -m tools.download mnist"
        ) from error
    for key, shape in expected.items():
        if arrays[key].shape != shape:
            raise ValueError(f"{path}: {key} has shape {arrays[key].shape}, expected {shape}")
    for part in ("train", "test"):
        images, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if images.dtype.kind not in "uif":
            raise ValueError(f"{path}: x_{part} must hold numbers, found {images.dtype}")
        low, high = images.min(), images.max()
        if not (low >= 0 and 0 < high < np.inf):
            raise ValueError(
                f"{path}: x_{part} must hold brightnesses from 0 up, found {low} to {high}"
            )
        if (strange := labels[~np.isin(labels, range(10))]).size:
            raise ValueError(f"{path}: y_{part} must hold digits from 0 to 9, found {strange[0]}")
    return arrays


def _sklearn_digits() -> dict[str, np.ndarray]:
    digits = load_digits()
    # As MNIST has it: the digit in a square of 20 × 20, with a margin of 4 around it.
    images = zoom(digits.images, (1, 2.5, 2.5), order=1, grid_mode=True, mode="nearest")
    images = np.pad(images, ((0, 0), (4, 4), (4, 4)))
    # The images come writer by writer: cutting in order keeps most writers on one side.
    cut = len(images) * 4 // 5
    return dict(
        x_train=images[:cut],
        y_train=digits.target[:cut],
        x_test=images[cut:],
        y_test=digits.target[cut:],
    )
