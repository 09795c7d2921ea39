import pytest

from gpuconvert.errors import SettingsError
from gpuconvert.setting_texts import (
    parse_bin_width,
    parse_bytes,
    parse_devices,
    parse_pixel_size,
    parse_range,
    parse_regions,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GiB", 4 * 2**30), ("500MB", 500_000_000), ("1.5 g", 1_500_000_000), ("1024", 1024),
     ("2Ti", 2 * 2**40), ("1e9", 10**9)],
)  # fmt: skip
def test_sizes_are_read_with_their_units(text, size):
    assert parse_bytes(text) == size


def test_ranges_widths_sizes_and_lists_are_read():
    assert parse_range("100:1000.5") == (100.0, 1000.5)
    assert parse_bin_width("0.005@400") == (0.005, 400.0)
    assert parse_pixel_size("10") == (10.0, 10.0)
    assert parse_pixel_size("10x20") == (10.0, 20.0)
    assert parse_regions("2, 0,2") == (0, 2)
    assert parse_devices("0,3") == (0, 3)


@pytest.mark.parametrize(
    ("parse", "text", "words"),
    [
        (parse_bytes, "plenty", "--memory 'plenty' is not a size; write it like 4GiB"),
        (parse_bytes, "1.2.3G", "--memory '1.2.3G' is not a size"),
        (parse_range, "100-1000", "--mz-range '100-1000' is not clear; write it like 100:1000"),
        (parse_range, "a:b", "--mz-range 'a:b' is not clear"),
        (parse_bin_width, "0.005", "write it like 0.005@400"),
        (parse_regions, "left", "--region 'left' is not clear; write it like 2 or 0,2"),
        (parse_devices, "0;1", "--devices '0;1' is not clear; write it like 0,1"),
        (parse_pixel_size, "10um", "--pixel-size '10um' is not clear"),
    ],
)
def test_an_unreadable_text_is_answered_with_an_example(parse, text, words):
    with pytest.raises(SettingsError, match=words):
        parse(text)
