"""What a run did, in words: the quality report on disk and plain numbers for a terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpuconvert.errors import OutputError, SettingsError
from gpuconvert.quality import Quality

SUFFIXES = (".json", ".md", ".txt")
"""Kinds of report, by the end of the file name."""


def format_bytes(n: float) -> str:
    """Return a size in bytes to three digits in decimal units, for example ``"1.07 GB"``."""
    if n < 999.5:
        return f"{n:.0f} B"
    # 999.5 and more would round to 1000 at three digits, which is the next unit's 1.00.
    power = next((power for power in range(1, 5) if n / 1000**power < 999.5), 5)
    value = n / 1000**power
    digits = 0 if value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f} {'kMGTP'[power - 1]}B"


def format_seconds(s: float) -> str:
    """Return a duration in seconds in plain units, for example ``"3 min 05 s"``."""
    if s < 0.0995:
        return f"{s * 1000:.1f} ms"
    if s < 59.95:
        return f"{s:.2f} s" if s < 9.995 else f"{s:.1f} s"
    minutes, seconds = divmod(round(s), 60)
    if minutes < 60:
        return f"{minutes} min {seconds:02d} s"
    hours, minutes = divmod(round(s / 60), 60)
    return f"{hours:,} h {minutes:02d} min"


def format_count(n: int) -> str:
    """Return a whole number with its thousands marked, for example ``"65,536"``."""
    return f"{n:,}"


def check_report_path(path: Path) -> None:
    """Raise SettingsError unless `path` names a kind of report that can be written."""
    if path.suffix.lower() not in SUFFIXES:
        raise SettingsError(
            f"--quality-report {path} ends in {path.suffix!r}; available: {', '.join(SUFFIXES)}"
        )


def write_report(
    path: Path, *, summary: dict[str, Any], decision_lines: Sequence[str], quality: Quality,
    warnings: Sequence[str],
) -> None:  # fmt: skip
    """Write the quality report of a run; the end of the file name says which kind.

    Parameters
    ----------
    path
        ``.json`` for machines, ``.md`` or ``.txt`` for people; replaced if it exists.
    summary
        Plain JSON values by the name they are shown under.
    decision_lines
        What was detected and why, a sentence a line.
    quality
        The figures.
    warnings
        Sentences, in the order given.

    Raises
    ------
    SettingsError
        Where the file name ends in anything else.
    OutputError
        Where the file cannot be written.
    """
    check_report_path(path)
    kind = path.suffix.lower()
    if kind == ".json":
        value = {
            "summary": summary, "decision": list(decision_lines),
            "quality": quality.to_json(), "warnings": list(warnings),
        }  # fmt: skip
        text = json.dumps(value, indent=2) + "\n"
    else:
        sections = {
            "Summary": [f"{name}: {_shown(entry)}" for name, entry in summary.items()],
            "Decision": list(decision_lines),
            "Quality": quality.lines(),
            "Warnings": list(warnings) or ["none"],
        }
        text = _markdown(sections) if kind == ".md" else _plain(sections)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"report {path} cannot be written: {error}") from error


def _shown(value: Any) -> str:  # noqa: ANN401 - any JSON value
    return value if isinstance(value, str) else json.dumps(value)


def _markdown(sections: dict[str, list[str]]) -> str:
    parts = ["# gpuconvert quality report"]
    for title, lines in sections.items():
        parts += [f"## {title}", "\n".join(f"- {line}" for line in lines)]
    return "\n\n".join(parts) + "\n"


def _plain(sections: dict[str, list[str]]) -> str:
    parts = ["gpuconvert quality report"]
    for title, lines in sections.items():
        parts.append("\n".join([title, *(f"  {line}" for line in lines)]))
    return "\n\n".join(parts) + "\n"
