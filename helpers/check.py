"""Is this computer ready for the book? ``python -m helpers.check`` says so in words."""

from __future__ import annotations

import os
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import psutil
from threadpoolctl import threadpool_limits

from helpers.data import find_data

_LOCK = Path(__file__).resolve().parents[1] / "requirements.txt"
# Measured: the book on a machine of two cores, and a layer's matrix product on one of them.
_BOOK_MINUTES, _PRODUCT_SECONDS = 9.4, 4.2e-4
_NEEDED = (
    "jupyter-book keras tensorflow numpy scipy scikit-learn matplotlib SimpleITK nibabel nilearn"
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
    memory = psutil.virtual_memory().total / 2**30
    findings.append(
        (memory >= 4, "memory", f"{memory:.0f} GiB" + ("" if memory >= 4 else "; 4 are needed"))
    )
    cores = os.cpu_count() or 1
    findings.append((True, "processor cores", str(cores)))
    findings.append((True, "minutes for book", f"about {_expected_minutes(cores):.0f}"))
    return findings + _data()


def _expected_minutes(cores: int) -> float:
    """Guess how long the book takes here, from how fast one core multiplies matrices.

    Most of the book's time goes into networks, of which many train side by side, one a core.
    """
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
        found = "not installed"
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


def _data() -> list[tuple[bool, str, str]]:
    real = "found; methods are judged on it\nif it has ten patients or more"
    fetch = "not here; a synthetic cohort is used\npython -m helpers.download {} gets it"
    told = {
        "mnist.npz": ("found", "not here; it is downloaded, or small digits are used instead"),
        "isles2015": (real, fetch.format("isles2015")),
        "isles2022": (real, fetch.format("isles2022")),
        "phantom": ("found", "not simulated yet; that takes a minute, on first use"),
    }
    return [
        (True, f"data: {name}", found if find_data(name) else missing)
        for name, (found, missing) in told.items()
    ]


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
