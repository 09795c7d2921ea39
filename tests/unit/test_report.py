"""The quality report on disk, and plain numbers."""

import json

import pytest

from gpuconvert.errors import OutputError, SettingsError
from gpuconvert.quality import Quality
from gpuconvert.report import (
    check_report_path,
    format_bytes,
    format_count,
    format_seconds,
    write_report,
)

QUALITY = Quality(2e-8, 1e-9, 0.0, 7, 1.0, 0.25, 0.5, 0.5)
SUMMARY = {"output": "tissue.zarr", "n_pixels": 11, "layout": "csc"}
DECISION = ["law  linear-tof", "bins 20,000"]


def write(path, warnings=()):
    write_report(path, summary=SUMMARY, decision_lines=DECISION, quality=QUALITY, warnings=warnings)
    return path


def test_a_json_report_holds_every_figure(tmp_path):
    value = json.loads(write(tmp_path / "q.json", ["pixel size is assumed"]).read_text())
    assert value == {
        "summary": SUMMARY, "decision": DECISION, "quality": QUALITY.to_json(),
        "warnings": ["pixel size is assumed"],
    }  # fmt: skip


def test_a_markdown_report_has_a_section_for_each_kind(tmp_path):
    text = write(tmp_path / "q.md", ["µm is assumed"]).read_text(encoding="utf-8")
    assert text.startswith("# gpuconvert quality report\n\n## Summary\n\n- output: tissue.zarr\n")
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## Summary", "## Decision", "## Quality", "## Warnings",
    ]  # fmt: skip
    assert "\n- law  linear-tof\n- bins 20,000\n" in text
    assert "\n- peaks  100.00% of 7 kept" in text
    assert text.endswith("- µm is assumed\n")


def test_a_text_report_says_that_there_were_no_warnings(tmp_path):
    text = write(tmp_path / "Q.TXT").read_text()
    assert text.startswith("gpuconvert quality report\n\nSummary\n  output: tissue.zarr\n")
    assert "  n_pixels: 11\n" in text
    assert text.endswith("Warnings\n  none\n")


def test_an_old_report_is_replaced(tmp_path):
    old = tmp_path / "q.txt"
    old.write_text("something else" * 1000)
    assert "something" not in write(old).read_text()


@pytest.mark.parametrize("name", ["q.html", "q", "q.json.gz"])
def test_other_kinds_of_report_are_refused_by_name(tmp_path, name):
    with pytest.raises(SettingsError, match=r"--quality-report .* available: .json, .md, .txt"):
        write(tmp_path / name)
    with pytest.raises(SettingsError, match="ends in"):
        check_report_path(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_report_that_cannot_be_written_is_an_error_of_output(tmp_path):
    with pytest.raises(OutputError, match=r"report .*missing/q\.json cannot be written"):
        write(tmp_path / "missing" / "q.json")


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (1234, "1.23 kB"), (9_994, "9.99 kB"),
        (9_996, "10.0 kB"), (99_940, "99.9 kB"), (99_960, "100 kB"), (999_499, "999 kB"),
        (999_600, "1.00 MB"), (393_216_000, "393 MB"), (1_073_741_824, "1.07 GB"),
        (2.5e12, "2.50 TB"), (3e15, "3.00 PB"), (12_345e15, "12345 PB"),
    ],
)  # fmt: skip
def test_bytes_are_shown_to_three_digits(n, text):
    assert format_bytes(n) == text


@pytest.mark.parametrize(
    ("s", "text"),
    [
        (0, "0.0 ms"), (0.0123, "12.3 ms"), (0.0999, "0.10 s"), (0.12, "0.12 s"), (9.99, "9.99 s"),
        (12.34, "12.3 s"), (59.94, "59.9 s"), (59.96, "1 min 00 s"), (185, "3 min 05 s"),
        (3599.4, "59 min 59 s"), (3599.6, "1 h 00 min"), (7620, "2 h 07 min"),
        (7199.0, "2 h 00 min"), (4_000_000, "1,111 h 07 min"),
    ],
)  # fmt: skip
def test_durations_are_shown_in_plain_units(s, text):
    assert format_seconds(s) == text


def test_counts_have_their_thousands_marked():
    assert [format_count(n) for n in (0, 999, 65_536, 1_000_000)] == [
        "0",
        "999",
        "65,536",
        "1,000,000",
    ]
