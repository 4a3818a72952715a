"""Time an epoch of the dense VAE beside PyTorch and the matrix products alone: one run, one table.

    python tests/benchmarks/vae_speed.py [--json OUT.json] [--rounds N] [--cores N]

The network is pixels–256–z–256–pixels, trained with Adam in shuffled batches: with Keras, each way
of compiling it and as `helpers.vae.fit_vae` does, and in a plain PyTorch loop of the same network,
loss and batches. The limit is what the products of its dense layers cost alone: one forward and two
backward for each layer, of which the first needs no gradient of the images; NumPy and PyTorch
compute them, and the faster one counts.

Each round times every method once, in a new random order, over two epochs. Times are the
processor's, summed over the cores used, so that what else the machine runs is not counted, and the
shortest of all rounds. What starting costs, tracing and compiling, is the first epoch less a later
one. PyTorch comes with ``pip install -e .[bench]``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from pathlib import Path

import numpy as np
from machine import RESULTS, describe_machine
from threadpoolctl import threadpool_limits

HIDDEN, EPOCHS = 256, 2
CASES = {  # images or rows, their length, batch, latent axes
    "digits": (12_665, 784, 100, 2),
    "patches": (43_000, 784, 200, 5),
    "short rows": (43_000, 32, 200, 5),
}


def data(case: str) -> np.ndarray:
    """Digits 0 and 1 where there are any; else as many images, or rows, of noise."""
    n, length, *_ = CASES[case]
    if case == "digits":
        from helpers.mnist import load_mnist

        digits = load_mnist().x_train
        if len(digits) == n:
            return digits
    rng = np.random.default_rng(0)
    if length == 784:
        return rng.random((n, 28, 28), dtype=np.float32)
    return rng.standard_normal((n, length), dtype=np.float32)


def keras_methods(case: str, x: np.ndarray) -> dict:
    """A function for each way to train with Keras; it runs a number of epochs."""
    from helpers.vae import build_dense_vae, fit_vae, keras

    _, length, batch, latent_dim = CASES[case]
    likelihood = "bernoulli" if length == 784 else "gaussian"

    def model():
        keras.utils.set_random_seed(0)
        return build_dense_vae(
            latent_dim, input_shape=x.shape[1:], hidden_units=HIDDEN, likelihood=likelihood
        )

    def compiled(jit):
        vae = model()
        vae.compile(optimizer=keras.optimizers.Adam(1e-3), jit_compile=jit)
        return lambda epochs: vae.fit(x, batch_size=batch, epochs=epochs, verbose=0)

    def ours():
        vae, seen = model(), []

        def run(epochs):
            if not seen:
                seen.append(fit_vae(vae, x, epochs=epochs, batch_size=batch))
            else:  # as fit_vae has compiled it
                vae.fit(x, batch_size=batch, epochs=epochs, verbose=0)

        return run

    return {
        "Keras, fit_vae": ours(),
        "Keras, XLA": compiled(True),
        "Keras, graph": compiled(False),
    }


def torch_methods(case: str, x: np.ndarray, cores: int) -> dict:
    """The same network and loss as a plain loop."""
    import torch
    from torch import nn
    from torch.nn import functional

    torch.set_num_threads(cores)
    torch.manual_seed(0)
    _, length, batch, latent_dim = CASES[case]
    images = torch.from_numpy(np.ascontiguousarray(x.reshape(len(x), -1)))
    encoder = nn.Sequential(nn.Linear(length, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2 * latent_dim))
    decoder = nn.Sequential(nn.Linear(latent_dim, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, length))
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 1e-3)

    def loss_of(batch_of_images):
        z_mean, z_log_var = encoder(batch_of_images).chunk(2, dim=1)
        z = z_mean + torch.exp(0.5 * z_log_var) * torch.randn_like(z_mean)
        decoded = decoder(z)
        if length == 784:
            reconstruction = functional.binary_cross_entropy_with_logits(
                decoded, batch_of_images, reduction="sum"
            )
        else:
            reconstruction = 0.5 * torch.square(batch_of_images - decoded).sum()
        kl = 0.5 * (z_log_var.exp() + z_mean.square() - 1 - z_log_var).sum()
        return (reconstruction + kl) / len(batch_of_images)

    def run(epochs):
        for _ in range(epochs):
            total = 0.0
            for chosen in torch.randperm(len(images)).split(batch):
                optimizer.zero_grad()
                loss = loss_of(images[chosen])
                loss.backward()
                optimizer.step()
                total += loss.detach()

    return {"PyTorch, plain loop": run, "limit, torch.mm": products(case, torch.randn)}


def products(case: str, random):
    """The products of one epoch, of arrays or tensors that ``random(rows, columns)`` makes."""
    n, length, batch, latent_dim = CASES[case]
    layers = [(length, HIDDEN), (HIDDEN, 2 * latent_dim), (latent_dim, HIDDEN), (HIDDEN, length)]
    layers = [(random(batch, m), random(m, k), random(batch, k)) for m, k in layers]

    def run(epochs):
        for _ in range(epochs * math.ceil(n / batch)):
            for number, (x, weights, gradient) in enumerate(layers):
                x @ weights
                x.T @ gradient
                if number:
                    gradient @ weights.T

    return run


def measure(case: str, rounds: int, cores: int) -> list[dict]:
    """Time every method: rows with ``case``, ``method``, ``seconds``, ``start`` and ``ratio``."""
    rng, x = np.random.default_rng(0), data(case)
    methods, rows = keras_methods(case, x), []
    methods["limit, NumPy"] = products(
        case, lambda *shape: rng.standard_normal(shape, dtype=np.float32)
    )
    try:
        methods |= torch_methods(case, x, cores)
    except ModuleNotFoundError as error:
        rows.append({"case": case, "method": "PyTorch", "note": f"not installed ({error.name})"})

    def seconds(run, epochs):
        start = time.process_time()
        run(epochs)
        return (time.process_time() - start) / epochs

    first = {name: seconds(run, 1) for name, run in methods.items()}
    times = {name: [] for name in methods}
    for _ in range(rounds):
        for name in rng.permutation(list(methods)):
            times[name].append(seconds(methods[name], EPOCHS))
    best = {name: min(values) for name, values in times.items()}
    limit = min(time for name, time in best.items() if name.startswith("limit"))
    rows += [
        {
            "case": case,
            "method": name,
            "ratio": round(best[name] / limit, 2),
            "seconds": round(best[name], 3),
            "start": round(max(0, first[name] - best[name]), 1),
        }
        for name in methods
    ]
    return sorted(rows, key=lambda row: row.get("ratio", np.inf))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, default=RESULTS / "vae_speed.json")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):  # before TensorFlow and PyTorch count the cores
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    with threadpool_limits(options.cores):  # NumPy has counted already
        rows = [row for c in options.cases for row in measure(c, options.rounds, options.cores)]
    result = {
        **describe_machine(["keras", "tensorflow", "torch"]),
        "cores_used": options.cores,
        "rows": rows,
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    for row in rows:
        note = row.get("note") or f"{row['seconds']:.3f} s, start {row['start']:.1f} s"
        print(f"{row['case']:12}{row['method']:24}{row.get('ratio', ''):>6}  {note}")


if __name__ == "__main__":
    main()
