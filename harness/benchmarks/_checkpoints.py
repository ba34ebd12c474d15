"""Checkpoints of base size with random weights, for timing: layouts and sizes of the real ones, no download."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml
from bleurt_pytorch import BleurtConfig, BleurtForSequenceClassification
from transformers import BertConfig, BertModel, RobertaConfig, RobertaForMaskedLM

from harness.encoders import checkpoint as _checkpoint
from harness.encoders.medimageinsight import empty_net, read_config
from harness.encoders.pair_files import TWIN
from harness.metrics._alignscore_net import AlignNet
from harness.metrics.embedded import alignscore, bleurt, pair_encoder

VOCABULARY = 6000  # of the tokenizers, learnt from the captions at hand: real captions split into few pieces
SPREAD = 0.06  # of the random weights: with the usual 0.02 all pairs would score alike
TINY = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
D12 = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 12, "num_attention_heads": 16}


class Aligner(AlignNet):
    """AlignScore's published modules, the language-model head included, which scoring never needs."""

    def __init__(self, config: RobertaConfig) -> None:
        super().__init__(config)
        self.mlm_head = RobertaForMaskedLM(config).lm_head


def write(folder: Path, captions: Sequence[str], *, tiny: bool) -> dict[str, Path]:
    """One folder per metric that reads with a network. `tiny`: two layers, to try the benchmark out."""
    torch.manual_seed(0)
    folders = {name: folder / name for name in ("bertscore", "bleurt", "alignscore", "similarity")}
    for path in folders.values():
        path.mkdir(parents=True)
    _bert(folders["bertscore"], TINY if tiny else {})
    _bleurt(folders["bleurt"], captions, tiny=tiny)
    _aligner(folders["alignscore"], captions, TINY if tiny else {})
    _pair_encoder(folders["similarity"], captions, tiny=tiny)
    return folders


def _bert(folder: Path, sizes: dict[str, int]) -> None:
    """BERT-base with MiniLM's words."""
    BertModel(BertConfig(**sizes, initializer_range=SPREAD)).save_pretrained(folder)
    source = _checkpoint.locate(_checkpoint.MINILM)
    assert source is not None
    for name in ("vocab.txt", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(source / name, folder)


def _bleurt(folder: Path, captions: Sequence[str], *, tiny: bool) -> None:
    """BLEURT-20-D12's sizes but for the vocabulary."""
    words = bleurt.write_tokenizer(folder, captions, 1000 if tiny else VOCABULARY)
    config = BleurtConfig(
        **(TINY if tiny else D12),
        vocab_size=len(words),
        embedding_size=128,
        max_position_embeddings=512,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=SPREAD,
    )
    BleurtForSequenceClassification(config).save_pretrained(folder)


def _aligner(folder: Path, captions: Sequence[str], sizes: dict[str, int]) -> None:
    """RoBERTa-base as a Lightning checkpoint, with a vocabulary from the captions and an output head of full width."""
    alignscore.write_tokenizer(folder, captions, VOCABULARY)
    config = RobertaConfig(
        vocab_size=50265, max_position_embeddings=514, type_vocab_size=1, initializer_range=SPREAD, **sizes
    )
    torch.save({"state_dict": Aligner(config).state_dict()}, folder / "AlignScore-base.ckpt")


def _pair_encoder(folder: Path, captions: Sequence[str], *, tiny: bool) -> None:
    """MedImageInsight at half its width and its own picture size: picture and text cost 18 to 1, as in the original."""
    words = pair_encoder.write_tokenizer(folder / "language_model" / "clip_tokenizer_4.16.2", captions, VOCABULARY)
    config = read_config(TWIN / "config.yaml")
    if not tiny:
        config["IMAGE_ENCODER"] |= {"IMAGE_SIZE": [480, 480]}
        config["IMAGE_ENCODER"]["SPEC"] |= {
            "DIM_EMBED": [128, 256, 512, 1024],
            "NUM_HEADS": [4, 8, 16, 32],
            "NUM_GROUPS": [4, 8, 16, 32],
            "DEPTHS": [1, 1, 9, 1],
            "WINDOW_SIZE": 12,
        }
        config["LANG_ENCODER"] |= {"WIDTH": 512, "HEADS": 8, "LAYERS": 16}
        config["UNICL_MODEL"] |= {"DIM_PROJECTION": 512}
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    net = pair_encoder.start(empty_net(config, words), pair_encoder.Recipe())
    pair_encoder.save(net, folder)
