"""The variational autoencoder: its two losses, the sampling trick, and two ready-made networks.

Written with ``keras.ops`` alone, so the same file runs on TensorFlow, JAX and PyTorch.
"""

from __future__ import annotations

import functools
import inspect
import logging
import math
import numbers
import os
from collections.abc import Sequence

import numpy as np
from sklearn.mixture import GaussianMixture

from helpers import as_array, silent_stderr, whole_number
from helpers.rehearsal import fewer

# By this variable joblib shares out the cores among its processes; TensorFlow reads another one.
if "OMP_NUM_THREADS" in os.environ:
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", os.environ["OMP_NUM_THREADS"])
# Read by TensorFlow's own logger once it has started.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def _is_news(record: logging.LogRecord) -> bool:
    """Drop the advice on tracing: each new network has to be traced, and a chapter has many."""
    return "tf.function retracing" not in record.getMessage()


logging.getLogger("tensorflow").addFilter(_is_news)


# Before its logger can be told not to, TensorFlow writes a few lines.
with silent_stderr():
    import keras
    from keras import layers, ops

LIKELIHOODS = ("bernoulli", "continuous_bernoulli", "gaussian", "learned_gaussian")
#: How far rounding may have carried a pixel out of the [0, 1] of the Bernoullis.
ROUNDING = 1e-5
#: What makes a loss infinite, or none at all, if the pixels are those that the likelihood can take.
ASTRAY = (
    "the network's weights have grown beyond all bounds (a smaller learning_rate may keep them), "
    "or the pixels are too large for it (normalise them to about 1)"
)


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


def kl_to_mixture(z_mean, z_log_var, log_weights, means, log_vars):
    """Upper bound of the KL divergence from the encoder's Gaussian to a mixture, in nats.

    The divergence to a mixture has no closed form. This bound weighs the divergence to each
    component by how much the point belongs there, and is exact for one component.

    Parameters
    ----------
    z_mean, z_log_var : tensors of float, shape (batch, latent_dim)
        As for `kl_divergence`.
    log_weights : tensor of float, shape (components,)
        Logarithms of the mixture's weights, which sum to 1.
    means, log_vars : tensors of float, shape (components, latent_dim)
        Centre and log-variance of each component.

    Returns
    -------
    bound : tensor of float, shape (batch,)
        ``-log Σ weight · exp(-KL to the component)``.
    belongs : tensor of float, shape (batch, components)
        How much each point belongs to each component; rows sum to 1.

    References
    ----------
    Hershey and Olsen (2007), Approximating the Kullback Leibler divergence between Gaussian
    mixture models, ICASSP: the variational bound, for one Gaussian against a mixture.
    Jiang et al. (2017), Variational deep embedding, IJCAI.

    Examples
    --------
    >>> one = np.zeros((1, 2))
    >>> bound, _ = kl_to_mixture(one + 1, one, np.zeros(1), one, one)
    >>> float(bound[0]) == float(kl_divergence(one + 1, one)[0])
    True
    """
    z_mean, z_log_var = ops.convert_to_tensor(z_mean), ops.convert_to_tensor(z_log_var)
    off = z_mean[:, None] - means
    ratio = ops.exp(z_log_var[:, None] - log_vars)
    distance = ops.square(off) * ops.exp(-log_vars)
    kl = 0.5 * ops.sum(ratio + distance - 1.0 + log_vars - z_log_var[:, None], axis=-1)
    bound = -ops.logsumexp(log_weights - kl, axis=-1)
    return bound, ops.exp(log_weights - kl + bound[:, None])


def reconstruction_loss(x, decoded, likelihood="bernoulli", log_var=0.0, weight=1.0):
    """Negative log-likelihood of the images under the decoder, −log P(x|z), in nats.

    Parameters
    ----------
    x : tensor, shape (batch, ...)
        Images of any type of number or truth value; in [0, 1] for the Bernoullis.
    decoded : tensor of float, shape of x
        What the decoder returned: each pixel's probability, or its mean.
    likelihood : {"bernoulli", "continuous_bernoulli", "gaussian", "learned_gaussian"}
        ``"bernoulli"`` is the cross-entropy, a likelihood of zeros and ones only;
        ``"continuous_bernoulli"`` adds what makes it one on all of [0, 1]; the Gaussians keep
        their constant, ½·log 2π a pixel.
    log_var : tensor of float
        Logarithm of the Gaussians' variance, one for all pixels; a `VAE` learns it if the
        likelihood says so, and leaves it at 0 otherwise.
    weight : tensor of float
        How much each pixel counts, in a shape that can be broadcast to that of x: 0 leaves a pixel
        out.

    Returns
    -------
    tensor of float, shape (batch,)
        Summed over the pixels, never averaged: that is what keeps it on one scale with the KL.
        Computed in float32, or in float64 where both are; NaN for an image with a pixel that the
        likelihood cannot take.

    Raises
    ------
    ValueError
        For an unknown likelihood, or shapes that differ. Where arrays are given and not tensors,
        also for pixels that are not finite, or that the likelihood cannot take.

    References
    ----------
    Kingma and Welling (2013), Auto-encoding variational Bayes, arXiv:1312.6114, appendix C.
    Loaiza-Ganem and Cunningham (2019), The continuous Bernoulli, NeurIPS.
    Rybkin, Daniilidis and Levine (2021), Simple and effective VAE training with calibrated
    decoders, ICML: the learned variance.

    Examples
    --------
    A decoder that says ½ everywhere pays log 2 for each pixel:

    >>> loss = reconstruction_loss(np.zeros((1, 28, 28)), np.full((1, 28, 28), 0.5))
    >>> round(float(loss[0]), 2)
    543.43
    """
    if likelihood not in LIKELIHOODS:
        raise ValueError(f"likelihood must be one of {LIKELIHOODS}, found {likelihood!r}")
    for name, part in {"x": x, "decoded": decoded}.items():
        if isinstance(part, np.ndarray):  # of a tensor it would cost a wait
            _check_pixels(name, part, likelihood)
    x, decoded = (ops.convert_to_tensor(_native(part)) for part in (x, decoded))
    if tuple(x.shape) != tuple(decoded.shape):
        raise ValueError(f"x has shape {tuple(x.shape)}, decoded has {tuple(decoded.shape)}")
    # Half a precision is too little for a sum over pixels, and Keras' networks may run in it.
    dtypes = {keras.backend.standardize_dtype(part.dtype) for part in (x, decoded)}
    dtype = "float64" if dtypes == {"float64"} else "float32"
    x, decoded, log_var, weight = (ops.cast(part, dtype) for part in (x, decoded, log_var, weight))
    axes = tuple(range(1, len(x.shape)))
    if likelihood in ("gaussian", "learned_gaussian"):
        squared = ops.square(x - decoded) * ops.exp(-log_var)
        return ops.sum(0.5 * weight * (squared + log_var + math.log(2 * math.pi)), axis=axes)
    # Outside of [0, 1] there is no bound to what a pixel would seem to gain.
    inside = ops.abs(x - 0.5) <= 0.5 + ROUNDING
    if keras.backend.backend() == "torch":  # whose cross-entropy raises errors of its own
        inside = ops.logical_and(inside, ops.isfinite(decoded))
        x, decoded = ops.where(inside, ops.clip(x, 0, 1), 0.5), ops.where(inside, decoded, 0.5)
    per_pixel = ops.binary_crossentropy(x, decoded)
    if likelihood == "continuous_bernoulli":
        per_pixel = per_pixel - _log_normaliser(decoded)
    return ops.sum(weight * ops.where(inside, per_pixel, math.nan), axis=axes)


def _check_pixels(name, x, likelihood) -> None:
    """Refuse an array that the likelihood cannot take, and say what was found."""
    if x.dtype.kind not in "buif":
        raise ValueError(f"{name} must hold real numbers, found dtype {x.dtype}")
    if not x.size:
        return
    low, high = float(x.min()), float(x.max())  # NaN, where there is one
    if not (math.isfinite(low) and math.isfinite(high)):
        bad = np.count_nonzero(~np.isfinite(x))
        raise ValueError(f"{name} must be finite, found {bad} of {x.size} values NaN or infinite")
    if likelihood.endswith("bernoulli") and not -ROUNDING <= low <= high <= 1 + ROUNDING:
        raise ValueError(
            f"{name} must lie in [0, 1] for the likelihood {likelihood!r}, found {low} to {high}: "
            "normalise it, or choose a likelihood without bounds, such as 'gaussian'"
        )


def _log_normaliser(probability):
    """Log of 2 artanh(1 - 2p) / (1 - 2p), which is 0/0 at one half: there, its power series."""
    off = 1.0 - 2.0 * ops.clip(probability, 1e-6, 1 - 1e-6)
    near = ops.abs(off) < 0.02
    away = ops.where(near, 0.5, off)  # a place where value and gradient are harmless
    exact = ops.log((ops.log1p(away) - ops.log1p(-away)) / away)
    return ops.where(near, math.log(2) + ops.square(off) / 3, exact)


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


class OwnLoss(keras.Model):
    """An encoder and a decoder with a loss of their own, which keep Keras' other promises.

    What `VAE` and `helpers.mirror_vae.MirrorVAE` share: weights of images, targets, losses of
    layers, metrics, callbacks, saving and exporting do what a user of Keras believes they do, and
    what cannot be honoured is refused in words.

    Parameters
    ----------
    encoder, decoder : keras.Model
        See `VAE`.
    beta : float
        Weight of the KL term.

    Raises
    ------
    ValueError
        For a negative beta.
    """

    likelihood = "gaussian"
    #: Whether images are drawn from others, whose pixels may then be any finite numbers.
    denoising = False
    _by_batches = False
    _choices = "`beta`"  # by which a user chooses the loss
    _drawn = "mean"  # which of its outputs metrics look at

    def __init__(self, encoder, decoder, *, beta=1.0, **kwargs):
        super().__init__(**kwargs)
        if not (isinstance(beta, numbers.Real) and math.isfinite(beta) and beta >= 0):
            raise ValueError(f"beta must be zero or more, found {beta!r}")
        self.encoder = encoder
        self.decoder = decoder
        self.beta = float(beta)
        self.sampling = Sampling(dtype="float32")
        self.reconstruction_tracker = keras.metrics.Mean(name="reconstruction_loss")
        self.kl_tracker = keras.metrics.Mean(name="kl_loss")
        self.built = True  # encoder and decoder are; there is nothing else to build

    def _without_noise(self, images) -> dict:
        """Codes of images, and what is drawn from the codes' means; the latter by its own names."""
        raise NotImplementedError

    def _spent(self, target, y_pred) -> tuple:
        """Reconstruction and KL of each image, in nats."""
        raise NotImplementedError

    def _compared(self, target, y_pred) -> tuple:
        """What was to be drawn, and what is drawn, for metrics."""
        raise NotImplementedError

    def compile(
        self,
        optimizer="rmsprop",
        loss=None,
        loss_weights=None,
        metrics=None,
        weighted_metrics=None,
        *args,
        **settings,
    ):
        """Make ready for training, as Keras does; the loss is the model's own."""
        if loss is not None or loss_weights is not None:
            raise ValueError(
                f"a VAE brings its own loss, reconstruction + beta * KL: choose {self._choices}; "
                f"found loss={loss!r} and loss_weights={loss_weights!r}"
            )
        for name, given in {"metrics": metrics, "weighted_metrics": weighted_metrics}.items():
            if isinstance(given, dict) and (others := given.keys() - {self._drawn}):
                raise ValueError(
                    f"{name} compare what is drawn, {self._drawn!r}, with the images; found some "
                    f"for {', '.join(map(repr, sorted(others)))}"
                )
        super().compile(optimizer, None, None, metrics, weighted_metrics, *args, **settings)

    def compile_from_config(self, config):
        """Compile a loaded model as it was when saved; Keras calls this."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Mean over the batch of reconstruction + beta · KL, and layers' losses; Keras calls this.

        Each image's loss is multiplied by its weight. The targets are `y`, and the images `x`
        themselves if there are none.
        """
        if y is not None:
            _check_shape("y", y, self.encoder.input_shape)
            y = _as_many("y", y, x)
            if training and self._by_batches:  # of arrays, `fit` knows it
                self._learns_from_others()
        reconstruction, kl = self._spent(ops.convert_to_tensor(x if y is None else y), y_pred)
        if y is not None:  # an encoder may make ordinary codes of what is not a number
            reconstruction = ops.where(self._can_take(x, bounded=False), reconstruction, math.nan)
        if sample_weight is not None:
            weight = _one_each(sample_weight)
            _check_shape("sample_weight", weight, (None,))
            weight = ops.cast(_as_many("sample_weight", weight, reconstruction), "float32")
            weight = ops.where(weight >= 0, weight, math.nan)
            reconstruction, kl = weight * reconstruction, weight * kl
        self.reconstruction_tracker.update_state(reconstruction)
        self.kl_tracker.update_state(kl)
        loss = ops.mean(reconstruction + self.beta * kl)
        for of_layer in self.losses:
            loss = loss + ops.sum(ops.cast(of_layer, "float32"))
        return loss

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Compare what is drawn with what was to be drawn; Keras calls this."""
        target = ops.cast(x if y is None else y, "float32")
        return super().compute_metrics(x, *self._compared(target, y_pred), sample_weight)

    @functools.wraps(keras.Model.fit)
    def fit(self, *args, **settings):
        given = self._checked(super().fit, args, settings, learns=True)
        held_out = given.get("validation_data")
        unseen = [self._by_batches]
        if held_out is not None:
            held_out = held_out if isinstance(held_out, (tuple, list)) else (held_out,)
            held_out = self._complete(*held_out, where="validation_data's ")
            given["validation_data"] = held_out if held_out[1:] else held_out[0]
            unseen.append(not hasattr(held_out[0], "__array__"))

        def stop_if_not_finite(epoch, logs):
            for name, value in logs.items():
                if name.endswith("loss"):
                    self._check_loss(f"{name} in epoch {epoch + 1}", value, any(unseen))

        watch = keras.callbacks.LambdaCallback(on_epoch_end=stop_if_not_finite)
        callbacks = given.get("callbacks") or []
        if isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks.callbacks.insert(0, watch)
        else:
            # Before the others, so that none of them keeps a model that has gone astray.
            others = callbacks if isinstance(callbacks, (list, tuple)) else [callbacks]
            given["callbacks"] = [watch, *others]
        # TensorFlow would trace the first step twice if the optimizer's variables came up in it.
        if self.compiled and self.optimizer is None:
            raise ValueError("optimizer must be one of Keras' to fit with, found None")
        if self.compiled and not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        history = super().fit(**given)
        if given.get("epochs", 1) > given.get("initial_epoch", 0) and "loss" not in history.history:
            raise ValueError("x must hold at least one image, found none")
        return history

    @functools.wraps(keras.Model.evaluate)
    def evaluate(self, *args, **settings):
        if "_use_cached_eval_dataset" in settings:  # fit has looked at these data
            return super().evaluate(*args, **settings)
        given = self._checked(super().evaluate, args, settings)
        return self._with_finite_loss(super().evaluate(**given))

    @functools.wraps(keras.Model.predict)
    def predict(self, *args, **settings):
        given = self._checked(super().predict, args, settings)
        return self._with_finite_codes(super().predict(**given))

    @functools.wraps(keras.Model.predict_on_batch)
    def predict_on_batch(self, *args, **settings):
        given = self._checked(super().predict_on_batch, args, settings)
        return self._with_finite_codes(super().predict_on_batch(**given))

    @functools.wraps(keras.Model.train_on_batch)
    def train_on_batch(self, *args, **settings):
        given = self._checked(super().train_on_batch, args, settings, learns=True)
        return self._with_finite_loss(super().train_on_batch(**given))

    @functools.wraps(keras.Model.test_on_batch)
    def test_on_batch(self, *args, **settings):
        given = self._checked(super().test_on_batch, args, settings)
        return self._with_finite_loss(super().test_on_batch(**given))

    def _with_finite_loss(self, logs):
        """Give back what Keras says of a loss, if it is a number."""
        values = np.ravel(logs["loss"] if isinstance(logs, dict) else logs)
        if not len(values):
            raise ValueError("x must hold at least one image, found none")
        self._check_loss("loss", values[0], self._by_batches)
        return logs

    def _with_finite_codes(self, told):
        """Give back what was made of images, if all of them have codes."""
        codes = np.concatenate([ops.convert_to_numpy(told[k]) for k in ("z_mean", "z_log_var")], 1)
        self._check_codes(codes, self._by_batches)
        return told

    def _check_codes(self, codes, unseen) -> None:
        if bad := np.count_nonzero(~np.isfinite(codes).all(axis=1)):
            raise ValueError(
                f"codes must be finite, found {bad} of {len(codes)} that are not: "
                + self._causes(unseen)
            )

    def _can_take(self, x, *, bounded):
        """Tell of each image of a tensor whether it is finite and, if bounded, within bounds."""
        x = ops.cast(x, "float32")
        good = ops.isfinite(x)
        if bounded and self.likelihood.endswith("bernoulli"):
            good = ops.logical_and(good, ops.abs(x - 0.5) <= 0.5 + ROUNDING)
        return ops.all(good, axis=tuple(range(1, len(x.shape))))

    def _or_nan(self, codes, x, training):
        """Give no codes to images that cannot be taken: a network may make ordinary ones of NaN."""
        if training:  # then the loss tells
            return codes
        good = self._can_take(x, bounded=not self.denoising)[:, None]
        return ops.where(good, codes, ops.cast(math.nan, codes.dtype))

    def _learns_from_others(self) -> None:
        """Take images of any finite pixels from now on."""
        if not self.denoising:
            self.denoising = True
            self.predict_function = self.test_function = None  # which knew the bounds

    def _checked(self, method, args, settings, *, learns=False) -> dict:
        """Name what a method of Keras is given, and look at what of it is data."""
        given = inspect.signature(method).bind(*args, **settings).arguments
        given = given | given.pop("kwargs", {})
        if given.get("class_weight") is not None:
            raise ValueError(
                "class_weight must be None, since a VAE knows no classes: give each image its "
                f"weight by sample_weight; found {given['class_weight']!r}"
            )
        names = ("x", "y", "sample_weight")
        x, y, weight = (given.pop(name, None) for name in names)
        self._by_batches = not hasattr(x, "__array__")
        complete = self._complete(x, y, weight)
        if learns and not self._by_batches and complete[1:] and complete[1] is not complete[0]:
            self._learns_from_others()
        return given | dict(zip(names, complete, strict=False))

    def _complete(self, x=None, y=None, sample_weight=None, *more, where="") -> tuple:
        """Check images, targets and weights, and leave out those of the latter that are not needed.

        A data set is taken as it is: what it holds is seen when it comes.
        """
        if x is None or isinstance(x, (str, list, tuple, dict, int, float)):
            expected = _words(self.encoder.input_shape)
            raise ValueError(
                f"{where}x must be one array of images, of shape {expected}, or a data set of "
                f"batches; found {type(x).__name__}"
            )
        if not hasattr(x, "__array__"):
            return tuple(part for part in (x, y, sample_weight, *more) if part is not None)
        x = _array(f"{where}x", x)
        if y is not None and np.array_equal(x, y := _array(f"{where}y", y)):
            y = x  # a copy is no other image
        n = len(self._images(f"{where}x", x, bounded=y is None or y is x))
        if not n:
            raise ValueError(f"{where}x must hold at least one image, found none")
        parts = {} if y is None else {"y": self._images(f"{where}y", y)}
        if sample_weight is not None:
            weights = _one_each(_array(f"{where}sample_weight", sample_weight))
            parts["sample_weight"] = weights
            _check_shape(f"{where}sample_weight", weights, (None,))
            _check_pixels(f"{where}sample_weight", weights, "gaussian")
            if weights.min(initial=0) < 0:
                raise ValueError(
                    f"{where}sample_weight must not be negative, found {weights.min()}"
                )
        for name, part in parts.items():
            if len(part) != n:
                raise ValueError(
                    f"{where}{name} must be one for each of {n} images, found {len(part)}"
                )
        if sample_weight is not None:
            # Without targets Keras would drop the weights.
            return x, x if y is None else y, weights.astype(np.float32), *more
        return (x,) if y is None or y is x else (x, y)

    def _images(self, name, x, *, bounded=True) -> np.ndarray:
        """Take images as an array that encoder and likelihood can use."""
        likelihood = self.likelihood if bounded else "gaussian"
        return self._taken(name, x, self.encoder.input_shape, likelihood)

    @staticmethod
    def _taken(name, x, shape, likelihood="gaussian") -> np.ndarray:
        """Take an array of (any number, as in the shape) that a likelihood can use."""
        x = _array(name, x)
        _check_shape(name, x, shape)
        _check_pixels(name, x, likelihood)
        return x

    @staticmethod
    def _run(model, *inputs, batch_size=1024) -> list[np.ndarray]:
        """What the model makes of arrays, a batch at a time.

        Keras' own ``predict`` compiles a graph for every new model, and says so at length when a
        chapter has many of them.
        """
        told = []
        for start in range(0, max(len(inputs[0]), 1), batch_size):
            batch = [ops.convert_to_tensor(part[start : start + batch_size]) for part in inputs]
            outputs = model(batch if inputs[1:] else batch[0], training=False)
            outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
            told.append([ops.convert_to_numpy(ops.cast(part, "float32")) for part in outputs])
        return [np.concatenate(part) for part in zip(*told, strict=True)]

    def _check_loss(self, name, value, unseen) -> None:
        """Refuse a loss that is not finite; of unseen images the pixels may be the cause."""
        if not math.isfinite(value):
            raise ValueError(f"{name} must be finite, found {value}: {self._causes(unseen)}")

    def _causes(self, unseen) -> str:
        if not unseen:
            return ASTRAY
        pixels = f"the data set holds pixels that {self.likelihood!r} cannot take"
        return f"{pixels}, or {ASTRAY}, or it holds a sample_weight below zero"

    def encode(self, x) -> tuple[np.ndarray, np.ndarray]:
        """Encode images into arrays ``(z_mean, z_log_var)``, each (n, latent_dim) float32."""
        x = self._images("x", x, bounded=not self.denoising)
        z_mean, z_log_var = self._run(self.encoder, x)
        self._check_codes(z_mean + z_log_var, unseen=False)
        return z_mean, z_log_var

    @functools.wraps(keras.Model.save)
    def save(self, filepath, *args, **settings):
        if str(filepath).lower().endswith((".h5", ".hdf5")):
            raise ValueError(
                "filepath must end in .keras, since a model of its own kind cannot be kept in "
                f"HDF5, or take save_weights and .weights.h5; found {filepath}"
            )
        super().save(filepath, *args, **settings)

    def export(self, filepath, format=None, **settings):
        """Export what needs no noise: images to a dictionary of their codes and what these draw.

        It holds ``z_mean``, ``z_log_var`` and what is drawn from ``z_mean``: ``decoded`` of a
        `VAE`, ``mean`` and ``log_var`` of a `helpers.mirror_vae.MirrorVAE`; so the same images
        give the same answer every time. `format` is Keras' own; None takes TensorFlow's
        ``"tf_saved_model"``, or ``"torch"`` on PyTorch, which then takes one image at a time.
        """
        if format is None:
            format = "torch" if keras.backend.backend() == "torch" else "tf_saved_model"
        images = keras.Input(self.encoder.input_shape[1:], name="images")
        model = keras.Model(images, self._without_noise(images))
        model(
            ops.zeros((1, *self.encoder.input_shape[1:]))
        )  # some formats want one that was called
        model.export(filepath, format=format, **settings)

    def get_config(self):
        return {
            **super().get_config(),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "decoder": keras.saving.serialize_keras_object(self.decoder),
            "beta": self.beta,
        }

    @classmethod
    def from_config(cls, config):
        parts = {
            name: keras.saving.deserialize_keras_object(config[name])
            for name in ("encoder", "decoder")
        }
        return cls(**{**config, **parts})


@keras.saving.register_keras_serializable("vae_book")
class VAE(OwnLoss):
    """A variational autoencoder: loss = reconstruction + beta · KL, in nats an image.

    ``fit``, ``evaluate``, ``save`` and ``keras.saving.load_model`` are Keras' own; the history
    holds ``loss``, ``reconstruction_loss`` and ``kl_loss``. Fit it on the images alone,
    ``vae.fit(images)``, or on others to draw them from, ``vae.fit(noisy, images)``. Weights of
    images (``sample_weight``), losses of layers such as regularisers, and metrics of what is drawn
    count as in any Keras model. The loss is computed in float32 in whatever precision the network
    runs; what the likelihood cannot take is refused; and a loss that is not finite ends training.

    Parameters
    ----------
    encoder : keras.Model
        Images to ``[z_mean, z_log_var]``, each (batch, latent_dim).
    decoder : keras.Model
        z, (batch, latent_dim), to pixel probabilities or means in the shape of the images.
    beta : float
        Weight of the KL term; 1 gives the evidence lower bound, more is a beta-VAE.
    likelihood : {"bernoulli", "continuous_bernoulli", "gaussian", "learned_gaussian"}
        See `reconstruction_loss`.
    components : int
        Gaussians in the prior. One is N(0, I); with more, their weights, centres and variances
        are learned, starting where `initialise_prior` puts them, and `belonging` tells which of
        them an image belongs to.
    denoising : bool
        Whether images are drawn from others, whose pixels may then be any finite numbers. Fitting
        with targets makes it true.

    Raises
    ------
    ValueError
        For a negative beta, an unknown likelihood, a decoder that does not fit the encoder, or
        less than one component; of ``compile``, for a loss, since this model brings its own; of
        ``fit`` and its like, for images, targets or weights that it cannot take, for
        ``class_weight``, and for a loss that is not finite.

    References
    ----------
    Kingma and Welling (2013), Auto-encoding variational Bayes, arXiv:1312.6114.
    Rezende, Mohamed and Wierstra (2014), Stochastic backpropagation, arXiv:1401.4082.
    Higgins et al. (2017), beta-VAE, ICLR.
    Jiang et al. (2017), Variational deep embedding, IJCAI: the mixture prior.
    Im et al. (2017), Denoising criterion for variational auto-encoding framework, AAAI: drawing
    images from others.

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

    _choices, _drawn = "`likelihood` and `beta`", "decoded"

    def __init__(
        self,
        encoder,
        decoder,
        *,
        beta=1.0,
        likelihood="bernoulli",
        components=1,
        denoising=False,
        **kwargs,
    ):
        super().__init__(encoder, decoder, beta=beta, **kwargs)
        if likelihood not in LIKELIHOODS:
            raise ValueError(f"likelihood must be one of {LIKELIHOODS}, found {likelihood!r}")
        if tuple(encoder.input_shape) != tuple(decoder.output_shape):
            raise ValueError(
                f"the encoder takes {encoder.input_shape}, the decoder returns "
                f"{decoder.output_shape}: they must have one shape"
            )
        components = whole_number("components", components)
        self.likelihood = likelihood
        self.components = components
        self.denoising = denoising
        shape = (components, decoder.input_shape[-1])
        precise = {"initializer": "zeros", "dtype": "float32", "autocast": False}
        learned = {**precise, "trainable": components > 1}
        self.prior_logits = self.add_weight(shape=shape[:1], name="prior_logits", **learned)
        self.prior_means = self.add_weight(shape=shape, name="prior_means", **learned)
        self.prior_log_vars = self.add_weight(shape=shape, name="prior_log_vars", **learned)
        self.log_var = self.add_weight(
            shape=(),
            trainable=self.likelihood == "learned_gaussian",
            name="log_var",
            **precise,
        )

    def call(self, x, training=False):
        """Encode, sample and decode: a dictionary of ``z_mean``, ``z_log_var`` and ``decoded``."""
        z_mean, z_log_var = self.encoder(x, training=training)
        z_mean = self._or_nan(z_mean, x, training)
        decoded = self.decoder(self.sampling([z_mean, z_log_var]), training=training)
        return {"z_mean": z_mean, "z_log_var": z_log_var, "decoded": decoded}

    def _without_noise(self, images):
        z_mean, z_log_var = self.encoder(images)
        return {"z_mean": z_mean, "z_log_var": z_log_var, "decoded": self.decoder(z_mean)}

    def _spent(self, target, y_pred):
        log_var = ops.convert_to_tensor(self.log_var)
        reconstruction = reconstruction_loss(target, y_pred["decoded"], self.likelihood, log_var)
        codes = (ops.cast(y_pred[name], "float32") for name in ("z_mean", "z_log_var"))
        return reconstruction, self._kl_to_prior(*codes)[0]

    def _compared(self, target, y_pred):
        return target, y_pred["decoded"]

    def _kl_to_prior(self, z_mean, z_log_var):
        log_weights = self.prior_logits - ops.logsumexp(self.prior_logits)
        return kl_to_mixture(z_mean, z_log_var, log_weights, self.prior_means, self.prior_log_vars)

    def initialise_prior(self, x, *, seed: int = 0) -> None:
        """Put the prior's components where a Gaussian mixture finds clusters among the codes.

        Training a mixture prior from scratch leaves most of its components empty; so train the
        VAE for a few epochs, call this, and train on.
        """
        if self.components == 1:
            raise ValueError("a prior of one component is N(0, I); there is nothing to initialise")
        codes = self.encode(x)[0]
        if len(codes) < self.components:
            raise ValueError(
                f"x must hold an image for each of {self.components} components, found {len(codes)}"
            )
        mixture = GaussianMixture(
            self.components, covariance_type="diag", reg_covar=1e-3, n_init=3, random_state=seed
        ).fit(codes)
        self.prior_logits.assign(np.log(mixture.weights_))
        self.prior_means.assign(mixture.means_)
        self.prior_log_vars.assign(np.log(mixture.covariances_))

    def belonging(self, x) -> np.ndarray:
        """Tell how much each image belongs to each component of the prior: (n, components)."""
        _, belongs = self._kl_to_prior(*self.encode(x))
        return ops.convert_to_numpy(belongs)

    def decode(self, z) -> np.ndarray:
        """Decode latents, (n, latent_dim), into images: pixel probabilities or means."""
        (images,) = self._run(self.decoder, self._taken("z", z, self.decoder.input_shape))
        return images

    def sample(self, n: int, seed: int | None = None) -> np.ndarray:
        """Decode n draws from the prior into new images; one seed gives one set."""
        n = whole_number("n", n)
        if seed is not None:
            whole_number("seed", seed, at_least=0)
        rng = np.random.default_rng(seed)
        noise = rng.standard_normal((n, self.decoder.input_shape[-1]))
        if self.components > 1:
            weights = ops.convert_to_numpy(ops.softmax(self.prior_logits)).astype(float)
            drawn = rng.choice(self.components, size=n, p=weights / weights.sum())
            spread = np.exp(0.5 * ops.convert_to_numpy(self.prior_log_vars))
            noise = ops.convert_to_numpy(self.prior_means)[drawn] + spread[drawn] * noise
        return self.decode(noise.astype(np.float32))

    def get_config(self):
        return {
            **super().get_config(),
            "likelihood": self.likelihood,
            "components": self.components,
            "denoising": self.denoising,
        }


def build_dense_vae(
    latent_dim: int = 2,
    *,
    input_shape: Sequence[int] = (28, 28),
    hidden_units: int = 256,
    beta: float = 1.0,
    likelihood: str = "bernoulli",
    components: int = 1,
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
    beta, likelihood, components
        See `VAE`. With a Bernoulli likelihood the decoder ends in a sigmoid.

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
    encoder = build_encoder(images, hidden, latent_dim)

    z = keras.Input((latent_dim,), name="z")
    hidden = layers.Dense(hidden_units, activation="relu")(z)
    pixels = layers.Reshape(input_shape)(layers.Dense(math.prod(input_shape))(hidden))
    # Where the sigmoid comes last, Keras computes the cross-entropy from what went into it.
    pixels = layers.Activation(_last_activation(likelihood), dtype="float32")(pixels)
    decoder = keras.Model(z, pixels, name="decoder")
    return VAE(encoder, decoder, beta=beta, likelihood=likelihood, components=components)


def build_conv_vae(
    latent_dim: int = 2,
    *,
    input_shape: Sequence[int] = (28, 28),
    filters: int = 32,
    beta: float = 1.0,
    likelihood: str = "bernoulli",
    components: int = 1,
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
    beta, likelihood, components
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
    encoder = build_encoder(images, layers.Flatten()(maps), latent_dim)

    z = keras.Input((latent_dim,), name="z")
    small = (rows // 4, columns // 4, 2 * filters)
    maps = layers.Reshape(small)(layers.Dense(math.prod(small), activation="relu")(z))
    maps = layers.Conv2DTranspose(2 * filters, **step)(maps)
    maps = layers.Conv2DTranspose(filters, **step)(maps)
    pixels = layers.Reshape(input_shape)(layers.Conv2D(1, 3, padding="same")(maps))
    pixels = layers.Activation(_last_activation(likelihood), dtype="float32")(pixels)
    decoder = keras.Model(z, pixels, name="decoder")
    return VAE(encoder, decoder, beta=beta, likelihood=likelihood, components=components)


def build_encoder(images, features, latent_dim: int) -> keras.Model:
    """Build an encoder of what was made of its images: two dense layers, in float32 in any case.

    Parameters
    ----------
    images, features : keras.KerasTensor
        What the encoder takes, and what the layers before the codes make of it, (batch, n).
    latent_dim : int
        Number of latent axes.

    Returns
    -------
    keras.Model
        Images to ``[z_mean, z_log_var]``.

    Examples
    --------
    >>> images = keras.Input((8,))
    >>> build_encoder(images, images, latent_dim=3).output_shape
    [(None, 3), (None, 3)]
    """
    precise = {"dtype": "float32"}  # whatever the layers before run in
    z_mean = layers.Dense(latent_dim, name="z_mean", **precise)(features)
    z_log_var = layers.Dense(latent_dim, name="z_log_var", **precise)(features)
    return keras.Model(images, [z_mean, z_log_var], name="encoder")


def fit_vae(
    vae: VAE,
    x: np.ndarray | keras.utils.PyDataset,
    *,
    epochs: int = 4,
    batch_size: int = 100,
    learning_rate: float = 6e-3,
    validation: np.ndarray | None = None,
) -> dict[str, list[float]]:
    """Train a VAE the way every chapter on lesions does: Adam, its steps shrinking to nothing.

    A mixture prior starts as a single Gaussian; after a third of the epochs its components are put
    where the clusters are, and the rest of the training moves both.

    Parameters
    ----------
    vae : VAE
        As built; call ``keras.utils.set_random_seed`` before building it.
    x : ndarray, shape (n, ...), or keras.utils.PyDataset
        What to learn from, in the range of the likelihood. A data set, such as
        `helpers.batches.ShardBatches`, brings batches of its own size, which then are taken in its
        own order.
    epochs, batch_size : int
        As in Keras' ``fit``; in a rehearsal (`helpers.rehearsal`) there are fewer epochs.
    learning_rate : float
        Of the first step; it follows half a cosine down to 0.
    validation : ndarray, shape (m, ...), or keras.utils.PyDataset, optional
        Held-out images whose losses the history shall hold, too.

    Returns
    -------
    dict of str to list of float
        Keras' history.

    Raises
    ------
    ValueError
        For images that are none, of another shape than the encoder's, or that the likelihood cannot
        take; for a number of epochs or of images in a batch that is not a whole number from 1, or a
        learning rate that is not above 0; for a mixture prior and fewer than 3 epochs, or a data
        set: its components are put among the codes of an array; and when a loss stops being finite,
        with the epoch and the likely cause.

    Examples
    --------
    >>> vae = build_dense_vae(2, input_shape=(8,), hidden_units=4, likelihood="gaussian")
    >>> len(fit_vae(vae, np.zeros((50, 8), "float32"), epochs=3)["loss"])
    3
    """
    epochs = whole_number("epochs", epochs)
    batch_size = whole_number("batch_size", batch_size)
    if not (isinstance(learning_rate, numbers.Real) and 0 < learning_rate < math.inf):
        raise ValueError(f"learning_rate must be above 0 and finite, found {learning_rate!r}")
    x = _to_learn_from(vae, "x", x)
    if validation is not None:
        validation = _to_learn_from(vae, "validation", validation)
    in_batches = isinstance(x, keras.utils.PyDataset)
    if in_batches and vae.components > 1:
        raise ValueError("a mixture prior needs an array to learn from, found a data set")
    epochs = fewer(epochs, at_least=3)
    steps = len(x) if in_batches else math.ceil(len(x) / batch_size)
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, epochs * steps)
    on_tensorflow = keras.backend.backend() == "tensorflow"
    # Compiling takes seconds, and then saves less than a millisecond a step.
    many = epochs * steps > 5000
    # A whole epoch in one call saves what Keras does around every batch; but what comes in batches
    # because there is no room for it must not be gathered first.
    at_once = steps if on_tensorflow and not in_batches else 1
    vae.compile(
        optimizer=keras.optimizers.Adam(schedule),
        jit_compile=many if on_tensorflow else "auto",
        steps_per_execution=at_once,
    )
    settings = {
        "batch_size": None if in_batches else batch_size,
        "shuffle": not in_batches,
        "verbose": 0,
        "validation_data": (validation,) if isinstance(validation, np.ndarray) else validation,
    }
    warm_up = epochs // 3 if vae.components > 1 else 0
    if vae.components > 1 and not warm_up:
        raise ValueError(f"a mixture prior needs at least 3 epochs, found {epochs}")
    history = vae.fit(x, epochs=warm_up, **settings).history if warm_up else {}
    if warm_up:
        vae.initialise_prior(x)
    later = vae.fit(x, initial_epoch=warm_up, epochs=epochs, **settings).history
    return {name: history.get(name, []) + values for name, values in later.items()}


def fit_dense_vae(
    train: np.ndarray,
    validation: np.ndarray | None = None,
    *,
    seed: int = 0,
    latent_dim: int = 5,
    epochs: int = 4,
    batch_size: int = 100,
    **settings,
) -> tuple[VAE, dict[str, list[float]]]:
    """Build a dense VAE and train it on some patients' patches.

    Parameters
    ----------
    train : ndarray of float32, shape (n, ...)
        What to learn from.
    validation : ndarray of float32, shape (m, ...), optional
        See `fit_vae`.
    seed : int
        Of the weights, the order of the batches and the noise.
    latent_dim, epochs, batch_size
        See `build_dense_vae` and `fit_vae`.
    **settings
        Further ones of `build_dense_vae`.

    Returns
    -------
    VAE
        The trained network.
    dict of str to list of float
        Its history, see `fit_vae`.

    Examples
    --------
    >>> x = np.zeros((40, 6), "float32")
    >>> vae, history = fit_dense_vae(x, x[:9], epochs=1, likelihood="gaussian")
    >>> vae.encode(x)[0].shape, "val_loss" in history
    ((40, 5), True)
    """
    keras.utils.set_random_seed(whole_number("seed", seed, at_least=0))
    vae = build_dense_vae(latent_dim, input_shape=np.shape(train)[1:], **settings)
    history = fit_vae(vae, train, epochs=epochs, batch_size=batch_size, validation=validation)
    return vae, history


def fit_and_encode(
    train: np.ndarray, test: np.ndarray, **settings
) -> tuple[np.ndarray, np.ndarray]:
    """Train a dense VAE on some patients' patches; encode theirs and those it has not seen.

    Parameters
    ----------
    train, test : ndarray of float32, shape (n, ...) and (m, ...)
        What to learn from, and what only to encode.
    **settings
        Of `fit_dense_vae`.

    Returns
    -------
    (ndarray, ndarray)
        Latent means, (n, latent_dim) and (m, latent_dim).

    Examples
    --------
    >>> x = np.zeros((40, 6), "float32")
    >>> [z.shape for z in fit_and_encode(x, x[:3], epochs=1, likelihood="gaussian")]
    [(40, 5), (3, 5)]
    """
    vae, _ = fit_dense_vae(train, **settings)
    return vae.encode(train)[0], vae.encode(test)[0]


def _to_learn_from(vae, name, x) -> np.ndarray | keras.utils.PyDataset:
    """Take images, or batches of them, and refuse what holds none."""
    if isinstance(x, tuple):
        raise ValueError(f"{name} must be the images alone, found a tuple of {len(x)}")
    if not isinstance(x, keras.utils.PyDataset):
        x = vae._images(name, x)
    if not len(x):
        raise ValueError(f"{name} must hold at least one image, found none")
    return x


def _array(name, x) -> np.ndarray:
    return ops.convert_to_numpy(x) if ops.is_tensor(x) else _native(as_array(name, x))


def _native(x):
    """Turn the bytes of an array round that has them the other way; JAX takes none such."""
    if isinstance(x, np.ndarray) and not x.dtype.isnative:
        return x.astype(x.dtype.newbyteorder("="))
    return x


def _one_each(weights):
    """Take one column of weights for the row that it is."""
    return weights[:, 0] if tuple(weights.shape[1:]) == (1,) else weights


def _as_many(name, part, x):
    """Refuse targets or weights that are not one for each image: one alone would count for all."""
    found, expected = part.shape[0], x.shape[0]
    if None not in (found, expected) and found != expected:
        raise ValueError(f"{name} must be one for each of {expected} images, found {found}")
    return ops.reshape(part, (ops.shape(x)[0], *part.shape[1:]))


def _check_shape(name, x, expected) -> None:
    """Refuse an array or tensor that has other axes than (any number, as expected)."""
    if not len(x.shape) or tuple(x.shape[1:]) != tuple(expected[1:]):
        raise ValueError(f"{name} must have shape {_words(expected)}, found {tuple(x.shape)}")


def _words(shape) -> str:
    return f"(n{''.join(f', {length}' for length in shape[1:]) or ','})"


def _last_activation(likelihood) -> str:
    return "sigmoid" if str(likelihood).endswith("bernoulli") else "linear"
