"""Whole runs in this process: what comes out, whatever the way it was made."""

import errno
import hashlib
import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

import gpuconvert
from gpuconvert import conversion, finishing, plan
from gpuconvert.errors import DamagedPartError, OutputError, SettingsError, SourceError, Stopped
from gpuconvert.mass_axis import MassAxis
from gpuconvert.resampling import ResampleOptions
from gpuconvert.settings import Settings
from gpuconvert.stages import Monitor
from tests import reference
from tests.e2e.data import (
    centroid_spectra,
    matrix_bytes,
    pixels,
    profile_spectra,
    read_table,
    store_bytes,
    write_centroid,
    write_profile,
)
from tests.imzml_writer import Document, cv, write_imzml


@pytest.fixture
def small_parts(monkeypatch):
    """Cut the work into many partitions, batches and units."""
    monkeypatch.setattr(plan, "PART_NONZEROS", 100)
    monkeypatch.setattr(plan, "MOST_PARTS", 10**9)
    monkeypatch.setattr("gpuconvert.planning.SLOT_BYTES", 2000)
    monkeypatch.setattr(plan, "SHARD_CHUNKS", 1)


def _axis_of(store):
    uns = gpuconvert_uns(store)
    return MassAxis.from_json(json.loads(uns["axis"][()]))


def gpuconvert_uns(store):
    import zarr

    return zarr.open_group(store, mode="r")["tables/msi_z0/uns/gpuconvert"]


@pytest.mark.parametrize("write", [write_profile, write_centroid])
def test_every_row_is_what_the_reference_gives(tmp_path, write):
    source = write(tmp_path)
    spectra = (profile_spectra if write is write_profile else centroid_spectra)(pixels())
    # So few bins that the reference, which looks at each of them, takes no minutes.
    gpuconvert.convert(source, tmp_path / "o.zarr", bins=3000)
    table = read_table(tmp_path / "o.zarr")
    axis = _axis_of(tmp_path / "o.zarr")
    parameters = json.loads(gpuconvert_uns(tmp_path / "o.zarr")["parameters"][()])
    kind = "profile" if write is write_profile else "centroid"
    options = ResampleOptions.from_json(parameters["options"][kind])
    by_place = {(x, y): (mz, counts) for x, y, mz, counts in spectra}
    x0, y0 = min(x for x, _ in by_place), min(y for _, y in by_place)
    for row in range(table.x.shape[0]):
        place = (table.obs["x"][row] + x0, table.obs["y"][row] + y0)
        mz, counts = by_place[place]
        indices, data, tic, outside = reference.resample_spectrum(
            mz.tolist(), counts.astype("f4").astype("f8").tolist(), axis, options, np.dtype("f8")
        )
        got = table.x[row]
        np.testing.assert_array_equal(got.indices, indices)
        np.testing.assert_allclose(got.data, data, rtol=3e-7)
        assert table.obs["source_tic"][row] == pytest.approx(tic, rel=1e-12)
        assert table.obs["outside_tic"][row] == pytest.approx(outside, abs=1e-9 * tic)
        assert table.obs["tic"][row] == pytest.approx(tic - outside, rel=1e-6)


def test_both_layouts_hold_the_same_matrix(tmp_path, small_parts):
    source = write_profile(tmp_path)
    for layout in ("csc", "csr"):
        gpuconvert.convert(source, tmp_path / f"{layout}.zarr", layout=layout)
    csc, csr = read_table(tmp_path / "csc.zarr"), read_table(tmp_path / "csr.zarr")
    assert (csc.kind, csr.kind) == ("csc_matrix", "csr_matrix")
    assert (csc.x != csr.x).nnz == 0
    assert csc.x.nnz > 100
    np.testing.assert_array_equal(csc.obs["tic"], csr.obs["tic"])


@pytest.mark.parametrize("layout", ["csc", "csr"])
def test_the_bytes_do_not_depend_on_partitions_workers_or_budget(tmp_path, monkeypatch, layout):
    source = write_profile(tmp_path)
    whole = gpuconvert.convert(
        source, tmp_path / "a.zarr", workers=1, layout=layout, chunk_size=1024
    )
    assert whole.parts == 1
    monkeypatch.setattr(plan, "PART_NONZEROS", 100)
    monkeypatch.setattr(plan, "MOST_PARTS", 10**9)
    monkeypatch.setattr("gpuconvert.planning.SLOT_BYTES", 2000)
    cut = gpuconvert.convert(
        source, tmp_path / "b.zarr", workers=2, layout=layout, chunk_size=1024, memory="2GiB"
    )
    assert cut.parts > 5
    assert matrix_bytes(tmp_path / "a.zarr") == matrix_bytes(tmp_path / "b.zarr")
    ours, theirs = store_bytes(tmp_path / "a.zarr"), store_bytes(tmp_path / "b.zarr")
    assert ours == theirs


@pytest.mark.parametrize("axis", ["constant", "linear-tof", "orbitrap", "fticr", "source"])
def test_backends_give_the_same_bytes_where_the_law_is_exact(tmp_path, axis):
    source = write_profile(tmp_path)
    for backend in ("numpy", "cpu"):
        gpuconvert.convert(source, tmp_path / f"{backend}.zarr", axis=axis, backend=backend)
    assert matrix_bytes(tmp_path / "numpy.zarr") == matrix_bytes(tmp_path / "cpu.zarr")


@pytest.mark.parametrize("axis", ["reflector-tof", "tof"])
def test_backends_agree_where_the_law_is_not_exact(tmp_path, axis):
    source = write_profile(tmp_path)
    for backend in ("numpy", "cpu"):
        gpuconvert.convert(source, tmp_path / f"{backend}.zarr", axis=axis, backend=backend)
    one, two = read_table(tmp_path / "numpy.zarr"), read_table(tmp_path / "cpu.zarr")
    np.testing.assert_array_equal(one.x.indices, two.x.indices)
    np.testing.assert_array_max_ulp(one.x.data, two.x.data, 2)


def test_processes_give_the_bytes_of_threads(tmp_path, small_parts):
    source = write_centroid(tmp_path)
    gpuconvert.convert(source, tmp_path / "a.zarr")
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        gpuconvert.convert(source, tmp_path / "b.zarr", executor=executor)
    assert matrix_bytes(tmp_path / "a.zarr") == matrix_bytes(tmp_path / "b.zarr")


def test_the_order_of_spectra_in_the_file_does_not_matter(tmp_path):
    spectra = profile_spectra(pixels())
    shuffled = [spectra[i] for i in np.random.default_rng(1).permutation(len(spectra))]
    tables = []
    for name, content in (("a", spectra), ("b", shuffled)):
        source = write_imzml(tmp_path, content, name=name, representation="profile", pixel_size=5.0)
        gpuconvert.convert(source, tmp_path / f"{name}.zarr", axis="linear-tof", bins=3000)
        tables.append(read_table(tmp_path / f"{name}.zarr"))
    assert (tables[0].x != tables[1].x).nnz == 0
    np.testing.assert_array_equal(tables[0].obs["x"], tables[1].obs["x"])


def test_the_numbers_of_continuous_files_are_kept_bit_for_bit(tmp_path):
    mz = np.linspace(200, 300, 500)
    rng = np.random.default_rng(3)
    spectra = [(x, y, mz, rng.poisson(0.5, 500).astype("f4")) for x, y in pixels()]
    source = write_imzml(
        tmp_path, spectra, mode="continuous", representation="profile", pixel_size=1.0
    )
    gpuconvert.convert(source, tmp_path / "o.zarr")
    table = read_table(tmp_path / "o.zarr")
    np.testing.assert_array_equal(table.mz, mz)
    order = np.lexsort(([x for x, *_ in spectra], [y for _, y, *_ in spectra]))
    np.testing.assert_array_equal(table.x.toarray(), [spectra[i][3] for i in order])


def test_counts_outside_a_range_are_dropped_and_reported(tmp_path):
    source = write_profile(tmp_path)
    summary = gpuconvert.convert(source, tmp_path / "o.zarr", mz_range=(150, 250))
    table = read_table(tmp_path / "o.zarr")
    assert 150 - 0.1 <= table.mz[0] <= table.mz[-1] <= 250.1
    assert 0.2 < summary.quality.outside_fraction < 0.9
    inside = table.obs["source_tic"] - table.obs["outside_tic"]
    np.testing.assert_allclose(table.obs["tic"], inside, rtol=1e-6)


def test_two_data_sets_share_an_axis_through_a_file(tmp_path):
    first = write_profile(tmp_path, name="a")
    second = write_profile(tmp_path, name="b", seed=5)
    gpuconvert.convert(first, tmp_path / "a.zarr")
    saved = tmp_path / "axis.json"
    saved.write_text(json.dumps(_axis_of(tmp_path / "a.zarr").to_json()))
    gpuconvert.convert(second, tmp_path / "b.zarr", axis=str(saved))
    assert _axis_of(tmp_path / "a.zarr").sha256 == _axis_of(tmp_path / "b.zarr").sha256


def test_nearest_on_a_listed_axis_adds_each_point_to_its_nearest_centre(tmp_path):
    spectra = centroid_spectra(pixels())
    source = write_centroid(tmp_path)
    centres = np.sort(np.random.default_rng(2).uniform(90, 910, 700))
    np.save(tmp_path / "centres.npy", centres)
    gpuconvert.convert(
        source, tmp_path / "o.zarr", axis=str(tmp_path / "centres.npy"), method="nearest"
    )
    table = read_table(tmp_path / "o.zarr")
    expected = np.zeros(table.x.shape)
    order = np.lexsort(([x for x, *_ in spectra], [y for _, y, *_ in spectra]))
    for row, index in enumerate(order):
        mz, counts = spectra[index][2], spectra[index][3].astype("f4")
        for m, count in zip(mz, counts):
            expected[row, np.argmin(np.abs(centres - m))] += float(count)
    np.testing.assert_array_equal(table.x.toarray(), expected.astype("f4"))


@pytest.mark.parametrize(
    ("policy", "rows", "tic"), [("first", 3, [1, 4, 8]), ("last", 3, [2, 4, 8]),
                                ("sum", 3, [3, 4, 8]), ("keep", 4, [1, 2, 4, 8])],
)  # fmt: skip
def test_several_spectra_of_a_pixel_are_treated_as_asked(tmp_path, small_parts, policy, rows, tic):
    mz = np.array([150.0, 250.0])
    spectra = [(1, 1, mz, [1, 0]), (1, 1, mz, [0, 2]), (2, 1, mz, [4, 0]), (1, 2, mz, [8, 0])]
    spectra = [(x, y, m, np.array(c, "f4")) for x, y, m, c in spectra]
    source = write_imzml(tmp_path, spectra, representation="centroid", pixel_size=1.0)
    gpuconvert.convert(source, tmp_path / "o.zarr", duplicates=policy)
    table = read_table(tmp_path / "o.zarr")
    assert table.x.shape[0] == rows
    assert table.obs["tic"].tolist() == tic
    assert np.asarray(table.x.sum(axis=1)).ravel().tolist() == tic


def test_duplicate_pixels_are_refused_by_default(tmp_path):
    mz = np.array([150.0, 250.0])
    spectra = [(1, 1, mz, np.ones(2)), (1, 1, mz, np.ones(2))]
    source = write_imzml(tmp_path, spectra, representation="centroid", pixel_size=1.0)
    with pytest.raises(SourceError, match="--duplicates"):
        gpuconvert.convert(source, tmp_path / "o.zarr")
    assert not list(tmp_path.glob("o.zarr*"))


def _with_faults(tmp_path):
    spectra = centroid_spectra(pixels())
    mz, counts = spectra[4][2].copy(), spectra[4][3].copy()
    mz[[7, 8]] = mz[[8, 7]]
    counts[20] = np.nan
    counts[21] = -5
    spectra[4] = (*spectra[4][:2], mz, counts)
    return write_imzml(tmp_path, spectra, representation="centroid", pixel_size=1.0), spectra


def test_faulty_points_are_refused_with_their_place_and_nothing_is_left(tmp_path):
    source, spectra = _with_faults(tmp_path)
    x, y = spectra[4][:2]
    words = rf"test.imzML: spectrum 4 \(x={x}, y={y}\): m/z decreases at point 8 .*--repair"
    with pytest.raises(SourceError, match=words):
        gpuconvert.convert(source, tmp_path / "o.zarr")
    assert not list(tmp_path.glob("o.zarr*"))


def test_repair_drops_and_sorts_and_records(tmp_path):
    source, spectra = _with_faults(tmp_path)
    summary = gpuconvert.convert(source, tmp_path / "o.zarr", repair=True)
    assert (summary.dropped, summary.sorted) == (2, 1)
    uns = gpuconvert_uns(tmp_path / "o.zarr")
    assert uns["repairs/points_dropped"][()] == 2
    counts = spectra[4][3].astype("f4").astype("f8")
    table = read_table(tmp_path / "o.zarr")
    x0, y0 = min(s[0] for s in spectra), min(s[1] for s in spectra)
    here = (table.obs["x"] == spectra[4][0] - x0) & (table.obs["y"] == spectra[4][1] - y0)
    assert table.obs["source_tic"][here][0] == pytest.approx(counts[counts > 0].sum())


def test_an_existing_output_stays_unless_it_is_to_be_replaced(tmp_path):
    source = write_centroid(tmp_path)
    gpuconvert.convert(source, tmp_path / "o.zarr")
    before = store_bytes(tmp_path / "o.zarr")
    with pytest.raises(OutputError, match="exists; give --overwrite"):
        gpuconvert.convert(source, tmp_path / "o.zarr")
    assert store_bytes(tmp_path / "o.zarr") == before
    gpuconvert.convert(source, tmp_path / "o.zarr", overwrite=True, bin_ppm=20.0)
    assert store_bytes(tmp_path / "o.zarr") != before


def test_unfinished_work_lies_where_it_is_told_to(tmp_path):
    source = write_centroid(tmp_path)
    (tmp_path / "scratch").mkdir()
    path, _ = conversion.make(
        source, tmp_path / "o.zarr", Settings(temp_dir=str(tmp_path / "scratch"))
    )
    assert path.is_relative_to(tmp_path / "scratch")
    gpuconvert.convert(source, tmp_path / "o.zarr", temp_dir=str(tmp_path / "scratch"))
    assert not list((tmp_path / "scratch").iterdir())
    assert (tmp_path / "o.zarr").is_dir()


def test_every_plane_of_a_stack_has_its_own_elements(tmp_path):
    spectra = [(x, y, mz, c, z) for z in (1, 3) for x, y, mz, c in centroid_spectra(pixels(), z)]
    source = write_imzml(tmp_path, spectra, representation="centroid", pixel_size=1.0)
    gpuconvert.convert(source, tmp_path / "o.zarr")
    first, third = read_table(tmp_path / "o.zarr"), read_table(tmp_path / "o.zarr", "msi_z2")
    assert first.x.shape == third.x.shape
    assert (first.x != third.x).nnz > 0


class _StopsAfter(Monitor):
    """A monitor that is told to stop after so many batches."""

    def __init__(self, batches):
        super().__init__()
        self._left = batches

    def advance(self, n_bytes, n_spectra=0):
        super().advance(n_bytes, n_spectra)
        if n_spectra:
            self._left -= 1
            if self._left == 0:
                self.stop()


def test_a_stopped_run_goes_on_where_it_was(tmp_path, small_parts):
    source = write_profile(tmp_path)
    settings = Settings(workers=1)
    whole = conversion.run(source, tmp_path / "whole.zarr", settings)
    with pytest.raises(Stopped):
        conversion.run(source, tmp_path / "o.zarr", settings, monitor=_StopsAfter(6))
    assert not (tmp_path / "o.zarr").exists()
    assert (tmp_path / "o.zarr.partial/plan.json").is_file()
    done = len(list((tmp_path / "o.zarr.partial/parts").iterdir()))
    assert 0 < done < whole.parts
    summary = conversion.run(source, tmp_path / "o.zarr", settings)
    assert summary.parts_reused == done
    assert store_bytes(tmp_path / "o.zarr") == store_bytes(tmp_path / "whole.zarr")
    assert not list(tmp_path.glob("*.partial"))


def test_other_settings_start_anew(tmp_path, small_parts):
    source = write_profile(tmp_path)
    with pytest.raises(Stopped):
        conversion.run(source, tmp_path / "o.zarr", Settings(workers=1), monitor=_StopsAfter(6))
    summary = conversion.run(source, tmp_path / "o.zarr", Settings(workers=1, threshold=2.0))
    assert summary.parts_reused == 0
    assert read_table(tmp_path / "o.zarr").x.data.min() > 2


def test_another_codec_keeps_the_finished_parts(tmp_path, small_parts):
    source = write_profile(tmp_path)
    with pytest.raises(Stopped):
        conversion.run(source, tmp_path / "o.zarr", Settings(workers=1), monitor=_StopsAfter(6))
    summary = conversion.run(
        source, tmp_path / "o.zarr", Settings(workers=1, compression="zstd", compression_level=3)
    )
    assert summary.parts_reused > 0


def test_a_changed_source_starts_anew(tmp_path, small_parts):
    source = write_profile(tmp_path)
    with pytest.raises(Stopped):
        conversion.run(source, tmp_path / "o.zarr", Settings(workers=1), monitor=_StopsAfter(6))
    write_profile(tmp_path, seed=9)
    assert conversion.run(source, tmp_path / "o.zarr", Settings(workers=1)).parts_reused == 0


def test_the_three_verbs_make_what_run_makes(tmp_path, small_parts):
    source = write_profile(tmp_path)
    gpuconvert.convert(source, tmp_path / "a.zarr")
    path, made = conversion.make(source, tmp_path / "b.zarr", Settings())
    for index in reversed(range(len(made.partitions))):
        conversion.convert_part(path, index)
    conversion.assemble(path)
    assert store_bytes(tmp_path / "a.zarr") == store_bytes(tmp_path / "b.zarr")


def test_what_a_verb_lacks_is_said(tmp_path, small_parts):
    source = write_profile(tmp_path)
    path, made = conversion.make(source, tmp_path / "b.zarr", Settings())
    last = len(made.partitions) - 1
    with pytest.raises(ValueError, match=f"the plan has partitions 0 to {last}, got index 99"):
        conversion.convert_part(path, 99)
    with pytest.raises(ValueError, match="part 0 is missing in .*run 'gpuconvert convert'"):
        conversion.assemble(path)
    write_profile(tmp_path, seed=9)
    with pytest.raises(SourceError, match="is not the file that was planned"):
        conversion.convert_part(path, 0)


def test_a_part_damaged_on_disk_is_refused_and_made_again(tmp_path, small_parts):
    source = write_profile(tmp_path)
    gpuconvert.convert(source, tmp_path / "whole.zarr")
    path, made = conversion.make(source, tmp_path / "o.zarr", Settings())
    for index in range(len(made.partitions)):
        conversion.convert_part(path, index)
    file = path.parent / "parts/00002/c.0"
    raw = bytearray(file.read_bytes())
    raw[10] ^= 4
    file.write_bytes(raw)
    with pytest.raises(DamagedPartError, match=r"00002/c\.0 has other bytes from 0 on than"):
        conversion.assemble(path)
    assert not (tmp_path / "o.zarr").exists()
    summary = conversion.run(source, tmp_path / "o.zarr", Settings())
    assert summary.parts - summary.parts_reused == 1
    assert store_bytes(tmp_path / "o.zarr") == store_bytes(tmp_path / "whole.zarr")


def _declaring(tmp_path, digest):
    document = Document.of(centroid_spectra(pixels()))
    found = digest or hashlib.sha1(document.ibd, usedforsecurity=False).hexdigest()
    document.content.append(cv("IMS:1000091", "ibd SHA-1", found))
    return document.write(tmp_path)


def test_a_source_is_compared_with_what_it_declares_on_request_and_that_is_recorded(tmp_path):
    source = _declaring(tmp_path, None)
    gpuconvert.convert(source, tmp_path / "plain.zarr")
    assert gpuconvert_uns(tmp_path / "plain.zarr")["source_check"][()] == "not asked for"
    summary = gpuconvert.convert(source, tmp_path / "o.zarr", check_source=True)
    assert summary.source_check.startswith("SHA-1 of test.ibd is ")
    assert gpuconvert_uns(tmp_path / "o.zarr")["source_check"][()] == summary.source_check
    declared = json.loads(gpuconvert_uns(tmp_path / "o.zarr")["source"][()])["checksum"]
    assert declared == ["SHA-1", summary.source_check.split()[4].rstrip(",")]
    assert matrix_bytes(tmp_path / "o.zarr") == matrix_bytes(tmp_path / "plain.zarr")


def test_a_source_that_is_not_what_it_declares_is_refused_on_request(tmp_path):
    source = _declaring(tmp_path, "0" * 40)
    with pytest.raises(SourceError, match="but the source declares 0{40}; is it damaged"):
        gpuconvert.convert(source, tmp_path / "o.zarr", check_source=True)
    assert not list(tmp_path.glob("o.zarr*"))
    assert gpuconvert.convert(source, tmp_path / "o.zarr").n_pixels == len(pixels())


def test_the_source_axis_of_a_processed_file_is_the_union_of_its_mz(tmp_path):
    spectra = centroid_spectra(pixels())
    source = write_centroid(tmp_path)
    gpuconvert.convert(source, tmp_path / "o.zarr", axis="source")
    expected = np.unique(np.concatenate([mz for _, _, mz, _ in spectra]))
    np.testing.assert_array_equal(read_table(tmp_path / "o.zarr").mz, expected)
    with pytest.raises(SettingsError, match="more than 100 distinct m/z, too many for --axis"):
        gpuconvert.convert(source, tmp_path / "p.zarr", axis="source", max_bins=100)


def test_a_disk_that_is_full_is_told_in_words_and_the_parts_are_kept(tmp_path, monkeypatch):
    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device", "zarr.json")

    source = write_profile(tmp_path)
    monkeypatch.setattr(finishing, "finish_store", full)
    words = r"o.zarr broke off \(zarr.json: No space left on device\); mend that and run the same"
    with pytest.raises(OutputError, match=words):
        gpuconvert.convert(source, tmp_path / "o.zarr")
    assert not (tmp_path / "o.zarr").exists()
    monkeypatch.undo()
    assert gpuconvert.convert(source, tmp_path / "o.zarr").parts_reused == 1


def test_spectra_without_points_are_pixels_all_the_same(tmp_path):
    source = write_imzml(
        tmp_path, [(1, 1, [], []), (2, 1, [], [])], representation="profile", pixel_size=1.0
    )
    summary = gpuconvert.convert(source, tmp_path / "o.zarr")
    assert (summary.n_pixels, summary.n_nonzeros) == (2, 0)
    assert not [line for line in summary.warnings if "bytes after" in line]
    assert gpuconvert.verify(tmp_path / "o.zarr", source).ok


def test_too_little_memory_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(SettingsError, match="--memory 50 MiB is too little"):
        gpuconvert.convert(write_profile(tmp_path), tmp_path / "o.zarr", memory="50MiB")
    assert not (tmp_path / "o.zarr").exists()


def test_an_unknown_option_is_named():
    with pytest.raises(SettingsError, match="unknown option 'axes'; available: axis"):
        gpuconvert.convert("a.imzML", "o.zarr", axes="orbitrap")


def test_a_resumed_run_uses_the_workers_and_the_memory_it_was_given(tmp_path, small_parts):
    source = write_profile(tmp_path)
    with pytest.raises(Stopped):
        conversion.run(source, tmp_path / "o.zarr", Settings(workers=1), monitor=_StopsAfter(6))
    space = conversion.workspace_for(tmp_path / "o.zarr")
    first = plan.read_plan(space.plan)
    conversion.make(source, tmp_path / "o.zarr", Settings(workers=2, memory=2**31))
    again = plan.read_plan(space.plan)
    assert (first.layout.workers, again.layout.workers) == (1, 2)
    assert again.partitions == first.partitions


def test_a_refusal_names_its_reason_whatever_the_other_workers_do(tmp_path, small_parts):
    source, _ = _with_faults(tmp_path)
    for workers in (1, 2):
        with pytest.raises(SourceError, match="m/z decreases at point 8"):
            gpuconvert.convert(source, tmp_path / "o.zarr", workers=workers)


class _Steps:
    def __init__(self):
        self.steps = []

    def step(self, step):
        self.steps.append(step)


def test_progress_ends_where_it_was_said_to(tmp_path, small_parts):
    seen = _Steps()
    gpuconvert.convert(write_profile(tmp_path), tmp_path / "o.zarr", listener=seen)
    for stage in ("convert", "assemble"):
        last = [step for step in seen.steps if step.stage == stage][-1]
        assert last.done_bytes == last.total_bytes > 0
        assert last.done_spectra == last.total_spectra
