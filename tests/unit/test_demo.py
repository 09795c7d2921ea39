import numpy as np
from pyimzml.ImzMLParser import ImzMLParser

from gpuconvert.demo import GRID, write_demo


def test_the_demo_is_a_zero_stripped_profile_with_a_missing_corner(tmp_path):
    path = write_demo(tmp_path / "demo.imzML")
    with ImzMLParser(str(path)) as parser:
        places = {(x, y) for x, y, _ in parser.coordinates}
        assert len(places) == len(parser.coordinates) < GRID[0] * GRID[1]
        assert (1, 1) not in places
        assert (GRID[0], GRID[1]) in places
        mz, counts = parser.getspectrum(len(parser.coordinates) // 2)
    assert (np.diff(mz) > 0).all()
    assert (counts > 0).all()
    assert (path.stat().st_size + path.with_suffix(".ibd").stat().st_size) < 20e6


def test_the_demo_is_the_same_every_time(tmp_path):
    spectra = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        with ImzMLParser(str(write_demo(tmp_path / name / "demo.imzML"))) as parser:
            spectra.append(parser.getspectrum(600))
    np.testing.assert_array_equal(spectra[0], spectra[1])
