"""A rehearsal with a tenth of the digits, patients and epochs: set ``VAE_BOOK_QUICK=1``."""

from __future__ import annotations

import os


def is_quick() -> bool:
    """Tell whether ``VAE_BOOK_QUICK`` asks for a rehearsal.

    Raises
    ------
    ValueError
        For any value but 0, 1 or nothing.

    Examples
    --------
    >>> import unittest.mock
    >>> with unittest.mock.patch.dict(os.environ, VAE_BOOK_QUICK="1"):
    ...     is_quick()
    True
    """
    value = os.environ.get("VAE_BOOK_QUICK", "")
    if value not in ("", "0", "1"):
        raise ValueError(f"VAE_BOOK_QUICK must be 0 or 1, found {value!r}")
    return value == "1"


def fewer(n: int, at_least: int = 1) -> int:
    """Return a tenth of n in a rehearsal, and n otherwise.

    Parameters
    ----------
    n : int
        How many patients, epochs or steps the book takes.
    at_least : int
        Below this, what they are needed for would not work.

    Returns
    -------
    int
        In a rehearsal never more than `n`.

    Examples
    --------
    >>> import unittest.mock
    >>> with unittest.mock.patch.dict(os.environ, VAE_BOOK_QUICK="1"):
    ...     fewer(30), fewer(30, at_least=10)
    (3, 10)
    """
    return min(n, max(at_least, n // 10)) if is_quick() else n
