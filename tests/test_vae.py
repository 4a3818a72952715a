"""Facts about the variational autoencoder; the same on TensorFlow, JAX and PyTorch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm

from helpers.vae import (
    VAE,
    Sampling,
    build_conv_vae,
    build_dense_vae,
    fit_vae,
    keras,
    kl_divergence,
    kl_to_mixture,
    reconstruction_loss,
)

array = keras.ops.convert_to_numpy


def tensors(*arrays):
    return [keras.ops.convert_to_tensor(np.asarray(a, np.float32)) for a in arrays]


@pytest.fixture(scope="module")
def stripes():
    """Images of one vertical stripe whose place and brightness vary."""
    rng = np.random.default_rng(0)
    images = np.zeros((500, 8, 8), np.float32)
    for image, column, value in zip(
        images, rng.integers(8, size=500), rng.uniform(0.5, 1, 500), strict=True
    ):
        image[:, column] = value
    return images


def fitted(images, *, epochs=1, learning_rate=3e-3, **kwargs):
    keras.utils.set_random_seed(0)
    vae = build_dense_vae(2, input_shape=images.shape[1:], hidden_units=32, **kwargs)
    vae.compile(optimizer=keras.optimizers.Adam(learning_rate))
    history = vae.fit(images, epochs=epochs, batch_size=64, verbose=0)
    return vae, history.history


# --- the KL divergence ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mean", "log_var", "expected"),
    [(0, 0, 0), (1, 0, 0.5), (1, 1, (np.e - 1) / 2), (0, 1, (np.e - 2) / 2), (2, 0, 2)],
)
@pytest.mark.parametrize("latent_dim", [1, 5])
def test_kl_of_known_gaussians(mean, log_var, expected, latent_dim):
    shape = (3, latent_dim)
    kl = array(kl_divergence(np.full(shape, float(mean)), np.full(shape, float(log_var))))
    np.testing.assert_allclose(kl, np.full(3, latent_dim * expected), rtol=1e-5, atol=1e-6)


def test_kl_agrees_with_monte_carlo():
    rng = np.random.default_rng(0)
    mean, log_var = rng.normal(size=4), rng.normal(size=4)
    sd = np.exp(log_var / 2)
    z = mean + sd * rng.standard_normal((200_000, 4))
    log_ratio = (norm.logpdf(z, mean, sd) - norm.logpdf(z)).sum(axis=1)
    error = log_ratio.std() / np.sqrt(len(z))
    closed = float(array(kl_divergence(mean[None].astype("f4"), log_var[None].astype("f4")))[0])
    assert abs(closed - log_ratio.mean()) < 4 * error
    assert error < 0.02


# --- the KL divergence to a mixture -----------------------------------------------------------


def mixture_of(components, latent_dim, seed):
    """Mean and log-variance of two codes; log-weights, centres and log-variances of a mixture."""
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.ones(components))
    codes, centres = ((n, latent_dim) for n in (2, components))
    return (
        rng.normal(0, 2, codes),
        rng.normal(0, 0.7, codes),
        np.log(weights),
        rng.normal(0, 2, centres),
        rng.normal(0, 0.7, centres),
    )


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 5), st.integers(0, 99))
def test_to_one_component_the_bound_is_the_divergence(latent_dim, seed):
    mean, log_var, _, centre, spread = mixture_of(1, latent_dim, seed)
    bound, belongs = kl_to_mixture(*tensors(mean, log_var, [0.0], centre, spread))
    # Moved and scaled so that the component becomes N(0, I), nothing has changed.
    moved = tensors((mean - centre) / np.exp(spread / 2), log_var - spread)
    np.testing.assert_allclose(array(bound), array(kl_divergence(*moved)), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(array(belongs), 1, rtol=1e-5)
    standard = kl_to_mixture(*tensors(mean, log_var, [0.0], 0 * centre, 0 * spread))[0]
    plain = kl_divergence(*tensors(mean, log_var))
    np.testing.assert_allclose(array(standard), array(plain), rtol=1e-5, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 99))
def test_a_component_cut_in_pieces_is_the_same_component(latent_dim, pieces, seed):
    mean, log_var, _, centre, spread = mixture_of(1, latent_dim, seed)
    whole, _ = kl_to_mixture(*tensors(mean, log_var, [0.0], centre, spread))
    weights = np.random.default_rng(seed).dirichlet(np.full(pieces, 5.0))
    cut = (np.log(weights), np.repeat(centre, pieces, 0), np.repeat(spread, pieces, 0))
    bound, belongs = kl_to_mixture(*tensors(mean, log_var, *cut))
    np.testing.assert_allclose(array(bound), array(whole), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(array(belongs), np.tile(weights, (2, 1)), rtol=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_the_bound_is_never_below_the_divergence_to_the_mixture(seed):
    mean, log_var, log_weights, centres, spreads = mixture_of(3, 2, seed)
    bound, belongs = kl_to_mixture(*tensors(mean, log_var, log_weights, centres, spreads))
    np.testing.assert_allclose(array(belongs).sum(axis=1), 1, rtol=1e-5)
    rng = np.random.default_rng(seed)
    for m, sd, upper in zip(mean, np.exp(log_var / 2), array(bound), strict=True):
        z = m + sd * rng.standard_normal((20_000, 2))
        each = norm.logpdf(z[:, None], centres, np.exp(spreads / 2)).sum(axis=-1)
        log_ratio = norm.logpdf(z, m, sd).sum(axis=1) - logsumexp(each + log_weights, axis=1)
        error = log_ratio.std() / np.sqrt(len(z))
        assert upper > log_ratio.mean() - 4 * error
        # Nor is it above what the nearest single component would give.
        apart = [
            float(array(kl_to_mixture(*tensors([m], [2 * np.log(sd)], [0], [c], [s]))[0])[0])
            for c, s in zip(centres, spreads, strict=True)
        ]
        assert upper <= np.min(apart - log_weights) + 1e-3


def test_a_code_belongs_to_the_component_it_lies_in():
    centres = np.array([[-5.0, 0], [5, 0], [0, 40]])
    belongs = array(
        kl_to_mixture(
            *tensors(centres, np.zeros((3, 2)), np.log([0.2, 0.3, 0.5]), centres, 0 * centres)
        )[1]
    )
    np.testing.assert_allclose(belongs, np.eye(3), atol=1e-4)
    between = kl_to_mixture(
        *tensors([[0, 0]], [[0, 0]], np.log([0.25, 0.75]), centres[:2], 0 * centres[:2])
    )
    np.testing.assert_allclose(array(between[1]), [[0.25, 0.75]], rtol=1e-5)


# --- the reconstruction loss ------------------------------------------------------------------


@pytest.mark.parametrize("x", [0.0, 0.3, 1.0])
def test_bernoulli_loss_at_one_half_is_log_2_a_pixel(x):
    images = np.full((2, 28, 28), x, np.float32)
    loss = array(reconstruction_loss(images, np.full_like(images, 0.5)))
    np.testing.assert_allclose(loss, 784 * np.log(2), rtol=1e-5)
    assert round(784 * np.log(2), 2) == 543.43


def test_bernoulli_loss_is_smallest_where_the_decoder_is_right():
    x = np.linspace(0.05, 0.95, 10, dtype=np.float32)
    loss = [
        array(reconstruction_loss(x[:, None], np.clip(x + shift, 0.01, 0.99)[:, None])).sum()
        for shift in (-0.04, 0.0, 0.04)
    ]
    assert loss[1] < loss[0] and loss[1] < loss[2]


def test_bernoulli_loss_of_a_confident_mistake_is_large_but_finite():
    loss = array(reconstruction_loss(np.ones((1, 4), "f4"), np.zeros((1, 4), "f4")))
    assert np.isfinite(loss).all() and loss[0] > 4 * 10


def test_gaussian_loss_is_minus_the_log_density():
    rng = np.random.default_rng(0)
    x, mean = rng.normal(size=(2, 5, 3, 3)).astype(np.float32)
    expected = -norm.logpdf(x, mean, 1).sum(axis=(1, 2))
    np.testing.assert_allclose(array(reconstruction_loss(x, mean, "gaussian")), expected, rtol=1e-5)


@pytest.mark.parametrize("variance", [0.01, 1.0, 30.0])
def test_a_gaussian_loss_of_any_variance_is_minus_the_log_density(variance):
    rng = np.random.default_rng(0)
    x, mean = rng.normal(size=(2, 5, 3, 3)).astype(np.float32)
    expected = -norm.logpdf(x, mean, variance**0.5).sum(axis=(1, 2))
    loss = reconstruction_loss(x, mean, "learned_gaussian", np.float32(np.log(variance)))
    np.testing.assert_allclose(array(loss), expected, rtol=1e-4)


PROBABILITIES = (1e-4, 0.03, 0.3, 0.489, 0.4901, 0.499, 0.5, 0.500001, 0.5101, 0.52, 0.9, 0.9999)


def continuous_bernoulli(x, probability):
    x = np.asarray(x, np.float32)[:, None]
    return array(reconstruction_loss(x, np.full_like(x, probability), "continuous_bernoulli"))


@pytest.mark.parametrize("probability", PROBABILITIES)
def test_the_continuous_bernoulli_is_a_density_on_0_to_1(probability):
    x = np.linspace(0, 1, 10_001)
    density = np.exp(-continuous_bernoulli(x, probability))
    assert np.trapezoid(density, x) == pytest.approx(1, rel=2e-3)


def test_the_plain_bernoulli_is_none():
    x = np.linspace(0, 1, 10_001, dtype=np.float32)[:, None]
    density = np.exp(-array(reconstruction_loss(x, np.full_like(x, 0.5))))
    assert np.trapezoid(density, x[:, 0]) == pytest.approx(0.5, rel=1e-3)


def test_the_continuous_bernoulli_at_one_half_is_the_uniform_distribution():
    np.testing.assert_allclose(continuous_bernoulli(np.linspace(0, 1, 11), 0.5), 0, atol=1e-6)


@pytest.mark.parametrize("probability", [0.0, *PROBABILITIES, 1.0])
def test_the_gradient_of_the_continuous_bernoulli_is_finite_and_0_at_its_mean(probability):
    lowest = np.clip(probability, 1e-6, 1 - 1e-6)
    off = 1 - 2 * lowest
    mean = 0.5 if abs(off) < 1e-3 else 1 / (2 * np.arctanh(off)) - lowest / off

    def loss_of(x, decoded):
        return keras.ops.sum(reconstruction_loss(x, decoded, "continuous_bernoulli"))

    for x in (0.0, 0.5, 1.0):
        pixels = np.float32([[x]]), np.float32([[probability]])
        assert all(np.isfinite(g).all() for g in gradients(loss_of, pixels))
    if 0 < probability < 1:  # the mean grows with the probability, and so decides its sign
        signs = [
            gradients(loss_of, [np.float32([[x]]), np.float32([[probability]])])[1].item()
            for x in (mean + 0.01, mean - 0.01)
        ]
        assert signs[0] < 0 < signs[1]


# --- the sampling trick -----------------------------------------------------------------------


def test_samples_have_the_mean_and_variance_asked_for():
    mean = np.tile(np.array([[1.0, -2.0]], np.float32), (20_000, 1))
    log_var = np.tile(np.log(np.array([[4.0, 0.25]], np.float32)), (20_000, 1))
    z = array(Sampling()([mean, log_var]))
    np.testing.assert_allclose(z.mean(axis=0), [1, -2], atol=0.06)
    np.testing.assert_allclose(z.std(axis=0), [2, 0.5], rtol=0.03)


def gradients(loss_of, variables):
    """The gradient of a scalar, by whichever library Keras runs on."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        tensors = [tf.constant(v) for v in variables]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            loss = loss_of(*tensors)
        return [g.numpy() for g in tape.gradient(loss, tensors)]
    if backend == "jax":
        import jax

        return [np.asarray(g) for g in jax.grad(loss_of, argnums=(0, 1))(*variables)]
    import torch

    tensors = [torch.tensor(v, requires_grad=True) for v in variables]
    loss_of(*tensors).backward()
    return [t.grad.numpy() for t in tensors]


def test_gradients_pass_through_the_sample():
    keras.utils.set_random_seed(0)
    sampling = Sampling()
    start = array(sampling.seed_generator.state).copy()
    target = keras.ops.convert_to_tensor(np.array([[0.5, -1.0, 2.0]], np.float32))

    def loss_of(mean, log_var):
        sampling.seed_generator.state.assign(start)  # the same noise every time
        return keras.ops.sum(keras.ops.square(sampling([mean, log_var]) - target))

    mean = np.array([[0.3, -0.2, 0.9]], np.float32)
    log_var = np.array([[0.1, -0.7, 0.4]], np.float32)
    analytic = gradients(loss_of, [mean, log_var])
    step = 1e-2
    for which in (0, 1):
        for axis in range(3):
            ends = []
            for sign in (1, -1):
                moved = [mean.copy(), log_var.copy()]
                moved[which][0, axis] += sign * step
                ends.append(float(array(loss_of(*map(keras.ops.convert_to_tensor, moved)))))
            numeric = (ends[0] - ends[1]) / (2 * step)
            assert analytic[which][0, axis] == pytest.approx(numeric, rel=1e-2, abs=1e-2)
    assert all(np.abs(g).max() > 0.1 for g in analytic)


# --- the model --------------------------------------------------------------------------------


def linear_gaussian_vae(W, b, posterior_mean_matrix, posterior_log_var):
    """x = W z + b + unit noise, with an encoder that knows the exact posterior."""
    n_pixels, latent_dim = W.shape
    images, z = keras.Input((n_pixels,)), keras.Input((latent_dim,))
    to_mean = keras.layers.Dense(latent_dim)
    to_log_var = keras.layers.Dense(latent_dim)
    to_pixels = keras.layers.Dense(n_pixels)
    encoder = keras.Model(images, [to_mean(images), to_log_var(images)])
    decoder = keras.Model(z, to_pixels(z))
    to_mean.set_weights([posterior_mean_matrix.T, -posterior_mean_matrix @ b])
    to_log_var.set_weights([np.zeros((n_pixels, latent_dim)), posterior_log_var])
    to_pixels.set_weights([W.T, b])
    return VAE(encoder, decoder, likelihood="gaussian")


def test_elbo_meets_the_exact_log_likelihood_of_a_linear_gaussian_model():
    # With orthogonal columns in W the posterior is a diagonal Gaussian, so the bound is tight.
    rng = np.random.default_rng(0)
    W = np.linalg.qr(rng.normal(size=(6, 2)))[0] * [2.0, 0.7]
    b = rng.normal(size=6)
    precision = np.eye(2) + W.T @ W
    vae = linear_gaussian_vae(W, b, np.linalg.solve(precision, W.T), -np.log(np.diag(precision)))
    vae.compile(optimizer="adam")

    x = (rng.normal(size=(50, 2)) @ W.T + b + rng.normal(size=(50, 6))).astype(np.float32)
    exact = multivariate_normal(b, W @ W.T + np.eye(6)).logpdf(x).mean()
    elbo = [
        -vae.evaluate(np.repeat(x, 40, axis=0), verbose=0, return_dict=True)["loss"]
        for _ in range(10)
    ]
    error = np.std(elbo) / np.sqrt(len(elbo))
    assert abs(np.mean(elbo) - exact) < 5 * error + 1e-3
    assert error < 0.05

    # A worse posterior can only lower the bound.
    vae.encoder.layers[-1].set_weights([np.zeros((6, 2)), np.zeros(2)])
    assert -vae.evaluate(x, verbose=0, return_dict=True)["loss"] < exact - 0.1


@pytest.mark.parametrize("beta", [0.0, 1.0, 4.0])
def test_loss_is_reconstruction_plus_beta_kl(stripes, beta):
    vae, history = fitted(stripes, beta=beta)
    for logs in (
        {key: values[-1] for key, values in history.items()},
        vae.evaluate(stripes, verbose=0, return_dict=True),
    ):
        expected = logs["reconstruction_loss"] + beta * logs["kl_loss"]
        assert logs["loss"] == pytest.approx(expected, rel=1e-5)


def test_the_reported_loss_does_not_depend_on_how_batches_fall(stripes):
    vae, _ = fitted(stripes, epochs=5)
    # Take the noise away, so that only the averaging is left to differ.
    vae.sampling.call = lambda inputs: inputs[0]
    whole, ragged = (
        vae.evaluate(stripes, batch_size=size, verbose=0, return_dict=True) for size in (500, 64)
    )
    assert 500 % 64
    for key in whole:
        assert ragged[key] == pytest.approx(whole[key], rel=1e-4)


@pytest.mark.parametrize("build", [build_dense_vae, build_conv_vae])
def test_a_trained_model_beats_the_mean_image(stripes, build):
    keras.utils.set_random_seed(0)
    vae = build(2, input_shape=(8, 8))
    vae.compile(optimizer=keras.optimizers.Adam(3e-3))
    vae.fit(stripes[:400], epochs=40, batch_size=50, verbose=0)
    held_out = stripes[400:]
    mean_image = np.broadcast_to(stripes[:400].mean(axis=0), held_out.shape)
    collapsed = array(reconstruction_loss(held_out, mean_image.astype(np.float32))).mean()
    assert vae.evaluate(held_out, verbose=0, return_dict=True)["loss"] < 0.95 * collapsed


def test_a_saved_model_gives_identical_latents(stripes, tmp_path):
    vae, _ = fitted(stripes, beta=2.0)
    vae.save(tmp_path / "vae.keras")
    loaded = keras.saving.load_model(tmp_path / "vae.keras")
    assert loaded.beta == 2.0 and loaded.likelihood == "bernoulli"
    for before, after in zip(vae.encode(stripes), loaded.encode(stripes), strict=True):
        np.testing.assert_array_equal(before, after)
    np.testing.assert_array_equal(vae.sample(3, seed=1), loaded.sample(3, seed=1))


def test_one_seed_gives_one_model(stripes):
    first, second = (fitted(stripes)[0].encode(stripes)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_samples_come_from_the_decoder_and_follow_the_seed(stripes):
    vae, _ = fitted(stripes)
    noise = np.random.default_rng(3).standard_normal((4, 2)).astype(np.float32)
    np.testing.assert_array_equal(vae.sample(4, seed=3), vae.decode(noise))
    assert not np.array_equal(vae.sample(4, seed=3), vae.sample(4, seed=4))


# --- a learned variance -----------------------------------------------------------------------


def test_the_learned_variance_approaches_that_of_the_noise():
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(1000, 1)) @ rng.normal(size=(1, 16))
    x = (signal + 0.4 * rng.standard_normal(signal.shape)).astype(np.float32)
    vae, _ = fitted(x, likelihood="learned_gaussian", epochs=25, learning_rate=1e-2)
    assert np.exp(float(array(vae.log_var))) == pytest.approx(0.4**2, rel=0.15)


@pytest.mark.parametrize("likelihood", ["bernoulli", "continuous_bernoulli", "gaussian"])
def test_no_other_likelihood_learns_a_variance(likelihood):
    vae = build_dense_vae(2, input_shape=(4,), likelihood=likelihood)
    assert float(array(vae.log_var)) == 0 and not vae.log_var.trainable


# --- a mixture for a prior --------------------------------------------------------------------


@pytest.fixture(scope="module")
def clouds():
    """Two clouds in eight dimensions, 300 points and 100; which of them each point is from."""
    rng = np.random.default_rng(0)
    which = np.repeat([0, 1], [300, 100])
    centres = 3 * rng.normal(size=(2, 8))
    points = centres[which] + 0.5 * rng.standard_normal((400, 8))
    return points.astype(np.float32), which, centres


@pytest.fixture(scope="module")
def two_components(clouds):
    keras.utils.set_random_seed(0)
    settings = {"hidden_units": 16, "likelihood": "gaussian", "components": 2}
    vae = build_dense_vae(2, input_shape=(8,), **settings)
    history = fit_vae(vae, clouds[0], epochs=30, batch_size=50, learning_rate=1e-2)
    return vae, history


def test_two_components_find_two_clouds(clouds, two_components):
    points, which, centres = clouds
    vae, history = two_components
    belongs = vae.belonging(points)
    np.testing.assert_allclose(belongs.sum(axis=1), 1, rtol=1e-5)
    found = belongs.argmax(axis=1)
    assert max((found == which).mean(), (found != which).mean()) > 0.98
    assert sorted(np.bincount(found) / 400) == pytest.approx([0.25, 0.75], abs=0.02)
    new = vae.sample(400, seed=0)
    nearest = np.square(new[:, None] - centres).sum(axis=-1).argmin(axis=1)
    assert np.bincount(nearest) / 400 == pytest.approx([0.75, 0.25], abs=0.1)
    assert all(len(values) == 30 for values in history.values())
    assert history["loss"][-1] < history["loss"][9]


def test_a_saved_mixture_keeps_its_prior(clouds, two_components, tmp_path):
    vae, _ = two_components
    vae.save(tmp_path / "vae.keras")
    loaded = keras.saving.load_model(tmp_path / "vae.keras")
    assert (loaded.components, loaded.likelihood) == (2, "gaussian")
    np.testing.assert_array_equal(loaded.belonging(clouds[0]), vae.belonging(clouds[0]))
    np.testing.assert_array_equal(loaded.sample(5, seed=1), vae.sample(5, seed=1))


def test_a_prior_of_one_component_is_the_standard_one_and_stays_it(stripes):
    keras.utils.set_random_seed(0)
    vae = build_dense_vae(2, input_shape=(8, 8))
    vae.compile(optimizer="adam")
    networks = vae.encoder.trainable_variables + vae.decoder.trainable_variables
    assert len(vae.trainable_variables) == len(networks)
    vae.sampling.call = lambda inputs: inputs[0]  # no noise
    logs = vae.evaluate(stripes, verbose=0, return_dict=True)
    mean, log_var = vae.encode(stripes)
    kl = array(kl_divergence(mean, log_var))
    assert kl.mean() > 0.02
    assert logs["kl_loss"] == pytest.approx(kl.mean(), rel=1e-4)
    reconstruction = array(reconstruction_loss(stripes, vae.decode(mean)))
    assert logs["loss"] == pytest.approx((reconstruction + kl).mean(), rel=1e-4)
    np.testing.assert_array_equal(vae.belonging(stripes), np.ones((500, 1)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: reconstruction_loss(np.ones((2, 3)), np.ones((2, 4))), r"\(2, 3\), .* \(2, 4\)"),
        (lambda: reconstruction_loss(np.ones((2, 3)), np.ones((2, 3)), "poisson"), "'poisson'"),
        (lambda: build_dense_vae(likelihood="poisson"), "'poisson'"),
        (lambda: build_dense_vae(beta=-1), "beta must be zero or more, found -1"),
        (lambda: build_dense_vae(components=0), "whole number from 1, found 0"),
        (lambda: build_conv_vae(components=2.0), r"whole number from 1, found 2\.0"),
        (lambda: build_dense_vae(components=True), "whole number from 1, found True"),
        (lambda: build_conv_vae(input_shape=(27, 28)), r"multiples of 4, found \(27, 28\)"),
        (lambda: build_dense_vae().encode(np.ones((2, 27, 28))), r"\(n, 28, 28\), found"),
        (lambda: build_dense_vae(2).decode(np.ones((2, 3))), r"\(n, 2\), found \(2, 3\)"),
        (
            lambda: VAE(build_dense_vae().encoder, build_dense_vae(input_shape=(8, 8)).decoder),
            r"\(None, 28, 28\), the decoder returns \(None, 8, 8\)",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_mixture_prior_wants_epochs_and_more_than_one_component():
    x = np.zeros((20, 6), np.float32)
    build = {"input_shape": (6,), "hidden_units": 4, "likelihood": "gaussian"}
    with pytest.raises(ValueError, match="at least 3 epochs, found 2"):
        fit_vae(build_dense_vae(2, components=2, **build), x, epochs=2)
    with pytest.raises(ValueError, match="nothing to initialise"):
        build_dense_vae(2, **build).initialise_prior(x)
