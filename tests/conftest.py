"""What several test files share."""

import distributed
import pytest
from hypothesis import settings

# No test asserts a time: a busy machine is no failure, not even by hypothesis' own deadline.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def client():
    """A Dask cluster of two worker processes on this machine, reachable from nowhere else."""
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client
