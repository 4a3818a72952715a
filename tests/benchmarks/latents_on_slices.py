"""Judge representations of patches on anybody's slices: FILE.npz in, one table out.

    python tests/benchmarks/latents_on_slices.py FILE.npz [--fit OTHER.npz] [--json OUT.json]

The file holds ``image`` (n, rows, columns) uint8, 0 outside the brain and the midline in the middle
of the columns; ``lesion``, of the same shape, 0 and 1; and ``subject_id`` (n,). Representations are
fitted without labels, on the patients of OTHER.npz or of the other folds of FILE.npz, and a small
readout is fitted on the same patients' masks. No patient is on both sides.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
from scipy.ndimage import binary_fill_holes
from sklearn.decomposition import PCA
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from helpers.hemispheres import (
    mirror_excess,
    scale_to_mode,
    smooth_in_brain,
    unexplained_brightness,
)
from helpers.intensity import normalize_intensity
from helpers.metrics import patient_bootstrap, recall_at_purity
from helpers.patches import extract_patches
from helpers.vae import build_dense_vae, keras

PATCH = 28
TARGETS = {"any lesion": 0.0, "> 25 % lesion": 0.25}
METRICS = {
    "AUROC": roc_auc_score,
    "AP": average_precision_score,
    "recall at 95 % purity": recall_at_purity,
}
QUANTILES = np.linspace(0.02, 0.98, 15)


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

    plain = normalize_intensity(image, mask=brain)
    scaled = scale_to_mode(image, brain)
    unexplained = unexplained_brightness(scaled, brain)
    maps = {
        "plain": plain,
        "excess of plain": mirror_excess(plain, brain),
        "intensity": scaled,
        "intensity, 1.5 mm": smooth_in_brain(scaled, brain, 1.5),
        "intensity, 5 mm": smooth_in_brain(scaled, brain, 5),
        "excess, 1.5 mm": mirror_excess(scaled, brain, 1.5),
        "excess, 5 mm": mirror_excess(scaled, brain, 5),
        "unexplained, 1.5 mm": unexplained_brightness(scaled, brain, 1.5, reach=3),
        "unexplained, 3 mm": unexplained,
        "unexplained, 5 mm": unexplained_brightness(scaled, brain, 5),
        # What lies around a patch: strokes are larger than noise.
        "around, 8 mm": smooth_in_brain(np.maximum(unexplained, 0), brain, 8),
        "around, 16 mm": smooth_in_brain(np.maximum(unexplained, 0), brain, 16),
    }
    cut = {
        name: extract_patches(array, lesion_mask=lesion, brain_mask=brain, subject_id=subject)
        for name, array in maps.items()
    }
    first = cut["plain"]
    kept = first.brain_fraction >= 0.5
    in_brain = extract_patches(brain).patches[kept]
    pixels = {name: patches.patches[kept] for name, patches in cut.items()}

    def inside(name, shares):
        """Quantiles of a map over the brain voxels of each patch."""
        values = np.where(in_brain, pixels[name], np.nan).reshape(kept.sum(), -1)
        return np.nanquantile(values, shares, axis=1).T.astype(np.float32)

    def mean(name):
        return np.sum(np.maximum(pixels[name], 0) * in_brain, axis=(1, 2)) / in_brain.sum((1, 2))

    used = [name for name in maps if name not in ("plain", "excess of plain")]
    return {
        "lesion_fraction": first.lesion_fraction[kept],
        "subject": first.subject_ids[kept],
        "pixels": pixels["plain"].reshape(kept.sum(), -1),
        "one number: 95th percentile": inside("plain", [0.95])[:, 0],
        "one number: mirror excess": inside("excess of plain", [0.95])[:, 0],
        "one number: unexplained brightness": mean("unexplained, 3 mm"),
        "one number: the same, and around": mean("around, 16 mm"),
        # The inverse hyperbolic sine tames the bright tail and keeps the sign.
        "quantiles": np.arcsinh(4 * np.hstack([inside(name, QUANTILES) for name in used])),
    }


def fit_vae(features, *, likelihood, epochs, seed, hidden_units=256):
    """Train a VAE with five latents; return the function that encodes."""
    keras.utils.set_random_seed(seed)
    vae = build_dense_vae(
        5, input_shape=features.shape[1:], likelihood=likelihood, hidden_units=hidden_units
    )
    steps = keras.optimizers.schedules.CosineDecay(2e-3, epochs * math.ceil(len(features) / 200))
    vae.compile(optimizer=keras.optimizers.Adam(steps), jit_compile=True)
    vae.fit(features, epochs=epochs, batch_size=200, verbose=0)
    return lambda x: vae.encode(x)[0]


def representations(train, *, epochs, seed):
    """Fit each representation on training patches; yield its name, its input and its encoder."""
    yield "PCA-5", "pixels", PCA(5, random_state=seed).fit(train["pixels"]).transform
    yield (
        "the post's VAE",
        "pixels",
        fit_vae(train["pixels"], likelihood="bernoulli", epochs=epochs, seed=seed),
    )
    scaler = StandardScaler().fit(train["quantiles"])
    tame = lambda x: np.clip(scaler.transform(x), -5, 5)  # noqa: E731
    pca = PCA(5, random_state=seed).fit(tame(train["quantiles"]))
    yield "PCA-5 of quantiles", "quantiles", lambda x: pca.transform(tame(x))
    encode = fit_vae(tame(train["quantiles"]), likelihood="gaussian", epochs=epochs, seed=seed)
    yield "VAE-5 of quantiles", "quantiles", lambda x: encode(tame(x))


def readouts(codes, is_lesion, seed):
    """Fit four ways to turn a code into a score; yield name and function."""
    line = make_pipeline(StandardScaler(), LogisticRegression()).fit(codes, is_lesion)
    yield "line", lambda z: line.predict_proba(z)[:, 1]
    trees = HistGradientBoostingClassifier(
        max_iter=150, learning_rate=0.06, max_leaf_nodes=15, random_state=seed
    ).fit(codes, is_lesion)
    yield "trees", lambda z: trees.predict_proba(z)[:, 1]
    forest = ExtraTreesClassifier(300, min_samples_leaf=20, n_jobs=-1, random_state=seed)
    forest.fit(codes, is_lesion)
    yield "forest", lambda z: forest.predict_proba(z)[:, 1]
    mixture = GaussianMixture(10, n_init=2, reg_covar=1e-4, random_state=seed).fit(codes)
    owner = mixture.predict(codes)
    share = np.array([is_lesion[owner == k].mean() if (owner == k).any() else 0 for k in range(10)])
    yield "ten clusters", lambda z: share[mixture.predict(z)]


def score(data, fit=None, *, epochs=30, seed=0) -> dict[str, dict[str, np.ndarray]]:
    """Score every patch of `data` by every method, fitted on other patients."""
    if fit is None:
        splits = GroupKFold(4, shuffle=True, random_state=seed).split(
            data["pixels"], groups=data["subject"]
        )
        splits = [({k: v[train] for k, v in data.items()}, test) for train, test in splits]
    else:
        if shared := set(fit["subject"]) & set(data["subject"]):
            raise ValueError(f"{len(shared)} patients are in both files, such as {min(shared)}")
        splits = [(fit, np.arange(len(data["subject"])))]
    scores = {target: {k: v for k, v in data.items() if "one number" in k} for target in TARGETS}
    for train, test in splits:
        for name, key, encode in representations(train, epochs=epochs, seed=seed):
            codes, held_out = encode(train[key]), encode(data[key][test])
            for target, limit in TARGETS.items():
                is_lesion = train["lesion_fraction"] > limit
                for how, read in readouts(codes, is_lesion, seed):
                    row = scores[target].setdefault(
                        f"{name}, {how}", np.empty(len(data["subject"]))
                    )
                    row[test] = read(held_out)
    return scores


def main() -> None:
    """Print the table, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--fit", type=Path, help="fit on the patients of this file instead")
    parser.add_argument("--json", type=Path, help="write the table here as well")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    started = time.perf_counter()
    data = load(arguments.file)
    fit = load(arguments.fit) if arguments.fit else None
    scores = score(data, fit, epochs=arguments.epochs, seed=arguments.seed)
    print(f"{len(set(data['subject']))} patients, {len(data['subject'])} patches of brain")
    table = {}
    for target, limit in TARGETS.items():
        is_lesion = data["lesion_fraction"] > limit
        print(f"\n{target}: prevalence {is_lesion.mean():.3f}")
        print(f"{'':40} AUROC (95 % of draws)    AP (95 % of draws)   recall at 95 % purity")
        for method, values in scores[target].items():
            row = table.setdefault(target, {}).setdefault(method, {})
            text = ""
            for name, metric in METRICS.items():
                low, high = patient_bootstrap(
                    metric, is_lesion, values, data["subject"], n_resamples=100
                )
                row[name] = [float(metric(is_lesion, values)), low, high]
                text += "  {:.3f} ({:.3f}-{:.3f})".format(*row[name])
            print(f"{method:38}{text}", flush=True)
    print(f"\n{(time.perf_counter() - started) / 60:.1f} minutes")
    if arguments.json:
        arguments.json.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
