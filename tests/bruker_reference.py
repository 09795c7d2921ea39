"""What a Bruker file means, in scalar Python: peaks word by word, m/z by bisection.

Slow and obvious; held against what the vendor's software wrote into real files, in
`unit/test_bruker_calibration.py` and `unit/test_bruker_reader.py`.
"""

import math


def flight_time(mz, row, factor, *, c3, c4):
    """Return the time in ns at which an ion of `mz` arrives."""
    s = math.sqrt(mz + c4)
    return (
        row["C0"] + math.sqrt(1e12 / (row["C1"] * factor)) * s + row["C2"] / factor * s**2
        + c3 * s**3
    )  # fmt: skip


def temperature_factor(row, t1, t2):
    """Return f: how much longer the flight path was than at the reference temperatures."""
    return 1 + 1e-6 * (row["dC1"] * (row["T1"] - t1) + row["dC2"] * (row["T2"] - t2))


def mz_of_time(time, row, factor=1.0):
    """Return the m/z of an ion that arrives at `time` ns."""
    second = row["ModelType"] == 2
    c3, c4 = (0.0, 0.0) if second else (row["C3"], row["C4"])
    low, high = max(0.0, -c4), 1e5
    for _ in range(200):
        middle = (low + high) / 2
        if flight_time(middle, row, factor, c3=c3, c4=c4) < time:
            low = middle
        else:
            high = middle
    if not second:
        return low
    x = min(max(low, row["C5"]), row["C6"])
    correction = sum(row[f"C{8 + k}"] * x**k for k in range(int(row["C7"])))
    return low - correction * math.exp(-(abs(low - x) ** 2))


def mz_of_index(index, row, t1=None, t2=None):
    """Return the m/z of a sample of the digitizer."""
    factor = temperature_factor(
        row, row["T1"] if t1 is None else t1, row["T2"] if t2 is None else t2
    )
    return mz_of_time(index * row["DigitizerTimebase"] + row["DigitizerDelay"], row, factor)


def words_of(planes):
    """Return the 32-bit words that lie in four byte planes."""
    n = len(planes) // 4
    return [sum(int(planes[p * n + k]) << 8 * p for p in range(4)) for k in range(n)]


def sample_points(words):
    """Return (index, intensity) of every sample that is not zero."""
    return [(index, value) for index, value in enumerate(words) if value]


def scan_peaks(words, n_scans, n_peaks):
    """Return (scan, index, intensity) of every peak, scan by scan."""
    counts = [words[scan + 1] // 2 for scan in range(n_scans - 1)]
    counts.append(n_peaks - sum(counts))
    pairs = iter(words[n_scans:])
    peaks = []
    for scan, count in enumerate(counts):
        index = -1
        for _ in range(count):
            index += next(pairs)
            peaks.append((scan, index, next(pairs)))
    return peaks


def packed_points(batch):
    """Return for every spectrum of a packed batch its frame and its {index: intensity}."""
    packed = batch.packed
    spectra = [(None, {}) for _ in batch.rows]
    for frame, begin in enumerate(packed.begin):
        n_peaks = int(packed.n_peaks[frame])
        owner = packed.owner[packed.scan_at[frame] : packed.scan_at[frame + 1]].tolist()
        for spectrum in set(owner) - {-1}:
            spectra[spectrum] = (frame, {})
        if packed.content == "indices":
            index = batch.raw[begin : begin + 8 * n_peaks].view("<f8")
            intensity = batch.raw[begin + 8 * n_peaks :][: 4 * n_peaks].view("<f4")
            spectra[owner[0]][1].update(zip(index.tolist(), intensity.tolist(), strict=True))
        elif packed.content == "samples":
            words = words_of(batch.raw[begin : begin + 4 * packed.n_samples])
            spectra[owner[0]][1].update(sample_points(words))
        else:
            size = 4 * (len(owner) + 2 * n_peaks)
            words = words_of(batch.raw[begin : begin + size])
            for scan, index, intensity in scan_peaks(words, len(owner), n_peaks):
                if owner[scan] >= 0:
                    sums = spectra[owner[scan]][1]
                    sums[index] = sums.get(index, 0) + intensity
    return [
        (frame, {index: sums[index] * (packed.scale[frame] if packed.content == "scans" else 1)
                 for index in sorted(sums)})
        for frame, sums in spectra
    ]  # fmt: skip
