"""The question after a statement of the imaging modality."""

from __future__ import annotations

from harness.contracts import RequestError, Sample

FIELD = "{modality}"


class ModalityFirst:
    """Modality-aware prompting: the label stands before the question.

    Without a label it is the plain question, so that the label alone makes the difference between the two styles.
    """

    def __init__(self, name: str, question: str, wording: str) -> None:
        self.name, self.question, self.wording = name, question, wording
        if not question.strip():
            raise RequestError("prompt.question: expected a question, got an empty text")
        if FIELD not in wording:
            raise RequestError(f"prompt.wording: expected a text with {FIELD} in it, got {wording!r}")

    def text(self, sample: Sample, modality: str | None) -> str:
        """The wording with the label filled in, a blank and the question."""
        if modality is None:
            return self.question
        return f"{self.wording.replace(FIELD, modality)} {self.question}"
