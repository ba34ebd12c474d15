"""Vision towers that need see a picture only once: what one gives is kept, and given again later."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from harness.contracts import Example, Seen
from model_zoo.base.captioner import CheckpointCaptioner, inference

if TYPE_CHECKING:
    from torch import Tensor

FEATURES = "features"  # of a batch, in the place of the pixels
PIXELS = "pixel_values"


class TowerCaptioner(CheckpointCaptioner):
    """Features travel through the model as its `pixel_values`, up to the one method that would look at pixels.

    entrance: that method, as (module, method). It is replaced by `replay` as long as features are given, so that all
    else, connector included, stays the library's own code. Nothing is replaced for a batch of pictures.
    """

    tower: ClassVar[str]
    entrance: ClassVar[tuple[str, str]]
    replaced: ClassVar[tuple[str, ...]] = (PIXELS,)
    """The vision tensors of a row that features stand for."""

    @abstractmethod
    def watch(self, inputs: dict[str, Tensor]) -> Tensor:
        """Features that the connector gets from the tower for one row; rows may be joined on the first axis."""

    @abstractmethod
    def replay(self, features: Tensor, *arguments: Any) -> Any:
        """Result of `entrance`, from features in the place of pixels."""

    def preprocess(self, example: Example) -> Seen:
        """Prompt ids and pixels of one example."""
        return self.row(example)

    def encode_images(self, processed: Seen) -> Seen:
        """Prompt ids and features. One at a time: what is kept must not depend on what else is in a batch."""
        device = next(self.model.parameters()).device
        inputs = {name: tensor.to(device) for name, tensor in self.merge([processed]).items()}
        with inference(self.model):
            features = self.watch(inputs).cpu()
        rest = {name: tensor for name, tensor in processed.tensors.items() if name not in self.replaced}
        return Seen(processed.ids, {FEATURES: features, **rest})

    @contextmanager
    def using_features(self, batch: dict[str, Tensor]) -> Iterator[None]:
        """Make a batch with features ready for the model, in place; the tower is left out within."""
        if FEATURES not in batch:
            yield
            return
        batch[PIXELS] = batch.pop(FEATURES)
        name, method = self.entrance
        with replaced(self.model.get_submodule(name), method, self._entered):
            yield

    def _entered(self, *arguments: Any, **named: Any) -> Any:
        """`replay` under the signature of `entrance`: families call it with names or without."""
        return self.replay(*arguments, *named.values())


@contextmanager
def replaced(module: Any, method: str, by: Any) -> Iterator[None]:
    """Another method in the place of a module's own within it; what `accelerate` has set there comes back, too."""
    own = vars(module).get(method)
    setattr(module, method, by)
    try:
        yield
    finally:
        delattr(module, method)
        if own is not None:
            setattr(module, method, own)
