import numpy as np
import pytest

from gpuconvert.readers import extents
from gpuconvert.readers.extents import ExtentFile, place_in_order


@pytest.mark.parametrize(("gap", "reads"), [(1, 1), (extents.GAP, 1), (extents.GAP + 1, 3)])
def test_near_extents_take_one_read_and_far_ones_do_not(tmp_path, count_reads, gap, reads):
    data = np.random.default_rng(1).integers(0, 255, 4 * gap + 100, np.uint8)
    path = tmp_path / "x.bin"
    path.write_bytes(data.tobytes())
    file = ExtentFile(path)
    calls = count_reads()
    offset = 7 + np.arange(3) * (gap + 10)
    into = np.full(40, 9, np.uint8)
    file.read_extents(offset, np.full(3, 10), np.array([25, 2, 12]), into)
    expected = np.full(40, 9, np.uint8)
    for begin, to in zip(offset, (25, 2, 12), strict=True):
        expected[to : to + 10] = data[begin : begin + 10]
    np.testing.assert_array_equal(into, expected)
    assert len(calls) == reads
    file.close()


def test_places_follow_the_order_of_the_file():
    to = place_in_order(np.array([50, 10, 30]), np.array([5, 7, 2]), 100)
    assert to.tolist() == [109, 100, 107]


def test_a_large_file_is_mapped_in_parts(tmp_path, monkeypatch):
    path = tmp_path / "x.bin"
    values = np.arange(100_000.0)
    path.write_bytes(values.tobytes())
    file = ExtentFile(path)
    lengths = []
    real = extents.mmap.mmap

    def count(descriptor, length, **words):
        lengths.append(length)
        return real(descriptor, length, **words)

    monkeypatch.setattr(extents.mmap, "mmap", count)
    monkeypatch.setattr(extents, "SPAN", 1 << 16)
    at = np.random.default_rng(2).permutation(100_000)[:5000] * 8
    np.testing.assert_array_equal(file.gather(at, np.dtype("<f8")), np.sort(at) / 8)
    assert max(lengths) <= (1 << 16) + 8
    file.close()
