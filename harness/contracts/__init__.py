"""The shared nouns (dataclasses) and roles (Protocols). Imports the standard library and annotated_types only.

Plug-ins and stages meet here and nowhere else: a stage gets plug-ins as arguments, a plug-in knows no stage.
"""

from harness.contracts.captioner import (
    IGNORED,
    Answer,
    Captioner,
    Control,
    ControlCaption,
    Engine,
    Example,
    Exportable,
    Generated,
    Measured,
    Region,
    Seen,
    Site,
    Stage,
    TowerCached,
)
from harness.contracts.common import (
    GREY,
    REGIONS,
    RUNTIME,
    SPLITS,
    UNKNOWN,
    CapBenchError,
    ImageError,
    NonNegative,
    Positive,
    Refused,
    RequestError,
)
from harness.contracts.data import (
    Checkpointed,
    Dataset,
    ImageSource,
    ModalityClassifier,
    ModalitySource,
    PromptStyle,
    Query,
    Rejected,
    Sample,
    Split,
    Stored,
    fingerprint,
)
from harness.contracts.metric import Combined, Metric, Pair, Ratio, Score, ScoreProtocol
from harness.contracts.options import Decoding, Launcher, Sweep, Training
from harness.contracts.strategy import Plan, Strategy
