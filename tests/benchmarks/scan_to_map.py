"""Time a head with its skull on, from its file to its map, on one core; and the memory of many.

    python tests/benchmarks/scan_to_map.py [my/scans] [--patients 10 100] [--json OUT.json]

The parts are reading (with the lesion's mask), the brain, the midline and the surprise map of a
mirror VAE. How long a map takes does not depend on what the network has learned, so it is trained
on one synthetic patient for a moment. Times are the processor's, the shortest of all rounds. The
scans are those of a folder, SOOP's where they are in the data folder, or else a synthetic head.

Memory is the peak of a fresh process that goes through so many patients, one after the other, from
file to brain and midline; it has to stay what it is for a few. The scans come again under as many
names.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
from machine import RESULTS, describe_machine
from shards_memory import resident


def cases_of(folder: Path | None, scratch: Path) -> list:
    """The scans of a folder, or SOOP's, or a synthetic head written for the purpose."""
    from helpers.data import find_data
    from helpers.phantom import simulate_case
    from helpers.scans import Case, find_cases

    if folder := folder or find_data("soop"):
        return find_cases(folder)
    import SimpleITK as sitk

    scan = simulate_case(0, skull=True)
    paths = [scratch / f"sub-phantom_{kind}.nii.gz" for kind in ("dwi", "msk")]
    for path, array in zip(paths, (scan.dwi, scan.lesion), strict=True):
        image = sitk.GetImageFromArray(array.astype("int16"))
        image.SetSpacing(scan.spacing[::-1])
        sitk.WriteImage(image, str(path))
    return [Case("sub-phantom", *paths)]


def seconds(case, vae, rounds: int) -> dict[str, float]:
    """Time the parts of one patient's way to a map, and the whole of it."""
    from helpers.brain import find_brain
    from helpers.hemispheres import find_midline
    from helpers.mirror_vae import surprise_map
    from helpers.scans import load_case, load_volume

    def read():
        load_volume(case.lesion) if case.lesion else None
        return load_volume(case.dwi)

    volume, geometry = read()
    scan = load_case(case)
    midline = find_midline(scan.dwi, scan.brain, scan.spacing)
    calls = {
        "read": read,
        "brain": lambda: find_brain(volume, geometry.spacing),
        "midline": lambda: find_midline(scan.dwi, scan.brain, scan.spacing),
        "map": lambda: surprise_map(vae, scan, midline=midline),
        "from file to map": lambda: surprise_map(vae, load_case(case)),
    }
    taken = {}
    for name, call in calls.items():
        times = []
        for _ in range(rounds):
            started = time.process_time()
            call()
            times.append(time.process_time() - started)
        taken[name] = round(min(times), 2)
    return taken


def go_through(folder: Path | None, patients: int) -> None:
    """Load so many patients one after the other."""
    from helpers.hemispheres import find_midline
    from helpers.scans import load_case

    with tempfile.TemporaryDirectory() as scratch:
        cases = cases_of(folder, Path(scratch))
        for number in range(patients):
            scan = load_case(cases[number % len(cases)])
            find_midline(scan.dwi, scan.brain, scan.spacing)


def measure(folder: Path | None, patients: Sequence[int], rounds: int) -> list[dict]:
    """Rows of a result: the parts of up to five patients, and the memory of many."""
    from helpers.mirror_vae import fit_mirror_vae
    from helpers.phantom import simulate_case

    vae = fit_mirror_vae([simulate_case(1)], epochs=1)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for case in cases_of(folder, Path(scratch))[:5]:
            rows.append({"scan": case.subject_id, "seconds": seconds(case, vae, rounds)})
            print(rows[-1], flush=True)
    for number in patients:
        command = [sys.executable, __file__, *([str(folder)] if folder else [])]
        command += ["--go-through", str(number)]
        running, peak = psutil.Popen(command), 0
        while running.poll() is None:
            peak = max(peak, resident(running))
            time.sleep(0.02)
        if running.returncode:
            raise RuntimeError(f"{number} patients ended with {running.returncode}")
        rows.append({"patients": number, "peak_mib": round(peak / 2**20)})
        print(rows[-1], flush=True)
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and write down where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="of scans")
    parser.add_argument("--patients", type=int, nargs="*", default=[10, 100])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help=f"such as {RESULTS.name}/scan_to_map.json")
    parser.add_argument("--go-through", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.go_through:
        go_through(chosen.folder, chosen.go_through)
        return
    if hasattr(os, "sched_setaffinity"):  # before TensorFlow counts the cores
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    rows = measure(chosen.folder, chosen.patients, chosen.rounds)
    if chosen.json:
        machine = describe_machine(["SimpleITK", "scipy", "keras", "tensorflow"])
        chosen.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
