"""Judge maps of whole scans, voxel by voxel, on the patients of any folder that the book can read.

The network is trained on synthetic patients alone, and sees no mask::

    python tests/benchmarks/maps_on_scans.py my/scans more/scans --json results.json

For every case with a mask it prints, map by map, the average precision over the voxels of the
brain, Dice at the true volume, and whether the highest voxel lies in the mask. For what has no
lesion, the same synthetic patients on the day before their stroke, it prints the volume above the
threshold that keeps half of the lesion voxels of the cases above: false alarms.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from helpers.hemispheres import (
    find_midline,
    gather,
    relative_to_mode,
    unexplained_brightness,
)
from helpers.metrics import score_map
from helpers.mirror_vae import MirrorVAE, fit_mirror_vae, surprise_map
from helpers.phantom import simulate_case
from helpers.scans import Scan, find_cases, load_case

#: Of the synthetic patients: those that are learned from, and those that have no stroke yet.
TRAINING, WITHOUT_STROKE = range(1000, 1028), range(2000, 2006)


def brightness(scan: Scan) -> np.ndarray:
    """How bright each voxel is, relative to the brain's mode."""
    return relative_to_mode(scan.dwi, scan.brain)


def unexplained(scan: Scan) -> np.ndarray:
    """What of it the other side does not explain, smoothed by 1 mm and looked for within 6 mm."""
    midline = find_midline(scan.dwi, scan.brain, scan.spacing)
    pixel = scan.spacing[2]
    return unexplained_brightness(
        brightness(scan), scan.brain, midline, sigma=1 / pixel, reach=round(6 / pixel)
    )


def maps_of(vaes: list[MirrorVAE]) -> dict[str, Callable[[Scan], np.ndarray]]:
    """List the maps, the plainest first; that of several networks is their mean."""

    def surprise(scan):
        return np.mean([surprise_map(vae, scan) for vae in vaes], axis=0)

    def gathered(draw, beyond):
        return lambda scan: gather(draw(scan), scan.brain, scan.spacing, beyond=beyond)

    return {
        "brightness": brightness,
        "unexplained": unexplained,
        "unexplained, gathered": gathered(unexplained, 0.5),
        "surprise": surprise,
        "surprise, gathered": gathered(surprise, 2),
    }


def judge(scans: list[Scan], maps: dict) -> tuple[dict, dict]:
    """Score every map on every scan with a lesion; return the scores and the thresholds.

    The threshold of a map keeps half of a scan's lesion voxels, and is the median over the scans.
    """
    scores, halves = {}, {name: [] for name in maps}
    for scan in scans:
        inside = scan.lesion & scan.brain
        if not inside.any():
            continue
        row = {"ml": float(scan.lesion.sum() * np.prod(scan.spacing) / 1000)}
        for name, draw in maps.items():
            started = time.perf_counter()
            values = draw(scan)
            row[name] = score_map(scan.lesion, values, scan.brain)
            row[name]["seconds"] = time.perf_counter() - started
            halves[name].append(float(np.median(values[inside])))
        scores[scan.subject_id] = row
    return scores, {name: float(np.median(half)) for name, half in halves.items() if half}


def false_alarms(scans: list[Scan], maps: dict, thresholds: dict) -> dict[str, list[float]]:
    """Millilitres above each map's threshold, in each scan that has no lesion."""
    return {
        name: [
            float(np.sum(maps[name](scan)[scan.brain] >= threshold) * np.prod(scan.spacing) / 1000)
            for scan in scans
        ]
        for name, threshold in thresholds.items()
    }


def show(result: dict) -> None:
    """Print the table."""
    print(f"network: {result['training']}")
    names = list(result["thresholds"])
    print(f"{'':26}{'ml':>8}" + "".join(f"{name:>26}" for name in names))
    print(f"{'':34}" + len(names) * f"{'AP':>12}{'Dice':>7}{'hit':>7}")
    for subject, row in result["scores"].items():
        cells = (f"{row[n]['AP']:12.3f}{row[n]['Dice']:7.3f}{row[n]['hit']:7.0f}" for n in names)
        print(f"{subject[-26:]:26}{row['ml']:8.1f}" + "".join(cells))
    print(
        f"{'mean':34}"
        + "".join(
            "".join(
                f"{np.mean([row[n][m] for row in result['scores'].values()]):{width}.3f}"
                for m, width in (("AP", 12), ("Dice", 7), ("hit", 7))
            )
            for n in names
        )
    )
    print("ml above the threshold that keeps half of the lesion voxels, in heads without a lesion")
    for name, volumes in result["false_alarms"].items():
        print(f"  {name:24} {np.mean(volumes):8.1f}  ({min(volumes):.1f} to {max(volumes):.1f})")


def main(arguments: list[str] | None = None) -> None:
    """Train, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--json", type=Path, help="write the table here as well")
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--seeds", type=int, default=1, help="networks whose maps are averaged")
    parser.add_argument("--patients", type=int, default=len(TRAINING), help="to learn from")
    parser.add_argument("--epochs", type=int, default=6)
    chosen = parser.parse_args(arguments)

    cases = [case for folder in chosen.folders for case in find_cases(folder)]
    scans = [load_case(case) for case in cases if case.lesion is not None]
    if not any((scan.lesion & scan.brain).any() for scan in scans):
        parser.error(f"expected a lesion mask to judge by, found none in {len(cases)} cases")
    started = time.perf_counter()
    learned_from = [simulate_case(seed) for seed in TRAINING[: chosen.patients]]
    seeds = range(chosen.seed, chosen.seed + chosen.seeds)
    vaes = [fit_mirror_vae(learned_from, epochs=chosen.epochs, seed=seed) for seed in seeds]
    seconds = time.perf_counter() - started
    maps = maps_of(vaes)
    scores, thresholds = judge(scans, maps)
    healthy = [simulate_case(seed, infarct=False) for seed in WITHOUT_STROKE[: chosen.patients]]
    result = {
        "training": f"{len(learned_from)} synthetic patients, seeds {list(seeds)}, {seconds:.0f} s",
        "scores": scores,
        "thresholds": thresholds,
        "false_alarms": false_alarms(healthy, maps, thresholds),
    }
    show(result)
    if chosen.json:
        chosen.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
