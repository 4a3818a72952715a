"""Time the patches beside other tools: one run, one thread, one table.

    python tests/benchmarks/patches_speed.py [--json OUT.json] [--rounds N]

A volume of 154 slices of 230 × 230 float32 is cut into patches of 28 × 28, the remainder dropped,
and put together again. Every result is checked against a plain loop before anything is timed; then
each round calls every method once, in a new random order; what takes over half a second is timed
once, while it is checked. Times are the processor's, so that what else the machine runs is not
counted, and the shortest of all rounds, since others in its caches can only add to it. A ratio is
to the shortest time of ``np.copy`` of the volume in the same run. The lesion fraction is what a
mask adds to the extraction.

The peers are ``pip install -e .[bench]`` and ``pip install --no-deps patchify``, which asks for an
older NumPy than it needs. What is not installed is listed as that.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from machine import RESULTS, describe_machine
from threadpoolctl import threadpool_limits

from helpers.patches import extract_patches, reconstruct_from_patches

SHAPE, H, W = (154, 230, 230), 28, 28
N, GR, GC = SHAPE[0], SHAPE[1] // H, SHAPE[2] // W
COVERED = np.s_[:, : GR * H, : GC * W]
SLOW = 0.5  # seconds; what takes longer is timed once, while it is checked
PACKAGES = ["einops", "scikit-image", "patchify", "monai", "torchio", "simpleitk"]


# --- what is true -----------------------------------------------------------------------------


def plain_patches(volume) -> tuple[np.ndarray, np.ndarray]:
    """Patches and their locations by three nested loops."""
    locations = [
        (z, y, x)
        for z in range(N)
        for y in range(0, SHAPE[1] - H + 1, H)
        for x in range(0, SHAPE[2] - W + 1, W)
    ]
    return np.array([volume[z, y : y + H, x : x + W] for z, y, x in locations]), np.array(locations)


def plain_volume(patches, locations) -> np.ndarray:
    """A volume of zeros with the patches, or their one value, put in by a loop."""
    volume = np.zeros(SHAPE, patches.dtype)
    for patch, (z, y, x) in zip(patches, locations, strict=True):
        volume[z, y : y + H, x : x + W] = patch
    return volume


# --- the peers --------------------------------------------------------------------------------


def numpy_methods(given) -> Iterator[tuple[str, str, Callable]]:
    """NumPy's own reshape, and fancy indexing where the order is free."""

    def cut(volume):
        grid = volume[COVERED].reshape(N, GR, H, GC, W).swapaxes(2, 3)
        return np.ascontiguousarray(grid).reshape(-1, H, W)

    def put_back(patches):
        volume = np.zeros(SHAPE, patches.dtype)
        volume[COVERED].reshape(N, GR, H, GC, W)[...] = patches.reshape(N, GR, GC, H, W).swapaxes(
            2, 3
        )
        return volume

    def put_back_anywhere(patches, locations):
        volume = np.zeros(SHAPE, patches.dtype)
        z, y, x = (locations // (1, H, W)).T
        volume[COVERED].reshape(N, GR, H, GC, W)[z, y, :, x, :] = patches
        return volume

    def share(mask):
        return mask[COVERED].reshape(N, GR, H, GC, W).mean(axis=(2, 4), dtype=np.float32).ravel()

    def share_reduceat(mask):
        rows = np.add.reduceat(mask[COVERED].view(np.uint8), range(0, GR * H, H), 1, np.uint16)
        counts = np.add.reduceat(rows, range(0, GC * W, W), 2)
        return (counts.ravel() / (H * W)).astype(np.float32)

    name = "NumPy, reshape"
    yield "slice first", name, lambda: cut(given.first)
    yield "slice last", name, lambda: cut(given.last)
    yield "inverse", name, lambda: put_back(given.patches)
    yield (
        "inverse, one value a patch",
        name,
        lambda: put_back(np.broadcast_to(given.values[:, None, None], given.patches.shape)),
    )
    name = "NumPy, indexing"
    yield "inverse, shuffled half", name, lambda: put_back_anywhere(given.half, given.half_places)
    yield "lesion fraction", "NumPy, mean", lambda: share(given.mask)
    yield "lesion fraction", "NumPy, np.add.reduceat", lambda: share_reduceat(given.mask)


def einops_methods(given):
    import einops

    pattern, sizes = "z (i h) (j w) -> (z i j) h w", {"h": H, "w": W}
    back = "(z i j) h w -> z (i h) (j w)"

    def put_back(patches, pattern=back, **sizes):
        volume = np.zeros(SHAPE, patches.dtype)
        volume[COVERED] = (einops.repeat if patches.ndim == 1 else einops.rearrange)(
            patches, pattern, i=GR, j=GC, **sizes
        )
        return volume

    def cut(volume):
        return np.ascontiguousarray(einops.rearrange(volume[COVERED], pattern, **sizes))

    yield "slice first", "einops", lambda: cut(given.first)
    yield "slice last", "einops", lambda: cut(given.last)
    yield "inverse", "einops", lambda: put_back(given.patches)
    yield (
        "inverse, one value a patch",
        "einops",
        lambda: put_back(given.values, "(z i j) -> z (i h) (j w)", **sizes),
    )
    yield "inverse, shuffled half", "einops", "knows no locations"
    yield (
        "lesion fraction",
        "einops",
        lambda: einops.reduce(
            given.mask[COVERED].astype(np.float32), "z (i h) (j w) -> (z i j)", "mean", **sizes
        ),
    )


def skimage_methods(given):
    from skimage.measure import block_reduce
    from skimage.util import view_as_blocks

    def cut(volume):
        return np.ascontiguousarray(view_as_blocks(volume[COVERED], (1, H, W)).reshape(-1, H, W))

    name = "scikit-image, view_as_blocks"
    yield "slice first", name, lambda: cut(given.first)
    yield "slice last", name, lambda: cut(given.last)
    for task in ("inverse", "inverse, shuffled half", "inverse, one value a patch"):
        yield task, name, "has no inverse"
    yield (
        "lesion fraction",
        "scikit-image, block_reduce",
        lambda: block_reduce(
            given.mask[COVERED], (1, H, W), np.mean, func_kwargs={"dtype": np.float32}
        ).ravel(),
    )


def patchify_methods(given):
    from patchify import patchify, unpatchify

    def cut(volume):
        patches = patchify(volume[COVERED], (1, H, W), step=(1, H, W))
        return np.ascontiguousarray(patches.reshape(-1, H, W))

    def put_back(patches):
        volume = np.zeros(SHAPE, patches.dtype)
        for slice_, its in zip(volume, patches.reshape(N, GR, GC, H, W), strict=True):
            slice_[COVERED[1:]] = unpatchify(its, (GR * H, GC * W))
        return volume

    yield "slice first", "patchify", lambda: cut(given.first)
    yield "slice last", "patchify", lambda: cut(given.last)
    # Its inverse of a 230 × 230 slice fails or loops; of the part that the grid covers, it works.
    yield "inverse", "patchify, covered part", lambda: put_back(given.patches)
    yield "inverse, shuffled half", "patchify", "knows no locations"
    yield "inverse, one value a patch", "patchify", "needs whole patches"
    yield "lesion fraction", "patchify", "does not count"


def monai_methods(given):
    import torch
    from monai.inferers import AvgMerger
    from monai.transforms import GridPatch

    torch.set_num_threads(1)
    grid = GridPatch(patch_size=(H, W), pad_mode=None)

    def cut(volume):  # slices as channels
        patches = np.asarray(grid(volume)).swapaxes(0, 1)
        return np.ascontiguousarray(patches).reshape(-1, H, W)

    def put_back(patches, locations):
        merger = AvgMerger(merged_shape=(1, 1, *SHAPE))
        for patch, place in zip(torch.from_numpy(patches), locations.tolist(), strict=True):
            merger.aggregate(patch[None, None, None], place)
        return np.nan_to_num(merger.finalize().numpy()[0, 0], copy=False)

    yield "slice first", "MONAI, GridPatch", lambda: cut(given.first)
    yield "slice last", "MONAI, GridPatch", lambda: cut(given.last)
    name = "MONAI, AvgMerger"
    yield "inverse", name, lambda: put_back(given.patches, given.places)
    yield "inverse, shuffled half", name, lambda: put_back(given.half, given.half_places)
    yield "inverse, one value a patch", "MONAI", "needs whole patches"
    yield "lesion fraction", "MONAI", "does not count"


def torchio_methods(given):
    import torch
    import torchio

    torch.set_num_threads(1)

    def subject(volume):
        return torchio.Subject(volume=torchio.ScalarImage(tensor=torch.from_numpy(volume[None])))

    def sampler(volume):
        return torchio.GridSampler(subject(volume[COVERED]), (1, H, W), 0)

    def cut(volume):
        return np.concatenate([patch["volume"].numpy()[0] for patch in sampler(volume)])

    def put_back(patches, locations):
        aggregator = torchio.GridAggregator(sampler(given.first))
        corners = torch.from_numpy(np.hstack([locations, np.add(locations, (1, H, W))]))
        aggregator.add_batch(torch.from_numpy(patches)[:, None, None], corners)
        volume = np.zeros(SHAPE, patches.dtype)
        volume[COVERED] = aggregator.get_output_tensor().numpy()[0]
        return volume

    yield "slice first", "TorchIO, GridSampler", lambda: cut(given.first)
    yield "slice last", "TorchIO, GridSampler", lambda: cut(given.last)
    name = "TorchIO, GridAggregator"
    yield "inverse", name, lambda: put_back(given.patches, given.places)
    yield "inverse, shuffled half", name, lambda: put_back(given.half, given.half_places)
    yield "inverse, one value a patch", "TorchIO", "needs whole patches"
    yield "lesion fraction", "TorchIO", "does not count"


def simpleitk_methods(given):
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)

    def cut(volume):
        image = sitk.GetImageFromArray(volume)
        parts = (sitk.Extract(image, (W, H, 0), (x, y, z)) for z, y, x in given.places.tolist())
        return np.stack([sitk.GetArrayFromImage(part) for part in parts])

    yield "slice first", "SimpleITK, loop", lambda: cut(given.first)
    yield "slice last", "SimpleITK, loop", lambda: cut(given.last)
    for task in ("inverse", "inverse, shuffled half", "inverse, one value a patch"):
        yield task, "SimpleITK", "pastes one patch by copying the volume"
    yield "lesion fraction", "SimpleITK", "does not count"


def helpers_methods(given):
    def put_back(patches, places, **options):
        return reconstruct_from_patches(patches, places, SHAPE, **options)

    yield "slice first", OURS, lambda: extract_patches(given.first).patches
    yield "slice last", OURS, lambda: extract_patches(given.last).patches
    yield "inverse", OURS, lambda: put_back(given.patches, given.places)
    yield "inverse, shuffled half", OURS, lambda: put_back(given.half, given.half_places)
    yield (
        "inverse, one value a patch",
        OURS,
        lambda: put_back(given.values, given.places, patch_size=(H, W)),
    )
    # Extraction is in this time, and is taken off below.
    yield (
        "lesion fraction",
        OURS,
        lambda: extract_patches(given.first, lesion_mask=given.mask).lesion_fraction,
    )


OURS = "this book"
METHODS = {
    OURS: helpers_methods,
    "NumPy": numpy_methods,
    "einops": einops_methods,
    "scikit-image": skimage_methods,
    "patchify": patchify_methods,
    "MONAI": monai_methods,
    "TorchIO": torchio_methods,
    "SimpleITK": simpleitk_methods,
}


# --- the measurement --------------------------------------------------------------------------


class Given:
    """The inputs, and what a plain loop makes of them."""

    def __init__(self, seed: int = 0):
        rng = np.random.default_rng(seed)
        self.first = rng.random(SHAPE, dtype=np.float32)
        # Rows, columns, slices in memory: what a NIfTI read in C order and turned around is.
        self.last = np.ascontiguousarray(self.first.transpose(1, 2, 0)).transpose(2, 0, 1)
        self.mask = rng.random(SHAPE) < 0.1
        self.patches, self.places = plain_patches(self.first)
        half = rng.permutation(len(self.patches))[: len(self.patches) // 2]
        self.half, self.half_places = self.patches[half], self.places[half]
        self.values = rng.random(len(self.patches), dtype=np.float32)
        self.truth = {
            "slice first": self.patches,
            "slice last": self.patches,
            "inverse": plain_volume(self.patches, self.places),
            "inverse, shuffled half": plain_volume(self.half, self.half_places),
            "inverse, one value a patch": plain_volume(self.values, self.places),
            "lesion fraction": np.float32(plain_patches(self.mask)[0].sum(axis=(1, 2)) / (H * W)),
        }


def collect(given) -> tuple[dict[tuple[str, str], Callable], list[dict]]:
    """Methods that run here, by task and name, and rows for those that do not."""
    methods, absent = {}, []
    for package, methods_of in METHODS.items():
        try:
            for task, name, run in methods_of(given):
                if isinstance(run, str):
                    absent.append({"task": task, "method": name, "note": run})
                else:
                    methods[task, name] = run
        except ModuleNotFoundError as error:
            note = f"not installed ({error.name})"
            absent += [{"task": task, "method": package, "note": note} for task in given.truth]
    return methods, absent


def seconds(run: Callable, truth: np.ndarray | None = None) -> float:
    """The time of one call; with a truth, after a check that it gives that."""
    start = time.process_time()
    result = run()
    taken = time.process_time() - start
    if truth is not None:
        np.testing.assert_array_equal(result, truth)
    return taken


def measure(rounds: int, seed: int = 0) -> dict:
    """Check and time every method; rows with ``task``, ``method``, ``ratio`` or ``note``."""
    given, rng = Given(seed), np.random.default_rng(seed)
    methods, rows = collect(given)
    first = {key: seconds(run, given.truth[key[0]]) for key, run in methods.items()}
    methods["", "np.copy"] = lambda: np.copy(given.first)
    times = {key: [first[key]] if first.get(key, 0) > SLOW else [] for key in methods}
    often = [key for key, values in times.items() if not values]
    for _ in range(rounds):
        for index in rng.permutation(len(often)):
            times[often[index]].append(seconds(methods[often[index]]))
    best = {key: min(values) for key, values in times.items()}
    best["lesion fraction", OURS] -= best["slice first", OURS]
    copy = best["", "np.copy"]
    rows += [
        {
            "task": task,
            "method": name,
            "ratio": round(best[task, name] / copy, 2),
            "milliseconds": round(1000 * best[task, name], 2),
            "rounds": len(values),
        }
        for (task, name), values in times.items()
        if task
    ]
    order = list(given.truth)
    rows.sort(key=lambda row: (order.index(row["task"]), row.get("ratio", np.inf)))
    return {"copy_milliseconds": round(1000 * copy, 2), "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, default=RESULTS / "patches_speed.json")
    parser.add_argument("--rounds", type=int, default=25)
    options = parser.parse_args()
    with threadpool_limits(1):
        result = {**describe_machine(PACKAGES), "threads": 1, **measure(options.rounds)}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    print(f"np.copy of the volume: {result['copy_milliseconds']} ms")
    for row in result["rows"]:
        print(f"{row['task']:28}{row['method']:32}{row.get('ratio', row.get('note'))!s:>8}")


if __name__ == "__main__":
    main()
