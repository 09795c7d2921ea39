"""What a person sees on a terminal: progress while it runs, and results in plain lines."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from gpuconvert.report import format_bytes, format_count, format_seconds
from gpuconvert.stages import Listener

if TYPE_CHECKING:
    from gpuconvert.exporting import Export
    from gpuconvert.inspection import Inspection
    from gpuconvert.status import Status
    from gpuconvert.summary import Summary

LABEL = 15
"""Width of the column of labels, in characters."""


@contextmanager
def listening() -> Iterator[Listener | None]:
    """Show progress on stderr while inside; nothing where stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    # Loaded only where something is drawn: it takes as long as reading 200 MB.
    drawing = importlib.import_module("gpuconvert.progress_bar")
    with drawing.drawn() as bar:
        yield bar


def printable(text: str) -> str:
    """Return `text` as one line without control characters: names and headers hold any."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )


def say(lines: Sequence[str]) -> None:
    """Write result lines to stdout."""
    sys.stdout.write("".join(f"{printable(line)}\n" for line in lines))
    sys.stdout.flush()


def warn(lines: Sequence[str]) -> None:
    """Write warnings to stderr."""
    sys.stderr.write("".join(f"warning: {printable(line)}\n" for line in lines))
    sys.stderr.flush()


def _aligned(lines: Sequence[str]) -> list[str]:
    """Return lines whose first word is a label, set apart from the rest in a column."""
    split = [line.partition("  ") for line in lines]
    return [f"{label:<{LABEL}}{rest.strip()}" for label, _, rest in split]


def _stored_line(stored: dict[str, Any]) -> str:
    """Return the effective storage parameters, as read back from the store."""
    level = "" if stored["codec_level"] is None else f"-{stored['codec_level']}"
    shards = stored["shard_elements"]
    within = f" in shards of {format_count(shards)}" if shards else ""
    return (
        f"{'stored as':<{LABEL}}{stored['layout']}, {stored['codec']}{level}, chunks of "
        f"{format_count(stored['chunk_elements'])} values{within}, "
        f"{format_bytes(stored['bytes_on_disk'])} on disk"
    )


def summary_lines(summary: Summary) -> list[str]:
    """Return what a run did, in lines."""
    pixels = format_count(summary.n_pixels)
    bins = format_count(summary.n_bins)
    reused = f" ({summary.parts_reused} from an earlier run)" if summary.parts_reused else ""
    repairs = []
    if summary.dropped or summary.sorted:
        repairs = [
            f"repaired       {format_count(summary.dropped)} points dropped, "
            f"{format_count(summary.sorted)} spectra sorted"
        ]
    checked = []
    if summary.source_check != "not asked for":
        checked = [f"source         {summary.source_check}"]
    spent = sorted(summary.stages.items(), key=lambda item: -item[1])[:6]
    return [
        *checked,
        *_aligned(summary.decision),
        f"matrix         {pixels} pixels x {bins} bins, {format_count(summary.n_nonzeros)} values",
        *_aligned(summary.quality.lines()),
        *repairs,
        _stored_line(summary.stored),
        f"work           {summary.parts} parts{reused}, {format_seconds(summary.seconds)}, "
        f"peak memory {format_bytes(summary.peak_memory)} "
        f"(projected {format_bytes(summary.projected_memory)}), {summary.backend}",
        f"stages         {', '.join(f'{name} {format_seconds(took)}' for name, took in spent)}; "
        "summed over threads",
        f"store          {summary.output}",
    ]


def export_lines(done: Export) -> list[str]:
    """Return what an export did, in lines."""
    kinds = [f"{format_count(count)} {name}" for name, count in
             (("profiles", done.n_profile), ("centroided", done.n_centroid)) if count]  # fmt: skip
    lines = [
        f"spectra        {', '.join(kinds)}",
        f"points         {format_count(done.points_stored)} stored of "
        f"{format_count(done.points_read)} read",
    ]
    if done.points_marked:
        lines.append(
            f"marked         {format_count(done.points_marked)} zeros without their m/z, put back "
            f"within {done.mz_error:.2g} Th ({done.mz_error_ppm:.2g} ppm)"
        )
    if done.unmarked:
        lines.append(f"unmarked       {format_count(done.unmarked)} spectra keep all their m/z")
    if done.dropped or done.sorted:
        lines.append(
            f"repaired       {format_count(done.dropped)} points dropped, "
            f"{format_count(done.sorted)} spectra sorted"
        )
    form = f"{done.layout} layout, {done.dialect} dialect"
    form += ", lossless" if done.lossless else ", resampled" if done.resampled else ""
    return [
        *lines,
        f"stored as      {form}; {format_bytes(done.bytes_written)} from "
        f"{format_bytes(done.bytes_read)}",
        *([f"source         {done.source_check}"] if done.source_check else []),
        f"work           {format_seconds(done.seconds)}, peak memory "
        f"{format_bytes(done.peak_memory)} (projected {format_bytes(done.projected_memory)})"
        + (f", {done.backend}" if done.backend else ""),
        f"archive        {done.output}",
    ]


def inspection_lines(found: Inspection) -> list[str]:
    """Return what a source holds, in lines."""
    facts = found.source
    nx, ny, nz = facts["grid"]
    least, middle, most = facts["points_per_spectrum"]
    size = []
    if facts["imaging"]:
        px, py = facts["pixel_size_um"]
        size = [f"pixel size     {px:g} x {py:g} µm ({facts['pixel_size_source']})"]
    lines = [
        f"file           {facts['file']} ({facts['format']}, {format_bytes(facts['bytes'])})",
        f"spectra        {format_count(facts['spectra'])}" + (
            f" on a grid of {nx} x {ny}" + (f" x {nz}" if nz > 1 else "")
            + f", {facts['filled']:.0%} filled" if facts["imaging"] else ", no imaging data"
        ),
        f"points         {format_count(facts['points'])}; per spectrum {format_count(least)} to "
        f"{format_count(most)}, median {format_count(middle)}",
        f"stored as      {'; '.join(facts['stored_as'])}"
        + (", one shared m/z axis" if facts["shared_mz"] else ""),
        *size,
        f"polarity       {', '.join(facts['polarity'])}",
        f"instrument     {facts['instrument'] or facts['analyser'] or 'not stated'}",
        *_aligned(found.decision),
        found.backend.replace("backend ", "backend        ", 1),
        f"projected      {format_count(found.nonzeros)} values, "
        f"{format_bytes(found.store_bytes)} before compression, "
        f"about {format_seconds(found.seconds)}",
    ]  # fmt: skip
    if found.projection is None:
        return [*lines, f"memory         {found.refusal}"]
    return [
        *lines,
        f"memory         at most {format_bytes(found.projection.memory)}; temporary files at "
        f"most {format_bytes(found.projection.temporary)}",
    ]


def status_lines(found: Status, now: float) -> list[str]:
    """Return how far the work on an output is, in lines; `now` is seconds since 1970."""
    if found.store is not None:
        store = found.store
        return [
            f"finished       {found.output}",
            f"matrix         {format_count(store.n_pixels)} pixels x {format_count(store.n_bins)} "
            f"bins, {format_count(store.n_nonzero)} values",
        ]
    lines = [f"{found.state:<{LABEL}}{found.output}"]
    if found.state == "interrupted":
        lines.append("next           the same command continues; nothing that is finished is lost")
    if found.beat is not None:
        lines += _beat_lines(found, found.beat, now)
    if found.partitions:
        lines.append(f"partitions     {found.finished} of {found.partitions} finished")
    return lines


def _beat_lines(found: Status, beat: dict[str, Any], now: float) -> list[str]:
    running = found.state == "running"
    stage = str(beat["stage"])
    if found.percent is not None:
        stage += (
            f", {found.percent:.1f} %, {format_bytes(beat['done_bytes'])} of "
            f"{format_bytes(beat['total_bytes'])}"
        )
    if running and found.rate:
        stage += f", {format_bytes(found.rate)}/s"
    if running and found.seconds_left is not None:
        stage += f", {format_seconds(found.seconds_left)} left"
    projected = beat.get("projected_memory")
    return [
        f"process        {beat['process']} on {beat['host']}, begun "
        f"{format_seconds(max(0.0, now - beat['begun']))} ago, seen "
        f"{format_seconds(max(0.0, now - beat['seen']))} ago",
        f"stage          {stage}",
        f"memory         {format_bytes(beat['rss'])}, peak {format_bytes(beat['peak_rss'])}"
        + (f", projected {format_bytes(projected)}" if projected else ""),
    ]
