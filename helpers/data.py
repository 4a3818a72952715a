"""The data folder: what is looked for there, and the results that are kept there."""

from __future__ import annotations

import ast
import hashlib
import inspect
import os
import tempfile
import textwrap
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

from helpers import in_words, tell
from helpers.rehearsal import is_quick

_BOOK_DATA = Path(__file__).resolve().parents[1] / "data"
_CURE = (
    "copy the book to a folder of your own, "
    "or set VAE_BOOK_OUTPUT to a folder that can be written to"
)
#: Of these, another version may compute another result.
_PACKAGES = ("keras", "numpy", "scikit-learn", "scipy", "SimpleITK", "tensorflow")


def data_folder() -> Path:
    """Folder that the book writes to: downloads, the generated cohort, results that are kept.

    Returns
    -------
    Path
        ``data/`` beside the book, or the folder that ``VAE_BOOK_OUTPUT`` names; it is created if
        it does not exist yet.

    Raises
    ------
    OSError
        Nothing can be written there; the message says what to do.

    Examples
    --------
    >>> data_folder().name
    'data'
    """
    return writable(_output(), _CURE)


def writable(folder: Path, cure: str = "name another folder") -> Path:
    """Make a folder if it is missing, and see that something can be written there.

    Parameters
    ----------
    folder : Path
        The folder.
    cure : str
        What the error says to do.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    OSError
        Nothing can be written there, for want of permission or of a disk that takes it.

    Examples
    --------
    >>> writable(Path(__file__))
    Traceback (most recent call last):
    ...
    FileExistsError: ...data.py: nothing can be written there (File exists); name another folder
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # To ask for the permission is not enough: a disk may be read-only for everybody.
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        reason = error.strerror or in_words(error)
        raise type(error)(f"{folder}: nothing can be written there ({reason}); {cure}") from error
    return folder


def _output() -> Path:
    return Path(os.environ.get("VAE_BOOK_OUTPUT") or _BOOK_DATA)


def find_data(name: str) -> Path | None:
    """Look a data set up: where ``VAE_BOOK_DATA`` says, then ``VAE_BOOK_OUTPUT``, then ``data/``.

    Parameters
    ----------
    name : str
        A file or folder inside the data folder, such as ``"mnist.npz"`` or ``"isles2022"``.

    Returns
    -------
    Path or None
        The first one that exists, or None.

    Raises
    ------
    NotADirectoryError
        ``VAE_BOOK_DATA`` is set but does not name a folder.

    Examples
    --------
    >>> find_data("no-such-data-set") is None
    True
    """
    folders = [_output(), _BOOK_DATA]
    if shared := os.environ.get("VAE_BOOK_DATA"):
        if not Path(shared).is_dir():
            raise NotADirectoryError(
                f"VAE_BOOK_DATA is set to {shared!r}, which is not a folder; "
                "set it to the folder that holds mnist.npz, isles2015/ or isles2022/, or unset it"
            )
        folders.insert(0, Path(shared))
    return next((folder / name for folder in folders if (folder / name).exists()), None)


def cached(compute: Callable[..., Any], *arguments, depends_on: Any = None, **settings) -> Any:
    """Return ``compute(*arguments, **settings)``, computed once for one code and one data set.

    The result is kept in ``cache/`` in the data folder. The name of its file is a hash of the
    function's source, the source of all helpers, the versions of the packages that compute, and
    the arguments; if any of them changes, the result is computed anew. The folder can be deleted
    at any time. A file in it that is damaged is told of, and its result computed anew; a result
    that cannot be kept is returned all the same, and told of. What a function is bound to, closes
    over, or has as a default that is not written out counts, too. Several results are computed at
    once, a process each, by ``in_parallel(delayed(cached)(compute, ...) for ...)``, if `compute`
    is in a module.

    Parameters
    ----------
    compute : callable
        A named function whose result follows from its source, the helpers and its arguments: not
        from variables of the notebook around it.
    *arguments, **settings
        Anything `joblib.hash` takes: arrays, strings, numbers, dataclasses.
    depends_on : optional
        What to hash in place of the arguments; the content of a file, say, in place of its path.

    Returns
    -------
    Anything
        What `compute` returned, now or earlier.

    Raises
    ------
    ValueError
        `compute` cannot be told from other functions: it has no name or no source, or goes by
        something that cannot be hashed.

    Examples
    --------
    >>> import tempfile, unittest.mock
    >>> def slow(x):
    ...     return x + 1
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with unittest.mock.patch("helpers.data.data_folder", lambda: Path(folder)):
    ...         cached(slow, 1), cached(slow, 1)
    (2, 2)
    """
    import joblib  # here: tools.check looks for data before anything is installed

    what = (arguments if depends_on is None else depends_on, settings)
    source, *untold = _identity(compute)
    content = (source, _code(), is_quick()), what
    # An array that joblib hands to a worker through a file is the array it was.
    key = joblib.hash((*content, untold) if untold else content, coerce_mmap=True)
    try:
        folder = data_folder()
    except OSError:  # what was kept there can still be read
        folder = _output()
    path = folder / "cache" / f"{compute.__name__}-{key}.joblib"
    if os.path.exists(path) and not os.path.isfile(path):  # to open a pipe is to wait for ever
        tell(f"{path}: expected a kept result, found no file; what is computed is not kept")
        return compute(*arguments, **settings)
    try:
        return _read(path)
    except (FileNotFoundError, NotADirectoryError):
        pass  # nothing was kept
    except Exception as error:
        tell(f"{path}: expected a kept result, found {in_words(error)}; it is computed anew")
    result = compute(*arguments, **settings)
    kept = BytesIO()
    try:
        joblib.dump(result, kept, compress=1)  # more takes twice as long, and saves little
    except Exception as error:  # whatever an object raises that is not to be written
        tell(f"{compute.__name__}: what it returns cannot be kept ({in_words(error)})")
        return result
    try:
        _write(path, kept.getvalue())
    except OSError as error:
        reason = error.strerror or in_words(error)
        tell(f"{path.parent}: what is computed cannot be kept there ({reason}); {_CURE}")
    return result


def _identity(compute: Callable) -> list:
    """List what tells a function from others: its source, and what the source does not tell."""
    import joblib

    try:
        identity = _parts(compute, ())
        joblib.hash(identity)
    except Exception as error:  # of the source, or of whatever the function goes by
        raise ValueError(
            "compute must be a named function that goes by what can be hashed, found "
            f"{compute!r}: {in_words(error)}"
        ) from error
    return identity


def _parts(function: Callable, within: tuple) -> list:
    if inspect.ismethod(function):
        return [*_parts(function.__func__, within), function.__self__]
    if not inspect.isfunction(function):  # a class, or what `lru_cache` makes of a function
        inner = inspect.unwrap(function)
        return [inspect.getsource(function)] if inner is function else _parts(inner, within)
    if function.__name__ == "<lambda>":  # its source is a whole line, which may hold several
        raise ValueError("a lambda has no name")
    # Of a function that wraps another one, the source would be that one's, but for its code.
    source = inspect.getsource(function.__code__ if hasattr(function, "__wrapped__") else function)
    parts, within = [source], (*within, function)
    closed_over = inspect.getclosurevars(function).nonlocals.values()
    for value in (*closed_over, *_defaults(function, source)):
        if not inspect.isfunction(value) and not inspect.ismethod(value):
            parts.append(value)
        elif value not in within:  # one that calls itself is in hand already
            parts.append(_parts(value, within))
    return parts


def _defaults(function: Callable, source: str) -> list:
    """List the defaults of a function, unless all of them are written out in its source."""
    values = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    if not values:
        return []
    try:
        written = ast.parse(textwrap.dedent(source)).body[0].args
        nodes = [*written.defaults, *filter(None, written.kw_defaults)]
        literals = [ast.literal_eval(node) for node in nodes]
    except (ValueError, SyntaxError):  # an expression: `n=n`, and not `n=3`
        return values
    return [] if repr(literals) == repr(values) else values


def _read(path: Path) -> Any:
    import joblib

    content = path.read_bytes()
    digest, kept = content[:32], content[32:]
    # First of all: what reads a damaged file may fail in any way, or never come to an end.
    if digest != _digest(path, kept):
        raise ValueError(f"{len(content)} bytes that are not what was written")
    return joblib.load(BytesIO(kept))


def _write(path: Path, kept: bytes) -> None:
    temporary = path.with_name(f"._{os.getpid()}_{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(_digest(path, kept) + kept)
        os.replace(temporary, path)  # whole or not at all
    finally:
        temporary.unlink(missing_ok=True)


def _digest(path: Path, kept: bytes) -> bytes:
    """Hash of a kept result and of its name, so that it is not taken for another one's."""
    return hashlib.sha256(path.name.encode() + kept).digest()


def file_hash(*paths: Path | None) -> str:
    """Hash the content of files, in order; None stands for a file that there is not.

    Examples
    --------
    >>> file_hash(None) == file_hash(None, None)
    False
    """
    digest = hashlib.sha256()
    for path in paths:
        digest.update(b"none" if path is None else hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


@lru_cache(maxsize=1)
def _code() -> str:
    """Hash of all helpers and of the versions of what they compute with."""
    import joblib

    sources = sorted(Path(__file__).parent.glob("*.py"))
    versions = [f"{package} {version(package)}" for package in _PACKAGES]
    return file_hash(*sources) + joblib.hash(versions)
