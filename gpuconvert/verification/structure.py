"""Checks that need the store alone: its metadata and its tables agree with themselves."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpuconvert.errors import PlanError, StoreError
from gpuconvert.mass_axis import MassAxis
from gpuconvert.spacing import SpacingModel
from gpuconvert.verification.checks import TOLERANCE, Ledger
from gpuconvert.verification.elements import (
    check_image,
    check_link,
    check_places,
    check_readable,
    check_shapes,
)
from gpuconvert.verification.entries import Scan, open_matrix, scan_matrix
from gpuconvert.verification.store import Json, Store, read_json, shown

AXIS_TOLERANCE = 1e-12
"""Relative error of m/z: the last bits of exp and sinh differ between machines."""

SAMPLED_ROWS = 256
SAMPLED_ENTRIES = 2**22
"""Spectra of a table that are looked at one by one: at most so many, of so many entries."""

NEEDED = {
    "obs": (
        "x", "y", "spatial_x", "spatial_y", "acquisition_order", "n_points", "tic", "source_tic",
        "outside_tic",
    ),
    "var": ("mz", "mz_low", "mz_high"),
}  # fmt: skip
"""Columns that every table has, each with one number a row."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the store says of how it was made.

    methods : those that spectra may have been resampled with
    quantity, threshold : as asked for
    duplicates, repaired : what was done to several spectra of a pixel, to faulty points
    profile : whether spectra were taken for profiles
    spacing, gap : native step of the spectra, and how many of them neighbours are apart
    """

    methods: tuple[str, ...]
    quantity: str
    threshold: float
    duplicates: str
    repaired: bool
    profile: bool
    spacing: SpacingModel
    gap: float

    @property
    def exact(self) -> bool:
        """Whether every point went to its nearest bin."""
        return self.methods == ("nearest",)

    @property
    def conserves(self) -> bool:
        """Whether the counts inside the axis are all in X, but for the threshold."""
        return self.exact or self.quantity == "counts"

    @property
    def interpolates(self) -> bool:
        """Whether no point went to its nearest bin."""
        return "nearest" not in self.methods


@dataclass(frozen=True, slots=True)
class Table:
    """What was read of a table whose obs, var and X passed their own checks.

    obs : the columns NEEDED of it, (n_obs,) float64 each
    edges : (n_bins + 1,) float64, Th; centres : (n_bins,) float64
    sample : (n_sampled,) int64 rows, ascending; `scan` holds their entries
    recipe : how they were made
    """

    name: str
    z: int
    obs: dict[str, Floats]
    centres: Floats
    edges: Floats
    sample: Ints
    scan: Scan
    recipe: Recipe


def lists_tables(store: Store) -> bool:
    """Return whether the consolidated metadata list a table, be it there or not."""
    block = store.metadata.get("consolidated_metadata")
    nodes = block.get("metadata") if isinstance(block, dict) else None
    return isinstance(nodes, dict) and any(str(key).startswith("tables/") for key in nodes)


def check_metadata(store: Store) -> tuple[str, None]:
    """Check that the consolidated metadata say what the tree says."""
    block = store.metadata.get("consolidated_metadata")
    if not isinstance(block, dict) or not isinstance(block.get("metadata"), dict):
        raise StoreError("zarr.json has no consolidated metadata; was the run completed?")
    said = {key: _comparable(entry) for key, entry in block["metadata"].items()}
    files = (file.parent for file in store.path.rglob("zarr.json"))
    folders = {folder.relative_to(store.path).as_posix(): folder for folder in files}
    folders.pop(".")
    unknown = sorted(set(folders) - set(said))
    if unknown:
        raise StoreError(f"consolidated metadata do not list {shown(unknown)}")
    gone = sorted(set(said) - set(folders))
    if gone:
        raise StoreError(f"consolidated metadata list {shown(gone)}, which the store does not hold")
    differing = sorted(
        key for key in said if said[key] != _comparable(read_json(folders[key] / "zarr.json"))
    )
    if differing:
        raise StoreError(f"consolidated metadata of {shown(differing)} differ from the tree")
    if "spatialdata_attrs" not in store.attributes(""):
        raise StoreError("attributes of the root have no spatialdata_attrs")
    return f"{len(said)} nodes listed, all as in the tree", None


def _comparable(entry: Json) -> Json:
    """Return metadata of a node without what may be left out."""
    optional: Json = {"attributes": {}, "storage_transformers": [], "dimension_names": None}
    return {
        key: value
        for key, value in entry.items()
        if key != "consolidated_metadata" and not (key in optional and value == optional[key])
    }


def check_table(store: Store, name: str, ledger: Ledger) -> Table | None:
    """Check one table and what belongs to it; return it where a comparison can build on it."""
    key = f"tables/{name}"
    shape = ledger.run(f"{key} frames", lambda: check_frames(store, key))
    if shape is None:
        return None
    axis = ledger.run(f"{key} mass axis", lambda: _check_axis(store, key))
    obs = ledger.run(f"{key} columns", lambda: read_columns(store, key))
    if obs is not None:
        ledger.run(f"{key} places", lambda: check_places(store, key, obs, _plane(name)))
        ledger.run(f"{key} image", lambda: check_image(store, name, obs))
        ledger.run(f"{key} shapes", lambda: check_shapes(store, key, obs))
    ledger.run(f"{key} link", lambda: check_link(store, key))
    ledger.run(f"{key} other arrays", lambda: check_readable(store, key))
    recipe = ledger.run(f"{key} parameters", lambda: _read_recipe(store, key))
    centres = np.zeros(shape[1]) if axis is None else axis[0]
    scanned = _check_matrix(store, key, shape, centres, ledger)
    if axis is None or obs is None or recipe is None or scanned is None:
        return None
    return Table(name, _plane(name), obs, *axis, *scanned, recipe)


def _check_matrix(
    store: Store, key: str, shape: tuple[int, int], centres: Floats, ledger: Ledger
) -> tuple[Ints, Scan] | None:
    """Check X and what it adds up to; return the sampled rows and what was found."""
    matrix = ledger.run(f"{key} pointers", lambda: open_matrix(store, f"{key}/X", *shape))
    if matrix is None:
        return None
    sample = _choose_sample(shape[0], matrix.n_nonzero)
    scan = ledger.run(f"{key} entries", lambda: scan_matrix(store, matrix, sample, centres))
    if scan is None:
        return None
    ledger.run(f"{key} tic", lambda: check_tic(store, key, scan))
    ledger.run(f"{key} average spectrum", lambda: _check_average(store, key, scan))
    return sample, scan


def read_columns(store: Store, key: str) -> tuple[str, dict[str, Floats]]:
    """Return the columns NEEDED, all finite numbers."""
    obs = {column: store.numbers(f"{key}/obs/{column}") for column in NEEDED["obs"]}
    for column, values in obs.items():
        if not (np.isfinite(values) & (values >= 0)).all():
            row = int(np.flatnonzero(~(np.isfinite(values) & (values >= 0)))[0])
            raise StoreError(
                f"{key}/obs/{column} is {values[row]:g} in row {row}, expected at least 0"
            )
    return f"{', '.join(obs)} are numbers", obs


def _choose_sample(n_obs: int, n_nonzero: int) -> Ints:
    """Return evenly spread rows, fewer where rows are long."""
    affordable = SAMPLED_ENTRIES * n_obs // max(1, n_nonzero)
    wanted = min(n_obs, max(1, min(SAMPLED_ROWS, affordable)))
    return np.unique(np.linspace(0, n_obs - 1, wanted).round().astype(np.int64))


def _plane(name: str) -> int:
    """Return the z plane in the name of a table."""
    found = re.search(r"_z(\d+)$", name)
    return int(found[1]) if found else 0


def check_frames(store: Store, key: str) -> tuple[str, tuple[int, int]]:
    """Check encodings and the lengths of all columns; return (n_obs, n_var)."""
    _expect_encoding(store, key, "anndata")
    lengths: dict[str, int] = {}
    for frame in ("obs", "var"):
        _expect_encoding(store, f"{key}/{frame}", "dataframe")
        attributes = store.attributes(f"{key}/{frame}")
        index = attributes.get("_index")
        columns = attributes.get("column-order", [])
        lengths[frame] = store.length(f"{key}/{frame}/{index}")
        absent = sorted(set(NEEDED[frame]) - set(columns))
        if absent:
            raise StoreError(f"{key}/{frame} has no column {absent[0]}")
        for column in columns:
            found = _column_length(store, f"{key}/{frame}/{column}")
            if found != lengths[frame]:
                raise StoreError(
                    f"{key}/{frame}/{column} has {found} rows, expected {lengths[frame]}"
                )
        labels = store.values(f"{key}/{frame}/{index}")
        if len(np.unique(labels)) != len(labels):
            raise StoreError(f"{key}/{frame}/{index} names two rows alike")
    _expect_encoding(store, f"{key}/uns", "dict")
    return f"{lengths['obs']:,} pixels, {lengths['var']:,} bins", (lengths["obs"], lengths["var"])


def _expect_encoding(store: Store, key: str, expected: str) -> None:
    found = store.attributes(key).get("encoding-type")
    if found != expected:
        raise StoreError(f"{key} has encoding {found!r}, expected {expected!r}")


def _column_length(store: Store, key: str) -> int:
    """Return the rows of a column: an array, or a group that AnnData encodes one as."""
    for part in ("codes", "values"):
        if store.holds(f"{key}/{part}"):
            return store.length(f"{key}/{part}")
    return store.length(key)


def _check_axis(store: Store, key: str) -> tuple[str, tuple[Floats, Floats]]:
    """Check var against itself and against the stored axis; return centres and edges."""
    names = [f"{key}/var/{column}" for column in ("mz", "mz_low", "mz_high")]
    mz, low, high = (store.numbers(name) for name in names)
    hint = store.missing_hint(*names)
    wrong = ~((low < mz) & (mz < high))
    wrong[1:] |= (mz[1:] <= mz[:-1]) | (low[1:] != high[:-1])
    if wrong.any():
        place = int(np.flatnonzero(wrong)[0])
        raise StoreError(
            f"{key}/var: bin {place} is {mz[place]:g} of {low[place]:g} to {high[place]:g} Th, "
            f"expected mz_low < mz < mz_high, ascending and without holes{hint}"
        )
    axis, digest = _stored_axis(store, key)
    edges = np.append(low, high[-1:])
    expected = (axis.centres, axis.edges)
    for values, should in zip((mz, edges), expected, strict=True):
        if len(values) != len(should):
            raise StoreError(f"{key}/var has {len(mz)} bins, but its axis has {axis.n_bins}")
        off = ~(np.abs(values - should) <= AXIS_TOLERANCE * np.abs(should))
        if off.any():
            place = int(np.flatnonzero(off)[0])
            raise StoreError(
                f"{key}/var: m/z of bin {place} is {float(values[place])!r}, but the stored axis "
                f"says {float(should[place])!r}"
            )
    return f"{axis.n_bins:,} bins of law {axis.law}, sha256 {digest[:12]}", (mz, edges)


def _stored_axis(store: Store, key: str) -> tuple[MassAxis, str]:
    """Return the axis that the provenance holds, after checking its digest."""
    text = store.text(f"{key}/uns/gpuconvert/axis")
    digest = store.text(f"{key}/uns/gpuconvert/axis_sha256")
    try:
        value = json.loads(text)
        canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
        axis = MassAxis.from_json(value)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{key}/uns/gpuconvert/axis is not an axis: {error}") from error
    found = hashlib.sha256(canonical.encode("ascii")).hexdigest()
    if found != digest:
        raise StoreError(
            f"{key}/uns/gpuconvert/axis has sha256 {found}, but axis_sha256 says {digest}"
        )
    return axis, digest


def _read_recipe(store: Store, key: str) -> tuple[str, Recipe]:
    where = f"{key}/uns/gpuconvert/parameters"
    text = store.text(where)
    said = store.text(f"{key}/uns/essential_metadata/spectrum_type")
    try:
        value = json.loads(text)
        quantity, threshold = str(value["quantity"]), float(value["threshold"])
        options = value.get("options", {"": value})
        # Where the header says the same of all spectra, only its method was used.
        used = [options[said]] if said in options else list(options.values())
        methods = tuple(sorted({str(entry["method"]) for entry in used}))
        spacing, gap = SpacingModel.from_json(used[0]["spacing"]), float(used[0]["gap"])
    except (ValueError, LookupError, TypeError, AttributeError, PlanError) as error:
        raise StoreError(f"{where} does not say how the store was made: {error!r}") from error
    recipe = Recipe(
        methods,
        quantity,
        threshold,
        duplicates=str(value.get("duplicates", "error")),
        repaired=bool(value.get("repair", False)),
        profile=store.text(f"{key}/uns/gpuconvert/representation") == "profile",
        spacing=spacing,
        gap=gap,
    )
    return f"{' or '.join(methods)}, quantity {quantity}, threshold {threshold:g}", recipe


def check_tic(store: Store, key: str, scan: Scan) -> tuple[str, None]:
    """Check that obs/tic is what the rows of X add up to."""
    tic = store.numbers(f"{key}/obs/tic")
    off = ~(np.abs(tic - scan.row_sums) <= TOLERANCE * scan.row_sums)
    if off.any():
        row = int(np.flatnonzero(off)[0])
        hint = store.missing_hint(f"{key}/obs/tic", f"{key}/X/indices", f"{key}/X/indptr")
        raise StoreError(
            f"{key}/obs/tic is {tic[row]:.9g} in row {row}, but X adds up to "
            f"{scan.row_sums[row]:.9g} there ({int(off.sum())} rows differ){hint}"
        )
    return "equals the sums of X", None


def _check_average(store: Store, key: str, scan: Scan) -> tuple[str, None]:
    """Check that the average spectrum is what the columns of X add up to."""
    where = f"{key}/uns/average_spectrum"
    average = store.numbers(where)
    if average.shape != scan.bin_sums.shape:
        raise StoreError(f"{where} has shape {average.shape}, expected {scan.bin_sums.shape}")
    expected = scan.bin_sums / max(1, len(scan.row_sums))
    off = ~(np.abs(average - expected) <= TOLERANCE * expected)
    if off.any():
        place = int(np.flatnonzero(off)[0])
        hint = store.missing_hint(where, f"{key}/X/indices", f"{key}/X/indptr")
        raise StoreError(
            f"{where} is {average[place]:.9g} in bin {place}, but X says "
            f"{expected[place]:.9g}{hint}"
        )
    return "equals the mean of X", None
