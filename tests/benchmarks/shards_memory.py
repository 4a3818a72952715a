"""Peak memory against the number of scans: through shards, and all at once.

    python tests/benchmarks/shards_memory.py [--scans 28 280 2800] [--slices 4] [--json OUT.json]

Each measurement is a fresh process; the memory is its resident set with that of its own child
processes, looked at every twentieth of a second. The scans are the first 28 of the built-in cohort,
of each only the middle slices, under as many names as are asked for. (Whole scans have 34 slices;
2,800 of them would fill 5 GB of disk with shards, and all at once more memory than most machines
have: ``--slices 34 --at-once-up-to 280``.) Through shards there are two steps, extraction and one
epoch of training; all at once, both in one process.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from machine import describe_machine

N_DIFFERENT = 28
BATCH_SIZE = 1000


def extract(folder: Path) -> int:
    """Cut all scans into shards; return the number of patches."""
    from helpers.cohort import read_shard, write_shards
    from helpers.scans import find_cases

    shards = write_shards(find_cases(folder / "scans"), folder / "shards")
    return sum(len(read_shard(shard)) for shard in shards)


def train(folder: Path) -> int:
    """Train for an epoch on the shards."""
    from helpers.batches import ShardBatches
    from helpers.cohort import find_shards
    from helpers.vae import build_dense_vae, fit_vae

    batches = ShardBatches(find_shards(folder / "shards"), BATCH_SIZE)
    fit_vae(build_dense_vae(5), batches, epochs=1)
    return int(batches.sizes.sum())


def at_once(folder: Path) -> int:
    """Hold the patches of all scans in memory, and train for an epoch on them."""
    from helpers.cohort import SPACING, brain_patches
    from helpers.parallel import map_cases
    from helpers.patches import PatchSet
    from helpers.scans import find_cases, load_case
    from helpers.vae import build_dense_vae, fit_vae

    def cut(case):  # what `load_patches` does, but leaves nothing behind
        return brain_patches(load_case(case, spacing=SPACING))

    patches = PatchSet.concatenate(map_cases(cut, find_cases(folder / "scans"))).patches
    fit_vae(build_dense_vae(5), patches, epochs=1, batch_size=BATCH_SIZE)
    return len(patches)


STEPS = {"extract": extract, "train": train, "at_once": at_once}


def measure(step: str, folder: Path) -> dict:
    """Run one step in a fresh process; return its peak memory and its number of patches."""
    running = psutil.Popen(
        [sys.executable, __file__, "--step", step, "--folder", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    peak = 0
    while running.poll() is None:
        peak = max(peak, resident(running))
        time.sleep(0.05)
    if running.returncode:
        raise RuntimeError(f"{step} ended with {running.returncode}")
    patches = int(running.stdout.read().split()[-1])
    return {"peak_mib": round(peak / 2**20), "patches": patches}


def resident(process: psutil.Process) -> int:
    """Bytes that a process and its descendants have in memory."""
    total = 0
    for each in (process, *children(process)):
        try:
            total += each.memory_info().rss
        except psutil.NoSuchProcess:
            pass
    return total


def children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def link_scans(root: Path, n_scans: int, n_slices: int) -> None:
    """Give the middle slices of a few scans as many names as there shall be scans."""
    import SimpleITK as sitk

    from helpers.data import data_folder, find_data
    from helpers.phantom import write_cohort

    root.mkdir()
    cases = write_cohort(find_data("phantom") or data_folder() / "phantom", N_DIFFERENT)
    for number in range(n_scans):
        case = cases[number % N_DIFFERENT]
        for path, kind in ((case.dwi, "dwi"), (case.lesion, "msk")):
            thin = root / f".{path.name}"  # hidden, so that it is no patient
            if not thin.exists():
                image = sitk.ReadImage(str(path))
                first = (image.GetDepth() - n_slices) // 2
                sitk.WriteImage(image[:, :, first : first + n_slices], str(thin))
            os.link(thin, root / f"sub-{number:04d}_{kind}.nii.gz")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", type=int, nargs="+", default=[28, 280, 2800])
    parser.add_argument("--slices", type=int, default=4)
    parser.add_argument("--at-once-up-to", type=int, default=2800)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        print(STEPS[given.step](given.folder))
        return
    rows = []
    for n_scans in given.scans:
        folder = Path(tempfile.mkdtemp())
        try:
            link_scans(folder / "scans", n_scans, given.slices)
            steps = ["extract", "train"] + ["at_once"] * (n_scans <= given.at_once_up_to)
            for step in steps:
                row = {"scans": n_scans, "slices": given.slices, "step": step}
                rows.append({**row, **measure(step, folder)})
                print(rows[-1], flush=True)
        finally:
            shutil.rmtree(folder)
        if given.json:
            result = {
                "machine": describe_machine(["SimpleITK", "keras", "tensorflow"]),
                "rows": rows,
            }
            given.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
