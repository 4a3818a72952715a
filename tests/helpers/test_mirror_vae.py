"""Facts about the VAE that is told the other side; the same on TensorFlow, JAX and PyTorch."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import multivariate_normal

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
    surprise_map,
    train_mirror_vae,
    windows_around,
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
    mean, deviation = noisy.expect(windows[..., 2:])
    surprise = ((windows[..., 0] - mean) / deviation)[windows[..., 1] == 1]
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
