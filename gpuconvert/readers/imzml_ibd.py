"""The binary half of an imzML: which file beside the XML it is."""

from __future__ import annotations

from pathlib import Path

from gpuconvert.errors import SourceError, SourceMissingError
from gpuconvert.readers.source_files import reading, require_file


def find_ibd(path: Path, given: str | None) -> Path:
    """Return the binary file that belongs to an imzML.

    Without `given` it has the same stem and the suffix ``.ibd``, in any case if that is unique.
    """
    if given is not None:
        if not Path(given).exists():
            raise SourceMissingError(f"the binary file {given} does not exist; check --ibd")
        return _require_file(Path(given))
    name = path.name
    stem = name[: name.lower().rfind(".imzml")] if ".imzml" in name.lower() else path.stem
    exact = path.with_name(f"{stem}.ibd")
    if exact.exists():
        return _require_file(exact)
    with reading(path.parent):
        beside = sorted(item.name for item in path.parent.iterdir())
    alike = [item for item in beside if item.lower() == exact.name.lower()]
    if len(alike) > 1:
        raise SourceError(
            f"{path} could belong to {' or '.join(alike)}, expected one binary file; give --ibd"
        )
    if alike:
        return _require_file(path.with_name(alike[0]))
    partial = [item for item in beside if item.lower().startswith(exact.name.lower())]
    hint = f" ({partial[0]} looks like an unfinished export)" if partial else ""
    raise SourceMissingError(
        f"{path} needs its binary file {exact.name} beside it, which is not there{hint}; "
        "copy it there or give --ibd"
    )


def _require_file(path: Path) -> Path:
    if path.is_dir():
        raise SourceError(f"{path} is a folder, expected the binary file of an imzML; give --ibd")
    require_file(path, "the binary file of an imzML")
    return path
