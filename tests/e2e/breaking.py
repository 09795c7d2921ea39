"""Breaks a conversion off at every place where it touches the disk, and carries it on.

Run as a program of its own:
``python -m tests.e2e.breaking FOLDER KIND LAYOUT VERBS HOW WHICH``.
It converts a small source in children of one process that has everything loaded. In a
child, Python's audit hook sees every file that is opened for writing, made, renamed or
removed; the child is ended, or told that the disk is full, at the n-th of them. A second
child gives the same command again. What each left is compared with a run that was not
disturbed; a line of JSON on stdout says what was found.

KIND : of the source: imzml, tsf, tdf (with a table of mobility as well), or mzpeak
LAYOUT : csc or csr; point or chunk of an export
VERBS : "run", "verbs" for plan, convert and assemble one by one, or "export" to an mzPeak,
    which does not continue but leaves nothing unless it was killed, and starts anew
HOW : "kill", "torn" (killed, and the last file lost its second half), "full" (ENOSPC from
    there on), "fault" (EIO, once), "time" (killed from outside after a random time)
WHICH : number of places that are tried, evenly spread, or "all"
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import re
import signal
import sys
import time
import traceback
from pathlib import Path

import numpy as np

from gpuconvert import (
    conversion,
    exporting,
    mzpeak_archive,
    mzpeak_members,
    pipeline,
    plan,
    planning,
)
from gpuconvert.errors import GpuconvertError
from gpuconvert.settings import Settings
from tests.bruker_writer import Frame, write_tdf, write_tsf
from tests.e2e.data import pixels, store_bytes, write_centroid, write_profile

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate"}
KILLED, TOLD, BROKEN = 9, 71, 70
"""How a child ends: at the place, with an error in words, with anything else."""


REMOVALS = {"os.remove", "os.rmdir"}


def install(folder, act):
    """Call `act(count, path, event)` before every change of a file below `folder`.

    A piece of an archive that is being written is a change as well.
    """
    count = 0
    write = mzpeak_archive._Hashed.write

    def watched(stream, data):
        nonlocal count
        count += 1
        act(count, str(folder / "output.partial/store"), "write")
        return write(stream, data)

    mzpeak_archive._Hashed.write = watched

    def hook(event, arguments):
        nonlocal count
        if event not in EVENTS:
            return
        path = arguments[0]
        if isinstance(path, int):
            return
        name = os.fsdecode(path)
        # Below an open folder, as rmtree goes, names are relative.
        if name.startswith("/") and not name.startswith(str(folder)):
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & WRITES):
            return
        count += 1
        act(count, name, event)

    sys.addaudithook(hook)


def breaker(how, at):
    """Return what is done at the n-th change."""
    last = ""

    def act(count, name, event):
        nonlocal last
        takes = event not in REMOVALS and not name.endswith("status.json.tmp")
        if how == "full" and count >= at and takes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
        if how == "fault" and count == at:
            raise OSError(errno.EIO, os.strerror(errno.EIO), name)
        if how in ("kill", "torn") and count == at:
            if how == "torn" and Path(last).is_file():
                os.truncate(last, Path(last).stat().st_size // 2)
            os._exit(KILLED)
        last = name

    return act


def frames():
    """13 frames of 40 peaks each, over two regions."""
    rng = np.random.default_rng(3)
    ions = np.sort(rng.choice(3000, 60, replace=False))
    made = []
    for number, (x, y) in enumerate(pixels()):
        index = np.sort(rng.choice(ions, 40, replace=False))
        counts = rng.integers(1, 900, 40)
        halves = [(index[:25], counts[:25]), (index[25:], counts[25:])]
        made.append(Frame(x, y, region=number // 8, line=(index + 0.5, counts), scans=halves))
    return made


def write_source(kind, folder, verbs):
    """Write the source; return its path."""
    if kind in ("tsf", "tdf"):
        write = write_tsf if kind == "tsf" else write_tdf
        return write(folder, frames(), n_samples=4000)
    source = write_profile(folder) if verbs == "export" else write_centroid(folder)
    if kind == "imzml":
        return source
    archive = folder / "source.mzpeak"
    exporting.run(source, archive, Settings())
    return archive


def chosen(source, layout):
    """Return the settings of a conversion."""
    mobility = 3 if (source / "analysis.tdf").exists() else None
    return Settings(
        layout=layout, workers=1, bins=2000, chunk_size=1024, axis="constant", memory=512 << 20,
        mobility_bins=mobility,
    )  # fmt: skip


def convert(source, output, layout, verbs):
    """Give the command."""
    if verbs == "export":
        exporting.run(source, output, Settings(mzpeak_layout=layout))
        return
    settings = chosen(source, layout)
    if verbs == "run":
        conversion.run(source, output, settings)
        return
    path, made = conversion.make(source, output, settings)
    for index in range(len(made.partitions)):
        conversion.convert_part(path, index)
    conversion.assemble(path)


def content(output):
    """Digests of what was made."""
    if output.is_file():
        return {"": hashlib.sha256(output.read_bytes()).hexdigest()}
    return store_bytes(output)


def in_child(work):
    """Run `work` in a child; return its process and the file of what it wrote to stderr."""
    process = os.fork()
    if process:
        return process
    code = BROKEN
    try:
        work()
        code = 0
    except GpuconvertError as error:
        sys.stderr.write(f"{error}\n")
        code = TOLD
    except BaseException:  # noqa: BLE001 - the child must not go on as its parent
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)
    return 0


def ended(process):
    """Wait for a child; return its exit code, negative where a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


class Trial:
    """One source, and the store that an undisturbed run makes of it."""

    def __init__(self, folder, kind, layout, verbs):
        self.folder, self.layout, self.verbs = folder, layout, verbs
        self.kind = kind
        self.source = write_source(kind, folder, verbs)
        self.output = folder / "output"
        self.count = folder / "count"
        # Loads the kernels, once for all children.
        self.command(folder / "whole")
        self.expected = content(folder / "whole")
        self.problems = []
        self.parts = 0
        if verbs != "export":
            made = conversion.make(self.source, folder / "parts", chosen(self.source, layout))[1]
            self.parts = len(made.partitions)

    def command(self, output):
        convert(self.source, output, self.layout, self.verbs)

    def counted(self):
        """Return how many changes an undisturbed run makes."""

        def work():
            last = [0]
            install(self.folder, lambda count, *_: last.__setitem__(0, count))
            self.command(self.output)
            total = last[0]
            self.count.write_text(str(total))

        if ended(in_child(work)):
            raise SystemExit("the undisturbed run failed")
        self.clear()
        return int(self.count.read_text())

    def clear(self):
        """Remove the output and what lies beside it, as a user would."""
        os.system(f"rm -rf '{self.output}' '{self.output}.partial'")

    def finished(self):
        """Return how many parts are finished and can be used."""
        work = Path(f"{self.output}.partial")
        if not (work / "plan.json").is_file():
            return 0
        return len([p for p in work.glob("parts/*") if re.fullmatch(r"\d{5}", p.name)])

    def expect(self, place, condition, words):
        if not condition:
            where = f"{self.kind} {self.layout} {self.verbs}"
            self.problems.append(f"{where} at {place}: {words}")

    def disturb(self, how, at):
        """Break the command off once, then give it again."""

        def broken():
            install(self.folder, breaker(how, at))
            self.command(self.output)

        said = self.folder / "said"
        with said.open("w") as stream:
            kept = os.dup(2)
            os.dup2(stream.fileno(), 2)
            process = in_child((lambda: self.command(self.output)) if how == "time" else broken)
            if how == "time":
                time.sleep(at)
                os.kill(process, signal.SIGKILL)
            code = ended(process)
            os.dup2(kept, 2)
            os.close(kept)
        words = said.read_text()
        self.expect(at, code != BROKEN, f"broke with {words}")
        if code == TOLD:
            self.expect(at, words.count("\n") == 1, f"more than a line: {words}")
            remedy = "run the same command again" in words or "give" in words or "free" in words
            self.expect(at, remedy, f"no remedy: {words}")
        if self.output.exists():
            self.expect(at, content(self.output) == self.expected, "half of it at OUTPUT")
            self.clear()
            return
        if self.verbs == "export" and code == TOLD:
            left = Path(f"{self.output}.partial").exists()
            self.expect(at, not left, "an export that failed left something")
        self.again(at)

    def again(self, at):
        """Give the command again; it must do what is missing, no more, and give the same bytes."""
        before = self.finished()

        def work():
            written = []
            write = pipeline.write_part

            def noted(*arguments, **options):
                written.append(1)
                write(*arguments, **options)

            pipeline.write_part = noted
            self.command(self.output)
            self.count.write_text(str(len(written)))

        code = ended(in_child(work))
        self.expect(at, code == 0, f"the same command ends with {code}")
        if code == 0:
            same = content(self.output) == self.expected
            self.expect(at, same, "the resumed store has other bytes")
            missing = self.parts - before
            done = int(self.count.read_text())
            self.expect(at, done == missing, f"{done} parts made where {missing} were missing")
            left = Path(f"{self.output}.partial").exists()
            self.expect(at, not left, "the work folder is left")
        self.clear()


def main():
    folder, kind, layout, verbs, how, which = sys.argv[1:]
    plan.MOST_PARTS = 10**9
    # 13 spectra of 40 points: four to a part.
    plan.PART_NONZEROS = 160
    planning.SLOT_BYTES = 2000
    mzpeak_members.GROUP_POINTS = 200
    trial = Trial(Path(folder), kind, layout, verbs)
    total = trial.counted()
    wanted = total if which == "all" else int(which)
    if how == "time":
        begun = time.perf_counter()
        ended(in_child(lambda: trial.command(trial.output)))
        longest = time.perf_counter() - begun
        trial.clear()
        rng = random.Random(7)
        places = [rng.uniform(0, 1.1 * longest) for _ in range(wanted)]
    else:
        places = sorted({1 + at * (total - 1) // max(1, wanted - 1) for at in range(wanted)})
    for at in places:
        trial.disturb(how, at)
    found = {"changes": total, "tried": len(places), "problems": trial.problems}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
