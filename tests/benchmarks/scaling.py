"""Seconds for extraction and scoring of a cohort, against the number of worker processes.

    python tests/benchmarks/scaling.py [--workers 1 2] [--scans 12] [--rounds 3] [--json OUT.json]

The workers belong to a Dask cluster on this machine, one thread each, started and warmed up before
the clock runs. The numbers of workers take turns in shuffled rounds. Every result is compared with
that of the first round, bit for bit.

``seconds`` is the time on the wall; beside it stands the machine's load, for where that is above
the number of workers it says little. ``busy`` is the processor time of the busiest worker: what the
wall would show if each worker had a core to itself and never waited.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
from distributed import Client, LocalCluster
from machine import describe_machine

from helpers.cohort import SPACING, read_shard, write_shards
from helpers.data import data_folder, find_data
from helpers.hemispheres import describe
from helpers.parallel import map_cases
from helpers.phantom import write_cohort
from helpers.scans import load_case

THREADS = ("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def score(case):
    """Describe one scan; the label-free score is two of these numbers."""
    return describe(load_case(case, spacing=SPACING))


def measure(cases, client) -> tuple[list[dict], list[np.ndarray]]:
    """Times of the two steps, and every array they made."""
    rows = []

    def timed(step, work):
        wall, busy = time.perf_counter(), client.run(time.process_time)
        result = work()
        busy = {worker: t - busy[worker] for worker, t in client.run(time.process_time).items()}
        times = {"seconds": time.perf_counter() - wall, "busy": max(busy.values())}
        rows.append({"step": step, **{name: round(t, 2) for name, t in times.items()}})
        return result

    with tempfile.TemporaryDirectory() as folder:
        shards = timed("extract", lambda: write_shards(cases, folder, client=client))
        described = timed("score", lambda: map_cases(score, cases, client=client))
        arrays = [np.array(read_shard(shard).patches) for shard in shards]
    arrays += [getattr(each, field.name) for each in described for field in fields(each)]
    return rows, arrays


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--scans", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    for name in THREADS:  # one worker shall be one thread; they are started from here
        os.environ[name] = "1"
    cases = write_cohort(find_data("phantom") or data_folder() / "phantom", given.scans)
    rows, first = [], None
    for number in range(given.rounds):
        for workers in random.sample(given.workers, len(given.workers)):
            with (
                LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    host="127.0.0.1",
                    dashboard_address=":0",
                ) as cluster,
                Client(cluster) as client,
            ):
                map_cases(score, cases[: 2 * workers], client=client)
                times, arrays = measure(cases, client)
            first = first or arrays
            for ours, theirs in zip(arrays, first, strict=True):
                np.testing.assert_array_equal(ours, theirs)
            for row in times:
                rows.append(
                    {
                        "workers": workers,
                        "scans": len(cases),
                        "round": number,
                        **row,
                        "load": round(os.getloadavg()[0], 1),
                    }
                )
                print(rows[-1], flush=True)
    if given.json:
        result = {"machine": describe_machine(["SimpleITK", "distributed"]), "rows": rows}
        given.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
