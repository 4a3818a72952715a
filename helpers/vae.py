"""The variational autoencoder: its two losses, the sampling trick, and two ready-made networks.

Written with ``keras.ops`` alone, so the same file runs on TensorFlow, JAX and PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from helpers.quiet import quiet_stderr

with quiet_stderr():
    import keras
    from keras import layers, ops

LIKELIHOODS = ("bernoulli", "gaussian")


def kl_divergence(z_mean, z_log_var):
    """Kullback–Leibler divergence from N(z_mean, exp(z_log_var)) to N(0, I), in nats.

    Parameters
    ----------
    z_mean, z_log_var : tensors of float, shape (batch, latent_dim)
        Mean and log-variance of the encoder's Gaussian, one per image and latent axis.

    Returns
    -------
    tensor of float, shape (batch,)
        Summed over the latent axes, never averaged.

    References
    ----------
    Kingma and Welling (2013), Auto-encoding variational Bayes, arXiv:1312.6114, appendix B.

    Examples
    --------
    One axis with mean 1 and variance 1 lies half a nat away:

    >>> float(kl_divergence(np.ones((1, 1)), np.zeros((1, 1)))[0])
    0.5
    """
    z_mean, z_log_var = ops.convert_to_tensor(z_mean), ops.convert_to_tensor(z_log_var)
    return 0.5 * ops.sum(ops.exp(z_log_var) + ops.square(z_mean) - 1.0 - z_log_var, axis=-1)


def reconstruction_loss(x, decoded, likelihood="bernoulli"):
    """Negative log-likelihood of the images under the decoder, −log P(x|z), in nats.

    Parameters
    ----------
    x : tensor of float, shape (batch, ...)
        Images; in [0, 1] for ``"bernoulli"``.
    decoded : tensor of float, shape of x
        What the decoder returned: each pixel's probability, or its mean.
    likelihood : {"bernoulli", "gaussian"}
        ``"bernoulli"`` is the cross-entropy; ``"gaussian"`` has variance 1 and keeps its
        constant, ½·log 2π a pixel.

    Returns
    -------
    tensor of float, shape (batch,)
        Summed over the pixels, never averaged: that is what keeps it on one scale with the KL.

    Raises
    ------
    ValueError
        For an unknown likelihood, or shapes that differ.

    References
    ----------
    Kingma and Welling (2013), Auto-encoding variational Bayes, arXiv:1312.6114, appendix C.

    Examples
    --------
    A decoder that says ½ everywhere pays log 2 for each pixel:

    >>> loss = reconstruction_loss(np.zeros((1, 28, 28)), np.full((1, 28, 28), 0.5))
    >>> round(float(loss[0]), 2)
    543.43
    """
    x, decoded = ops.convert_to_tensor(x), ops.convert_to_tensor(decoded)
    if tuple(x.shape) != tuple(decoded.shape):
        raise ValueError(f"x has shape {tuple(x.shape)}, decoded has {tuple(decoded.shape)}")
    if likelihood == "bernoulli":
        per_pixel = ops.binary_crossentropy(x, decoded)
    elif likelihood == "gaussian":
        per_pixel = 0.5 * ops.square(x - decoded) + 0.5 * math.log(2 * math.pi)
    else:
        raise ValueError(f"likelihood must be one of {LIKELIHOODS}, found {likelihood!r}")
    return ops.sum(per_pixel, axis=tuple(range(1, len(x.shape))))


@keras.saving.register_keras_serializable("vae_book")
class Sampling(layers.Layer):
    """The reparameterisation trick: z = mean + standard deviation · noise, noise from N(0, I).

    The noise comes from outside the network, so the gradient passes through mean and variance.
    Called on ``[z_mean, z_log_var]``, both (batch, latent_dim); returns z of that shape.

    References
    ----------
    Kingma and Welling (2013), arXiv:1312.6114, section 2.4.

    Examples
    --------
    >>> z = Sampling()([np.full((2, 3), 5.0), np.full((2, 3), -100.0)])
    >>> np.round(keras.ops.convert_to_numpy(z)).tolist()
    [[5.0, 5.0, 5.0], [5.0, 5.0, 5.0]]
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator()

    def call(self, inputs):
        z_mean, z_log_var = inputs
        noise = keras.random.normal(ops.shape(z_mean), dtype=z_mean.dtype, seed=self.seed_generator)
        return z_mean + ops.exp(0.5 * z_log_var) * noise


@keras.saving.register_keras_serializable("vae_book")
class VAE(keras.Model):
    """A variational autoencoder: loss = reconstruction + beta · KL, in nats an image.

    ``fit``, ``evaluate``, ``save`` and ``keras.saving.load_model`` are Keras' own; the history
    holds ``loss``, ``reconstruction_loss`` and ``kl_loss``. Fit it on the images alone:
    ``vae.fit(images)``.

    Parameters
    ----------
    encoder : keras.Model
        Images to ``[z_mean, z_log_var]``, each (batch, latent_dim).
    decoder : keras.Model
        z, (batch, latent_dim), to pixel probabilities or means in the shape of the images.
    beta : float
        Weight of the KL term; 1 gives the evidence lower bound, more is a beta-VAE.
    likelihood : {"bernoulli", "gaussian"}
        See `reconstruction_loss`.

    Raises
    ------
    ValueError
        For a negative beta, an unknown likelihood, or a decoder that does not fit the encoder.

    References
    ----------
    Kingma and Welling (2013), Auto-encoding variational Bayes, arXiv:1312.6114.
    Rezende, Mohamed and Wierstra (2014), Stochastic backpropagation, arXiv:1401.4082.
    Higgins et al. (2017), beta-VAE, ICLR.

    Examples
    --------
    >>> vae = build_dense_vae(latent_dim=2, input_shape=(4, 4), hidden_units=8)
    >>> vae.compile(optimizer="adam")
    >>> images = np.zeros((10, 4, 4), "float32")
    >>> sorted(vae.fit(images, epochs=1, verbose=0).history)
    ['kl_loss', 'loss', 'reconstruction_loss']
    >>> z_mean, z_log_var = vae.encode(images)
    >>> z_mean.shape, vae.decode(z_mean).shape, vae.sample(3).shape
    ((10, 2), (10, 4, 4), (3, 4, 4))
    """

    def __init__(self, encoder, decoder, *, beta=1.0, likelihood="bernoulli", **kwargs):
        super().__init__(**kwargs)
        if not (np.isfinite(beta) and beta >= 0):
            raise ValueError(f"beta must be zero or more, found {beta!r}")
        if likelihood not in LIKELIHOODS:
            raise ValueError(f"likelihood must be one of {LIKELIHOODS}, found {likelihood!r}")
        if tuple(encoder.input_shape) != tuple(decoder.output_shape):
            raise ValueError(
                f"the encoder takes {encoder.input_shape}, the decoder returns "
                f"{decoder.output_shape}: they must have one shape"
            )
        self.encoder = encoder
        self.decoder = decoder
        self.beta = float(beta)
        self.likelihood = likelihood
        self.sampling = Sampling()
        self.reconstruction_tracker = keras.metrics.Mean(name="reconstruction_loss")
        self.kl_tracker = keras.metrics.Mean(name="kl_loss")
        self.built = True  # encoder and decoder are; there is nothing else to build

    def call(self, x, training=False):
        """Encode, sample and decode: a dictionary of ``z_mean``, ``z_log_var`` and ``decoded``."""
        z_mean, z_log_var = self.encoder(x, training=training)
        decoded = self.decoder(self.sampling([z_mean, z_log_var]), training=training)
        return {"z_mean": z_mean, "z_log_var": z_log_var, "decoded": decoded}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Mean over the batch of reconstruction + beta · KL; Keras calls this."""
        reconstruction = reconstruction_loss(x, y_pred["decoded"], self.likelihood)
        kl = kl_divergence(y_pred["z_mean"], y_pred["z_log_var"])
        self.reconstruction_tracker.update_state(reconstruction)
        self.kl_tracker.update_state(kl)
        return ops.mean(reconstruction + self.beta * kl)

    def encode(self, x) -> tuple[np.ndarray, np.ndarray]:
        """Encode images into arrays ``(z_mean, z_log_var)``, each (n, latent_dim) float32."""
        x = np.asarray(x)
        expected = tuple(self.encoder.input_shape[1:])
        if x.shape[1:] != expected:
            raise ValueError(
                f"x must have shape (n, {', '.join(map(str, expected))}), found {x.shape}"
            )
        return tuple(np.concatenate(part) for part in zip(*_batches(self.encoder, x), strict=True))

    def decode(self, z) -> np.ndarray:
        """Decode latents, (n, latent_dim), into images: pixel probabilities or means."""
        z = np.asarray(z)
        latent_dim = self.decoder.input_shape[-1]
        if z.ndim != 2 or z.shape[1] != latent_dim:
            raise ValueError(f"z must have shape (n, {latent_dim}), found {z.shape}")
        return np.concatenate([images for (images,) in _batches(self.decoder, z)])

    def sample(self, n: int, seed: int | None = None) -> np.ndarray:
        """Decode n draws from the prior N(0, I) into new images; one seed gives one set."""
        noise = np.random.default_rng(seed).standard_normal((n, self.decoder.input_shape[-1]))
        return self.decode(noise.astype(np.float32))

    def get_config(self):
        return {
            **super().get_config(),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "decoder": keras.saving.serialize_keras_object(self.decoder),
            "beta": self.beta,
            "likelihood": self.likelihood,
        }

    @classmethod
    def from_config(cls, config):
        parts = {
            name: keras.saving.deserialize_keras_object(config[name])
            for name in ("encoder", "decoder")
        }
        return cls(**{**config, **parts})


def build_dense_vae(
    latent_dim: int = 2,
    *,
    input_shape: Sequence[int] = (28, 28),
    hidden_units: int = 256,
    beta: float = 1.0,
    likelihood: str = "bernoulli",
) -> VAE:
    """Build the classic fully connected VAE: pixels–256–z–256–pixels, as in the 2016 example.

    Parameters
    ----------
    latent_dim : int
        Number of latent axes.
    input_shape : sequence of int
        Shape of one image.
    hidden_units : int
        Width of the one hidden layer on each side.
    beta, likelihood
        See `VAE`. With ``"bernoulli"`` the decoder ends in a sigmoid.

    Returns
    -------
    VAE
        Not compiled yet.

    Examples
    --------
    >>> vae = build_dense_vae(latent_dim=5)
    >>> vae.encoder.count_params(), vae.decoder.count_params()
    (203530, 203024)
    """
    images = keras.Input(input_shape, name="images")
    hidden = layers.Dense(hidden_units, activation="relu")(layers.Flatten()(images))
    encoder = _encoder(images, hidden, latent_dim)

    z = keras.Input((latent_dim,), name="z")
    hidden = layers.Dense(hidden_units, activation="relu")(z)
    pixels = layers.Dense(math.prod(input_shape), activation=_last_activation(likelihood))(hidden)
    decoder = keras.Model(z, layers.Reshape(input_shape)(pixels), name="decoder")
    return VAE(encoder, decoder, beta=beta, likelihood=likelihood)


def build_conv_vae(
    latent_dim: int = 2,
    *,
    input_shape: Sequence[int] = (28, 28),
    filters: int = 32,
    beta: float = 1.0,
    likelihood: str = "bernoulli",
) -> VAE:
    """Build a convolutional VAE: two strided convolutions down to z, their mirror image back.

    Parameters
    ----------
    latent_dim : int
        Number of latent axes.
    input_shape : (int, int)
        Rows and columns of one image, each a multiple of 4.
    filters : int
        Filters of the first convolution; the second has twice as many.
    beta, likelihood
        See `VAE`.

    Returns
    -------
    VAE
        Not compiled yet.

    Raises
    ------
    ValueError
        For rows or columns that are not a multiple of 4.

    Examples
    --------
    >>> build_conv_vae(latent_dim=5).decoder.output_shape
    (None, 28, 28)
    """
    rows, columns = input_shape
    if rows % 4 or columns % 4:
        raise ValueError(f"input_shape must be multiples of 4, found {tuple(input_shape)}")
    step = {"kernel_size": 3, "strides": 2, "padding": "same", "activation": "relu"}
    images = keras.Input(input_shape, name="images")
    maps = layers.Reshape((rows, columns, 1))(images)
    maps = layers.Conv2D(filters, **step)(maps)
    maps = layers.Conv2D(2 * filters, **step)(maps)
    encoder = _encoder(images, layers.Flatten()(maps), latent_dim)

    z = keras.Input((latent_dim,), name="z")
    small = (rows // 4, columns // 4, 2 * filters)
    maps = layers.Reshape(small)(layers.Dense(math.prod(small), activation="relu")(z))
    maps = layers.Conv2DTranspose(2 * filters, **step)(maps)
    maps = layers.Conv2DTranspose(filters, **step)(maps)
    pixels = layers.Conv2D(1, 3, padding="same", activation=_last_activation(likelihood))(maps)
    decoder = keras.Model(z, layers.Reshape(input_shape)(pixels), name="decoder")
    return VAE(encoder, decoder, beta=beta, likelihood=likelihood)


def _batches(model, inputs, batch_size=1024):
    """Yield the model's outputs as a tuple of arrays, a batch at a time.

    Keras' own ``predict`` compiles a graph for every new model, and says so at length when a
    chapter has many of them.
    """
    for start in range(0, max(len(inputs), 1), batch_size):
        outputs = model(ops.convert_to_tensor(inputs[start : start + batch_size]), training=False)
        outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        yield tuple(ops.convert_to_numpy(output) for output in outputs)


def _encoder(images, features, latent_dim) -> keras.Model:
    z_mean = layers.Dense(latent_dim, name="z_mean")(features)
    z_log_var = layers.Dense(latent_dim, name="z_log_var")(features)
    return keras.Model(images, [z_mean, z_log_var], name="encoder")


def _last_activation(likelihood) -> str:
    return "sigmoid" if likelihood == "bernoulli" else "linear"
