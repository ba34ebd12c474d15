"""Baselines: captioners put together from several checkpoints, trained in full and never asked anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.contracts import Seen, Stage
from model_zoo.base.captioner import HFCaptioner, only_image

if TYPE_CHECKING:
    from PIL import Image

    from model_zoo.base.checkpoint import Source, Weights
    from model_zoo.base.options import Attention, Float, Kind


class Baseline(HFCaptioner):
    """A text model with GPT-2's tokenizer that gets one picture. The prompt is ignored.

    init_seed: draws what no checkpoint holds. schedule: the unfreezing plan, a list of {start, modules}.
    """

    prompted = False
    image_processor: Any
    """Squashes to the size of the vision model: no crop, so that the borders of a radiograph stay."""

    def __init__(
        self,
        name: str,
        kind: Kind,
        weights: Weights,
        dtype: Float,
        attention: Attention,
        sources: Sequence[Source],
        init_seed: int,
        schedule: Sequence[Mapping[str, Any]],
    ) -> None:
        self.name, self.kind, self.weights = name, kind, weights
        self.dtype, self.attention = dtype, attention
        self.sources = {source.part: source for source in sources}
        self.init_seed = init_seed
        self.schedule = tuple(Stage(float(stage["start"]), tuple(stage["modules"])) for stage in schedule)

    @property
    def pad_id(self) -> int:
        """GPT-2 has no padding token. Not the start token, which transformers would take for padding on the right."""
        return 0

    def encode(self, images: Sequence[Image.Image], prompt: str) -> Seen:
        """The first token and pixel_values (1, 3, height, width)."""
        image = only_image(self.name, images)
        # A picture of 3 rows would be taken for one of 3 channels.
        batch = self.image_processor(image, input_data_format="channels_last", return_tensors="pt")
        return Seen([self.tokenizer.bos_token_id], {"pixel_values": batch["pixel_values"]})
