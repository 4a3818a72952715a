"""A patch in a few dozen numbers: the same patches as ever, and numbers that mean something."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.cohort import brain_patches
from helpers.descriptors import (
    SHARES,
    Descriptors,
    brightness_maps,
    describe,
    patch_means,
    patch_quantiles,
)
from helpers.hemispheres import Midline, find_midline
from helpers.patches import extract_patches
from helpers.scans import Scan

SPACING = (5.0, 1.0, 1.0)
NUMBERS = ("quantiles", "percentile", "excess", "unexplained", "around")


def head(*struck):
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
    return head(1)


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
def test_bad_input_is_named(numbers, inside, message):
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
    both = describe(head(1, -1))
    for name in ("excess", "unexplained", "around"):
        alone, twice = getattr(described, name), getattr(both, name)
        assert alone[is_lesion].min() > 1.5 * np.percentile(alone[healthy], 90)
        assert twice[is_lesion].max() < 0.1 * alone[is_lesion].min()
    assert both.percentile[is_lesion].min() > 0.9  # as bright as ever
