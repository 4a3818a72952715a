"""Facts about scale and symmetry."""

import numpy as np
import pytest

from helpers.hemispheres import (
    mirror,
    mirror_excess,
    scale_to_mode,
    smooth_in_brain,
    unexplained_brightness,
)


@pytest.fixture
def brain():
    rows, columns = np.mgrid[-20:20, -15:15] + 0.5
    return ((rows / 18) ** 2 + (columns / 13) ** 2 < 1)[None]


def test_mirroring_twice_is_the_identity():
    volume = np.random.default_rng(0).random((2, 5, 7))
    np.testing.assert_array_equal(mirror(mirror(volume)), volume)


@pytest.mark.parametrize("sigma", [0, 1, 4])
def test_a_symmetric_brain_has_no_excess_and_a_lesion_has_it_on_its_side(brain, sigma):
    volume = np.random.default_rng(0).random(brain.shape)
    volume = volume + mirror(volume)
    assert np.abs(mirror_excess(volume, brain, sigma)).max() < 1e-5
    volume[0, 15:20, 5:10] += 5
    excess = mirror_excess(volume, brain, sigma)
    assert excess[0, 17, 7] > 0.5
    np.testing.assert_allclose(excess, -mirror(excess), atol=1e-5)


@pytest.mark.parametrize("sigma", [0, 2])
def test_a_symmetric_brain_leaves_nothing_unexplained_and_a_lesion_is_left(brain, sigma):
    volume = np.random.default_rng(0).normal(size=brain.shape)
    volume = volume + mirror(volume)
    assert unexplained_brightness(volume, brain, sigma).max() <= 1e-5
    volume[0, 15:21, 5:11] += 20
    left = unexplained_brightness(volume, brain, sigma)
    assert left[0, 18, 8] > 5
    assert left[0, 18, -9] < 0  # the healthy side is darker than its mirror image


def test_what_is_dark_is_never_unexplained_brightness(brain):
    volume = np.zeros(brain.shape)
    volume[0, 15:21, 5:11] = -5  # an old scar; its healthy mirror image is brighter than it
    assert unexplained_brightness(volume, brain, 0).max() <= 0


def test_smoothing_does_not_look_beyond_the_brain(brain):
    volume = np.where(brain, 3.0, -1e6)
    np.testing.assert_allclose(smooth_in_brain(volume, brain, 3)[brain], 3, rtol=1e-5)
    assert (smooth_in_brain(volume, brain, 3)[~brain] == 0).all()


def test_the_scale_does_not_depend_on_gain_and_offset():
    rng = np.random.default_rng(0)
    volume, brain = rng.normal(100, 10, (1, 60, 60)), np.ones((1, 60, 60), bool)
    scaled = scale_to_mode(volume, brain)
    np.testing.assert_allclose(scale_to_mode(7 * volume + 300, brain), scaled, atol=0.02)
    q25, q75 = np.percentile(scaled, [25, 75])
    assert q75 - q25 == pytest.approx(1, abs=1e-4)


def test_a_large_lesion_moves_the_mode_less_than_the_high_percentile():
    rng = np.random.default_rng(0)
    healthy, brain = rng.normal(100, 10, (1, 100, 100)), np.ones((1, 100, 100), bool)
    stroke = healthy.copy()
    stroke[0, :20] += 60
    before, after = (np.median(scale_to_mode(v, brain)[0, 20:]) for v in (healthy, stroke))
    assert abs(after - before) < 0.2  # of the distance of the quartiles
    by_percentile = [np.median(v[0, 20:]) / np.percentile(v, 99.5) for v in (healthy, stroke)]
    assert by_percentile[1] / by_percentile[0] < 0.75


@pytest.mark.parametrize(
    ("volume", "brain", "message"),
    [
        (np.ones((1, 2, 2)), np.ones((1, 2, 3), bool), r"\(1, 2, 2\), brain has \(1, 2, 3\)"),
        (np.ones((1, 2, 2)), np.zeros((1, 2, 2), bool), "at least one voxel, found none"),
        (np.ones((1, 2, 2)), np.ones((1, 2, 2), bool), "quartiles must differ, found 1 twice"),
    ],
)
def test_bad_input_is_named(volume, brain, message):
    with pytest.raises(ValueError, match=message):
        scale_to_mode(volume, brain)
