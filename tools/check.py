"""Is this computer ready for the book? ``python -m tools.check`` says so in words.

What this file imports at its top comes with Python, so that it can say which packages are missing.
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from helpers import in_words
from helpers.data import data_folder, find_data, writable
from helpers.rehearsal import is_quick
from tools import speak_to_any_console

_BOOK = Path(__file__).resolve().parents[1]
_LOCK = _BOOK / "requirements.txt"
_BACKENDS = ("tensorflow", "jax", "torch")
# What Keras must compute in, as it is if nobody says otherwise.
_KERAS = {"image_data_format": "channels_last", "floatx": "float32", "epsilon": 1e-7}
# Measured: the book on a machine of two cores, and a layer's matrix product on one of them.
_BOOK_MINUTES, _PRODUCT_SECONDS = 13.0, 4.2e-4
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
    findings += [_keras(), _rehearsal(), _output()]
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
    try:
        lines = _LOCK.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}  # each package will say that its version is not there
    pins = (line.split(";")[0].strip() for line in lines)
    return dict(pin.lower().split("==", 1) for pin in pins if "==" in pin)


def _package(name: str, locked: dict[str, str]) -> tuple[bool, str, str]:
    wanted = locked.get(name.lower())
    try:
        found = version(name)
    except PackageNotFoundError:
        found = _ABSENT
    if wanted is None:
        return False, name, f"{found}; {_LOCK} does not say which version is needed"
    if found == wanted:
        return True, name, found
    return False, name, f"{found}, the book was made with {wanted}; pip install -r requirements.txt"


def _keras() -> tuple[bool, str, str]:
    """Look at what Keras goes by: its file, and before it the variables."""
    name, path = "Keras backend", _keras_file()
    if os.environ.get("KERAS_HOME") == "":  # Keras would leave its file wherever it is started
        return False, name, "KERAS_HOME is set to no folder; name one, or unset it"
    try:
        settings = _keras_settings(path)
    except Exception as error:  # whatever it is, Keras would stop there, too
        return False, name, f"{path}: {in_words(error)}\ncorrect the file, or remove it"
    variable = os.environ.get("KERAS_BACKEND")
    backend = variable or settings.get("backend", "tensorflow")
    # Keras writes this file itself, so its name is news only where it says something else.
    where = "" if variable or backend == "tensorflow" else f"\nas {path} says"
    if backend not in _BACKENDS:
        return False, name, f"{backend}; set KERAS_BACKEND to tensorflow, jax or torch{where}"
    if find_spec(backend) is None:
        return False, name, f"{backend} is not installed\npip install {backend}{where}"
    for setting, needed in _KERAS.items():
        if (found := settings.get(setting, needed)) != needed:
            return False, name, f"{path}\nsays {setting} {found!r}; change it to {needed!r}"
    # Keras stops where this is on and flax, which the book does without, is not installed.
    nnx = os.environ.get("KERAS_NNX_ENABLED")
    if nnx is None and (found := settings.get("nnx_enabled")):
        return False, name, f"{path}\nsays nnx_enabled {found!r}; change it to false"
    if nnx is not None and nnx.lower() in ("1", "true"):
        return False, name, f"KERAS_NNX_ENABLED is {nnx}; unset it"
    for limit in {"KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH"} & os.environ.keys():
        return False, name, f"{limit} is set, so training is cut short; unset it"
    unread = "" if settings or not path.exists() else f"\nKeras finds no settings in {path}"
    return True, name, f"{backend}{where}{unread}"


def _keras_file() -> Path:
    """Where Keras looks for its settings."""
    home = os.path.expanduser("~")
    default = os.path.join(home if os.access(home, os.W_OK) else "/tmp", ".keras")
    return Path(os.path.expanduser(os.environ.get("KERAS_HOME", default)), "keras.json")


def _keras_settings(path: Path) -> dict:
    if not path.exists():
        return {}
    with path.open() as file:
        try:
            settings = json.load(file)
        except ValueError:  # Keras takes no notice of what it cannot read
            return {}
    if not isinstance(settings, dict):
        raise TypeError(f"expected a JSON object of settings, found {settings!r}")
    return settings


def _rehearsal() -> tuple[bool, str, str]:
    try:
        quick = is_quick()
    except ValueError as error:
        return False, "rehearsal", in_words(error)
    return True, "rehearsal", "yes; unset VAE_BOOK_QUICK for the book's numbers" if quick else "no"


def _output() -> tuple[bool, str, str]:
    """Try to write where the book writes."""
    name = "written to"
    try:
        folder = data_folder()
    except OSError as error:
        return False, name, str(error).replace("; ", "\n")
    where = "data/" if folder.parent == _BOOK else f"{_end(folder)} (VAE_BOOK_OUTPUT)"
    try:
        writable(_BOOK)
    except OSError as error:
        return True, name, f"{where}\nbut no pages can be built here: {str(error).split('; ')[0]}"
    return True, name, where


def _end(folder: str | Path) -> str:
    return "…/" + "/".join(Path(folder).resolve().parts[-2:])  # a page need not tell it whole


def _data() -> list[tuple[bool, str, str]]:
    names = ("mnist.npz", "soop", "isles2015", "isles2022", "phantom", _SLICES)
    try:
        found = {name: find_data(name) for name in names}
    except NotADirectoryError as error:
        return [(False, "data folder", str(error).replace("; ", "\n"))]
    folders = ["data/"]
    for variable in ("VAE_BOOK_OUTPUT", "VAE_BOOK_DATA"):
        if named := os.environ.get(variable):
            folders.insert(0, f"{_end(named)} ({variable})")
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
        from helpers.mnist import read_archive

        try:
            read_archive(path)
            digits = "found"
        except ValueError as error:
            return False, name, str(error).replace("; ", "\n")
    return True, name, digits


def _slices(path: Path | None) -> tuple[bool, str, str]:
    name, fetch = "data: soop slices", "python -m tools.download soop-slices"
    if path is None:
        return True, name, f"not here\n{fetch} puts real patients on the pages"
    from helpers.cohort import read_slices

    try:
        _, _, patients = read_slices(path)
    except ValueError as error:
        return False, name, str(error).replace("; ", "\n")
    return True, name, f"real patients, one slice of each: {len(patients):,}"


def _scans(folder: str, path: Path | None) -> tuple[bool, str, str]:
    name, fetch = f"data: {folder}", f"python -m tools.download {folder}"
    if path is None:
        return True, name, f"not here; a synthetic cohort is used\n{fetch} gets it"
    from helpers.scans import find_cases

    try:
        cases = find_cases(path)
    except (OSError, ValueError) as error:
        return False, name, f"{in_words(error)}\n{fetch} fetches it again"
    n_masks = sum(case.lesion is not None for case in cases)
    use = "not used: no file is named as a mask (…_msk…, …_mask… or VSD.….OT.…)"
    if n_masks:
        use = "shown; to judge methods, ten are needed"
    if n_masks >= 10:
        use = "methods are judged on them"
    return n_masks > 0, name, f"scans: {len(cases)}, with a lesion mask: {n_masks}\n{use}"


def main() -> int:
    """Print the findings; return how many need mending."""
    speak_to_any_console()
    findings = check()
    to_mend = sum(not good for good, _, _ in findings)
    try:
        for good, name, found in findings:
            found = found.replace("\n", "\n" + 23 * " ")
            print(f"{'ok ' if good else 'NO '} {name:18} {found}")
        print("\nReady." if not to_mend else f"\n{to_mend} to mend, marked NO above.", flush=True)
    except BrokenPipeError:  # whoever reads has read enough, as `head -1`
        # What Python writes when it ends has to go somewhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return to_mend


if __name__ == "__main__":
    sys.exit(main())
