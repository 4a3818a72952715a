"""Which patients a chapter runs on."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import fields, replace

import distributed
import numpy as np
import psutil
import pytest
import SimpleITK as sitk
from joblib import parallel_config

from helpers import cohort, data
from helpers.cohort import (
    SPACING,
    brain_patches,
    find_cohort,
    find_cohorts,
    find_real_cohorts,
    find_shards,
    find_slices,
    load_descriptors,
    load_known,
    load_patches,
    load_scan,
    load_sides,
    read_shard,
    write_shards,
)
from helpers.hemispheres import Midline, describe, find_midline
from helpers.mirror_vae import both_sides
from helpers.parallel import map_cases
from helpers.patches import PatchSet
from helpers.phantom import simulate_case, write_cohort
from helpers.scans import Case, VolumeReadError, find_cases, load_case


def write_scans(root, n, *, masks=True, size=(56, 56, 3), spacing=(1.0, 1.0, 5.0)):
    """Write scans in the layout of ISLES 2022, each with a block of lesion."""
    rng = np.random.default_rng(0)
    for number in range(n):
        name = f"sub-strokecase{number:04d}"
        dwi = rng.uniform(100, 200, size[::-1]).astype(np.float32)
        lesion = np.zeros(size[::-1], np.uint8)
        lesion[1, 2:9, 3:13] = 1
        volumes = {f"rawdata/{name}/ses-0001/{name}_ses-0001_dwi.nii.gz": dwi}
        if masks:
            volumes[f"derivatives/{name}/ses-0001/{name}_ses-0001_msk.nii.gz"] = lesion
        for path, array in volumes.items():
            image = sitk.GetImageFromArray(array)
            image.SetSpacing(spacing)
            (root / path).parent.mkdir(parents=True)
            sitk.WriteImage(image, str(root / path))
    return find_cases(root)


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A data folder that is empty at first; the simulation is replaced by a note of the call."""
    monkeypatch.setattr(
        cohort, "find_data", lambda name: p if (p := tmp_path / name).exists() else None
    )
    monkeypatch.setattr(cohort, "data_folder", lambda: tmp_path)
    monkeypatch.setattr(cohort, "write_cohort", lambda root, n: [("simulated", root, n)])
    return tmp_path


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Where results are kept; threads instead of processes, which would not look there."""
    monkeypatch.setattr(data, "data_folder", lambda: tmp_path / "kept")
    with parallel_config(backend="threading"):
        yield tmp_path / "kept" / "cache"


def test_without_data_the_synthetic_cohort_is_used_and_called_so(shelf):
    found = find_cohort(n_synthetic=5)
    assert found.synthetic and found.name == "the built-in synthetic cohort"
    assert found.cases == [("simulated", shelf / "phantom", 5)]
    assert find_real_cohorts() == []
    assert find_cohort().cases[0][2] == 28  # as many as ISLES 2015 has


def test_a_rehearsal_has_fewer_synthetic_patients_but_enough_and_says_so(shelf, monkeypatch):
    monkeypatch.setenv("VAE_BOOK_QUICK", "1")
    found = find_cohort(min_cases=7)
    assert found.name == "the built-in synthetic cohort, in a quick rehearsal"
    assert found.cases[0][2] == 7


def test_a_synthetic_cohort_in_the_shared_folder_is_used(shelf, monkeypatch):
    shared = {"phantom": shelf / "shared" / "phantom"}
    monkeypatch.setattr(cohort, "find_data", shared.get)
    assert find_cohort().cases[0][1] == shared["phantom"]


def test_ten_real_patients_are_enough(shelf):
    write_scans(shelf / "isles2022", 9)
    assert find_cohort().synthetic
    write_scans(shelf / "isles2015", 10)
    assert find_cohort().name == "ISLES 2015"


def test_the_largest_real_cohort_is_used_if_it_is_large_enough(shelf):
    write_scans(shelf / "isles2015", 3)
    write_scans(shelf / "isles2022", 4)
    assert [(c.name, len(c.cases)) for c in find_real_cohorts()] == [
        ("ISLES 2022", 4),
        ("ISLES 2015", 3),
    ]
    assert find_cohort(min_cases=4).name == "ISLES 2022"
    assert [c.synthetic for c in find_real_cohorts()] == [False, False]
    assert find_cohort(min_cases=5).synthetic


@pytest.fixture(scope="module")
def head():
    return simulate_case(2026)


@pytest.fixture(scope="module")
def soop(head, tmp_path_factory):
    """The files of a synthetic head under SOOP's names, with its ADC and an old lesion beside."""
    root = tmp_path_factory.mktemp("soop")
    stem = "derivatives/lesion_masks/sub-1/dwi/sub-1_space-TRACE_desc-lesion"
    lesion = head.lesion.astype(np.uint8)
    volumes = {
        "sub-1/dwi/sub-1_rec-TRACE_dwi.nii.gz": head.dwi.astype(np.int16),
        "sub-1/dwi/sub-1_rec-ADC_dwi.nii.gz": 1000 - head.dwi.astype(np.int16),
        f"{stem}Acute_mask.nii.gz": lesion,
        f"{stem}Chronic_mask.nii.gz": 0 * lesion,
    }
    for path, array in volumes.items():
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(head.spacing[::-1])
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(image, str(root / path))
    return root


def link_soop(soop, root, numbers, *, masks=True):
    """Give the head to many patients."""
    for path in [
        path for path in soop.rglob("*.nii.gz") if masks or "derivatives" not in path.parts
    ]:
        for number in numbers:
            name = str(path.relative_to(soop)).replace("sub-1", f"sub-{number}")
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            os.link(path, root / name)


def test_ten_patients_of_soop_are_the_real_cohort(shelf, head, soop):
    link_soop(soop, shelf / "soop", range(3, 73, 7))
    found = find_cohort()
    assert found.name == "SOOP" and not found.synthetic
    assert [case.subject_id for case in found.cases] == [f"sub-{n}" for n in range(3, 73, 7)]
    for case in found.cases:
        assert "rec-TRACE" in case.dwi.name and "lesionAcute" in case.lesion.name
    loaded = load_case(found.cases[0], spacing=SPACING)
    assert loaded.lesion.sum() == head.lesion.sum()
    # A larger cohort beside it does not take its place, and fewer than ten do not take another's.
    write_scans(shelf / "isles2022", 11)
    assert find_cohort().name == "SOOP"
    assert [(c.name, len(c.cases)) for c in find_real_cohorts()] == [
        ("ISLES 2022", 11),
        ("SOOP", 10),
    ]
    shutil.rmtree(shelf / "soop" / "sub-3")
    shutil.rmtree(shelf / "soop" / "derivatives" / "lesion_masks" / "sub-3")
    assert find_cohort().name == "ISLES 2022"


def test_nine_patients_of_soop_are_too_few(shelf, soop):
    link_soop(soop, shelf / "soop", range(9))
    assert find_cohort().synthetic
    assert [(c.name, len(c.cases)) for c in find_real_cohorts()] == [("SOOP", 9)]
    assert find_cohort(min_cases=9).name == "SOOP"


def test_soop_without_masks_is_not_judged_on(shelf, soop):
    link_soop(soop, shelf / "soop", range(10), masks=False)
    with pytest.warns(UserWarning, match="soop is not used: 10 scans .* no lesion mask"):
        assert find_cohort().synthetic


def test_scans_without_a_mask_are_not_judged_on_and_it_is_said(shelf):
    write_scans(shelf / "isles2022", 4, masks=False)
    with pytest.warns(UserWarning, match="isles2022 is not used: 4 scans .* no lesion mask"):
        assert find_real_cohorts() == []
    with pytest.warns(UserWarning, match="isles2022 is not used"):
        assert find_cohort(min_cases=1).synthetic


def turn_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


SIMULATED = "{}/sub-phantom0001/ses-0001/sub-phantom0001_ses-0001_{}.nii.gz"
SCAN, MASK = SIMULATED.format("rawdata", "dwi"), SIMULATED.format("derivatives", "msk")


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """A synthetic cohort of one patient."""
    root = tmp_path_factory.mktemp("simulated") / "phantom"
    write_cohort(root, 1)
    return root


@pytest.fixture
def phantom_shelf(simulated, tmp_path, monkeypatch):
    """A data folder with a cohort in it."""
    for variable in ("VAE_BOOK_DATA", "VAE_BOOK_OUTPUT"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(data, "_BOOK_DATA", tmp_path / "data")
    shutil.copytree(simulated, tmp_path / "data" / "phantom")
    return tmp_path / "data" / "phantom"


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        (SCAN, "empty"),
        (SCAN, "half of it"),
        (SCAN, "a bit turned"),
        (SCAN, "a folder"),
        (MASK, "zeros"),
        (MASK, "a text"),
        ("manifest.json", "empty"),
        ("manifest.json", "half of it"),
        ("manifest.json", "a folder"),
    ],
)
def test_a_damaged_file_of_the_synthetic_cohort_is_simulated_anew(
    simulated, phantom_shelf, name, damage
):
    DAMAGE[damage](phantom_shelf / name)
    with pytest.warns(UserWarning, match="it is made anew") as told:
        found = find_cohort(n_synthetic=1, min_cases=1)
    assert [str(w.message).split(": ")[0] for w in told] == [str(phantom_shelf / name)]
    assert files(phantom_shelf) == files(simulated)  # the same, to the byte
    assert find_cohort(n_synthetic=1, min_cases=1).cases == found.cases


def test_what_another_notebook_is_writing_is_left_alone(simulated, phantom_shelf):
    half = phantom_shelf / SCAN
    half = half.with_name(f"._123_{half.name}")
    half.write_bytes((phantom_shelf / SCAN).read_bytes()[:1000])
    find_cohort(n_synthetic=1, min_cases=1)
    assert half.stat().st_size == 1000


def test_a_shared_cohort_that_cannot_be_mended_is_replaced_by_one_s_own(
    phantom_shelf, tmp_path, monkeypatch
):
    shared = tmp_path / "shared"
    shutil.copytree(phantom_shelf, shared / "phantom")
    (shared / "phantom" / SCAN).write_bytes(b"")
    monkeypatch.setenv("VAE_BOOK_DATA", str(shared))
    unlink = cohort.Path.unlink

    def read_only(path, **settings):
        if shared in path.parents:
            raise PermissionError(13, "Permission denied", str(path))
        unlink(path, **settings)

    monkeypatch.setattr(cohort.Path, "unlink", read_only)
    with pytest.warns(UserWarning, match=f"^{shared / 'phantom'}: cannot be made whole .* is used"):
        found = find_cohort(n_synthetic=1, min_cases=1)
    assert found.cases[0].dwi == phantom_shelf / SCAN
    monkeypatch.delenv("VAE_BOOK_DATA")
    (phantom_shelf / SCAN).write_bytes(b"")
    monkeypatch.setattr(cohort.Path, "unlink", lambda path, **_: read_only(shared / path.name))
    with pytest.raises(PermissionError, match="Permission denied"):  # one's own
        find_cohort(n_synthetic=1, min_cases=1)


def test_a_data_set_that_is_empty_is_named_with_the_cure(shelf):
    (shelf / "isles2022").mkdir()
    with pytest.raises(FileNotFoundError, match="isles2022: expected ISLES scans") as error:
        find_cohort()
    assert "python -m tools.download isles2022, or take the folder away" in error.value.__notes__[0]


def write_slices(shelf, **changed):
    """A file of real slices as `tools.download` makes it: three brains of 100 × 90 mm."""
    rows, columns = np.mgrid[:100, :91]
    brain = ((rows - 50) / 48) ** 2 + ((columns - 45) / 42) ** 2 < 1
    image = np.random.default_rng(0).integers(60, 90, (3, 100, 91)) * brain
    lesion = np.zeros((3, 100, 91), "uint8")
    lesion[1, 40:60, 20:40] = 1
    image[1, 40:60, 20:40] = 200
    arrays = {
        "image": image.astype("uint8"),
        "lesion": lesion,
        "subject_id": np.array(["sub-1", "sub-2", "sub-3"]),
        **changed,
    }
    (shelf / "soop_flair").mkdir()
    path = shelf / "soop_flair" / "axial_slices.npz"
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def test_real_slices_are_patients_like_others(shelf, kept):
    assert find_slices() is None
    write_slices(shelf)
    cohort = find_slices()
    assert not cohort.synthetic and [c.subject_id for c in cohort.cases] == [
        "sub-1",
        "sub-2",
        "sub-3",
    ]
    patches = load_patches(cohort.cases)
    described = load_descriptors(cohort.cases, midline=cohort.midline)
    np.testing.assert_array_equal(described.lesion_fraction, patches.lesion_fraction)
    np.testing.assert_array_equal(described.locations, patches.locations)
    assert set(patches.subject_ids[patches.lesion_fraction > 0]) == {"sub-2"}
    assert patches.subject_ids[described.around.argmax()] == "sub-2"
    # Every patch has its mirror patch: as many whole ones on either side of the midline.
    columns = cohort.cases[0].dwi.shape[2]
    assert columns % 56 == 0 and cohort.midline.offset == (columns - 1) / 2
    air = cohort.cases[0].dwi[0].max(axis=0) > 0
    assert abs(np.flatnonzero(air).mean() - cohort.midline.offset) <= 1


def test_cohorts_of_a_page_are_named_as_its_tables_name_them(shelf):
    assert list(find_cohorts()) == ["synthetic"]
    write_slices(shelf)
    write_scans(shelf / "isles2022", 10)
    cohorts = find_cohorts()
    assert list(cohorts) == ["ISLES 2022", "real FLAIR"]
    assert [len(cohort.cases) for cohort in cohorts.values()] == [10, 3]


def test_what_is_known_of_a_cohort_is_in_one_order(shelf, kept):
    write_slices(shelf)
    cohort = find_slices()
    known = load_known(cohort)
    patches = load_patches(cohort.cases)
    np.testing.assert_array_equal(known.images, patches.patches)
    np.testing.assert_array_equal(known.patients, patches.subject_ids)
    np.testing.assert_array_equal(known.described.locations, patches.locations)
    np.testing.assert_array_equal(known.described.lesion_fraction, known.lesion)
    any_lesion, much = known.targets.values()
    np.testing.assert_array_equal(any_lesion, known.lesion > 0)
    np.testing.assert_array_equal(much, known.lesion > 0.25)
    assert set(known.patients[any_lesion]) == {"sub-2"}


def test_slices_are_described_once(shelf, kept, monkeypatch):
    write_slices(shelf)
    found = find_slices()
    first = load_descriptors(found.cases, midline=found.midline)
    monkeypatch.setattr(cohort, "map_cases", None)  # nothing is computed
    again = load_descriptors(found.cases, midline=found.midline)
    np.testing.assert_array_equal(first.quantiles, again.quantiles)


def test_both_sides_are_those_of_the_scan_and_computed_once(tmp_path, kept, monkeypatch):
    (case,) = write_scans(tmp_path, 1, size=(56, 64, 3))
    sides = load_sides(case)
    scan = load_scan(case)
    midline = find_midline(scan.dwi, scan.brain, scan.spacing)
    np.testing.assert_array_equal(sides, both_sides(scan, wide=True, midline=midline))
    monkeypatch.setattr(cohort, "load_scan", None)  # nothing is computed
    np.testing.assert_array_equal(load_sides(case), sides)
    with pytest.raises(TypeError):  # with another mirror they are others
        load_sides(case, Midline((0.0, 0.0, 1.0), 20.0, SPACING))


def test_the_midline_of_a_case_is_found_once(tmp_path, kept, monkeypatch):
    (case,) = write_scans(tmp_path, 1, size=(56, 64, 3))
    load_descriptors([case])
    monkeypatch.setattr("helpers.mirror_vae.find_midline", None)  # not in the coarse pixels again
    load_sides(case)
    kinds = [path.name.split("-")[0] for path in kept.iterdir()]
    assert sorted(kinds) == ["_both_sides", "_describe_case", "find_midline"]


def test_both_sides_of_a_slice_have_the_mirror_of_its_cohort(shelf, kept):
    write_slices(shelf)
    found = find_slices()
    scan, given = found.cases[0], {"wide": True, "even": False, "midline": found.midline}
    sides = load_sides(scan, found.midline)
    np.testing.assert_array_equal(sides, both_sides(scan, **given))
    assert not np.array_equal(sides, load_sides(scan))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"lesion": None}, "lesion is not a file"),
        (
            {"lesion": np.full((3, 100, 91), 2, "uint8")},
            r"lesion must hold 0 and 1 only, found \[2",
        ),
        ({"lesion": np.full((3, 100, 91), np.nan)}, r"lesion must hold 0 and 1 only, found \[nan"),
        (
            {"image": np.zeros((0, 9, 9)), "lesion": np.zeros((0, 9, 9)), "subject_id": []},
            "or more",
        ),
        ({"subject_id": np.array(["sub-1"])}, r"subject_id \(1,\)"),
        ({"image": np.full((3, 100, 91), "a")}, "image must hold real numbers, found dtype"),
        ({"image": np.zeros((3, 100, 80), "uint8")}, r"image \(3, 100, 80\)"),
    ],
)
def test_a_file_of_slices_that_is_something_else_is_named_with_the_cure(shelf, changed, message):
    write_slices(shelf, **changed)
    with pytest.raises(ValueError, match=message) as caught:
        find_slices()
    assert "axial_slices.npz" in str(caught.value) and "soop-slices" in str(caught.value)


@pytest.mark.parametrize("kept_share", [0, 0.5, 0.99])
def test_a_file_of_slices_that_was_cut_is_named_with_the_cure(shelf, kept_share):
    path = write_slices(shelf)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept_share * len(content))])
    with pytest.raises(ValueError, match="soop-slices"):
        find_slices()


def test_patches_keep_their_patient_and_their_lesion(tmp_path, kept):
    cases = write_scans(tmp_path, 3)
    patches = load_patches(cases)
    assert len(patches) == 3 * 3 * 4
    assert patches.subject_ids.tolist() == [c.subject_id for c in cases for _ in range(12)]
    assert patches.lesion_fraction.sum() * 784 == pytest.approx(3 * 70)
    assert patches.patches.min() == 0 and patches.patches.max() == 1


def test_every_scan_is_brought_to_one_voxel_size(tmp_path, kept):
    (case,) = write_scans(tmp_path, 1, size=(28, 28, 15), spacing=(2.0, 2.0, 1.0))
    assert load_case(case, spacing=cohort.SPACING).dwi.shape == (3, 56, 56)
    assert len(load_patches([case])) == 3 * 4
    assert load_descriptors([case]).locations.tolist() == load_patches([case]).locations.tolist()


def test_patches_of_air_are_left_out(tmp_path, kept):
    (case,) = write_scans(tmp_path, 1)
    image = sitk.ReadImage(str(case.dwi))
    array = sitk.GetArrayFromImage(image)
    array[:, :, 28:] = 0
    array[:, :, 28:33] = 1  # under a quarter of a patch
    emptied = sitk.GetImageFromArray(array)
    emptied.CopyInformation(image)
    sitk.WriteImage(emptied, str(case.dwi))
    assert set(load_patches([case]).locations[:, 2]) == {0}
    assert set(load_patches([case], min_brain_fraction=0.1).locations[:, 2]) == {0, 28}
    assert set(load_patches([case], min_brain_fraction=5 / 28).locations[:, 2]) == {0, 28}


def test_air_around_a_brain_does_not_change_its_intensities(tmp_path, kept):
    (case,) = write_scans(tmp_path, 1)
    scan = load_case(case)
    margins = ((0, 0), (28, 28), (28, 28))
    padded = {name: np.pad(getattr(scan, name), margins) for name in ("dwi", "lesion", "brain")}
    in_air, alone = brain_patches(replace(scan, **padded)), brain_patches(scan)
    np.testing.assert_array_equal(in_air.patches, alone.patches)
    np.testing.assert_array_equal(alone.patches, load_patches([case]).patches)


def test_a_skull_around_a_brain_is_in_no_patch_and_no_descriptor():
    with_skull, alone = (simulate_case(0, skull=skull) for skull in (True, False))
    cut, described = brain_patches(with_skull), describe(with_skull)
    for name in ("patches", "locations", "lesion_fraction"):
        np.testing.assert_array_equal(getattr(cut, name), getattr(brain_patches(alone), name))
    for field in fields(described):
        expected = getattr(describe(alone), field.name)
        np.testing.assert_array_equal(getattr(described, field.name), expected)


def test_lesion_in_patches_that_are_left_out_is_counted(tmp_path, kept):
    (case,) = write_scans(tmp_path, 1, size=(60, 56, 3))
    image = sitk.ReadImage(str(case.dwi))
    array = sitk.GetArrayFromImage(image)
    array[:, :, :28] = 0
    array[:, :, :5] = 1  # under a quarter of the patches that hold the lesion
    emptied = sitk.GetImageFromArray(array)
    emptied.CopyInformation(image)
    sitk.WriteImage(emptied, str(case.dwi))
    for size in ((28, 28), (14, 28)):
        patches = load_patches([case], size)
        assert (patches.lesion_fraction == 0).all()
        assert patches.dropped_lesion_voxels == 70
        assert patches.dropped_brain_voxels == 3 * 56 * (5 + 4)  # the rim, and the dropped margin
    assert load_patches([case], min_brain_fraction=0.1).dropped_lesion_voxels == 0


def test_patches_of_a_cohort_are_those_of_its_scans(tmp_path, kept):
    cases = write_scans(tmp_path, 3)
    together = load_patches(cases, (20, 14), min_brain_fraction=0.5)
    alone = [
        brain_patches(load_case(case, spacing=cohort.SPACING), (20, 14), min_brain_fraction=0.5)
        for case in cases
    ]
    for name in ("patches", "locations", "lesion_fraction", "brain_fraction", "subject_ids"):
        expected = np.concatenate([getattr(patches, name) for patches in alone])
        np.testing.assert_array_equal(getattr(together, name), expected)
    for fraction, dropped, each in (
        (together.lesion_fraction, together.dropped_lesion_voxels, 70),
        (together.brain_fraction, together.dropped_brain_voxels, 3 * 56 * 56),
    ):
        assert fraction.sum() * 20 * 14 + dropped == pytest.approx(3 * each)  # none is lost
    assert together.dropped_lesion_voxels == sum(p.dropped_lesion_voxels for p in alone)
    assert together.dropped_brain_voxels == sum(p.dropped_brain_voxels for p in alone) > 0


def test_patches_are_kept_by_settings_and_content(tmp_path, kept):
    (case,) = write_scans(tmp_path, 1)
    first = load_patches([case])
    moved = replace(case, dwi=case.dwi.rename(tmp_path / "moved.nii.gz"))
    np.testing.assert_array_equal(load_patches([moved]).patches, first.patches)
    assert load_patches([moved]).dropped_lesion_voxels == first.dropped_lesion_voxels
    assert len(list(kept.iterdir())) == 1
    assert load_patches([moved], (14, 14)).patches.shape[1:] == (14, 14)
    assert len(load_patches([moved], min_brain_fraction=0.0)) == 12
    assert len(list(kept.iterdir())) == 3

    image = sitk.ReadImage(str(moved.dwi))
    turned = sitk.GetImageFromArray(sitk.GetArrayFromImage(image)[:, ::-1])
    turned.CopyInformation(image)
    sitk.WriteImage(turned, str(moved.dwi))
    assert not np.allclose(load_patches([moved]).patches, first.patches)


def save_another(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "half of it": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "a bit turned": turn_a_bit,
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"more"),
    "a text": lambda path: path.write_text("<<<<<<< HEAD"),
    "another array": save_another,
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "missing": lambda path: path.unlink(),
}
each_damage = pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)


@pytest.mark.parametrize("damage", ["empty", "half of it", "zeros", "a bit turned"])
def test_no_patient_is_blamed_for_a_damaged_result(tmp_path, kept, damage):
    cases = write_scans(tmp_path, 3)
    whole = load_patches(cases)
    (of_one, *_) = sorted(kept.iterdir())
    DAMAGE[damage](of_one)
    with pytest.warns(UserWarning, match="expected a kept result") as told:
        again = load_patches(cases)
    assert [str(w.message).startswith(f"{of_one}: ") for w in told] == [True]
    assert_same_patches(again, whole)
    assert_same_patches(load_patches(cases), whole)  # without a word


@pytest.mark.parametrize("load", [load_patches, load_descriptors])
def test_what_was_cut_is_not_thrown_away_because_it_cannot_be_kept(tmp_path, kept, load):
    cases = write_scans(tmp_path, 3)
    kept.parent.mkdir()
    kept.write_text("a file in the place of the folder")
    with pytest.warns(UserWarning, match="cannot be kept there") as told:
        found = load(cases)
    assert len(told) == 1  # for all patients together
    assert list(dict.fromkeys(found.subject_ids)) == [case.subject_id for case in cases]


# -- descriptors of a cohort -----------------------------------------------------------------------


def test_descriptors_are_of_the_same_patches_in_the_same_order(tmp_path, kept):
    cases = write_scans(tmp_path, 3)
    for chosen in (cases, cases[::-1]):
        described, patches = load_descriptors(chosen), load_patches(chosen)
        for name in ("locations", "lesion_fraction", "brain_fraction", "subject_ids"):
            np.testing.assert_array_equal(getattr(described, name), getattr(patches, name))
    kinds = sorted(path.name.split("-")[0] for path in kept.iterdir())
    one_each = ["_cut_case", "_describe_case", "find_midline"]  # in whatever order they came
    assert kinds == sorted(3 * one_each)


def test_descriptors_are_kept_by_patient_and_content(tmp_path, kept):
    (case,) = write_scans(tmp_path, 1)
    first = load_descriptors([case])
    moved = replace(case, dwi=case.dwi.rename(tmp_path / "moved.nii.gz"))
    np.testing.assert_array_equal(load_descriptors([moved]).quantiles, first.quantiles)
    kinds = {path.name.split("-")[0] for path in kept.iterdir()}
    assert kinds == {"_describe_case", "find_midline"} and len(list(kept.iterdir())) == 2

    renamed = load_descriptors([replace(moved, subject_id="somebody else")])
    assert set(renamed.subject_ids) == {"somebody else"}
    assert np.isnan(load_descriptors([replace(moved, lesion=None)]).lesion_fraction).all()

    louder = moved.dwi.with_name("louder.nii.gz")
    sitk.WriteImage(sitk.ReadImage(str(moved.dwi)) + 500, str(louder))
    assert not np.allclose(
        load_descriptors([replace(moved, dwi=louder)]).quantiles, first.quantiles
    )

    image = sitk.ReadImage(str(case.lesion))
    emptied = sitk.GetImageFromArray(0 * sitk.GetArrayFromImage(image))
    emptied.CopyInformation(image)
    sitk.WriteImage(emptied, str(case.lesion))
    assert first.lesion_fraction.any() and not load_descriptors([moved]).lesion_fraction.any()


def test_a_cluster_describes_too(tmp_path, kept):
    cases = write_scans(tmp_path, 2)
    with (
        distributed.Client(processes=False, dashboard_address=":0") as client,
        distributed.get_task_stream(client) as tasks,
    ):
        there = load_descriptors(cases, client=client)
    assert len(tasks.data) == 2
    np.testing.assert_array_equal(there.quantiles, load_descriptors(cases).quantiles)


def test_a_cluster_scores_every_patient_as_this_machine_does_to_the_last_bit(tmp_path, client):
    cases = write_cohort(tmp_path, 3)

    def score(case):
        return describe(load_case(case, spacing=cohort.SPACING))

    here = map_cases(score, cases)
    with distributed.get_task_stream(client) as tasks:
        there = map_cases(score, cases, client=client)
    assert len(tasks.data) == len(cases)  # done there, and not here
    for case, ours, theirs in zip(cases, here, there, strict=True):
        assert set(theirs.subject_ids) == {case.subject_id}
        for field in fields(ours):
            np.testing.assert_array_equal(getattr(ours, field.name), getattr(theirs, field.name))


# -- shards: whole or not at all, kept as long as they are true, on one machine or several ---------


@pytest.fixture
def cases(tmp_path):
    return write_scans(tmp_path / "scans", 4)


def files(folder):
    """Every file beneath a folder, with its content."""
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def written_at(folder):
    return {shard.name: (shard / "patches.npy").stat().st_mtime_ns for shard in find_shards(folder)}


def cut(cases, patch_size=(28, 28), **settings):
    """The same patches, without shards."""
    scans = (load_case(case, spacing=SPACING) for case in cases)
    return PatchSet.concatenate([brain_patches(scan, patch_size, **settings) for scan in scans])


def assert_same_patches(left, right):
    for field in fields(PatchSet):
        np.testing.assert_array_equal(getattr(left, field.name), getattr(right, field.name))


def test_shards_hold_what_fits_into_memory_too(cases, tmp_path):
    folder = tmp_path / "not yet there" / "shards"
    written = write_shards(cases, folder)
    assert written == find_shards(folder)
    assert_same_patches(PatchSet.concatenate(map(read_shard, written)), cut(cases))


def test_a_shard_is_plain_numpy_files_that_are_mapped_and_not_read(cases, tmp_path):
    (shard,) = write_shards(cases[:1], tmp_path / "shards")
    patches = read_shard(shard)
    assert isinstance(patches.patches, np.memmap) and not patches.patches.flags.writeable
    np.testing.assert_array_equal(np.load(shard / "patches.npy"), patches.patches)
    assert type(patches.dropped_lesion_voxels) is type(patches.dropped_brain_voxels) is int


def test_a_folder_without_shards_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}: expected shards, found none"):
        find_shards(tmp_path)


def test_scans_of_another_voxel_size_are_cut_as_load_patches_cuts_them(tmp_path):
    cases = write_scans(tmp_path / "scans", 1, size=(28, 28, 15), spacing=(2.0, 2.0, 1.0))
    (shard,) = write_shards(cases, tmp_path / "shards")
    assert_same_patches(read_shard(shard), cut(cases))


def test_what_was_cut_is_kept_and_only_a_changed_scan_is_cut_anew(cases, tmp_path):
    folder = tmp_path / "shards"
    write_shards(cases[:2], folder)
    first = written_at(folder)
    write_shards(cases, folder)
    second = written_at(folder)
    assert len(second) == 4 and second.items() >= first.items()

    cases[0].dwi.write_bytes(cases[3].dwi.read_bytes())
    write_shards(cases, folder)
    third = written_at(folder)
    assert [name for name in third if third[name] != second[name]] == [cases[0].subject_id]
    assert_same_patches(read_shard(folder / cases[0].subject_id), cut(cases[:1]))


def test_another_mask_cuts_anew(cases, tmp_path):
    (shard,) = write_shards(cases[:1], tmp_path / "shards")
    assert read_shard(shard).lesion_fraction.any()
    image = sitk.ReadImage(str(cases[0].lesion))
    sitk.WriteImage(image * 0, str(cases[0].lesion))
    write_shards(cases[:1], tmp_path / "shards")
    assert not read_shard(shard).lesion_fraction.any()


@pytest.mark.parametrize("other", [False, True], ids=["the same", "another"])
def test_who_is_second_keeps_the_same_shard_and_tells_of_another(
    cases, tmp_path, monkeypatch, other
):
    replace = os.replace

    def second(source, target):
        shutil.copytree(source, target)  # by somebody who is quicker
        if other:
            (target / "fingerprint.txt").write_text("of other settings")
        replace(source, target)

    monkeypatch.setattr(cohort.os, "replace", second)
    settings = {"patch_size": (28, 28), "min_brain_fraction": 0.25}
    if other:
        with pytest.raises(OSError, match=cases[0].subject_id):
            cohort._write_shard(tmp_path, settings, cases[0])
    else:
        shard = cohort._write_shard(tmp_path, settings, cases[0])
        assert_same_patches(read_shard(shard), cut(cases[:1]))
        assert list(tmp_path.glob("*sub-*")) == [shard]  # nothing of the second is left


@pytest.mark.parametrize("settings", [{"patch_size": (14, 28)}, {"min_brain_fraction": 1.0}])
def test_other_settings_cut_everything_anew(cases, tmp_path, settings):
    folder = tmp_path / "shards"
    write_shards(cases, folder)
    first = written_at(folder)
    written = write_shards(cases, folder, **settings)
    assert not written_at(folder).items() & first.items()
    assert_same_patches(PatchSet.concatenate(map(read_shard, written)), cut(cases, **settings))


def test_a_change_in_the_code_that_cuts_cuts_everything_anew(cases, tmp_path, monkeypatch):
    write_shards(cases, tmp_path / "shards")
    first = written_at(tmp_path / "shards")
    edited = tmp_path / "scans.py"
    edited.write_text("# another scans.py")
    monkeypatch.setattr(cohort, "_CUTTERS", [edited])
    # In this process, because others would not see the change.
    for case in cases:
        settings = {"patch_size": (28, 28), "min_brain_fraction": 0.25}
        cohort._write_shard(tmp_path / "shards", settings, case)
    assert not written_at(tmp_path / "shards").items() & first.items()


@pytest.mark.parametrize(
    "name", ["patches.npy", "locations.npy", "dropped_lesion_voxels.npy", "fingerprint.txt"]
)
@each_damage
def test_a_damaged_shard_is_told_of_once_and_cut_anew(cases, tmp_path, name, damage):
    with parallel_config(backend="threading"):
        shards = write_shards(cases[:2], tmp_path / "shards")
        whole = files(tmp_path / "shards")
        damage(shards[0] / name)
        with pytest.warns(UserWarning, match="found a damaged one; it is cut anew") as told:
            assert write_shards(cases[:2], tmp_path / "shards") == shards
        assert len(told) == 1 and str(told[0].message).startswith(f"{shards[0]}: ")
        assert files(tmp_path / "shards") == whole
        write_shards(cases[:2], tmp_path / "shards")  # without a word


@pytest.mark.parametrize("name", ["patches.npy", "subject_ids.npy", "dropped_brain_voxels.npy"])
@pytest.mark.parametrize("damage", sorted({*DAMAGE} - {"a bit turned", "missing", "longer"}))
def test_a_shard_that_cannot_be_opened_is_named_with_the_cure(cases, tmp_path, name, damage):
    (shard,) = write_shards(cases[:1], tmp_path / "shards")
    DAMAGE[damage](shard / name)
    with pytest.raises(ValueError, match=f"^{shard}.* expected .*; write_shards makes it anew$"):
        read_shard(shard)


def test_an_array_with_something_behind_it_is_no_array_of_a_shard(cases, tmp_path):
    (shard,) = write_shards(cases[:1], tmp_path / "shards")
    DAMAGE["longer"](shard / "patches.npy")
    size = (shard / "patches.npy").stat().st_size
    with pytest.raises(
        ValueError, match=f"patches.npy: .* found {size} bytes in place of {size - 4};"
    ):
        read_shard(shard)


def test_no_shard_is_left_out_in_silence(cases, tmp_path):
    first, second = write_shards(cases[:2], tmp_path / "shards")
    (second / "fingerprint.txt").unlink()
    (tmp_path / "shards" / "notes").mkdir()  # somebody's own, and no shard
    with pytest.warns(UserWarning, match=f"^{second}: .* left out, and write_shards makes it anew"):
        assert find_shards(tmp_path / "shards") == [first]
    (first / "fingerprint.txt").unlink()
    with (
        pytest.warns(UserWarning, match="is left out"),
        pytest.raises(FileNotFoundError, match="expected shards, found none"),
    ):
        find_shards(tmp_path / "shards")


@pytest.mark.parametrize("inside", ["scan.nii.gz", "ses-0001", "patches.npy.bak"])
def test_what_is_no_shard_is_not_replaced_by_one(cases, tmp_path, inside):
    folder = tmp_path / "scans of their own" / cases[0].subject_id
    (folder / inside).mkdir(parents=True)
    with pytest.raises(ExceptionGroup, match=f"{folder}: expected a shard .* found {inside}"):
        write_shards(cases[:1], folder.parent)
    assert list(folder.parent.rglob("*")) == [folder, folder / inside]


def put_notes(path):
    path.unlink()
    path.mkdir()
    (path / "notes").write_text("somebody's")


def put_a_pipe(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("name", ["patches.npy", "dropped_brain_voxels.npy", "fingerprint.txt"])
@pytest.mark.parametrize("put", [put_notes, put_a_pipe])
def test_what_has_the_name_of_a_file_of_a_shard_and_is_none_is_left_there(
    cases, tmp_path, name, put
):
    folder = tmp_path / "shards"
    (shard,) = write_shards(cases[:1], folder)
    put(shard / name)
    before = sorted(folder.rglob("*"))
    told = f"{shard}: expected a shard .* found {name}, which is no file"
    with pytest.raises(ExceptionGroup, match=told):
        write_shards(cases[:1], folder)
    assert sorted(folder.rglob("*")) == before
    if name != "fingerprint.txt":
        with pytest.raises(ValueError, match=f"^{shard / name}: expected an array of a shard, fou"):
            read_shard(shard)


@pytest.mark.parametrize("damage", ["empty", "a bit turned", "missing"])
def test_a_damaged_shard_that_is_a_link_is_mended_where_it_leads(cases, tmp_path, damage):
    folder, disk = tmp_path / "shards", tmp_path / "larger disk"
    with parallel_config(backend="threading"):
        (shard,) = write_shards(cases[:1], folder)
        whole = files(folder)
        shutil.move(shard, disk / shard.name)
        shard.symlink_to(disk / shard.name)
        DAMAGE[damage](shard / "patches.npy")
        with pytest.warns(UserWarning, match=f"{shard}: .* found a damaged one; it is cut anew"):
            assert write_shards(cases[:1], folder) == [shard]
    assert shard.is_symlink() and files(disk) == whole
    assert list(disk.iterdir()) == [disk / shard.name] and list(folder.iterdir()) == [shard]


def test_a_link_to_nowhere_is_named(cases, tmp_path):
    (tmp_path / cases[0].subject_id).symlink_to(tmp_path / "a disk that is not there")
    with pytest.raises(ExceptionGroup, match=r"expected a shard .* found a link to nowhere"):
        write_shards(cases[:1], tmp_path)


def test_a_file_in_the_place_of_a_shard_is_somebody_s(cases, tmp_path):
    (tmp_path / cases[0].subject_id).write_text("notes on this patient")
    with pytest.raises(ExceptionGroup, match=r"expected a shard .* found a file"):
        write_shards(cases[:1], tmp_path)
    assert (tmp_path / cases[0].subject_id).read_text() == "notes on this patient"


def test_a_folder_that_takes_no_shards_is_named_and_no_patient_is(cases, tmp_path):
    (tmp_path / "shards").touch()
    with pytest.raises(FileExistsError, match=f"^{tmp_path / 'shards'}: nothing can be written"):
        write_shards(cases, tmp_path / "shards")


def test_a_disk_that_fills_up_leaves_no_part_of_a_shard(cases, tmp_path, monkeypatch):
    save, calls = np.save, []

    def full(path, array):
        calls.append(path)
        if len(calls) == 5:
            path.write_bytes(b"half a fi")
            raise OSError(28, "No space left on device")
        save(path, array)

    monkeypatch.setattr(cohort.np, "save", full)
    with (
        parallel_config(backend="threading"),
        pytest.raises(ExceptionGroup, match=r"(?s)1 of 1 patients .*No space left"),
    ):
        write_shards(cases[:1], tmp_path / "shards")
    assert list((tmp_path / "shards").iterdir()) == []


def test_a_scan_without_a_patch_of_brain_has_an_empty_shard(cases, tmp_path):
    (shard,) = write_shards(cases[:1], tmp_path / "shards", min_brain_fraction=1.1)
    assert len(read_shard(shard)) == 0 and read_shard(shard).dropped_lesion_voxels == 70


def test_a_scan_without_a_mask_has_shards_that_say_so(tmp_path):
    cases = write_scans(tmp_path / "scans", 1, masks=False)
    (shard,) = write_shards(cases, tmp_path / "shards")
    assert np.isnan(read_shard(shard).lesion_fraction).all()


def test_damaged_scans_are_named_and_cost_nobody_else_their_work(cases, tmp_path):
    whole = cases[1].dwi.read_bytes()
    cases[1].dwi.write_bytes(whole[:-100])
    missing = Case("sub-nobody", tmp_path / "nobody.nii.gz")
    with pytest.raises(ExceptionGroup) as caught:
        write_shards([missing, *cases], tmp_path / "shards")
    message = str(caught.value)
    assert message.startswith("2 of 5 patients failed")
    for damaged in (missing, cases[1]):
        (line,) = (line for line in message.splitlines() if line.startswith(damaged.subject_id))
        assert str(damaged.dwi) in line
    assert {type(error) for error in caught.value.exceptions} == {
        FileNotFoundError,
        VolumeReadError,
    }
    done = [shard.name for shard in find_shards(tmp_path / "shards")]
    assert done == [case.subject_id for case in (cases[0], *cases[2:])]

    before = written_at(tmp_path / "shards")
    cases[1].dwi.write_bytes(whole)
    assert len(write_shards(cases, tmp_path / "shards")) == 4
    assert written_at(tmp_path / "shards").items() >= before.items()


def test_a_process_killed_while_writing_leaves_whole_shards_only(cases, tmp_path):
    folder = tmp_path / "shards"
    script = f"""
import os, signal
import numpy as np
from helpers import cohort
from helpers.scans import find_cases

save, calls = np.save, []

def die_at_the_tenth_file(path, array):
    calls.append(path)
    if len(calls) == 10:
        path.write_bytes(b"half a fi")
        os.kill(os.getpid(), signal.SIGKILL)
    save(path, array)

np.save = die_at_the_tenth_file
os.mkdir({str(folder)!r})
settings = {{"patch_size": (28, 28), "min_brain_fraction": 0.25}}
for case in find_cases({str(tmp_path / "scans")!r}):
    cohort._write_shard(cohort.Path({str(folder)!r}), settings, case)
"""
    died = subprocess.run([sys.executable, "-c", script], check=False)
    assert died.returncode == -signal.SIGKILL
    assert [shard.name for shard in find_shards(folder)] == [cases[0].subject_id]
    assert len(list(folder.iterdir())) == 2  # a whole one, and what is left of the other

    first = written_at(folder)
    write_shards(cases, folder)
    assert written_at(folder).items() >= first.items()
    write_shards(cases, tmp_path / "at once")
    assert files(folder) == files(tmp_path / "at once")  # and nothing is left over


@pytest.mark.parametrize("name", ["", "..", "../escaped", "a/b", ".hidden"])
def test_a_name_that_is_no_folder_is_refused_before_anything_is_written(cases, tmp_path, name):
    with pytest.raises(ValueError, match="name a folder"):
        write_shards([replace(cases[0], subject_id=name)], tmp_path / "shards")
    assert not (tmp_path / "shards").exists()


def test_two_patients_of_one_name_are_refused(cases, tmp_path):
    first, second, third, _ = cases
    twice = f"found twice: {first.subject_id}, {second.subject_id}$"
    with pytest.raises(ValueError, match=twice):
        write_shards([second, first, third, first, second], tmp_path / "shards")
    assert not (tmp_path / "shards").exists()


def test_no_patient_at_all_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one patient"):
        write_shards([], tmp_path / "shards")


# --- on a cluster -----------------------------------------------------------------------------


def test_a_cluster_writes_the_same_bytes(cases, tmp_path, client):
    write_shards(cases, tmp_path / "here")
    with distributed.get_task_stream(client) as tasks:
        write_shards(cases, tmp_path / "there", client=client)
    assert len(tasks.data) == len(cases)  # done there, and not here
    assert files(tmp_path / "here") == files(tmp_path / "there")


def test_a_cluster_names_damaged_scans_and_does_the_others(cases, tmp_path, client):
    cases[2].dwi.write_bytes(b"a text, not a scan")
    with pytest.raises(ExceptionGroup, match=f"(?s)1 of 4 patients.*{cases[2].subject_id}: "):
        write_shards(cases, tmp_path / "shards", client=client)
    assert len(find_shards(tmp_path / "shards")) == 3


def test_a_worker_that_is_killed_loses_nothing(tmp_path, client):
    scans = write_cohort(tmp_path / "scans", n_cases=2)
    for number in range(3, 15):  # further names for the same files
        for case in scans[:1]:
            name = f"sub-phantom{number:04d}"
            for path in (case.dwi, case.lesion):
                link = str(path).replace(case.subject_id, name)
                os.makedirs(os.path.dirname(link))
                os.link(path, link)
    cases = find_cases(tmp_path / "scans")
    assert len(cases) == 14
    victim = psutil.Process(next(iter(client.run(os.getpid).values())))
    done_by_then = []

    def kill_in_the_middle():
        while not (done := list((tmp_path / "there").glob("[!.]*"))):
            time.sleep(0.005)
        victim.kill()
        victim.wait()
        done_by_then.extend(done)

    killer = threading.Thread(target=kill_in_the_middle)
    killer.start()
    written = write_shards(cases, tmp_path / "there", client=client)
    killer.join()
    assert 0 < len(done_by_then) < len(cases) - 2  # it was in the middle
    assert not victim.is_running()
    assert [shard.name for shard in written] == [case.subject_id for case in cases]
    write_shards(cases, tmp_path / "here")
    assert files(tmp_path / "there") == files(tmp_path / "here")
