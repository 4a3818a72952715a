"""Shuffled batches of a cohort that does not fit into memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path

import numpy as np

from helpers import whole_number
from helpers.cohort import open_array
from helpers.vae import keras


class ShardBatches(keras.utils.PyDataset):
    """Batches of patches from the shards of `helpers.cohort.write_shards`: ``vae.fit(batches)``.

    Each epoch takes the patients in a new order, a few at a time, and mixes the patches of those
    few. Every patch comes exactly once an epoch. Nothing but the batch is held in memory, and the
    order follows from the seed and the epoch alone, so batches may be asked for in any order and
    by several threads.

    Parameters
    ----------
    shards : sequence of path
        One or more patients.
    batch_size : int
        Patches in a batch; the last one of an epoch holds the rest.
    seed : int
        Of the order.
    window : int
        How many patients are mixed at a time. More mix better; fewer touch fewer files a batch.
    part : (int, int)
        Which part of each batch, counted from 0, of how many: the share of one of several
        processes that train together. The parts of a batch, put together in order, are the batch;
        up to one patch a part is left out at the end of an epoch, so that all are equally long.
    **settings
        ``workers`` and others of `keras.utils.PyDataset`.

    Raises
    ------
    ValueError
        No shard or no patch, one path in place of several, shards of more than one patch size, a
        window without a patient, a seed, batch or part that is no whole number, or a batch that
        cannot be divided into equal parts; a file of a shard that is damaged.

    Examples
    --------
    >>> import tempfile
    >>> from helpers.phantom import write_cohort
    >>> from helpers.cohort import write_shards
    >>> with tempfile.TemporaryDirectory() as root:
    ...     shards = write_shards(write_cohort(f"{root}/scans", n_cases=1), f"{root}/shards")
    ...     (images,) = ShardBatches(shards, batch_size=100)[0]
    >>> images.shape
    (100, 28, 28)
    """

    def __init__(
        self,
        shards: Sequence[str | os.PathLike],
        batch_size: int = 100,
        *,
        seed: int = 0,
        window: int = 16,
        part: tuple[int, int] = (0, 1),
        **settings,
    ):
        super().__init__(**settings)
        if isinstance(shards, (str, os.PathLike)):
            raise ValueError(
                f"shards must be several folders, found the one path {os.fspath(shards)!r}; "
                "helpers.cohort.find_shards lists the shards in a folder"
            )
        whole_number("window", window)
        whole_number("batch_size", batch_size)
        whole_number("seed", seed, at_least=0)
        try:
            which, of = part
        except (TypeError, ValueError) as error:
            raise ValueError(f"part must be two numbers, found {part!r}") from error
        whole_number("which one of part", which, at_least=0)
        whole_number("how many of part", of)
        self.paths = [Path(shard) / "patches.npy" for shard in shards]
        shapes = [open_array(path).shape for path in self.paths]
        self.sizes = np.array([shape[0] for shape in shapes])
        if not self.paths or not self.sizes.sum():
            raise ValueError(f"shards must hold patches, found none in {len(self.paths)} shards")
        if len(set(shape[1:] for shape in shapes)) > 1:
            kinds = sorted({shape[1:] for shape in shapes})
            raise ValueError(f"shards must share one patch size, found {kinds}")
        if which >= of or batch_size % of:
            raise ValueError(
                f"batch_size must be a multiple of the number of parts, and part one of them; "
                f"found batch_size {batch_size} and part {which} of {of}"
            )
        self.batch_size, self.seed, self.window, self.part = batch_size, seed, window, part
        self.epoch = 0

    def __len__(self) -> int:
        """Count the batches of an epoch."""
        return -(-self._used() // self.batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray]:
        """Read one batch: ``(images,)``, as Keras asks for it."""
        return (self._read(*self.rows(index)),)

    def on_epoch_end(self) -> None:
        """Start the next epoch with another order."""
        self.epoch += 1

    def rows(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Tell where the patches of a batch are: the position of each one's shard, and its row."""
        if not isinstance(index, Integral) or not 0 <= index < len(self):
            raise IndexError(f"index must be from 0 to {len(self) - 1}, found {index!r}")
        which, of = self.part
        start = index * self.batch_size
        length = (min(start + self.batch_size, self._used()) - start) // of
        wanted = start + which * length + np.arange(length)
        patients = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.sizes))
        windows = [patients[i : i + self.window] for i in range(0, len(patients), self.window)]
        ends = np.cumsum([self.sizes[w].sum() for w in windows])
        shard, row = np.empty((2, length), int)
        of_window = np.searchsorted(ends, wanted, side="right")
        for number in np.unique(of_window):
            window, here = windows[number], of_window == number
            mixed = np.random.default_rng((self.seed, self.epoch, number)).permutation(
                self.sizes[window].sum()
            )
            drawn = mixed[wanted[here] - (ends[number] - len(mixed))]
            firsts = np.cumsum(self.sizes[window]) - self.sizes[window]
            position = np.searchsorted(firsts, drawn, side="right") - 1
            shard[here], row[here] = window[position], drawn - firsts[position]
        return shard, row

    def _used(self) -> int:
        return self.sizes.sum() // self.part[1] * self.part[1]

    def _read(self, shard: np.ndarray, row: np.ndarray) -> np.ndarray:
        images = None
        for number in np.unique(shard):
            # Opened and closed again for each batch: what stays mapped would count as memory used.
            patches, here = open_array(self.paths[number]), shard == number
            if images is None:
                images = np.empty((len(row), *patches.shape[1:]), patches.dtype)
            images[here] = patches[row[here]]
        return images
