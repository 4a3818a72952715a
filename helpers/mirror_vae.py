"""The VAE that is told the other side: what does a window hold that its mirror image does not tell?

A conditional variational autoencoder. Its encoder sees a window of a slice and the same window of
the other hemisphere; its decoder sees the latents and the other hemisphere, and says for each pixel
what it expects and how far off it may be. No lesion mask is used anywhere in this file.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Sequence
from itertools import product

import numpy as np
from scipy.ndimage import grey_dilation, zoom

from helpers import whole_number
from helpers.hemispheres import (
    Midline,
    even_out,
    find_midline,
    mirror,
    relative_to_mode,
    smooth_in_brain,
)
from helpers.rehearsal import fewer
from helpers.scans import Scan
from helpers.vae import (
    ROUNDING,
    OwnLoss,
    build_encoder,
    keras,
    kl_divergence,
    layers,
    ops,
    reconstruction_loss,
)

#: Rows and columns of a window, and the size of its pixels in mm: 40 × 40 mm, to draw maps with.
WINDOW, PIXEL = 20, 2.0
#: The same of a wide window, which sees more of the brain and less of its folds: 56 × 56 mm.
WIDE_WINDOW, WIDE_PIXEL = 14, 4.0
#: Standard deviation, in mm, of the bell by which the pixels of a window around a patch count.
BELL = 16.0
#: What each pixel of a window holds; the encoder sees all of it, the decoder all but the first two.
CHANNELS = ("own side", "own brain", "other side", "other brain", "brightest nearby")


def both_sides(
    scan: Scan, *, wide: bool = False, even: bool = True, midline: Midline | None = None
) -> np.ndarray:
    """Lay a scan and its mirror image over each other, in pixels of 2 mm, or of 4 mm.

    Parameters
    ----------
    scan : Scan
        Slices of any thickness, pixels of any size. Its lesion mask is not looked at.
    wide : bool
        For wide windows: pixels of 4 mm, smoothed by 3 mm, and nothing darker than the mode, since
        strokes are bright and what is coarse has little place for anything else.
    even : bool
        Take out slow differences between the sides, see
        `helpers.hemispheres.even_out`: an uneven coil makes them in
        diffusion MRI.
    midline : Midline, optional
        Where to put the mirror in the scan, if that is known; it is found otherwise.

    Returns
    -------
    ndarray of float32, shape (slices, rows, columns, 5)
        The `CHANNELS`: intensity relative to the brain's mode through ``arcsinh(4 x)``, which is
        straight near 0 and a logarithm far out; how much of the pixel is brain; the same two of the
        other side; and the other side's brightest value within 6 mm, since no two halves match to
        the millimetre.

    Examples
    --------
    >>> brain = np.zeros((3, 40, 50), bool)
    >>> brain[:, 5:35, 6:45] = True
    >>> dwi = np.where(brain, np.random.default_rng(0).uniform(1, 2, brain.shape), 0)
    >>> both_sides(Scan("a", dwi.astype("float32"), None, brain, (5.0, 1.0, 1.0))).shape
    (3, 20, 25, 5)
    """
    pixel = WIDE_PIXEL if wide else PIXEL
    scale = (1, scan.spacing[1] / pixel, scan.spacing[2] / pixel)
    inside = _resize(scan.brain.astype(np.float32), scale)
    brain = inside > 0.5
    # What lies half outside is brighter than its mean with the air.
    dwi = np.where(
        brain, _resize(np.where(scan.brain, scan.dwi, 0), scale) / np.maximum(inside, 0.5), 0
    )
    spacing = (scan.spacing[0], pixel, pixel)
    if midline is None:
        midline = find_midline(dwi, brain, spacing)
    else:  # the middle of the first pixel is not that of the first voxel
        apart = np.subtract(spacing, scan.spacing) / 2
        offset = midline.offset - float(apart @ midline.normal)
        midline = Midline(midline.normal, offset, spacing)
    if even:
        dwi = even_out(dwi, brain, midline)
    own = np.where(brain, np.arcsinh(4 * relative_to_mode(dwi, brain)), 0).astype(np.float32)
    if wide:
        own = np.where(brain, np.maximum(smooth_in_brain(own, brain, 3 / pixel), 0), 0)
    other_brain = mirror(brain.astype(np.float32), midline)
    lowest = float(own.min())
    smooth = np.where(brain, smooth_in_brain(own, brain, 1 / pixel), lowest)
    reach = 2 * round(6 / pixel) + 1
    nearby = grey_dilation(mirror(smooth, midline, outside=lowest), size=(1, reach, reach))
    nearby = np.where(other_brain > 0.5, nearby, 0)
    sides = (own, brain, mirror(own, midline), other_brain, nearby)
    return np.stack([side.astype(np.float32) for side in sides], axis=-1)


def cut_windows(
    sides: np.ndarray, step: int = 10, window: int = WINDOW
) -> tuple[np.ndarray, np.ndarray]:
    """Cut overlapping windows out of both sides of a scan, as many to the left as to the right.

    Parameters
    ----------
    sides : ndarray of float32, shape (slices, rows, columns, 5)
        As `both_sides` gives them.
    step : int
        Pixels from one window to the next.
    window : int
        Rows and columns of a window.

    Returns
    -------
    windows : ndarray of float32, shape (n, window, window, 5)
        Those of which at least a fifth is brain.
    corners : ndarray of int, shape (n, 3)
        Slice, row and column of each one's first pixel; a window may reach beyond the slice, so
        these may be negative.

    Examples
    --------
    >>> windows, corners = cut_windows(np.ones((2, 20, 20, 5), "float32"), step=20)
    >>> windows.shape, corners.tolist()
    ((2, 20, 20, 5), [[0, 0, 0], [1, 0, 0]])
    """
    starts = []
    for n in sides.shape[1:3]:
        count = max(0, math.ceil((n - window) / step)) + 1 + 2 * (step < window)
        span = (count - 1) * step + window
        starts.append((n - span) // 2 + step * np.arange(count))
    grid = np.meshgrid(np.arange(len(sides)), *starts, indexing="ij")
    corners = np.stack([places.ravel() for places in grid], axis=1)
    kept = windows_at(sides[..., 1:2], corners, window).mean(axis=(1, 2, 3)) >= 0.2
    return windows_at(sides, corners[kept], window), corners[kept]


def windows_at(sides: np.ndarray, corners: np.ndarray, window: int = WINDOW) -> np.ndarray:
    """Cut windows out of both sides of a scan at given places.

    Parameters
    ----------
    sides : ndarray of float32, shape (slices, rows, columns, channels)
        As `both_sides` gives them.
    corners : ndarray of int, shape (n, 3)
        Slice, row and column of each window's first pixel; beyond the slice there is air.
    window : int
        Rows and columns of a window.

    Returns
    -------
    ndarray of float32, shape (n, window, window, channels)

    Examples
    --------
    >>> float(windows_at(np.ones((2, 30, 30, 5), "float32"), np.array([[1, -5, 0]])).mean())
    0.75
    """
    z, *corner = np.transpose(corners)
    if n_beyond := np.count_nonzero((z < 0) | (z >= len(sides))):
        raise ValueError(
            f"corners must lie in slices 0 to {len(sides) - 1}, found {n_beyond} that do not"
        )
    # From a window's length beyond the edge on there is nothing but air.
    row, column = (
        np.clip(start, -window, length)
        for start, length in zip(corner, sides.shape[1:3], strict=True)
    )
    air = [
        (max(0, -first.min(initial=0)), max(0, first.max(initial=0) + window - length))
        for first, length in zip((row, column), sides.shape[1:3], strict=True)
    ]
    padded = np.pad(sides, ((0, 0), *air, (0, 0)))
    shape = (1, window, window, sides.shape[3])
    views = np.lib.stride_tricks.sliding_window_view(padded, shape)[:, :, :, 0, 0]
    return np.ascontiguousarray(views[z, row + air[0][0], column + air[1][0]])


def windows_around(
    sides: np.ndarray, locations: np.ndarray, *, patch: int = 28, wide: bool = False
) -> np.ndarray:
    """Cut the window out of both sides whose middle is that of a patch, for each patch.

    Parameters
    ----------
    sides : ndarray of float32, shape (slices, rows, columns, channels)
        As `both_sides` gives them.
    locations : ndarray of int, shape (n, 3)
        Slice, row and column of each patch's first voxel, rows and columns 1 mm apart.
    patch : int
        Rows and columns of a patch.
    wide : bool
        Whether these are the sides of wide windows.

    Returns
    -------
    ndarray of float32, shape (n, window, window, channels)
        20 pixels on a side, or 14 wide ones.

    Examples
    --------
    >>> windows_around(np.ones((2, 30, 30, 5), "float32"), np.array([[1, 28, 28]])).shape
    (1, 20, 20, 5)
    """
    window, pixel = (WIDE_WINDOW, WIDE_PIXEL) if wide else (WINDOW, PIXEL)
    middle = (np.asarray(locations)[:, 1:] + patch / 2) / pixel
    corners = np.rint(middle - window / 2).astype(int)
    return windows_at(sides, np.column_stack([locations[:, 0], corners]), window)


@keras.saving.register_keras_serializable("vae_book")
class MirrorVAE(OwnLoss):
    """A VAE that is told the other side: loss = reconstruction + beta · KL, in nats a window.

    The evidence lower bound is that of a `helpers.vae.VAE`, with every distribution conditioned on
    the other side; the reconstruction counts the brain's pixels only. Fit it on the windows alone,
    ``vae.fit(windows)``, or on others, to draw their own side from what these show,
    ``vae.fit(noisy, windows)``. Weights of windows, losses of layers, metrics and the rest are kept
    as a `helpers.vae.VAE` keeps them; metrics compare the means, and count the air as drawn right.

    Parameters
    ----------
    encoder : keras.Model
        Windows, (batch, window, window, 5), to ``[z_mean, z_log_var]``, each (batch, latent_dim).
    decoder : keras.Model
        ``[z, windows of the other side]``, the latter (batch, window, window, 3), to the mean
        and the log-variance of each pixel, each (batch, window, window).
    beta : float
        Weight of the KL term.
    reach : float
        Standard deviation, in pixels, of a bell around the window's middle: by its height each
        pixel counts in the reconstruction. By default all count alike.

    Raises
    ------
    ValueError
        For a negative beta, or a reach that is not above 0; of ``compile``, for a loss, since this
        model brings its own; of ``fit`` and its like, for windows, targets or weights that it
        cannot take, for ``class_weight``, and for a loss that is not finite.

    References
    ----------
    Sohn, Lee and Yan (2015), Learning structured output representation using deep conditional
    generative models, NeurIPS, equation 4.

    Examples
    --------
    >>> vae = build_mirror_vae(latent_dim=2, hidden_units=8)
    >>> windows = np.ones((6, 20, 20, 5), "float32")
    >>> [part.shape for part in vae.encode(windows)]
    [(6, 2), (6, 2)]
    >>> [part.shape for part in vae.expect(windows[..., 2:])]
    [(6, 20, 20), (6, 20, 20)]
    """

    def __init__(self, encoder, decoder, *, beta=1.0, reach=math.inf, **kwargs):
        super().__init__(encoder, decoder, beta=beta, **kwargs)
        if isinstance(reach, bool) or not (isinstance(reach, numbers.Real) and reach > 0):
            raise ValueError(f"reach must be a number of pixels above 0, found {reach!r}")
        self.reach = float(reach)
        self.bell = _bell(encoder.input_shape[1], self.reach)

    def get_config(self):
        return {**super().get_config(), "reach": self.reach}

    def call(self, windows, training=False):
        """Encode, sample and decode: z_mean, z_log_var, and each pixel's mean and log_var."""
        windows = ops.convert_to_tensor(windows)  # JAX may be given an array
        z_mean, z_log_var = self.encoder(windows, training=training)
        z_mean = self._or_nan(z_mean, windows, training)
        return self._told(windows, z_mean, z_log_var, self.sampling([z_mean, z_log_var]), training)

    def _told(self, windows, z_mean, z_log_var, z, training=False):
        mean, log_var = self.decoder([z, windows[..., 2:]], training=training)
        return {"z_mean": z_mean, "z_log_var": z_log_var, "mean": mean, "log_var": log_var}

    def _without_noise(self, images):
        z_mean, z_log_var = self.encoder(images)
        return self._told(images, z_mean, z_log_var, z_mean)

    def _spent(self, target, y_pred):
        y_pred = {name: ops.cast(part, "float32") for name, part in y_pred.items()}
        own, brain = (ops.cast(target[..., n], "float32") for n in (0, 1))
        weight = ops.multiply(brain, self.bell)
        reconstruction = reconstruction_loss(
            own, y_pred["mean"], "gaussian", y_pred["log_var"], weight
        )
        # Of more brain than a pixel holds there is no bound to what the window would seem to gain.
        within = ops.all(ops.abs(brain - 0.5) <= 0.5 + ROUNDING, axis=(1, 2))
        reconstruction = ops.where(within, reconstruction, math.nan)
        return reconstruction, kl_divergence(y_pred["z_mean"], y_pred["z_log_var"])

    def _compared(self, target, y_pred):
        target, mean = ops.cast(target, "float32"), ops.cast(y_pred["mean"], "float32")
        own, brain = target[..., 0], target[..., 1]
        return own, brain * mean + (1 - brain) * own

    def _images(self, name, x, *, bounded=True) -> np.ndarray:
        """Take windows as an array, whose shares of brain are shares."""
        x = super()._images(name, x)
        low, high = (float(limit(x[..., 1], initial=0)) for limit in (np.min, np.max))
        if not -ROUNDING <= low <= high <= 1 + ROUNDING:
            raise ValueError(
                f"{name} must hold {CHANNELS[1]!r} as a share in [0, 1], in channel 1; found {low} "
                f"to {high}"
            )
        return x

    def nats(self, windows) -> np.ndarray:
        """Tell how much each window holds that the other side does not tell: its KL, (n,)."""
        z_mean, z_log_var = self.encode(windows)
        return ops.convert_to_numpy(kl_divergence(z_mean, z_log_var))

    def expect(self, other) -> tuple[np.ndarray, np.ndarray]:
        """Tell from the other side alone what a window should look like, and how surely.

        The latents are averaged out: to the spread that the decoder names is added how far its
        mean moves over the prior. Points at ±√d along each of the d axes have the prior's mean and
        variance, and stand for it.

        Parameters
        ----------
        other : ndarray of float32, shape (n, window, window, 3)
            The other side's channels.

        Returns
        -------
        mean, deviation : ndarray of float32, shape (n, window, window)
            Expected value and standard deviation of each pixel.

        References
        ----------
        Julier and Uhlmann (1997), A new extension of the Kalman filter to nonlinear systems, SPIE
        3068: the points.
        """
        other = self._taken("other", other, self.decoder.input_shape[1])
        latent_dim = self.decoder.input_shape[0][-1]
        axes = math.sqrt(latent_dim) * np.eye(latent_dim, dtype=np.float32)
        total = square = variance = 0.0
        for z in (*axes, *-axes):
            everywhere = np.broadcast_to(z, (len(other), latent_dim))
            mean, log_var = self._run(self.decoder, everywhere, other)
            total, square = total + mean, square + mean**2
            variance = variance + np.exp(log_var)
        n = 2 * latent_dim
        return total / n, np.sqrt((variance + square) / n - (total / n) ** 2)

    def surprise(self, windows) -> np.ndarray:
        """Tell by how many tolerances each pixel is brighter than the other side lets one expect.

        Parameters
        ----------
        windows : ndarray of float32, shape (n, window, window, 5)
            As `cut_windows` gives them.

        Returns
        -------
        ndarray of float, shape (n, window, window)
            Own side minus the expected value, over the standard deviation; see `expect`. What it
            says of pixels without brain means nothing.
        """
        windows = self._images("windows", windows)
        mean, deviation = self.expect(windows[..., 2:])
        return (windows[..., 0] - mean) / deviation


def patch_surprise(vae: MirrorVAE, windows: np.ndarray, *, beyond: float = 2.0) -> np.ndarray:
    """Tell how surprising the middle of each window is and what lies around it, in one number.

    The mean over the brain of what lies beyond two tolerances, weighted by a bell of 16 mm, as the
    plain number *around* is: a lesion is more than one pixel, and seldom ends where a patch does.

    Parameters
    ----------
    vae : MirrorVAE
        Trained on other patients.
    windows : ndarray of float32, shape (n, window, window, 5)
        One around each patch, as `windows_around` gives them.
    beyond : float
        How many tolerances are not counted.

    Returns
    -------
    ndarray of float, shape (n,)
        Tolerances, 0 where no pixel is beyond; 0, too, for a window without brain.

    Raises
    ------
    ValueError
        For windows that the network cannot take, or a `beyond` that is no number.

    Examples
    --------
    >>> vae = build_mirror_vae(latent_dim=2, hidden_units=8, window=14)
    >>> windows = np.ones((2, 14, 14, 5), "float32")
    >>> windows[1, 6:8, 6:8, 0] = 100
    >>> ordinary, spotted = patch_surprise(vae, windows)
    >>> bool(spotted > ordinary)
    True
    """
    if not np.isfinite(beyond):
        raise ValueError(f"beyond must be a number of tolerances, found {beyond!r}")
    surprise = vae.surprise(windows)
    size = surprise.shape[1]
    pixel = WIDE_PIXEL if size == WIDE_WINDOW else PIXEL
    weight = _bell(size, BELL / pixel) * windows[..., 1]
    total = (weight * np.maximum(surprise - beyond, 0)).sum(axis=(1, 2))
    return total / np.maximum(weight.sum(axis=(1, 2)), 1e-6)


def patch_codes(
    vae: MirrorVAE, sides: Iterable[np.ndarray], locations: Iterable[np.ndarray]
) -> np.ndarray:
    """Encode patches: the mean of the latents of four wide windows around each.

    The windows lie 4 mm up or down and 4 mm to the left or right of the patch's middle: what one of
    them cuts by chance, another does not.

    Parameters
    ----------
    vae : MirrorVAE
        Trained on wide windows.
    sides : iterable of ndarray, shape (slices, rows, columns, 5)
        Of each patient, as ``both_sides(scan, wide=True)`` gives them.
    locations : iterable of ndarray of int, shape (n, 3)
        Of each patient's patches, as for `windows_around`.

    Returns
    -------
    ndarray of float32, shape (patches, latent_dim)
        Patient after patient.

    Raises
    ------
    ValueError
        No patient was given, or locations of other patients than the sides.

    Examples
    --------
    >>> vae = build_mirror_vae(latent_dim=2, hidden_units=8, window=14)
    >>> sides, places = np.ones((2, 30, 30, 5), "float32"), np.array([[1, 28, 28]])
    >>> patch_codes(vae, [sides, sides], [places, places]).shape
    (2, 2)
    """
    sides, locations = list(sides), list(locations)
    if len(sides) != len(locations) or not sides:
        raise ValueError(
            "sides and locations must be of the same patients, one or more; found "
            f"{len(sides)} and {len(locations)}"
        )
    codes = []
    for move in product((0,), (-4, 4), (-4, 4)):
        moved = (np.add(places, move) for places in locations)
        pairs = zip(sides, moved, strict=True)
        windows = [windows_around(own, places, wide=True) for own, places in pairs]
        codes.append(vae.encode(np.concatenate(windows))[0])
    return np.mean(codes, axis=0)


def build_mirror_vae(
    latent_dim: int = 5, *, hidden_units: int = 256, beta: float = 1.0, window: int = WINDOW
) -> MirrorVAE:
    """Build a `MirrorVAE` of two dense hidden layers on each side.

    Parameters
    ----------
    latent_dim : int
        Number of latent axes.
    hidden_units : int
        Width of each hidden layer.
    beta : float
        See `MirrorVAE`.
    window : int
        Rows and columns of a window. Wide ones are for the patch in their middle, so by a bell of
        16 mm their middle counts most.

    Returns
    -------
    MirrorVAE
        Not compiled yet. The log-variance of a pixel is held between -5 and 3, so that no pixel
        can be certain.

    Examples
    --------
    >>> build_mirror_vae().decoder.count_params()
    580128
    """
    square = (window, window)

    def hidden(features):
        for _ in range(2):
            features = layers.Dense(hidden_units, activation="relu")(features)
        return features

    windows = keras.Input((*square, len(CHANNELS)), name="windows")
    features = hidden(layers.Flatten()(windows))
    encoder = build_encoder(windows, features, latent_dim)

    z = keras.Input((latent_dim,), name="z")
    other = keras.Input((*square, len(CHANNELS) - 2), name="other_side")
    features = hidden(layers.Concatenate()([z, layers.Flatten()(other)]))
    precise = {"dtype": "float32"}  # whatever the layers before run in
    mean = layers.Dense(window**2, **precise)(features)
    mean = layers.Reshape(square, name="mean", **precise)(mean)
    log_var = layers.Dense(window**2, activation="tanh", **precise)(features)
    log_var = layers.Rescaling(4.0, offset=-1.0, **precise)(log_var)
    log_var = layers.Reshape(square, name="log_var", **precise)(log_var)
    decoder = keras.Model([z, other], [mean, log_var], name="decoder")
    reach = BELL / WIDE_PIXEL if window == WIDE_WINDOW else math.inf
    return MirrorVAE(encoder, decoder, beta=beta, reach=reach)


def fit_mirror_vae(
    scans: Sequence[Scan],
    *,
    latent_dim: int = 5,
    beta: float = 1.0,
    epochs: int = 6,
    seed: int = 0,
    even: bool = True,
) -> MirrorVAE:
    """Train a `MirrorVAE` on the windows of some scans; their lesion masks are not looked at.

    Parameters
    ----------
    scans : sequence of Scan
        The patients to learn from.
    latent_dim, beta
        See `build_mirror_vae`.
    epochs : int
        How often each window is seen; in a rehearsal (`helpers.rehearsal`) fewer times.
    seed : int
        Of the weights, the order of the batches and the noise.
    even : bool
        See `both_sides`.

    Returns
    -------
    MirrorVAE
        Trained.

    Raises
    ------
    ValueError
        No scan was given.

    Examples
    --------
    >>> brain = np.zeros((2, 60, 60), bool)
    >>> brain[:, 5:55, 5:55] = True
    >>> dwi = np.where(brain, np.random.default_rng(0).uniform(1, 2, brain.shape), 0)
    >>> scan = Scan("a", dwi.astype("float32"), None, brain, (5.0, 1.0, 1.0))
    >>> vae = fit_mirror_vae([scan], epochs=1)
    >>> surprise_map(vae, scan).shape
    (2, 60, 60)
    """
    if not len(scans):
        raise ValueError("scans must hold at least one patient, found none")
    windows = [cut_windows(both_sides(scan, even=even))[0] for scan in scans]
    return train_mirror_vae(
        np.concatenate(windows), latent_dim=latent_dim, beta=beta, epochs=epochs, seed=seed
    )


def train_mirror_vae(
    windows: np.ndarray,
    *,
    latent_dim: int = 5,
    beta: float = 1.0,
    epochs: int = 6,
    seed: int = 0,
    batch_size: int = 200,
) -> MirrorVAE:
    """Train a `MirrorVAE` on windows, as `cut_windows` gives them; see `fit_mirror_vae`.

    Every second window is turned over, left for right: strokes know no side.
    """
    epochs = whole_number("epochs", epochs)
    batch_size = whole_number("batch_size", batch_size)
    if np.ndim(windows) != 4 or not len(windows):
        raise ValueError(
            "windows must hold at least one window, as cut_windows gives them; found shape "
            f"{np.shape(windows)}"
        )
    keras.utils.set_random_seed(whole_number("seed", seed, at_least=0))
    vae = build_mirror_vae(latent_dim, beta=beta, window=windows.shape[1])
    windows = windows.copy()
    windows[1::2] = windows[1::2, :, ::-1]
    epochs = fewer(epochs, at_least=3)
    steps = math.ceil(len(windows) / batch_size)
    schedule = keras.optimizers.schedules.CosineDecay(
        1e-4, epochs * steps, warmup_target=2e-3, warmup_steps=max(1, epochs * steps // 5)
    )
    on_tensorflow = keras.backend.backend() == "tensorflow"
    vae.compile(
        optimizer=keras.optimizers.AdamW(schedule, weight_decay=0.01),
        # Compiling by XLA would not pay on TensorFlow; on JAX all speed comes from it.
        jit_compile=False if on_tensorflow else "auto",
        steps_per_execution=steps if on_tensorflow else 1,  # what Keras does around each is saved
    )
    vae.fit(windows, epochs=epochs, batch_size=batch_size, verbose=0)
    return vae


def surprise_map(
    vae: MirrorVAE, scan: Scan, *, even: bool = True, midline: Midline | None = None
) -> np.ndarray:
    """Tell by how many tolerances each voxel is brighter than the other side leads one to expect.

    Parameters
    ----------
    vae : MirrorVAE
        Trained on other patients.
    scan : Scan
        The patient; the lesion mask is not looked at.
    even, midline
        See `both_sides`.

    Returns
    -------
    ndarray of float32, shape of ``scan.dwi``
        0 is as expected, 1 a tolerance brighter, -1 a tolerance darker; averaged over overlapping
        windows, those whose middle is near counting most, and over 1 mm. 0 outside the brain.

    Raises
    ------
    ValueError
        The network was trained on wide windows.

    Examples
    --------
    See `fit_mirror_vae`.
    """
    if (found := vae.decoder.output_shape[0][-1]) != WINDOW:
        raise ValueError(
            f"vae must be trained on fine windows of {WINDOW} pixels, found one of {found}: wide "
            "windows are for patches"
        )
    sides = both_sides(scan, even=even, midline=midline)
    windows, corners = cut_windows(sides, step=5)
    surprise = vae.surprise(windows)
    bell = np.hanning(WINDOW + 2)[1:-1]
    bell = np.outer(bell, bell).astype(np.float32)
    z, rows, columns = sides.shape[:3]
    total = np.zeros((z, rows + 2 * WINDOW, columns + 2 * WINDOW), np.float32)
    weight = np.zeros_like(total)
    for (n, row, column), values in zip(
        np.add(corners, (0, WINDOW, WINDOW)), surprise, strict=True
    ):
        place = (n, slice(row, row + WINDOW), slice(column, column + WINDOW))
        total[place] += bell * values
        weight[place] += bell
    inner = (slice(None), slice(WINDOW, -WINDOW), slice(WINDOW, -WINDOW))
    found = total[inner] / np.maximum(weight[inner], 1e-6)
    found = smooth_in_brain(found, sides[..., 1] > 0, 1 / PIXEL)
    scale = np.divide(scan.dwi.shape, found.shape)
    return np.where(scan.brain, _resize(found, scale, scan.dwi.shape), 0).astype(np.float32)


def _bell(window: int, reach: float) -> np.ndarray:
    """Weigh the pixels of a window by a bell around its middle, whose height is 1."""
    row = np.exp(-0.5 * ((np.arange(window) - (window - 1) / 2) / reach) ** 2)
    return np.outer(row, row).astype(np.float32)


def _resize(volume: np.ndarray, scale, shape=None) -> np.ndarray:
    """Change the size of pixels; the outer edges of the first and the last ones stay in place."""
    volume = np.asarray(volume, dtype=np.float32)
    shape = np.rint(np.multiply(volume.shape, scale)).astype(int) if shape is None else shape
    if tuple(shape) == volume.shape:
        return volume
    return zoom(volume, np.divide(shape, volume.shape), order=1, mode="nearest", grid_mode=True)
