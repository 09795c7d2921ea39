"""Damaged mzPeak archives: whatever is wrong, it is a sentence or a spectrum, and never a crash."""

import json
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpuconvert.errors import SourceError
from gpuconvert.readers import open_reader
from gpuconvert.settings import Settings
from gpuconvert.spectra import decode
from tests.mzpeak_writer import Archive, Spectrum

INDEX = "mzpeak_index.json"

slow_is_fine = settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip

MARKED, PLAIN = True, False
KINDS = {
    "point": (MARKED, {"layout": "point"}),
    "packed": (MARKED, {"layout": "point", "dialect": "D1"}),
    "delta": (MARKED, {"layout": "chunk"}),
    "numpress": (PLAIN, {"layout": "chunk", "encoding": "numpress", "packing": "slof"}),
    "pic": (PLAIN, {"layout": "chunk", "encoding": "none", "packing": "pic"}),
    "grid": (PLAIN, {"layout": "chunk", "encoding": "linear"}),
}


def spectra(*, marked):
    """Six spectra on 3 x 2 pixels, with marked pairs of zeros or without."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(6):
        mz, counts = [], []
        for begin in (100.0, 130.0 + number, 300.0):
            if mz and marked:
                mz += [None, None]
                counts += [0, 0]
            mz += (begin + 0.25 * np.arange(5)).tolist()
            counts += rng.integers(1, 90, 5).tolist()
        place = (1 + number % 3, 1 + number // 3)
        made.append(Spectrum(mz, counts, [place], model=[0.25, 0.0, 0.0]))
    return made


@pytest.fixture(scope="module", params=sorted(KINDS))
def good(request):
    """A good archive before it is written."""
    marked, options = KINDS[request.param]
    return Archive.of(spectra(marked=marked), **options)


@pytest.fixture(scope="module")
def members(good):
    """Its members, as bytes by name."""
    with tempfile.TemporaryDirectory() as work:
        path = good.write(Path(work))
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist()}


def packed(members, folder):
    """Write members into an archive; return its path."""
    path = Path(folder) / "test.mzpeak"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def read(path):
    """Read everything; return the sentence of a refusal, or the number of spectra."""
    try:
        reader = open_reader(path, Settings())
        try:
            n = reader.acquisition.n_spectra
            into = np.empty(reader.batch_bytes(0, n), np.uint8)
            assert len(decode(reader.read(0, n, into)).indptr) == n + 1
            assert all(size > 0 for size in reader.acquisition.pixel_size)
            reader.mz_extent()
        finally:
            reader.close()
    except SourceError as error:
        text = str(error)
        assert "\n" not in text
        assert not text.endswith(".")
        return text
    return n


def test_the_good_archive_is_read(members, tmp_path):
    assert read(packed(members, tmp_path)) == 6


def draw_damage(data, raw):
    """Return bytes of which some are others, and the end may be missing."""
    raw = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    return bytes(raw[: data.draw(st.sampled_from([len(raw)] * 4 + [len(raw) - 1, len(raw) // 2]))])


@slow_is_fine
@given(data=st.data())
def test_any_bytes_of_a_member_may_be_wrong(members, data):
    name = data.draw(st.sampled_from(sorted(members)))
    with tempfile.TemporaryDirectory() as work:
        read(packed(members | {name: draw_damage(data, members[name])}, work))


@slow_is_fine
@given(data=st.data())
def test_any_bytes_of_the_container_may_be_wrong(members, data):
    with tempfile.TemporaryDirectory() as work:
        path = packed(members, work)
        path.write_bytes(draw_damage(data, path.read_bytes()))
        read(path)


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63), st.floats(), st.text(max_size=4),
    st.sampled_from([[], {}, [None], {"name": 1}, "MS:1000514", "../x", "spectrum"]),
)  # fmt: skip


def draw_change(data, value):
    """Return a JSON value in which something, somewhere, is something else."""
    if isinstance(value, dict | list) and value and data.draw(st.integers(0, 9)):
        keys = sorted(value) if isinstance(value, dict) else range(len(value))
        key = data.draw(st.sampled_from(list(keys)))
        changed = value.copy()
        changed[key] = draw_change(data, value[key])
        return changed
    return data.draw(VALUES)


@slow_is_fine
@given(data=st.data())
def test_any_value_of_the_index_may_be_wrong(members, data):
    index = draw_change(data, json.loads(members[INDEX]))
    with tempfile.TemporaryDirectory() as work:
        read(packed(members | {INDEX: json.dumps(index).encode()}, work))


@slow_is_fine
@given(data=st.data())
def test_any_value_of_the_footers_may_be_wrong(good, data):
    name = data.draw(st.sampled_from(sorted(key for key, found in good.footers.items() if found)))
    key = data.draw(st.sampled_from(sorted(good.footers[name])))
    changed = draw_change(data, json.loads(good.footers[name][key]))
    footers = good.footers | {name: good.footers[name] | {key: json.dumps(changed)}}
    with tempfile.TemporaryDirectory() as work:
        read(replace(good, footers=footers).write(Path(work)))
