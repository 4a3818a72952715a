"""Where the data are: the folder a class shares, then the book's own."""

from __future__ import annotations

import os
from pathlib import Path

_BOOK_DATA = Path(__file__).resolve().parents[1] / "data"


def data_folder() -> Path:
    """Folder that downloads and the generated cohort are written to: ``data/`` beside the book.

    Returns
    -------
    Path
        The folder; it is created if it does not exist yet.

    Examples
    --------
    >>> data_folder().name
    'data'
    """
    _BOOK_DATA.mkdir(exist_ok=True)
    return _BOOK_DATA


def find_data(name: str) -> Path | None:
    """Look a data set up: in the folder that ``VAE_BOOK_DATA`` names, then in ``data/``.

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
    folders = [_BOOK_DATA]
    if shared := os.environ.get("VAE_BOOK_DATA"):
        if not Path(shared).is_dir():
            raise NotADirectoryError(
                f"VAE_BOOK_DATA is set to {shared!r}, which is not a folder; "
                "set it to the folder that holds mnist.npz, isles2015/ or isles2022/, or unset it"
            )
        folders.insert(0, Path(shared))
    return next((folder / name for folder in folders if (folder / name).exists()), None)
