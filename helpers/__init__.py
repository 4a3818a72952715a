"""The small package that the chapters import."""

import contextlib
import os
import threading
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

# Two threads that take turns would give back what the other one put there; one may nest blocks.
_LOCK = threading.RLock()


@contextlib.contextmanager
def silent_stderr() -> Iterator[None]:
    """Discard what C++ code writes to the standard error stream while the block runs.

    TensorFlow and ITK write past ``sys.stderr``, straight to the file descriptor, so that is what
    is turned away for a moment.

    Examples
    --------
    >>> with silent_stderr():
    ...     import keras
    """
    with _LOCK:
        saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            os.close(nowhere)


def yes_or_no(name: str, values: ArrayLike) -> np.ndarray:
    """Take labels or a mask for what they say: yes or no, and nothing else.

    Whatever is not zero counts as true in Python: NaN, ``"False"``, and the 2 of labels that count
    from 1.

    Parameters
    ----------
    name : str
        What the values are called in the error.
    values : array_like of bool, or of numbers that are all 0 or 1
        Labels or a mask.

    Returns
    -------
    ndarray of bool, shape of values

    Raises
    ------
    ValueError
        For anything else.

    Examples
    --------
    >>> yes_or_no("is_lesion", [0.0, 1.0])
    array([False,  True])
    >>> yes_or_no("is_lesion", [-1, 1])
    Traceback (most recent call last):
    ValueError: is_lesion must hold 0 and 1 only, found [-1, 1] …
    """
    values = np.asarray(values)
    if values.dtype.kind not in "buif":
        raise ValueError(f"{name} must hold 0 and 1 only, found dtype {values.dtype}")
    yes = values == 1
    if not (yes | (values == 0)).all():
        # In order, so of the first five at least three are neither.
        raise ValueError(f"{name} must hold 0 and 1 only, found {np.unique(values)[:5].tolist()} …")
    return yes
