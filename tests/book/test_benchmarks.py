"""The judge of representations runs on anybody's slices, and refuses what it cannot judge."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from joblib import parallel_config

from helpers.cohort import find_slices
from helpers.phantom import write_cohort

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def loaded(name):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def judge():
    return loaded("latents_on_slices")


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
    # 25 patients make two full batches of patches: a third, shorter one would be compiled again.
    data, fit = (judge.load(slices(f"{first}.npz", n=25, first=first)) for first in (0, 100))
    assert len(fit["subject"]) == 400
    result = judge.measure(data, [judge.score(data, fit, epochs=3)])
    assert 0.02 < result["prevalence"]["any lesion"] < 0.6
    found = {name: row["AUROC"] for name, row in result["scores"]["any lesion"].items()}
    assert len(found) == 5 + 4 * 4 + 2
    for method in ("one number: unexplained brightness", "PCA-5 of quantiles, line"):
        assert found[method]["mean"] > 0.9
        assert found[method]["low"] <= found[method]["mean"] <= found[method]["high"]
    difference = result["differences"]["any lesion"]["PCA-5 of pixels, forest"]["AUROC"]["mean"]
    assert difference == pytest.approx(
        found["VAE-5 of quantiles, forest"]["mean"] - found["PCA-5 of pixels, forest"]["mean"]
    )
    # Nobody told which cluster is lesion.
    assert len(result["clusters"]) == 3 + 3 + 1
    for method in ("PCA-5 of quantiles, k-means, 10", "VAE-5 of quantiles, mixture, 10"):
        cluster = result["clusters"][method]
        assert cluster["purity"]["mean"] > 0.9
        assert cluster["patches"] == round(cluster["patches"]) >= 5
        assert cluster["share of > 25 % lesion"] > 0.1


def test_the_table_shows_every_seed_and_the_file_holds_it(
    judge, slices, tmp_path, monkeypatch, capsys
):
    path, seeds = slices("judged.npz"), []

    def score(data, fit, *, epochs, seed):
        """Methods that need no training."""
        seeds.append(seed)
        noise = np.random.default_rng(seed).random(len(data["subject"]))
        rows = {name: data[name] for name in judge.ONE_NUMBER}
        rows |= dict.fromkeys((judge.BEST, *judge.RIVALS), noise)
        return {target: rows for target in judge.TARGETS}, {"luck": noise > 0.5}

    monkeypatch.setattr(judge, "score", score)
    out = tmp_path / "table.json"
    monkeypatch.setattr(
        "sys.argv", ["judge", str(path), "--seed", "3", "--seeds", "2", "--json", str(out)]
    )
    judge.main()
    assert seeds == [3, 4]
    result = json.loads(out.read_text())
    cell = result["scores"]["any lesion"][judge.BEST]["AUROC"]
    assert cell["lowest"] < cell["mean"] < cell["highest"]
    assert cell["mean"] == pytest.approx((cell["lowest"] + cell["highest"]) / 2)
    number = result["scores"]["any lesion"]["one number: around, 16 mm"]["AUROC"]
    assert number["lowest"] == number["mean"] == number["highest"]
    printed = capsys.readouterr().out
    assert f"[{cell['lowest']:.3f} to {cell['highest']:.3f}]" in printed
    for method in (*result["scores"]["any lesion"], *result["clusters"]):
        assert method in printed


def test_patients_of_both_files_are_refused(judge, slices):
    data = judge.load(slices("judged.npz"))
    with pytest.raises(ValueError, match="8 patients are in both files, such as 0"):
        judge.score(data, data)


def test_too_few_epochs_for_a_mixture_prior_are_refused(judge):
    with pytest.raises(ValueError, match="3 epochs to find clusters, found 2"):
        judge.score({}, epochs=2)


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


# --- stored results, which the book shows -------------------------------------------------------


def stored_rows(name):
    return json.loads((BENCHMARKS / "results" / f"{name}.json").read_text())["rows"]


def test_memory_through_shards_does_not_grow_with_the_scans_and_all_at_once_does():
    peaks = {(row["step"], row["scans"]): row["peak_mib"] for row in stored_rows("shards_memory")}
    for step in ("extract", "train"):
        assert peaks[step, 2800] < 1.05 * peaks[step, 28], step
    assert peaks["at_once", 2800] > 2 * peaks["at_once", 28]


def test_two_workers_do_in_less_time_what_one_does():
    rows = stored_rows("scaling")
    for step in ("extract", "score"):
        one, two = (
            min(row["seconds"] for row in rows if (row["step"], row["workers"]) == (step, workers))
            for workers in (1, 2)
        )
        assert one / 2.2 < two < one, step


def test_maps_are_judged_on_the_scans_of_any_folder(tmp_path, capsys):
    maps_on_scans = loaded("maps_on_scans")
    write_cohort(tmp_path / "scans", 2, seed=7)
    table = tmp_path / "table.json"
    maps_on_scans.main(
        [str(tmp_path / "scans"), "--json", str(table), "--patients", "2", "--epochs", "1"]
    )
    result = json.loads(table.read_text())
    assert set(result["scores"]) == {"sub-phantom0001", "sub-phantom0002"}
    shown = capsys.readouterr().out
    for row in result["scores"].values():
        for name in result["thresholds"]:
            assert 0 <= row[name]["AP"] <= 1 and row[name]["hit"] in (0, 1)
            assert f"{row[name]['AP']:.3f}" in shown
    assert all(len(volumes) == 2 for volumes in result["false_alarms"].values())
    plain = ["brightness", "unexplained", "surprise"]
    gathered = ["unexplained, gathered", "surprise, gathered"]
    assert sorted(result["false_alarms"]) == sorted(plain + gathered)


def test_maps_need_a_mask_to_be_judged_by(tmp_path, capsys):
    write_cohort(tmp_path, 1)
    next(tmp_path.rglob("*_msk.nii.gz")).unlink()
    with pytest.raises(SystemExit):
        loaded("maps_on_scans").main([str(tmp_path)])
    assert "expected a lesion mask to judge by, found none in 1 cases" in capsys.readouterr().err


def test_a_head_goes_from_its_file_to_its_map_in_six_seconds_and_memory_stays_flat():
    rows = stored_rows("scan_to_map")
    timed = [row["seconds"] for row in rows if "seconds" in row]
    assert timed and all(row["from file to map"] <= 6 and row["brain"] <= 3 for row in timed)
    few, *many = sorted((row["patients"], row["peak_mib"]) for row in rows if "patients" in row)
    assert many[-1][0] >= 1451 and all(peak < 1.05 * few[1] for _, peak in many)


def test_the_way_to_a_map_is_timed_in_its_parts(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(BENCHMARKS)
    scan_to_map = loaded("scan_to_map")
    monkeypatch.setenv("VAE_BOOK_DATA", str(tmp_path))
    monkeypatch.setattr("helpers.data._BOOK_DATA", tmp_path)
    (row,) = scan_to_map.measure(None, [], rounds=1)
    assert row["scan"] == "sub-phantom"
    taken = row["seconds"]
    assert all(taken[part] > 0 for part in ("read", "brain", "midline", "map"))
    assert taken["from file to map"] > max(taken["brain"], taken["map"])
    assert str(taken["brain"]) in capsys.readouterr().out


def test_every_seed_of_the_network_that_is_told_the_other_side_is_judged(
    slices, tmp_path, monkeypatch, capsys
):
    monkeypatch.syspath_prepend(BENCHMARKS)
    told = loaded("told_the_other_side")
    file = tmp_path / "soop_flair" / "axial_slices.npz"
    file.parent.mkdir()
    slices("slices.npz", n=24).rename(file)
    with np.load(file) as archive:
        arrays = {**archive, "subject_id": np.char.add("sub-", archive["subject_id"].astype(str))}
    np.savez(file, **arrays)
    monkeypatch.setattr("helpers.cohort.find_data", lambda name: tmp_path / name)
    cohort = find_slices()
    monkeypatch.setattr(told, "find_cohorts", lambda **_: {"slices": cohort})
    out = tmp_path / "table.json"
    monkeypatch.setattr("sys.argv", ["told", "--seeds", "2", "--epochs", "3", "--json", str(out)])
    with parallel_config(backend="threading"):  # no process would find what is replaced here
        told.main()
    result = json.loads(out.read_text())["cohorts"]["slices"]
    scores = result["scores"]["any lesion"]
    # These lesions are plain to see: without a label, and read out with the others' labels.
    for row in ("no label: surprise", "told the other side, forest"):
        assert scores[row]["mean"] > 2 * result["prevalence"]["any lesion"], row
        assert scores[row]["lowest"] <= scores[row]["mean"] <= scores[row]["highest"]
    assert "lowest" not in scores["no label: around"]  # a number knows no seed
    gap = result["differences"]["any lesion"]["surprise, minus around"]["mean"]
    assert gap == pytest.approx(
        scores["no label: surprise"]["mean"] - scores["no label: around"]["mean"]
    )
    for n, pure, holds in map(np.array, result["clusters"].values()):
        assert n.shape == (2,) and (0 <= pure).all() and (holds <= 1).all()
    shown = capsys.readouterr().out
    for cell in scores.values():
        assert f"{cell['mean']:.3f} ({cell['low']:.3f} to {cell['high']:.3f})" in shown
