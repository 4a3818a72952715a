"""Facts about brains in heads with their skulls on, simulated and real."""

import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from scipy.ndimage import binary_fill_holes
from scipy.spatial.transform import Rotation

from helpers.brain import fill_holes, find_brain
from helpers.phantom import SPACING, simulate_case
from helpers.scans import find_cases, load_case, load_volume

DATA = Path(os.environ.get("VAE_BOOK_DATA") or Path(__file__).parents[3] / "shared" / "data")


@cache
def phantom(seed):
    return simulate_case(seed, skull=True)


def real(name):
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is not there (VAE_BOOK_DATA names another data folder)")
    volume, geometry = load_volume(path)
    return volume, geometry.spacing


def dice(found, true):
    return 2 * np.sum(found & true) / (np.sum(found) + np.sum(true))


def turned(volume, spacing, axis, degrees, order=1):
    """Turn a volume about its centre, as a head turns in its coil."""
    turn = Rotation.from_rotvec(np.radians(degrees) * np.eye(3)[axis]).as_matrix()
    matrix = turn * spacing / np.reshape(spacing, (3, 1))
    centre = (np.array(volume.shape) - 1) / 2
    return ndimage.affine_transform(volume, matrix, centre - matrix @ centre, order=order)


def noisy(volume, share, seed=0):
    """Add Rician noise, as a share of what bright tissue has."""
    sigma = share * np.percentile(volume, 90)
    real, imaginary = np.random.default_rng(seed).normal(0, sigma, (2, *volume.shape))
    return np.hypot(volume + real, imaginary)


@pytest.mark.parametrize("seed", range(6))
def test_a_brain_is_found_in_its_head_with_all_of_the_infarct(seed):
    scan = phantom(seed)
    found = find_brain(scan.dwi, scan.spacing)
    assert found.dtype == bool and found.shape == scan.dwi.shape
    assert dice(found, scan.brain) >= 0.97
    assert found[scan.lesion].all()


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("degrees", [-20, 20])
def test_a_head_may_be_turned(axis, degrees):
    scan = phantom(0)
    head, brain = (
        turned(volume.astype(np.float32), SPACING, axis, degrees)
        for volume in (scan.dwi, scan.brain)
    )
    assert dice(find_brain(head, SPACING), brain > 0.5) >= 0.97


@pytest.mark.parametrize("thickness", [2.0, 3.5, 5.0, 6.5])
def test_slices_may_be_thin_or_thick(thickness):
    scan = phantom(1)
    factors = (5.0 / thickness, 0.5, 0.5)
    head, brain = (
        ndimage.zoom(volume.astype(np.float32), factors, order=1, mode="nearest", grid_mode=True)
        for volume in (scan.dwi, scan.brain)
    )
    found = find_brain(head, (thickness, 2.0, 2.0))
    assert dice(found, brain > 0.5) >= 0.97


@pytest.mark.parametrize("share", [0.05, 0.1, 0.15])
def test_a_noisy_scan(share):
    scan = phantom(2)
    assert dice(find_brain(noisy(scan.dwi, share), SPACING), scan.brain) >= 0.96


@pytest.mark.parametrize("axis", range(3))
def test_a_coil_that_sees_one_side_better(axis):
    scan = phantom(0)
    shape = np.ones(3, int)
    shape[axis] = -1
    coil = np.linspace(0.6, 1.4, scan.dwi.shape[axis]).reshape(shape)
    assert dice(find_brain(scan.dwi * coil, SPACING), scan.brain) >= 0.97


@pytest.mark.parametrize("scale", [1e-3, 1, 1e4])
def test_the_scanners_units_do_not_matter(scale):
    scan = phantom(0)
    np.testing.assert_array_equal(
        find_brain(scan.dwi * scale, SPACING), find_brain(scan.dwi, SPACING)
    )


def test_a_defaced_head_keeps_its_brain():
    scan = phantom(3)
    defaced = scan.dwi.copy()
    front = np.nonzero(scan.brain.any(axis=(0, 2)))[0].min()
    defaced[:, :front] = 0
    assert dice(find_brain(defaced, SPACING), scan.brain) >= 0.97


@pytest.mark.parametrize("brightness", [0.3, 0.6, 1.2])
def test_a_scalp_whose_fat_was_not_suppressed(brightness):
    scan = phantom(0)
    depth = ndimage.distance_transform_edt(~scan.brain, SPACING)
    fat = brightness * np.median(scan.dwi[scan.brain])
    head = np.where((depth > 7) & (depth < 13), fat, scan.dwi)
    assert dice(find_brain(head, SPACING), scan.brain) >= 0.97


def test_half_a_brain_of_infarct_stays_inside():
    scan = phantom(0)
    head, half = scan.dwi.copy(), scan.brain.copy()
    half[:, :, : head.shape[2] // 2] = False
    head[half] *= 2.5
    found = find_brain(head, SPACING)
    assert dice(found, scan.brain) >= 0.96
    assert found[half].mean() >= 0.98


@pytest.mark.parametrize("part", [np.s_[:20], np.s_[12:], np.s_[10:23], np.s_[16:17]])
def test_a_slab_is_cut_off_above_and_below_and_has_a_brain(part):
    scan = phantom(1)
    assert dice(find_brain(scan.dwi[part], SPACING), scan.brain[part]) >= 0.96


@pytest.mark.parametrize(
    "volume",
    [
        np.zeros((30, 100, 100)),
        np.full((30, 100, 100), -1.0),
        np.ones((30, 100, 100)),
        np.random.default_rng(0).rayleigh(1, (30, 200, 200)),
        np.random.default_rng(0).normal(100, 5, (30, 200, 200)),
        np.pad(np.ones((2, 8, 8)), ((14, 14), (46, 46), (46, 46))),
    ],
    ids=["nothing", "below zero", "one value", "noise", "noise on a level", "a bright button"],
)
def test_no_brain_is_an_error(volume):
    with pytest.raises(ValueError, match="volume must show a brain"):
        find_brain(volume, SPACING)


@pytest.mark.parametrize("spacing", [(5, 1), (5, 1, 0), (5, 1, -1), (5, 1, np.nan)])
def test_spacing_must_be_three_lengths(spacing):
    with pytest.raises(ValueError, match="spacing must be three positive lengths"):
        find_brain(np.ones((3, 4, 5)), spacing)


@pytest.mark.parametrize(
    "volume",
    [np.ones((4, 5)), np.ones((2, 3, 4, 5)), np.full((3, 4, 5), np.nan), np.ones((0, 1, 1))],
)
def test_a_volume_is_three_dimensional_and_finite(volume):
    with pytest.raises(ValueError, match=r"volume must be finite and of shape \(z, y, x\), found"):
        find_brain(volume, SPACING)


class TestRealHeads:
    def test_the_stroke_patient_of_soop(self):
        """The reference is loose: it takes in a rim of CSF and a part of the orbit."""
        head, spacing = real("soop/sub-3/dwi/sub-3_rec-TRACE_dwi.nii.gz")
        reference, _ = real("brain_masks/soop_sub-3_brain.nii.gz")
        infarct, _ = real(
            "soop/derivatives/lesion_masks/sub-3/dwi/sub-3_space-TRACE_desc-lesionAcute_mask.nii.gz"
        )
        found = find_brain(head, spacing)
        assert dice(found, reference > 0) >= 0.95
        assert found[infarct > 0].mean() >= 0.98

    @pytest.mark.parametrize("axis", range(3))
    @pytest.mark.parametrize("degrees", [-20, 20])
    def test_turned_it_is_the_same_brain(self, axis, degrees):
        head, spacing = real("soop/sub-3/dwi/sub-3_rec-TRACE_dwi.nii.gz")
        reference, _ = real("brain_masks/soop_sub-3_brain.nii.gz")
        infarct, _ = real(
            "soop/derivatives/lesion_masks/sub-3/dwi/sub-3_space-TRACE_desc-lesionAcute_mask.nii.gz"
        )
        head, brain, infarct = (
            turned(volume, spacing, axis, degrees) for volume in (head, reference, infarct)
        )
        found = find_brain(head, spacing)
        assert dice(found, brain > 0.5) >= 0.95
        assert found[infarct > 0.5].mean() >= 0.98

    @pytest.mark.parametrize("part", [np.s_[:10], np.s_[:12], np.s_[4:14], np.s_[20:]])
    def test_a_part_with_little_brain_has_that_of_the_whole_head(self, part):
        """From the chin, or at the crown, where more is scalp than brain."""
        head, spacing = real("soop/sub-3/dwi/sub-3_rec-TRACE_dwi.nii.gz")
        assert dice(find_brain(head[part], spacing), find_brain(head, spacing)[part]) >= 0.98

    def test_from_the_folders_a_reader_has(self):
        """Found as SOOP and as a folder of one, and of both the skull is seen and taken off."""
        real("soop/sub-3/dwi/sub-3_rec-TRACE_dwi.nii.gz")
        (patient,) = find_cases(DATA / "soop")
        assert patient.subject_id == "sub-3" and "TRACE" in patient.dwi.name
        scan = load_case(patient)
        assert 1000 < scan.brain.sum() * np.prod(scan.spacing) / 1000 < 1600
        assert scan.brain[scan.lesion].mean() >= 0.98
        (volunteer,) = find_cases(DATA / "no_lesion")
        scan = load_case(volunteer)
        assert scan.lesion is None
        assert 900 < scan.brain.sum() * np.prod(scan.spacing) / 1000 < 1150

    def test_the_volunteers_slab_from_the_basal_ganglia_to_the_vertex(self):
        head, spacing = real("no_lesion/sub-volunteer_dwi.nii.gz")
        found = find_brain(head, spacing)
        assert 900 < found.sum() * np.prod(spacing) / 1000 < 1150
        areas = found.sum(axis=(1, 2))
        assert areas.argmax() < 16 and areas[-1] > 0.4 * areas.max()  # narrower towards the vertex
        assert np.median(head[found]) > 5 * np.median(head[~found])

    def test_a_stripped_scan_keeps_its_brain_when_noise_fills_the_air(self):
        (path,) = (DATA / "isles2022").rglob("*_dwi.nii.gz") if DATA.exists() else [DATA]
        scan, spacing = real(path)
        brain = ndimage.binary_fill_holes(scan > 0)
        for head in (scan, noisy(scan, 0.1)):
            assert dice(find_brain(head, spacing), brain) >= 0.96


@pytest.mark.parametrize("shape", [(5, 6, 7), (1, 9, 9), (12, 13), (3, 1, 4)])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.8, 1.0])
def test_holes_are_filled_as_scipy_fills_them(shape, share):
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = rng.random(shape) < share
        before = mask.copy()
        np.testing.assert_array_equal(fill_holes(mask), binary_fill_holes(mask))
        assert (mask == before).all() and fill_holes(mask).dtype == bool
        for dtype in (np.uint8, int, np.float32):
            np.testing.assert_array_equal(fill_holes(mask.astype(dtype)), fill_holes(mask))


def test_holes_of_what_is_no_mask_are_not_filled():
    for odd in ([[2, 1]], [[0.5, 1.0]], [[np.nan, 1.0]], np.ma.masked_equal([[0, 1]], 0)):
        with pytest.raises(ValueError, match=r"^mask must hold"):
            fill_holes(odd)
