import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuconvert.errors import BudgetError, PlanError
from gpuconvert.mass_axis import of_law
from gpuconvert.plan import (
    MIB,
    Demand,
    Layout,
    Partition,
    Plan,
    Plane,
    Projection,
    cut_partitions,
    fit_layout,
    read_plan,
    write_plan,
)
from gpuconvert.planning import _fit
from gpuconvert.resampling import ResampleOptions
from gpuconvert.settings import Settings


def _plan(**changes):
    values = {
        "source": "/data/tissue.imzML",
        "output": "/data/tissue.zarr",
        "identity": {"files": [["imzML", 10, "ab"]], "uuid": "", "checksum": ["", ""]},
        "settings": Settings(),
        "axis": of_law("orbitrap", 100, 1000, du=1e-6),
        "options": {
            "profile": ResampleOptions("pchip"),
            "centroid": ResampleOptions("nearest"),
        },
        "representation": "profile",
        "decision": {"law": "orbitrap"},
        "planes": (Plane(0, 0, 7), Plane(2, 7, 9)),
        "partitions": (Partition(0, 4, 0), Partition(4, 7, 0), Partition(7, 9, 1)),
        "layout": Layout(8, 100, 200, 2),
        "projection": Projection(1, 2, 3),
        "merge": False,
    }
    return Plan(**(values | changes))


def test_a_plan_comes_back_from_disk_as_it_was(tmp_path):
    plan = _plan()
    assert write_plan(plan, tmp_path) == tmp_path / "plan.json"
    assert read_plan(tmp_path) == plan
    assert read_plan(tmp_path / "plan.json") == plan
    assert [file.name for file in tmp_path.iterdir()] == ["plan.json"]


def test_where_the_work_is_done_is_not_part_of_the_fingerprint():
    elsewhere = _plan(
        source="/mnt/tissue.imzML", output="/mnt/out.zarr",
        settings=Settings(workers=7, backend="numpy", memory=2**33),
    )  # fmt: skip
    assert elsewhere.fingerprint == _plan().fingerprint


@pytest.mark.parametrize(
    "changes",
    [
        {"identity": {"files": [["imzML", 11, "ab"]], "uuid": "", "checksum": ["", ""]}},
        {"settings": Settings(threshold=1.0)},
        {"axis": of_law("orbitrap", 100, 1000, du=1.1e-6)},
        {"representation": "centroid"},
        {"options": {"profile": ResampleOptions("linear"), "centroid": ResampleOptions("nearest")}},
    ],
)
def test_what_decides_the_numbers_is_part_of_the_fingerprint(changes):
    assert _plan(**changes).fingerprint != _plan().fingerprint


def test_parts_of_other_rows_have_other_fingerprints():
    marks = {_plan().part_fingerprint(index) for index in range(3)}
    assert len(marks) == 3


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda value: value | {"format": 99}, "plan.json has format 99, this gpuconvert reads 1"),
        (lambda value: value | {"representation": "centroid"}, "changed after it was written"),
        (lambda value: {k: v for k, v in value.items() if k != "axis"}, "no usable entry 'axis'"),
        (lambda value: [value], "is not a plan"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(tmp_path, edit, words):
    path = write_plan(_plan(), tmp_path)
    path.write_text(json.dumps(edit(json.loads(path.read_text()))))
    with pytest.raises(PlanError, match=words):
        read_plan(path)


def test_a_missing_or_broken_plan_says_what_to_run(tmp_path):
    with pytest.raises(PlanError, match="run 'gpuconvert plan INPUT OUTPUT' first"):
        read_plan(tmp_path)
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(PlanError, match="is not JSON"):
        read_plan(tmp_path)


@settings(max_examples=100)
@given(
    sizes=st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=12), min_size=1, max_size=4),
    limit=st.integers(1, 120),
    pixels=st.randoms(use_true_random=False),
)
def test_partitions_tile_the_planes_within_the_limit(sizes, limit, pixels):
    flat = np.array([n for plane in sizes for n in plane], "i8")
    ends = np.cumsum([len(plane) for plane in sizes])
    planes = tuple(
        Plane(z, int(end - len(plane)), int(end)) for z, (plane, end) in enumerate(zip(sizes, ends))
    )
    first = np.array([pixels.random() < 0.6 for _ in flat])
    first[[plane.first for plane in planes]] = True
    for together in (None, first):
        parts = cut_partitions(planes, flat, limit, together)
        assert parts[0].first == 0
        assert parts[-1].last == len(flat)
        for before, after in zip(parts, parts[1:]):
            assert before.last == after.first
        for part in parts:
            plane = planes[part.plane]
            assert plane.first <= part.first < part.last <= plane.last
            if together is None:
                assert part.last - part.first == 1 or flat[part.first : part.last].sum() <= limit
            else:
                assert together[part.first]


def _demand(**changes):
    values = {
        "n_spectra": 65_536, "n_bins": 460_000, "most_rows": 65_536, "slot_bytes": 8 * MIB,
        "batch_bytes": 32 * MIB, "largest_nonzeros": 500, "total_nonzeros": 32_768_000,
        "chunk": 2**18,
    }  # fmt: skip
    return Demand(**(values | changes))


def test_the_projection_stays_within_the_budget():
    for budget in (800 * MIB, 1500 * MIB, 4096 * MIB):
        layout, projection = fit_layout(_demand(), workers=2, budget=budget)
        assert projection.memory <= budget
        assert layout.unit_nonzeros % _demand().shard == 0
        assert layout.part_nonzeros >= 500


def test_fewer_workers_come_before_a_refusal():
    layout, _ = fit_layout(_demand(), workers=8, budget=600 * MIB)
    assert 1 <= layout.workers < 8


def test_large_data_get_larger_parts_before_more():
    small, _ = fit_layout(_demand(), workers=1, budget=4096 * MIB)
    large, _ = fit_layout(_demand(total_nonzeros=10**10), workers=1, budget=4096 * MIB)
    assert large.part_nonzeros > small.part_nonzeros
    assert large.unit_nonzeros > small.unit_nonzeros


def test_too_little_memory_is_refused_with_what_would_do():
    with pytest.raises(BudgetError, match=r"--memory 100 MiB is too little: 65536 spectra") as told:
        fit_layout(_demand(), workers=2, budget=100 * MIB)
    needed = int(str(told.value).split("at least ")[1].split(" ")[0])
    fit_layout(_demand(), workers=2, budget=needed * MIB)


def larger_buffers(budget, preferred=64 * MIB, bytes_per_value=12.0, least_part=0, workers=4):
    """The layout of a backend that prefers larger batches, and that of one that does not."""

    def demand(slot):
        return _demand(slot_bytes=slot, batch_bytes=4 * slot, total_nonzeros=10**10)

    words = {"workers": workers, "budget": budget, "least_part": least_part}
    layout, projection = _fit(demand, preferred, bytes_per_value, **words)
    assert projection.memory <= budget
    return layout, _fit(demand, 0, bytes_per_value, **words)[0]


def test_a_backend_gets_larger_buffers_where_there_is_memory():
    larger, least = larger_buffers(64 << 30)
    assert (least.slot_bytes, larger.slot_bytes) == (8 * MIB, 64 * MIB)
    assert replace(larger, slot_bytes=least.slot_bytes) == least


def test_larger_buffers_take_neither_workers_nor_much_of_the_parts():
    sizes = set()
    for budget in (1000, 1500, 3000, 7000):
        larger, least = larger_buffers(budget * MIB)
        assert larger.workers == least.workers
        assert larger.part_nonzeros >= 0.75 * least.part_nonzeros
        sizes.add(larger.slot_bytes // MIB)
    assert sizes == {8, 16, 32, 64}


def test_buffers_are_no_larger_than_a_part_nor_parts_smaller_than_those_there_are():
    larger, least = larger_buffers(64 << 30, bytes_per_value=0.5)
    part = least.part_nonzeros * 0.5
    assert larger.slot_bytes // 2 < part <= larger.slot_bytes < 64 * MIB
    larger, least = larger_buffers(7000 * MIB)
    assert larger.part_nonzeros < least.part_nonzeros
    same, least = larger_buffers(7000 * MIB, least_part=least.part_nonzeros)
    assert 8 * MIB < same.slot_bytes < larger.slot_bytes
    assert same.part_nonzeros == least.part_nonzeros
    assert larger_buffers(64 << 30, bytes_per_value=0.0)[0].slot_bytes == 8 * MIB


def test_fewer_workers_come_before_parts_that_do_not_fit_those_there_are():
    def continued(least_part):
        def demand(slot):
            held = {"backend_bytes": 700 * MIB, "total_nonzeros": 10**10}
            return _demand(slot_bytes=slot, **held)

        words = {"workers": 4, "budget": 2000 * MIB, "least_part": least_part}
        return _fit(demand, 0, 12.0, **words)[0]

    before, _ = fit_layout(_demand(total_nonzeros=10**10), workers=4, budget=2000 * MIB)
    other, same = continued(0), continued(before.part_nonzeros)
    assert other.part_nonzeros < before.part_nonzeros <= same.part_nonzeros
    assert other.workers == 4 > same.workers
    # Where that is beyond all memory the parts are made anew.
    assert continued(10**9) == other


def test_what_a_backend_holds_is_part_of_the_projection():
    budget = 4096 * MIB
    without = fit_layout(_demand(), workers=2, budget=budget)[1].memory
    held = fit_layout(_demand(backend_bytes=300 * MIB), workers=2, budget=budget)[1].memory
    assert held - without == 300 * MIB
