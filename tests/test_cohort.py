"""Which patients a chapter runs on."""

import numpy as np
import pytest
import SimpleITK as sitk

from helpers import cohort
from helpers.cohort import find_cohort, find_real_cohorts, load_patches
from helpers.isles import find_cases, load_case


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


def test_without_data_the_synthetic_cohort_is_used_and_called_so(shelf):
    found = find_cohort(n_synthetic=5)
    assert found.synthetic and "synthetic" in found.name
    assert found.cases == [("simulated", shelf / "phantom", 5)]
    assert find_real_cohorts() == []


def test_the_largest_real_cohort_is_used_if_it_is_large_enough(shelf):
    write_scans(shelf / "isles2015", 3)
    write_scans(shelf / "isles2022", 4)
    assert [(c.name, len(c.cases)) for c in find_real_cohorts()] == [
        ("ISLES 2022", 4),
        ("ISLES 2015", 3),
    ]
    assert find_cohort(min_cases=4).name == "ISLES 2022"
    assert find_cohort(min_cases=5).synthetic


def test_scans_without_a_mask_are_not_judged_on(shelf):
    write_scans(shelf / "isles2022", 4, masks=False)
    assert find_real_cohorts() == [] and find_cohort(min_cases=1).synthetic


def test_patches_keep_their_patient_and_their_lesion(tmp_path):
    cases = write_scans(tmp_path, 3)
    patches = load_patches(cases)
    assert len(patches) == 3 * 3 * 4
    assert patches.subject_ids.tolist() == [c.subject_id for c in cases for _ in range(12)]
    assert patches.lesion_fraction.sum() * 784 == pytest.approx(3 * 70)
    assert patches.patches.min() == 0 and patches.patches.max() == 1


def test_every_scan_is_brought_to_one_voxel_size(tmp_path):
    (case,) = write_scans(tmp_path, 1, size=(28, 28, 15), spacing=(2.0, 2.0, 1.0))
    assert load_case(case, spacing=cohort.SPACING).dwi.shape == (3, 56, 56)
    assert len(load_patches([case])) == 3 * 4


def test_patches_of_air_are_left_out(tmp_path):
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


def test_lesion_in_patches_that_are_left_out_is_counted(tmp_path):
    (case,) = write_scans(tmp_path, 1, size=(60, 56, 3))
    image = sitk.ReadImage(str(case.dwi))
    array = sitk.GetArrayFromImage(image)
    array[:, :, :28] = 0
    array[:, :, :5] = 1  # under a quarter of the patches that hold the lesion
    emptied = sitk.GetImageFromArray(array)
    emptied.CopyInformation(image)
    sitk.WriteImage(emptied, str(case.dwi))
    patches = load_patches([case])
    assert (patches.lesion_fraction == 0).all()
    assert patches.dropped_lesion_voxels == 70
    assert patches.dropped_brain_voxels == 3 * 56 * (5 + 4)  # the rim, and the dropped margin
    assert load_patches([case], min_brain_fraction=0.1).dropped_lesion_voxels == 0
