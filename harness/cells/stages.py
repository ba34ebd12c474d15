"""The stages of a cell: what the captioner is asked, the fit or the stored adapter, the captions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.batches.feature_files import FeatureFiles
from harness.batches.features import LIBRARIES, Features, allowed
from harness.batches.limit import Limit
from harness.cells.blank_pictures import blanked
from harness.cells.identity import Known, queries_of
from harness.cells.leaks import refuse_leaks
from harness.cells.manifest import write_fit
from harness.cells.parts import Parts
from harness.contracts import CapBenchError, Engine, Query, Split, TowerCached
from harness.inference import vllm
from harness.inference.controls import caption_by_control
from harness.inference.generate import generate
from harness.machine import memory, provenance, ranks
from harness.machine.bfloat16 import emulation_for
from harness.store import Damaged, Journal, file_digest, locked, read_manifest, same_identity, write_text
from harness.training.fit import Fit, rows_per_process
from harness.training.trainer import check_options


def check(parts: Parts, known: Known) -> None:
    """Look for a wrong request before the work begins. Raises Refused, RequestError."""
    if parts.control.replaces_captioner:
        return
    if known.fit_folder is not None and not (known.fit_folder / "manifest.json").exists():
        rows_per_process(parts.training)
        check_options(parts.training, parts.device)
    allowed(parts.captioner, known.plan, parts.settings.features)
    vllm.check(parts.captioner, parts.decoding, parts.device)


def ask(parts: Parts, test: Split) -> Sequence[Query]:
    """What the captioner is asked of the split. Raises RequestError where a question knows the answer."""
    if parts.control.replaces_captioner:
        return []
    queries = queries_of(parts, test, parts.modality)
    if parts.captioner.prompted:
        refuse_leaks(queries, parts.prompt.name)  # before a fit whose captions could not be used
    return blanked(queries) if parts.settings.blank else queries


# ---------------------------------------------------------------- the fit


def prepare_captioner(parts: Parts, known: Known) -> Mapping[str, Any]:
    """Load the captioner, with the weights of its fit in place; returns the fit's row of costs."""
    folder = known.fit_folder
    if folder is None or known.train is None:
        parts.captioner.load(parts.device)
        return {}
    with ranks.held(locked(folder)):
        manifest = ranks.once(lambda: read_manifest(folder))
        parts.captioner.load(parts.device)
        if manifest is None or manifest["status"] != "ok":
            return _fit(parts, known, known.train, folder)
        same_identity(folder, manifest["identity"], known.fit_identity)
        _check_files(folder, manifest["files"])
        model = parts.strategy.attach(parts.captioner, known.plan)
        parts.strategy.load(model, known.plan, folder / "adapter")
        row: Mapping[str, Any] = manifest["row"]
        return row


def _check_files(folder: Path, files: Mapping[str, str]) -> None:
    """An adapter that was exchanged or cut short is refused: its captions would count for another one."""
    for name, known in files.items():
        path = folder / name
        if not path.is_file() or file_digest(path) != known:
            raise Damaged(f"{path}: not the file that this fit wrote; put it back, or delete {folder} to fit anew")


def _fit(parts: Parts, known: Known, train: Split, folder: Path) -> Mapping[str, Any]:
    if ranks.first():
        write_text(folder / "config.yaml", parts.config_yaml)
    started, meter = provenance.now(), provenance.Meter(parts.device)
    queries = queries_of(parts, train, parts.taught_labels)
    options, seed = parts.training, parts.settings.seed
    asked = {"lora": dict(parts.identities["lora"]), "max_caption_tokens": options.max_caption_tokens}
    limit, features = _limit(parts, known, asked), _features(parts, known)
    with emulation_for(parts.captioner.model):
        done = Fit(parts.captioner, parts.strategy, known.plan, queries, options, seed, folder, limit, features).run()
    return write_fit(parts, known, done, train, meter, started, folder)


# ---------------------------------------------------------------- the captions


def run_control(parts: Parts, known: Known, journal: Journal) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """What a control has learnt, and its costs. One process says it all: it costs little beside a captioner."""
    assert known.train is not None
    train, test, cache = known.train.samples, known.test.samples, parts.results / "cache"
    return ranks.once(lambda: caption_by_control(parts.control, train, test, journal, parts.device, cache))


def caption(parts: Parts, known: Known, queries: Sequence[Query], journal: Journal) -> None:
    """Fill the journal with the captions of a loaded captioner."""
    limit = _limit(parts, known, {"generate": dict(parts.identities["generate"])})
    features = _features(parts, known)
    with _engine(parts, known, queries) as engine:
        generate(parts.captioner, queries, parts.decoding, journal, limit, features, engine)


@contextmanager
def _engine(parts: Parts, known: Known, queries: Sequence[Query]) -> Iterator[Engine]:
    """What makes the captions. Raises CapBenchError where another engine says something else than the captioner."""
    if parts.decoding.engine == "transformers":
        with emulation_for(parts.captioner.model):
            yield parts.captioner.generate
        return
    merge = vllm.nothing
    if known.fit_folder is not None:  # the adapter as the fit has stored it
        del parts.captioner.model  # there may be no room for two
        memory.release()
        parts.captioner.load(parts.device)
        merge = vllm.as_stored(parts.captioner, parts.strategy, known.plan, known.fit_folder / "adapter")
    with vllm.started(parts.captioner, parts.decoding, parts.device, vllm.probes(queries), merge) as (found, engine):
        if not found.healthy:
            raise CapBenchError(
                f"generate.engine={parts.decoding.engine} for model={parts.captioner.name}: its captions differ from "
                f"the captioner's own ({found.first}); use transformers"
            )
        yield engine


# ---------------------------------------------------------------- what fit and captions share


def _limit(parts: Parts, known: Known, asked: Mapping[str, Any]) -> Limit:
    """The rows that fit into memory at once depend on the captioner, the device and what is asked of them."""
    about = {**_captioner(known), "device": provenance.device_name(parts.device), **asked}
    return Limit(parts.results / "cache", about)


def _features(parts: Parts, known: Known) -> Features | None:
    """What the vision tower has made of pictures before, where the strategy leaves it as it is."""
    captioner, settings = parts.captioner, parts.settings
    if not allowed(captioner, known.plan, settings.features) or not isinstance(captioner, TowerCached):
        return None
    packages = provenance.environment()["packages"]
    about = {
        **_captioner(known),
        "device": parts.device.partition(":")[0],
        "packages": {name: packages[name] for name in LIBRARIES},
    }
    files = FeatureFiles(parts.results / "cache" / "features", settings.features_gb * 2**30)
    return Features(captioner, files, about)


def _captioner(known: Known) -> dict[str, Any]:
    return {key: known.fit_identity[key] for key in ("checkpoint", "captioner")}
