"""The patch grid against a plain loop, and back again."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.patches import PatchSet, extract_patches, reconstruct_from_patches


def plain_loop(volume, size):
    """What a first-year student would write."""
    patches, locations = [], []
    for z in range(volume.shape[0]):
        for y in range(0, volume.shape[1] - size[0] + 1, size[0]):
            for x in range(0, volume.shape[2] - size[1] + 1, size[1]):
                patches.append(volume[z, y : y + size[0], x : x + size[1]])
                locations.append((z, y, x))
    return np.array(patches), np.array(locations)


def numbered(*shape, dtype=np.float32):
    """A volume in which every voxel tells its own place."""
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


grids = st.tuples(
    st.integers(1, 3), st.integers(1, 12), st.integers(1, 12), st.integers(1, 5), st.integers(1, 5)
)


@settings(deadline=None)
@given(grids)
def test_the_grid_is_the_plain_loops(grid):
    *shape, height, width = grid
    volume = numbered(*shape)
    if shape[1] < height or shape[2] < width:
        with pytest.raises(ValueError, match="fewer than one patch"):
            extract_patches(volume, (height, width))
        return
    cut = extract_patches(volume, (height, width))
    patches, locations = plain_loop(volume, (height, width))
    np.testing.assert_array_equal(cut.patches, patches)
    np.testing.assert_array_equal(cut.locations, locations)


LAYOUTS = {
    "C": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "slices last": lambda array: np.ascontiguousarray(array.transpose(1, 2, 0)).transpose(2, 0, 1),
    "backwards": lambda array: np.ascontiguousarray(array[::-1, ::-1, ::-1])[::-1, ::-1, ::-1],
    "every other": lambda array: np.repeat(array, 2, axis=2)[:, :, ::2],
}
DTYPES = (bool, "i1", "u1", "i2", ">i2", "u4", "i8", "f2", "f4", ">f4", "f8", ">f8", "c8")
# What breaks other tools, and everything between.
sides = st.sampled_from([27, 28, 29, 38, 56, 66, 230, 231]) | st.integers(27, 231)
clinical = st.fixed_dictionaries(
    {
        "shape": st.tuples(st.integers(1, 3), sides, sides),
        "size": st.just((28, 28)) | st.tuples(st.integers(20, 80), st.integers(20, 80)),
        "remainder": st.sampled_from(["drop", "pad", "error"]),
        "dtype": st.sampled_from(DTYPES),
        "layout": st.sampled_from(sorted(LAYOUTS)),
    }
)


@given(clinical, st.randoms(use_true_random=False), st.floats(0, 1))
def test_any_slice_size_cut_and_put_back(scan, random, share):
    """The grid is the plain loop's, and its inverse exact for any subset in any order."""
    shape, size, remainder = scan["shape"], scan["size"], scan["remainder"]
    volume = LAYOUTS[scan["layout"]]((numbered(*shape, dtype=int) % 251).astype(scan["dtype"]))
    mask = numbered(*shape, dtype=int) % 7 == 0
    left_over = [length % step for length, step in zip(shape[1:], size, strict=True)]
    if remainder == "error" and any(left_over):
        axis = "rows" if left_over[0] else "columns"
        with pytest.raises(ValueError, match=f"{axis} are not a multiple|fewer than one patch"):
            extract_patches(volume, size, remainder=remainder)
        return
    if remainder == "drop" and (shape[1] < size[0] or shape[2] < size[1]):
        axis, n, step = (
            ("rows", shape[1], size[0]) if shape[1] < size[0] else ("columns", shape[2], size[1])
        )
        with pytest.raises(ValueError, match=f"{n} {axis}, fewer than one patch's {step}"):
            extract_patches(volume, size, remainder=remainder)
        return

    cut = extract_patches(volume, size, lesion_mask=mask, remainder=remainder)
    overhang = [
        (0, 0),
        *((0, -length % step) for length, step in zip(shape[1:], size, strict=True)),
    ]
    padded = [np.pad(array, overhang) if remainder == "pad" else array for array in (volume, mask)]
    expected, locations = plain_loop(padded[0], size)
    np.testing.assert_array_equal(cut.patches, expected)
    np.testing.assert_array_equal(cut.locations, locations)
    assert cut.patches.dtype == volume.dtype
    assert cut.patches.flags.c_contiguous and not np.shares_memory(cut.patches, volume)
    lesion = plain_loop(padded[1], size)[0]
    np.testing.assert_array_equal(cut.lesion_fraction, lesion.mean((1, 2)).astype(np.float32))
    assert cut.dropped_lesion_voxels == mask.sum() - lesion.sum()

    some = np.array(random.sample(range(len(cut)), int(share * len(cut))), dtype=int)
    back = reconstruct_from_patches(
        cut.patches[some], cut.locations[some], shape, fill_value=volume.dtype.type(1)
    )
    covered = np.zeros(shape, bool)
    for z, y, x in cut.locations[some]:
        covered[z, y : y + size[0], x : x + size[1]] = True
    assert back.dtype == volume.dtype and back.shape == shape
    np.testing.assert_array_equal(back, np.where(covered, volume, volume.dtype.type(1)))

    scores = np.arange(1, len(some) + 1, dtype=np.float32)
    heat = reconstruct_from_patches(scores, cut.locations[some], shape, patch_size=size)
    assert ((heat > 0) == covered).all() and heat.dtype == np.float32
    for score, (z, y, x) in zip(scores, cut.locations[some], strict=True):
        assert (heat[z, y : y + size[0], x : x + size[1]] == score).all()


@pytest.mark.parametrize("remainder", ["drop", "error"])
@pytest.mark.parametrize(("shape", "axis"), [((1, 27, 252), "rows"), ((1, 252, 27), "columns")])
def test_27_is_one_less_than_28(shape, axis, remainder):
    with pytest.raises(ValueError, match=f"has 27 {axis}, fewer than one patch's 28"):
        extract_patches(numbered(*shape), remainder=remainder)
    assert len(extract_patches(numbered(*shape), remainder="pad")) == 9


@pytest.mark.parametrize("side", [28, 56])
def test_error_lets_pass_what_fills_the_grid(side):
    volume = numbered(1, side, side)
    np.testing.assert_array_equal(
        extract_patches(volume, remainder="error").patches, extract_patches(volume).patches
    )


def test_no_patches_at_all_are_a_volume_of_the_fill_value():
    none = extract_patches(numbered(1, 56, 56))[[False] * 4]
    assert len(none) == 0
    back = reconstruct_from_patches(none.patches, none.locations, (1, 56, 56), fill_value=7)
    assert (back == 7).all() and back.shape == (1, 56, 56)


@pytest.mark.parametrize("fill_value", [np.nan, np.inf, -np.inf, 0.1])
def test_what_floats_can_hold_they_are_filled_with(fill_value):
    cut = extract_patches(numbered(1, 56, 28, dtype=np.float16))[[0]]
    back = reconstruct_from_patches(cut.patches, cut.locations, (1, 56, 28), fill_value=fill_value)
    np.testing.assert_array_equal(back[0, 28:], np.float16(fill_value))


@pytest.mark.parametrize("side", [28, 29, 38, 56, 66, 230, 231])
def test_sizes_that_break_other_tools(side):
    volume = numbered(2, side, side)
    cut = extract_patches(volume)
    np.testing.assert_array_equal(cut.patches, plain_loop(volume, (28, 28))[0])
    back = reconstruct_from_patches(cut.patches, cut.locations, volume.shape, fill_value=-1)
    covered = side // 28 * 28
    np.testing.assert_array_equal(back[:, :covered, :covered], volume[:, :covered, :covered])
    assert (back[:, covered:] == -1).all() and (back[:, :, covered:] == -1).all()


@settings(deadline=None)
@given(grids, st.randoms(use_true_random=False))
def test_padded_round_trip_is_exact_in_any_order(grid, random):
    *shape, height, width = grid
    volume = numbered(*shape, dtype=np.int32)
    cut = extract_patches(volume, (height, width), remainder="pad")
    order = np.array(random.sample(range(len(cut)), len(cut)))
    back = reconstruct_from_patches(cut.patches[order], cut.locations[order], volume.shape)
    np.testing.assert_array_equal(back, volume)
    assert back.dtype == volume.dtype


def test_a_subset_leaves_the_rest_at_the_fill_value():
    volume = numbered(1, 56, 56)
    cut = extract_patches(volume)[[3]]
    back = reconstruct_from_patches(cut.patches, cut.locations, volume.shape, fill_value=7)
    np.testing.assert_array_equal(back[0, 28:, 28:], volume[0, 28:, 28:])
    assert (back[0, :28] == 7).all() and (back[0, :, :28] == 7).all()


def test_one_value_a_patch_spreads_over_the_patch():
    cut = extract_patches(numbered(2, 60, 60))
    scores = np.arange(8, dtype=np.float32)
    lesion_map = reconstruct_from_patches(scores, cut.locations, (2, 60, 60), patch_size=(28, 28))
    for score, (z, y, x) in zip(scores, cut.locations, strict=True):
        assert (lesion_map[z, y : y + 28, x : x + 28] == score).all()
    assert (lesion_map[:, 56:] == 0).all()


@pytest.mark.parametrize(
    "dtype", [bool, np.uint8, np.int16, np.float16, np.float32, np.float64, ">f4", ">i2", complex]
)
@pytest.mark.parametrize("remainder", ["drop", "pad"])
def test_every_dtype_is_kept(dtype, remainder):
    volume = numbered(2, 9, 9).astype(dtype)
    cut = extract_patches(volume, (4, 4), remainder=remainder)
    assert cut.patches.dtype == np.dtype(dtype)
    back = reconstruct_from_patches(cut.patches, cut.locations, volume.shape)
    assert back.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(back[:, :8, :8], volume[:, :8, :8])


@pytest.mark.parametrize(
    "layout",
    ["fortran", "negative", "read-only", "transposed", "memory-mapped"],
)
def test_any_memory_layout_gives_the_same_patches(layout, tmp_path):
    volume = numbered(3, 10, 11)
    expected = plain_loop(volume, (4, 5))[0]
    if layout == "fortran":
        volume = np.asfortranarray(volume)
    elif layout == "negative":
        volume = volume[::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1]
    elif layout == "read-only":
        volume.flags.writeable = False
    elif layout == "transposed":
        volume = volume.transpose(1, 2, 0).copy().transpose(2, 0, 1)
    else:
        np.save(tmp_path / "volume.npy", volume)
        volume = np.load(tmp_path / "volume.npy", mmap_mode="r")
    cut = extract_patches(volume, (4, 5)).patches
    np.testing.assert_array_equal(cut, expected)
    assert cut.flags.c_contiguous and cut.flags.writeable and type(cut) is np.ndarray


def test_patches_own_their_memory():
    volume = numbered(1, 28, 28)  # one patch, where a view would do
    cut = extract_patches(volume)
    cut.patches[:] = -1
    assert not np.shares_memory(cut.patches, volume) and volume[0, 0, 5] == 5


# --- masks ------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(0, 784), st.sampled_from([bool, np.uint8, np.float32]))
def test_fractions_are_exactly_k_in_784(k, dtype):
    mask = np.zeros(784, dtype)
    mask[:k] = 1
    cut = extract_patches(numbered(1, 28, 28), lesion_mask=mask.reshape(1, 28, 28))
    assert cut.lesion_fraction[0] == np.float32(k / 784)
    assert cut.lesion_fraction.dtype == np.float32


def test_fractions_match_a_plain_loop_and_the_margin_is_counted():
    rng = np.random.default_rng(0)
    volume = numbered(4, 67, 60)
    lesion, brain = rng.random(volume.shape) < 0.2, rng.random(volume.shape) < 0.7
    cut = extract_patches(volume, lesion_mask=lesion, brain_mask=brain)
    lesion_patches = plain_loop(lesion, (28, 28))[0]
    brain_patches = plain_loop(brain, (28, 28))[0]
    np.testing.assert_array_equal(
        cut.lesion_fraction, lesion_patches.mean(axis=(1, 2)).astype(np.float32)
    )
    np.testing.assert_array_equal(
        cut.brain_fraction, brain_patches.mean(axis=(1, 2)).astype(np.float32)
    )
    assert cut.dropped_lesion_voxels == lesion.sum() - lesion_patches.sum() > 0
    assert cut.dropped_brain_voxels == brain.sum() - brain_patches.sum() > 0


def test_padding_drops_nothing_and_counts_the_padding_as_outside():
    mask = np.ones((1, 30, 28), bool)
    cut = extract_patches(numbered(1, 30, 28), brain_mask=mask, remainder="pad")
    np.testing.assert_array_equal(cut.brain_fraction, np.float32([1, 2 / 28]))
    assert cut.dropped_brain_voxels == 0
    assert (cut.patches[1, 2:] == 0).all()


def test_no_mask_means_no_fraction():
    cut = extract_patches(numbered(1, 28, 28))
    for fraction in (cut.lesion_fraction, cut.brain_fraction):
        assert np.isnan(fraction).all() and fraction.dtype == np.float32
    assert cut.dropped_lesion_voxels == cut.dropped_brain_voxels == 0
    assert cut.subject_ids.tolist() == [""]


# --- sets of patches --------------------------------------------------------------------------


def test_patients_are_never_mixed():
    sets = [
        extract_patches(
            np.full((2, 8, 8), number),
            (4, 4),
            subject_id=f"patient{number}",
            lesion_mask=np.full((2, 8, 8), number % 2),
        )
        for number in range(11)
    ]
    both = PatchSet.concatenate(sets)
    assert len(both) == 88
    shuffled = both[np.random.default_rng(0).permutation(88)]
    for patches in (both, shuffled, shuffled[10:20], shuffled[shuffled.lesion_fraction > 0]):
        numbers = patches.patches[:, 0, 0]
        assert patches.subject_ids.tolist() == [f"patient{n}" for n in numbers]
        np.testing.assert_array_equal(patches.lesion_fraction, numbers % 2)


def test_concatenating_adds_up_what_was_dropped():
    ones = np.ones((1, 30, 28))
    cut = extract_patches(ones, lesion_mask=ones, brain_mask=ones)
    both = PatchSet.concatenate([cut, cut])
    assert both.dropped_lesion_voxels == both.dropped_brain_voxels == 2 * 2 * 28


@pytest.mark.parametrize("index", [slice(1, 3), [0, 3], np.array([True, False, False, True])])
def test_indexing_selects_every_array_alike(index):
    cut = extract_patches(numbered(1, 56, 56), subject_id="a")
    some = cut[index]
    assert len(some) == 2
    np.testing.assert_array_equal(some.patches, cut.patches[index])
    np.testing.assert_array_equal(some.locations, cut.locations[index])


def test_a_single_number_is_not_a_subset():
    cut = extract_patches(numbered(1, 56, 56))
    match = "^a PatchSet is indexed by a slice or a one-dimensional array of int or bool, found "
    for index, found in ((0, r"int64 of shape \(\)"), ([0.5, 1], r"float64 of shape \(2,\)")):
        with pytest.raises(TypeError, match=match + found):
            cut[index]


# --- bad input --------------------------------------------------------------------------------


def put_back(**changes):
    cut = extract_patches(numbered(1, 56, 56))
    given = {"patches": cut.patches, "locations": cut.locations, "volume_shape": (1, 56, 56)}
    return reconstruct_from_patches(**{**given, **changes})


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: extract_patches(numbered(1, 27, 28)), ValueError, "27 rows, .* 28"),
        (lambda: extract_patches(numbered(1, 28, 27)), ValueError, "27 columns, .* 28"),
        (lambda: extract_patches(numbered(28, 28)), ValueError, r"found shape \(28, 28\)"),
        (lambda: extract_patches(numbered(0, 28, 28)), ValueError, r"found shape \(0, 28, 28\)"),
        (
            lambda: extract_patches(numbered(1, 29, 28), remainder="error"),
            ValueError,
            "29 rows are not a multiple of the patch's 28: 1 would",
        ),
        (lambda: extract_patches(numbered(1, 4, 4), remainder="trim"), ValueError, "'trim'"),
        (lambda: extract_patches(numbered(1, 4, 4), (0, 4)), ValueError, r"\(0, 4\)"),
        (lambda: extract_patches(numbered(1, 4, 4), (4, -4)), ValueError, r"\(4, -4\)"),
        (
            lambda: extract_patches(numbered(1, 4, 4), (2.0, 2)),
            TypeError,
            r"^patch_size must be 2 whole numbers \(height, width\), found \(2.0, 2\)",
        ),
        (lambda: extract_patches(numbered(1, 4, 4), (True, 2)), TypeError, r"\(True, 2\)"),
        (lambda: extract_patches(numbered(1, 4, 4), 4), TypeError, "found 4"),
        (lambda: extract_patches(numbered(1, 4, 4), (4, 4, 4)), TypeError, r"\(4, 4, 4\)"),
        (
            lambda: extract_patches(numbered(1, 4, 4), (4, 4), lesion_mask=np.zeros((4, 4))),
            ValueError,
            r"lesion_mask has shape \(4, 4\), the volume has \(1, 4, 4\)",
        ),
        (
            lambda: extract_patches(numbered(1, 4, 4), (4, 4), brain_mask=numbered(1, 4, 4)),
            ValueError,
            r"brain_mask must hold 0 and 1 only, found also \[2.0, 3.0, 4.0, 5.0, 6.0\]",
        ),
        (
            lambda: extract_patches(
                numbered(1, 4, 4), (4, 4), lesion_mask=np.full((1, 4, 4), np.nan)
            ),
            ValueError,
            "nan",
        ),
        (
            lambda: put_back(patches=np.zeros(4)),
            ValueError,
            "^one value per patch needs patch_size, found None",
        ),
        (lambda: put_back(patches=np.zeros((4, 2))), ValueError, r"found \(4, 2\)"),
        (lambda: put_back(patch_size=28), TypeError, "^patch_size must be 2 whole.* found 28"),
        (
            lambda: put_back(patches=np.zeros(4), patch_size=(28, 28.0)),
            TypeError,
            r"^patch_size must be 2 whole numbers .* found \(28, 28.0\)",
        ),
        (
            lambda: put_back(patches=np.zeros((4, 28, 14)), locations=np.ones((4, 3), int)),
            ValueError,
            r"off the grid of 28 × 14 patches, first \[1, 1, 1\]",
        ),
        (
            lambda: put_back(
                locations=[[1, 0, 0], [0, 0, 0], [1, 28, 0], [1, 28, 0]], volume_shape=(2, 56, 56)
            ),
            ValueError,
            r"^1 locations are given twice, first \[1, 28, 0\]",
        ),
        (lambda: put_back(patch_size=(14, 28)), ValueError, r"\(14, 28\), .* \(28, 28\)"),
        (
            lambda: put_back(volume_shape=(56, 56)),
            TypeError,
            r"\(slices, rows, columns\), found \(56, 56\)",
        ),
        (lambda: put_back(volume_shape=(1.0, 56, 56)), TypeError, r"found \(1.0, 56, 56\)"),
        (lambda: put_back(volume_shape=(True, 56, 56)), TypeError, r"found \(True, 56, 56\)"),
        (lambda: put_back(volume_shape=56), TypeError, "volume_shape must be 3 whole.* found 56"),
        (lambda: put_back(volume_shape=(1, 0, 56)), ValueError, r"found \(1, 0, 56\)"),
        (lambda: put_back(volume_shape=(1, 28, 56)), ValueError, r"2 .* outside .*\[0, 28, 0\]"),
        (lambda: put_back(locations=np.zeros((4, 3), int)), ValueError, r"3 .* twice.*\[0, 0, 0\]"),
        (lambda: put_back(locations=np.zeros((3, 3), int)), ValueError, r"\(4, 3\).*\(3, 3\)"),
        (lambda: put_back(locations=np.zeros((4, 3))), TypeError, "float64"),
        (
            lambda: put_back(locations=[[0, 0, 0], [0, 0, 28], [0, 28, 0], [0, -28, 28]]),
            ValueError,
            r"outside the volume, first \[0, -28, 28\]",
        ),
        (
            lambda: put_back(locations=[[0, 0, 0], [0, 0, 28], [0, 28, 0], [0, 28, 27]]),
            ValueError,
            r"off the grid of 28 × 28 patches, first \[0, 28, 27\]",
        ),
        (
            lambda: put_back(patches=np.zeros((4, 28, 28), np.uint8), fill_value=-1),
            ValueError,
            "fill_value -1 does not fit the patches' uint8",
        ),
        (
            lambda: put_back(patches=np.zeros((4, 28, 28), np.int16), fill_value=np.nan),
            ValueError,
            "fill_value nan does not fit",
        ),
        (
            lambda: put_back(patches=np.zeros((4, 28, 28), np.int16), fill_value=0.5),
            ValueError,
            "fill_value 0.5 does not fit the patches' int16",
        ),
        (
            lambda: put_back(patches=np.zeros((4, 28, 28), np.float16), fill_value=1e6),
            ValueError,
            "fill_value 1000000.0 does not fit the patches' float16",
        ),
        (
            lambda: replace(extract_patches(numbered(1, 56, 56)), subject_ids=np.array(["a"])),
            ValueError,
            "one entry a patch, found .*'patches': 4.*'subject_ids': 1",
        ),
        (
            lambda: PatchSet.concatenate(
                [extract_patches(numbered(1, 4, 4), size) for size in ((4, 4), (4, 2))]
            ),
            ValueError,
            r"one patch size and dtype, found .*\(4, 2\).*\(4, 4\)",
        ),
        (lambda: PatchSet.concatenate([]), ValueError, "found \\[\\]"),
        (
            lambda: PatchSet.concatenate(
                [extract_patches(numbered(1, 4, 4, dtype=d), (4, 4)) for d in ("f4", "f8")]
            ),
            ValueError,
            "float32.*float64",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


# --- in whatever way the memory lies ----------------------------------------------------------

DTYPES = ["?", "u1", "<i2", ">i2", "f2", "<f4", ">f4", "f8", "c16", "M8[s]", "O"]
# From one patch to many, and patches of fewer and of more pixels than are moved at once.
SHAPES = [
    ((1, 7, 9), (7, 9)),
    ((3, 12, 11), (2, 3)),
    ((2, 20, 270), (1, 2)),
    ((2, 31, 59), (28, 28)),
    ((2, 41, 85), (40, 40)),
    ((2, 7, 701), (3, 700)),
    ((2, 300, 5), (290, 2)),
    ((700, 20, 30), (9, 14)),  # more slices than are moved at once
    ((2, 300, 320), (28, 28)),  # a slice that is larger than what is moved at once
]
grids_and_patches = st.one_of(
    st.sampled_from(SHAPES), grids.map(lambda grid: (grid[:3], grid[3:]))
).filter(lambda case: case[0][1] >= case[1][0] and case[0][2] >= case[1][1])


def laid_out(volume, axes, flips, gaps):
    """The same volume, its axes in another order in memory, some backwards, some with gaps."""
    stored = np.ascontiguousarray(volume.transpose(axes))
    for axis, (flip, gap) in enumerate(zip(flips, gaps, strict=True)):
        if gap:
            stored = np.repeat(stored, 2, axis=axis)
            stored = stored[tuple(np.s_[::2] if a == axis else np.s_[:] for a in range(3))]
        if flip:
            stored = np.flip(np.flip(stored, axis).copy(), axis)
    return stored.transpose(np.argsort(axes))


layouts = st.tuples(
    st.permutations([0, 1, 2]),
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
)


@settings(deadline=None)
@given(grids_and_patches, st.sampled_from(DTYPES), layouts)
def test_every_layout_of_every_dtype_is_cut_as_by_the_plain_loop(case, dtype, layout):
    shape, size = case
    volume = (numbered(*shape, dtype=np.int64) % 251).astype(dtype)
    given = laid_out(volume, *layout)
    np.testing.assert_array_equal(given, volume)
    cut = extract_patches(given, size)
    patches, locations = plain_loop(volume, size)
    np.testing.assert_array_equal(cut.patches, patches)
    np.testing.assert_array_equal(cut.locations, locations)
    assert cut.patches.dtype == volume.dtype
    assert cut.patches.flags.owndata and cut.patches.flags.c_contiguous
    np.testing.assert_array_equal(given, volume)  # left as it was

    padded = extract_patches(given, size, remainder="pad")
    margins = [(0, -length % n) for length, n in zip(shape, (1, *size), strict=True)]
    filled = np.pad(volume, margins, constant_values=np.zeros((), dtype))
    np.testing.assert_array_equal(padded.patches, plain_loop(filled, size)[0])
    assert padded.patches.flags.owndata


@settings(deadline=None)
@given(grids_and_patches, st.sampled_from(DTYPES), st.data())
def test_any_patches_in_any_order_go_back_as_by_the_plain_loop(case, dtype, data):
    shape, size = case
    volume = (numbered(*shape, dtype=np.int64) % 251).astype(dtype)
    remainder = data.draw(st.sampled_from(["drop", "pad"]))
    cut = extract_patches(volume, size, remainder=remainder)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    chosen = rng.permutation(len(cut))[: data.draw(st.integers(0, len(cut)))]
    if data.draw(st.booleans()):
        chosen.sort()
    patches, locations = cut.patches[chosen], cut.locations[chosen]
    if data.draw(st.booleans()):
        patches = np.asfortranarray(patches)
    fill = np.ones((), dtype)
    back = reconstruct_from_patches(patches, locations, shape, fill_value=fill)
    values = reconstruct_from_patches(
        patches[:, 0, 0], locations, shape, patch_size=size, fill_value=fill
    )
    expected, flat = np.full(shape, fill), np.full(shape, fill)
    for patch, (z, y, x) in zip(patches, locations, strict=True):
        place = np.s_[z, y : y + size[0], x : x + size[1]]
        expected[place] = patch[: shape[1] - y, : shape[2] - x]
        flat[place] = patch[0, 0]
    for result, truth in ((back, expected), (values, flat)):
        np.testing.assert_array_equal(result, truth)
        assert result.dtype == volume.dtype
        assert result.flags.owndata and result.flags.c_contiguous


@settings(deadline=None)
@given(grids_and_patches, st.sampled_from(["?", "u1", ">i2", "f4", "O"]), layouts, st.data())
def test_fractions_of_any_mask_are_those_of_the_plain_loop(case, dtype, layout, data):
    shape, size = case
    share = data.draw(st.sampled_from([0.0, 0.3, 1.0]))
    mask = np.random.default_rng(0).random(shape) < share
    given = laid_out(mask.astype(dtype), *layout)
    cut = extract_patches(np.empty(shape, np.uint8), size, lesion_mask=given)
    inside = plain_loop(mask, size)[0].sum(axis=(1, 2))
    np.testing.assert_array_equal(cut.lesion_fraction, np.float32(inside / np.prod(size)))
    assert cut.dropped_lesion_voxels == mask.sum() - inside.sum()
    padded = extract_patches(
        np.empty(shape, np.uint8), size, lesion_mask=given, remainder="pad"
    ).lesion_fraction
    assert padded.sum() * np.prod(size) == pytest.approx(mask.sum(), rel=1e-5)


@pytest.mark.parametrize("height", [255, 256, 257, 600])
def test_tall_patches_full_of_lesion_are_full(height):
    cut = extract_patches(np.ones((1, height, 2)), (height, 2), lesion_mask=np.ones((1, height, 2)))
    assert cut.lesion_fraction.tolist() == [1] and cut.dropped_lesion_voxels == 0


def test_no_patch_at_all_leaves_the_fill_value():
    nothing = extract_patches(numbered(2, 5, 5), (3, 3))[:0]
    back = reconstruct_from_patches(nothing.patches, nothing.locations, (2, 2, 2), fill_value=7)
    np.testing.assert_array_equal(back, np.full((2, 2, 2), 7, np.float32))
