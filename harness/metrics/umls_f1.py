"""UMLS concept F1: which concepts do reference and candidate both name? Found by MedCAT (arXiv 2010.01165)."""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Literal

from harness.contracts import RUNTIME, RequestError, Score
from harness.encoders.checkpoint import hash_files, missing_package
from harness.metrics._text import TextMetric, ruling

if TYPE_CHECKING:
    from medcat.cat import CAT

VERSION = 1  # raise it with any change of this file or of _medcat.py that changes a value
EMBEDDED = Path(__file__).parent / "embedded" / "concepts.csv"
"""Chosen by hand from common radiology words. The CUIs were compared with those that ROCOv2, the Human Phenotype and
Disease Ontologies, Uberon and DICOM's anatomy codes give to the same names, or that ROCO v1's tagger gives to captions
with them. No lemmatizer runs: plurals and British spellings are names of their own. One name has one CUI."""

FAILURES = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What a text can make a parser raise. Anything else (memory, disk) is no fault of the text."""

# MEDCON's semantic types (github.com/wyim/aci-bench, resources/semantic_types.txt). Procedures are out: "MRI" is T060.
ANATOMY = (17, 18, 21, 22, 23, 24, 25, 26, 29, 30, 31)
CHEMICALS = (103, 104, 109, 114, 116, 120, 121, 122, 123, 125, 126, 127, 129, 130, 131, 192, 195, 196, 197, 200)
DEVICES = (74, 75, 203)
DISORDERS = (19, 20, 33, 37, 46, 47, 48, 49, 50, 184, 190, 191)
GENES = (28, 85, 86, 87, 88)
PHENOMENA = (34, 38, 67, 68, 69, 70)
PHYSIOLOGY = (32, 39, 40, 41, 42, 43, 44, 45, 201)
MEDCON66 = frozenset(
    f"T{number:03d}"
    for group in (ANATOMY, CHEMICALS, DEVICES, DISORDERS, GENES, PHENOMENA, PHYSIOLOGY)
    for number in group
)


@dataclass(eq=False)
class UmlsF1(TextMetric):
    """F1 of two sets of unique concepts, 2|A∩B| / (|A|+|B|), 0 where neither text names one. Case tells US from us.

    Blind to side (left and right are no concepts), to negation ("no fracture" names a fracture), to sizes and counts.
    pack "embedded": about 200 common radiology concepts, looked up by name without disambiguation, so that "head of the
    pancreas" names a head. Its CUIs are UMLS's, its choice is ours: good for a demonstration, comparable with nothing.
    """

    name: str
    pack: Annotated[str, RUNTIME]  # its content is hashed
    types: Literal["all", "medcon66"] | list[str]
    trust_pack: Annotated[bool, RUNTIME]
    _found: dict[str, frozenset[str] | str] = field(default_factory=dict, init=False)

    values = ("n_reference", "n_candidate", "precision", "recall", "f1")

    def __post_init__(self) -> None:
        """Check the semantic types."""
        wrong = [tui for tui in self._types if not re.fullmatch(r"T\d{3}", tui)]
        if wrong or (isinstance(self.types, str) and self.types not in ("all", "medcon66")):
            raise RequestError(
                f'metric {self.name}.types: expected "all", "medcon66" or a list of semantic types such as '
                f"[T023, T047], got {self.types!r}"
            )

    def missing(self) -> str | None:
        """Missing part and what helps; None when all is there. Loads nothing."""
        package = missing_package("medcat", "medcat>=2.9,<3")
        if package or self.pack == "embedded":
            return package
        if not self._source.exists():
            return (
                f"MedCAT model pack {self.pack!r} is not there: get one (a UMLS licence is free) from the MedCAT "
                f'project and set metric.{self.name}.pack to its zip or folder, or to "embedded"'
            )
        if not self.trust_pack:
            return (
                f"a MedCAT model pack is made of Python pickles, which can run any code when opened: if you trust "
                f"{self.pack!r}, set metric.{self.name}.trust_pack=true"
            )
        return None

    def signature(self) -> str:
        """Name, version and options: what a value depends on besides its texts."""
        types = self.types if isinstance(self.types, str) else ",".join(sorted(set(self.types)))
        return f"{self.name}|v={VERSION}|lib=medcat-{version('medcat')}|pack={self._digest}|types={types}"

    def load(self, device: str, features: MutableMapping[str, bytes]) -> None:
        """Build the embedded extractor or open the pack; MedCAT runs on the CPU."""
        from harness.metrics import _medcat

        problem = self.missing()
        if problem:
            raise RequestError(f"metric {self.name}: {problem}")
        if self.pack == "embedded":
            self._cat: CAT = _medcat.build(EMBEDDED)
        else:
            self._scratch = TemporaryDirectory(prefix="medcat-")  # lives as long as the metric
            self._cat = _medcat.open_pack(self._source, Path(self._scratch.name))

    def concepts(self, text: str) -> frozenset[str] | str:
        """CUIs of the chosen types, or why MedCAT failed. Each distinct text is read once in the metric's life."""
        if text not in self._found:
            self._found[text] = self._extract(text)
        return self._found[text]

    def _extract(self, text: str) -> frozenset[str] | str:
        from harness.metrics import _medcat

        try:
            found = _medcat.concepts(self._cat, text)
        except FAILURES as error:
            return f"MedCAT failed: {type(error).__name__}: {error}"
        # Filtering afterwards equals filtering in the linker: a name's winner is dropped, never replaced.
        return frozenset(cui for cui, types in found.items() if self.types == "all" or types & self._types)

    def _score(self, reference: str, candidate: str) -> Score:
        right, said = self.concepts(reference), self.concepts(candidate)
        if isinstance(right, str):
            return Score({}, f"reference: {right}")
        if isinstance(said, str):
            return Score({}, f"candidate: {said}")
        ruled = ruling(reference, candidate)
        sizes = (len(said), len(right), (len(said) + len(right)) / 2)
        shares = [len(right & said) / size if size else 0.0 for size in sizes]
        rates = shares if ruled is None else [ruled] * 3
        return Score(dict(zip(self.values, [float(len(right)), float(len(said)), *rates], strict=True)))

    @property
    def _types(self) -> frozenset[str]:
        if isinstance(self.types, str):
            return MEDCON66 if self.types == "medcon66" else frozenset()
        return frozenset(self.types)

    @property
    def _source(self) -> Path:
        return EMBEDDED if self.pack == "embedded" else Path(self.pack).expanduser()

    @cached_property
    def _digest(self) -> str:
        source = self._source
        if not source.exists():
            raise RequestError(f"metric {self.name}: {self.missing()}")
        files = [path for path in source.rglob("*") if path.is_file()] if source.is_dir() else [source]
        return hash_files(source, files)[:12]
