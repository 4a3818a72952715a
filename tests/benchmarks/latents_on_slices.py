"""Judge representations of patches on anybody's slices: FILE.npz in, one table out.

    python tests/benchmarks/latents_on_slices.py FILE.npz [--fit OTHER.npz] [--json OUT.json]
        [--epochs N] [--seed S] [--seeds N]

The file holds ``image`` (n, rows, columns) uint8, 0 outside the brain and the midline in the middle
of the columns; ``lesion``, of the same shape, 0 and 1; and ``subject_id`` (n,). Representations are
fitted without labels, on the patients of OTHER.npz or of the other folds of FILE.npz, and a small
readout is fitted on the same patients' masks. No patient is on both sides.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.ndimage import binary_fill_holes
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from helpers.cohort import brain_patches
from helpers.hemispheres import Midline, describe
from helpers.metrics import patient_bootstrap, patient_draws, patient_folds
from helpers.scans import Scan
from helpers.vae import build_dense_vae, fit_and_encode, fit_vae, keras

PATCH = 28
TARGETS = {"any lesion": 0.0, "> 25 % lesion": 0.25}
ONE_NUMBER = (
    "one number: 95th percentile",
    "one number: mirror excess",
    "one number: unexplained brightness",
    "one number: around, 16 mm",
    "no label: around + half of unexplained",
)
ALL_QUANTILES = "all 32 quantiles (labels throughout)"
BEST = "VAE-5 of quantiles, forest"
RIVALS = ("PCA-5 of pixels, forest", "PCA-5 of quantiles, forest")
N_DRAWS = 200


def load(path: Path) -> dict[str, np.ndarray]:
    """Read a file of slices and turn it into features, one row a patch of at least half brain."""
    with np.load(path) as archive:
        if missing := {"image", "lesion", "subject_id"} - set(archive):
            raise KeyError(f"{path} lacks {sorted(missing)}; it holds {sorted(archive)}")
        images, lesions = archive["image"], archive["lesion"].astype(bool)
        subjects = archive["subject_id"].astype(str)
    if images.ndim != 3 or images.shape != lesions.shape or len(subjects) != len(images):
        raise ValueError(
            f"{path}: image {images.shape}, lesion {lesions.shape} and subject_id {subjects.shape} "
            "must be (n, rows, columns), the same, and (n,)"
        )
    rows = [
        _features(image, lesion, subject)
        for image, lesion, subject in zip(images, lesions, subjects, strict=True)
    ]
    return {key: np.concatenate([row[key] for row in rows]) for key in rows[0]}


def _features(image, lesion, subject) -> dict[str, np.ndarray]:
    """All that is known of one slice's patches without looking at any other patient."""
    # Whole patches on either side of the midline, so that each has its mirror patch.
    margins = [-n % (2 * PATCH if axis else PATCH) for axis, n in enumerate(image.shape)]
    margins = [(m // 2, m - m // 2) for m in margins]
    image, lesion = (np.pad(array, margins)[None] for array in (image, lesion))
    brain = binary_fill_holes(image[0] > 0)[None]
    scan = Scan(subject, image.astype(np.float32), lesion, brain, (1.0, 1.0, 1.0))
    middle = Midline((0.0, 0.0, 1.0), (image.shape[2] - 1) / 2, scan.spacing)

    described = describe(scan, PATCH, min_brain=0.5, midline=middle)
    pixels = brain_patches(scan, (PATCH, PATCH), min_brain_fraction=0.5).patches
    numbers = (
        described.percentile,
        described.excess,
        described.unexplained,
        described.around,
        described.around + 0.5 * described.unexplained,
    )
    return {
        "lesion_fraction": described.lesion_fraction,
        "subject": described.subject_ids,
        "pixels": pixels.reshape(len(pixels), -1),
        "quantiles": described.quantiles,
        **dict(zip(ONE_NUMBER, numbers, strict=True)),
    }


def representations(inputs, *, epochs, seed) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Fit each representation on training patches; yield its name, their codes and the others'."""
    vaes = {
        "pixels": ("the post's VAE", "bernoulli"),
        "quantiles": ("VAE-5 of quantiles", "learned_gaussian"),
    }
    for key, (name, likelihood) in vaes.items():
        train, test = inputs[key]
        pca = PCA(5, random_state=seed).fit(train)
        yield f"PCA-5 of {key}", pca.transform(train), pca.transform(test)
        settings = {"epochs": epochs, "seed": seed, "likelihood": likelihood}
        yield name, *fit_and_encode(train, test, **settings)
    yield ALL_QUANTILES, *inputs["quantiles"]


def own_clusters(train, test, *, epochs, seed) -> list[np.ndarray]:
    """Which component of a VAE's mixture prior each patch belongs to."""
    keras.utils.set_random_seed(seed)
    vae = build_dense_vae(
        5, input_shape=train.shape[1:], likelihood="learned_gaussian", components=10
    )
    fit_vae(vae, train, epochs=epochs)
    return [vae.belonging(x).argmax(axis=1) for x in (train, test)]


def readouts(seed) -> dict:
    """Three ways to learn from labels what a code tells of lesions."""
    return {
        "line": make_pipeline(StandardScaler(), LogisticRegression()),
        "trees": HistGradientBoostingClassifier(
            max_iter=150, learning_rate=0.06, max_leaf_nodes=15, random_state=seed
        ),
        "forest": ExtraTreesClassifier(300, min_samples_leaf=20, n_jobs=-1, random_state=seed),
    }


def clusterings(seed) -> dict:
    """Three ways to divide codes without a label."""
    settings = {"n_init": 2, "reg_covar": 1e-4, "random_state": seed}
    return {
        "k-means, 10": KMeans(10, n_init=4, random_state=seed),
        "mixture, 10": GaussianMixture(10, **settings),
        "mixture, 20": GaussianMixture(20, **settings),
    }


def score(data, fit=None, *, epochs=10, seed=0) -> tuple[dict, dict]:
    """Score every patch of `data` by every method, fitted on other patients.

    The first dictionary holds the scores, by target and method; the second tells for each way of
    clustering which patches lie in the cluster that was chosen without a label.
    """
    if epochs < 3:
        raise ValueError(f"a mixture prior needs 3 epochs to find clusters, found {epochs}")
    if fit is None:
        # The same folds whatever the seed: its effect is that of training alone.
        splits = [
            ({key: values[train] for key, values in data.items()}, test)
            for train, test in patient_folds(data["subject"])
        ]
    else:
        if shared := set(fit["subject"]) & set(data["subject"]):
            raise ValueError(f"{len(shared)} patients are in both files, such as {min(shared)}")
        splits = [(fit, np.arange(len(data["subject"])))]
    scores = {target: {name: data[name] for name in ONE_NUMBER} for target in TARGETS}
    chosen = {}
    with threadpool_limits(1):  # threads that wait for each other cost more than they save here
        for train, test in splits:
            held_out = {key: values[test] for key, values in data.items()}
            for target, name, values in _score_fold(train, held_out, epochs, seed):
                table = scores[target] if target else chosen
                table.setdefault(name, np.zeros(len(data["subject"])))[test] = values
    return scores, chosen


def _score_fold(train, test, epochs, seed) -> Iterator[tuple[str | None, str, np.ndarray]]:
    """Yield target, method and held-out scores; or None, way and who is in the chosen cluster."""
    labels = {target: train["lesion_fraction"] > limit for target, limit in TARGETS.items()}
    scaler = StandardScaler().fit(train["quantiles"])
    inputs = {"pixels": (train["pixels"], test["pixels"])}
    inputs["quantiles"] = [np.clip(scaler.transform(x["quantiles"]), -5, 5) for x in (train, test)]

    def in_brightest(owner, held_out):
        """Choose a cluster by how its training patches look."""
        brightness = train["one number: unexplained brightness"]
        return held_out == max(np.unique(owner), key=lambda k: brightness[owner == k].mean())

    for name, codes, held_out in representations(inputs, epochs=epochs, seed=seed):
        for target, is_lesion in labels.items():
            for how, model in readouts(seed).items():
                if name != ALL_QUANTILES or how != "line":
                    model.fit(codes, is_lesion)
                    yield target, f"{name}, {how}", model.predict_proba(held_out)[:, 1]
        if name == ALL_QUANTILES:
            continue
        for way, model in clusterings(seed).items():
            if "quantiles" not in name and way != "mixture, 10":
                continue
            owner, held_out_owner = model.fit_predict(codes), model.predict(held_out)
            if way == "mixture, 10":
                size = np.maximum(np.bincount(owner, minlength=10), 1)
                for target, is_lesion in labels.items():
                    share = np.bincount(owner, is_lesion, minlength=10) / size
                    yield target, f"{name}, ten clusters", share[held_out_owner]
            if "quantiles" in name:
                yield None, f"{name}, {way}", in_brightest(owner, held_out_owner)
    owners = own_clusters(*inputs["quantiles"], epochs=epochs, seed=seed)
    yield None, "VAE-5 of quantiles, its own prior, 10", in_brightest(*owners)


def measure(data, runs) -> dict:
    """Turn what `score` returned, a run a seed, into all that the table shows."""
    result = {"prevalence": {}, "scores": {}, "differences": {}, "clusters": {}}
    lesion = {target: data["lesion_fraction"] > limit for target, limit in TARGETS.items()}
    for target, is_lesion in lesion.items():
        draws = {}
        for method in runs[0][0][target]:
            each = [
                patient_draws(is_lesion, scores[target][method], data["subject"], n_draws=N_DRAWS)
                for scores, _ in runs
            ]
            draws[method] = {name: np.array([one[name] for one in each]) for name in each[0]}
        best = [max(ONE_NUMBER, key=lambda row: draws[row][m][0, 0]) for m in ("AUROC", "AP")]
        result["prevalence"][target] = float(is_lesion.mean())
        result["scores"][target] = {
            method: {name: _cell(values) for name, values in row.items()}
            for method, row in draws.items()
        }
        # One seed drew the same patients for both, so that what they share cancels.
        result["differences"][target] = {
            rival: {m: _cell(draws[BEST][m] - draws[rival][m]) for m in ("AUROC", "AP")}
            for rival in dict.fromkeys((*best, *RIVALS))
        }
    for method in runs[0][1]:
        chosen = np.stack([found[method] for _, found in runs], axis=1)
        interval = patient_bootstrap(
            lambda is_lesion, chosen: _purity(is_lesion, chosen).mean(),
            lesion["any lesion"],
            chosen,
            data["subject"],
            n_resamples=N_DRAWS,
        )
        result["clusters"][method] = {
            "purity": _summary(_purity(lesion["any lesion"], chosen), interval),
            "patches": float(chosen.sum(axis=0).mean()),
            **{f"share of {target}": float(chosen[rows].mean()) for target, rows in lesion.items()},
        }
    return result


def _purity(is_lesion, chosen):
    """Share of lesion among the patches chosen in each column; 0 where there are none."""
    return is_lesion @ chosen / np.maximum(chosen.sum(axis=0), 1)


def _cell(draws) -> dict[str, float]:
    """Summarise draws of a measure, (seeds, 1 + draws), the first on all patients."""
    return _summary(draws[:, 0], np.percentile(draws[:, 1:].mean(axis=0), [2.5, 97.5]))


def _summary(seeds, interval) -> dict[str, float]:
    """Mean over seeds and its interval over patients; lowest and highest of several seeds."""
    cell = {"mean": seeds.mean(), "low": interval[0], "high": interval[1]}
    if len(seeds) > 1:
        cell |= {"lowest": seeds.min(), "highest": seeds.max()}
    return {name: float(value) for name, value in cell.items()}


def show(result) -> None:
    """Print the table."""
    print(f"{result['patients']} patients, {result['patches']} patches of brain")
    print(f"seeds {', '.join(map(str, result['seeds']))}; {result['epochs']} epochs")
    print("mean over seeds (95 % of draws of patients) [lowest to highest seed, if several]")
    for target, rows in result["scores"].items():
        print(f"\n{target}: prevalence {result['prevalence'][target]:.3f}")
        print("AUROC, average precision, recall at 95 % purity")
        for method, row in rows.items():
            print(f"  {method:46}" + "  ".join(_text(cell) for cell in row.values()))
        print(f"AUROC and average precision of {BEST}, minus those of")
        for rival, row in result["differences"][target].items():
            print(f"  {rival:46}" + "  ".join(_text(cell, "+") for cell in row.values()))
    print("\nthe cluster of highest mean unexplained brightness, chosen without a label")
    print("purity in any lesion, patches, share of any lesion and of > 25 % lesion that it holds")
    for method, row in result["clusters"].items():
        shares = "  ".join(f"{row[f'share of {target}']:.3f}" for target in TARGETS)
        print(f"  {method:46}{_text(row['purity'])}  {row['patches']:6.0f}  {shares}")
    print(f"\n{result['minutes']:.1f} minutes")


def _text(cell, sign="") -> str:
    numbers = [f"{value:{sign}.3f}" for value in cell.values()]
    text = f"{numbers[0]} ({numbers[1]} to {numbers[2]})"
    return f"{text} [{numbers[3]} to {numbers[4]}]" if len(numbers) > 3 else text


def main() -> None:
    """Print the table, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--fit", type=Path, help="fit on the patients of this file instead")
    parser.add_argument("--json", type=Path, help="write the table here as well")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--seeds", type=int, default=1, help="how many to train with")
    arguments = parser.parse_args()
    if arguments.seeds < 1:
        parser.error("--seeds must be at least 1")

    started = time.perf_counter()
    data = load(arguments.file)
    fit = load(arguments.fit) if arguments.fit else None
    seeds = list(range(arguments.seed, arguments.seed + arguments.seeds))
    runs = [score(data, fit, epochs=arguments.epochs, seed=seed) for seed in seeds]
    result = {
        "patients": len(set(data["subject"])),
        "patches": len(data["subject"]),
        "epochs": arguments.epochs,
        "seeds": seeds,
        **measure(data, runs),
    }
    result["minutes"] = (time.perf_counter() - started) / 60
    show(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
