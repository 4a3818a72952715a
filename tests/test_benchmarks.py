"""The judge of representations runs on anybody's slices, and refuses what it cannot judge."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parent / "benchmarks" / "latents_on_slices.py"


@pytest.fixture(scope="module")
def judge():
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def slices(tmp_path):
    """Oval brains of noise; every patient has a bright lesion on one side."""

    def write(name, n=8, first=0, **changes):
        rng = np.random.default_rng(first)
        rows, columns = np.mgrid[-70:70, -60:60] + 0.5
        brain = (rows / 65) ** 2 + (columns / 52) ** 2 < 1
        image = np.where(brain, rng.normal(120, 15, (n, 140, 120)).clip(1, 200), 0)
        lesion = np.zeros(image.shape, np.uint8)
        for patient in range(n):
            row, column = rng.integers(40, 70), rng.choice([20, 75])
            lesion[patient, row : row + 25, column : column + 25] = 1
        lesion *= brain
        image = (image + 55 * lesion).astype(np.uint8)
        arrays = {
            "image": image,
            "lesion": lesion,
            "subject_id": np.arange(first, first + n),
            **changes,
        }
        path = tmp_path / name
        np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
        return path

    return write


def test_lesions_that_are_plain_to_see_are_found_on_unseen_patients(judge, slices):
    data = judge.load(slices("judged.npz"))
    scores = judge.score(data, judge.load(slices("fitted.npz", first=100)), epochs=2)
    is_lesion = data["lesion_fraction"] > 0
    assert 0.02 < is_lesion.mean() < 0.6
    found = {name: judge.roc_auc_score(is_lesion, s) for name, s in scores["any lesion"].items()}
    assert len(found) == 4 + 4 * 4
    assert found["one number: unexplained brightness"] > 0.9
    assert found["PCA-5 of quantiles, line"] > 0.9


def test_patients_of_both_files_are_refused(judge, slices):
    data = judge.load(slices("judged.npz"))
    with pytest.raises(ValueError, match="8 patients are in both files, such as 0"):
        judge.score(data, data)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"lesion": None}, KeyError, r"slices.npz lacks \['lesion'\]"),
        ({"subject_id": np.arange(3)}, ValueError, r"subject_id \(3,\) must be"),
        ({"lesion": np.zeros((8, 5, 5))}, ValueError, r"lesion \(8, 5, 5\)"),
    ],
)
def test_a_file_of_another_kind_is_refused(judge, slices, changes, error, message):
    with pytest.raises(error, match=message):
        judge.load(slices("slices.npz", **changes))
