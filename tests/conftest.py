"""What several test modules share: every backend, and the folder of real inputs."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

from gpuconvert.backends import BACKENDS, choose_backend
from gpuconvert.errors import BackendError
from gpuconvert.readers import extents

CHECKOUT = Path(__file__).parents[1]

# The first call of a kernel may compile it: no example is slow because of its data.
settings.register_profile("gpuconvert", deadline=None)
settings.load_profile("gpuconvert")


@pytest.fixture(
    params=["numpy", "cpu", pytest.param("cuda", marks=pytest.mark.gpu)], scope="session"
)
def backend(request):
    """Every backend in turn."""
    if request.param not in BACKENDS:
        pytest.skip(f"backend {request.param} is not part of this version")
    try:
        return choose_backend(request.param)[0]
    except BackendError as error:
        if request.param != "cuda":
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def shared_data():
    """The folder of public real inputs beside the checkout."""
    folder = CHECKOUT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the real inputs are not at {folder}")
    return folder


@pytest.fixture
def count_reads(monkeypatch):
    """Return what starts a list of the number of parts and bytes of every positional read."""

    def start():
        calls = []
        preadv = os.preadv

        def count(descriptor, parts, place):
            calls.append((len(parts), sum(len(part) for part in parts)))
            return preadv(descriptor, parts, place)

        monkeypatch.setattr(extents.os, "preadv", count)
        return calls

    return start
