"""The built-in cohort: as hard as two real scans say, and written once, whole or not at all."""

import json
import threading
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from joblib import parallel_config
from scipy import ndimage
from scipy.stats import rankdata

from helpers import phantom
from helpers.scans import Scan, find_cases, load_case

# Of two real ISLES 2022 scans; healthy = brain outside the lesion, in units of its median.
BANDS = {
    "healthy p1": (0.10, 0.40),
    "healthy p5": (0.25, 0.60),
    "healthy p25": (0.74, 0.87),
    "healthy p75": (1.10, 1.25),
    "healthy p95": (1.35, 1.55),
    "healthy p99": (1.55, 1.95),
    "healthy p99.9": (2.0, 3.6),
    "healthy variation": (0.25, 0.40),
    "lesion p5": (0.9, 1.3),
    "lesion p50": (1.4, 2.0),
    "lesion p95": (1.7, 2.8),
    "AUROC": (0.88, 0.95),
}


def auroc(is_lesion, score):
    ranks, n_lesion = rankdata(score), is_lesion.sum()
    wins = ranks[is_lesion].sum() - n_lesion * (n_lesion + 1) / 2
    return wins / (n_lesion * (~is_lesion).sum())


def describe(scan):
    healthy = scan.dwi[scan.brain & ~scan.lesion]
    unit = np.median(healthy)
    numbers = {f"healthy p{p:g}": np.percentile(healthy, p) / unit for p in (1, 5, 25, 75, 95, 99)}
    numbers["healthy p99.9"] = np.percentile(healthy, 99.9) / unit
    numbers["healthy variation"] = healthy.std() / healthy.mean()
    for p in (5, 50, 95):
        numbers[f"lesion p{p}"] = np.percentile(scan.dwi[scan.lesion], p) / unit
    numbers["AUROC"] = auroc(scan.lesion[scan.brain], scan.dwi[scan.brain])
    numbers["ml"] = scan.lesion.sum() * np.prod(scan.spacing) / 1000
    numbers["components"] = ndimage.label(scan.lesion)[1]
    numbers["brain ml"] = scan.brain.sum() * np.prod(scan.spacing) / 1000
    return numbers


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("phantom")


@pytest.fixture(scope="module")
def cases(root):
    return phantom.write_cohort(root)


@pytest.fixture(scope="module")
def cohort(cases):
    rows = [describe(load_case(case)) for case in cases]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


@pytest.fixture(scope="module")
def two_cases(tmp_path_factory):
    """A small cohort for reading only."""
    root = tmp_path_factory.mktemp("two")
    return root, phantom.write_cohort(root, 2)


def contents(root):
    """Every file beneath the root, hidden ones too, and what it holds."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in Path(root).rglob("*")
        if path.is_file()
    }


# -- the numbers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BANDS)
def test_cohort_lies_in_the_bands_of_real_scans(cohort, name):
    low, high = BANDS[name]
    assert low <= np.median(cohort[name]) <= high


def test_no_lesion_hides_and_no_lesion_gives_itself_away(cohort):
    assert cohort["AUROC"].min() >= 0.70
    assert cohort["AUROC"].max() < 1


def test_lesion_volumes_follow_isles_2015(cohort):
    """Maier et al. 2017: mean 17.6 ml, from less than 0.1 to about 350."""
    assert 12 <= cohort["ml"].mean() <= 24
    assert 0 < cohort["ml"].min() < 0.1
    assert 250 <= cohort["ml"].max() <= 400
    assert 1 <= np.median(cohort["ml"]) <= 6  # most strokes are small


def test_lesion_components_follow_isles_2015(cohort):
    """Maier et al. 2017: 2.5 on average, from 1 to 14."""
    assert 2 <= cohort["components"].mean() <= 3
    assert cohort["components"].min() == 1
    assert 4 <= cohort["components"].max() <= 14


def test_brains_are_of_human_size_and_whole(cohort, cases):
    assert (cohort["brain ml"] > 1300).all() and (cohort["brain ml"] < 2400).all()
    for case in cases[:5]:
        brain = load_case(case).brain
        assert not brain[:, [0, -1]].any() and not brain[:, :, [0, -1]].any()


def test_every_patient_is_another_one(cases):
    brains = [load_case(case).brain for case in cases[:4]]
    for i, brain in enumerate(brains):
        for other in brains[:i]:
            assert 0.5 < (brain & other).sum() / (brain | other).sum() < 0.97


def test_both_hemispheres_are_struck(cases):
    lefts = 0
    for case in cases:
        _, _, columns = np.nonzero(load_case(case).lesion)
        lefts += columns.mean() > 115
    assert 6 <= lefts <= 22


def test_a_tenth_of_the_patients_are_struck_on_both_sides(monkeypatch):
    assert phantom.BOTH_SIDES == 0.1
    monkeypatch.setattr(phantom, "BOTH_SIDES", 0)
    one = phantom.simulate_case(4)
    monkeypatch.setattr(phantom, "BOTH_SIDES", 1)
    both, healthy = phantom.simulate_case(4), phantom.simulate_case(4, infarct=False)
    np.testing.assert_array_equal(both.brain, one.brain)
    assert (both.lesion >= one.lesion).all()
    second = both.lesion & ~one.lesion
    sides = [np.nonzero(mask)[2].mean() > 115 for mask in (one.lesion, second)]
    assert second.sum() >= 3 and sides[0] != sides[1]
    assert both.dwi[second].mean() > 1.3 * healthy.dwi[second].mean()
    untouched = ~ndimage.binary_dilation(second, iterations=8)
    # Its signal moves the scan's median, and the gain with it; by no more than a trace.
    np.testing.assert_allclose(both.dwi[untouched], one.dwi[untouched], rtol=0.1, atol=5)


def test_healthy_bright_spots_exist_outside_the_lesion(cases):
    """Pile-up and shine-through: the brightest voxels of the brain are not all lesion."""
    for case in cases:
        scan = load_case(case)
        brightest = scan.dwi[scan.brain] >= np.percentile(scan.dwi[scan.brain], 99.9)
        assert scan.lesion[scan.brain][brightest].mean() < 0.9


# -- the physics -----------------------------------------------------------------------------------


def test_signal_equation_by_hand():
    # exp(-80/80) exp(-1000 · 1e-3) = exp(-2)
    assert phantom.dwi_signal(1.0, 80.0, 1e-3) == pytest.approx(np.exp(-2))
    # An ADC lowered from 0.8e-3 to 0.4e-3 at b = 1000 brightens by exp(0.4) = 1.49.
    ratio = phantom.dwi_signal(0.8, 99.0, 0.4e-3) / phantom.dwi_signal(0.8, 99.0, 0.8e-3)
    assert ratio == pytest.approx(1.4918, abs=1e-4)
    # T2 shine-through: brighter by exp(80/80 - 80/160) = exp(1/2), with the same ADC.
    assert phantom.dwi_signal(1, 160, 1e-3) / phantom.dwi_signal(1, 80, 1e-3) == pytest.approx(
        np.exp(0.5)
    )


def test_csf_is_dark_and_grey_is_brighter_than_white():
    grey, white, csf = (phantom.dwi_signal(*phantom.TISSUES[t]) for t in ("grey", "white", "csf"))
    assert csf < white / 2 < grey / 2
    assert 1.2 < grey / white < 1.6


def test_background_is_zero_and_brain_is_not():
    scan = phantom.simulate_case(3)
    assert (scan.dwi[~scan.brain] == 0).all()
    assert (scan.dwi[scan.brain] >= 1).all()
    np.testing.assert_array_equal(scan.brain, ndimage.binary_fill_holes(scan.dwi > 0))
    assert scan.lesion.any() and not (scan.lesion & ~scan.brain).any()


def test_lesion_is_brighter_than_the_rest_of_the_brain():
    for seed in range(4):
        scan = phantom.simulate_case(seed)
        lesion = np.median(scan.dwi[scan.lesion])
        assert lesion > np.median(scan.dwi[scan.brain & ~scan.lesion])


@pytest.fixture(scope="module")
def day_before_and_after():
    return [phantom.simulate_case(4, infarct=infarct) for infarct in (False, True)]


def test_the_day_before_the_head_is_the_same_and_the_mask_says_what_will_come(day_before_and_after):
    before, after = day_before_and_after
    np.testing.assert_array_equal(before.brain, after.brain)
    np.testing.assert_array_equal(before.lesion, after.lesion)
    assert 10 < after.lesion.sum() * np.prod(after.spacing) / 1000 < 15  # ml
    assert (before.dwi[~before.brain] == 0).all() and (before.dwi[before.brain] >= 1).all()


def test_the_day_before_what_is_far_from_the_infarct_looks_the_same(day_before_and_after):
    """Noise included; only the gain follows the brain's median, which the infarct raises a bit."""
    before, after = day_before_and_after
    near = ndimage.distance_transform_edt(~after.lesion, sampling=after.spacing) <= 10
    far = after.brain & ~near
    change = np.abs(after.dwi - before.dwi)[far]
    assert (change <= 1).mean() > 0.99  # whole numbers of several hundred
    assert change.max() < 0.05 * np.median(before.dwi[far])


def test_the_day_before_nothing_has_brightened_the_place_yet(day_before_and_after):
    before, after = day_before_and_after
    darker, brighter = (scan.dwi[scan.lesion].mean() for scan in (before, after))
    assert brighter > 1.3 * darker
    scores = [auroc(scan.lesion[scan.brain], scan.dwi[scan.brain]) for scan in (before, after)]
    assert scores[0] < scores[1] - 0.1


# -- the seed --------------------------------------------------------------------------------------


def test_same_seed_same_patient_other_seed_other_patient():
    first, again, other = (phantom.simulate_case(seed) for seed in (11, 11, 12))
    np.testing.assert_array_equal(first.dwi, again.dwi)
    np.testing.assert_array_equal(first.lesion, again.lesion)
    assert not np.array_equal(first.dwi, other.dwi)


# Voxels, mean and standard deviation, healthy and lesion; the lesion's centre.
OF_VERSION_2 = {
    4: (354216, 465.294, 153.960, 2420, 874.215, 132.394, 7.73967, 163.015, 125.732),
    5: (425151, 361.782, 102.045, 1262, 673.513, 88.5068, 20.3803, 185.309, 89.3978),
}


@pytest.mark.parametrize("seed", OF_VERSION_2)
def test_one_version_of_the_simulation_makes_one_patient_of_a_seed(seed):
    """Cohorts on readers' disks are kept until `VERSION` is raised: then these numbers may move."""
    scan = phantom.simulate_case(seed)
    kinds = [scan.dwi[scan.brain & ~scan.lesion], scan.dwi[scan.lesion]]
    numbers = [number for dwi in kinds for number in (len(dwi), dwi.mean(), dwi.std())]
    numbers += ndimage.center_of_mass(scan.lesion)
    assert phantom.VERSION == 2 and scan.subject_id == "sub-phantom"
    # A last bit that another processor rounds differently may move a voxel across an edge: that
    # counts in a lesion of a thousand voxels, and not in a brain.
    assert numbers[:3] == pytest.approx(OF_VERSION_2[seed][:3], rel=5e-5)
    assert numbers[3:] == pytest.approx(OF_VERSION_2[seed][3:], rel=2e-3)


def test_a_seed_sequence_is_not_used_up():
    seed = np.random.SeedSequence(5)
    np.testing.assert_array_equal(phantom.simulate_case(seed).dwi, phantom.simulate_case(seed).dwi)


@pytest.mark.parametrize("seed", [-1, 1.5, "7", None, True])
def test_bad_seed(seed, tmp_path):
    with pytest.raises(ValueError, match=r"seed must be a whole number of at least 0, found "):
        phantom.simulate_case(seed)
    with pytest.raises(ValueError, match="seed must be a whole number of at least 0"):
        phantom.write_cohort(tmp_path, 1, seed=seed)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("n_cases", [0, -3, 2.0, "28", None, True])
def test_bad_n_cases(n_cases, tmp_path):
    with pytest.raises(ValueError, match=r"n_cases must be a whole number of at least 1, found "):
        phantom.write_cohort(tmp_path, n_cases)
    assert contents(tmp_path) == {}


# -- the files -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_brain_lies_in_its_head(seed):
    stripped, head = phantom.simulate_case(seed), phantom.simulate_case(seed, skull=True)
    for name in ("brain", "lesion"):
        np.testing.assert_array_equal(getattr(head, name), getattr(stripped, name))
    np.testing.assert_array_equal(head.dwi[head.brain], stripped.dwi[stripped.brain])
    assert head.spacing == stripped.spacing
    np.testing.assert_array_equal(head.dwi, np.rint(head.dwi))
    assert head.dwi.dtype == np.float32 and head.dwi.min() >= 0


def test_a_head_without_an_infarct_has_a_skull_too():
    before, after = (phantom.simulate_case(0, infarct=infarct, skull=True) for infarct in (0, 1))
    assert before.dwi[before.lesion].mean() < after.dwi[after.lesion].mean()
    assert before.dwi[~before.brain].mean() > 0


@pytest.mark.parametrize("seed", [0, 1])
def test_skull_is_dark_scalp_is_dim_and_air_is_rician_noise(seed):
    scan = phantom.simulate_case(seed, skull=True)
    above = slice(17, 25)  # of the face
    depth = ndimage.distance_transform_edt(~scan.brain, phantom.SPACING)[above]
    dwi = scan.dwi[above] / np.median(scan.dwi[scan.brain])
    bone, scalp = (dwi[np.abs(depth - mm) < 0.5] for mm in (4, 10))
    air = dwi[depth > 30]
    assert np.median(air) <= np.median(bone) < 0.6 * np.median(scalp)
    assert 0.1 < np.median(scalp) < 0.35
    # A Rayleigh distribution: what is left of Rician noise where there is no signal.
    assert air.mean() / air.std() == pytest.approx(np.sqrt(np.pi / (4 - np.pi)), rel=0.05)


def test_eyes_are_brighter_than_the_face_about_them():
    scan = phantom.simulate_case(0, skull=True)
    dwi = scan.dwi / np.median(scan.dwi[scan.brain])
    smooth = ndimage.gaussian_filter(np.where(scan.brain, 0, dwi)[4:12, :60], (0.5, 2, 2))
    bright, _ = ndimage.label(smooth > 0.35)
    sizes = np.sort(np.bincount(bright.ravel())[1:])[-2:] * np.prod(phantom.SPACING) / 1000
    assert (sizes > 2).all()  # ml; an eye holds 7


def test_written_cohort_is_what_find_cases_finds(root, cases):
    assert len(cases) == 28
    assert cases == find_cases(root)
    assert cases[0].subject_id == "sub-phantom0001"
    assert cases[27].subject_id == "sub-phantom0028"
    layout = "sub-phantom0001/ses-0001/sub-phantom0001_ses-0001"
    assert cases[0].dwi == root / f"rawdata/{layout}_dwi.nii.gz"
    assert cases[0].lesion == root / f"derivatives/{layout}_msk.nii.gz"


def test_round_trip_is_exact(two_cases):
    _, cases = two_cases
    for case, seed in zip(cases, np.random.SeedSequence(2015).spawn(2), strict=True):
        written, read = phantom.simulate_case(seed), load_case(case)
        assert read.dwi.dtype == written.dwi.dtype == np.float32
        assert read.dwi.shape == (34, 230, 230)
        np.testing.assert_array_equal(read.dwi, written.dwi)
        np.testing.assert_array_equal(read.lesion, written.lesion)
        np.testing.assert_array_equal(read.brain, written.brain)
        assert read.spacing == written.spacing == (5.0, 1.0, 1.0)


def test_another_reader_sees_the_lesion_on_the_same_side(two_cases):
    """Nibabel turns the file to RAS: our columns and rows backwards."""
    _, cases = two_cases
    for case in cases:
        scan, mask = load_case(case), nib.as_closest_canonical(nib.load(case.lesion))
        assert mask.header.get_zooms() == (1.0, 1.0, 5.0)
        ras = np.asarray(mask.dataobj) > 0  # (x, y, z)
        np.testing.assert_array_equal(ras.T[:, ::-1, ::-1], scan.lesion)
        # The middle of the grid is where the scanner's axes meet.
        middle = mask.affine @ [*(np.array(mask.shape) - 1) / 2, 1]
        np.testing.assert_allclose(middle, [0, 0, 0, 1], atol=1e-3)
        # Whole numbers of no more bytes than they need.
        assert nib.load(case.dwi).get_data_dtype() == np.int16
        assert mask.get_data_dtype() == np.uint8


def test_files_say_that_they_are_synthetic(two_cases):
    root, cases = two_cases
    for path in (cases[0].dwi, cases[0].lesion):
        assert nib.load(path).header["descrip"].item() == b"synthetic, not a patient"
    written = (root / "manifest.json").read_text()
    manifest = json.loads(written)
    assert manifest["description"].startswith("Synthetic scans") and written.count("\n") == 6
    assert (manifest["seed"], manifest["n_cases"]) == (2015, 2)


def test_second_call_touches_nothing(two_cases, capsys):
    root, cases = two_cases
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert phantom.write_cohort(root, 2) == cases
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    assert capsys.readouterr().err == ""


def test_fewer_cases_are_the_first_ones(two_cases):
    root, cases = two_cases
    before = contents(root)
    assert phantom.write_cohort(root, 1) == cases[:1]
    assert contents(root) == before


def test_more_cases_extend_the_cohort_and_its_bar(tmp_path, two_cases, capsys):
    first = phantom.write_cohort(tmp_path, 1)
    shown = capsys.readouterr().err
    assert shown.startswith("\rSynthetic patients:   0%") and "0/1" in shown and "?scan/s" in shown
    written = {path: path.stat().st_mtime_ns for path in (first[0].dwi, first[0].lesion)}
    assert phantom.write_cohort(tmp_path, 2)[0] == first[0]
    shown = capsys.readouterr().err
    assert "0/2" not in shown and "1/2" in shown and "2/2" in shown
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert contents(tmp_path) == contents(two_cases[0])


@pytest.mark.parametrize("kind", ["dwi", "lesion"])
def test_a_lost_file_is_written_again(tmp_path, two_cases, kind):
    cases = phantom.write_cohort(tmp_path, 2)
    getattr(cases[1], kind).unlink()
    phantom.write_cohort(tmp_path, 2)
    assert contents(tmp_path) == contents(two_cases[0])


def test_interrupted_between_any_two_steps_it_resumes(tmp_path, two_cases, monkeypatch):
    """Whatever is there after an interruption is whole, and the next call adds the rest."""
    complete = contents(two_cases[0])
    replace = phantom.os.replace
    for step in range(5):  # the manifest, two masks, two scans
        root = tmp_path / str(step)
        calls = Counter()

        def interrupted(source, target, calls=calls, step=step):
            calls["replace"] += 1
            if calls["replace"] > step:
                raise KeyboardInterrupt
            replace(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(phantom.os, "replace", interrupted)
            with pytest.raises(KeyboardInterrupt):
                phantom.write_cohort(root, 2)
        left = contents(root)
        assert len(left) == step
        assert left.items() <= complete.items()
        phantom.write_cohort(root, 2)
        assert contents(root) == complete


def test_interrupted_while_simulating_it_resumes(tmp_path, two_cases, monkeypatch):
    simulate = phantom.simulate_case
    calls = Counter()

    def interrupted(seed):
        calls["simulate"] += 1
        if calls["simulate"] == 2:
            raise KeyboardInterrupt
        return simulate(seed)

    with monkeypatch.context() as patch:
        patch.setattr(phantom, "simulate_case", interrupted)
        with pytest.raises(KeyboardInterrupt):
            phantom.write_cohort(tmp_path, 2)
    assert [case.subject_id for case in find_cases(tmp_path)] == ["sub-phantom0001"]
    phantom.write_cohort(tmp_path, 2)
    assert contents(tmp_path) == contents(two_cases[0])


@pytest.mark.parametrize(("n_cases", "cores", "expected"), [(7, 3, 1), (8, 3, 2), (8, 1, 1)])
def test_every_four_patients_are_worth_another_process(
    tmp_path, monkeypatch, n_cases, cores, expected
):
    workers, together = set(), threading.Barrier(expected)

    def tiny(seed):
        together.wait(timeout=30)
        workers.add(threading.get_ident())
        return Scan("sub-phantom", *np.ones((3, 2, 2, 2)), phantom.SPACING)

    monkeypatch.setattr(phantom, "simulate_case", tiny)
    monkeypatch.setattr(phantom, "cpu_count", lambda: cores)
    with parallel_config(backend="threading"):  # threads can be counted from here
        assert len(phantom.write_cohort(tmp_path, n_cases)) == n_cases
    assert len(workers) == expected


def test_another_seed_replaces_the_cohort(tmp_path, two_cases, capsys):
    phantom.write_cohort(tmp_path, 2, seed=0)
    assert "1/2" in capsys.readouterr().err  # the bar moves with each patient
    other = contents(tmp_path)
    cases = phantom.write_cohort(tmp_path, 1, seed=2)
    assert cases == find_cases(tmp_path)
    assert not contents(tmp_path).items() & other.items()
    phantom.write_cohort(tmp_path, 2)
    assert contents(tmp_path) == contents(two_cases[0])


def test_another_version_replaces_the_cohort(tmp_path, monkeypatch):
    (case,) = phantom.write_cohort(tmp_path, 1)
    written = case.dwi.stat().st_mtime_ns
    monkeypatch.setattr(phantom, "VERSION", phantom.VERSION + 1)
    phantom.write_cohort(tmp_path, 1)
    assert case.dwi.stat().st_mtime_ns != written
    assert json.loads((tmp_path / "manifest.json").read_text())["version"] == phantom.VERSION


@pytest.mark.parametrize("manifest", [None, "", "{", "[]", '{"seed": 2015}'])
def test_scans_without_a_good_manifest_are_not_trusted(tmp_path, two_cases, manifest):
    for kind, ending in (("rawdata", "dwi"), ("derivatives", "msk")):
        folder = tmp_path / kind / "sub-phantom0002/ses-0001"
        folder.mkdir(parents=True)
        (folder / f"sub-phantom0002_ses-0001_{ending}.nii.gz").write_bytes(b"who knows")
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest)
    phantom.write_cohort(tmp_path, 2)
    assert contents(tmp_path) == contents(two_cases[0])


def test_real_patients_are_never_mixed_with_synthetic_ones(tmp_path):
    real = tmp_path / "rawdata/sub-strokecase0009/ses-0001/sub-strokecase0009_ses-0001_dwi.nii.gz"
    real.parent.mkdir(parents=True)
    real.write_bytes(b"a patient")
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match="found sub-strokecase0009"):
        phantom.write_cohort(tmp_path, 1)
    assert contents(tmp_path) == before
