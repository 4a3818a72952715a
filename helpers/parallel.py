"""Share out independent calculations, such as the training of several networks, among the cores."""

from __future__ import annotations

from collections.abc import Iterable

from joblib import Parallel
from tqdm.auto import tqdm

from helpers.quick import is_quick


def in_parallel(calls: Iterable, unit: str = "call") -> list:
    """Run calls side by side, one a core, and show how many are done.

    In a rehearsal (`helpers.quick`) they run one after the other in this process: there is so
    little to do that starting other processes would take longer.

    Parameters
    ----------
    calls : iterable of joblib.delayed calls
        Independent of each other; results and arguments must survive pickling.
    unit : str
        What one of them is, for the progress bar.

    Returns
    -------
    list
        What each call returned, in their order.

    Raises
    ------
    Exception
        Of the first call that fails, as it was raised there.

    Examples
    --------
    >>> from joblib import delayed
    >>> in_parallel([delayed(divmod)(n, 3) for n in (7, 9)])
    [(2, 1), (3, 0)]
    """
    calls = list(calls)
    results = Parallel(n_jobs=1 if is_quick() else -1, return_as="generator")(calls)
    return list(tqdm(results, total=len(calls), unit=unit, leave=False))
