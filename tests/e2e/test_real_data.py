"""What the program must show on public files; each oracle is pyimzML or arithmetic by hand."""

import numpy as np
import pytest
from pyimzml.ImzMLParser import ImzMLParser

import gpuconvert
from gpuconvert import cli
from tests.e2e.data import read_table

pytestmark = [
    pytest.mark.real_data,
    # pyimzML corrects the terms of these files aloud.
    pytest.mark.filterwarnings("ignore:Accession:UserWarning"),
    pytest.mark.filterwarnings("ignore:Unrecognized accession:UserWarning"),
]

EXAMPLE = "alexandrovteam__pyimzML"
BLADDER = "bladder_PXD001283"
TRIO = (
    "cKNUSPeR__i2nca/pc.imzML",
    "galaxyp__i2nca/pc_test1.imzml",
    "galaxyp__i2nca/pc_test5.imzml",
)


@pytest.fixture(scope="module")
def imzml(shared_data):
    return shared_data / "imzml"


@pytest.fixture(scope="module")
def example(imzml):
    """m/z and intensities of the nine spectra of the ms-imaging.org example, in file order."""
    with ImzMLParser(str(imzml / EXAMPLE / "Example_Continuous.imzML")) as parser:
        assert parser.coordinates == sorted(parser.coordinates, key=lambda c: (c[1], c[0]))
        spectra = [parser.getspectrum(index) for index in range(9)]
    return spectra[0][0], np.array([counts for _, counts in spectra])


def _convert(source, tmp_path, name="o.zarr", **options):
    summary = gpuconvert.convert(source, tmp_path / name, **options)
    return summary, read_table(tmp_path / name)


def test_a_continuous_file_keeps_its_axis_and_every_value(imzml, example, tmp_path):
    mz, counts = example
    _, table = _convert(imzml / EXAMPLE / "Example_Continuous.imzML", tmp_path)
    np.testing.assert_array_equal(table.mz, mz.astype("f8"))
    np.testing.assert_array_equal(table.x.toarray(), counts)


def test_both_encodings_give_the_same_bits_on_one_law(imzml, tmp_path):
    tables = [
        _convert(imzml / EXAMPLE / f"Example_{kind}.imzML", tmp_path, kind, axis="constant")[1]
        for kind in ("Continuous", "Processed")
    ]
    assert tables[0].x.nnz > 20_000
    for part in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(tables[0].x, part), getattr(tables[1].x, part))
    np.testing.assert_array_equal(tables[0].mz, tables[1].mz)


def test_a_processed_profile_is_found_to_be_on_its_own_grid(imzml, example, tmp_path):
    _, counts = example
    summary, table = _convert(imzml / EXAMPLE / "Example_Processed.imzML", tmp_path)
    assert any(line.startswith("law") and "constant (data" in line for line in summary.decision)
    assert table.x.nnz == np.count_nonzero(counts)
    np.testing.assert_allclose(table.x.data, counts[counts > 0], rtol=1e-6)
    filled = np.diff(table.x.tocsc().indptr)
    comb = (filled[1:-1] == 0) & (filled[:-2] == 9) & (filled[2:] == 9)
    assert not comb.any()


def _sums(path):
    with ImzMLParser(str(path)) as parser:
        return {
            (x, y): float(parser.getspectrum(index)[1].sum(dtype="f8"))
            for index, (x, y, _) in enumerate(parser.coordinates)
        }


@pytest.mark.parametrize("name", ["continuous_f8_f4", "pyimzml_continuous"])
@pytest.mark.parametrize("options", [{}, {"axis": "source", "method": "nearest"}])
def test_every_pixel_of_the_bladder_keeps_its_tic(imzml, tmp_path, name, options):
    source = imzml / BLADDER / f"{name}.imzML"
    _, table = _convert(source, tmp_path, **options)
    expected = _sums(source)
    assert len(table.obs["tic"]) == len(expected)
    x0, y0 = min(x for x, _ in expected), min(y for _, y in expected)
    places = zip(table.obs["x"] + x0, table.obs["y"] + y0, strict=True)
    tic = np.array([expected[place] for place in places])
    np.testing.assert_allclose(table.obs["tic"], tic, rtol=1e-6)
    np.testing.assert_allclose(np.asarray(table.x.sum(axis=1)).ravel(), tic, rtol=1e-6)


def test_compressed_spectra_are_those_of_the_plain_file(imzml, tmp_path):
    _, plain = _convert(imzml / BLADDER / "continuous_f8_f4.imzML", tmp_path, "plain")
    _, packed = _convert(imzml / BLADDER / "processed_zlib_f8_f4.imzML", tmp_path, "packed")
    np.testing.assert_array_equal(plain.mz, packed.mz)
    # The compressed file holds positions x 60..189 and y 30..99 of the plain one, which are
    # counted from 1 in both files and from the smallest one in the stores.
    inside = (
        (plain.obs["x"] >= 59) & (plain.obs["x"] < 189)
        & (plain.obs["y"] >= 29) & (plain.obs["y"] < 99)
    )  # fmt: skip
    assert inside.sum() == packed.x.shape[0] == 9100
    np.testing.assert_array_equal(plain.obs["x"][inside] - 59, packed.obs["x"])
    np.testing.assert_array_equal(plain.obs["y"][inside] - 29, packed.obs["y"])
    assert (plain.x[np.flatnonzero(inside)] != packed.x).nnz == 0


def test_three_samplings_of_the_same_ions_have_the_same_tic(imzml, tmp_path):
    tics = []
    for number, name in enumerate(TRIO):
        _, table = _convert(imzml / name, tmp_path, f"{number}.zarr")
        expected = _sums(imzml / name)
        order = sorted(expected, key=lambda place: (place[1], place[0]))
        np.testing.assert_allclose(table.obs["tic"], [expected[p] for p in order], rtol=1e-6)
        tics.append(table.obs["tic"])
    np.testing.assert_allclose(tics[1], tics[0], rtol=1e-6)
    np.testing.assert_allclose(tics[2], tics[0], rtol=1e-6)


@pytest.mark.parametrize("name", ["Example_Continuous", "Example_Processed"])
def test_an_axis_file_and_nearest_add_each_point_to_its_nearest_centre(imzml, tmp_path, name):
    source = imzml / EXAMPLE / f"{name}.imzML"
    centres = np.sort(np.random.default_rng(4).uniform(99, 801, 2500))
    (tmp_path / "axis.txt").write_text("".join(f"{value!r}\n" for value in centres.tolist()))
    _, table = _convert(source, tmp_path, axis=str(tmp_path / "axis.txt"), method="nearest")
    with ImzMLParser(str(source)) as parser:
        for row in range(9):
            mz, counts = parser.getspectrum(row)
            nearest = np.abs(mz.astype("f8")[:, None] - centres).argmin(axis=1)
            expected = np.bincount(nearest, weights=counts, minlength=2500)
            np.testing.assert_array_equal(table.x[row].toarray()[0], expected.astype("f4"))


# Every file that the list of inputs marks as malformed: what must happen, by the words.
MALFORMED = {
    "AlanRace__jimzMLParser/ImzMLTest.NO_IBD.imzML": "ibd",
    "NHPatterson__napari-imsmicrolink/imzml_file.NO_IBD.imzML": "ibd",
    "cKNUSPeR__i2nca/cp.NO_IBD.imzML": "ibd",
    "cKNUSPeR__i2nca/pp.NO_IBD.imzML": "ibd",
    "wanchanglin__massPix/test_pos.NO_IBD.imzML": "ibd",
    "cKNUSPeR__i2nca/cc.imzML": "1999",
}
WARNED = {
    "M4i-Imaging-Mass-Spectrometry__thyra/two_precision_terms.imzML": "",
    "M4i-Imaging-Mass-Spectrometry__thyra/two_scansettings.imzML": "scanSettings",
    "M4i-Imaging-Mass-Spectrometry__thyra/unit_nanometre.imzML": "",
    # pyimzML cannot open these two (no scan settings), but they say where they were measured.
    "sgibb__MALDIquantForeign/tiny_continuous.imzML": "--pixel-size",
    "sgibb__MALDIquantForeign/tiny_processed.imzML": "--pixel-size",
    "djdt__pewlib/test.imzML": "UUID",
    "djdt__pewlib/test_orbi.imzml": "UUID",
}


def _call(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        cli.call([str(word) for word in words])
    out, err = capsys.readouterr()
    return ended.value.code or 0, out, err


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_file_is_refused_in_one_sentence(imzml, tmp_path, capsys, name):
    code, out, err = _call(capsys, "run", imzml / name, tmp_path / "o.zarr")
    assert code == 3
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert MALFORMED[name] in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", WARNED)
def test_a_contradictory_file_is_converted_with_a_warning(imzml, tmp_path, capsys, name):
    code, _, err = _call(capsys, "run", imzml / name, tmp_path / "o.zarr")
    assert code == 0, err
    assert WARNED[name] in err
    table = read_table(tmp_path / "o.zarr")
    np.testing.assert_allclose(table.obs["tic"], table.obs["source_tic"], rtol=1e-6)


def test_a_binary_cut_short_is_refused(imzml, tmp_path, capsys):
    for suffix in (".imzML", ".ibd"):
        content = (imzml / EXAMPLE / f"Example_Processed{suffix}").read_bytes()
        (tmp_path / f"cut{suffix}").write_bytes(content[:-1000] if suffix == ".ibd" else content)
    code, _, err = _call(capsys, "run", tmp_path / "cut.imzML", tmp_path / "o.zarr")
    assert code == 3
    assert "cut.ibd" in err
    assert "truncated" in err
    assert not list(tmp_path.glob("o.zarr*"))
