"""What a stored result says of the machine it was measured on."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from collections.abc import Iterable
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def describe_machine(packages: Iterable[str]) -> dict:
    """Date, processor, cores, and the versions of Python, NumPy and the packages named.

    Examples
    --------
    >>> describe_machine(["scipy", "no-such-package"])["packages"]["no-such-package"]
    'not installed'
    """
    return {
        "date": datetime.date.today().isoformat(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in ["numpy", *packages]},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # no such file outside Linux
        return platform.processor() or platform.machine()
    return next((s.split(":")[1].strip() for s in lines if s.startswith("model name")), "unknown")


def _version(name) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
