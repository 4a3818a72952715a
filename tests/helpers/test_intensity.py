"""Facts about putting scans on one scale."""

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from helpers.intensity import normalize_intensity


@pytest.fixture
def head():
    """A brain of intensity 300 ± 50 in air of 0, and where the brain is."""
    brain = np.zeros((8, 20, 20), dtype=bool)
    brain[2:6, 4:16, 4:16] = True
    volume = np.where(brain, np.random.default_rng(0).normal(300, 50, brain.shape), 0)
    return volume.astype(np.float32), brain


def test_the_percentiles_become_exactly_0_and_1(head):
    volume, brain = head
    order = np.argsort(volume[brain])
    for percent in (0, 5, 25):
        # 576 voxels: where a percentile falls between two voxels, their neighbours enclose it
        scaled = normalize_intensity(volume, mask=brain, percentiles=(percent, 100 - percent))
        ranks = percent / 100 * (order.size - 1)
        inside = scaled[brain][order]
        assert (inside[: int(np.floor(ranks)) + 1] == 0).all()
        assert (inside[-int(np.floor(ranks)) - 1 :] == 1).all()
        between = inside[int(np.ceil(ranks)) + 1 : -int(np.ceil(ranks)) - 1]
        assert ((between > 0) & (between < 1)).all()


def test_the_known_map():
    scaled = normalize_intensity(np.arange(101), percentiles=(10, 90))
    np.testing.assert_allclose(scaled, np.clip((np.arange(101) - 10) / 80, 0, 1), rtol=1e-6)
    assert scaled[10] == 0 and scaled[90] == 1


def test_where_nothing_is_said_half_a_percent_at_either_end_is_cut_off():
    values = np.arange(1001.0)
    expected = np.clip((values - 5) / 990, 0, 1)
    np.testing.assert_allclose(normalize_intensity(values), expected, atol=1e-6)


def test_all_voxels_are_mapped_but_only_the_brain_is_measured(head):
    volume, brain = head
    scaled = normalize_intensity(volume, mask=brain)
    assert scaled.shape == volume.shape and scaled.dtype == np.float32
    assert (scaled[~brain] == 0).all()

    more_air = np.pad(volume, 10)
    padded = normalize_intensity(more_air, mask=np.pad(brain, 10))
    np.testing.assert_array_equal(padded[10:-10, 10:-10, 10:-10], scaled)

    bright_skull = np.where(brain, volume, 5000)
    np.testing.assert_array_equal(
        normalize_intensity(bright_skull, mask=brain), np.where(brain, scaled, 1)
    )
    assert not np.array_equal(normalize_intensity(volume), scaled)  # without a mask, air counts


def test_no_mask_is_a_mask_of_everything(head):
    volume, brain = head
    np.testing.assert_array_equal(
        normalize_intensity(volume), normalize_intensity(volume, mask=np.ones_like(brain))
    )


def test_one_hot_voxel_moves_the_brain_by_a_hair_where_minimum_and_maximum_collapse_it(head):
    """What the post did, z-score and then rescaling from minimum to maximum, hangs on one voxel."""
    volume, brain = head
    hot = volume.copy()
    hot[3, 8, 8] = 100_000

    def with_min_max(array):
        image = sitk.Normalize(sitk.GetImageFromArray(array))
        return sitk.GetArrayFromImage(sitk.RescaleIntensity(image, 0, 1))

    before, after = (
        normalize_intensity(array, mask=brain)[brain].mean() for array in (volume, hot)
    )
    assert abs(after - before) < 0.01
    assert with_min_max(volume)[brain].mean() > 0.5
    assert with_min_max(hot)[brain].mean() < 0.01


@given(
    arrays(np.float32, (4, 5), elements=st.floats(-1000, 1000, width=32)),
    st.sampled_from([(0.5, 99.5), (0, 100), (10, 60)]),
)
def test_brighter_stays_brighter_and_the_range_is_0_to_1(volume, percentiles):
    if np.subtract(*np.percentile(volume.astype(float), percentiles)) == 0:
        with pytest.raises(ValueError, match="two intensities"):
            normalize_intensity(volume, percentiles=percentiles)
        return
    scaled = normalize_intensity(volume, percentiles=percentiles)
    assert scaled.min() == 0 and scaled.max() == 1
    assert (np.diff(scaled.ravel()[np.argsort(volume, axis=None)]) >= 0).all()


@given(gain=st.floats(1e-3, 1e3), offset=st.floats(-1e3, 1e3))
def test_the_scanners_gain_and_offset_vanish(gain, offset):
    volume = np.random.default_rng(0).normal(300, 50, (6, 6, 6))
    np.testing.assert_allclose(
        normalize_intensity(gain * volume + offset), normalize_intensity(volume), atol=1e-5
    )


@pytest.mark.parametrize("dtype", ["uint8", "int16", ">i2", ">f4", "float16", "float32", "float64"])
def test_the_way_numbers_are_stored_changes_nothing(dtype):
    numbers = np.random.default_rng(0).integers(0, 256, (5, 6, 7))
    np.testing.assert_array_equal(
        normalize_intensity(numbers.astype(dtype)), normalize_intensity(numbers), strict=True
    )


def test_integers_at_the_end_of_their_range_do_not_wrap():
    volume = np.array([-32768, 0, 32767], dtype=np.int16)
    scaled = normalize_intensity(volume, percentiles=(0, 100))
    np.testing.assert_allclose(scaled, [0, 0.5, 1], atol=1e-4)


def test_the_input_is_left_alone(head):
    volume, brain = head
    before = volume.copy()
    volume.flags.writeable = brain.flags.writeable = False
    scaled = normalize_intensity(volume, mask=brain)
    np.testing.assert_array_equal(volume, before)
    assert scaled.flags.writeable and not np.shares_memory(scaled, volume)


def test_any_layout_in_memory(head):
    volume, brain = head
    scaled = normalize_intensity(volume, mask=brain)
    for turn in (np.asfortranarray, lambda array: array[:, ::-1]):
        turned = normalize_intensity(turn(volume), mask=turn(brain))
        np.testing.assert_array_equal(turned, turn(scaled))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [(3, 8, slice(8, 11)), (0, 0, slice(3))])
def test_non_finite_voxels_are_counted_inside_the_brain_and_outside(head, bad, where):
    volume, brain = head
    volume[where] = bad
    with pytest.raises(ValueError, match=r"volume.* 3 of 3200 voxels"):
        normalize_intensity(volume, mask=brain)


def test_an_empty_mask(head):
    volume, brain = head
    with pytest.raises(ValueError, match=r"mask.* 0 of 3200"):
        normalize_intensity(volume, mask=np.zeros_like(brain))
    with pytest.raises(ValueError, match="0 of 0"):
        normalize_intensity(np.zeros((0, 3, 3)))


def test_a_constant_brain(head):
    _, brain = head
    with pytest.raises(ValueError, match=r"brain's 576 voxels.*found 7 and 7"):
        normalize_intensity(np.where(brain, 7, 0), mask=brain)


def test_a_brain_of_one_voxel_has_no_contrast():
    volume = np.arange(8.0).reshape(2, 2, 2)
    with pytest.raises(ValueError, match=r"brain's 1 voxels.*found 5 and 5"):
        normalize_intensity(volume, mask=volume == 5)


def test_numbers_too_far_apart_are_refused_without_a_warning():
    """Twice the largest double is infinite; whatever NumPy makes of it must not come out."""
    for percentiles in ((0, 100), (0.5, 99.5)):
        with pytest.raises(ValueError, match="two intensities of finite difference"):
            normalize_intensity([-1.7e308, 1.7e308], percentiles=percentiles)
        with pytest.raises(ValueError, match="two intensities of finite difference"):
            normalize_intensity([-1.7e308, 0, 1.7e308], percentiles=percentiles)
    too_long = np.array([0, np.finfo(np.longdouble).max])
    if too_long[1] > np.finfo(np.float64).max:
        with pytest.raises(ValueError, match="1 of 2 voxels NaN or infinite"):
            normalize_intensity(too_long)


def test_the_smallest_difference_there_is_still_spans_0_to_1():
    assert normalize_intensity([0, 5e-324], percentiles=(0, 100)).tolist() == [0, 1]
    assert normalize_intensity([2.0**53, 2.0**53 + 2]).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones((2, 2), bool), r"mask must have the volume's shape \(2, 3\), found \(2, 2\)"),
        (np.full((2, 3), 0.4), r"mask must hold 0 and 1 only, found \[0.4\]"),
        ([[0, 1, 2], [0, 1, 2]], r"mask must hold 0 and 1 only, found \[0, 1, 2\]"),
        ([[6, 5, 4], [3, 2, 1]], r"mask must hold 0 and 1 only, found \[1, 2, 3, 4, 5\] …"),
        ([[0, 1, np.nan], [0, 1, 0]], r"mask must hold 0 and 1 only, found \[0.0, 1.0, nan\]"),
    ],
)
def test_a_mask_of_another_shape_or_with_other_values(mask, message):
    with pytest.raises(ValueError, match=message):
        normalize_intensity(np.arange(6).reshape(2, 3), mask=mask)


def test_a_mask_of_0_and_1_in_any_dtype(head):
    volume, brain = head
    np.testing.assert_array_equal(
        normalize_intensity(volume, mask=brain.astype(np.uint8)),
        normalize_intensity(volume, mask=brain),
    )


@pytest.mark.parametrize(
    "percentiles",
    [(99.5, 0.5), (50, 50), (-1, 99), (1, 101), (np.nan, 99), (1,), (1, 50, 99), 5, "ab", None],
)
def test_percentiles_must_be_two_ascending_from_0_to_100(percentiles):
    with pytest.raises(ValueError, match="percentiles must be two ascending"):
        normalize_intensity(np.arange(10), percentiles=percentiles)


@pytest.mark.parametrize("volume", [np.array([1j, 2]), np.array(["a", "b"]), [None, 1]])
def test_a_volume_holds_real_numbers(volume):
    with pytest.raises(ValueError, match="volume must hold real numbers"):
        normalize_intensity(volume)
