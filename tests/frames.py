"""Packed batches made by hand: every word of every frame is the test's choice."""

import numpy as np
from hypothesis import strategies as st

from gpuconvert import calibration as cal
from gpuconvert.packed import Packed
from gpuconvert.spectra import RawBatch
from tests.bruker_writer import MODEL_1, MODEL_2, planes

N_SAMPLES = 700
"""No multiple of what is looked at together."""

ROWS = [None, MODEL_1, MODEL_1 | {"C3": 1e-5}, MODEL_2]
"""A chord, then rows of MzCalibration."""

EXACT_MODELS, ALL_MODELS = range(3), range(4)
"""Without and with the one whose exponential no two libraries round alike."""


def models():
    """Return `ROWS` as the numbers that kernels take."""
    found = np.zeros((len(ROWS), cal.MODEL_SIZE))
    found[0, [cal.C0, cal.C1]] = 9.9, 1.6 / N_SAMPLES
    for place, row in enumerate(ROWS):
        if row is None:
            continue
        found[place, : cal.C3] = [row[name] for name in (
            "ModelType", "DigitizerTimebase", "DigitizerDelay", "C0", "C1", "C2",
        )]  # fmt: skip
        if row["ModelType"] == 1:
            found[place, [cal.C3, cal.C4]] = row["C3"], row["C4"]
        else:
            found[place, cal.LOW :] = [row[f"C{k}"] for k in (5, 6, *range(8, 15))]
    return found


def frame_bytes(content, frame):
    """Return a frame as it lies inflated.

    frame : (indices, intensities), {index: intensity}, or a list of (indices, intensities)
    """
    if content == "indices":
        index, intensity = frame
        return np.array(index, "<f8").tobytes() + np.array(intensity, "<f4").tobytes()
    if content == "samples":
        samples = np.zeros(N_SAMPLES, np.uint32)
        samples[list(frame)] = list(frame.values())
        return planes(samples)
    words = [0, *(2 * len(index) for index, _ in frame[:-1])]
    for index, intensity in frame:
        steps = np.diff(np.array(index, np.int64), prepend=-1)
        words += np.stack([steps, np.array(intensity, np.int64)], axis=1).ravel().tolist()
    return planes(words)


def count_peaks(content, frame):
    """Return the points of a frame, or its peaks."""
    if content == "scans":
        return sum(len(index) for index, _ in frame)
    return len(frame) if content == "samples" else len(frame[0])


def pack_frames(content, frames, owners=None, n_spectra=None, *, gap=8, **columns):
    """Return frames as a batch.

    owners : spectrum of every scan of every frame; of each frame its own by default
    columns : scale, model and factor of every frame
    """
    n = len(frames)
    sizes = [len(frame) if content == "scans" else 1 for frame in frames]
    if owners is None:
        owners = [[k] * size for k, size in enumerate(sizes)]
    n_spectra = n if n_spectra is None else n_spectra
    raw, begin = bytearray(), []
    for frame in frames:
        raw += b"\xff" * gap
        begin.append(len(raw))
        raw += frame_bytes(content, frame)
        raw += bytes(-len(raw) % 8)
    n_peaks = np.array([count_peaks(content, frame) for frame in frames], np.int64)
    packed = Packed(
        content=content, path="a.d/analysis.bin", number=np.arange(n) + 11,
        begin=np.array(begin, np.int64), n_peaks=n_peaks,
        scan_at=np.cumsum([0, *sizes]).astype(np.int64),
        owner=np.concatenate([np.zeros(0, np.int64), *map(np.array, owners)]).astype(np.int64),
        scale=np.array(columns.get("scale", np.ones(n)), np.float64), n_samples=N_SAMPLES,
        models=models(), model=np.array(columns.get("model", np.zeros(n)), np.int64),
        factor=np.array(columns.get("factor", np.ones(n)), np.float64),
    )  # fmt: skip
    n_points = np.zeros(n_spectra, np.int64)
    for k, mine in enumerate(owners):
        n_points[mine] = n_peaks[k]
    none = np.zeros(0, np.int64)
    return RawBatch(
        np.frombuffer(bytes(raw), np.uint8), none, none, n_points, np.dtype("<f8"),
        np.dtype("<f4"), np.arange(n_spectra) * 3 + 5, "centroid", packed,
    )  # fmt: skip


# Up to the largest word: sums leave 32 bits, and float32 rounds.
VALUES = st.sampled_from([1, 2, 255, 256, 70_000, 16_777_217, 2**31 - 1, 2**31, 2**32 - 1])
# The first and the last sample of the digitizer, and both sides of a stretch of 64.
PLACES = st.one_of(st.sampled_from([0, 63, 64, N_SAMPLES - 1]), st.integers(0, N_SAMPLES - 1))
INDICES = st.lists(PLACES, unique=True, max_size=12).map(sorted)


@st.composite
def contents_of(draw, content):
    """One frame."""
    if content == "scans":
        scans = draw(st.lists(INDICES, min_size=1, max_size=6).filter(any))
        values = st.one_of(st.just(0), VALUES)
        return [
            (index, draw(st.lists(values, min_size=len(index), max_size=len(index))))
            for index in scans
        ]
    index = draw(INDICES if content == "samples" else INDICES.filter(bool))
    intensity = draw(st.lists(VALUES, min_size=len(index), max_size=len(index)))
    if content == "samples":
        return dict(zip(index, intensity))
    return [at + 0.25 for at in index], intensity


@st.composite
def packed_batches(draw, content, models=EXACT_MODELS):
    """Batches of no to four frames, some spectra without any, some frames of several."""
    frames = draw(st.lists(contents_of(content), max_size=4))
    owners, n_spectra = [], 0
    for frame in frames:
        n_spectra += draw(st.integers(0, 1))
        if content == "scans":
            most = draw(st.sampled_from([1, 1, 3]))
            owners.append([n_spectra + draw(st.integers(0, most - 1)) for _ in frame])
            n_spectra += most
        else:
            owners.append([n_spectra])
            n_spectra += 1
    n = len(frames)
    return pack_frames(
        content, frames, owners, n_spectra + draw(st.integers(0, 1)),
        gap=draw(st.sampled_from([0, 8, 24])),
        scale=draw(st.lists(st.sampled_from([1.0, 0.1, 100 / 10.126]), min_size=n, max_size=n)),
        model=draw(st.lists(st.sampled_from(models), min_size=n, max_size=n)),
        factor=draw(st.lists(st.sampled_from([1.0, 1 + 3e-5]), min_size=n, max_size=n)),
    )  # fmt: skip


CONTENTS = st.sampled_from(["indices", "samples", "scans"])
