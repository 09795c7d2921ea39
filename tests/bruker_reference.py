"""The m/z of a Bruker index in scalar Python, the equation of flight solved by bisection.

Slow and obvious; held against what the vendor's software wrote into real files, in
`unit/test_bruker_calibration.py`.
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
