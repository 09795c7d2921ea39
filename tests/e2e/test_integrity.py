"""Every corruption of a store that the program wrote is found, and its place is named."""

import json
import shutil

import numpy as np
import pytest
import zarr

import gpuconvert
from gpuconvert.errors import StoreError
from gpuconvert.integrity import seal
from gpuconvert.verification import verify
from tests.e2e.data import centroid_spectra, pixels, write_centroid
from tests.imzml_writer import write_imzml

SAMPLE = 8
"""Files beside X that are damaged, of some 170; with ``-m slow`` all of them are."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Stores of both layouts, X in several shards; not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    source = write_centroid(folder, places=pixels(12, 7))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gpuconvert.plan.SHARD_CHUNKS", 2)
        patch.setattr("gpuconvert.assemble.SHARD_CHUNKS", 2)
        for layout in ("csc", "csr"):
            gpuconvert.convert(source, folder / layout, layout=layout, chunk_size=1024, bins=4000)
    return folder


@pytest.fixture
def copied(made, tmp_path):
    return lambda layout: shutil.copytree(made / layout, tmp_path / layout)


def _files(store):
    return sorted(file for file in store.rglob("*") if file.is_file())


@pytest.fixture(params=[SAMPLE, pytest.param(None, marks=pytest.mark.slow)])
def chosen(request):
    """Returns all files of X and a sample of the others, or all there are."""

    def choose(store, rng):
        files = _files(store)
        matrix = [file for file in files if "/X/" in str(file)]
        others = [file for file in files if file not in matrix]
        if request.param is None:
            return files
        return matrix + [others[at] for at in rng.choice(len(others), request.param, replace=False)]

    return choose


def _sentences(store, source=None):
    """What failed, in words; also where the store cannot be opened at all."""
    try:
        found = verify(store, source)
    except StoreError as error:
        return str(error)
    assert found.ok == (not [check for check in found.checks if not check.ok])
    return "\n".join(check.detail for check in found.checks if not check.ok)


def _node(store, file):
    """The name by which a sentence may say where a file is."""
    key = file.relative_to(store).as_posix()
    return key.partition("/c/")[0].removesuffix("/c").removesuffix("/zarr.json")


def test_a_store_as_it_was_written_passes(made):
    for layout in ("csc", "csr"):
        assert _sentences(made / layout, made / "test.imzML") == ""


@pytest.mark.parametrize("layout", ["csc", "csr"])
def test_a_flipped_bit_in_any_file_is_found_and_named(copied, chosen, layout):
    rng = np.random.default_rng(len(layout))
    store = copied(layout)
    for file in chosen(store, rng):
        raw = file.read_bytes()
        place = int(rng.integers(8 * len(raw)))
        changed = bytearray(raw)
        changed[place // 8] ^= 1 << place % 8
        if file.name == "zarr.json" and _same_json(raw, changed):
            continue
        file.write_bytes(changed)
        found = _sentences(store)
        assert _node(store, file) in found, f"bit {place} of {file}: {found!r}"
        file.write_bytes(raw)
    assert _sentences(store) == ""


def _same_json(raw, changed):
    """Whether a flip, such as that of E to e in a number, changes nothing that is said."""
    try:
        return json.loads(raw) == json.loads(bytes(changed))
    except ValueError:
        return False


@pytest.mark.parametrize("layout", ["csc", "csr"])
@pytest.mark.parametrize("how", ["missing", "empty", "truncated", "longer"])
def test_a_missing_or_truncated_file_is_found_and_named(copied, chosen, layout, how):
    rng = np.random.default_rng(len(how))
    store = copied(layout)
    for file in chosen(store, rng)[len(how) % 3 :: 3]:
        raw = file.read_bytes()
        if how == "missing":
            file.unlink()
        else:
            file.write_bytes({"empty": b"", "truncated": raw[:-1], "longer": raw + b"x"}[how])
        found = _sentences(store)
        assert _node(store, file) in found, f"{how} {file}: {found!r}"
        file.write_bytes(raw)


def test_any_change_of_the_attributes_of_the_root_is_found(copied):
    store = copied("csc")
    file = store / "zarr.json"
    said = file.read_text()
    for old, new in (
        ('"pixel_size_units": "micrometers"', '"pixel_size_units": "nanometers"'),
        ('"integrity"', '"integrjty"'),
        ('"algorithm": "crc32c"', '"algorithm": "crc32"'),
        ('"dataset_id": "msi"', '"dataset_id": "msj"'),
    ):
        assert old in said
        file.write_text(said.replace(old, new))
        assert "zarr.json of the root" in (found := _sentences(store)) or "seal" in found


def test_pointers_that_disagree_are_found_though_every_checksum_is_right(copied):
    store = copied("csc")
    array = zarr.open_array(store / "tables/msi_z0/X/indptr", mode="r+")
    values = array[:]
    middle = int(np.flatnonzero(np.diff(values) > 0)[20]) + 1
    values[middle] -= 1
    array[:] = values
    found = _sentences(store)
    assert "tables/msi_z0/X/indices" in found or "tables/msi_z0/uns/average_spectrum" in found


def test_a_stale_entry_of_the_consolidated_metadata_is_found_though_it_is_sealed(copied):
    store = copied("csc")
    shutil.copytree(store / "tables/msi_z0/obsm", store / "tables/msi_z0/varm/more")
    seal(store)
    assert "do not list tables/msi_z0/varm/more" in _sentences(store)


def _swapped(spectra):
    changed = list(spectra)
    (x1, y1, *one), (x2, y2, *two) = changed[3], changed[9]
    changed[3], changed[9] = (x1, y1, *two), (x2, y2, *one)
    return changed


def _scaled(spectra):
    changed = list(spectra)
    x, y, mz, counts = changed[5]
    changed[5] = (x, y, mz, counts * 1.001)
    return changed


def _shifted(spectra):
    return [(x, y, mz + 0.05, counts) for x, y, mz, counts in spectra]


@pytest.mark.parametrize(
    ("change", "check"),
    [(_swapped, "source tic"), (_scaled, "source tic"), (_shifted, "mean m/z")],
)
def test_a_store_that_is_whole_but_says_something_else_fails_against_its_source(
    tmp_path, change, check
):
    spectra = centroid_spectra(pixels())
    words = {"representation": "centroid", "pixel_size": 10.0}
    source = write_imzml(tmp_path, spectra, name="true", **words)
    other = write_imzml(tmp_path, change(spectra), name="other", **words)
    gpuconvert.convert(other, tmp_path / "o.zarr")
    assert verify(tmp_path / "o.zarr").ok
    found = verify(tmp_path / "o.zarr", source)
    assert check in [item.name for item in found.checks if not item.ok]
