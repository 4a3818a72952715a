"""Which patients a chapter runs on."""

from dataclasses import fields, replace

import distributed
import numpy as np
import pytest
import SimpleITK as sitk
from joblib import parallel_config

from helpers import cohort, data
from helpers.cohort import (
    brain_patches,
    find_cohort,
    find_real_cohorts,
    load_descriptors,
    load_patches,
)
from helpers.descriptors import describe
from helpers.parallel import map_cases
from helpers.phantom import write_cohort
from helpers.scans import find_cases, load_case


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


def test_scans_without_a_mask_are_not_judged_on_and_it_is_said(shelf):
    write_scans(shelf / "isles2022", 4, masks=False)
    with pytest.warns(UserWarning, match="isles2022 is not used: 4 scans .* no lesion mask"):
        assert find_real_cohorts() == []
    with pytest.warns(UserWarning, match="isles2022 is not used"):
        assert find_cohort(min_cases=1).synthetic


def test_a_data_set_that_is_empty_is_named_with_the_cure(shelf):
    (shelf / "isles2022").mkdir()
    with pytest.raises(FileNotFoundError, match="isles2022: expected ISLES scans") as error:
        find_cohort()
    assert "python -m tools.download isles2022, or take the folder away" in error.value.__notes__[0]


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


# -- descriptors of a cohort -----------------------------------------------------------------------


def test_descriptors_are_of_the_same_patches_in_the_same_order(tmp_path, kept):
    cases = write_scans(tmp_path, 3)
    for chosen in (cases, cases[::-1]):
        described, patches = load_descriptors(chosen), load_patches(chosen)
        for name in ("locations", "lesion_fraction", "brain_fraction", "subject_ids"):
            np.testing.assert_array_equal(getattr(described, name), getattr(patches, name))
    kinds = sorted(path.name.split("-")[0] for path in kept.iterdir())
    assert kinds == ["_cut_case"] * 3 + ["_describe_case"] * 3  # the order is not what takes long


def test_descriptors_are_kept_by_patient_and_content(tmp_path, kept):
    (case,) = write_scans(tmp_path, 1)
    first = load_descriptors([case])
    moved = replace(case, dwi=case.dwi.rename(tmp_path / "moved.nii.gz"))
    np.testing.assert_array_equal(load_descriptors([moved]).quantiles, first.quantiles)
    assert len(list(kept.iterdir())) == 1

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
        distributed.Client(processes=False, dashboard_address=None) as client,
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
