"""Facts about the variational autoencoder; the same on TensorFlow, JAX and PyTorch."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from helpers.vae import (
    VAE,
    Sampling,
    build_conv_vae,
    build_dense_vae,
    keras,
    kl_divergence,
    reconstruction_loss,
)

array = keras.ops.convert_to_numpy


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


def fitted(images, *, epochs=1, **kwargs):
    keras.utils.set_random_seed(0)
    vae = build_dense_vae(2, input_shape=images.shape[1:], hidden_units=32, **kwargs)
    vae.compile(optimizer=keras.optimizers.Adam(3e-3))
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
    assert all(np.abs(g).min() > 0.01 for g in analytic)


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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: reconstruction_loss(np.ones((2, 3)), np.ones((2, 4))), r"\(2, 3\), .* \(2, 4\)"),
        (lambda: reconstruction_loss(np.ones((2, 3)), np.ones((2, 3)), "poisson"), "'poisson'"),
        (lambda: build_dense_vae(likelihood="poisson"), "'poisson'"),
        (lambda: build_dense_vae(beta=-1), "beta must be zero or more, found -1"),
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
