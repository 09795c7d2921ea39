"""Stores of mzPeak archives, verified; and the verifier's own reading held against truth."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest

import gpuconvert
from gpuconvert.errors import SourceError
from gpuconvert.verification.mzpeak import MzPeakOracle
from tests.e2e.data import matrix_bytes, pixels, profile_spectra, write_centroid, write_profile
from tests.imzml_writer import write_imzml
from tests.mzpeak_writer import Archive, Spectrum
from tests.unit.test_mzpeak_reader import example, without_nulls


@pytest.mark.parametrize("dialect", ["D1", "D2", "D3", "D4"])
@pytest.mark.parametrize("layout", ["point", "chunk"])
def test_the_verifier_reads_every_dialect(tmp_path, dialect, layout):
    spectra, expected = example()
    archive = Archive.of(spectra, dialect=dialect, layout=layout)
    archive.options["group"] = 5
    with MzPeakOracle(archive.write(tmp_path), {}) as oracle:
        assert oracle.order.tolist() == list(range(6))
        for k in range(6):
            x, y, _ = oracle.coordinates[k] + 1
            mz, counts = oracle.spectrum(k)
            np.testing.assert_allclose(mz, expected[x, y][0])
            assert counts.tolist() == expected[x, y][1]
            assert oracle.n_points[k] == len(counts)


@pytest.mark.parametrize(
    ("encoding", "packing"), [("none", "plain"), ("numpress", "slof"), ("linear", "plain")]
)
def test_the_verifier_reads_encodings(tmp_path, encoding, packing):
    spectra, _ = example()
    expected = without_nulls(spectra)
    path = Archive.of(spectra, layout="chunk", encoding=encoding, packing=packing).write(tmp_path)
    with MzPeakOracle(path, {}) as oracle:
        for k in range(6):
            x, y, _ = oracle.coordinates[k] + 1
            mz, counts = oracle.spectrum(k)
            np.testing.assert_allclose(mz, expected[x, y][0], rtol=1e-7)
            np.testing.assert_allclose(counts, expected[x, y][1], rtol=5e-4)
            assert oracle.n_points[k] == len(counts)


@pytest.mark.parametrize("layout", ["point", "chunk"])
@pytest.mark.parametrize("options", [{}, {"axis": "constant", "bins": 700}, {"layout": "csr"}])
@pytest.mark.parametrize("write", [write_profile, write_centroid])
def test_stores_of_archives_pass(tmp_path, write, options, layout):
    archive = tmp_path / "source.mzpeak"
    gpuconvert.export(write(tmp_path), archive, mzpeak_layout=layout)
    gpuconvert.convert(archive, tmp_path / "store.zarr", **options)
    found = gpuconvert.verify(tmp_path / "store.zarr", archive)
    assert found.ok, found.lines()
    assert found.quality is not None


def test_spectra_that_are_no_pixels_do_not_disturb(tmp_path):
    def at(*scans, level=1, seed=0):
        counts = np.random.default_rng(seed).integers(1, 50, 40).tolist()
        return Spectrum([100 + 0.25 * k for k in range(40)], counts, list(scans), level=level)

    spectra = [at(None), at((2, 1), seed=1), at((2, 1), level=2), at((1, 1), seed=2),
               at((1, 1), (3, 1)), at((3, 2), seed=3)]  # fmt: skip
    archive = Archive.of(spectra).write(tmp_path)
    gpuconvert.convert(archive, tmp_path / "store.zarr")
    found = gpuconvert.verify(tmp_path / "store.zarr", archive)
    assert found.ok, found.lines()


def test_both_members_are_told_apart(tmp_path):
    profile = Spectrum([100 + 0.25 * k for k in range(30)], list(range(30)), [(1, 1)])
    picked = Spectrum([104.0], [60], [(1, 1)])
    archive = Archive.of([profile], peaks=[picked]).write(tmp_path)
    for kind in ("auto", "centroid"):
        store = tmp_path / f"{kind}.zarr"
        gpuconvert.convert(archive, store, spectrum_type=kind)
        found = gpuconvert.verify(store, archive)
        assert found.ok, found.lines()


def test_another_archive_fails(tmp_path):
    store = tmp_path / "store.zarr"
    for name, seed in (("first", 1), ("second", 2)):
        source = write_profile(tmp_path, seed=seed, name=name)
        gpuconvert.export(source, tmp_path / f"{name}.mzpeak")
    gpuconvert.convert(tmp_path / "first.mzpeak", store)
    assert gpuconvert.verify(store, tmp_path / "first.mzpeak").ok
    found = gpuconvert.verify(store, tmp_path / "second.mzpeak")
    assert {"source tic", "stored tic"} & {check.name for check in found.checks if not check.ok}


def test_another_polarity_is_noticed(tmp_path):
    for name, sign in (("positive", 1), ("negative", -1)):
        source = write_profile(tmp_path, name=name, polarity=sign)
        gpuconvert.export(source, tmp_path / f"{name}.mzpeak")
    store = tmp_path / "store.zarr"
    gpuconvert.convert(tmp_path / "positive.mzpeak", store)
    found = gpuconvert.verify(store, tmp_path / "negative.mzpeak")
    failed = [check.detail for check in found.checks if not check.ok]
    assert failed == [
        "obs/polarity is 1 at x=1, y=0, z=0, but the source says -1 (13 pixels differ)"
    ]


def test_a_wrong_checksum_is_found(tmp_path):
    archive = tmp_path / "source.mzpeak"
    gpuconvert.export(write_profile(tmp_path), archive)
    with zipfile.ZipFile(archive) as opened:
        files = {name: opened.read(name) for name in opened.namelist()}
    index = json.loads(files["mzpeak_index.json"])
    index["files"][0]["checksum"] = "0" * 128
    files["mzpeak_index.json"] = json.dumps(index).encode()
    with zipfile.ZipFile(archive, "w") as opened:
        for name, data in files.items():
            opened.writestr(name, data)
    store = tmp_path / "store.zarr"
    gpuconvert.convert(archive, store)
    with pytest.raises(SourceError, match=r"spectra_data.parquet has not the SHA-512"):
        gpuconvert.verify(store, archive)


@pytest.mark.real_data
@pytest.mark.parametrize("dialect", ["packed", "split"])
@pytest.mark.parametrize("layout", ["point", "chunk"])
def test_generated_archives_convert_and_verify(tmp_path, shared_data, dialect, layout):
    folder = shared_data / "mzpeak" / "generated"
    archive = folder / f"minimal_imaging.{dialect}.{layout}.mzpeak"
    gpuconvert.convert(archive, tmp_path / "store.zarr")
    found = gpuconvert.verify(tmp_path / "store.zarr", archive)
    assert found.ok, found.lines()


@pytest.mark.real_data
def test_the_example_of_another_writer_verifies(tmp_path, shared_data):
    archive = shared_data / "mzpeak" / "imaging" / "imaging.mzpeak"
    gpuconvert.convert(archive, tmp_path / "store.zarr")
    found = gpuconvert.verify(tmp_path / "store.zarr", archive)
    assert found.ok, found.lines()


RUN = [sys.executable, "-m", "gpuconvert", "run"]


def stop_when(process, ready):
    """Send SIGTERM once `ready` says so; return the exit code."""
    until = time.monotonic() + 120
    while process.poll() is None and not ready() and time.monotonic() < until:
        time.sleep(0.002)
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    return process.wait(60)


def test_a_stopped_export_leaves_nothing_and_starts_anew(tmp_path):
    source = write_imzml(
        tmp_path, profile_spectra(pixels(60, 40, ()), n=4000), representation="profile"
    )
    before = set(tmp_path.iterdir())
    archive, partial = tmp_path / "out.mzpeak", tmp_path / "out.mzpeak.partial" / "store"
    process = subprocess.Popen([*RUN, source, archive], stderr=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL)  # fmt: skip
    code = stop_when(process, lambda: partial.exists() and partial.stat().st_size > 1000)
    assert code in (0, 75)
    if code == 75:
        assert set(tmp_path.iterdir()) == before
        subprocess.run([*RUN, source, archive], check=True, capture_output=True)
    assert set(tmp_path.iterdir()) == before | {archive}
    assert os.access(archive, os.R_OK)


def test_a_killed_conversion_of_an_archive_goes_on(tmp_path):
    archive = tmp_path / "source.mzpeak"
    spectra = profile_spectra(pixels(60, 40, ()), n=4000)
    gpuconvert.export(write_imzml(tmp_path, spectra, representation="profile"), archive)
    store, parts = tmp_path / "store.zarr", tmp_path / "store.zarr.partial" / "parts"
    command = [*RUN, str(archive), str(store), "--workers", "1"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while process.poll() is None and not list(parts.glob("0*")) and time.monotonic() < until:
        time.sleep(0.002)
    process.kill()
    process.wait()
    subprocess.run(command + ["--overwrite"] * store.exists(), check=True, capture_output=True)
    gpuconvert.convert(archive, tmp_path / "whole.zarr", workers=1)
    assert matrix_bytes(store) == matrix_bytes(tmp_path / "whole.zarr")
