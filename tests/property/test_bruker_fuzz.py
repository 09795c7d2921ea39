"""Damaged Bruker folders: whatever is wrong, it is a sentence or a spectrum, and never a crash."""

import shutil
import sqlite3
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpuconvert.errors import SourceError
from gpuconvert.readers import open_reader
from gpuconvert.settings import Settings
from gpuconvert.spectra import decode
from tests.bruker_writer import Frame, write_tdf, write_tsf

N_SAMPLES = 500

slow_is_fine = settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip


def frames():
    rng = np.random.default_rng(0)
    made = []
    for number in range(6):
        index = np.sort(rng.choice(N_SAMPLES, 12, replace=False))
        counts = rng.integers(1, 300, 12)
        made.append(
            Frame(
                7 + number % 3, 3 + number // 3, line=(index + 0.5, counts),
                profile=dict(zip(index.tolist(), counts.tolist())),
                scans=[(index[:5], counts[:5]), ([], []), (index[2:], counts[2:])],
            )
        )  # fmt: skip
    return made


KINDS = {
    "line": (write_tsf, {}, {"spectrum": "line"}),
    "profile": (write_tsf, {}, {"spectrum": "profile"}),
    "scans": (write_tdf, {}, {"mobility_bins": 2}),
    "lzf": (write_tdf, {"compression": 1}, {"mobility_bins": 2}),
}


@pytest.fixture(scope="module", params=KINDS)
def folder(request, tmp_path_factory):
    """A good folder, and the settings to open it with."""
    write, options, chosen = KINDS[request.param]
    path = tmp_path_factory.mktemp(request.param)
    return write(path, frames(), n_samples=N_SAMPLES, **options), Settings(**chosen)


def read(path, chosen):
    """Read everything; return the sentence of a refusal, or the number of spectra."""
    try:
        reader = open_reader(path, chosen)
        try:
            acquisition = reader.acquisition
            n = acquisition.n_spectra
            into = np.empty(reader.batch_bytes(0, n), np.uint8)
            spectra = decode(reader.read(0, n, into))
            assert len(spectra.indptr) == n + 1
            if chosen.mobility_bins:
                parted = decode(reader.read_mobility(0, n, into))
                assert len(parted.mz) >= len(spectra.mz)
            assert all(size > 0 for size in acquisition.pixel_size)
            reader.mz_extent()
        finally:
            reader.close()
    except SourceError as error:
        text = str(error)
        assert "\n" not in text
        assert not text.endswith(".")
        return text
    return n


def damaged(folder, change):
    """Read a copy of a folder that `change` was applied to."""
    path, chosen = folder
    with tempfile.TemporaryDirectory() as work:
        copy = Path(work) / path.name
        shutil.copytree(path, copy)
        change(copy)
        return read(copy, chosen)


def test_the_good_folder_is_read(folder):
    assert read(*folder) == 6


@slow_is_fine
@given(data=st.data())
def test_any_bytes_of_the_binary_may_be_wrong(folder, data):
    def change(path):
        binary = next(path.glob("*_bin"))
        raw = bytearray(binary.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(64, len(raw) - 1))
            raw[at] = data.draw(st.integers(0, 255))
        end = data.draw(st.sampled_from([len(raw)] * 3 + [len(raw) - 1, len(raw) // 2, 64]))
        binary.write_bytes(raw[:end])

    damaged(folder, change)


VALUES = st.one_of(
    st.none(), st.text(max_size=3), st.integers(-(2**63), 2**63 - 1), st.integers(-3, 40),
    st.floats(allow_nan=False), st.binary(max_size=3),
)  # fmt: skip


@slow_is_fine
@given(data=st.data())
def test_any_value_of_the_tables_may_be_wrong(folder, data):
    def change(path):
        database = next(file for file in path.iterdir() if file.suffix in (".tsf", ".tdf"))
        connection = sqlite3.connect(database)
        tables = [
            row[0]
            for row in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
        ]
        table = data.draw(st.sampled_from(sorted(tables)))
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        column = data.draw(st.sampled_from(columns))
        row = data.draw(st.integers(1, 6))
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?",
                           (data.draw(VALUES), row))  # fmt: skip
        connection.commit()
        connection.close()

    damaged(folder, change)


@slow_is_fine
@given(data=st.data())
def test_any_bytes_of_the_database_may_be_wrong(folder, data):
    def change(path):
        database = next(file for file in path.iterdir() if file.suffix in (".tsf", ".tdf"))
        raw = bytearray(database.read_bytes())
        for _ in range(data.draw(st.integers(1, 6))):
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        end = data.draw(st.sampled_from([len(raw)] * 3 + [len(raw) // 2, 100, 0]))
        database.write_bytes(raw[:end])

    damaged(folder, change)
