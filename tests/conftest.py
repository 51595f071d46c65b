"""Settings and fixtures of all tests: one thread, a cache of their own, GPU tests only where there is a GPU."""

import os
import tempfile
from pathlib import Path

import pytest

os.environ.setdefault("GRAPHFM_CACHE", tempfile.mkdtemp(prefix="graphfm-tests-"))


def pytest_configure():
    import torch

    # Results must not depend on the machine, and small tensors are slower on many threads.
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    import torch

    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if "cuda" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real datasets; a test that asks for it is skipped where there is none."""
    root = os.environ.get("GRAPHFM_DATA")
    if not root:
        pytest.skip("GRAPHFM_DATA is not set")
    return Path(root)
