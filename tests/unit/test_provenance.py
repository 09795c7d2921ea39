"""Versions, canonical JSON and fingerprints."""

import hashlib
import json
import platform
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

import gpuconvert
from gpuconvert.errors import PlanError
from gpuconvert.provenance import canonical_json, fingerprint, now_utc, software

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=12,
)


def shuffled(value):
    """Return an equal value whose dicts list their keys the other way round."""
    if isinstance(value, dict):
        return {key: shuffled(value[key]) for key in reversed(value)}
    return [shuffled(entry) for entry in value] if isinstance(value, list) else value


def test_canonical_json_sorts_keys_and_spends_no_spaces():
    value = {"b": [1, 2.5, None], "a": {"z": True, "é": "x y"}}
    assert canonical_json(value) == '{"a":{"z":true,"\\u00e9":"x y"},"b":[1,2.5,null]}'


def test_floats_are_written_as_their_shortest_exact_text():
    assert canonical_json([0.1, 1e-300, 1.0, 123456789.123456789]) == (
        "[0.1,1e-300,1.0,123456789.12345679]"
    )


@given(value=VALUES)
def test_canonical_json_reads_back_as_the_same_value(value):
    assert json.loads(canonical_json(value)) == value


@given(value=VALUES)
def test_the_order_of_keys_does_not_change_a_fingerprint(value):
    assert fingerprint(shuffled(value)) == fingerprint(value)


def test_numpy_values_and_tuples_count_as_what_they_hold():
    value = {"a": np.float64(0.5), "b": np.int32(3), "c": (1, 2), "d": np.array([1.5, 2.0])}
    assert canonical_json(value) == '{"a":0.5,"b":3,"c":[1,2],"d":[1.5,2.0]}'


def test_a_fingerprint_is_the_sha256_of_the_text():
    assert fingerprint({"a": 1}) == hashlib.sha256(b'{"a":1}').hexdigest()


def test_different_values_have_different_fingerprints():
    values = [1, 1.5, "1", None, [1], {"1": 1}, True, [], {}]
    assert len({fingerprint(value) for value in values}) == len(values)


def test_what_json_cannot_say_is_refused():
    with pytest.raises(PlanError, match=r"canonical JSON \(Out of range float values"):
        canonical_json({"a": float("nan")})
    with pytest.raises(PlanError, match=r"type set has no JSON form\); use finite numbers"):
        canonical_json({"a": {1, 2}})


def test_software_states_the_versions_in_use():
    assert software() == {
        "gpuconvert": gpuconvert.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "zarr": zarr.__version__,
    }


def test_provenance_imports_no_heavy_library():
    code = (
        "import sys, gpuconvert.provenance as p; p.software();"
        "print(sorted({'zarr', 'pandas', 'numba', 'spatialdata'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_now_is_an_iso_time_in_utc():
    moment = datetime.fromisoformat(now_utc())
    assert moment.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - moment) < timedelta(seconds=60)
