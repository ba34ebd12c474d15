"""The same question for every picture."""

from __future__ import annotations

from harness.contracts import RequestError, Sample


class Plain:
    """Asks the question and uses no label."""

    def __init__(self, name: str, question: str) -> None:
        self.name, self.question = name, question
        if not question.strip():
            raise RequestError("prompt.question: expected a question, got an empty text")

    def text(self, sample: Sample, modality: str | None) -> str:
        """The question, whatever the modality."""
        return self.question
