"""The data sets that are measured: frozen, seeded, written once into a folder of the user's.

Every case is described by a value; the same value always gives the same bytes. The
imzML text is that of common writers: one cvParam a line, about 2.2 kB a spectrum;
``x1m`` is compact, one line a spectrum.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["centroid", "continuous", "stripped", "whole", "index"]


@dataclass(frozen=True, slots=True)
class Case:
    """One data set.

    side : pixels along each edge of a square (``x1m``: 1000)
    points : per spectrum; of a stripped profile before zeros are dropped
    """

    name: str
    kind: Kind
    side: int
    points: int

    @property
    def n_pixels(self) -> int:
        """Number of spectra."""
        return self.side * self.side


CASES = {
    case.name: case
    for case in (
        Case("c64", "centroid", 64, 500),
        Case("c128", "centroid", 128, 500),
        Case("c256", "centroid", 256, 500),
        Case("p32", "continuous", 32, 20_000),
        Case("p64", "continuous", 64, 20_000),
        Case("z64", "stripped", 64, 30_000),
        Case("w32", "whole", 32, 30_000),
        Case("x1m", "index", 1000, 10),
    )
}

IONS = 2000
JITTER_PPM = 3.0
LOW, HIGH = 100.0, 1000.0
SEED = 7

Spectrum = tuple[NDArray[np.float64], NDArray[np.float32]]


def _centroids(case: Case, rng: np.random.Generator) -> Iterator[Spectrum]:
    """Shared ions, each pixel a random choice of them with jittered m/z."""
    ions = np.sort(rng.uniform(LOW, HIGH, IONS))
    for _ in range(case.n_pixels):
        mz = ions[rng.permutation(IONS)[: case.points]]
        mz = np.sort(mz * (1 + JITTER_PPM * 1e-6 * rng.standard_normal(case.points)))
        yield mz, rng.gamma(0.8, 300, case.points).astype(np.float32) + 1


def flight_time_axis(points: int) -> NDArray[np.float64]:
    """Return m/z uniform in their square root; (points,) float64."""
    return np.linspace(LOW**0.5, HIGH**0.5, points) ** 2


def _continuous(case: Case, rng: np.random.Generator) -> Iterator[Spectrum]:
    """One axis for all, no zeros."""
    mz = flight_time_axis(case.points)
    base = rng.gamma(0.3, 50, case.points)
    for _ in range(case.n_pixels):
        counts = base * rng.gamma(5, 0.2) + rng.gamma(2, 2, case.points)
        yield mz, (counts + 0.5).astype(np.float32)


def whole_profile(points: int, rng: np.random.Generator) -> Spectrum:
    """Return a profile on a shifted grid, about a third of its points not zero."""
    root = np.linspace(LOW**0.5, HIGH**0.5, points)
    root = root + rng.uniform(0, 1) * (root[1] - root[0])
    counts = np.zeros(points)
    shape = np.exp(-((np.arange(-6, 7) / 2.5) ** 2))
    centres = rng.integers(6, points - 7, points // 33)
    np.add.at(
        counts,
        centres[:, None] + np.arange(-6, 7),
        rng.gamma(1, 400, len(centres))[:, None] * shape,
    )
    counts = np.floor(counts + rng.uniform(0, 1, points) * (counts > 0))
    return root**2, counts.astype(np.float32)


def stripped_profile(points: int, rng: np.random.Generator) -> Spectrum:
    """Return such a profile without its zeros."""
    mz, counts = whole_profile(points, rng)
    return mz[counts > 0], counts[counts > 0]


def _stripped(case: Case, rng: np.random.Generator) -> Iterator[Spectrum]:
    for _ in range(case.n_pixels):
        yield stripped_profile(case.points, rng)


def _whole(case: Case, rng: np.random.Generator) -> Iterator[Spectrum]:
    for _ in range(case.n_pixels):
        yield whole_profile(case.points, rng)


def _index_only(case: Case, rng: np.random.Generator) -> Iterator[Spectrum]:
    mz = np.sort(rng.uniform(LOW, HIGH, case.points))
    counts = np.ones(case.points, np.float32)
    for _ in range(case.n_pixels):
        yield mz, counts


MAKERS = {
    "centroid": _centroids,
    "continuous": _continuous,
    "stripped": _stripped,
    "whole": _whole,
    "index": _index_only,
}

_HEADER = """<?xml version="1.0" encoding="ISO-8859-1"?>
<mzML xmlns="http://psi.hupo.org/ms/mzml" version="1.1">
  <cvList count="1"><cv id="MS" fullName="PSI-MS" version="1" URI="psi-ms.obo"/></cvList>
  <fileDescription><fileContent>
    <cvParam cvRef="MS" accession="MS:{spectrum}" name="{word}"/>
    <cvParam cvRef="IMS" accession="IMS:1000080" name="universally unique identifier"\
 value="{{{uuid}}}"/>
    <cvParam cvRef="IMS" accession="IMS:{mode}" name="{mode_word}"/>
  </fileContent></fileDescription>
  <referenceableParamGroupList count="2">
    <referenceableParamGroup id="mzArray">
      <cvParam cvRef="MS" accession="MS:1000514" name="m/z array"/>
      <cvParam cvRef="MS" accession="MS:1000523" name="64-bit float"/>
      <cvParam cvRef="MS" accession="MS:1000576" name="no compression"/>
      <cvParam cvRef="IMS" accession="IMS:1000101" name="external data" value="true"/>
    </referenceableParamGroup>
    <referenceableParamGroup id="intensityArray">
      <cvParam cvRef="MS" accession="MS:1000515" name="intensity array"/>
      <cvParam cvRef="MS" accession="MS:1000521" name="32-bit float"/>
      <cvParam cvRef="MS" accession="MS:1000576" name="no compression"/>
      <cvParam cvRef="IMS" accession="IMS:1000101" name="external data" value="true"/>
    </referenceableParamGroup>
  </referenceableParamGroupList>
  <scanSettingsList count="1"><scanSettings id="scan1">
    <cvParam cvRef="IMS" accession="IMS:1000042" name="max count of pixels x" value="{side}"/>
    <cvParam cvRef="IMS" accession="IMS:1000043" name="max count of pixels y" value="{side}"/>
    <cvParam cvRef="IMS" accession="IMS:1000046" name="pixel size (x)" value="25"\
 unitAccession="UO:0000017" unitName="micrometer"/>
  </scanSettings></scanSettingsList>
  <instrumentConfigurationList count="1"><instrumentConfiguration id="IC1"/>\
</instrumentConfigurationList>
  <run id="run"><spectrumList count="{count}">
"""

_ARRAY = """<binaryDataArray encodedLength="0">
<referenceableParamGroupRef ref="{group}"/>
<cvParam cvRef="IMS" accession="IMS:1000103" name="external array length" value="{n}"/>
<cvParam cvRef="IMS" accession="IMS:1000104" name="external encoded length" value="{size}"/>
<cvParam cvRef="IMS" accession="IMS:1000102" name="external offset" value="{at}"/>
<binary/></binaryDataArray>
"""

_SPECTRUM = (
    """<spectrum id="Scan={number}" defaultArrayLength="0" index="{number}">
<cvParam cvRef="MS" accession="MS:1000579" name="MS1 spectrum"/>
<cvParam cvRef="MS" accession="MS:1000511" name="ms level" value="1"/>
<cvParam cvRef="MS" accession="MS:1000130" name="positive scan"/>
<scanList count="1"><cvParam cvRef="MS" accession="MS:1000795" name="no combination"/>
<scan instrumentConfigurationRef="IC1">
<cvParam cvRef="IMS" accession="IMS:1000050" name="position x" value="{x}"/>
<cvParam cvRef="IMS" accession="IMS:1000051" name="position y" value="{y}"/>
</scan></scanList><binaryDataArrayList count="2">
"""
    + _ARRAY.replace("{", "{mz_").replace("{mz_group}", "mzArray")
    + _ARRAY.replace("{", "{in_").replace("{in_group}", "intensityArray")
    + "</binaryDataArrayList></spectrum>\n"
)


def write_case(case: Case, folder: Path) -> Path:
    """Write a case into `folder` unless it is there; return the path of its imzML."""
    path = folder / f"{case.name}.imzML"
    if path.is_file() and (folder / f"{case.name}.done").is_file():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(SEED)
    identifier = uuid.UUID(int=int.from_bytes(case.name.encode().rjust(16, b"\1"), "big"))
    continuous = case.kind in {"continuous", "index"}
    profile = case.kind in {"continuous", "stripped", "whole"}
    template = _SPECTRUM.replace("\n", "") + "\n" if case.kind == "index" else _SPECTRUM
    with path.open("w") as xml, path.with_suffix(".ibd").open("wb") as ibd:
        xml.write(
            _HEADER.format(
                spectrum="1000128" if profile else "1000127",
                word="profile spectrum" if profile else "centroid spectrum",
                uuid=identifier, mode="1000030" if continuous else "1000031",
                mode_word="continuous" if continuous else "processed",
                side=case.side, count=case.n_pixels,
            )
        )  # fmt: skip
        ibd.write(identifier.bytes)
        at, mz_at = 16, -1
        for number, (mz, counts) in enumerate(MAKERS[case.kind](case, rng)):
            if mz_at < 0 or not continuous:
                mz_at = at
                at += ibd.write(mz.astype("<f8").tobytes())
            begin = at
            at += ibd.write(counts.astype("<f4").tobytes())
            xml.write(
                template.format(
                    number=number + 1, x=number % case.side + 1, y=number // case.side + 1,
                    mz_n=len(mz), mz_size=len(mz) * 8, mz_at=mz_at,
                    in_n=len(mz), in_size=len(mz) * 4, in_at=begin,
                )
            )  # fmt: skip
        xml.write("</spectrumList></run></mzML>\n")
    (folder / f"{case.name}.done").touch()
    return path
