"""The small package that the chapters import."""

import contextlib
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

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
