"""Facts about the VAE that is told the other side; the same on TensorFlow, JAX and PyTorch."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import multivariate_normal, norm
from test_vae import Batches, as_tf_data, evaluated

from helpers.hemispheres import Midline
from helpers.mirror_vae import (
    CHANNELS,
    PIXEL,
    WINDOW,
    MirrorVAE,
    both_sides,
    build_mirror_vae,
    cut_windows,
    fit_mirror_vae,
    patch_codes,
    patch_surprise,
    surprise_map,
    train_mirror_vae,
    windows_around,
    windows_at,
)
from helpers.phantom import simulate_case
from helpers.scans import Scan
from helpers.vae import keras

layers, ops = keras.layers, keras.ops
SHAPE = (4, 60, 60)
MIDDLE = Midline((0.0, 0.0, 1.0), PIXEL * (SHAPE[2] - 1) / 2, (5.0, PIXEL, PIXEL))


def slices(seed, *, noise=0.0, symmetric=True):
    """A scan of soft blobs within a disc, the right half the mirror image of the left one."""
    rng = np.random.default_rng(seed)
    blobs = gaussian_filter(rng.normal(size=SHAPE), (0, 4, 4))
    dwi = 100 * np.exp(0.25 * blobs / blobs.std())
    if symmetric:
        dwi = (dwi + dwi[..., ::-1]) / 2
    dwi = dwi * np.exp(noise * rng.normal(size=SHAPE))
    y, x = np.ogrid[: SHAPE[1], : SHAPE[2]]
    brain = np.broadcast_to((y - 29.5) ** 2 + (x - 29.5) ** 2 < 26**2, SHAPE)
    return Scan("a", np.where(brain, dwi, 0).astype("float32"), None, brain, (5.0, PIXEL, PIXEL))


def windows_of(scans, step=5):
    sides = [both_sides(scan, even=False, midline=MIDDLE) for scan in scans]
    return np.concatenate([cut_windows(side, step)[0] for side in sides])


def spotted(scan, columns, height=1.2):
    dwi = scan.dwi.copy()
    for column in columns:
        dwi[1, 25:31, column : column + 6] *= np.exp(height)
    return replace(scan, dwi=dwi)


@pytest.fixture(scope="module")
def noisy():
    """A VAE of symmetric heads, each with a spot on both sides, that differ by noise alone."""
    heads = [slices(n, noise=0.1) for n in range(25)]
    columns = np.random.default_rng(0).integers(8, 24, len(heads))
    pairs = [spotted(head, (n, 54 - n)) for head, n in zip(heads, columns, strict=True)]
    return train_mirror_vae(windows_of(pairs), epochs=12)


def test_told_a_mirror_image_it_needs_no_nats(noisy):
    nats = noisy.nats(windows_of([slices(100, noise=0.1)]))
    assert nats.mean() < 0.5
    apart = train_mirror_vae(windows_of([slices(n, symmetric=False) for n in range(25)]), epochs=12)
    assert apart.nats(windows_of([slices(100, symmetric=False)])).mean() > 3


def test_a_mirror_image_is_no_surprise_and_noise_is_of_its_own_size(noisy):
    scan = slices(101, noise=0.1)
    windows = windows_of([scan])
    surprise = noisy.surprise(windows)[windows[..., 1] == 1]
    assert abs(surprise.mean()) < 0.2 and 0.8 < surprise.std() < 1.3
    map_of = surprise_map(noisy, scan, even=False, midline=MIDDLE)
    assert np.abs(map_of[scan.brain]).mean() < 1 and not map_of[~scan.brain].any()


def test_a_spot_on_one_side_is_surprising_by_its_height_and_on_both_sides_it_is_not(noisy):
    scan = slices(102, noise=0.1)

    def at_the_spot(*columns):
        found = surprise_map(noisy, spotted(scan, columns), even=False, midline=MIDDLE)
        return found[1, 26:30, 15:19].mean()

    # 14 to 19, and its mirror image 40 to 45
    without, alone, both = at_the_spot(), at_the_spot(14), at_the_spot(14, 40)
    own = [
        both_sides(s, even=False, midline=MIDDLE)[1, 26:30, 15:19, 0]
        for s in (spotted(scan, [14]), scan)
    ]
    windows = windows_of([scan], step=10)
    tolerance = noisy.expect(windows[..., 2:])[1][windows[..., 1] == 1].mean()
    height = np.mean(own[0] - own[1]) / tolerance
    assert alone - without == pytest.approx(height, rel=0.35)
    assert alone > 3 and abs(both - without) < 0.4 * (alone - without)


def test_a_flip_of_the_slices_flips_the_map(noisy):
    scan = spotted(slices(103, noise=0.1), [12])
    turned = replace(scan, dwi=scan.dwi[..., ::-1].copy(), brain=scan.brain[..., ::-1])
    one = surprise_map(noisy, scan, even=False, midline=MIDDLE)
    two = surprise_map(noisy, turned, even=False, midline=MIDDLE)[..., ::-1]
    assert np.corrcoef(one[scan.brain], two[scan.brain])[0, 1] > 0.9


@pytest.fixture
def linear():
    """x = A z + B c + noise: what the ELBO, the mean and the spread must be is known."""
    rng = np.random.default_rng(0)
    latent_dim, shape, s = 2, (2, 2), 0.5
    n = shape[0] * shape[1]
    a, b = rng.normal(size=(n, latent_dim)), rng.normal(size=(n, 3 * n))
    windows = keras.Input((*shape, 5))
    precision = np.eye(latent_dim) + a.T @ a / s**2
    gain = np.linalg.solve(precision, a.T / s**2)  # of the exact posterior's mean
    own = layers.Reshape((n,))(windows[..., 0])
    other = layers.Reshape((3 * n,))(windows[..., 2:])
    mean_layer, other_layer = layers.Dense(latent_dim, use_bias=False), layers.Dense(latent_dim)
    z_mean = layers.Add()([mean_layer(own), other_layer(other)])
    # The posterior's axes are correlated; turned into its own axes they are not.
    z_log_var = layers.Dense(latent_dim)(own)
    values, turn = np.linalg.eigh(precision)
    a = a @ turn
    gain = turn.T @ gain
    encoder = keras.Model(windows, [z_mean, z_log_var])
    mean_layer.set_weights([gain.T])
    other_layer.set_weights([-(gain @ b).T, np.zeros(latent_dim)])
    encoder.layers[-1].set_weights([np.zeros((n, latent_dim)), -np.log(values)])

    z, other_side = keras.Input((latent_dim,)), keras.Input((*shape, 3))
    from_z, from_other = layers.Dense(n, use_bias=False), layers.Dense(n, use_bias=False)
    total = layers.Add()([from_z(z), from_other(layers.Reshape((3 * n,))(other_side))])
    log_var_layer = layers.Dense(n)
    log_var = log_var_layer(z)
    decoder = keras.Model(
        [z, other_side], [layers.Reshape(shape)(total), layers.Reshape(shape)(log_var)]
    )
    from_z.set_weights([a.T])
    from_other.set_weights([b.T])
    log_var_layer.set_weights([np.zeros((latent_dim, n)), np.full(n, 2 * np.log(s))])
    return MirrorVAE(encoder, decoder), a, b, s, shape


def test_the_elbo_of_a_linear_gaussian_pair_meets_its_closed_form(linear):
    vae, a, b, s, shape = linear
    rng = np.random.default_rng(1)
    window = rng.normal(size=(1, *shape, 5)).astype("float32")
    window[..., 1] = 1  # all brain
    x, c = window[0, ..., 0].ravel(), window[0, ..., 2:].ravel()
    exact = multivariate_normal.logpdf(x, b @ c, a @ a.T + s**2 * np.eye(len(x)))
    many = ops.convert_to_tensor(np.repeat(window, 20_000, axis=0))
    loss = float(ops.convert_to_numpy(vae.compute_loss(x=many, y_pred=vae(many))))
    assert -loss == pytest.approx(exact, abs=0.05)


def test_what_is_expected_is_the_marginal_not_what_the_middle_of_the_prior_says(linear):
    vae, a, b, s, shape = linear
    other = np.random.default_rng(2).normal(size=(7, *shape, 3)).astype("float32")
    mean, deviation = vae.expect(other)
    np.testing.assert_allclose(mean.reshape(7, -1), other.reshape(7, -1) @ b.T, atol=1e-4)
    marginal = np.sqrt(np.diag(a @ a.T) + s**2)
    np.testing.assert_allclose(deviation.reshape(7, -1), np.tile(marginal, (7, 1)), rtol=1e-4)


def test_pixels_outside_the_brain_cost_nothing(linear):
    vae, *_, shape = linear
    window = np.random.default_rng(3).normal(size=(1, *shape, 5)).astype("float32")
    window[..., 1] = 0
    y_pred = vae(ops.convert_to_tensor(window))
    loss = vae.compute_loss(x=ops.convert_to_tensor(window), y_pred=y_pred)
    loss = float(ops.convert_to_numpy(loss))
    assert loss == pytest.approx(float(vae.nats(window)[0]), abs=1e-4)


@pytest.mark.parametrize("reach", [0.7, 3, 1e6])
def test_pixels_count_by_the_height_of_a_bell_around_the_middle(linear, reach):
    vae, *_, s, shape = linear
    windows = np.random.default_rng(4).normal(size=(3, *shape, 5)).astype("float32")
    windows[..., 1] = [[1, 1], [1, 0]]
    weighted = MirrorVAE(vae.encoder, vae.decoder, reach=reach)
    y_pred = vae(ops.convert_to_tensor(windows))
    loss = weighted.compute_loss(x=ops.convert_to_tensor(windows), y_pred=y_pred)
    mean = ops.convert_to_numpy(y_pred["mean"])
    nats = -norm.logpdf(windows[..., 0], mean, s)
    height = np.exp(-0.5 * (0.5**2 + 0.5**2) / reach**2)  # of each of the four
    expected = (height * nats * windows[..., 1]).sum(axis=(1, 2)) + vae.nats(windows)
    assert float(ops.convert_to_numpy(loss)) == pytest.approx(expected.mean(), rel=1e-4)


def test_the_middle_of_a_wide_window_counts_most_and_all_of_a_fine_one_alike(tmp_path):
    fine, wide = build_mirror_vae(hidden_units=8), build_mirror_vae(hidden_units=8, window=14)
    assert (np.asarray(fine.bell) == 1).all()
    # Rows 6 and 11 lie half a pixel and four and a half from the middle; 16 mm are four pixels.
    rows = np.asarray(wide.bell)[:, 6] / np.asarray(wide.bell)[6, 6]
    assert rows[11] == pytest.approx(np.exp(-0.5 * (4.5**2 - 0.5**2) / 16), rel=1e-5)
    np.testing.assert_array_equal(wide.bell, np.asarray(wide.bell)[::-1, ::-1])
    wide.save(tmp_path / "wide.keras")
    again = keras.saving.load_model(tmp_path / "wide.keras")
    assert again.reach == wide.reach == 4
    np.testing.assert_array_equal(again.bell, wide.bell)


@pytest.mark.parametrize("reach", [0, -1.0, np.nan, "4", None, True])
def test_a_reach_that_is_no_length_is_refused(reach):
    parts = build_mirror_vae(hidden_units=8)
    with pytest.raises(ValueError, match="reach must be a number of pixels above 0, found"):
        MirrorVAE(parts.encoder, parts.decoder, reach=reach)


def test_every_pixel_of_brain_is_in_a_window_and_windows_lie_evenly():
    sides = np.ones((2, 47, 61, len(CHANNELS)), "float32")
    for step in (5, 10, 20):
        windows, corners = cut_windows(sides, step)
        assert windows.shape == (len(corners), WINDOW, WINDOW, len(CHANNELS))
        covered = np.zeros((2, 47 + 2 * WINDOW, 61 + 2 * WINDOW), bool)
        for z, row, column in corners + WINDOW * np.array([0, 1, 1]):
            covered[z, row : row + WINDOW, column : column + WINDOW] = True
        assert covered[:, WINDOW:-WINDOW, WINDOW:-WINDOW].all()
        columns = np.unique(corners[:, 2])
        assert abs(columns[0] + (columns[-1] + WINDOW) - 61) <= 1
    windows, corners = cut_windows(np.arange(2 * 20 * 20 * 5.0).reshape(2, 20, 20, 5) + 1, 20)
    np.testing.assert_array_equal(windows[1], np.arange(2000.0, 4000.0).reshape(20, 20, 5) + 1)
    np.testing.assert_array_equal(corners, [[0, 0, 0], [1, 0, 0]])


def test_windows_of_air_are_left_out():
    sides = np.zeros((1, 60, 60, len(CHANNELS)), "float32")
    assert len(cut_windows(sides)[0]) == 0
    sides[0, 20:40, 20:40, 1] = 1
    _, corners = cut_windows(sides)
    assert len(corners) and (np.abs(corners[:, 1:] - 20) <= 16).all()


@pytest.mark.parametrize("pixel", [1.0, 2.0, 1.3])
def test_a_map_lies_on_its_scan_whatever_the_size_of_the_pixels(pixel, noisy):
    scan = slices(104, noise=0.1)
    n = round(60 * PIXEL / pixel)
    index = np.minimum(((np.arange(n) + 0.5) * pixel / PIXEL).astype(int), 59)
    fine = spotted(scan, [14])
    fine = Scan(
        "a",
        fine.dwi[:, index][:, :, index],
        None,
        scan.brain[:, index][:, :, index],
        (5.0, pixel, pixel),
    )
    found = surprise_map(noisy, fine, even=False)
    assert found.shape == fine.dwi.shape and found.dtype == np.float32
    z, row, column = np.unravel_index(found.argmax(), found.shape)
    assert z == 1 and abs(row * pixel - 56) < 8 and abs(column * pixel - 34) < 8
    assert not found[~fine.brain].any()


@pytest.fixture(scope="module")
def heads():
    return [simulate_case(seed) for seed in range(3)]


def test_neither_training_nor_map_look_at_the_mask(heads):
    blind = [replace(scan, lesion=None) for scan in heads]
    one, two = (fit_mirror_vae(scans[:2], epochs=2) for scans in (heads, blind))
    for ours, theirs in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(surprise_map(one, heads[2]), surprise_map(two, blind[2]))


def test_units_of_the_scanner_do_not_matter(heads):
    louder = replace(heads[0], dwi=3 * heads[0].dwi)
    np.testing.assert_allclose(both_sides(louder), both_sides(heads[0]), atol=2e-3)


def test_it_is_saved_and_loaded_by_keras(tmp_path, noisy):
    noisy.save(tmp_path / "vae.keras")
    again = keras.saving.load_model(tmp_path / "vae.keras")
    windows = windows_of([slices(105)], step=10)
    np.testing.assert_allclose(again.nats(windows), noisy.nats(windows), rtol=1e-5, atol=1e-6)
    assert again.beta == noisy.beta


def test_one_seed_gives_one_network(heads):
    windows = cut_windows(both_sides(heads[0]))[0]
    one, two, other = (train_mirror_vae(windows, epochs=1, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.nats(windows[:9]), two.nats(windows[:9]))
    assert not np.allclose(one.nats(windows[:9]), other.nats(windows[:9]))


def test_nobody_to_learn_from_is_refused():
    with pytest.raises(ValueError, match="scans must hold at least one patient, found none"):
        fit_mirror_vae([])


def test_no_pixel_can_be_certain():
    vae = build_mirror_vae(3, hidden_units=8)
    huge = 1e4 * np.random.default_rng(0).normal(size=(5, WINDOW, WINDOW, 3)).astype("float32")
    _, log_var = vae.decoder([ops.zeros((5, 3)), ops.convert_to_tensor(huge)])
    log_var = ops.convert_to_numpy(log_var)
    assert log_var.min() >= -5.0001 and log_var.max() <= 3.0001


# -- wide windows ----------------------------------------------------------------------------------


def test_wide_pixels_are_twice_as_large_and_nothing_in_them_is_darker_than_ordinary():
    scan = slices(0, symmetric=False)
    fine, wide = (both_sides(scan, wide=w, even=False, midline=MIDDLE) for w in (False, True))
    assert wide.shape == (SHAPE[0], SHAPE[1] // 2, SHAPE[2] // 2, 5)
    assert wide.min() >= 0 > fine[..., 0].min()
    # Brain is brain at either size, where it fills the pixel or none of it.
    blocks = fine[..., 1].reshape(SHAPE[0], 30, 2, 30, 2).mean(axis=(2, 4))
    whole = np.isin(blocks, (0, 1))
    np.testing.assert_array_equal(wide[..., 1][whole], blocks[whole])


@pytest.mark.parametrize("wide", [False, True])
def test_a_known_midline_is_that_of_the_scan_at_any_pixel_size(wide):
    scan = slices(1)  # its halves match about the middle of its columns
    sides = both_sides(scan, wide=wide, even=False, midline=MIDDLE)
    inside = (sides[..., 1] > 0.99) & (sides[..., 3] > 0.99)
    np.testing.assert_allclose(sides[inside][:, 0], sides[inside][:, 2], atol=0.02)


@pytest.mark.parametrize(("wide", "pixel"), [(False, PIXEL), (True, 2 * PIXEL)])
def test_a_window_around_a_patch_has_the_patch_in_its_middle(wide, pixel):
    sides = np.zeros((2, 60, 60, 5), "float32")
    row, column = 28, 56  # of the patch's first voxel, in mm
    first = int(row / pixel), int(column / pixel)
    n = int(28 / pixel)
    sides[1, first[0] : first[0] + n, first[1] : first[1] + n] = 1
    (window,) = windows_around(sides, np.array([[1, row, column]]), wide=wide)
    marked = np.argwhere(window[..., 0] > 0)
    assert len(marked) == n * n
    middle = (len(window) - 1) / 2
    np.testing.assert_allclose(marked.mean(axis=0), [middle, middle], atol=0.5)


def test_a_network_takes_the_windows_it_is_trained_on():
    windows, _ = cut_windows(both_sides(slices(2), wide=True, even=False, midline=MIDDLE), 7, 14)
    vae = train_mirror_vae(windows, epochs=1)
    assert vae.encode(windows)[0].shape == (len(windows), 5)
    assert vae.expect(windows[..., 2:])[0].shape == (len(windows), 14, 14)
    with pytest.raises(ValueError, match="fine windows of 20 pixels, found one of 14"):
        surprise_map(vae, slices(2), even=False, midline=MIDDLE)


# -- a patch in a few numbers ----------------------------------------------------------------------


@pytest.mark.parametrize("pixel", [PIXEL, 2 * PIXEL])
def test_a_patch_is_as_surprising_as_what_lies_beyond_two_tolerances_around_it(pixel):
    size = 20 if pixel == PIXEL else 14
    rng = np.random.default_rng(0)
    windows = rng.normal(size=(6, size, size, 5)).astype("float32")
    windows[..., 1] = rng.uniform(size=windows.shape[:3])
    windows[0, ..., 1] = 0  # air
    vae = build_mirror_vae(latent_dim=2, hidden_units=8, window=size)
    mean, deviation = vae.expect(windows[..., 2:])
    tolerances = (windows[..., 0] - mean) / deviation
    np.testing.assert_allclose(vae.surprise(windows), tolerances, rtol=1e-4, atol=1e-5)
    mm = pixel * (np.arange(size) - (size - 1) / 2)
    weight = norm.pdf(mm, scale=16)[:, None] * norm.pdf(mm, scale=16) * windows[1:, ..., 1]
    for beyond in (2, 0.5):
        tail = np.where(tolerances > beyond, tolerances - beyond, 0)[1:]
        expected = (weight * tail).sum(axis=(1, 2)) / weight.sum(axis=(1, 2))
        found = patch_surprise(vae, windows, **({} if beyond == 2 else {"beyond": beyond}))
        np.testing.assert_allclose(found[1:], expected, rtol=1e-3, atol=1e-6)
        assert found[0] == 0


def test_a_spot_surprises_its_own_patch_more_than_the_next_one():
    vae = build_mirror_vae(latent_dim=2, hidden_units=8, window=14)
    sides = np.zeros((1, 60, 60, 5), "float32")
    sides[..., 1] = sides[..., 3] = 1
    places = np.array([[0, 106, 106 + mm] for mm in (0, 28, 56)])  # the first has it in its middle
    before = patch_surprise(vae, windows_around(sides, places, wide=True))
    sides[0, 28:32, 28:32, 0] = 50
    gained = patch_surprise(vae, windows_around(sides, places, wide=True)) - before
    assert gained[0] > 1.5 * gained[1] > 0 == gained[2]


def test_the_code_of_a_patch_is_the_mean_of_four_windows_around_it():
    rng = np.random.default_rng(0)
    sides = rng.uniform(size=(3, 2, 40, 50, 5)).astype("float32")
    places = [np.array([[1, 28, 56]]), np.zeros((0, 3), int), np.array([[0, 0, 84], [1, 84, 0]])]
    vae = build_mirror_vae(latent_dim=3, hidden_units=8, window=14)
    expected = [
        np.mean(
            [
                vae.encode(windows_around(own, place[None] + (0, down, right), wide=True))[0][0]
                for down in (-4, 4)
                for right in (-4, 4)
            ],
            axis=0,
        )
        for own, of in zip(sides, places, strict=True)
        for place in of
    ]
    found = patch_codes(vae, iter(sides), iter(places))
    assert found.shape == (3, 3) and len(np.unique(found)) == 9
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("n", "m"), [(0, 0), (2, 1), (1, 2)])
def test_patches_are_of_the_patients_whose_sides_are_given(n, m):
    vae = build_mirror_vae(latent_dim=2, hidden_units=8, window=14)
    sides, places = np.ones((n, 1, 20, 20, 5), "float32"), np.zeros((m, 1, 3), int)
    with pytest.raises(ValueError, match=f"of the same patients, one or more; found {n} and {m}"):
        patch_codes(vae, sides, places)


@pytest.mark.parametrize("beyond", [np.nan, np.inf, -np.inf])
def test_what_is_beyond_is_beyond_a_number(beyond):
    vae = build_mirror_vae(latent_dim=2, hidden_units=8, window=14)
    with pytest.raises(ValueError, match="beyond must be a number of tolerances, found"):
        patch_surprise(vae, np.ones((1, 14, 14, 5)), beyond=beyond)


# -- what a user of Keras relies on ----------------------------------------------------------------

array = ops.convert_to_numpy
N = 120
WEIGHTS = np.tile(np.float32([0, 0.5, 1, 3]), N // 4)


@pytest.fixture(scope="module")
def seen():
    """Windows of 4 × 4 pixels, their brain's edge within."""
    rng = np.random.default_rng(4)
    windows = rng.normal(size=(N, 4, 4, len(CHANNELS))).astype("float32")
    windows[..., 1] = windows[..., 3] = 1
    windows[::3, :, 0, 1] = 0
    windows[::5, 0, :, 3] = 0
    return windows


@pytest.fixture
def half():
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


def small(*, optimizer="adam", seed=0, compiled=None, beta=1.0):
    """A small network, compiled; without noise, so that each window has one loss."""
    keras.utils.set_random_seed(seed)
    vae = build_mirror_vae(2, hidden_units=8, window=4, beta=beta)
    # To compile takes longer than these few steps, but on JAX.
    eager = {"run_eagerly": keras.backend.backend() != "jax"}
    vae.compile(optimizer=optimizer, **(eager if compiled is None else compiled))
    vae.sampling.call = lambda inputs: inputs[0]
    return vae


def drawn_from(vae, z, x):
    return map(array, vae.decoder([ops.convert_to_tensor(z), ops.convert_to_tensor(x[..., 2:])]))


def losses_of(vae, x, y=None):
    """The loss of each window, from the density of each of its pixels."""
    z_mean, z_log_var = vae.encode(x)
    mean, log_var = drawn_from(vae, z_mean, x)
    own, brain = np.moveaxis((x if y is None else y)[..., :2], -1, 0)
    spent = -norm.logpdf(own, mean, np.exp(log_var / 2)) * brain
    kl = 0.5 * (np.exp(z_log_var) + z_mean**2 - 1 - z_log_var).sum(axis=1)
    return spent.sum(axis=(1, 2)) + vae.beta * kl


SOURCES = [partial(source, size=40) for source in (Batches, as_tf_data)]


@pytest.mark.parametrize("beta", [0.0, 1.0, 4.0])
def test_the_loss_is_the_density_of_the_brain_and_beta_kl(seen, beta):
    vae = small(beta=beta)
    assert evaluated(vae, seen)["loss"] == pytest.approx(losses_of(vae, seen).mean(), rel=1e-4)


@pytest.mark.parametrize(
    "shape_of",
    [lambda w: w, lambda w: w[:, None], lambda w: w.astype(float), lambda w: w.tolist()],
    ids=["row", "column", "float64", "list"],
)
def test_a_weight_multiplies_the_loss_of_its_window(seen, shape_of):
    vae = small()
    logs = evaluated(vae, seen, sample_weight=shape_of(WEIGHTS))
    assert logs["loss"] == pytest.approx((WEIGHTS * losses_of(vae, seen)).mean(), rel=1e-4)
    assert logs["loss"] == pytest.approx(logs["reconstruction_loss"] + logs["kl_loss"], rel=1e-5)
    history = vae.fit(seen, sample_weight=shape_of(WEIGHTS), verbose=0).history
    assert history["loss"] != small().fit(seen, verbose=0).history["loss"]


@pytest.mark.parametrize("dtype", [bool, int, np.uint8])
def test_windows_of_no_weight_teach_nothing(seen, dtype):
    kept = np.arange(N) < N // 4
    vae, other = (small(optimizer="sgd") for _ in range(2))
    vae.fit(seen, sample_weight=kept.astype(dtype), batch_size=N, verbose=0)
    quarter = np.full(N // 4, 0.25)
    other.fit(seen[kept], sample_weight=quarter, batch_size=N, verbose=0)
    for one, same in zip(vae.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(one, same, atol=1e-5)
    untaught = small(optimizer="sgd")
    untaught.fit(seen, sample_weight=0 * kept, batch_size=N, verbose=0)
    for one, same in zip(untaught.get_weights(), small().get_weights(), strict=True):
        np.testing.assert_array_equal(one, same)


@pytest.mark.parametrize("source", SOURCES)
def test_batches_may_bring_targets_and_weights(seen, source):
    others = np.ascontiguousarray(seen[:, ::-1])
    for data, expected in (
        ((seen,), losses_of(small(), seen)),
        ((seen, others, WEIGHTS), WEIGHTS * losses_of(small(), seen, others)),
    ):
        vae = small()
        assert evaluated(vae, source(*data))["loss"] == pytest.approx(expected.mean(), rel=1e-4)
        x, y, weights = *data, *[None] * (3 - len(data))
        history = small().fit(x, y, 40, 1, 0, shuffle=False, sample_weight=weights).history
        again = vae.fit(source(*data), verbose=0, shuffle=False).history
        assert again == {name: pytest.approx(value, rel=1e-4) for name, value in history.items()}


def test_held_out_windows_have_targets_and_weights_too(seen):
    train, x, y, weights = seen[:60], seen[60:], seen[60:, ::-1].copy(), WEIGHTS[60:]
    for held_out in (x, (x, y), [x, y, weights], (x, None, weights)):
        vae = small()
        history = vae.fit(train, validation_data=held_out, verbose=0).history
        parts = held_out if isinstance(held_out, (tuple, list)) else (held_out,)
        expected = losses_of(vae, *parts[:2]) * (parts[2] if len(parts) > 2 else 1)
        assert history["val_loss"] == [pytest.approx(expected.mean(), rel=1e-4)]


def test_windows_drawn_from_themselves_need_no_target(seen):
    alone, itself, copied = (
        small().fit(*data, epochs=2, verbose=0).history
        for data in ((seen,), (seen, seen), (seen, seen.copy()))
    )
    assert alone == itself == copied


def test_targets_are_what_is_drawn(seen):
    """The other side says nothing of the own one; told to draw something else, it does."""
    vae = small(optimizer=keras.optimizers.Adam(1e-2), compiled={})
    targets = seen.copy()
    targets[..., 0] = 2 + 0.1 * targets[..., 0]
    vae.fit(seen, targets, epochs=60, verbose=0)
    mean, _ = vae.expect(seen[..., 2:])
    assert np.abs(mean[:, :, 1:] - 2).mean() < 0.4
    vae.fit(seen, epochs=60, verbose=0)
    assert np.abs(vae.expect(seen[..., 2:])[0][:, :, 1:]).mean() < 0.8


def hidden_layer(where, penalty):
    """A pair of networks of one layer with a penalty in one of them."""
    keras.utils.set_random_seed(0)
    windows, z, other = (keras.Input(shape) for shape in ((4, 4, 5), (2,), (4, 4, 3)))
    features = layers.Flatten()(windows)
    features = penalty(features) if where == "encoder" else features
    encoder = keras.Model(windows, [layers.Dense(2)(features) for _ in range(2)])
    features = layers.Concatenate()([z, layers.Flatten()(other)])
    features = penalty(features) if where == "decoder" else features
    parts = [layers.Reshape((4, 4))(layers.Dense(16)(features)) for _ in range(2)]
    return MirrorVAE(encoder, keras.Model([z, other], parts))


PENALTIES = {
    "kernel": lambda x: layers.Dense(4, kernel_regularizer=keras.regularizers.L2(1000))(x),
    "bias": lambda x: layers.Dense(
        4, bias_initializer="ones", bias_regularizer=keras.regularizers.L1(1000)
    )(x),
    "activity": lambda x: layers.Dense(4, activity_regularizer="l2")(x),
    "layer": layers.ActivityRegularization(l1=3.0),
}


@pytest.mark.parametrize("where", ["encoder", "decoder"])
@pytest.mark.parametrize("penalty", PENALTIES.values(), ids=PENALTIES)
def test_losses_of_layers_enter_the_loss(seen, penalty, where):
    vae = hidden_layer(where, penalty)
    vae.compile(optimizer="adam")
    logs = evaluated(vae, seen, batch_size=N)
    fitted = vae.fit(seen, batch_size=N, verbose=0).history
    for told in (logs, {name: values[0] for name, values in fitted.items()}):
        assert told["loss"] - told["reconstruction_loss"] - told["kl_loss"] > 0.01
    if where == "encoder":
        vae = hidden_layer(where, penalty)
        vae.compile(optimizer="adam")
        vae.encoder(seen)  # its losses are now those of these windows
        expected = sum(float(array(loss)) for loss in vae.encoder.losses)
        own = logs["reconstruction_loss"] + logs["kl_loss"]
        assert logs["loss"] - own == pytest.approx(expected, rel=1e-3)


def test_a_regulariser_holds_the_weights_down(seen):
    def trained(strength):
        hold = keras.regularizers.L2(strength)
        vae = hidden_layer("encoder", lambda x: layers.Dense(4, kernel_regularizer=hold)(x))
        vae.compile(optimizer=keras.optimizers.Adam(1e-2))
        vae.fit(seen, epochs=20, verbose=0)
        return np.abs(vae.encoder.get_weights()[0]).mean()

    assert trained(1000) < 0.2 * trained(0)


def test_metrics_compare_the_means_with_the_windows_own_side(seen, tmp_path):
    settings = {"metrics": ["mae", keras.metrics.MeanSquaredError()], "weighted_metrics": ["mse"]}
    vae = small(compiled=settings)
    z_mean, _ = vae.encode(seen)
    mean, _ = drawn_from(vae, z_mean, seen)
    off = seen[..., 1] * (mean - seen[..., 0])  # in the air nothing is off
    logs = evaluated(vae, seen, sample_weight=WEIGHTS)
    assert logs["mae"] == pytest.approx(np.abs(off).mean(), rel=1e-4)
    assert logs["mean_squared_error"] == pytest.approx(np.square(off).mean(), rel=1e-4)
    weighted = (np.square(off).mean(axis=(1, 2)) * WEIGHTS).sum() / WEIGHTS.sum()
    assert logs["mse"] == pytest.approx(weighted, rel=1e-3)
    history = vae.fit(seen, validation_data=(seen,), verbose=0).history
    assert {"mae", "val_mae", "mse", "val_mse", "val_mean_squared_error"} <= set(history)
    vae.save(tmp_path / "vae.keras")
    loaded = keras.saving.load_model(tmp_path / "vae.keras")
    loaded.sampling.call = lambda inputs: inputs[0]
    assert evaluated(loaded, seen) == pytest.approx(evaluated(vae, seen), rel=1e-5)
    assert int(loaded.optimizer.iterations) == int(vae.optimizer.iterations) > 0


@pytest.mark.parametrize(
    "given",
    [
        {"loss": "mse"},
        {"loss": keras.losses.MeanAbsoluteError()},
        {"loss": lambda x, drawn: 0 * x},
        {"loss": {"mean": "mse"}},
        {"loss_weights": [1.0]},
    ],
)
def test_another_loss_than_its_own_is_refused(given):
    for call in (lambda vae: vae.compile(**given), lambda vae: vae.compile("adam", **given)):
        with pytest.raises(ValueError, match=r"a VAE brings its own loss, .*: choose `beta`; fou"):
            call(small())


@pytest.mark.parametrize("weights", [{0: 1.0, 1: 5.0}, {0: 1.0}, {}])
def test_weights_of_classes_are_refused(seen, weights):
    for call in (
        lambda vae: vae.fit(seen, class_weight=weights),
        lambda vae: vae.fit(seen, np.zeros(N), class_weight=weights),
        lambda vae: vae.train_on_batch(seen, class_weight=weights),
    ):
        with pytest.raises(ValueError, match=r"class_weight must be None, .* by sample_weight"):
            call(small())


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16"])
def test_half_a_precision_is_enough_for_the_network_but_not_for_the_loss(
    seen, tmp_path, half, policy
):
    def built(policy):
        half(policy)
        vae = build_mirror_vae(2, hidden_units=8, window=4)
        vae.compile(optimizer=keras.optimizers.Adam(1e-3, epsilon=1e-4))
        vae.sampling.call = lambda inputs: inputs[0]
        return vae

    full, vae = built("float32"), built(policy)
    vae.set_weights(full.get_weights())
    expected = evaluated(full, seen)
    assert evaluated(vae, seen) == pytest.approx(expected, rel=0.02, abs=0.02)
    assert vae.fit(seen, epochs=3, verbose=0).history["loss"][-1] < expected["loss"] + 0.5
    codes = vae.encode(seen)
    drawn = vae.expect(seen[..., 2:])
    assert [part.dtype for part in (*codes, *drawn)] == [np.float32] * 4
    vae.save(tmp_path / "vae.keras")
    loaded = keras.saving.load_model(tmp_path / "vae.keras")
    for before, after in zip(codes, loaded.encode(seen), strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_network_of_ones_own_may_run_in_half_precision(seen, half):
    half("mixed_float16")
    vae = hidden_layer("encoder", layers.Dense(4))
    vae.compile(optimizer="adam", metrics=["mae"])
    assert np.isfinite(vae.fit(seen, epochs=2, verbose=0).history["loss"]).all()
    assert vae.encode(seen)[0].dtype == np.float32


@pytest.mark.filterwarnings("default")  # what the exporters of JAX and PyTorch warn of
@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
@pytest.mark.parametrize("learned", [True, False])
def test_an_exported_model_gives_the_same_codes_and_expects_the_same(
    seen, tmp_path, half, policy, learned
):
    half(policy)
    vae = build_mirror_vae(2, hidden_units=8, window=4)
    vae.compile(optimizer="adam")
    if learned:
        vae.fit(seen, epochs=1, verbose=0)
    z_mean, z_log_var = vae.encode(seen)
    mean, log_var = drawn_from(vae, z_mean, seen)
    expected = {"z_mean": z_mean, "z_log_var": z_log_var, "mean": mean, "log_var": log_var}
    given = exported(vae, str(tmp_path / "exported"), seen)
    assert set(given) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(given[name], values, atol=2e-3, err_msg=name)


def exported(vae, path, windows):
    """What the exported model says, without Keras."""
    if keras.backend.backend() == "torch":
        import torch

        vae.export(path + ".pt2", verbose=False)
        model = torch.export.load(path + ".pt2").module()
        told = [model(torch.from_numpy(windows[i : i + 1])) for i in range(len(windows))]
        return {k: np.concatenate([one[k].detach().numpy() for one in told]) for k in told[0]}
    import tensorflow as tf

    vae.export(path, verbose=False)
    loaded = tf.saved_model.load(path)
    return {name: np.asarray(value) for name, value in loaded.serve(windows).items()}


def test_callbacks_are_called(seen, tmp_path):
    kept = keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", monitor="val_loss")
    stop = keras.callbacks.EarlyStopping("val_loss", patience=0, min_delta=1e6)
    for callbacks in ([kept, stop], (kept, stop), stop):
        settings = {"validation_data": (seen,), "epochs": 9, "verbose": 0}
        assert small().fit(seen, callbacks=callbacks, **settings).epoch == [0, 1]
    assert keras.saving.load_model(tmp_path / "best.keras").encode(seen)[0].shape == (N, 2)


def test_one_batch_is_learned_from_and_judged_as_the_others_are(seen):
    others = seen[:, ::-1].copy()
    vae = small()
    expected = (WEIGHTS * losses_of(vae, seen, others)).mean()
    judged = vae.test_on_batch(seen, others, WEIGHTS, return_dict=True)
    assert judged["loss"] == pytest.approx(expected, rel=1e-4)
    vae.reset_metrics()
    learned = vae.train_on_batch(seen, others, sample_weight=WEIGHTS, return_dict=True)
    assert learned["loss"] == pytest.approx(expected, rel=1e-4)
    assert (WEIGHTS * losses_of(vae, seen, others)).mean() < expected


def test_predicting_is_encoding_and_expecting(seen):
    vae = small()
    told = vae.predict(seen, verbose=0, batch_size=32)
    np.testing.assert_allclose(told["z_mean"], vae.encode(seen)[0], atol=1e-5)
    mean, _ = drawn_from(vae, told["z_mean"], seen)
    np.testing.assert_allclose(told["mean"], mean, atol=1e-5)


# -- what a window can be --------------------------------------------------------------------------

ENTRANCES = {
    "train_mirror_vae": lambda vae, x: train_mirror_vae(x, epochs=1),
    "fit": lambda vae, x: vae.fit(x, verbose=0),
    "validation_data": lambda vae, x: vae.fit(np.ones((9, 4, 4, 5)), validation_data=(x,)),
    "targets": lambda vae, x: vae.fit(np.ones((N, 4, 4, 5)), x, verbose=0),
    "evaluate": lambda vae, x: vae.evaluate(x, verbose=0),
    "predict": lambda vae, x: vae.predict(x, verbose=0),
    "encode": lambda vae, x: vae.encode(x),
    "nats": lambda vae, x: vae.nats(x),
    "surprise": lambda vae, x: vae.surprise(x),
    "patch_surprise": lambda vae, x: patch_surprise(vae, x),
    "train_on_batch": lambda vae, x: vae.train_on_batch(x),
    "test_on_batch": lambda vae, x: vae.test_on_batch(x),
}


def with_value(value, channel):
    def put(x):
        x = x.copy()
        x[3, 2, 1, channel] = value
        return x

    return put


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (with_value(np.nan, 0), "must be finite, found 1 of 9600 values NaN or infinite"),
        (with_value(np.inf, 2), "must be finite, found 1 of 9600 values NaN or infinite"),
        (with_value(-np.inf, 4), "must be finite, found 1 of 9600 values NaN or infinite"),
        (with_value(255, 1), r"must hold 'own brain' as a share in \[0, 1\], .* found 0\.0 to 255"),
        (with_value(-1, 1), r"must hold 'own brain' as a share in .* found -1\.0 to 1\.0"),
        (lambda x: x.astype(object), "must hold real numbers, found dtype object"),
        (lambda x: x.astype(str), "must hold real numbers, found dtype"),
        (lambda x: x.astype(complex), "must hold real numbers, found dtype complex128"),
    ],
)
@pytest.mark.parametrize("enter", ENTRANCES.values(), ids=ENTRANCES)
def test_what_no_window_can_hold_is_refused(seen, enter, spoil, message):
    with pytest.raises(ValueError, match=message):
        enter(small(), spoil(seen))


@pytest.mark.parametrize(
    "dress",
    [
        lambda x: x.astype(float),
        lambda x: x.astype(np.float16),
        lambda x: x.astype(">f4"),
        lambda x: np.rint(x).astype(int),
        lambda x: np.repeat(x, 2, axis=0)[::2],
        lambda x: x * np.float32(1 + 1e-6),
    ],
)
def test_windows_may_come_in_any_type_of_number(seen, dress):
    x = dress(seen)
    expected = evaluated(small(), x.astype("float32"))
    assert evaluated(small(), x) == pytest.approx(expected, rel=1e-3)
    assert np.isfinite(small().fit(x, verbose=0).history["loss"]).all()


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    "spoil", [with_value(np.nan, 0), with_value(np.inf, 2), with_value(255, 1), with_value(-1, 1)]
)
def test_bad_windows_in_batches_stop_the_training_and_are_named(seen, source, spoil):
    data = source(spoil(seen))
    for call in (
        lambda vae: vae.fit(data, epochs=5, verbose=0, shuffle=False),
        lambda vae: vae.fit(seen, validation_data=data, epochs=5, verbose=0),
        lambda vae: vae.evaluate(data, verbose=0),
    ):
        with pytest.raises(ValueError, match=r"must be finite, found (nan|inf): the data set hold"):
            call(small())


def test_a_loss_that_grows_beyond_all_bounds_stops_the_training(seen):
    vae = small(optimizer=keras.optimizers.Adam(1e30))
    with pytest.raises(ValueError, match=r"loss in epoch [12] must be finite, .* learning_rate"):
        vae.fit(seen, epochs=9, verbose=0)
    with pytest.raises(ValueError, match=r"codes must be finite, found"):
        vae.encode(seen)


@pytest.mark.parametrize("enter", ENTRANCES.values(), ids=ENTRANCES)
def test_of_no_window_nothing_is_learned(seen, enter):
    if enter in [ENTRANCES[name] for name in ("encode", "nats", "surprise", "patch_surprise")]:
        assert len(enter(small(), seen[:0])) in (0, 2)  # no code of no window
        return
    with pytest.raises(ValueError, match=r"found none|found shape \(0, |one for each of 120 .* 0"):
        enter(small(), seen[:0])


@pytest.mark.parametrize("shape", [(9,), (9, 4, 4), (9, 4, 4, 3), (9, 4, 5, 5), (4, 4, 5), ()])
@pytest.mark.parametrize("enter", ENTRANCES.values(), ids=ENTRANCES)
def test_windows_of_another_shape_are_refused(enter, shape):
    if enter is ENTRANCES["train_mirror_vae"] and len(shape) == 4:
        return  # which builds its network for them
    with pytest.raises(ValueError, match=r"must have shape \(n, 4, 4, 5\), found|found shape \("):
        enter(small(), np.zeros(shape, "float32"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"y": np.zeros(N)}, r"^y must have shape \(n, 4, 4, 5\), found \(120,\)"),
        ({"y": np.zeros((N, 4, 4))}, r"^y must have shape \(n, 4, 4, 5\), found \(120, 4, 4\)"),
        ({"y": np.zeros((N - 1, 4, 4, 5))}, "^y must be one for each of 120 images, found 119"),
        ({"sample_weight": np.ones(N - 1)}, "^sample_weight must be one .* 120 images, found 119"),
        ({"sample_weight": np.ones((N, 4, 4))}, r"must have shape \(n,\), found \(120, 4, 4\)"),
        ({"sample_weight": 2.0}, r"sample_weight must have shape \(n,\), found \(\)"),
        ({"sample_weight": -WEIGHTS}, "^sample_weight must not be negative, found -3"),
        ({"sample_weight": np.full(N, np.nan)}, "must be finite, found 120 of 120 values"),
    ],
)
def test_targets_and_weights_that_do_not_fit_are_refused(seen, given, message):
    for call in (
        lambda vae: vae.fit(seen, **given),
        lambda vae: vae.evaluate(seen, **given),
        lambda vae: vae.train_on_batch(seen, **given),
    ):
        with pytest.raises(ValueError, match=message):
            call(small())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number of at least 1, found 0"),
        ({"epochs": 2.5}, r"epochs must be a whole number of at least 1, found 2\.5"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, found 0"),
        ({"batch_size": None}, "batch_size must be a whole number of at least 1, found None"),
        ({"beta": -1.0}, r"beta must be zero or more, found -1\.0"),
        ({"beta": np.nan}, "beta must be zero or more, found nan"),
    ],
)
def test_training_wants_epochs_batches_and_a_weight(seen, given, message):
    with pytest.raises(ValueError, match=message):
        train_mirror_vae(seen, **given)


def test_numbers_of_epochs_and_batches_may_be_of_any_type(seen):
    one = train_mirror_vae(seen, epochs=np.int64(2), batch_size=np.int32(50))
    np.testing.assert_array_equal(
        one.nats(seen), train_mirror_vae(seen, epochs=2, batch_size=50).nats(seen)
    )


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (np.zeros((3, 4, 4, 5)), r"other must have shape \(n, 4, 4, 3\), found \(3, 4, 4, 5\)"),
        (np.zeros((4, 4, 3)), r"other must have shape \(n, 4, 4, 3\), found \(4, 4, 3\)"),
        (np.full((3, 4, 4, 3), np.nan), "other must be finite, found 144 of 144"),
        (np.full((3, 4, 4, 3), "1"), "other must hold real numbers"),
    ],
)
def test_another_side_that_is_none_is_refused(other, message):
    with pytest.raises(ValueError, match=message):
        small().expect(other)


def test_a_window_beyond_the_slice_shows_air_however_far_it_lies():
    sides = np.ones((2, 30, 25, 5), np.float32)
    near = [[0, -20, 0], [1, 30, 0], [0, 0, -20], [1, 0, 25]]
    far = [[0, -50, 0], [1, 999, 0], [0, 0, -21], [1, 5, 400]]
    assert not windows_at(sides, np.array(near + far)).any()
    assert windows_at(sides, np.array([[0, -19, 0], [0, 29, 0]])).any(axis=(1, 2, 3)).all()
    for n_slice in (-1, 2):
        with pytest.raises(ValueError, match=r"corners must lie in slices 0 to 1, found 1 that do"):
            windows_at(sides, np.array([[n_slice, 0, 0]]))
