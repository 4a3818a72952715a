"""Is this computer ready for the book? ``python -m tools.check`` says so in words.

What this file imports at its top comes with Python, so that it can say which packages are missing.
"""

from __future__ import annotations

import os
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from zipfile import BadZipFile

from helpers.data import find_data
from helpers.rehearsal import is_quick

_LOCK = Path(__file__).resolve().parents[1] / "requirements.txt"
# Measured: the book on a machine of two cores, and a layer's matrix product on one of them.
_BOOK_MINUTES, _PRODUCT_SECONDS = 9.4, 4.2e-4
_ABSENT = "not installed"
_SLICES = "soop_flair/axial_slices.npz"
_NEEDED = (
    "jupyter-book jupyterlab jupyterlab-myst bokeh keras tensorflow numpy scipy scikit-learn "
    "matplotlib SimpleITK nibabel dcm2niix pydicom nilearn distributed psutil threadpoolctl"
)


def check() -> list[tuple[bool, str, str]]:
    """Look at Python, packages, backend, machine and data.

    Returns
    -------
    list of (bool, str, str)
        For each thing: whether it is as the book needs it, what it is, and what was found, with
        the cure where there is something to mend.

    Examples
    --------
    >>> [name for _, name, _ in check()][:2]
    ['Python', 'jupyter-book']
    """
    findings = [_python()]
    locked = _locked_versions()
    findings += [_package(name, locked) for name in _NEEDED.split()]
    findings.append(_backend())
    findings.append(_rehearsal())
    if any(found.startswith(_ABSENT) for _, _, found in findings):
        return findings  # the rest takes packages
    return [*findings, *_machine(), *_data()]


def _machine() -> list[tuple[bool, str, str]]:
    import psutil

    memory, cores = psutil.virtual_memory().total / 2**30, os.cpu_count() or 1
    return [
        (memory >= 4, "memory", f"{memory:.0f} GiB" + ("" if memory >= 4 else "; 4 are needed")),
        (True, "processor cores", str(cores)),
        (True, "minutes for book", f"about {_expected_minutes(cores):.0f}"),
    ]


def _expected_minutes(cores: int) -> float:
    """Guess how long the book takes here, from how fast one core multiplies matrices.

    Most of the book's time goes into networks, of which many train side by side, one a core.
    """
    import numpy as np
    from threadpoolctl import threadpool_limits

    batch, weights = np.ones((100, 784), np.float32), np.ones((784, 256), np.float32)
    shortest = float("inf")
    with threadpool_limits(1):
        for _ in range(50):
            started = time.perf_counter()
            batch @ weights
            shortest = min(shortest, time.perf_counter() - started)
    return _BOOK_MINUTES * shortest / _PRODUCT_SECONDS * 2 / min(cores, 4)


def _python() -> tuple[bool, str, str]:
    good = (3, 11) <= sys.version_info < (3, 14)
    found = ".".join(map(str, sys.version_info[:3]))
    return good, "Python", found if good else f"{found}; install Python 3.11, 3.12 or 3.13"


def _locked_versions() -> dict[str, str]:
    pins = (line.split(";")[0].strip() for line in _LOCK.read_text().splitlines())
    return dict(pin.lower().split("==") for pin in pins if "==" in pin)


def _package(name: str, locked: dict[str, str]) -> tuple[bool, str, str]:
    wanted = locked[name.lower()]
    try:
        found = version(name)
    except PackageNotFoundError:
        found = _ABSENT
    if found == wanted:
        return True, name, found
    return False, name, f"{found}, the book was made with {wanted}; pip install -r requirements.txt"


def _backend() -> tuple[bool, str, str]:
    name = os.environ.get("KERAS_BACKEND", "tensorflow")
    if name not in ("tensorflow", "jax", "torch"):
        return False, "Keras backend", f"{name}; set KERAS_BACKEND to tensorflow, jax or torch"
    if find_spec(name) is None:
        return False, "Keras backend", f"{name} is not installed\npip install {name}"
    return True, "Keras backend", name


def _rehearsal() -> tuple[bool, str, str]:
    try:
        quick = is_quick()
    except ValueError as error:
        return False, "rehearsal", str(error)
    return True, "rehearsal", "yes; unset VAE_BOOK_QUICK for the book's numbers" if quick else "no"


def _data() -> list[tuple[bool, str, str]]:
    names = ("mnist.npz", "soop", "isles2015", "isles2022", "phantom", _SLICES)
    try:
        found = {name: find_data(name) for name in names}
    except NotADirectoryError as error:
        return [(False, "data folder", str(error).replace("; ", "\n"))]
    folders = ["data/"]
    if shared := os.environ.get("VAE_BOOK_DATA"):
        end = "/".join(Path(shared).resolve().parts[-2:])  # a page need not tell it whole
        folders.insert(0, f"…/{end} (VAE_BOOK_DATA)")
    return [
        (True, "data folder", "\nthen ".join(folders)),
        _digits(found["mnist.npz"]),
        _slices(found[_SLICES]),
        _scans("soop", found["soop"]),
        _scans("isles2015", found["isles2015"]),
        _scans("isles2022", found["isles2022"]),
        (
            True,
            "data: phantom",
            "found" if found["phantom"] else "not simulated yet; that takes a minute, on first use",
        ),
    ]


def _digits(path: Path | None) -> tuple[bool, str, str]:
    name, digits = "data: mnist.npz", "not here; it is downloaded, or small digits are used instead"
    if path is not None:
        from helpers.mnist import load_mnist

        try:
            load_mnist()
            digits = "found"
        except ValueError as error:
            return False, name, str(error).replace("; ", "\n")
    return True, name, digits


def _slices(path: Path | None) -> tuple[bool, str, str]:
    name, fetch = "data: soop slices", "python -m tools.download soop-slices"
    if path is None:
        return True, name, f"not here\n{fetch} puts real patients on the pages"
    import numpy as np

    try:
        with path.open("rb") as file:
            n_patients = len(np.load(file)["subject_id"])
    except (OSError, EOFError, KeyError, ValueError, BadZipFile) as error:
        return False, name, f"{path} cannot be read: {error}\n{fetch} fetches it again"
    return True, name, f"real patients, one slice of each: {n_patients:,}"


def _scans(folder: str, path: Path | None) -> tuple[bool, str, str]:
    name, fetch = f"data: {folder}", f"python -m tools.download {folder}"
    if path is None:
        return True, name, f"not here; a synthetic cohort is used\n{fetch} gets it"
    from helpers.scans import find_cases

    try:
        cases = find_cases(path)
    except (OSError, ValueError) as error:
        return False, name, f"{error}\n{fetch} fetches it again"
    n_masks = sum(case.lesion is not None for case in cases)
    use = "not used: no file is named as a mask (…_msk…, …_mask… or VSD.….OT.…)"
    if n_masks:
        use = "shown; to judge methods, ten are needed"
    if n_masks >= 10:
        use = "methods are judged on them"
    return n_masks > 0, name, f"scans: {len(cases)}, with a lesion mask: {n_masks}\n{use}"


def main() -> int:
    """Print the findings; return how many need mending."""
    findings = check()
    for good, name, found in findings:
        found = found.replace("\n", "\n" + 23 * " ")
        print(f"{'ok ' if good else 'NO '} {name:18} {found}")
    to_mend = sum(not good for good, _, _ in findings)
    print("\nReady." if not to_mend else f"\n{to_mend} to mend, marked NO above.")
    return to_mend


if __name__ == "__main__":
    sys.exit(main())
