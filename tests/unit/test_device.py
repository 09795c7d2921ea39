"""The CUDA backend's host side, on slots whose kernels are emulated: no claim about a device.

Held here: what is cut and put together again is what one piece gives, slots are handed
over and given back, and every refusal says device, batch and remedy.
"""

import re
import shutil
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import fields

import numpy as np
import pytest

from gpuconvert.backends import choose_backend, device, frame_launches, launches
from gpuconvert.backends.device import DeviceBackend
from gpuconvert.backends.host import HostBackend
from gpuconvert.errors import BackendError, SettingsError, SourceError
from gpuconvert.resampling import ResampleOptions
from tests.frames import N_SAMPLES, pack_frames
from tests.kernels.emulator import EmulatedQueue
from tests.strategies import make_axis, pack
from tests.unit.test_backends import peaks, random_block, step_of
from tests.unit.test_packed import DAMAGE, damaged

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++ here")
AXIS = make_axis("linear-tof", 700)
OPTIONS = ResampleOptions("pchip", spacing=step_of())


class Slot(EmulatedQueue):
    """A slot whose memory is counted: `empty` and `upload` refuse what is beyond `room`."""

    label = "device 0 (Emulated)"

    def __init__(self, room=2**40, *, refuse=0, fails_at=None):
        super().__init__()
        self.room = room
        self.refuse = refuse
        self.fails_at = fails_at
        self.points = []
        self.released = 0
        self.users = 0
        self.most_users = 0
        self.delay = 0.0
        self.launches_left = 10**9

    @contextmanager
    def running(self):
        self.users += 1
        self.most_users = max(self.users, self.most_users)
        time.sleep(self.delay)
        try:
            yield
        finally:
            self.users -= 1

    def release(self):
        self.released += 1

    def empty(self, name, n, dtype):
        if name == "owner":
            self.points.append(n)
        if name in {"indices", "key", "places"} and self.refuse:
            self.refuse -= 1
            raise MemoryError(f"{name} would take {n} bytes more")
        return super().empty(name, n, dtype)

    def launch(self, kernel, n_threads, *arguments):
        if kernel == self.fails_at:
            raise BackendError(f"kernel {kernel} could not be started on {self.label}: illegal")
        if self.launches_left <= 0:
            raise BackendError(f"{self.label} fell off the bus")
        self.launches_left -= 1
        super().launch(kernel, n_threads, *arguments)


def assert_equal(found, wanted):
    for item in fields(wanted):
        assert getattr(found, item.name).tolist() == getattr(wanted, item.name).tolist()


@needs_compiler
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("pieces", [1, 2, 3, 8])
def test_a_batch_beyond_the_memory_is_cut_and_put_together(pieces, shared):
    pairs = peaks(3, 8, 200, gaps=not shared)
    batch = pack(pairs, "<f8", "<f4", gaps=[3], shared=shared, rows=np.arange(8) * 5)
    slot = Slot(device._device_bytes(batch) // pieces + (1 if pieces < 8 else 30_000))
    backend = DeviceBackend(slots=[slot])
    assert_equal(
        backend.resample(batch, AXIS, OPTIONS), HostBackend().resample(batch, AXIS, OPTIONS)
    )
    assert sum(slot.points) == batch.n_points.sum()
    assert len(slot.points) >= min(pieces, 2)
    assert (len(slot.points) == 1) == (pieces == 1)


INDEX = np.arange(0, N_SAMPLES, 3)
FRAMES = {
    "indices": (INDEX, INDEX + 1),
    "samples": dict.fromkeys(INDEX.tolist(), 5),
    "scans": [(INDEX, INDEX + 1), (INDEX[::2], INDEX[::2]), ([], []), (INDEX[1::3], INDEX[1::3])],
}


def packed_frames(content):
    """Eight frames, those of scans of two spectra each, and some spectra without a frame."""
    frames = [FRAMES[content]] * 8
    owners = [[3 * k + scan % 2 for scan in range(4)] for k in range(8)]
    return pack_frames(content, frames, owners if content == "scans" else None, 24)


@needs_compiler
@pytest.mark.parametrize("content", FRAMES)
@pytest.mark.parametrize("pieces", [1, 2, 3, 8])
def test_packed_spectra_beyond_the_memory_are_cut_and_put_together(pieces, content):
    batch = packed_frames(content)
    slot = Slot(device._device_bytes(batch) // pieces + (1 if pieces < 8 else 30_000))
    found = DeviceBackend(slots=[slot]).resample(batch, AXIS, OPTIONS)
    assert_equal(found, HostBackend().resample(batch, AXIS, OPTIONS))
    assert (len(slot.points) == 1) == (pieces == 1)


@needs_compiler
def test_packed_spectra_are_cut_where_their_keys_have_too_many_bits(monkeypatch):
    batch = packed_frames("scans")
    bits = frame_launches.key_bits(batch)
    # 700 samples, 8 x 468 peaks, 24 spectra and what is of none.
    assert bits == 10 + 12 + 5
    assert frame_launches.key_bits(packed_frames("samples")) == 0
    monkeypatch.setattr(frame_launches, "KEY_BITS", bits - 1)
    slot = Slot()
    found = DeviceBackend(slots=[slot]).resample(batch, AXIS, OPTIONS)
    assert_equal(found, HostBackend().resample(batch, AXIS, OPTIONS))
    assert len(slot.points) == 2


class Counting(Slot):
    """A slot that keeps the most bytes asked for by each name."""

    def __init__(self):
        super().__init__()
        self.held = {}

    def kept(self, name, values):
        self.held[name] = max(self.held.get(name, 0), values.nbytes)
        return values

    def empty(self, name, n, dtype):
        return self.kept(name, super().empty(name, n, dtype))

    def upload(self, name, values):
        return self.kept(name, super().upload(name, values))

    def sort(self, values):
        super().sort(self.kept("sort", values))


# What does not grow with the batch: the problem, the models, ends of arrays.
FIXED = 2000


@needs_compiler
@pytest.mark.parametrize("content", [None, *FRAMES])
def test_a_batch_takes_no_more_device_memory_than_was_said(content):
    batch = packed_frames(content) if content else pack(peaks(3, 8, 300))
    slot = Counting()
    block = DeviceBackend(slots=[slot]).resample(batch, AXIS, OPTIONS)
    total = sum(slot.held.values()) - block.indices.nbytes - block.data.nbytes
    # Twice as much is asked for, as a device's arrays grow by powers of two.
    said = device._device_bytes(batch) / 2
    assert 0.7 * said < total < said + FIXED


@needs_compiler
def test_damage_on_a_device_is_told_in_the_sentence_of_the_processor():
    for kind in DAMAGE:
        batch = damaged(*kind[:3])
        with pytest.raises(SourceError) as told:
            HostBackend().resample(batch, AXIS, OPTIONS)
        slot = Slot()
        with pytest.raises(SourceError, match=f"^{re.escape(str(told.value))}$"):
            DeviceBackend(slots=[slot]).resample(batch, AXIS, OPTIONS)
        assert slot.users == 0


@needs_compiler
def test_what_runs_out_of_memory_is_tried_once_more_in_halves():
    batch = pack(peaks(5, 6, 300))
    slot = Slot(refuse=1)
    found = DeviceBackend(slots=[slot]).resample(batch, AXIS, OPTIONS)
    assert_equal(found, HostBackend().resample(batch, AXIS, OPTIONS))
    assert slot.released == 1
    assert len(slot.points) == 3
    assert slot.points[0] == slot.points[1] + slot.points[2]


@needs_compiler
def test_what_runs_out_of_memory_twice_is_named():
    batch = pack(peaks(5, 6, 300), rows=np.arange(40, 46))
    slot = Slot(refuse=2)
    match = (
        r"device 0 \(Emulated\) has too little memory for rows 40 to 45 \(\d+ points\), even in "
        r"two halves: indices would take \d+ bytes more; free memory on it, or choose another "
        r"one with --devices"
    )
    with pytest.raises(BackendError, match=match):
        DeviceBackend(slots=[slot]).resample(batch, AXIS, OPTIONS)
    assert slot.users == 0


def test_a_spectrum_beyond_the_memory_is_named():
    batch = pack(peaks(5, 1, 300), rows=np.array([12]))
    match = r"too little memory for row 12 \(\d+ points\): 1000 bytes may be used; free memory"
    with pytest.raises(BackendError, match=match):
        DeviceBackend(slots=[Slot(1000)]).resample(batch, AXIS, OPTIONS)


@needs_compiler
def test_an_error_of_a_kernel_says_which_and_of_which_batch():
    batch = pack(peaks(5, 3, 300), rows=np.array([4, 5, 9]))
    slot = Slot(fails_at="emit_cells")
    match = r"rows 4 to 9 \(\d+ points\): kernel emit_cells could not be started on device 0"
    backend = DeviceBackend(slots=[slot])
    with pytest.raises(BackendError, match=match):
        backend.resample(batch, AXIS, OPTIONS)
    slot.fails_at = None
    assert len(backend.resample(batch, AXIS, OPTIONS).data)


@needs_compiler
def test_a_slot_serves_one_thread_at_a_time_and_all_slots_serve():
    slots = [Slot(), Slot()]
    for slot in slots:
        slot.delay = 0.01
    backend = DeviceBackend(slots=slots)
    batches = [pack(peaks(seed, 2, 100)) for seed in range(8)]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda batch: backend.resample(batch, AXIS, OPTIONS), batches))
    for block, batch in zip(found, batches, strict=True):
        assert_equal(block, HostBackend().resample(batch, AXIS, OPTIONS))
    assert [slot.most_users for slot in slots] == [1, 1]
    assert all(slot.points for slot in slots)
    assert sum(len(slot.points) for slot in slots) == 8


@needs_compiler
def test_one_thread_works_with_one_slot_and_two_with_two_devices():
    slots = [Slot(), Slot(), Slot()]
    backend = DeviceBackend(slots=slots)
    batch = pack(peaks(1, 2, 100))
    for _ in range(3):
        backend.resample(batch, AXIS, OPTIONS)
    assert [len(slot.points) for slot in slots] == [3, 0, 0]
    with backend._slot() as first:
        backend.resample(batch, AXIS, OPTIONS)
    assert first is slots[0]
    assert [len(slot.points) for slot in slots] == [3, 1, 0]


@needs_compiler
def test_who_finds_no_slot_waits_for_one():
    slot = Slot()
    backend = DeviceBackend(slots=[slot])
    batch = pack(peaks(1, 2, 100))
    with backend._slot():
        thread = threading.Thread(target=backend.resample, args=(batch, AXIS, OPTIONS))
        thread.start()
        time.sleep(0.05)
        assert slot.points == []
    thread.join()
    assert len(slot.points) == 1


@needs_compiler
@pytest.mark.parametrize("values", [1, 7, 60, 10**6])
def test_a_block_beyond_the_memory_is_sorted_by_ranges_of_bins(values):
    block = random_block(4, 30, 50, 20)
    slot = Slot(2 * (launches.SORT_BYTES * values + launches.BIN_BYTES * 50))
    found = DeviceBackend(slots=[slot]).by_bin(block, 50)
    assert_equal(found, HostBackend().by_bin(block, 50))
    dtypes = (found.bins.dtype, found.indptr.dtype, found.rows.dtype, found.data.dtype)
    assert dtypes == (np.int32, np.int64, np.int32, np.float32)
    assert (slot.launched > 3) == (values < len(block.data))


@needs_compiler
def test_a_sort_that_runs_out_of_memory_is_tried_once_more_and_then_named():
    block = random_block(4, 30, 50, 20)
    slot = Slot(refuse=1)
    assert_equal(DeviceBackend(slots=[slot]).by_bin(block, 50), HostBackend().by_bin(block, 50))
    assert slot.released == 1
    match = r"too little memory to sort \d+ values in 2 pieces: key would take"
    with pytest.raises(BackendError, match=match):
        DeviceBackend(slots=[Slot(refuse=9)]).by_bin(block, 50)


def profiles(lengths, seed=2):
    """Profiles with runs of zeros: bounds, float32 counts, and numbers of rows."""
    random = np.random.default_rng(seed)
    counts = random.integers(0, 3, sum(lengths)) // 2
    return np.cumsum([0, *lengths]), counts.astype(np.float32), 3 * np.arange(len(lengths)) + 40


LENGTHS = (0, 300, 1, 7, 500, 0, 0, 80, 31, 0)


@needs_compiler
@pytest.mark.parametrize("points", [919, 600, 510])
def test_profiles_beyond_the_memory_are_cut_and_put_together(points):
    given = profiles(LENGTHS)
    slot = Slot(2 * (launches.ZERO_POINT_BYTES * points + launches.SPECTRUM_BYTES * len(LENGTHS)))
    found = DeviceBackend(slots=[slot]).strip_zeros(*given)
    wanted = HostBackend().strip_zeros(*given)
    for column, expected in zip(found, wanted, strict=True):
        assert column.dtype == expected.dtype
        assert column.tolist() == expected.tolist()
    assert (slot.launched == 4) == (points == 919)


@needs_compiler
def test_profiles_that_run_out_of_memory_are_tried_in_halves_and_then_named():
    given = profiles(LENGTHS)
    slot = Slot(refuse=1)
    found = DeviceBackend(slots=[slot]).strip_zeros(*given)
    assert found.places.tolist() == HostBackend().strip_zeros(*given).places.tolist()
    assert slot.released == 1
    match = (
        r"device 0 \(Emulated\) has too little memory for rows 40 to 67 \(919 points\), even in "
        r"two halves: places would take \d+ bytes more; free memory on it, or choose"
    )
    with pytest.raises(BackendError, match=match):
        DeviceBackend(slots=[Slot(refuse=2)]).strip_zeros(*given)
    match = r"too little memory for row 43 \(300 points\): 9000 bytes may be used; free memory"
    with pytest.raises(BackendError, match=match):
        DeviceBackend(slots=[Slot(room=9000)]).strip_zeros(*given)
    match = r"rows 40 to 67 \(919 points\): kernel count_zero_runs could not be started"
    with pytest.raises(BackendError, match=match):
        DeviceBackend(slots=[Slot(fails_at="count_zero_runs")]).strip_zeros(*given)


def test_memory_grows_with_points_and_values():
    backend = DeviceBackend(slots=[])
    small, large = backend.peak_bytes(10, 1, 10, 10), backend.peak_bytes(1000, 1, 10, 1000)
    each = launches.POINT_BYTES + frame_launches.MOST_POINT_BYTES
    assert large.device - small.device == 2 * 990 * each
    more = backend.peak_bytes(10, 1, 1010, 10)
    assert more.host - small.host == 1000 * device.HOST_NONZERO_BYTES
    assert len(backend.buffer(17)) == 17


def missing_cupy(name):
    assert name == "cupy"


def without_driver():
    raise OSError("libcuda.so.1: cannot open shared object file")


CUPY = "CuPy is not installed; pip install 'gpuconvert[cuda13]', or [cuda12] for drivers before 580"
DRIVER = "no NVIDIA driver is loaded; install one, nvidia-smi then lists the devices"


@pytest.mark.parametrize(
    ("find_spec", "load_driver", "words"),
    [(missing_cupy, without_driver, CUPY), (lambda name: name, without_driver, DRIVER)],
)
def test_what_is_missing_is_said_and_auto_takes_the_next(
    monkeypatch, find_spec, load_driver, words
):
    monkeypatch.setattr("importlib.util.find_spec", find_spec)
    monkeypatch.setattr(device, "_load_driver", load_driver)
    backend, line = choose_backend("auto")
    assert backend.name == "cpu"
    assert line == f"backend cpu (cuda: {words})"
    with pytest.raises(BackendError, match=re.escape(f"backend cuda cannot be used here: {words}")):
        choose_backend("cuda")
    assert "cupy" not in sys.modules


def test_a_cupy_that_cannot_be_loaded_is_said(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr(device, "_load_driver", lambda: None)
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(BackendError, match="CuPy cannot be loaded: import of cupy halted"):
        device.describe()


def test_devices_are_refused_where_there_are_none():
    with pytest.raises(SettingsError, match="--devices names CUDA devices, but backend cpu uses"):
        choose_backend("cpu", (0,))


def test_devices_never_fall_back(monkeypatch):
    def missing():
        raise BackendError("no NVIDIA driver is loaded")

    monkeypatch.setattr(device, "_library", missing)
    with pytest.raises(BackendError, match="backend cuda cannot be used here: no NVIDIA driver"):
        choose_backend("auto", (0, 1))
