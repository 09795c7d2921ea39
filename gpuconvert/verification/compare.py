"""Checks against the source: the same pixels, the same counts, at the same m/z."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpuconvert.errors import StoreError
from gpuconvert.quality import Quality, measure, peak_figures
from gpuconvert.spectra import RaggedSpectra
from gpuconvert.verification.bounds import Bins, Spectrum, merged, misplaced, moments, overshoot
from gpuconvert.verification.checks import TOLERANCE, Ledger
from gpuconvert.verification.sources import Spectra
from gpuconvert.verification.store import Store
from gpuconvert.verification.structure import Recipe, Table

MAX_MZ, MAX_INTENSITY = 1e6, 1e30
"""What --repair takes for damage; stated here again, so that a change there is noticed."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of all tables, one after the other.

    places : (n_rows, 3) int64; x, y, z from 0
    tic, source_tic, outside, n_points, order, moment : (n_rows,) float64; see `Table`
        and `Scan`
    recipe, bins : of all tables
    """

    places: Ints
    tic: Floats
    source_tic: Floats
    outside: Floats
    n_points: Floats
    order: Floats
    moment: Floats
    recipe: Recipe
    bins: Bins


@dataclass(frozen=True, slots=True)
class Source:
    """What one pass over the source found, by row of the store.

    tic : (n_rows,) float64, sum of the intensities
    inside, moment, allowed : (n_rows,) float64; see `bounds.moments`
    sampled : spectra by row, of the sampled rows that one spectrum alone became
    """

    tic: Floats
    inside: Floats
    moment: Floats
    allowed: Floats
    sampled: dict[int, Spectrum]


def compare(
    store: Store, tables: Sequence[Table], oracle: Spectra, size_ratio: float, ledger: Ledger
) -> Quality | None:
    """Check all tables of `store` against their source; return what the conversion did.

    `size_ratio` is bytes of the store per byte of source. None where the tables and the
    source do not fit together at all.
    """
    rows = ledger.run("same axis", lambda: _gather_rows(tables))
    if rows is None:
        return None
    owner = ledger.run("source pixels", lambda: _match_pixels(rows, oracle))
    if owner is None:
        return None
    if rows.recipe.duplicates != "sum":
        ledger.run("source columns", lambda: _check_columns(rows, oracle, owner))
        if oracle.facts:
            ledger.run("source facts", lambda: _check_facts(store, tables, rows, oracle, owner))
    source = ledger.run("source spectra", lambda: _read_source(tables, rows, oracle, owner))
    if source is None:
        return None
    ledger.run("source tic", lambda: _check_source_tic(rows, source))
    ledger.run("stored tic", lambda: _check_stored_tic(rows, source))
    if rows.recipe.conserves:
        ledger.run("mean m/z", lambda: _check_mean(rows, source))
    ledger.run("bin contents", lambda: _check_contents(tables, rows, source))
    return _measure(tables, rows, source, size_ratio)


def _gather_rows(tables: Sequence[Table]) -> tuple[str, Rows]:
    first = tables[0]
    for table in tables[1:]:
        if table.recipe != first.recipe or not np.array_equal(table.edges, first.edges):
            raise StoreError(f"tables/{table.name} has another axis than tables/{first.name}")
    columns = {name: np.concatenate([table.obs[name] for table in tables]) for name in first.obs}
    planes = np.repeat([table.z for table in tables], [len(table.obs["x"]) for table in tables])
    rows = Rows(
        np.stack([columns["x"], columns["y"], planes], axis=1).astype(np.int64),
        columns["tic"], columns["source_tic"], columns["outside_tic"], columns["n_points"],
        columns["acquisition_order"],
        np.concatenate([table.scan.row_moments for table in tables]), first.recipe,
        Bins(first.centres, first.edges),
    )  # fmt: skip
    return f"{len(tables)} table(s), {len(rows.tic):,} rows", rows


def _match_pixels(rows: Rows, oracle: Spectra) -> tuple[str, Ints]:
    """Return the row that each spectrum became part of, -1 for none; (n_spectra,)."""
    extent = np.maximum(rows.places.max(axis=0), oracle.coordinates.max(axis=0)) + 1
    row_key = _key(rows.places, extent)
    spectrum_key = _key(oracle.coordinates, extent)
    # Stable: rows of one pixel keep the order of the file.
    in_order = np.argsort(spectrum_key, kind="stable")
    row_order = np.argsort(row_key, kind="stable")
    keys = spectrum_key[in_order]
    begins = np.append(True, keys[1:] != keys[:-1])
    ends = np.append(begins[1:], True)
    used = {"first": begins, "last": ends}.get(rows.recipe.duplicates, np.ones(len(keys), bool))
    group = np.cumsum(begins) - 1 if rows.recipe.duplicates == "sum" else np.cumsum(used) - 1
    expected = keys[begins] if rows.recipe.duplicates == "sum" else keys[used]
    if not np.array_equal(expected, row_key[row_order]):
        raise StoreError(_describe_difference(expected, row_key, extent))
    owner = np.full(len(keys), -1, np.int64)
    owner[in_order[used]] = row_order[group[used]]
    return f"{len(row_key):,} pixels, those of the source", owner


def _key(places: Ints, extent: Ints) -> Ints:
    """Return one number per pixel that ascends with z, then y, then x."""
    key: Ints = (places[:, 2] * extent[1] + places[:, 1]) * extent[0] + places[:, 0]
    return key


def _describe_difference(expected: Ints, found: Ints, extent: Ints) -> str:
    for keys, others, words in (
        (expected, found, "of the source is not in the store"),
        (found, expected, "of the store is not in the source"),
    ):
        lost = np.setdiff1d(keys, others)
        if len(lost):
            return f"pixel {_place(lost[0], extent)} {words} ({len(lost)} such pixels)"
    return f"the source has {len(expected)} spectra of these pixels, the store {len(found)} rows"


def _place(key: int, extent: Ints) -> str:
    rest, x = divmod(int(key), int(extent[0]))
    z, y = divmod(rest, int(extent[1]))
    return f"x={x}, y={y}, z={z}"


def _check_columns(rows: Rows, oracle: Spectra, owner: Ints) -> tuple[str, None]:
    """Check what obs says of the one spectrum that became each row."""
    used = np.flatnonzero(owner >= 0)
    for name, found, expected in (
        ("n_points", rows.n_points, oracle.n_points[used]),
        ("acquisition_order", rows.order, oracle.order[used]),
    ):
        off = np.flatnonzero(found[owner[used]] != expected)
        if len(off):
            row = int(owner[used[off[0]]])
            raise StoreError(
                f"obs/{name} is {found[row]:.0f} at {_pixel(rows, row)}, but the source says "
                f"{expected[off[0]]}"
            )
    return "obs/n_points and obs/acquisition_order are those of the source", None


def _check_facts(
    store: Store, tables: Sequence[Table], rows: Rows, oracle: Spectra, owner: Ints
) -> tuple[str, None]:
    """Check what obs says besides, as far as the oracle reads it too."""
    used = np.flatnonzero(owner >= 0)
    for name, expected in oracle.facts.items():
        found = np.concatenate([store.numbers(f"tables/{t.name}/obs/{name}") for t in tables])
        off = np.flatnonzero(found[owner[used]] != expected[used])
        if len(off):
            row = int(owner[used[off[0]]])
            raise StoreError(
                f"obs/{name} is {found[row]:.0f} at {_pixel(rows, row)}, but the source says "
                f"{expected[used[off[0]]]} ({len(off)} pixels differ)"
            )
    return f"{' and '.join(f'obs/{name}' for name in oracle.facts)} are those of the source", None


def _pixel(rows: Rows, row: int) -> str:
    x, y, z = rows.places[row]
    return f"x={x}, y={y}, z={z}"


def _read_source(
    tables: Sequence[Table], rows: Rows, oracle: Spectra, owner: Ints
) -> tuple[str, Source]:
    """Read every spectrum of the source once."""
    n_rows = len(rows.tic)
    tic, inside, moment, allowed = np.zeros((4, n_rows))
    starts = np.cumsum([0, *(len(table.obs["x"]) for table in tables)])
    sample = np.concatenate([table.sample + at for table, at in zip(tables, starts, strict=False)])
    alone = np.bincount(owner[owner >= 0], minlength=n_rows) == 1
    wanted = np.zeros(n_rows, bool)
    wanted[sample] = True
    wanted &= alone
    sampled: dict[int, Spectrum] = {}
    for index in np.flatnonzero(owner >= 0):
        row = int(owner[index])
        spectrum = _usable(*oracle.spectrum(int(index)), repaired=rows.recipe.repaired)
        tic[row] += spectrum.intensity.sum()
        found = moments(spectrum, rows.bins, exact=rows.recipe.exact)
        inside[row] += found[0]
        moment[row] += found[1]
        allowed[row] += found[2]
        if wanted[row]:
            sampled[row] = spectrum
    return f"{len(owner):,} read", Source(tic, inside, moment, allowed, sampled)


def _usable(mz: Floats, intensity: Floats, *, repaired: bool) -> Spectrum:
    if repaired:
        good = (mz >= 0) & (mz <= MAX_MZ) & (intensity >= 0) & (intensity <= MAX_INTENSITY)
        mz, intensity = mz[good], intensity[good]
    return merged(mz, intensity)


def _check_source_tic(rows: Rows, source: Source) -> tuple[str, None]:
    """Check that obs/source_tic is what the spectra of the source add up to."""
    off = np.flatnonzero(~(np.abs(rows.source_tic - source.tic) <= TOLERANCE * source.tic))
    if len(off):
        row = int(off[0])
        raise StoreError(
            f"pixel {_pixel(rows, row)} has {source.tic[row]:.9g} counts in the source, but its "
            f"obs/source_tic is {rows.source_tic[row]:.9g} ({len(off)} pixels differ)"
        )
    return "obs/source_tic equals the sums of the source", None


def _check_stored_tic(rows: Rows, source: Source) -> tuple[str, None]:
    """Check that what is stored and what is outside the axis are all there was."""
    if not rows.recipe.conserves:
        return "not compared: heights add up to no counts", None
    expected = source.tic - rows.outside
    difference = rows.tic - expected
    if rows.recipe.threshold > 0:
        # What is not above the threshold is left out on purpose.
        difference = np.maximum(difference, 0)
    off = np.flatnonzero(~(np.abs(difference) <= TOLERANCE * source.tic))
    if len(off):
        row = int(off[0])
        raise StoreError(
            f"pixel {_pixel(rows, row)} holds {rows.tic[row]:.9g} counts, expected "
            f"{expected[row]:.9g} of the source ({len(off)} pixels differ)"
        )
    return "stored and outside counts are those of the source", None


def _check_mean(rows: Rows, source: Source) -> tuple[str, None]:
    """Check that the mean m/z of every pixel, weighted by counts, has not moved."""
    both = (source.inside > 0) & (rows.tic > 0)
    inside, tic = source.inside[both], rows.tic[both]
    shift = np.abs(rows.moment[both] / tic - source.moment[both] / inside)
    allowed = source.allowed[both] / inside
    if rows.recipe.threshold > 0:
        span = rows.bins.edges[-1] - rows.bins.edges[0]
        allowed += span * np.maximum(0, 1 - tic / inside)
    off = np.flatnonzero(~(shift <= allowed))
    if len(off):
        row = int(np.flatnonzero(both)[off[0]])
        raise StoreError(
            f"mean m/z of pixel {_pixel(rows, row)} is {shift[off[0]]:.6g} Th from that of the "
            f"source, expected at most {allowed[off[0]]:.6g} Th ({len(off)} pixels differ)"
        )
    worst = float((shift / allowed).max(initial=0.0))
    return f"moved by at most {worst:.1%} of what half a bin allows", None


def _entries(tables: Sequence[Table]) -> list[tuple[int, NDArray[np.int32], Floats]]:
    """Return row, bins and values of every sampled row of the store, in order."""
    found = []
    start = 0
    for table in tables:
        scan = table.scan
        for place, row in enumerate(table.sample):
            own = slice(scan.indptr[place], scan.indptr[place + 1])
            found.append((start + int(row), scan.bins[own], scan.values[own]))
        start += len(table.obs["x"])
    return found


def _check_contents(tables: Sequence[Table], rows: Rows, source: Source) -> tuple[str, None]:
    """Check that sampled spectra have their counts, or heights, where the source has them."""
    recipe = rows.recipe
    if recipe.conserves and recipe.threshold > 0:
        return "not compared: bins below the threshold are left out", None
    if not recipe.conserves and not recipe.interpolates:
        return "not compared: heights and nearest bins may be mixed", None
    for row, places, values in _entries(tables):
        spectrum = source.sampled.get(row)
        if spectrum is None:
            continue
        if recipe.conserves:
            wrong = misplaced(spectrum, rows.bins, places, values, exact=recipe.exact)
            words = "of the counts are in bins where the source has none of them"
        else:
            wrong = overshoot(spectrum, rows.bins, places, values)
            words = "of the base peak is what a height lies outside those of its neighbours"
        if not wrong <= TOLERANCE:
            raise StoreError(f"pixel {_pixel(rows, row)}: {wrong:.3%} {words}")
    return f"{len(source.sampled):,} sampled spectra have them where the source does", None


def _measure(tables: Sequence[Table], rows: Rows, source: Source, size_ratio: float) -> Quality:
    """Return the figures of the conversion, peaks from the sampled spectra."""
    pairs = [
        (source.sampled[row], places, values)
        for row, places, values in _entries(tables)
        if row in source.sampled
    ]
    spectra = [spectrum for spectrum, _, _ in pairs]
    ragged = RaggedSpectra(
        np.cumsum([0, *(len(spectrum.mz) for spectrum in spectra)]),
        np.concatenate([np.zeros(0), *(spectrum.mz for spectrum in spectra)]),
        np.concatenate([np.zeros(0), *(spectrum.intensity for spectrum in spectra)]),
    )
    peaks = peak_figures(
        ragged,
        np.cumsum([0, *(len(places) for _, places, _ in pairs)]),
        np.concatenate([np.zeros(0, np.int32), *(places for _, places, _ in pairs)]),
        np.concatenate([np.zeros(0), *(values for _, _, values in pairs)]),
        centres=rows.bins.centres, edges=rows.bins.edges, profile=rows.recipe.profile,
        spacing=rows.recipe.spacing, gap=rows.recipe.gap,
    )  # fmt: skip
    return measure(rows.tic, source.tic, rows.outside, peaks, size_ratio)
