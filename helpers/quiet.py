"""Keep the small talk of TensorFlow and joblib off the page; every other warning still shows."""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator

# Read by TensorFlow's own logger once it has started.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def _is_news(record: logging.LogRecord) -> bool:
    """Drop the advice on tracing: each new network has to be traced, and a chapter has many."""
    return "tf.function retracing" not in record.getMessage()


logging.getLogger("tensorflow").addFilter(_is_news)
# Joblib replaces a process that has grown, as each does in which TensorFlow has trained a network.
# Nothing is lost by it.
warnings.filterwarnings("ignore", "A worker stopped while some jobs were given", UserWarning)


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Discard what C++ code writes to the standard error stream while the block runs.

    TensorFlow writes a few lines before its logger can be told not to, past ``sys.stderr``
    and straight to the file descriptor, so that is what is turned away for a moment.

    Examples
    --------
    >>> with quiet_stderr():
    ...     import keras
    """
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
