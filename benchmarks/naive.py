"""What a user would write: pyimzML, SciPy spectrum by spectrum, everything in memory.

``python -m benchmarks.naive INPUT OUTPUT [EDGES.npy]`` puts centroids into the bins with
these edges, and profiles (their ion counts, by a monotone cubic of the cumulative count in
flight time) likewise; without edges all spectra must share one axis, which is kept.
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
from anndata import AnnData
from pyimzml.ImzMLParser import ImzMLParser
from scipy.interpolate import PchipInterpolator
from scipy.sparse import coo_matrix

GAP = 1.5
"""Neighbours are at most this many sampling steps apart."""


def cumulative(mz, counts):
    """Return square roots of m/z and the cumulative count there, flat across gaps."""
    t = np.sqrt(mz)
    step = np.diff(t)
    half = 0.5 * np.median(step)
    gap = step > GAP * 2 * half
    middle = 0.5 * (t[1:] + t[:-1])
    left = np.append(t[0] - half, np.where(gap, t[1:] - half, middle))
    right = np.append(np.where(gap, t[:-1] + half, middle), t[-1] + half)
    total = np.cumsum(counts, dtype=np.float64)
    nodes = np.column_stack([left, right]).ravel()
    values = np.column_stack([total - counts, total]).ravel()
    kept = np.append(np.diff(nodes) > 0, True)
    return nodes[kept], values[kept]


def counts_pchip(mz, counts, edges):
    """Return the count of every bin between `edges`; (n_bins,) float64."""
    nodes, values = cumulative(mz, counts)
    return np.diff(PchipInterpolator(nodes, values)(np.clip(np.sqrt(edges), nodes[0], nodes[-1])))


def main(source, target, edges=None):
    """Convert `source` into an AnnData store at `target`."""
    parser = ImzMLParser(source)
    profile = "MS:1000128" in parser.metadata.file_description.param_by_accession
    rows, columns, values = [], [], []
    for row in range(len(parser.coordinates)):
        mz, counts = parser.getspectrum(row)
        if edges is None:
            bins = np.arange(len(mz))
        elif profile:
            counts = counts_pchip(mz, counts, edges)
            bins = np.flatnonzero(counts > 0)
            counts = counts[bins]
        else:
            bins = np.clip(np.searchsorted(edges, mz, "right") - 1, 0, len(edges) - 2)
        rows.append(np.full(len(bins), row, np.int32))
        columns.append(bins.astype(np.int32))
        values.append(counts.astype(np.float32))
    centres = mz if edges is None else 0.5 * (edges[1:] + edges[:-1])
    shape = (len(rows), len(centres))
    placed = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    obs = pd.DataFrame(parser.coordinates, columns=["x", "y", "z"])
    obs.index = obs.index.astype(str)
    var = pd.DataFrame({"mz": centres}, index=[f"mz_{i}" for i in range(len(centres))])
    AnnData(coo_matrix(placed, shape).tocsc(), obs, var).write_zarr(target)


if __name__ == "__main__":
    main(*sys.argv[1:3], *(np.load(path) for path in sys.argv[3:4]))
