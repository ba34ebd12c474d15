"""MedCAT 2 behind three functions: build the embedded extractor, open a model pack, find the concepts of a text."""

from __future__ import annotations

import logging
import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medcat.cat import CAT
    from medcat.config import Config

Concepts = dict[str, frozenset[str]]
"""CUI -> semantic types (TUIs)."""


def build(table: Path) -> CAT:
    """An extractor of the concepts of `table`, which has MedCAT's csv columns. Writes nothing."""
    _keep_quiet()
    import numpy as np
    from medcat.cat import CAT
    from medcat.model_creation.cdb_maker import CDBMaker
    from medcat.vocab import Vocab

    config = _config()
    cdb = CDBMaker(config).prepare_csvs([str(table)], full_build=True)
    vocab = Vocab()  # must not be empty, but the linker that needs no training never looks at it
    vocab.add_word("the", 1, np.ones(1))
    vocab.init_cumsums()
    return CAT(cdb, vocab, config)


def open_pack(path: Path, scratch: Path) -> CAT:
    """A model pack, from its folder or from its zip, which is unpacked into `scratch`.

    MedCAT itself would unpack beside the zip, or take a folder of that name that is already there, whatever is in it.
    """
    _keep_quiet()
    from medcat.cat import CAT

    if path.is_file():
        with zipfile.ZipFile(path) as archive:
            archive.extractall(scratch)
        inner = [entry for entry in scratch.iterdir() if entry.name != "__MACOSX"]
        path = inner[0] if len(inner) == 1 and inner[0].is_dir() else scratch
    cat = CAT.load_model_pack(str(path))
    cat.config.general.usage_monitor.enabled = False
    cat.config.components.linking.train = False  # a pack may have been saved amid its training
    return cat


def concepts(cat: CAT, text: str) -> Concepts:
    """Concepts of a text. The longest name wins: "kidney stone" names no kidney, unless the pack wants nested entities.

    MedCAT 2.9 promises as much, but with the regex tokenizer it keeps single words inside longer names.
    """
    document = cat(text)  # not `get_entities`, which spends a sixth of its time on fields that nobody reads
    found = list(document.linked_ents) if document else []  # nothing comes back for a text without a word
    if not cat.config.general.show_nested_entities:
        found = _outermost(found)
    known = cat.cdb.cui2info
    return {entity.cui: frozenset(known[entity.cui]["type_ids"] if entity.cui in known else ()) for entity in found}


def _outermost(entities: list[Any]) -> list[Any]:
    """The longest entities, and of those that overlap none but the longest."""
    kept: list[Any] = []
    taken: set[int] = set()  # characters
    for entity in sorted(entities, key=lambda entity: entity.base.start_char_index - entity.base.end_char_index):
        span = range(entity.base.start_char_index, entity.base.end_char_index)
        if taken.isdisjoint(span):
            taken.update(span)
            kept.append(entity)
    return kept


def _config() -> Config:
    from medcat.config import Config

    config = Config()
    config.general.nlp.provider = "regex"  # no spaCy model to provide, and faster
    config.general.spell_check = False  # guesses at typos: not for a metric
    config.general.usage_monitor.enabled = False  # no log files
    config.general.log_level = logging.WARNING
    config.components.ner.min_name_len = 2  # 3 would hide CT, US and MR
    config.components.ner.upper_case_limit_len = 4  # shorter names in capitals only: "US", not "us"
    config.components.linking.train = False
    config.components.linking.comp_name = "primary_name_only_linker"  # needs no training
    return config


def _keep_quiet() -> None:
    """To be called before medcat is imported: the import asks a package index for updates unless told not to.

    MedCAT logs four lines per text at level INFO, and a pack may switch on usage logs in the home folder.
    """
    os.environ.setdefault("MEDCAT_DISABLE_VERSION_CHECK", "True")
    os.environ.setdefault("MEDCAT_LOGS", "0")
    logging.getLogger("medcat").setLevel(logging.WARNING)
