import pytest

from gpuconvert.errors import SettingsError
from gpuconvert.settings import PRESETS, Settings


def test_settings_come_back_from_json_as_they_were():
    settings = Settings(
        axis="orbitrap", bin_width=(0.01, 400.0), mz_range=(100.0, 900.0),
        pixel_size=(10.0, 20.0), region=(0, 2), ms_level=2, spectrum="profile",
    )  # fmt: skip
    assert Settings.from_json(settings.to_json()) == settings


def test_an_explicit_option_beats_the_preset():
    chosen = Settings(preset="small", compression_level=7).storage_choice()
    assert chosen == ("zstd", 7, PRESETS["small"]["chunk_size"])
    assert Settings(preset="small", compression="none").storage_choice()[0] == "none"


def test_where_the_work_is_done_does_not_decide_the_numbers():
    here = Settings(workers=1, memory=2**30, backend="numpy", temp_dir="a")
    there = Settings(workers=8, memory=2**33, backend="cpu", temp_dir="b")
    assert here.conversion() == there.conversion()


def test_numbers_of_devices_are_kept_and_decide_no_numbers():
    settings = Settings(devices=(0, 3))
    assert Settings.from_json(settings.to_json()) == settings
    assert settings.conversion() == Settings().conversion()


def test_what_decides_the_numbers_shows():
    assert Settings(threshold=1.0).conversion() != Settings().conversion()
    assert Settings(layout="csr").conversion() != Settings().conversion()
    for asked in (
        {"spectrum": "line"}, {"region": (1,)}, {"ms_level": 1}, {"calibration": "chord"},
        {"mobility_bins": 50},
    ):  # fmt: skip
        assert Settings(**asked).conversion() != Settings().conversion()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "cubic"}, "unknown --method 'cubic'; available: adaptive, pchip, linear"),
        ({"quantity": "area"}, "unknown --quantity 'area'; available: counts, height"),
        ({"compression": "gzip"}, "unknown --compression 'gzip'; available: none, lz4, zstd"),
        ({"spectrum_type": "line"}, "unknown --spectrum-type 'line'"),
        ({"bins": 10, "bin_ppm": 5.0}, "--bins and --bin-ppm all set the width of a bin"),
        ({"axis": "source", "bins": 10}, "--bins has no meaning with --axis source"),
        ({"bins": 0}, "--bins must be at least 1, got 0"),
        ({"bin_ppm": -1.0}, "--bin-ppm must be above 0 ppm, got -1"),
        ({"bin_width": (0.0, 400.0)}, "--bin-width must be above 0 Th, got 0"),
        ({"mz_range": (900.0, 100.0)}, "0 < low < high, got 900 to 100 Th"),
        ({"threshold": -3.0}, "--threshold must be >= 0 counts, got -3"),
        ({"threshold": float("nan")}, "--threshold must be >= 0 counts, got nan"),
        ({"gap": 0.5}, "--gap must be at least 1 native step, got 0.5"),
        ({"pixel_size": (10.0, 0.0)}, "--pixel-size must be above 0 micrometres, got 0"),
        ({"compression_level": 12}, "--compression-level must be 1 to 9, got 12"),
        ({"workers": 0}, "--workers must be at least 1, got 0"),
        ({"chunk_size": 1}, "--chunk-size must be at least 1024, got 1"),
        ({"max_bins": 0}, "--max-bins must be at least 1, got 0"),
        ({"memory": 0}, "--memory must be at least 1, got 0"),
        ({"spectrum": "peaks"}, "unknown --spectrum 'peaks'; available: auto, line, profile"),
        ({"calibration": "linear"}, "unknown --calibration 'linear'; available: exact, chord"),
        ({"region": (0, -1)}, "--region must be at least 0, got -1"),
        ({"ms_level": 3}, "--ms-level must be 1 or 2, got 3"),
        ({"mobility_bins": 0}, "--mobility-bins must be at least 1, got 0"),
        (
            {"mobility_bins": 5, "method": "linear"},
            "--mobility-bins puts every peak into its nearest bin; leave out --method",
        ),
        ({"mobility_bins": 5, "threshold": 1.0}, "--mobility-bins parts values that --threshold 1"),
        ({"devices": ()}, r"--devices must be different numbers from 0, got \[\]"),
        ({"devices": (1, 1)}, r"--devices must be different numbers from 0, got \[1, 1\]"),
        ({"devices": (0, -1)}, r"--devices must be different numbers from 0, got \[0, -1\]"),
        ({"id": "a/b"}, "--id 'a/b' names elements of a store"),
    ],
)
def test_a_wrong_option_is_named_with_its_value_and_what_is_expected(options, words):
    with pytest.raises(SettingsError, match=words.replace("(", r"\(").replace("?", r"\?")):
        Settings(**options)
