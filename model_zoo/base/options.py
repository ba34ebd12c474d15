"""Options of a captioner: the keys of its yaml as dataclass fields.

Families in other files inherit these annotations and `harness.config` resolves them there: so they are no strings here.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from harness.contracts import RUNTIME
from model_zoo.base.checkpoint import Weights

Kind = Literal["LVLM", "SVLM", "baseline"]
Float = Literal["auto", "float32", "bfloat16"]
Dtype = Literal["auto", "float32", "bfloat16", "nf4", "int8"]
"""nf4, int8: the language layers in 4 or 8 bits (QLoRA), all else and all computing as `auto`."""
Attention = Literal["eager", "sdpa", "flash_attention_2"]


@dataclass(eq=False)
class CheckpointOptions:
    """Options of a captioner that is one checkpoint; a family adds its own as a dataclass (`eq=False`), too."""

    name: str
    kind: Kind
    weights: Weights
    hub: Annotated[str, RUNTIME]
    revision: Annotated[str | None, RUNTIME]
    dtype: Dtype
    attention: Annotated[Attention, RUNTIME]
