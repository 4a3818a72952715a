"""Train the VAE that is told the other side with several seeds, and judge its latents each time.

Chapter 9 shows one seed. This shows how far others are from it, on the same patients, folds and
readouts: the synthetic cohort, and the real FLAIR slices where they are in the data folder::

    python tests/benchmarks/told_the_other_side.py --seeds 5 --json results.json

Average precision is printed as the mean over seeds, the middle 95 % of draws of patients, and the
lowest and highest seed. No patient is on both sides of a fold, and no network sees a mask.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from joblib import delayed
from machine import describe_machine
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from helpers.cohort import Cohort, Known, find_cohorts, load_known, load_sides
from helpers.metrics import held_out_score, interval, patient_draws, patient_folds
from helpers.mirror_vae import (
    WIDE_WINDOW,
    cut_windows,
    patch_codes,
    patch_surprise,
    train_mirror_vae,
    windows_around,
)
from helpers.parallel import in_parallel

READOUTS = {
    "trees": HistGradientBoostingClassifier(
        max_iter=60,
        learning_rate=0.08,
        max_leaf_nodes=15,
        min_samples_leaf=100,
        random_state=0,
    ),
    "forest": ExtraTreesClassifier(100, min_samples_leaf=20, n_jobs=-1, random_state=0),
}
CLUSTERINGS = {
    "latents, k-means, 20": KMeans(20, n_init=4, random_state=0),
    "latents and surprise, k-means, 5": KMeans(5, n_init=4, random_state=0),
    "latents and surprise, k-means, 10": KMeans(10, n_init=4, random_state=0),
}
PLAIN = {
    "no label: 95th percentile": "percentile",
    "no label: unexplained": "unexplained",
    "no label: around": "around",
}


def by_hand(of: Known, folds) -> list:
    """Five principal components of the quantiles of maps, the strongest rival."""
    codes = []
    for train, test in folds:
        scaler = StandardScaler().fit(of.described.quantiles[train])
        rows = np.clip(scaler.transform(of.described.quantiles), -5, 5)
        pca = PCA(5, random_state=0).fit(rows[train])
        codes.append([pca.transform(rows[part]) for part in (train, test)])
    return codes


def _flat(windows):
    return windows.reshape(len(windows), -1)


class Regression:
    """Each pixel a weighted sum of what is told, with its own spread: no network, same surprise."""

    def __init__(self, windows):
        own, brain, told = _flat(windows[..., 0]), _flat(windows[..., 1]), _flat(windows[..., 2:])
        self.line = Ridge(1000).fit(told, own)
        left = own - self.line.predict(told)
        self.spread = np.sqrt((brain * left**2).sum(0) / brain.sum(0))

    def surprise(self, windows):
        beyond = _flat(windows[..., 0]) - self.line.predict(_flat(windows[..., 2:]))
        return (beyond / self.spread).reshape(windows[..., 0].shape)


class Difference:
    """Five principal components of own side minus other side: no network, same windows."""

    def __init__(self, windows):
        self.pca = PCA(5, random_state=0).fit(self.rows(windows))

    def rows(self, windows):
        brain = (windows[..., 1] > 0.5) & (windows[..., 3] > 0.5)
        return _flat(np.where(brain, windows[..., 0] - windows[..., 2], 0))

    def encode(self, windows):
        return self.pca.transform(self.rows(windows)), None


def judge(cohort: Cohort, seeds: range, *, epochs: int = 6) -> dict:
    """Judge one cohort; the result is what `show` prints."""
    of = load_known(cohort)
    folds = patient_folds(of.patients)
    calls = (delayed(load_sides)(case, cohort.midline) for case in cohort.cases)
    sides = dict(zip((c.subject_id for c in cohort.cases), in_parallel(calls, "scan"), strict=True))
    places = [of.described.locations[of.patients == owner] for owner in sides]
    pairs = zip(sides.values(), places, strict=True)
    around = np.concatenate([windows_around(own, place, wide=True) for own, place in pairs])
    step = 10 if cohort.midline is None else 5
    draws, clusters = {}, {}

    def learned_from(train):
        owners = set(of.patients[train])
        kept = [cut_windows(sides[o], step, WIDE_WINDOW)[0] for o in sides if o in owners]
        return np.concatenate(kept)

    def code_of(model, fold):
        code = patch_codes(model, sides.values(), places)
        return [code[part] for part in fold]

    def keep(row, score):
        for target, is_lesion in of.targets.items():
            drawn = patient_draws(is_lesion, score[target], of.patients)["AP"]
            draws.setdefault((target, row), []).append(drawn)

    def read(row, codes):
        for name, readout in READOUTS.items():
            keep(
                f"{row}, {name}",
                {
                    target: held_out_score(readout, codes, folds, is_lesion)
                    for target, is_lesion in of.targets.items()
                },
            )

    for row, name in PLAIN.items():
        keep(row, dict.fromkeys(of.targets, getattr(of.described, name)))
    read("by hand", by_hand(of, folds))
    read("difference", [code_of(Difference(around[fold[0][::4]]), fold) for fold in folds])
    beyond = np.empty(len(of.images), np.float32)
    for train, test in folds:
        beyond[test] = patch_surprise(Regression(learned_from(train)), around[test])
    keep("no label: regression", dict.fromkeys(of.targets, beyond))
    for seed in seeds:
        codes, (nats, surprise) = [], np.empty((2, len(of.images)), np.float32)
        chosen = {name: np.zeros(len(of.images), bool) for name in CLUSTERINGS}
        for train, test in folds:
            vae = train_mirror_vae(learned_from(train), epochs=epochs, seed=seed)
            codes.append(code_of(vae, (train, test)))
            nats[test], surprise[test] = vae.nats(around[test]), patch_surprise(vae, around[test])
            some = train[::4]  # enough to find clusters in
            height = patch_surprise(vae, around[some])
            for name, model in CLUSTERINGS.items():
                rows = codes[-1][0][::4], codes[-1][1]
                if "surprise" in name:
                    parts = zip(rows, (height, surprise[test]), strict=True)
                    rows = [np.column_stack([z, s / height.std()]) for z, s in parts]
                label = model.fit_predict(rows[0])
                best = max(np.unique(label), key=lambda k: height[label == k].mean())
                chosen[name][test] = model.predict(rows[1]) == best
        print(f"  seed {seed} is trained", flush=True)
        keep("no label: nats", dict.fromkeys(of.targets, nats))
        keep("no label: surprise", dict.fromkeys(of.targets, surprise))
        read("told the other side", codes)
        for name, them in chosen.items():
            sets = {name: them}
            for rival, score in (("surprise", surprise), ("around", of.described.around)):
                highest = np.zeros(len(them), bool)
                highest[np.argsort(-score)[: them.sum()]] = True
                sets[f"as many of highest {rival} as {name}"] = highest
            any_lesion, much = of.targets.values()
            for row, these in sets.items():
                found = [these.sum(), any_lesion[these].mean(), these[much].mean()]
                clusters.setdefault(row, []).append([float(value) for value in found])
    return {
        "patients": len(cohort.cases),
        "patches": len(of.images),
        "prevalence": {target: float(x.mean()) for target, x in of.targets.items()},
        "scores": _table(draws, of.targets),
        "differences": _differences(draws, of.targets),
        "clusters": {row: np.transpose(found).tolist() for row, found in clusters.items()},
    }


def _cell(draws, minus=None) -> dict[str, float]:
    """Mean over seeds with its interval over patients, and the lowest and highest seed."""
    draws = np.asarray(draws) if minus is None else np.asarray(draws) - np.asarray(minus)
    cell = dict(zip(("mean", "low", "high"), interval(draws.mean(axis=0)), strict=True))
    if len(draws) > 1:
        cell |= {"lowest": float(draws[:, 0].min()), "highest": float(draws[:, 0].max())}
    return cell


def _table(draws, targets) -> dict:
    return {
        target: {row: _cell(found) for (t, row), found in draws.items() if t == target}
        for target in targets
    }


def _differences(draws, targets) -> dict:
    pairs = {
        "told, trees, minus by hand, trees": ("told the other side, trees", "by hand, trees"),
        "told, forest, minus by hand, forest": ("told the other side, forest", "by hand, forest"),
        "told, trees, minus difference, trees": (
            "told the other side, trees",
            "difference, trees",
        ),
        "told, forest, minus difference, forest": (
            "told the other side, forest",
            "difference, forest",
        ),
        "told, trees, minus around": ("told the other side, trees", "no label: around"),
        "surprise, minus around": ("no label: surprise", "no label: around"),
        "surprise, minus regression": ("no label: surprise", "no label: regression"),
        "surprise, minus unexplained": ("no label: surprise", "no label: unexplained"),
    }
    return {
        target: {
            name: _cell(draws[target, ours], draws[target, rival])
            for name, (ours, rival) in pairs.items()
        }
        for target in targets
    }


def _text(cell, sign="") -> str:
    numbers = [f"{value:{sign}.3f}" for value in cell.values()]
    text = f"{numbers[0]} ({numbers[1]} to {numbers[2]})"
    return f"{text} [{numbers[3]} to {numbers[4]}]" if len(numbers) > 3 else text


def show(result) -> None:
    """Print the tables."""
    for name, cohort in result["cohorts"].items():
        print(f"\n{name}: {cohort['patients']} patients, {cohort['patches']} patches; ", end="")
        print(f"seeds {result['seeds']}; mean (draws of patients) [lowest to highest seed]")
        for part in ("scores", "differences"):
            for target, rows in cohort[part].items():
                print(f"  {target}: {part}, prevalence {cohort['prevalence'][target]:.3f}")
                for row, cell in rows.items():
                    print(f"    {row:38}{_text(cell, '+' if part == 'differences' else '')}")
        print("  the cluster of highest surprise: patches, purity, share of > 25 % that it holds")
        for row, (size, pure, holds) in cohort["clusters"].items():
            ends = f"[{min(pure):.3f} to {max(pure):.3f}]"
            print(f"    {row:66}{np.mean(size):6.0f}  {np.mean(pure):.3f} {ends}", end="")
            print(f"  {np.mean(holds):.3f} [{min(holds):.3f} to {max(holds):.3f}]")
    print(f"\n{result['minutes']:.1f} minutes")


def main() -> None:
    """Print the tables, and write them as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1, help="how many to train with")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--patients", type=int, default=100, help="of the synthetic cohort")
    parser.add_argument("--json", type=Path, help="write the tables here as well")
    arguments = parser.parse_args()
    if arguments.seeds < 1:
        parser.error("--seeds must be at least 1")
    started = time.perf_counter()
    seeds = range(arguments.seeds)
    cohorts = find_cohorts(n_synthetic=arguments.patients)
    result = {
        "machine": describe_machine(["keras", "tensorflow", "scikit-learn"]),
        "seeds": len(seeds),
        "epochs": arguments.epochs,
        "cohorts": {name: judge(c, seeds, epochs=arguments.epochs) for name, c in cohorts.items()},
        "minutes": (time.perf_counter() - started) / 60,
    }
    show(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
