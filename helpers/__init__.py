"""The small package that the chapters import."""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from numbers import Integral
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike

# A known false alarm of OpenBLAS, which scikit-learn's linear models use: now and then it raises
# the processor's flag for an invalid number, though all of them are finite (numpy/numpy#24067).
warnings.filterwarnings(
    "ignore",
    "invalid value encountered in matmul",
    RuntimeWarning,
    module=r"sklearn\.linear_model\._linear_loss",
)

# Two threads that take turns would give back what the other one put there; one may nest blocks.
_LOCK = threading.RLock()
# What was told while somebody listens; each thread and each process has its own.
_HEARD: ContextVar[list[str] | None] = ContextVar("heard", default=None)


def in_words(error: BaseException) -> str:
    """Put an error into words: its text, and its type where the text alone says too little.

    Examples
    --------
    >>> in_words(ValueError("no positive spacing")), in_words(EOFError()), in_words(KeyError(0))
    ('no positive spacing', 'EOFError', 'KeyError: 0')
    """
    text, kind = str(error).strip(), type(error).__name__
    if " " in text and not isinstance(error, KeyError):  # whose text is a key and nothing else
        return text
    return f"{kind}: {text}" if text else kind


def tell(message: str) -> None:
    """Warn of what costs no result, where a reader sees it: also from another process or thread.

    `helpers.parallel` hands on what its calls tell, and says once what several of them say.

    Examples
    --------
    >>> with warnings.catch_warnings(record=True, action="always") as caught:
    ...     tell("this scan has no mask")
    >>> str(caught[0].message)
    'this scan has no mask'
    """
    heard = _HEARD.get()
    if heard is None:
        warnings.warn(message, stacklevel=3)
    else:
        heard.append(message)


def hear(function: Callable, *arguments, **settings) -> tuple[Any, list[str]]:
    """Call a function, and return what it returns and what it tells meanwhile.

    Examples
    --------
    >>> hear(tell, "this scan has no mask")
    (None, ['this scan has no mask'])
    """
    heard: list[str] = []
    before = _HEARD.set(heard)
    try:
        return function(*arguments, **settings), heard
    finally:
        _HEARD.reset(before)


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


def as_array(name: str, values: Any) -> np.ndarray:
    """Take values as an array, and nothing that only looks like one.

    Parameters
    ----------
    name : str
        What the values are called in the error.
    values : array_like
        Perhaps a masked array of NumPy, or a list with masked values in it: as a plain array they
        would count like any other. Perhaps rows of different lengths.

    Returns
    -------
    ndarray
        The values as they are.

    Raises
    ------
    ValueError
        Some of them are masked, or a row is longer than another one.

    Examples
    --------
    >>> import numpy as np
    >>> as_array("score", np.ma.masked_equal([0.5, -1.0], -1.0))
    Traceback (most recent call last):
    ValueError: score must hold no masked value, found 1 masked values
    >>> as_array("score", [[1], [1, 2]])
    Traceback (most recent call last):
    ValueError: score must be an array, found rows of different lengths
    """
    import numpy as np  # here: tools.check runs before anything is installed

    parts = values if isinstance(values, (list, tuple)) else [values]
    masked = [np.ma.count_masked(part) for part in parts if isinstance(part, np.ma.MaskedArray)]
    if n_masked := int(sum(masked)):
        raise ValueError(f"{name} must hold no masked value, found {n_masked} masked values")
    try:
        return np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{name} must be an array, found rows of different lengths") from error


def whole_number(name: str, value: Any, at_least: int = 1) -> int:
    """Take a number of things, and nothing that is like one: text, a fraction, NaN or a truth.

    Parameters
    ----------
    name : str
        What the number is called in the error.
    value : int
        The number.
    at_least : int
        The smallest one that will do.

    Returns
    -------
    int
        The number, whatever type of whole number it was: PyTorch takes no other.

    Raises
    ------
    ValueError
        For anything else.

    Examples
    --------
    >>> whole_number("n_draws", 1.5)
    Traceback (most recent call last):
    ValueError: n_draws must be a whole number of at least 1, found 1.5
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < at_least:
        raise ValueError(f"{name} must be a whole number of at least {at_least}, found {value!r}")
    return int(value)


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
    import numpy as np  # here: tools.check runs before anything is installed

    values = as_array(name, values)
    if values.dtype.kind not in "buif":
        raise ValueError(f"{name} must hold 0 and 1 only, found dtype {values.dtype}")
    yes = values == 1
    if not (yes | (values == 0)).all():
        # In order, so of the first five at least three are neither.
        raise ValueError(f"{name} must hold 0 and 1 only, found {np.unique(values)[:5].tolist()} …")
    return yes
