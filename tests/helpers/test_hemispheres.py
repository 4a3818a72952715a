"""Facts about scale and symmetry."""

from dataclasses import fields, replace
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, map_coordinates

from helpers.cohort import brain_patches
from helpers.hemispheres import (
    SHARES,
    Descriptors,
    Midline,
    brightness_maps,
    describe,
    even_out,
    find_midline,
    gather,
    mirror,
    mirror_excess,
    patch_means,
    patch_quantiles,
    relative_to_mode,
    smooth_in_brain,
    unexplained_brightness,
)
from helpers.patches import extract_patches
from helpers.phantom import MARGIN, _draw_anatomy, _draw_stroke, simulate_case
from helpers.scans import Scan

ASIDE = Midline((0.0, 0.0, 1.0), 14.2, (5.0, 1.0, 1.0))  # of the brain below, a little
LARGEST_STROKE = np.random.SeedSequence(2015).spawn(28)[27]  # 350 ml
simulated = lru_cache(simulate_case)


@pytest.fixture
def brain():
    rows, columns = np.mgrid[-20:20, -15:15] + 0.5
    return ((rows / 18) ** 2 + (columns / 13) ** 2 < 1)[None]


def head(tilt=(0.0, 0.0), shift=(0.0, 0.0, 0.0)):
    """A head whose halves match, tilted and off centre: volume, brain and its true midline.

    Also how far to the left of the midline each voxel lies, in mm.
    """
    spacing = (5.0, 2.0, 2.0)
    places = np.moveaxis(np.indices((32, 100, 92)), 0, -1) * spacing
    centre = places.mean(axis=(0, 1, 2)) + shift
    normal = np.array([*tilt, 1]) / np.linalg.norm([*tilt, 1])
    backwards = np.cross(normal, (1, 0, 0)) / np.linalg.norm(np.cross(normal, (1, 0, 0)))
    axes = normal, backwards, np.cross(backwards, normal)
    left, back, up = ((places - centre) @ axis for axis in axes)
    brain = (left / 68) ** 2 + (back / 85) ** 2 + (up / 65) ** 2 < 1
    aside = np.abs(left)
    folds = 0.3 * np.cos(aside / 9 + back / 14) * np.cos(up / 11) + 0.2 * np.sin(back / 20)
    ventricles = np.exp(-(((aside - 12) / 6) ** 2) - (back / 30) ** 2 - (up / 20) ** 2)
    volume = 300 * (1 + folds - 0.7 * ventricles)
    return np.where(brain, volume, 0), brain, Midline(tuple(normal), centre @ normal, spacing), left


def apart(found, expected, brain):
    """Angle between two midlines in degrees, and their distance in mm amid the brain."""
    angle = np.degrees(np.arccos(np.clip(np.dot(found.normal, expected.normal), -1, 1)))
    centre = np.argwhere(brain).mean(axis=0) * found.spacing
    heights = [centre @ midline.normal - midline.offset for midline in (found, expected)]
    return angle, abs(heights[0] - heights[1])


# --- the mirror -------------------------------------------------------------------------------


@given(st.tuples(*[st.integers(1, 6)] * 3), st.integers(0, 9))
def test_mirroring_twice_is_the_identity(shape, seed):
    volume = np.random.default_rng(seed).random(shape)
    np.testing.assert_array_equal(mirror(mirror(volume)), volume)


@pytest.mark.parametrize("columns", [6, 7])
@pytest.mark.parametrize("spacing", [(5.0, 1.0, 1.0), (3.0, 2.0, 0.5)])
def test_a_midline_in_the_middle_of_the_columns_mirrors_exactly(columns, spacing):
    volume = np.random.default_rng(0).random((2, 5, columns))
    middle = Midline((0.0, 0.0, 1.0), (columns - 1) / 2 * spacing[2], spacing)
    np.testing.assert_allclose(mirror(volume, middle), mirror(volume), rtol=1e-6)


@pytest.mark.parametrize("offset", [-3.0, 0.0, 4.5, 6.0, 9.5, 20.0])
@pytest.mark.parametrize("outside", [0.0, -7.5])
def test_on_or_between_two_columns_nothing_is_interpolated(offset, outside):
    volume = np.random.default_rng(0).standard_normal((2, 5, 11)).astype(np.float32)
    exact = mirror(volume, Midline((0.0, 0.0, 1.0), offset, (5.0, 1.0, 1.0)), outside=outside)
    for column in range(11):
        other = round(2 * offset) - column
        shown = volume[..., other] if 0 <= other < 11 else outside
        np.testing.assert_array_equal(exact[..., column], shown)
    assert exact.dtype == np.float32


def test_a_point_appears_as_far_behind_the_mirror_as_it_stands_before_it():
    # The plane x = z, in voxels of 2 x 1 x 1 mm: what is 4 mm up and 2 mm left goes to 2 and 4.
    volume = np.zeros((4, 3, 7))
    volume[2, 1, 2] = 1
    midline = Midline((-(0.5**0.5), 0.0, 0.5**0.5), 0.0, (2.0, 1.0, 1.0))
    assert np.argwhere(mirror(volume, midline) > 0.99).tolist() == [[1, 1, 4]]


def test_mirroring_twice_in_a_tilted_midline_blurs_and_no_more():
    _, brain, midline, _ = head((0.15, -0.1), (2, -3, 4))
    z, y, x = np.indices(brain.shape)
    volume = np.sin(z / 4) + np.sin(y / 8) + np.sin(x / 8)  # waves of 100 mm and more
    twice = mirror(mirror(volume, midline), midline)
    there = mirror(mirror(np.ones(brain.shape), midline), midline) > 0.999
    assert there[brain].mean() > 0.99
    assert np.abs(twice - volume)[brain & there].max() < 0.05  # of waves 2 from crest to trough


def test_a_tilted_head_is_its_own_mirror_image():
    volume, brain, midline, _ = head((0.2, -0.1), (3, 5, -6))
    inside = brain & (mirror(brain, midline) > 0.999)
    assert inside.sum() > 0.9 * brain.sum()
    off = np.abs(mirror(volume, midline) - volume)[inside]
    upright = np.abs(mirror(volume) - volume)[inside]
    assert off.mean() < 5 < 30 < upright.mean()  # tissue has about 300


def test_between_voxels_the_mirror_interpolates_in_millimetres():
    volume = np.random.default_rng(0).normal(size=(9, 30, 40)).astype("float32")
    normal = np.array([0.1, -0.2, 1.0]) / np.linalg.norm([0.1, -0.2, 1.0])
    midline = Midline(tuple(normal), 21.0, (5.0, 1.5, 1.0))
    places = np.argwhere(np.ones(volume.shape, bool)) * midline.spacing
    behind = places - 2 * (places @ normal - midline.offset)[:, None] * normal
    voxels = (behind / midline.spacing).T
    expected = map_coordinates(volume, voxels, order=1, cval=-7)
    last = np.array(volume.shape)[:, None] - 1
    inside = ((voxels >= 0) & (voxels <= last)).all(axis=0)
    outside = ((voxels < -0.51) | (voxels > last + 0.51)).any(axis=0)
    found = mirror(volume, midline, outside=-7).ravel()
    assert inside.sum() > 1000 < outside.sum()
    np.testing.assert_allclose(found[inside], expected[inside], atol=1e-3)
    assert (found[outside] == -7).all()


def test_beyond_the_volume_the_mirror_shows_what_it_is_told():
    aside = Midline((0.0, 0.0, 1.0), 1.0, (5.0, 1.0, 1.0))  # column 1 of 5: 0 to 2 see each other
    shown = mirror(np.array([[[1, 2, 3, 4, 5]]]), aside, outside=-7)
    assert shown.tolist() == [[[3, 2, 1, -7, -7]]] and shown.dtype == np.float32


@given(st.tuples(*[st.integers(-40, 40)] * 3))
def test_a_plane_seen_from_elsewhere_is_the_same_plane(first_voxel):
    midline = Midline((0.6, 0.0, 0.8), 30.0, (5.0, 1.0, 2.0))
    on_it = np.array([30 * 0.6, 7, 30 * 0.8])
    moved = midline.seen_from(first_voxel)
    height = np.dot(on_it - np.multiply(first_voxel, midline.spacing), moved.normal)
    assert height == pytest.approx(moved.offset)
    assert moved.seen_from(np.negative(first_voxel)).offset == pytest.approx(midline.offset)


def test_a_crop_around_the_brain_gives_the_same_mirrored_values():
    volume, brain, midline, _ = head((0.1, 0.2), (0, 4, -5))
    box = tuple(slice(i.min() - 1, i.max() + 2) for i in np.nonzero(brain))
    assert volume[box].size < 0.8 * volume.size
    seen = midline.seen_from([i.start for i in box])
    np.testing.assert_allclose(mirror(volume[box], seen), mirror(volume, midline)[box], atol=0.01)


# --- finding the midline ----------------------------------------------------------------------


@pytest.mark.parametrize("lesion", [0, 30, 45])
@pytest.mark.parametrize(
    ("tilt", "shift"),
    [
        ((0, 0), (0, 0, 0)),
        ((0.15, -0.1), (2, -3, 5)),
        ((-0.25, 0.25), (4, 0, -6)),
    ],
)
def test_the_midline_is_found_again_also_beside_a_large_bright_lesion(tilt, shift, lesion):
    volume, brain, midline, left = head(tilt, shift)
    slices, rows, _ = np.indices(brain.shape)
    away = np.sqrt((5 * (slices - 16)) ** 2 + (2 * (rows - 60)) ** 2 + (left - 32) ** 2)
    volume[brain & (left > 0) & (away < lesion)] += 600  # up to a fifth of the brain
    angle, distance = apart(find_midline(volume, brain, midline.spacing), midline, brain)
    assert angle < 1 and distance < 1


@pytest.mark.parametrize("seed", [3, LARGEST_STROKE], ids=["1 ml", "349 ml"])
def test_the_midline_of_a_simulated_patient_is_where_the_simulation_put_it(seed):
    scan, rng = simulated(seed), np.random.default_rng(seed)
    _draw_stroke(rng)  # comes first, and uses up random numbers
    anatomy = _draw_anatomy(rng)
    np.testing.assert_array_equal(np.pad(anatomy.brain, MARGIN), scan.brain)
    first = [before for before, _ in MARGIN]
    between = (np.argwhere(anatomy.brain) + first)[np.abs(anatomy.mni[2]) < 0.5] * scan.spacing
    centre = between.mean(axis=0)
    normal = np.linalg.svd(between - centre, full_matrices=False)[2][-1]
    normal *= np.sign(normal[2])
    true = Midline(tuple(normal), float(centre @ normal), scan.spacing)

    found = find_midline(scan.dwi, scan.brain, scan.spacing)
    angle, distance = apart(found, true, scan.brain)
    assert angle < 3.5 and distance < 4  # the template is warped, so its midline is no plane
    upright = between[:, 2] - np.argwhere(scan.brain)[:, 2].mean()
    heights = between @ found.normal - found.offset
    assert np.sqrt(np.mean(heights**2)) < 0.8 * np.sqrt(np.mean(upright**2))


def test_the_largest_stroke_hardly_moves_the_midline():
    before, after = simulate_case(LARGEST_STROKE, infarct=False), simulated(LARGEST_STROKE)
    assert after.lesion.sum() > 0.15 * after.brain.sum()
    midlines = [find_midline(scan.dwi, scan.brain, scan.spacing) for scan in (before, after)]
    angle, distance = apart(*midlines, after.brain)
    assert angle < 1 and distance < 1


def test_a_coarser_scan_has_the_same_midline():
    volume, brain, midline, _ = head((0.15, -0.1), (2, -3, 5))
    coarse = replace(midline, spacing=(5.0, 4.0, 4.0))
    found = find_midline(volume[:, ::2, ::2], brain[:, ::2, ::2], coarse.spacing)
    angle, distance = apart(found, coarse, brain[:, ::2, ::2])
    assert angle < 1 and distance < 1


def test_a_hundred_voxels_are_enough_for_a_midline():
    brain = np.pad(np.ones((1, 10, 10), bool), ((2, 2), (5, 5), (5, 5)))
    found = find_midline(brain * 1.0, brain, (5, 6, 6))
    assert found.offset == pytest.approx(9.5 * 6, abs=2)


def test_the_midline_does_not_depend_on_the_scanners_gain():
    volume, brain, midline, _ = head((0.1, 0.1), (0, 0, 3))
    found, louder = (find_midline(gain * volume, brain, midline.spacing) for gain in (1, 16))
    assert apart(louder, found, brain) == pytest.approx((0, 0), abs=0.01)
    assert find_midline(volume.astype(np.float32), brain, midline.spacing) == found


@pytest.mark.parametrize(
    ("show", "kind"),
    [
        (relative_to_mode, np.float32),
        (lambda volume, brain: smooth_in_brain(volume, brain, 2), np.float32),
        (lambda volume, brain: mirror_excess(volume, brain, ASIDE), np.float32),
        (lambda volume, brain: unexplained_brightness(volume, brain, ASIDE), np.float32),
        (lambda volume, brain: np.array(find_midline(volume, brain, (5, 1, 1)).normal), float),
    ],
    ids=["mode", "smooth", "excess", "unexplained", "midline"],
)
def test_numbers_of_any_precision_and_a_brain_of_0_and_1_give_the_same(show, kind, brain):
    volume = np.random.default_rng(0).uniform(100, 200, brain.shape)
    expected = show(volume.astype(np.float32), brain)
    assert expected.dtype == kind
    for zeros_and_ones in (brain.astype(int), brain.astype(float)):
        np.testing.assert_array_equal(show(volume, zeros_and_ones), expected)


# --- differences of the two sides -------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0, 1, 4])
def test_a_symmetric_brain_has_no_excess_and_a_lesion_has_it_on_its_side(brain, sigma):
    volume = np.random.default_rng(0).random(brain.shape)
    volume = volume + mirror(volume)
    assert np.abs(mirror_excess(volume, brain, sigma=sigma)).max() < 1e-5
    volume[0, 15:20, 5:10] += 5
    excess = mirror_excess(volume, brain, sigma=sigma)
    assert excess[0, 17, 7] > 0.5
    np.testing.assert_allclose(excess, -mirror(excess), atol=1e-5)


@pytest.mark.parametrize("sigma", [0, 2])
def test_a_symmetric_brain_leaves_nothing_unexplained_and_a_lesion_is_left(brain, sigma):
    volume = np.random.default_rng(0).normal(size=brain.shape)
    volume = volume + mirror(volume)
    assert unexplained_brightness(volume, brain, sigma=sigma).max() <= 1e-5
    volume[0, 15:21, 5:11] += 20
    left = unexplained_brightness(volume, brain, sigma=sigma)
    assert left[0, 18, 8] > 5
    assert left[0, 18, -9] < 0  # the healthy side is darker than its mirror image


def test_a_tilted_head_leaves_only_its_lesion_over():
    volume, brain, midline, left = head((0.2, -0.1), (3, 5, -6))
    relative = relative_to_mode(volume, brain)
    lesion = brain & (np.abs(left - 40) < 12) & (np.abs(np.indices(brain.shape)[1] - 50) < 8)
    struck = np.where(lesion, relative + 1, relative)
    well_inside = brain & (mirror(brain, midline) > 0.999)
    for show in (mirror_excess, unexplained_brightness):
        assert np.maximum(show(relative, brain, midline), 0)[well_inside].mean() < 0.05
        shown = show(struck, brain, midline)
        assert np.median(shown[lesion]) > 0.4
        assert np.median(shown[mirror(lesion, midline) > 0.5]) < 0
        assert (shown[~brain] == 0).all()


@pytest.mark.parametrize(("midline", "last"), [(None, 29), (replace(ASIDE, offset=13.0), 26)])
def test_what_has_no_counterpart_in_the_brain_has_no_excess(brain, midline, last):
    volume = np.random.default_rng(0).uniform(1, 2, brain.shape)
    assert (mirror_excess(volume, brain, midline)[0, 15:20, 6:10] != 0).all()
    brain[0, 15:20, 6:10] = False
    excess = mirror_excess(volume, brain, midline)[0, 15:20]
    assert (excess[:, 6:10] == 0).all() and (excess[:, last - 9 : last - 5] == 0).all()
    assert (excess[:, 10:12] != 0).all() and (excess[:, last - 11 : last - 9] != 0).all()


def test_unless_told_otherwise_the_smoothing_and_the_reach_are_those_of_the_book(brain):
    volume = np.random.default_rng(0).normal(size=brain.shape)
    expected = mirror_excess(volume, brain, sigma=2)
    np.testing.assert_array_equal(mirror_excess(volume, brain), expected)
    expected = unexplained_brightness(volume, brain, sigma=3, reach=6)
    np.testing.assert_array_equal(unexplained_brightness(volume, brain), expected)


@pytest.mark.parametrize("show", [mirror_excess, unexplained_brightness])
def test_smoothing_takes_noise_away(show, brain):
    volume = np.random.default_rng(0).normal(size=brain.shape)
    plain, smooth = (show(volume, brain, sigma=sigma)[brain].std() for sigma in (0, 3))
    assert smooth < 0.5 * plain


@pytest.mark.parametrize("midline", [None, replace(ASIDE, offset=10.0)])
@pytest.mark.parametrize(
    "off",
    [
        *[(0, 3, 0), (0, -3, 0), (0, 0, 3), (0, 0, -3)],
        *[(0, 4, 0), (0, -4, 0), (0, 0, 4), (0, 0, -4), (1, 0, 0), (-1, 0, 0)],  # beyond it
    ],
)
def test_what_lies_within_reach_of_the_mirrored_place_explains(midline, off):
    volume = np.zeros((3, 20, 30))
    volume[1, 10, 5] = 1
    volume[1 + off[0], 10 + off[1], (24 if midline is None else 15) + off[2]] = 1
    left = unexplained_brightness(volume, volume >= 0, midline, sigma=0, reach=3)
    within_reach = off[0] == 0 and max(map(abs, off)) <= 3
    assert left[1, 10, 5] == (0 if within_reach else 1)


def test_what_is_dark_is_never_unexplained_brightness(brain):
    volume = np.zeros(brain.shape)
    volume[0, 15:21, 5:11] = -5  # an old scar; its healthy mirror image is brighter than it
    assert unexplained_brightness(volume, brain, sigma=0).max() <= 0


def test_smoothing_does_not_look_beyond_the_brain(brain):
    volume = np.where(brain, 3.0, -1e6)
    np.testing.assert_allclose(smooth_in_brain(volume, brain, 3)[brain], 3, rtol=1e-5)
    assert (smooth_in_brain(volume, brain, 3)[~brain] == 0).all()


def test_a_crop_around_the_brain_is_smoothed_the_same(brain):
    box = tuple(slice(i.min(), i.max() + 1) for i in np.nonzero(brain))
    volume = np.random.default_rng(0).random(brain.shape)
    assert volume[box].size < volume.size
    for sigma in (1.5, 8):
        np.testing.assert_allclose(
            smooth_in_brain(volume[box], brain[box], sigma),
            smooth_in_brain(volume, brain, sigma)[box],
            rtol=1e-4,
        )


# --- the scale --------------------------------------------------------------------------------


@settings(max_examples=30)
@given(st.floats(0.01, 1000))
def test_the_scale_does_not_depend_on_the_gain(gain):
    rng = np.random.default_rng(0)
    volume, brain = rng.normal(100, 10, (1, 60, 60)), np.ones((1, 60, 60), bool)
    relative = relative_to_mode(volume, brain)
    np.testing.assert_allclose(relative_to_mode(gain * volume, brain), relative, atol=0.02)


def test_the_scale_needs_quartiles_that_differ_and_no_more():
    brain = np.ones((1, 10, 100), bool)
    dark = np.arange(1000).reshape(brain.shape) < 255  # more than a quarter, less than 26 %
    relative = relative_to_mode(np.where(dark, 1.0, 2.0), brain)
    assert np.abs(relative[~dark]).max() < 0.1 and relative[dark].max() < -0.4
    bright = np.arange(1000).reshape(brain.shape) < 245  # less than a quarter, more than 24 %
    with pytest.raises(ValueError, match="quartiles must differ, found 2 twice"):
        relative_to_mode(np.where(bright, 3.0, 2.0), brain)


def test_the_mode_is_0_and_twice_as_bright_is_1():
    # A gamma distribution of shape 4 has its mode at 3 scales, its median at 3.7, its mean at 4.
    brain = np.ones((1, 200, 200), bool)
    volume = np.random.default_rng(0).gamma(4, 30, brain.shape)
    brain[0, :5] = False
    relative = relative_to_mode(volume, brain)
    mode = volume[brain] / (relative[brain] + 1)
    assert np.ptp(mode) < 0.01 and mode.mean() == pytest.approx(90, rel=0.1)
    assert (relative[~brain] == 0).all()


@pytest.mark.parametrize("gain", [1, 3])
def test_a_scanner_that_knows_whole_numbers_only_has_the_same_mode(gain):
    brain = np.ones((1, 200, 200), bool)
    volume = np.rint(gain * np.random.default_rng(0).normal(100, 20, brain.shape))
    expected = volume / (100 * gain) - 1
    np.testing.assert_allclose(relative_to_mode(volume, brain), expected, atol=0.05)


@pytest.mark.parametrize("brighter", [0.3, 0.6, 2.0])
def test_a_large_lesion_does_not_move_the_mode(brighter):
    rng = np.random.default_rng(0)
    healthy, brain = rng.normal(100, 10, (1, 100, 100)), np.ones((1, 100, 100), bool)
    stroke = healthy.copy()
    stroke[0, :30] *= 1 + brighter
    before, after = (np.median(relative_to_mode(v, brain)[0, 30:]) for v in (healthy, stroke))
    assert abs(after - before) < 0.03
    for other in (np.mean, lambda v: np.percentile(v, 99.5)):
        assert other(stroke) / other(healthy) > 1.08


@pytest.mark.parametrize("share", [0.3, 0.4, 0.45])
@pytest.mark.parametrize("fluid", [0.02, 0.15, 0.3])
@pytest.mark.parametrize("stroke", [0, 0.2])
def test_wide_ventricles_are_not_taken_for_tissue(share, fluid, stroke):
    # Fluid is nearly of one intensity, and piles up higher than tissue, which is of many.
    rng, brain = np.random.default_rng(0), np.ones((1, 100, 100), bool)
    volume = rng.normal(100, 18, brain.shape)
    ventricles = np.arange(10_000).reshape(brain.shape) < 10_000 * share
    volume[ventricles] = rng.normal(100 * fluid, 3, ventricles.sum())
    volume[:, :, : int(100 * stroke)] *= 2.2
    tissue = ~ventricles
    tissue[:, :, : int(100 * stroke)] = False
    relative = relative_to_mode(volume, brain)
    np.testing.assert_allclose(relative[tissue], volume[tissue] / 100 - 1, atol=0.12)


# --- voxels and their surroundings ------------------------------------------------------------


@pytest.mark.parametrize("beyond", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("spacing", [(5, 1, 1), (2, 2, 2), (6.5, 0.9, 1.2)])
def test_of_one_height_throughout_the_geometric_mean_is_with_what_lies_beyond(beyond, spacing):
    brain = np.zeros((5, 30, 31), bool)
    brain[1:4, 4:25, 6:29] = True
    values = np.where(brain, 3.0, 1000.0)  # what lies outside is not looked at
    found = gather(values, brain, spacing, beyond=beyond)
    np.testing.assert_allclose(found[brain], np.sqrt(3 * (3 - beyond)), rtol=1e-4)
    assert found.dtype == np.float32 and not found[~brain].any()


def test_the_unit_of_a_map_does_not_matter():
    values = np.random.default_rng(0).normal(1, 2, (4, 20, 20))
    brain = np.ones(values.shape, bool)
    once = gather(values, brain, (5, 1, 1))
    assert (once[values <= 0] == 0).all() and (once[values > 0] > 0).all()
    thrice = gather(3 * values, brain, (5, 1, 1), beyond=6)
    np.testing.assert_allclose(thrice, 3 * once, rtol=1e-4)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_neighbours_count_in_all_three_directions_by_their_distance_in_mm(axis):
    spacing = (5.0, 1.0, 2.0)
    brain = np.ones((13, 65, 33), bool)
    middle = np.array(brain.shape) // 2
    height = {}
    for mm in (10, 20):
        values = np.zeros(brain.shape)
        values[tuple(middle)] = 5
        for sign in (-1, 1):
            place = middle.copy()
            place[axis] += sign * round(mm / spacing[axis])
            values[tuple(place)] = 50
        height[mm] = gather(values, brain, spacing)[tuple(middle)] ** 2 / 5
    alone = np.zeros(brain.shape)
    alone[tuple(middle)] = 5
    own = gather(alone, brain, spacing)[tuple(middle)] ** 2 / 5
    bell = {mm: np.exp(-0.5 * (mm / 8) ** 2) for mm in height}
    for mm, found in height.items():  # each is 3 beyond the limit, or 48, times its weight
        assert found / own == pytest.approx(1 + 2 * (48 / 3) * bell[mm], rel=0.03)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"brain": np.ones((2, 4, 5), bool)}, r"found shapes \(2, 4, 4\) and \(2, 4, 5\)"),
        ({"values": np.ones((4, 4)), "brain": np.ones((4, 4), bool)}, r"\(4, 4\) and \(4, 4\)"),
        ({"brain": np.full((2, 4, 4), 2)}, "brain must hold"),
        ({"spacing": (5, 1)}, "four positive lengths, found .5.0, 1.0, 8.0"),
        ({"spacing": (5, 0, 1)}, "four positive lengths"),
        ({"spacing": (5, np.nan, 1)}, "four positive lengths"),
        ({"reach": 0}, "four positive lengths"),
        ({"reach": -8}, "four positive lengths"),
        ({"reach": np.inf}, "four positive lengths"),
    ],
)
def test_what_cannot_be_gathered_is_refused(given, message):
    brain = np.ones((2, 4, 4), bool)
    settings = {"values": brain * 1.0, "brain": brain, "spacing": (5, 1, 1), **given}
    with pytest.raises(ValueError, match=message):
        gather(**settings)


square, whole = np.ones((1, 2, 2)), np.ones((1, 2, 2), bool)
# Quartiles -0.5 and 7.5: the bins are 1 wide, and the middle of the fullest one is 0.
zero = np.repeat([-0.5, 7.5], [60, 40]).reshape(1, 10, 10)
dark = np.random.default_rng(0).normal(-300, 20, (1, 20, 20))
large = np.ones((2, 10, 10), bool)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: relative_to_mode(square, np.ones((1, 2, 3), bool)),
            r"\(1, 2, 2\), brain has \(1, 2, 3\)",
        ),
        (
            lambda: relative_to_mode(square, ~whole),
            "^brain must hold at least one voxel, found none$",
        ),
        (lambda: relative_to_mode(square, whole), "quartiles must differ, found 1 twice"),
        (lambda: relative_to_mode(dark, dark < 0), "mode must be positive, found -3"),
        (lambda: relative_to_mode(zero, zero > -1), "mode must be positive, found 0"),
        (
            lambda: find_midline(square, np.ones((1, 2, 3), bool), (5, 1, 1)),
            r"^volume and brain .* columns\), found shapes \(1, 2, 2\) and \(1, 2, 3\)",
        ),
        (lambda: find_midline(large[0], large[0], (5, 1, 1)), r"\(10, 10\) and \(10, 10\)"),
        (lambda: find_midline(square, whole, (5, 1, 1)), "at least 100 voxels, found 4"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# -- an uneven coil --------------------------------------------------------------------------------


def uneven_head(slope, stroke=1.0):
    """A symmetric head under a coil that hears one side better, with or without a stroke."""
    rng = np.random.default_rng(0)
    half = 100 * np.exp(0.2 * gaussian_filter(rng.normal(size=(6, 50, 25)), (0, 2, 2)))
    dwi = np.concatenate([half, half[..., ::-1]], axis=2)
    dwi[2, 20:26, 8:14] *= stroke
    coil = np.exp(slope * np.linspace(-1, 1, 50))
    middle = Midline((0.0, 0.0, 1.0), 2.0 * 24.5, (5.0, 2.0, 2.0))
    return dwi * coil, np.ones(dwi.shape, bool), middle


def test_an_uneven_coil_is_evened_out():
    dwi, brain, middle = uneven_head(0.15)
    before = np.log(dwi / dwi[..., ::-1])
    even = even_out(dwi, brain, middle)
    after = np.log(even / even[..., ::-1])
    assert np.abs(after).mean() < 0.35 * np.abs(before).mean()
    # What one side loses the other one wins.
    np.testing.assert_allclose(even * even[..., ::-1], dwi * dwi[..., ::-1], rtol=1e-4)


def test_a_head_may_lie_off_the_middle_of_its_scan():
    dwi, brain, middle = uneven_head(0.15)
    offset = middle.offset + 40 * middle.spacing[2]
    found = []
    for margins in ((40, 40), (40, 70)):  # beyond the reach of what is smoothed
        wider = [np.pad(volume, ((0, 0), (0, 0), margins)) for volume in (dwi, brain)]
        found.append(even_out(*wider, Midline(middle.normal, offset, middle.spacing)))
    np.testing.assert_allclose(found[1][..., :-30], found[0], rtol=1e-5)


def test_even_halves_stay_as_they_are():
    dwi, brain, middle = uneven_head(0.0)
    np.testing.assert_allclose(even_out(dwi, brain, middle), dwi, rtol=1e-4)


@pytest.mark.parametrize("stroke", [1.6, 2.5])
def test_a_stroke_is_no_unevenness(stroke):
    dwi, brain, middle = uneven_head(0.0, stroke)
    even = even_out(dwi, brain, middle)
    kept = np.log(even / even[..., ::-1])[2, 20:26, 8:14].mean() / np.log(stroke)
    assert kept > 0.97


@pytest.mark.parametrize("stroke", [1.6, 2.5])
def test_an_uneven_coil_is_evened_out_around_a_stroke(stroke):
    dwi, brain, middle = uneven_head(0.15, stroke)
    even = even_out(dwi, brain, middle)
    apart = np.log(even / even[..., ::-1])
    assert apart[2, 20:26, 8:14].mean() == pytest.approx(np.log(stroke), rel=0.05)
    assert np.abs(apart[[0, 1, 3, 4, 5]]).mean() < 0.03


def test_evening_out_leaves_the_air_dark():
    dwi, brain, middle = uneven_head(0.1)
    brain = brain.copy()
    brain[:, :5] = False
    dwi[:, :5] = 0
    even = even_out(dwi, brain, middle)
    assert not even[:, :5].any() and (even[:, 5:] > 0).all() and np.isfinite(even).all()


# -- a patch in a few dozen numbers ----------------------------------------------------------------

SPACING = (5.0, 1.0, 1.0)
NUMBERS = ("quantiles", "percentile", "excess", "unexplained", "around")


def struck_head(*struck):
    """A scan of a brain whose halves match but for noise, as bright again where it is struck.

    Struck is 1, the left side, or -1, or both; only the first of them is in the mask.
    """
    slices, rows, columns = np.indices((4, 176, 152))
    back, left = rows - 80, columns - 66
    brain = (back / 72) ** 2 + (left / 58) ** 2 + ((slices - 1.5) / 2.3) ** 2 < 1
    volume = 300 + 40 * np.cos(np.abs(left) / 6) + 40 * np.cos(back / 9)
    volume -= 150 * np.exp(-(((np.abs(left) - 10) / 5) ** 2) - (back / 25) ** 2)
    volume += np.random.default_rng(0).normal(0, 15, volume.shape)
    places = [brain & (np.hypot(left - 30 * side, back + 10) < 12) for side in struck]
    for place in places:
        volume[place] += 300
    return Scan("sub-1", np.float32(np.where(brain, volume, 0)), places[0], brain, SPACING)


@pytest.fixture(scope="module")
def scan():
    return struck_head(1)


@pytest.fixture(scope="module")
def described(scan):
    return describe(scan)


def assert_equal(found, expected, names, **tolerance):
    for name in names:
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), **tolerance)


# --- numbers of a patch -----------------------------------------------------------------------


@given(
    st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6)),
    st.integers(0, 99),
    st.lists(st.floats(0, 1), min_size=1, max_size=4),
)
def test_quantiles_and_means_are_numpys_over_what_counts(shape, seed, shares):
    rng = np.random.default_rng(seed)
    values = rng.integers(-3, 4, shape) + rng.choice([0, 0.25], shape)  # ties are common
    inside = rng.random(shape) < 0.5
    inside[:, 0, 0] = True
    counted = [patch[counts] for patch, counts in zip(values, inside, strict=True)]
    for at in (np.array(shares), SHARES):
        expected = [np.quantile(patch, at, method="lower") for patch in counted]
        found = patch_quantiles(values, inside.astype(int), at)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)
    found, expected = patch_means(values, inside.astype(int)), [patch.mean() for patch in counted]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_what_does_not_count_may_be_anything():
    values, inside = np.ones((1, 3, 3)), np.ones((1, 3, 3), bool)
    inside[0, 1] = False
    for anything in (np.nan, np.inf, -1e30):
        values[0, 1] = anything
        assert patch_quantiles(values, inside).tolist() == [[1] * len(SHARES)]
        assert patch_means(values, inside).tolist() == [1]


def test_no_patch_has_no_numbers():
    none = np.ones((0, 28, 28))
    assert patch_quantiles(none, none > 0).shape == (0, len(SHARES))
    assert patch_means(none, none > 0).shape == (0,)


@pytest.mark.parametrize("numbers", [patch_quantiles, patch_means])
@pytest.mark.parametrize(
    ("inside", "message"),
    [
        (
            np.ones((1, 3, 3), bool),
            r"^values and inside must be \(n, .* \(2, 3, 3\) and \(1, 3, 3\)",
        ),
        (np.ones((2, 3, 4), bool), r"\(2, 3, 3\) and \(2, 3, 4\)"),
        (np.arange(18).reshape(2, 3, 3) > 8, "1 patches hold no voxel that counts"),
        (np.zeros((2, 3, 3), bool), "2 patches hold no voxel that counts"),
    ],
)
def test_bad_numbers_are_named(numbers, inside, message):
    with pytest.raises(ValueError, match=message):
        numbers(np.ones((2, 3, 3)), inside)


# --- the maps ---------------------------------------------------------------------------------


def test_a_brain_of_ordinary_brightness_has_empty_maps():
    brain = np.ones((2, 60, 60), bool)
    for values in brightness_maps(np.zeros(brain.shape), brain).values():
        assert (values == 0).all()


def test_the_wider_the_surroundings_the_further_and_fainter_a_lesion_shows():
    brain = np.ones((1, 120, 200), bool)
    relative = np.zeros(brain.shape)
    relative[0, 50:70, 40:60] = 1
    maps = brightness_maps(relative, brain)
    amid, near, far = (0, 60, 50), (0, 60, 75), (0, 60, 90)
    assert maps["brightness"][amid] > 0.99 and maps["unexplained"][amid] > 0.9
    assert maps["unexplained"][near] == pytest.approx(0, abs=1e-3)
    small, wide = maps["around, 8 mm"], maps["around, 16 mm"]
    assert small[near] > 0.01
    assert small[amid] > wide[amid] > wide[near] > wide[far] > 0.01 > small[far]
    assert small.sum() == pytest.approx(np.maximum(maps["unexplained"], 0).sum(), rel=0.01)


def test_the_map_of_brightness_is_smoother_than_the_scan():
    relative = np.random.default_rng(0).normal(size=(1, 60, 60))
    brightness = brightness_maps(relative, np.ones(relative.shape, bool))["brightness"]
    assert brightness.std() < 0.3 * relative.std()


def test_the_maps_follow_the_midline():
    # The brain lies beside a strip of air: its midline is not the middle of the columns.
    brain, relative = np.zeros((1, 60, 120), bool), np.zeros((1, 60, 120))
    brain[..., :81] = True
    relative[0, 20:35, [10, 11, 12, 13, 14, 66, 67, 68, 69, 70]] = 1
    with_it = brightness_maps(relative, brain, Midline((0.0, 0.0, 1.0), 40.0, SPACING))
    without = brightness_maps(relative, brain)
    np.testing.assert_array_equal(with_it["brightness"], without["brightness"])
    for name in ("unexplained", "around, 8 mm", "around, 16 mm"):
        assert with_it[name].max() < 1e-5 and without[name].max() > 0.05


# --- the patches of a scan --------------------------------------------------------------------


@pytest.mark.parametrize(("patch", "share"), [(28, 0.25), (28, 0.7), (28, 1.0), (20, 0.25)])
def test_the_patches_are_those_of_the_networks_in_their_order(scan, patch, share):
    described = describe(scan, patch, min_brain=share)
    patches = brain_patches(scan, (patch, patch), min_brain_fraction=share)
    assert len(described) == len(patches) > 10
    for name in ("locations", "lesion_fraction", "brain_fraction", "subject_ids"):
        np.testing.assert_array_equal(getattr(described, name), getattr(patches, name))
    inside = extract_patches(scan.brain, (patch, patch)).patches
    inside = inside[inside.mean(axis=(1, 2)) >= share]
    for pixels, is_brain, percentile in zip(
        patches.patches, inside, described.percentile, strict=True
    ):
        assert percentile == np.quantile(pixels[is_brain], 0.95, method="lower")
    assert 0 < (described.lesion_fraction > 0).sum() < len(described)


def test_the_lesion_is_not_looked_at(scan, described):
    for lesion in (None, np.zeros_like(scan.lesion), scan.brain):
        blind = describe(replace(scan, lesion=lesion))
        assert_equal(blind, described, (*NUMBERS, "locations", "brain_fraction"), rtol=0)
        if lesion is None:
            assert np.isnan(blind.lesion_fraction).all()
    np.testing.assert_array_equal(blind.lesion_fraction, described.brain_fraction)


def test_the_scanners_gain_does_not_matter(scan, described):
    louder = describe(replace(scan, dwi=8 * scan.dwi))
    assert_equal(louder, described, (*NUMBERS, "locations"), atol=1e-3)


@pytest.mark.parametrize(("offset", "tolerance"), [((6, 12), 1e-3), ((5, 9), 0.2)])
def test_a_grid_that_begins_later_sees_what_a_moved_head_shows(scan, described, offset, tolerance):
    # The midline is sought on every sixth voxel: these are others if the head moves by 5 or 9.
    margins = ((0, 0), (offset[0], 0), (offset[1], 0))
    moved = {name: np.pad(getattr(scan, name), margins) for name in ("dwi", "lesion", "brain")}
    found = describe(replace(scan, **moved), offsets=[offset])
    np.testing.assert_array_equal(found.locations - [0, *offset], described.locations)
    assert_equal(found, described, ("lesion_fraction", "brain_fraction"), rtol=0)
    assert_equal(found, described, NUMBERS, atol=tolerance)


def test_a_midline_that_is_known_is_not_sought(scan, described):
    found = find_midline(scan.dwi, scan.brain, scan.spacing)
    assert_equal(describe(scan, midline=found), described, NUMBERS, rtol=0)
    aside = describe(scan, midline=replace(found, offset=found.offset + 10))
    for name in ("excess", "unexplained", "around"):
        assert np.abs(getattr(aside, name) - getattr(described, name)).max() > 0.05


def test_several_grids_come_one_after_the_other(scan, described):
    both = describe(scan, offsets=[(0, 0), (14, 14)])
    alone = [described, describe(scan, offsets=[(14, 14)])]
    assert_equal(both, Descriptors.concatenate(alone), NUMBERS, rtol=0)
    np.testing.assert_array_equal(both.locations[: len(described)], described.locations)
    assert set(both.locations[len(described) :, 1] % 28) == {14}
    assert len(both) == len(both.subject_ids) == sum(map(len, alone))


def test_every_patch_has_each_number(described):
    lengths = {len(getattr(described, field.name)) for field in fields(described)}
    assert lengths == {len(described)}
    assert described.quantiles.shape[1] == 4 * len(SHARES)
    assert np.isfinite(described.quantiles).all()
    by_map = described.quantiles.reshape(len(described), 4, -1)
    assert (np.diff(by_map, axis=2) >= 0).all()  # quantiles rise with their share


def test_a_scan_without_a_patch_of_brain_has_no_row(scan, described):
    none = describe(scan, 84, min_brain=1.0)
    assert len(none) == 0 and none.quantiles.shape == (0, 32)
    assert_equal(Descriptors.concatenate([none, described]), described, NUMBERS, rtol=0)


def test_what_one_side_alone_has_stands_out_and_what_both_have_does_not(described):
    # Of the outermost slices a tilted mirror may show nothing.
    within = np.isin(described.locations[:, 0], (1, 2))
    is_lesion = within & (described.lesion_fraction > 0.25)
    healthy = within & (described.lesion_fraction == 0)
    assert (described.excess[healthy] >= 0).all()  # noise alone is brighter somewhere
    both = describe(struck_head(1, -1))
    for name in ("excess", "unexplained", "around"):
        alone, twice = getattr(described, name), getattr(both, name)
        assert alone[is_lesion].min() > 1.5 * np.percentile(alone[healthy], 90)
        assert twice[is_lesion].max() < 0.1 * alone[is_lesion].min()
    assert both.percentile[is_lesion].min() > 0.9  # as bright as ever


# --- what a brain may be --------------------------------------------------------------------------

OF_A_BRAIN = {
    "relative_to_mode": relative_to_mode,
    "find_midline": lambda volume, brain: find_midline(volume, brain, (5, 1, 1)),
    "smooth_in_brain": lambda volume, brain: smooth_in_brain(volume, brain, 2),
    "even_out": lambda volume, brain: even_out(volume, brain, ASIDE),
    "mirror_excess": mirror_excess,
    "unexplained_brightness": unexplained_brightness,
    "patch_quantiles": lambda volume, brain: patch_quantiles(volume, brain),
    "patch_means": patch_means,
}
each_of_a_brain = pytest.mark.parametrize("function", OF_A_BRAIN.values(), ids=OF_A_BRAIN)


@each_of_a_brain
@pytest.mark.parametrize(
    "of",
    [
        lambda brain: 2 * brain.astype(np.uint8),
        lambda brain: brain * 255,
        lambda brain: np.where(brain, 1, -1),
        lambda brain: np.where(brain, 1, np.nan),
        lambda brain: brain * 0.99999994,
        lambda brain: brain.astype(str),
        lambda brain: brain + 0j,
    ],
    ids=["1 and 2", "255", "-1 and 1", "nan", "a fraction", "text", "complex"],
)
def test_a_brain_is_yes_or_no(brain, function, of):
    volume = np.random.default_rng(0).uniform(1, 2, brain.shape).astype(np.float32)
    with pytest.raises(ValueError, match=r"(brain|inside) must hold 0 and 1 only, found "):
        function(volume, of(brain))


@each_of_a_brain
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, float])
def test_a_brain_of_zeros_and_ones_is_as_good_as_one_of_truths(brain, function, dtype):
    volume = np.random.default_rng(0).uniform(1, 2, brain.shape).astype(np.float32)
    np.testing.assert_equal(function(volume, brain.astype(dtype)), function(volume, brain))


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, "all negative", "all zero"])
def test_no_midline_is_made_up_where_intensities_say_nothing(brain, odd):
    volume = np.full(brain.shape, {"all negative": -5.0, "all zero": 0.0}.get(odd, 7.0))
    if isinstance(odd, float):
        volume[0, 20, 15] = odd
    with pytest.raises(ValueError, match="intensities must be finite and their median positive"):
        find_midline(volume, brain, (5, 1, 1))
    outside = np.where(brain, 7.0, np.nan)  # what is not brain does not count
    assert find_midline(outside, brain, (5, 1, 1)).spacing == (5, 1, 1)


@pytest.mark.parametrize("spacing", [(5, 1), (5, 0, 1), (5, 1, -1), (5, np.nan, 1), (np.inf, 1, 1)])
def test_a_spacing_is_three_positive_lengths(brain, spacing):
    with pytest.raises(ValueError, match="spacing must be three positive lengths, found "):
        find_midline(np.where(brain, 7.0, 0), brain, spacing)


@pytest.mark.parametrize(
    ("value", "told"),
    [(2, "2"), (1.0000001, "1.00000012"), (0.99999994, "0.99999994"), (16777215, "16777215")],
)
def test_as_many_digits_are_told_as_tell_numbers_apart(brain, value, told):
    with pytest.raises(ValueError, match=rf"quartiles must differ, found {told}\d? twice"):
        relative_to_mode(np.full(brain.shape, value), brain)
