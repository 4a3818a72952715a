"""The small package that the chapters import."""

import contextlib
import os
import threading
from collections.abc import Iterator

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
