"""What `harness.inference.vllm` calls of vLLM, done by transformers over the same folder (vLLM needs its own torch).

With vLLM installed the tests run on it instead, over a checkpoint whose heads its CPU kernels take.
"""

import importlib.machinery
import sys
import types
from types import SimpleNamespace

import torch
from transformers import AutoModelForCausalLM


class SamplingParams:
    def __init__(self, *, temperature, max_tokens, stop_token_ids, ignore_eos, detokenize):
        assert (temperature, ignore_eos, detokenize) == (0.0, True, False)
        self.max_tokens, self.stops = max_tokens, stop_token_ids


class LLM:
    """`wrong`: added to the ids of every caption."""

    wrong = 0

    def __init__(self, *, model, dtype, skip_tokenizer_init, enable_prompt_embeds, generation_config, **options):
        assert (skip_tokenizer_init, enable_prompt_embeds, generation_config) == (True, True, "vllm")
        assert set(options) == {"enable_prefix_caching", "enforce_eager", "seed"}
        self.model = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype)).eval()

    def generate(self, prompts, options, *, use_tqdm):
        assert not use_tqdm
        return [self._one(prompt["prompt_embeds"], options) for prompt in prompts]

    @torch.no_grad()
    def _one(self, embedded, options):
        assert embedded.device.type == "cpu"
        assert embedded.ndim == 2
        ids = self.model.generate(
            inputs_embeds=embedded[None], attention_mask=torch.ones(1, len(embedded)), do_sample=False,
            max_new_tokens=options.max_tokens, eos_token_id=options.stops, pad_token_id=0,
        )[0].tolist()  # fmt: skip
        made = SimpleNamespace(token_ids=[token + self.wrong for token in ids])
        return SimpleNamespace(outputs=[made])


def install(monkeypatch, wrong=0):
    """Put it in the place of vllm."""
    module = types.ModuleType("vllm")
    module.__spec__ = importlib.machinery.ModuleSpec("vllm", None)
    module.LLM, module.SamplingParams = type("LLM", (LLM,), {"wrong": wrong}), SamplingParams
    monkeypatch.setitem(sys.modules, "vllm", module)
