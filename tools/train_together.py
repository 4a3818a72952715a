"""Train one VAE on shards, in one process or in several that share the work.

One process, with any Keras backend::

    python -m tools.train_together SHARDS --save vae.keras

Several processes, on one machine or many, each with its devices: start the same command on each
with its own number, and with Keras on JAX. Every one must see the shards, and reach the first
address::

    KERAS_BACKEND=jax python -m tools.train_together SHARDS --save vae.keras \\
        --addresses 10.0.0.1:29500,10.0.0.2:29500 --process 0

Each process reads its part of every batch, Keras and JAX average the gradients, and all end with
the same weights: those that one process would have reached with the same batches, but for rounding.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

from helpers import in_words
from helpers.batches import ShardBatches
from helpers.cohort import find_shards
from helpers.data import writable
from helpers.vae import build_dense_vae, fit_vae, keras


def join(addresses: Sequence[str], process: int) -> tuple[int, int]:
    """Join the processes that train together, before anything else is done with Keras.

    Parameters
    ----------
    addresses : sequence of str
        ``host:port`` of every process; the port of the first one must be free.
    process : int
        Which of them this is.

    Returns
    -------
    (int, int)
        This process's part of each batch, as `helpers.batches.ShardBatches` takes it.

    Raises
    ------
    RuntimeError
        The Keras backend is not JAX, the only one on which `keras.distribution` has processes.
    ValueError
        There is no such process.

    Examples
    --------
    >>> join(["10.0.0.1:29500", "10.0.0.2:29500"], process=0)  # doctest: +SKIP
    (0, 2)
    """
    if keras.backend.backend() != "jax":
        raise RuntimeError(
            "several processes train together on JAX: expected the environment variable "
            f"KERAS_BACKEND=jax, found the backend {keras.backend.backend()!r}"
        )
    if process not in range(len(addresses)):
        raise ValueError(
            f"process must be from 0 to {len(addresses) - 1}, one for each address, found {process}"
        )
    keras.distribution.initialize(",".join(addresses), len(addresses), process)
    # Each process reads its own part, so there is nothing left for Keras to divide.
    together = keras.distribution.DataParallel(auto_shard_dataset=False)
    keras.distribution.set_distribution(together)
    return process, len(addresses)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, print the history as JSON, and save the model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shards", type=Path, help="folder written by helpers.cohort.write_shards")
    parser.add_argument("--save", type=Path, required=True, help="where to, a .keras file")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=200, help="of all processes together")
    parser.add_argument("--latent-dim", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--addresses", help="host:port of every process, with commas between")
    parser.add_argument("--process", type=int, default=0, help="number of this process, from 0")
    given = parser.parse_args(arguments)
    # Now, and not after hours of training.
    if given.save.suffix != ".keras" or given.save.is_dir():
        parser.error(f"--save: expected the name of a .keras file, found {str(given.save)!r}")
    try:
        writable(given.save.absolute().parent)
        shards = find_shards(given.shards)
    except OSError as error:
        parser.error(in_words(error))

    part = join(given.addresses.split(","), given.process) if given.addresses else (0, 1)
    batches = ShardBatches(shards, given.batch_size, seed=given.seed, part=part)
    keras.utils.set_random_seed(given.seed)
    (images,) = batches[0]
    vae = build_dense_vae(given.latent_dim, input_shape=images.shape[1:])
    print(json.dumps(fit_vae(vae, batches, epochs=given.epochs)))
    temporary = given.save.with_name(f"._{os.getpid()}_{given.save.name}")
    try:
        vae.save(temporary)
        os.replace(temporary, given.save)  # whole or not at all
    finally:
        temporary.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
