"""The command line: verbs of a job, results to stdout, everything else to stderr.

Exit codes: 0 done, 1 failed, 2 usage, 3 input refused, 75 stopped and resumable.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpuconvert.allocator import keep_freed_memory, keep_what_is_loaded
from gpuconvert.errors import (
    GpuconvertError,
    OutputError,
    SettingsError,
    Stopped,
    StoreError,
)
from gpuconvert.options import takes_settings
from gpuconvert.settings import Settings, wants_mzpeak
from gpuconvert.version import __version__

if TYPE_CHECKING:
    from gpuconvert import (
        console,
        conversion,
        demo,
        devices,
        exporting,
        inspection,
        journal,
        report,
        stages,
        status,
    )
    from gpuconvert import verification as verifying
    from gpuconvert.summary import Summary
else:

    def _when_used(name: str) -> ModuleType:
        """Return a module that is loaded when it is first used: help and usage stay quick."""
        if name in sys.modules:
            return sys.modules[name]
        spec = importlib.util.find_spec(name)
        spec.loader = importlib.util.LazyLoader(spec.loader)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module

    console = _when_used("gpuconvert.console")
    conversion = _when_used("gpuconvert.conversion")
    demo = _when_used("gpuconvert.demo")
    devices = _when_used("gpuconvert.devices")
    exporting = _when_used("gpuconvert.exporting")
    inspection = _when_used("gpuconvert.inspection")
    journal = _when_used("gpuconvert.journal")
    report = _when_used("gpuconvert.report")
    stages = _when_used("gpuconvert.stages")
    status = _when_used("gpuconvert.status")
    verifying = _when_used("gpuconvert.verification")

app = typer.Typer(
    name="gpuconvert",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Convert raw mass spectrometry imaging data into one SpatialData store.\n\n"
    "Exit codes: 0 done, 1 failed, 2 usage, 3 input refused, 75 stopped and resumable "
    "by the same command.",
)

Input = Annotated[
    Path, typer.Argument(metavar="INPUT", help="The source: .imzML, a Bruker .d folder, .mzpeak.")
]
Output = Annotated[Path, typer.Argument(metavar="OUTPUT", help="The store to make, or .mzpeak.")]
PlanPath = Annotated[
    Path, typer.Argument(metavar="PLAN", help="plan.json, or the folder that holds it.")
]
Json = Annotated[bool, typer.Option("--json", help="Write the result as JSON.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace OUTPUT.")]
Report = Annotated[
    Path | None,
    typer.Option("--quality-report", metavar="FILE", help="Write figures to .json, .md or .txt."),
]
Trace = Annotated[
    Path | None,
    typer.Option("--trace", metavar="FILE", help="Write what ran when, for ui.perfetto.dev."),
]
LogFile = Annotated[
    Path | None,
    typer.Option("--log-file", metavar="FILE", help="Append a line of JSON for all that ends."),
]

GRACE = 4.0
"""Seconds after which a run that was asked to stop, and is not at a place where it looks,
ends where it stands. Everything on disk appears by rename, so nothing is lost by it."""

STOPPED = "stopped: run the same command again to continue\n"


def _end_now(_number: int = 0, _frame: FrameType | None = None) -> None:
    """End this process where it stands; also a handler of signals."""
    sys.stderr.write(STOPPED)
    sys.stderr.flush()
    os._exit(Stopped.exit_code)


@contextmanager
def _stoppable(log_file: Path | None = None) -> Iterator[stages.Monitor]:
    """Turn SIGINT and SIGTERM into a wish to stop; a second one ends at once."""
    with ExitStack() as stack:
        timer = threading.Timer(GRACE, _end_now)
        timer.daemon = True
        asked = threading.Event()

        def ask(_number: int, _frame: FrameType | None) -> None:
            if asked.is_set():
                _end_now()
            asked.set()
            timer.start()
            monitor.stop()

        log = None
        if log_file is not None:
            log = journal.Journal(log_file)
            stack.callback(log.close)
        _ = conversion.run  # loaded now, to be among what is kept
        listener = stack.enter_context(console.listening())
        monitor = stages.Monitor(listener, log)
        stack.callback(timer.cancel)
        for name in (signal.SIGINT, signal.SIGTERM):
            stack.callback(signal.signal, name, signal.signal(name, ask))
        keep_what_is_loaded()
        yield monitor


def _print_json(value: dict[str, Any]) -> None:
    # JSON escapes control characters itself.
    console.say(json.dumps(value, indent=2, default=str).splitlines())


def _show(summary: Summary, *, as_json: bool) -> None:
    if as_json:
        _print_json(summary.to_json())
        return
    console.warn(summary.warnings)
    console.say(console.summary_lines(summary))


def _write_quality(path: Path | None, summary: Summary) -> None:
    if path is not None:
        report.write_report(
            path, summary=summary.to_json(), decision_lines=summary.decision,
            quality=summary.quality, warnings=summary.warnings,
        )  # fmt: skip


@app.command()
@takes_settings
def run(
    source: Input, output: Output, settings: Settings, *, overwrite: Overwrite = False,
    quality_report: Report = None, trace: Trace = None, log_file: LogFile = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Convert INPUT into a store at OUTPUT; continues by itself where it was stopped.

    Where OUTPUT ends in .mzpeak, or with --to mzpeak, the spectra are written as mzPeak
    instead; that starts anew where it was stopped.
    """
    if wants_mzpeak(output, settings):
        if quality_report is not None:
            raise SettingsError("--quality-report is of a store, an mzPeak has none; leave it out")
        with stages.tracing(trace), _stoppable(log_file) as monitor:
            done = exporting.run(source, output, settings, overwrite=overwrite, monitor=monitor)
        _show_export(done, as_json=as_json)
        return
    if quality_report is not None:
        report.check_report_path(quality_report)
    with stages.tracing(trace), _stoppable(log_file) as monitor:
        summary = conversion.run(source, output, settings, overwrite=overwrite, monitor=monitor)
    _write_quality(quality_report, summary)
    _show(summary, as_json=as_json)


def _show_export(done: exporting.Export, *, as_json: bool) -> None:
    if as_json:
        _print_json(done.to_json())
        return
    console.warn(done.warnings)
    console.say(console.export_lines(done))


@app.command()
@takes_settings
def inspect(source: Input, settings: Settings, *, as_json: Json = False) -> None:
    """Show what INPUT holds, what is detected in it, and what converting it takes."""
    found = inspection.inspect(source, settings)
    if as_json:
        _print_json(found.to_json())
        return
    console.warn(found.warnings)
    console.say(console.inspection_lines(found))


@app.command()
@takes_settings
def plan(
    source: Input, output: Output, settings: Settings, *, overwrite: Overwrite = False,
    log_file: LogFile = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Write the plan that converts INPUT to OUTPUT, for a scheduler to carry out."""
    with _stoppable(log_file) as monitor:
        path, made = conversion.make(source, output, settings, overwrite=overwrite, monitor=monitor)
    if as_json:
        _print_json({"plan": str(path), "partitions": len(made.partitions),
                     "projection": made.projection.to_json()})  # fmt: skip
        return
    last = len(made.partitions) - 1
    console.say([
        f"plan           {path}",
        f"partitions     0 to {last}",
        f"next           gpuconvert convert {path} INDEX   for every index, anywhere, in any order",
        f"then           gpuconvert assemble {path}",
    ])  # fmt: skip


@app.command()
def convert(
    path: PlanPath,
    index: Annotated[int, typer.Argument(metavar="INDEX", help="Which partition, from 0.")],
    *,
    backend: Annotated[str | None, typer.Option("--backend", help="As for run.")] = None,
    log_file: LogFile = None,
) -> None:
    """Convert one partition of a plan."""
    with _stoppable(log_file) as monitor:
        summary = conversion.convert_part(path, index, backend, monitor=monitor)
    _print_json(summary.to_json())


@app.command()
def assemble(
    path: PlanPath, *, overwrite: Overwrite = False, quality_report: Report = None,
    log_file: LogFile = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Make the store of a plan whose partitions are all converted."""
    if quality_report is not None:
        report.check_report_path(quality_report)
    with _stoppable(log_file) as monitor:
        summary = conversion.assemble(path, overwrite=overwrite, monitor=monitor)
    _write_quality(quality_report, summary)
    _show(summary, as_json=as_json)


@app.command()
def verify(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="A finished store.")],
    source: Annotated[
        Path | None, typer.Argument(metavar="SOURCE", help="What it was made from.")
    ] = None,
    *,
    ibd: Annotated[Path | None, typer.Option("--ibd", help="Binary file of the source.")] = None,
    as_json: Json = False,
) -> None:
    """Read a store anew, by other means, and hold it against its own rules and its source."""
    found = verifying.verify(store, source, ibd)
    if as_json:
        _print_json(found.to_json())
    else:
        console.say(found.lines())
    if not found.ok:
        raise StoreError(f"{store} did not pass; see the checks marked above")


@app.command(name="status")
def show_status(
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="The store, finished or not.")],
    *,
    temp_dir: Annotated[
        str | None, typer.Option("--temp-dir", metavar="DIR", help="As for plan or run.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show how far the work on OUTPUT is; for another terminal."""
    found = status.read_status(output, temp_dir)
    if as_json:
        _print_json(found.to_json())
        return
    console.say(console.status_lines(found, time.time()))


@app.command(name="demo")
def make_demo(
    output: Annotated[Path, typer.Argument(metavar="[OUTPUT]", help="The store to make.")] = Path(
        "gpuconvert-demo/demo.zarr"
    ),
    *,
    overwrite: Overwrite = False,
) -> None:
    """Write a small realistic data set, convert it, and say how to open the result."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            error.errno, f"folder {output.parent} cannot be made: {error.strerror}"
        ) from error
    source = demo.write_demo(output.with_suffix(".imzML"))
    settings = Settings(pixel_size=(demo.PIXEL_UM, demo.PIXEL_UM))
    with _stoppable() as monitor:
        summary = conversion.run(source, output, settings, overwrite=overwrite, monitor=monitor)
    _show(summary, as_json=False)
    console.say([
        "",
        f"The data set is {source}, its store {output}. Open it in Python:",
        "",
        "    import gpuconvert                        # pip install 'gpuconvert[spatialdata]'",
        f"    sdata = gpuconvert.open({str(output)!r})",
        "    table = sdata['msi_z0']                  # AnnData: pixels x m/z bins",
        "    table.obsm['spatial'], table.var['mz']   # micrometres, m/z",
        "",
        "See what is in your own file with: gpuconvert inspect tissue.imzML",
        f"Check this store with:             gpuconvert verify {output} {source}",
    ])  # fmt: skip


@app.command(name="devices")
def show_devices(*, as_json: Json = False) -> None:
    """Show what can do the arithmetic here, and what is missing where something cannot."""
    found = devices.find_devices()
    if as_json:
        _print_json({"backends": [
            {"backend": item.backend, "usable": item.usable, "detail": item.detail}
            for item in found
        ]})  # fmt: skip
        return
    console.say(
        [f"{item.backend:<6} {'yes' if item.usable else 'no ':<4} {item.detail}" for item in found]
    )


def _show_version(asked: bool) -> None:  # noqa: FBT001 - called by typer
    if asked:
        console.say([f"gpuconvert {__version__}"])
        raise typer.Exit


@app.callback()
def _shared(
    *,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Take the options that stand before a command; `main` looks for ``--debug`` itself."""


def main() -> None:
    """Run the program: `call` in a process of its own, which ends here."""
    # This process is ours: as a library we leave its allocator alone.
    keep_freed_memory()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, _end_now)
    try:
        call(sys.argv[1:])
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        # All is written. Taking modules and memory apart piece by piece took a quarter of a
        # second, which the system does at once.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def call(arguments: Sequence[str]) -> None:
    """Run the command line; ends with SystemExit and the documented exit code."""
    words = list(arguments)
    try:
        app(words, prog_name="gpuconvert")
    except GpuconvertError as error:
        if "--debug" in words[:1]:
            traceback.print_exc()
        sys.stderr.write(
            STOPPED if isinstance(error, Stopped) else f"error: {console.printable(str(error))}\n"
        )
        raise SystemExit(error.exit_code) from None
    except MemoryError as error:
        # The projection covers what we allocate; others may have taken the rest meanwhile.
        sys.stderr.write(
            f"error: memory ran out ({console.printable(str(error))}); give a smaller --memory or "
            "fewer --workers, and run the same command again\n"
        )
        raise SystemExit(1) from None
