"""Facts about the variational autoencoder; the same on TensorFlow, JAX and PyTorch."""

import logging
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm

from helpers.vae import (
    LIKELIHOODS,
    VAE,
    Sampling,
    build_conv_vae,
    build_dense_vae,
    fit_and_encode,
    fit_dense_vae,
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


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("shape", [(5, 4), (4,), ()])
def test_each_pixel_counts_by_its_weight(likelihood, shape):
    rng = np.random.default_rng(0)
    x, decoded = rng.random((2, 3, 5, 4)).astype("float32")
    weight = rng.random(shape).astype("float32")
    each = [
        [
            reconstruction_loss(x[:, r : r + 1, c], decoded[:, r : r + 1, c], likelihood)
            for c in range(4)
        ]
        for r in range(5)
    ]
    each = np.moveaxis([[array(loss) for loss in row] for row in each], 2, 0)
    loss = array(reconstruction_loss(x, decoded, likelihood, weight=weight))
    np.testing.assert_allclose(loss, (weight * each).sum(axis=(1, 2)), rtol=1e-4)


def test_a_pixel_that_no_likelihood_takes_is_not_hidden_by_its_weight():
    x = np.full((1, 2, 2), 0.5, "float32")
    x[0, 0, 0] = np.nan
    for likelihood in LIKELIHOODS:
        loss = reconstruction_loss(*tensors(x, 0 * x + 0.5), likelihood, weight=np.eye(2)[::-1])
        assert np.isnan(array(loss)).all()


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


@pytest.mark.parametrize("probability", [0.4901, 0.4905, 0.5095, 0.5101])
def test_near_one_half_the_power_series_is_the_closed_form(probability):
    x, off = np.linspace(0, 1, 5), 1 - 2 * probability
    density = np.log(2 * np.arctanh(off) / off)
    density += x * np.log(probability) + (1 - x) * np.log(1 - probability)
    np.testing.assert_allclose(continuous_bernoulli(x, probability), -density, atol=5e-6)


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


def linear_gaussian_vae(W, b, posterior_mean_matrix, posterior_log_var, **settings):
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
    return VAE(encoder, decoder, likelihood="gaussian", **settings)


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


DENSE = [(784, 256), (256, 2), (256, 2)], [(2, 256), (256, 784)]
CONV = (
    [(3, 3, 1, 32), (3, 3, 32, 64), (7 * 7 * 64, 2), (7 * 7 * 64, 2)],
    [(2, 7 * 7 * 64), (3, 3, 64, 64), (3, 3, 32, 64), (3, 3, 32, 1)],
)


@pytest.mark.parametrize(("build", "expected"), [(build_dense_vae, DENSE), (build_conv_vae, CONV)])
def test_the_networks_are_those_of_the_book(build, expected):
    """Pixels, hidden layers, two latent axes and back; each layer's weights, but for its biases."""
    vae = build()
    assert (vae.beta, vae.likelihood, vae.components) == (1, "bernoulli", 1)
    for network, shapes in zip((vae.encoder, vae.decoder), expected, strict=True):
        assert [w.shape for w in network.get_weights() if w.ndim > 1] == shapes
        # The sigmoid is a layer of its own, so that Keras finds what goes into it.
        n_relu, last = (2, ["linear"] * 2) if network is vae.encoder else (1, ["linear", "sigmoid"])
        activations = [a.__name__ for i in network.layers if (a := getattr(i, "activation", None))]
        assert activations == ["relu"] * (len(shapes) - n_relu) + last


@pytest.mark.parametrize("build", [build_dense_vae, build_conv_vae])
def test_summaries_call_each_part_by_its_name(build):
    vae = build()
    assert (vae.encoder.name, vae.decoder.name) == ("encoder", "decoder")
    assert (vae.encoder.inputs[0].name, vae.decoder.inputs[0].name) == ("images", "z")
    assert vae.encoder.output_names == ["z_mean", "z_log_var"]
    parameters = {"prior_logits", "prior_means", "prior_log_vars", "log_var"}
    assert parameters <= {weight.name for weight in vae.weights}
    networks = vae.encoder.count_params() + vae.decoder.count_params()
    assert vae.count_params() == networks + 1 + 2 + 2 + 1  # before it has seen an image


@pytest.mark.parametrize("build", [build_dense_vae, build_conv_vae])
def test_what_is_asked_for_is_built(build):
    vae = build(3, input_shape=(8, 12), beta=2, likelihood="gaussian", components=4)
    assert (vae.beta, vae.likelihood, vae.components) == (2, "gaussian", 4)
    assert vae.prior_means.shape == (4, 3) and vae.prior_logits.shape == (4,)
    images = 9 * np.ones((2, 8, 12), np.float32)
    mean, log_var = vae.encode(images)
    assert mean.shape == log_var.shape == (2, 3) and vae.decode(mean).shape == (2, 8, 12)
    for variable in vae.decoder.weights[-2:]:
        variable.assign(variable + 9)
    assert np.abs(vae.decode(mean)).max() > 1  # no sigmoid holds a Gaussian's mean


def test_dropout_is_for_training_only():
    def dropped_out(inputs, *units):
        hidden = keras.layers.Dropout(0.5)(keras.layers.Dense(64, "relu")(inputs))
        return keras.Model(inputs, [keras.layers.Dense(n)(hidden) for n in units])

    encoder = dropped_out(keras.Input((6,)), 2, 2)
    decoder = dropped_out(keras.Input((2,)), 6)
    decoder = keras.Model(decoder.inputs, decoder.outputs[0])
    vae = VAE(encoder, decoder, likelihood="gaussian")
    assert (vae.beta, vae.components) == (1, 1)
    vae.sampling.call = lambda inputs: 0 * inputs[0] + 1  # no noise, and the same code for all
    x = np.ones((1, 6), np.float32)
    once, again = (vae(x, training=True) for _ in range(2))
    for name in ("z_mean", "decoded"):
        assert not np.array_equal(array(once[name]), array(again[name]))
    np.testing.assert_array_equal(array(vae(x)["z_mean"]), vae.encode(x)[0])
    np.testing.assert_array_equal(array(vae(x)["decoded"]), vae.decode(np.ones((1, 2), "f4")))


@pytest.mark.parametrize("n", [0, 1, 1024, 2500])
def test_many_images_are_encoded_as_each_alone(n):
    vae = build_dense_vae(2, input_shape=(4,), hidden_units=8)
    x = np.random.default_rng(0).random((n, 4), dtype=np.float32)
    mean, log_var = vae.encode(x)
    assert mean.shape == log_var.shape == (n, 2) and vae.decode(mean).shape == (n, 4)
    for i in range(0, n, 500):
        np.testing.assert_allclose(vae.encode(x[i : i + 1])[0][0], mean[i], atol=1e-6)


@pytest.mark.parametrize(("set_already", "expected"), [(None, "3"), ("5", "5")])
def test_tensorflow_takes_no_more_cores_than_joblib_gives(set_already, expected):
    environment = {**os.environ, "OMP_NUM_THREADS": "3"}
    environment.pop("TF_NUM_INTRAOP_THREADS", None)
    if set_already:
        environment["TF_NUM_INTRAOP_THREADS"] = set_already
    code = "import os, helpers.vae; print(os.environ['TF_NUM_INTRAOP_THREADS'])"
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert ran.stdout.split() == [expected], ran.stderr


# --- training as the chapters do --------------------------------------------------------------


def test_fitting_takes_the_epochs_and_batches_it_says(stripes, capsys):
    vae = build_dense_vae(2, input_shape=(8, 8), hidden_units=8)
    history = fit_vae(vae, stripes[:450])
    assert {len(values) for values in history.values()} == {4}
    assert set(history) == {"loss", "reconstruction_loss", "kl_loss"}
    assert int(vae.optimizer.iterations) == 4 * 5  # batches of 100
    if keras.backend.backend() == "tensorflow":  # training too short to be worth compiling
        assert (vae.steps_per_execution, vae.jit_compile) == (5, False)
    assert capsys.readouterr().out == ""
    schedule = vae.optimizer.get_config()["learning_rate"]["config"]
    assert schedule["initial_learning_rate"] == pytest.approx(6e-3)
    assert schedule["decay_steps"] == 4 * 5
    assert float(array(vae.optimizer.learning_rate)) == pytest.approx(0, abs=1e-6)
    history = fit_vae(vae, stripes, epochs=3, batch_size=100, validation=stripes[:50])
    assert int(vae.optimizer.iterations) == 3 * 5
    assert len(history["val_loss"]) == 3
    vae.sampling.call = lambda inputs: inputs[0]  # no noise
    vae.compile()
    held_out = vae.evaluate(stripes[:50], verbose=0, return_dict=True)["kl_loss"]
    assert history["val_kl_loss"][-1] == pytest.approx(held_out, rel=1e-4)


class Tens(keras.utils.PyDataset):
    """The images in batches of ten; it notes which it was asked for."""

    def __init__(self, images):
        super().__init__()
        self.images, self.asked = images, []

    def __len__(self):
        return len(self.images) // 10

    def __getitem__(self, i):
        self.asked.append(i)
        return (self.images[10 * i : 10 * i + 10],)


def test_a_data_set_is_taken_in_its_own_batches_and_order(stripes):
    vae, data = build_dense_vae(2, input_shape=(8, 8), hidden_units=8), Tens(stripes[:60])
    assert len(fit_vae(vae, data, epochs=2)["loss"]) == 2
    assert data.asked[-12:] == 2 * [0, 1, 2, 3, 4, 5]
    assert int(vae.optimizer.iterations) == 12
    assert vae.optimizer.get_config()["learning_rate"]["config"]["decay_steps"] == 12
    assert vae.steps_per_execution == 1  # there may be no room for an epoch


def test_a_dense_vae_is_built_and_fitted_in_one_call(stripes):
    train, held_out = stripes[:450], stripes[450:]
    keras.utils.set_random_seed(0)
    vae = build_dense_vae(5, input_shape=(8, 8))
    expected = fit_vae(vae, train, validation=held_out)
    vae, history = fit_dense_vae(train, held_out)
    assert history == expected and vae.prior_means.shape == (1, 5)


def test_fitting_and_encoding_are_three_steps_in_one(stripes):
    train, test = stripes[:300], stripes[300:]
    keras.utils.set_random_seed(7)
    vae = build_dense_vae(5, input_shape=(8, 8), hidden_units=16, beta=2.0)
    fit_vae(vae, train, epochs=4, batch_size=50)
    settings = {"epochs": 4, "batch_size": 50, "hidden_units": 16, "beta": 2.0}
    for codes, images in zip(
        fit_and_encode(train, test, seed=7, **settings), (train, test), strict=True
    ):
        np.testing.assert_array_equal(codes, vae.encode(images)[0])


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


def seeing_codes(components):
    """A VAE whose images are its codes: encoder and decoder change nothing."""
    return linear_gaussian_vae(
        np.eye(2), np.zeros(2), np.eye(2), np.full(2, -9), components=components
    )


def test_the_prior_starts_where_the_codes_cluster_and_samples_follow_it():
    rng = np.random.default_rng(0)
    sizes, centres, spreads = [600, 200, 200], [[-4, 0], [4, 1], [0, 9]], [0.5, 1.0, 0.25]
    clouds = [rng.normal(c, s, (n, 2)) for n, c, s in zip(sizes, centres, spreads, strict=True)]
    vae = seeing_codes(3)
    vae.initialise_prior(np.concatenate(clouds).astype(np.float32))
    order = [
        int(np.square(array(vae.prior_means) - centre).sum(axis=1).argmin()) for centre in centres
    ]
    assert sorted(order) == [0, 1, 2]
    np.testing.assert_allclose(array(vae.prior_means)[order], centres, atol=0.2)
    weights = np.exp(array(vae.prior_logits))[order]
    np.testing.assert_allclose(weights, [0.6, 0.2, 0.2], atol=0.01)
    variances = np.exp(array(vae.prior_log_vars))[order]
    np.testing.assert_allclose(variances, np.square(spreads)[:, None].repeat(2, 1), rtol=0.3)

    new = vae.sample(3000, seed=1)
    nearest = np.square(new[:, None] - centres).sum(axis=-1).argmin(axis=1)
    assert np.bincount(nearest) / 3000 == pytest.approx([0.6, 0.2, 0.2], abs=0.03)
    for i, spread in enumerate(spreads):
        assert new[nearest == i].mean(axis=0) == pytest.approx(centres[i], abs=0.2)
        assert new[nearest == i].std(axis=0) == pytest.approx(spread, rel=0.2)


def test_equal_components_are_as_good_as_one():
    vae = seeing_codes(3)
    vae.compile()
    x = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    kl = array(kl_divergence(*vae.encode(x))).mean()
    assert vae.evaluate(x, verbose=0, return_dict=True)["kl_loss"] == pytest.approx(kl, rel=1e-4)
    np.testing.assert_allclose(vae.belonging(x), np.full((50, 3), 1 / 3), rtol=1e-5)


def test_one_seed_gives_one_prior():
    # There are no clusters, so where the mixture ends depends on where it starts.
    codes = np.random.default_rng(0).random((60, 2), dtype=np.float32)

    def centres(**seed):
        vae = seeing_codes(5)
        vae.initialise_prior(codes, **seed)
        return array(vae.prior_means)

    np.testing.assert_array_equal(centres(), centres(seed=0))
    assert not np.array_equal(centres(seed=0), centres(seed=1))


def test_a_component_around_equal_codes_is_narrow_but_no_point():
    vae = seeing_codes(2)
    vae.initialise_prior(np.repeat(np.float32([[0, 0], [5, 5]]), 20, axis=0))
    np.testing.assert_allclose(np.exp(array(vae.prior_log_vars)), 1e-3, rtol=0.01)
    new = vae.sample(100, seed=0)
    assert np.minimum(np.abs(new), np.abs(new - 5)).max() < 0.2


def test_samples_of_the_standard_prior_are_standard():
    new = seeing_codes(1).sample(5000, seed=0)
    np.testing.assert_allclose(new.mean(axis=0), 0, atol=0.05)
    np.testing.assert_allclose(np.cov(new.T), np.eye(2), atol=0.07)


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
        (lambda: build_dense_vae(beta=np.inf), "beta must be zero or more, found inf"),
        (lambda: build_dense_vae(beta=np.nan), "beta must be zero or more, found nan"),
        (lambda: build_dense_vae(components=0), "whole number of at least 1, found 0"),
        (lambda: build_conv_vae(components=2.0), r"whole number of at least 1, found 2\.0"),
        (lambda: build_dense_vae(components=True), "whole number of at least 1, found True"),
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
    with pytest.raises(ValueError, match=r"^a prior .* N\(0, I\); there is nothing to initialise$"):
        build_dense_vae(2, **build).initialise_prior(x)
    with pytest.raises(ValueError, match=r"^a mixture prior needs an array .* a data set$"):
        fit_vae(build_dense_vae(2, components=2, **build), Tens(x), epochs=3)


def test_a_rehearsal_leaves_a_mixture_prior_its_three_epochs(monkeypatch):
    monkeypatch.setenv("VAE_BOOK_QUICK", "1")
    x = np.random.default_rng(0).random((40, 6), dtype=np.float32)
    vae = build_dense_vae(2, input_shape=(6,), hidden_units=4, components=2)
    assert {len(values) for values in fit_vae(vae, x, epochs=10).values()} == {3}
    assert int(vae.optimizer.iterations) == 3  # each of all images at once
    assert vae.prior_means.trainable and vae.prior_logits.trainable and vae.prior_log_vars.trainable


def test_only_the_advice_on_tracing_is_dropped(caplog):
    logger = logging.getLogger("tensorflow")
    caplog.handler.setLevel(logging.WARNING)
    logger.addHandler(caplog.handler)
    logger.warning("5 out of the last %d calls triggered tf.function retracing.", 9)
    logger.warning("out of memory")
    logger.removeHandler(caplog.handler)
    assert {record.getMessage() for record in caplog.records} == {"out of memory"}


# --- what a user of Keras relies on -----------------------------------------------------------


@pytest.fixture
def half():
    """Let a test choose the precision that networks run in."""
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


def small(images, *, optimizer="adam", compiled=None, seed=0, **settings):
    """A small VAE, compiled; without noise, so that each image has one loss."""
    keras.utils.set_random_seed(seed)
    vae = build_dense_vae(2, input_shape=images.shape[1:], hidden_units=8, **settings)
    # To compile takes longer than these few steps, but on JAX.
    eager = {"run_eagerly": keras.backend.backend() != "jax"}
    vae.compile(optimizer=optimizer, **(eager if compiled is None else compiled))
    vae.sampling.call = lambda inputs: inputs[0]
    return vae


def losses_of(vae, x, targets=None):
    """The loss of each image, by hand."""
    mean, log_var = vae.encode(x)
    target = np.asarray(x if targets is None else targets, np.float32)
    spent = reconstruction_loss(target, vae.decode(mean), vae.likelihood)
    return array(spent) + vae.beta * array(kl_divergence(mean, log_var))


def evaluated(vae, *data, **settings):
    return vae.evaluate(*data, verbose=0, return_dict=True, **settings)


class Batches(keras.utils.PyDataset):
    """Tuples of arrays, in batches of one size, as Keras wants them."""

    def __init__(self, *arrays, size=50):
        super().__init__()
        self.arrays, self.size = arrays, size

    def __len__(self):
        return len(self.arrays[0]) // self.size

    def __getitem__(self, i):
        return tuple(part[self.size * i : self.size * (i + 1)] for part in self.arrays)


def as_tf_data(*arrays, size=50):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(arrays).batch(size)


def as_loader(*arrays):
    torch = pytest.importorskip("torch")
    parts = torch.utils.data.TensorDataset(*map(torch.from_numpy, arrays))
    return torch.utils.data.DataLoader(parts, batch_size=50)


WEIGHTS = np.tile(np.float32([0, 0.5, 1, 3]), 125)
SOURCES = [Batches, as_tf_data, as_loader]


@pytest.mark.parametrize(
    "shape_of",
    [
        lambda w: w,
        lambda w: w[:, None],
        lambda w: w.astype(float),
        lambda w: w.tolist(),
        lambda w: keras.ops.convert_to_tensor(w),
    ],
    ids=["row", "column", "float64", "list", "tensor"],
)
def test_a_weight_multiplies_the_loss_of_its_image(stripes, shape_of):
    vae = small(stripes)
    logs = evaluated(vae, stripes, sample_weight=shape_of(WEIGHTS))
    assert logs["loss"] == pytest.approx((WEIGHTS * losses_of(vae, stripes)).mean(), rel=1e-4)
    assert logs["loss"] == pytest.approx(logs["reconstruction_loss"] + logs["kl_loss"], rel=1e-5)
    history = vae.fit(stripes, sample_weight=shape_of(WEIGHTS), epochs=1, verbose=0).history
    assert history["loss"] != small(stripes).fit(stripes, epochs=1, verbose=0).history["loss"]


@pytest.mark.parametrize("dtype", [bool, int, np.uint8])
def test_images_of_no_weight_teach_nothing(stripes, dtype):
    kept = np.arange(500) < 50
    vae, other = (small(stripes, optimizer="sgd") for _ in range(2))
    before = [array(weight) for weight in vae.weights]
    for weights in (kept.astype(dtype), 10 * kept):  # ten times the loss of a tenth of the images
        vae.fit(stripes, sample_weight=weights, batch_size=500, verbose=0)
    other.fit(stripes[:50], sample_weight=np.full(50, 0.1), batch_size=50, verbose=0)
    other.fit(stripes[:50], batch_size=50, verbose=0)
    for one, same in zip(vae.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(one, same, atol=1e-4)
    assert any((a != b).any() for a, b in zip(before, vae.get_weights(), strict=False))


@pytest.mark.parametrize("source", SOURCES)
def test_batches_may_bring_targets_and_weights(stripes, source):
    others = np.ascontiguousarray(stripes[:, :, ::-1])
    for data, expected in (
        ((stripes,), losses_of(small(stripes), stripes)),
        ((stripes, others, WEIGHTS), WEIGHTS * losses_of(small(stripes), stripes, others)),
    ):
        vae = small(stripes)
        assert evaluated(vae, source(*data))["loss"] == pytest.approx(expected.mean(), rel=1e-4)
        by_arrays, x, y, weights = small(stripes), *data, *[None] * (3 - len(data))
        history = by_arrays.fit(x, y, 50, 1, 0, shuffle=False, sample_weight=weights).history
        again = vae.fit(source(*data), verbose=0, shuffle=False).history
        assert again == {name: pytest.approx(value, rel=1e-4) for name, value in history.items()}


def test_held_out_images_have_targets_and_weights_too(stripes):
    train, x, y, weights = stripes[:300], stripes[300:], stripes[300:, ::-1], WEIGHTS[300:]
    for held_out in (x, (x, y), [x, y, weights], (x, None, weights), Batches(x, y, weights)):
        vae = small(stripes)
        history = vae.fit(train, validation_data=held_out, verbose=0).history
        bare = not isinstance(held_out, (tuple, list, Batches))
        parts = (held_out,) if bare else getattr(held_out, "arrays", held_out)
        expected = losses_of(vae, *parts[:2]) * (parts[2] if len(parts) > 2 else 1)
        assert history["val_loss"] == [pytest.approx(expected.mean(), rel=1e-4)]
    vae = small(stripes)
    history = vae.fit(stripes, sample_weight=WEIGHTS, validation_split=0.4, verbose=0).history
    assert history["val_loss"] == [pytest.approx((weights * losses_of(vae, x)).mean(), rel=1e-4)]


def test_images_drawn_from_themselves_need_no_target(stripes):
    alone, itself, copied = (
        fitted_on(stripes)
        for fitted_on in (
            lambda x: small(x).fit(x, epochs=2, verbose=0),
            lambda x: small(x).fit(x, x, epochs=2, verbose=0),
            lambda x: small(x).fit(x, x.copy(), epochs=2, verbose=0),
        )
    )
    assert alone.history == itself.history == copied.history


def test_clean_images_are_drawn_from_noisy_ones(stripes, tmp_path):
    noisy = stripes + np.random.default_rng(1).normal(0, 0.4, stripes.shape).astype("f4")
    assert noisy.min() < -0.5 and noisy.max() > 1.5  # which no likelihood of [0, 1] could draw
    keras.utils.set_random_seed(0)
    vae = build_dense_vae(4, input_shape=(8, 8))
    vae.compile(optimizer=keras.optimizers.Adam(3e-3))
    vae.fit(noisy[:400], stripes[:400], epochs=30, batch_size=50, verbose=0)
    drawn = vae.decode(vae.encode(noisy[400:])[0])
    assert np.abs(drawn - stripes[400:]).mean() < 0.6 * np.abs(noisy[400:] - stripes[400:]).mean()
    vae.save(tmp_path / "vae.keras")
    loaded = keras.saving.load_model(tmp_path / "vae.keras")
    np.testing.assert_array_equal(loaded.encode(noisy)[0], vae.encode(noisy)[0])


def test_measuring_against_targets_does_not_widen_what_is_taken(stripes):
    vae = small(stripes)
    vae.evaluate(stripes, stripes.copy(), verbose=0)
    with pytest.raises(ValueError, match="x must lie in"):
        vae.encode(2 * stripes)


def adding_loss(inputs):
    class Adds(keras.layers.Layer):
        def call(self, x):
            self.add_loss(7 * keras.ops.mean(x) ** 2)
            self.add_loss(5.0 * keras.ops.ones(()))
            return x

    return Adds()(inputs)


PENALTIES = {
    "kernel": lambda x: keras.layers.Dense(4, kernel_regularizer=keras.regularizers.L2(1000))(x),
    "bias": lambda x: keras.layers.Dense(
        4, bias_initializer="ones", bias_regularizer=keras.regularizers.L1(1000)
    )(x),
    "activity": lambda x: keras.layers.Dense(4, activity_regularizer="l2")(x),
    "layer": keras.layers.ActivityRegularization(l1=3.0),
    "added": adding_loss,
    "inner": lambda x: keras.Sequential([keras.layers.Dense(4, kernel_regularizer="l1")])(x),
}


@pytest.mark.parametrize("where", ["encoder", "decoder"])
@pytest.mark.parametrize("penalty", PENALTIES.values(), ids=PENALTIES)
def test_losses_of_layers_enter_the_loss(penalty, where):
    x = np.random.default_rng(0).normal(size=(50, 6)).astype("f4")
    keras.utils.set_random_seed(0)
    images, z = keras.Input((6,)), keras.Input((2,))
    features = penalty(images) if where == "encoder" else images
    encoder = keras.Model(images, [keras.layers.Dense(2)(features) for _ in range(2)])
    features = penalty(z) if where == "decoder" else z
    decoder = keras.Model(z, keras.layers.Dense(6)(features))
    vae = VAE(encoder, decoder, likelihood="gaussian")
    vae.compile(optimizer="adam")
    for logs in (
        evaluated(vae, x, batch_size=50),
        {name: values[0] for name, values in vae.fit(x, batch_size=50, verbose=0).history.items()},
    ):
        own = logs["reconstruction_loss"] + logs["kl_loss"]
        assert logs["loss"] - own > 0.01
        if where == "encoder" and vae.optimizer.iterations == 0:
            vae.encoder(x)  # its losses are now those of these images
            expected = sum(float(array(loss)) for loss in vae.encoder.losses)
            assert logs["loss"] - own == pytest.approx(expected, rel=1e-3)


def test_a_regulariser_holds_the_weights_down(stripes):
    def trained(strength):
        keras.utils.set_random_seed(0)
        images, z = keras.Input((8, 8)), keras.Input((2,))
        hold = keras.regularizers.L2(strength)
        flat = keras.layers.Flatten()(images)
        parts = [keras.layers.Dense(2, kernel_regularizer=hold)(flat) for _ in range(2)]
        pixels = keras.layers.Reshape((8, 8))(keras.layers.Dense(64, "sigmoid")(z))
        vae = VAE(keras.Model(images, parts), keras.Model(z, pixels))
        vae.compile(optimizer=keras.optimizers.Adam(1e-2))
        vae.fit(stripes, epochs=5, verbose=0)
        return np.abs(vae.encoder.get_weights()[0]).mean()

    assert trained(1000) < 0.2 * trained(0)


def test_metrics_compare_what_is_drawn_with_what_was_to_be_drawn(stripes, tmp_path):
    others = stripes[:, ::-1]
    settings = {"metrics": ["mae", keras.metrics.MeanSquaredError()], "weighted_metrics": ["mse"]}
    vae = small(stripes, compiled=settings)
    off = vae.decode(vae.encode(stripes)[0]) - others
    logs = evaluated(vae, stripes, others, sample_weight=WEIGHTS)
    assert logs["mae"] == pytest.approx(np.abs(off).mean(), rel=1e-4)
    assert logs["mean_squared_error"] == pytest.approx(np.square(off).mean(), rel=1e-4)
    weighted = (np.square(off).mean(axis=(1, 2)) * WEIGHTS).sum() / WEIGHTS.sum()
    assert logs["mse"] == pytest.approx(weighted, rel=1e-3)
    history = vae.fit(stripes, validation_data=(stripes, others), verbose=0).history
    assert {"mae", "val_mae", "mse", "val_mse", "val_mean_squared_error"} <= set(history)
    vae.save(tmp_path / "vae.keras")
    loaded = keras.saving.load_model(tmp_path / "vae.keras")
    loaded.sampling.call = lambda inputs: inputs[0]
    assert evaluated(loaded, stripes) == pytest.approx(evaluated(vae, stripes), rel=1e-5)
    assert int(loaded.optimizer.iterations) == int(vae.optimizer.iterations) > 0


@pytest.mark.parametrize(
    "given",
    [
        {"loss": "mse"},
        {"loss": keras.losses.MeanAbsoluteError()},
        {"loss": lambda x, drawn: 0 * x},
        {"loss": {"decoded": "mse"}},
        {"loss_weights": [1.0]},
        {"loss": "binary_crossentropy", "loss_weights": 2.0},
    ],
)
def test_another_loss_than_its_own_is_refused(stripes, given):
    for call in (lambda vae: vae.compile(**given), lambda vae: vae.compile("adam", **given)):
        with pytest.raises(ValueError, match=r"a VAE brings its own loss, .* choose `likelihood`"):
            call(small(stripes))


@pytest.mark.parametrize("weights", [{0: 1.0, 1: 5.0}, {0: 1.0}, {}])
def test_weights_of_classes_are_refused(stripes, weights):
    for call in (
        lambda vae: vae.fit(stripes, class_weight=weights),
        lambda vae: vae.fit(stripes, np.zeros(500), class_weight=weights),
        lambda vae: vae.train_on_batch(stripes, class_weight=weights),
    ):
        with pytest.raises(
            ValueError, match=r"class_weight must be None, .* by sample_weight; fou"
        ):
            call(small(stripes))


def test_who_forgot_to_compile_is_told_so():
    vae = build_dense_vae(2, input_shape=(4, 4), hidden_units=8)
    with pytest.raises(ValueError, match="compile"):
        vae.fit(np.zeros((8, 4, 4), "float32"))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="others trace in other ways")
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_a_step_is_traced_once(optimizer, monkeypatch):
    vae, traced = build_dense_vae(2, input_shape=(4, 4), hidden_units=8), []
    step = vae.train_step
    monkeypatch.setattr(vae, "train_step", lambda data: traced.append(data) or step(data))
    vae.compile(optimizer)
    vae.fit(np.zeros((8, 4, 4), "float32"), epochs=2, batch_size=4, verbose=0)
    assert len(traced) == 1


@pytest.mark.parametrize(
    ("policy", "likelihood", "build"),
    [
        *(("mixed_float16", likelihood, build_dense_vae) for likelihood in LIKELIHOODS),
        ("mixed_float16", "bernoulli", build_conv_vae),
        ("mixed_bfloat16", "bernoulli", build_dense_vae),
        ("float16", "learned_gaussian", build_dense_vae),
    ],
)
def test_half_a_precision_is_enough_for_the_network_but_not_for_the_loss(
    stripes, tmp_path, half, policy, likelihood, build
):
    def built(policy):
        half(policy)
        vae = build(2, input_shape=(8, 8), likelihood=likelihood, components=2)
        vae.compile(optimizer=keras.optimizers.Adam(1e-3, epsilon=1e-4))
        vae.sampling.call = lambda inputs: inputs[0]
        return vae

    full, vae = built("float32"), built(policy)
    vae.set_weights(full.get_weights())
    logs, expected = (evaluated(model, stripes) for model in (vae, full))
    assert logs == pytest.approx(expected, rel=0.02, abs=0.02)
    if keras.backend.backend() != "torch" or build is build_dense_vae:  # which has no such step
        history = vae.fit(stripes, validation_data=(stripes,), epochs=3, verbose=0).history
        assert history["val_loss"][-1] < expected["loss"]
    assert vae.log_var.dtype == vae.prior_means.dtype == "float32"
    codes = vae.encode(stripes)
    assert [part.dtype for part in (*codes, vae.decode(codes[0]))] == [np.float32] * 3
    vae.save(tmp_path / "vae.keras")
    for policy_then in (policy, "float32"):
        half(policy_then)
        loaded = keras.saving.load_model(tmp_path / "vae.keras")
        for before, after in zip(codes, loaded.encode(stripes), strict=True):
            np.testing.assert_array_equal(before, after)


def test_a_custom_network_may_run_in_half_precision(half):
    half("mixed_float16")
    x = np.random.default_rng(0).random((64, 6), "f4")
    images, z = keras.Input((6,)), keras.Input((2,))
    encoder = keras.Model(images, [keras.layers.Dense(2)(images) for _ in range(2)])
    for likelihood in LIKELIHOODS:
        vae = VAE(
            encoder, keras.Model(z, keras.layers.Dense(6, "sigmoid")(z)), likelihood=likelihood
        )
        vae.compile(optimizer="adam", metrics=["mae"])
        assert np.isfinite(vae.fit(x, epochs=2, verbose=0).history["loss"]).all()
        assert vae.encode(x)[0].dtype == np.float32


def test_a_sum_of_many_pixels_is_not_rounded_to_half_precision():
    x, drawn = np.full((1, 256, 256), 0.5, np.float16), np.full((1, 256, 256), 0.25, np.float16)
    exact = -(256**2) * np.log(0.25 * 0.75) / 2
    for one, other in ((x, drawn), (x.astype("f4"), drawn), (x.astype(float), drawn)):
        for parts in ((one, other), map(keras.ops.convert_to_tensor, (one, other))):
            assert float(array(reconstruction_loss(*parts))[0]) == pytest.approx(exact, rel=1e-4)


@pytest.mark.filterwarnings("default")  # what the exporters of JAX and PyTorch warn of
@pytest.mark.parametrize("components", [1, 3])
@pytest.mark.parametrize("build", [build_dense_vae, build_conv_vae])
def test_an_exported_model_gives_the_same_codes_and_draws_from_them(
    stripes, tmp_path, build, components, half
):
    for policy in ("float32", "mixed_float16"):
        half(policy)
        vae = build(2, input_shape=(8, 8), components=components)
        vae.compile(optimizer="adam")
        if policy == "float32":  # one that has learned, and one that has not
            vae.fit(stripes, epochs=1, verbose=0)
        mean, log_var = vae.encode(stripes)
        expected = {"z_mean": mean, "z_log_var": log_var, "decoded": vae.decode(mean)}
        given = exported(vae, str(tmp_path / policy), stripes)
        assert set(given) == set(expected)
        for name, values in expected.items():
            np.testing.assert_allclose(given[name], values, atol=2e-3, err_msg=name)


def exported(vae, path, images):
    """What the exported model says, without Keras."""
    if keras.backend.backend() == "torch":
        import torch

        vae.export(path + ".pt2", verbose=False)
        model = torch.export.load(path + ".pt2").module()
        told = [model(torch.from_numpy(images[i : i + 1])) for i in range(len(images))]
        return {k: np.concatenate([one[k].detach().numpy() for one in told]) for k in told[0]}
    import tensorflow as tf

    vae.export(path, verbose=False)
    loaded = tf.saved_model.load(path)
    return {name: np.asarray(value) for name, value in loaded.serve(images).items()}


@pytest.mark.parametrize(
    "compiled",
    [
        {"steps_per_execution": 4},
        {"run_eagerly": True},
        {"jit_compile": True},
        {"jit_compile": False},
        {"metrics": ["mae"], "steps_per_execution": 3},
    ],
    ids=str,
)
def test_however_it_is_compiled_it_is_the_same_training(stripes, compiled):
    if keras.backend.backend() == "torch" and compiled.get("jit_compile"):
        pytest.skip("PyTorch compiles with a C++ compiler of its own")
    data = {"y": stripes[:, ::-1].copy(), "sample_weight": WEIGHTS, "epochs": 2, "verbose": 0}
    if keras.backend.backend() == "torch" and "steps_per_execution" in compiled:
        with pytest.raises(ValueError, match="`steps_per_execution` must be 1 with the PyTorch"):
            small(stripes, compiled=compiled).fit(stripes, **data)
        return
    plain = small(stripes).fit(stripes, **data).history
    history = small(stripes, compiled=compiled).fit(stripes, **data).history
    assert {name: history[name] for name in plain} == {
        name: pytest.approx(values, rel=1e-3) for name, values in plain.items()
    }


def test_callbacks_are_called(stripes, tmp_path):
    kept = keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", monitor="val_loss")
    stop = keras.callbacks.EarlyStopping("val_loss", patience=0, min_delta=1e6)
    listed = keras.callbacks.CallbackList([stop], add_history=True)
    for callbacks in ([kept, stop], (kept, stop), stop, listed):
        vae = small(stripes)
        listed.set_model(vae)
        settings = {"validation_data": (stripes,), "epochs": 9, "verbose": 0}
        assert vae.fit(stripes, callbacks=callbacks, **settings).epoch == [0, 1]
    assert keras.saving.load_model(tmp_path / "best.keras").encode(stripes)[0].shape == (500, 2)


def test_one_batch_is_learned_from_and_judged_as_the_others_are(stripes):
    others = stripes[:, ::-1]
    vae = small(stripes)
    expected = (WEIGHTS * losses_of(vae, stripes, others)).mean()
    judged = vae.test_on_batch(stripes, others, WEIGHTS, return_dict=True)
    assert judged["loss"] == pytest.approx(expected, rel=1e-4)
    vae.reset_metrics()
    learned = vae.train_on_batch(stripes, others, sample_weight=WEIGHTS, return_dict=True)
    assert learned["loss"] == pytest.approx(expected, rel=1e-4)
    assert (WEIGHTS * losses_of(vae, stripes, others)).mean() < expected


def test_predicting_is_encoding_and_drawing(stripes):
    vae = small(stripes)
    told = vae.predict(stripes, verbose=0, batch_size=64)
    np.testing.assert_allclose(told["z_mean"], vae.encode(stripes)[0], atol=1e-5)
    np.testing.assert_allclose(told["decoded"], vae.decode(told["z_mean"]), atol=1e-5)


# --- what a likelihood can take ---------------------------------------------------------------

BERNOULLIS, GAUSSIANS = LIKELIHOODS[:2], LIKELIHOODS[2:]


def with_pixel(value):
    def put(x):
        x = x.copy()
        x[3, 4, 5] = value
        return x

    return put


NOT_FINITE = {"NaN": with_pixel(np.nan), "inf": with_pixel(np.inf), "-inf": with_pixel(-np.inf)}
OUT_OF_RANGE = {
    "0 to 255": lambda x: 255 * x,
    "uint8": lambda x: (255 * x).astype(np.uint8),
    "0 to 3000": lambda x: 3000 * x,
    "int16": lambda x: (3000 * x).astype(np.int16),
    "z-scores": lambda x: (x - x.mean()) / x.std(),
    "-1 to 1": lambda x: 2 * x - 1,
    "one pixel": with_pixel(1.01),
    "float64": lambda x: x.astype(float) - 0.1,
}
NO_NUMBERS = {
    "object": lambda x: x.astype(object),
    "text": lambda x: x.astype(str),
    "complex": lambda x: x.astype(complex),
}
WELCOME = {
    "float16": lambda x: x.astype(np.float16),
    "float64": lambda x: x.astype(float),
    "bool": lambda x: x > 0.5,
    "uint8": lambda x: (x > 0.5).astype(np.uint8),
    "int": lambda x: (x > 0.5).astype(int),
    "rounded": lambda x: x * np.float32(1 + 1e-6),
    "strided": lambda x: np.repeat(x, 2, axis=0)[::2],
    "big-endian": lambda x: x.astype(">f4"),
    "read-only": lambda x: np.broadcast_to(x[:1], x.shape),
    "tensor": lambda x: keras.ops.convert_to_tensor(x),
}
ENTRANCES = {
    "fit_vae": lambda vae, x: fit_vae(vae, x, epochs=3),
    "validation": lambda vae, x: fit_vae(vae, np.zeros((50, 8, 8), "f4"), epochs=3, validation=x),
    "fit": lambda vae, x: vae.fit(x, verbose=0),
    "targets": lambda vae, x: vae.fit(np.zeros((500, 8, 8), "f4"), x, verbose=0),
    "validation_data": lambda vae, x: vae.fit(
        np.zeros((50, 8, 8), "f4"), validation_data=(x,), verbose=0
    ),
    "evaluate": lambda vae, x: vae.evaluate(x, verbose=0),
    "predict": lambda vae, x: vae.predict(x, verbose=0),
    "encode": lambda vae, x: vae.encode(x),
    "belonging": lambda vae, x: vae.belonging(x),
    "train_on_batch": lambda vae, x: vae.train_on_batch(x),
    "test_on_batch": lambda vae, x: vae.test_on_batch(x),
    "fit_dense_vae": lambda vae, x: fit_dense_vae(
        x, epochs=1, likelihood=vae.likelihood, hidden_units=8
    ),
    "reconstruction_loss": lambda vae, x: reconstruction_loss(
        x, np.full(x.shape, 0.5, "f4"), vae.likelihood
    ),
}


@pytest.mark.parametrize("spoil", NOT_FINITE.values(), ids=NOT_FINITE)
@pytest.mark.parametrize("enter", ENTRANCES.values(), ids=ENTRANCES)
def test_one_pixel_that_is_not_finite_is_refused(stripes, enter, spoil):
    vae = small(stripes, likelihood="gaussian")
    with pytest.raises(ValueError, match=r"must be finite, found 1 of 32000 values NaN or infin"):
        enter(vae, spoil(stripes))


@pytest.mark.parametrize("spoil", OUT_OF_RANGE.values(), ids=OUT_OF_RANGE)
@pytest.mark.parametrize("enter", ENTRANCES.values(), ids=ENTRANCES)
def test_pixels_that_no_bernoulli_can_be_are_refused(stripes, enter, spoil):
    x = spoil(stripes)
    found = rf"found {float(x.min())} to {float(x.max())}: "
    for likelihood in BERNOULLIS:
        vae = small(stripes, likelihood=likelihood)
        with pytest.raises(
            ValueError, match=rf"must lie in \[0, 1\] for .*'{likelihood}', {found}"
        ):
            enter(vae, x)


@pytest.mark.parametrize("spoil", NO_NUMBERS.values(), ids=NO_NUMBERS)
@pytest.mark.parametrize("enter", ENTRANCES.values(), ids=ENTRANCES)
def test_what_is_no_number_is_refused(stripes, enter, spoil):
    with pytest.raises(ValueError, match="must hold real numbers, found dtype"):
        enter(small(stripes), spoil(stripes))


@pytest.mark.parametrize("dress", WELCOME.values(), ids=WELCOME)
@pytest.mark.parametrize("enter", [ENTRANCES[n] for n in ("fit", "evaluate", "encode")])
def test_the_same_pixels_may_come_in_any_type_of_number(stripes, enter, dress):
    enter(small(stripes), dress(stripes))


@pytest.mark.parametrize("dress", [*OUT_OF_RANGE.values()], ids=OUT_OF_RANGE)
@pytest.mark.parametrize("likelihood", GAUSSIANS)
def test_a_gaussian_takes_any_finite_number(stripes, likelihood, dress):
    x = dress(stripes)
    vae = small(stripes, likelihood=likelihood)
    assert np.isfinite(vae.encode(x)[0]).all()
    assert np.isfinite(array(reconstruction_loss(x, np.zeros(x.shape, "f4"), likelihood))).all()
    if np.abs(x).max() < 5:
        assert np.isfinite(evaluated(vae, x)["loss"])
    else:  # to whom a variance of exp(100) would be right
        with pytest.raises(ValueError, match=r"found inf: .* or the pixels are too large for it"):
            vae.evaluate(x, verbose=0)


@pytest.mark.parametrize(
    "dress", [WELCOME[name] for name in ("bool", "uint8", "float16", "float64")]
)
def test_the_type_of_number_changes_no_loss(stripes, dress):
    x = dress((stripes > 0.5).astype("f4"))
    vae = small(stripes)
    expected = evaluated(vae, np.asarray(x, "f4"))
    assert evaluated(vae, x) == pytest.approx(expected, rel=1e-5)
    assert small(stripes).fit(x, verbose=0, shuffle=False).history == {
        name: pytest.approx(values, rel=1e-4)
        for name, values in small(stripes)
        .fit(np.asarray(x, "f4"), verbose=0, shuffle=False)
        .history.items()
    }


@pytest.mark.parametrize("decoded", [-0.1, 1.1, np.nan])
def test_a_probability_outside_0_to_1_is_refused(decoded):
    with pytest.raises(ValueError, match=r"^decoded must"):
        reconstruction_loss(np.zeros((1, 4)), np.full((1, 4), decoded))


@pytest.mark.parametrize("spoil", [*NOT_FINITE.values(), *OUT_OF_RANGE.values()])
@pytest.mark.parametrize("likelihood", BERNOULLIS)
def test_of_a_tensor_the_loss_of_an_impossible_image_is_nan(stripes, spoil, likelihood):
    x = np.asarray(spoil(stripes), "f4")
    loss = array(
        reconstruction_loss(keras.ops.convert_to_tensor(x), np.full(x.shape, 0.3, "f4"), likelihood)
    )
    impossible = ~((x >= 0) & (x <= 1)).all(axis=(1, 2))
    np.testing.assert_array_equal(np.isnan(loss), impossible)


@pytest.mark.parametrize(
    "spoil", [NOT_FINITE["NaN"], OUT_OF_RANGE["one pixel"], OUT_OF_RANGE["z-scores"]]
)
@pytest.mark.parametrize("source", SOURCES)
def test_bad_pixels_in_batches_stop_the_training_and_are_named(stripes, source, spoil):
    for call in (
        lambda vae, data: vae.fit(data, epochs=5, verbose=0, shuffle=False),
        lambda vae, data: vae.fit(stripes, validation_data=data, epochs=5, verbose=0),
        lambda vae, data: vae.evaluate(data, verbose=0),
    ):
        vae = small(stripes)
        with pytest.raises(
            ValueError,
            match=r"loss( in epoch 1)? must be finite, found nan: the data set holds pixels that "
            r"'bernoulli' cannot take, or the network's weights",
        ):
            call(vae, source(spoil(stripes).astype("f4")))


def test_a_data_set_of_bad_pixels_stops_fit_vae(stripes):
    vae = build_dense_vae(2, input_shape=(8, 8), hidden_units=8)
    with pytest.raises(ValueError, match="in epoch 1 must be finite, found nan: the data set"):
        fit_vae(vae, Batches(255 * stripes), epochs=3)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_a_loss_that_grows_beyond_all_bounds_stops_the_training(stripes, likelihood, tmp_path):
    kept = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    for call in (
        lambda vae: vae.fit(stripes, epochs=9, verbose=0, callbacks=[kept]),
        lambda vae: fit_vae(vae, stripes, epochs=9, learning_rate=1e30),
    ):
        vae = small(stripes, likelihood=likelihood, optimizer=keras.optimizers.Adam(1e30))
        with pytest.raises(
            ValueError,
            match=r"loss in epoch [12] must be finite, found (nan|-?inf): the network's weights .*"
            "smaller learning_rate",
        ):
            call(vae)
        for name in ("encode", "evaluate"):
            with pytest.raises(ValueError, match=r"must be finite, found .* weights"):
                ENTRANCES[name](vae, stripes)
    assert len(list(tmp_path.iterdir())) < 2


@pytest.mark.parametrize("enter", ENTRANCES.values(), ids=ENTRANCES)
def test_of_no_image_nothing_is_learned(stripes, enter):
    if enter in [ENTRANCES[name] for name in ("encode", "belonging", "reconstruction_loss")]:
        assert len(enter(small(stripes), stripes[:0])) in (0, 2)  # no code of no image
        return
    with pytest.raises(ValueError, match=r"image, found none|one for each of 500 .* found 0"):
        enter(small(stripes), stripes[:0])


@pytest.mark.parametrize("shape", [(5,), (5, 8), (5, 8, 9), (5, 8, 8, 1), (5, 64), (8, 8), ()])
@pytest.mark.parametrize("enter", ENTRANCES.values(), ids=ENTRANCES)
def test_images_of_another_shape_are_refused(stripes, enter, shape):
    if enter in [ENTRANCES[name] for name in ("reconstruction_loss", "fit_dense_vae")]:
        return
    found = r", ".join(map(str, shape)).join((r"\(", r",?\)"))
    with pytest.raises(ValueError, match=rf"must have shape \(n, 8, 8\), found {found}"):
        enter(small(stripes), np.zeros(shape, "f4"))


@pytest.mark.parametrize("of", [list, tuple, dict, str, int, type(None)])
def test_what_is_neither_images_nor_batches_is_refused(stripes, of):
    given = {list: [stripes], tuple: (stripes, stripes), dict: {"x": stripes}, str: "images"}.get(
        of, 5 if of is int else None
    )
    for call in (
        lambda vae: vae.fit(given),
        lambda vae: vae.fit(stripes, validation_data=(given, stripes)),
        lambda vae: vae.evaluate(given),
        lambda vae: vae.predict(given),
    ):
        with pytest.raises(ValueError, match=f"x must be one array .* found {of.__name__}$"):
            call(small(stripes))


def test_held_out_images_come_alone(stripes):
    for pair in ((stripes, stripes), (stripes,), (stripes, WEIGHTS)):
        with pytest.raises(
            ValueError, match=r"^validation must be the images alone, found a tuple"
        ):
            fit_vae(small(stripes), stripes, validation=pair)
        with pytest.raises(ValueError, match=r"^x must be the images alone, found a tuple"):
            fit_vae(small(stripes), pair)
    history = fit_vae(small(stripes), stripes, epochs=3, validation=Batches(stripes))
    assert len(history["val_loss"]) == 3
    listed = fit_vae(small(stripes), stripes.tolist(), epochs=3, validation=stripes[:9].tolist())
    assert np.isfinite(listed["val_loss"]).all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"y": np.zeros(500)}, r"^y must have shape \(n, 8, 8\), found \(500,\)"),
        ({"y": np.zeros((500, 10))}, r"^y must have shape \(n, 8, 8\), found \(500, 10\)"),
        ({"y": np.zeros((499, 8, 8))}, "^y must be one for each of 500 images, found 499"),
        ({"y": np.full((500, 8, 8), 2)}, r"^y must lie in \[0, 1\]"),
        ({"sample_weight": np.ones(499)}, "^sample_weight must be one .* 500 images, found 499"),
        ({"sample_weight": np.ones((500, 8, 8))}, r"must have shape \(n,\), found \(500, 8, 8\)"),
        ({"sample_weight": np.ones((500, 2))}, r"must have shape \(n,\), found \(500, 2\)"),
        ({"sample_weight": 2.0}, r"sample_weight must have shape \(n,\), found \(\)"),
        ({"sample_weight": -WEIGHTS}, "^sample_weight must not be negative, found -3"),
        ({"sample_weight": np.full(500, np.nan)}, "must be finite, found 500 of 500 values"),
        ({"sample_weight": np.full(500, "1")}, "sample_weight must hold real numbers, found dtype"),
    ],
)
def test_targets_and_weights_that_do_not_fit_are_refused(stripes, given, message):
    for call in (
        lambda vae: vae.fit(stripes, **given),
        lambda vae: vae.evaluate(stripes, **given),
        lambda vae: vae.train_on_batch(stripes, **given),
    ):
        with pytest.raises(ValueError, match=message):
            call(small(stripes))
    held_out = (stripes, given.get("y"), given.get("sample_weight"))
    with pytest.raises(ValueError, match="^validation_data's " + message.removeprefix("^")):
        if message.startswith("^"):
            small(stripes).fit(stripes, validation_data=held_out)
        raise ValueError("validation_data's " + message.replace("\\", ""))


@pytest.mark.parametrize("source", SOURCES[:2])
def test_batches_of_labels_are_no_targets(stripes, source):
    labels, pixels = np.zeros(500, np.int64), np.ones((500, 8, 8), "f4")
    with pytest.raises(ValueError, match=r"y must have shape \(n, 8, 8\), found \(\w+,\)"):
        small(stripes).fit(source(stripes, labels), verbose=0, shuffle=False)
    with pytest.raises(ValueError, match=r"sample_weight must have shape \(n,\), found \(\w+, 8, "):
        small(stripes).fit(source(stripes, stripes, pixels), verbose=0, shuffle=False)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number of at least 1, found 0"),
        ({"epochs": 2.5}, r"epochs must be a whole number of at least 1, found 2\.5"),
        ({"epochs": True}, "epochs must be a whole number of at least 1, found True"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, found 0"),
        ({"batch_size": None}, "batch_size must be a whole number of at least 1, found None"),
        ({"learning_rate": 0}, "learning_rate must be above 0 and finite, found 0"),
        ({"learning_rate": -1e-3}, r"learning_rate must be above 0 and finite, found -0\.001"),
        ({"learning_rate": np.nan}, "learning_rate must be above 0 and finite, found nan"),
    ],
)
def test_training_wants_epochs_batches_and_steps(stripes, given, message):
    with pytest.raises(ValueError, match=message):
        fit_vae(small(stripes), stripes, **given)
    fit_vae(small(stripes), stripes, epochs=np.int64(3), batch_size=np.int32(100))


def test_codes_that_are_drawn_are_finite_numbers(stripes):
    for bad in ([[np.nan, 0]], [[0, np.inf]], [["0", "1"]], [[None, 1]]):
        with pytest.raises(ValueError, match=r"^z must"):
            small(stripes).decode(bad)
    assert small(stripes).decode([[0, 1]]).shape == (1, 8, 8)


def test_a_mixture_wants_an_image_for_each_component():
    vae = build_dense_vae(2, input_shape=(6,), hidden_units=4, components=5)
    with pytest.raises(ValueError, match="an image for each of 5 components, found 4"):
        vae.initialise_prior(np.zeros((4, 6), np.float32))


@pytest.mark.parametrize("likelihood", ["Bernoulli", "poisson", "", None, 3])
@pytest.mark.parametrize("build", [build_dense_vae, build_conv_vae])
def test_another_spelling_of_a_likelihood_is_none(likelihood, build):
    with pytest.raises(ValueError, match=f"likelihood must be one of .* found {likelihood!r}"):
        build(likelihood=likelihood)
    with pytest.raises(ValueError, match=f"likelihood must be one of .* found {likelihood!r}"):
        reconstruction_loss(np.ones((1, 2)), np.ones((1, 2)), likelihood)


# -- what comes in batches is seen when it comes ---------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("source", SOURCES)
def test_images_that_are_no_numbers_stop_training_though_their_targets_are_clean(
    stripes, source, bad
):
    noisy = stripes.copy()
    noisy[3, 0, 0] = bad
    with pytest.raises(ValueError, match="must be finite, found nan: the data set holds pixels"):
        small(stripes).fit(source(noisy, stripes), epochs=1, verbose=0, shuffle=False)


@pytest.mark.parametrize("value", [np.nan, -0.5, 255.0])
@pytest.mark.parametrize("source", SOURCES)
def test_images_that_cannot_be_taken_have_no_codes(stripes, source, value):
    bad, vae = stripes.copy(), small(stripes)
    bad[3, 0, 0] = value
    with pytest.raises(ValueError, match=r"codes must be finite, found 1 of .* the data set holds"):
        vae.predict(source(bad), verbose=0)
    with pytest.raises(ValueError, match=r"^x must (be finite|lie in \[0, 1\])"):
        vae.predict_on_batch(bad)
    told = vae.predict(source(stripes), verbose=0)
    np.testing.assert_allclose(told["z_mean"], vae.encode(stripes)[0], atol=1e-5)
    np.testing.assert_allclose(vae.predict_on_batch(stripes[:9])["z_mean"], told["z_mean"][:9])


def test_who_draws_from_noisy_images_may_have_any_finite_ones(stripes):
    vae, noisy = small(stripes), 3 * stripes - 1
    with pytest.raises(ValueError, match="codes must be finite"):
        vae.predict(Batches(noisy), verbose=0)
    vae.fit(Batches(noisy, stripes), epochs=1, verbose=0)
    assert np.isfinite(vae.predict(Batches(noisy), verbose=0)["z_mean"]).all()


def test_a_copy_is_no_noisy_image(stripes):
    vae = small(stripes)
    vae.fit(stripes, stripes.copy(), epochs=1, verbose=0)
    with pytest.raises(ValueError, match=r"x must lie in \[0, 1\]"):
        vae.encode(255 * stripes)


@pytest.mark.parametrize("arrays", ["y", "sample_weight"])
def test_one_target_or_weight_is_not_for_all_images_of_a_batch(stripes, arrays):
    class One(Batches):
        def __getitem__(self, i):
            x, *others = super().__getitem__(i)
            others[-1] = others[-1][:1]
            return x, *others

    data = One(stripes, stripes) if arrays == "y" else One(stripes, stripes, WEIGHTS)
    with pytest.raises(Exception, match=f"{arrays} must be one for each of 50|[Rr]eshape"):
        small(stripes).fit(data, epochs=1, verbose=0)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("weight", [-1.0, np.nan])
def test_weights_below_zero_stop_the_training(stripes, source, weight):
    weights = WEIGHTS.copy()
    weights[7] = weight
    data = source(stripes, stripes, weights)
    for call in (
        lambda vae: vae.fit(data, epochs=1, verbose=0, shuffle=False),
        lambda vae: vae.evaluate(data, verbose=0),
        lambda vae: vae.fit(stripes, validation_data=data, epochs=1, verbose=0),
    ):
        with pytest.raises(ValueError, match=r"must be finite, found nan: .*sample_weight below"):
            call(small(stripes))


def test_a_data_set_without_images_is_none(stripes):
    nothing = as_tf_data(stripes[:0]) if keras.backend.backend() == "tensorflow" else None
    if nothing is None:
        pytest.skip("an empty data set of TensorFlow's")
    for call in (small(stripes).evaluate, small(stripes).fit):
        with warnings.catch_warnings(action="ignore"):
            with pytest.raises(ValueError, match="x must hold at least one image, found none"):
                call(nothing, verbose=0)


def test_a_loop_of_ones_own_is_told_when_the_loss_is_no_number(stripes):
    vae = small(stripes, optimizer=keras.optimizers.SGD(1e30))
    with pytest.raises(ValueError, match=r"loss must be finite, found (nan|inf)"):
        for _ in range(5):
            vae.train_on_batch(stripes[:20])


def test_metrics_look_at_what_is_drawn_and_at_nothing_else(stripes):
    for name in ("z_mean", "nosuch"):
        for kind in ("metrics", "weighted_metrics"):
            with pytest.raises(ValueError, match=f"^{kind} compare what is drawn, .*'{name}'"):
                small(stripes, compiled={kind: {name: "mae"}})
    with pytest.raises(ValueError, match=r"^metrics compare what is drawn"):
        small(stripes).compile("adam", None, None, {"z_mean": "mae"})  # named or not
    vae = small(stripes, compiled={"metrics": {"decoded": ["mae"]}, "run_eagerly": True})
    assert "mae" in vae.evaluate(stripes, verbose=0, return_dict=True)


def test_an_array_with_a_mask_is_refused(stripes):
    hidden = np.ma.masked_array(stripes, mask=stripes > 0.5)
    for call in (small(stripes).fit, small(stripes).encode, small(stripes).evaluate):
        with pytest.raises(
            ValueError, match=r"^x must hold no masked value, found \d+ masked values"
        ):
            call(hidden)
    assert len(small(stripes).encode(np.ma.masked_array(stripes))[0]) == len(stripes)


@pytest.mark.parametrize("name", ["vae.h5", "vae.HDF5", "vae.hdf5"])
def test_what_cannot_be_kept_in_a_file_is_refused_before_it_is_begun(stripes, tmp_path, name):
    vae = small(stripes)
    keep = keras.callbacks.ModelCheckpoint(tmp_path / "vae.h5")
    for call in (
        lambda: vae.save(tmp_path / name),
        lambda: vae.save(str(tmp_path / name), overwrite=False),
        lambda: vae.fit(stripes, epochs=1, verbose=0, callbacks=[keep]),
    ):
        with pytest.raises(ValueError, match=r"^filepath must end in \.keras.* found .*vae\."):
            call()
    assert not list(tmp_path.iterdir())
    vae.save_weights(tmp_path / "vae.weights.h5")
    other = small(stripes)
    other.optimizer.build(other.trainable_variables)  # its moments are in the file, too
    other.load_weights(tmp_path / "vae.weights.h5")
    assert np.array_equal(other.encode(stripes)[0], vae.encode(stripes)[0])


@pytest.mark.parametrize("seed", [-1, 1.5, "0", True, [1]])
def test_a_seed_of_a_network_is_a_whole_number(stripes, seed):
    flat = stripes.reshape(len(stripes), -1)
    for call in (lambda: fit_dense_vae(flat, seed=seed), lambda: small(stripes).sample(2, seed)):
        with pytest.raises(ValueError, match=r"^seed must be a whole number of at least 0, found"):
            call()


@pytest.mark.parametrize("given", [{"beta": "1"}, {"beta": None}, {"beta": [1, 2]}])
def test_beta_is_a_number(given):
    with pytest.raises(ValueError, match="beta must be zero or more, found"):
        build_dense_vae(2, input_shape=(4, 4), hidden_units=8, **given)


@pytest.mark.parametrize("n", [-1, 0, 2.5, True, "3"])
def test_so_many_samples_are_a_whole_number(stripes, n):
    with pytest.raises(ValueError, match="n must be a whole number of at least 1"):
        small(stripes).sample(n)


def test_numpys_whole_numbers_are_whole_numbers(stripes):
    vae = small(stripes, components=np.int64(2))
    assert vae.components == 2 and len(vae.sample(np.int32(3))) == 3


def test_an_optimizer_is_needed_to_fit(stripes):
    with pytest.raises(ValueError, match=r"^optimizer must be one of Keras' to fit with"):
        small(stripes, optimizer=None).fit(stripes, verbose=0)


def test_what_another_format_needs_is_not_that_the_model_was_called(stripes, tmp_path):
    try:
        small(stripes).export(tmp_path / "vae.onnx", format="onnx", verbose=False)
    except Exception as error:  # of a package that may be missing, but of no model never called
        assert "never called" not in str(error)
