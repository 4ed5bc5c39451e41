"""Tiny models with random weights, saved by the library that makes the real ones, in its own format."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    EomtConfig,
    EomtForUniversalSegmentation,
    EomtImageProcessor,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessor,
    SwinConfig,
)

LABELS = {0: "person", 1: "cat", 2: "sky-other-merged", 3: "tree-merged"}
_BIAS = (0.3, 0.2, 0.1, 0.1, -3.0)
"""Queries of a random net say "nothing" or all the same; with this bias and larger queries they differ."""


def save_tiny_eomt(folder: Path) -> Path:
    """An EoMT of 6 queries at 64 px, with its processor."""
    torch.manual_seed(0)
    config = EomtConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=64,
        patch_size=16,
        num_queries=6,
        num_blocks=1,
        num_upscale_blocks=1,
        id2label=LABELS,
        label2id={name: key for key, name in LABELS.items()},
    )
    model = EomtForUniversalSegmentation(config)
    with torch.no_grad():
        model.class_predictor.bias.copy_(torch.tensor(_BIAS))
        model.query.weight.mul_(30)
    model.save_pretrained(folder)
    size = {"shortest_edge": 64, "longest_edge": 64}
    EomtImageProcessor(size=size, do_split_image=False, do_pad=True).save_pretrained(folder)
    return folder


def save_tiny_mask2former(folder: Path) -> Path:
    """A Mask2Former of 6 queries over a Swin, with its processor."""
    torch.manual_seed(0)
    backbone = SwinConfig(
        embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=4, out_indices=[1, 2, 3, 4]
    )
    config = Mask2FormerConfig(
        backbone_config=backbone,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=16,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        dim_feedforward=16,
        num_queries=6,
        id2label=LABELS,
        label2id={name: key for key, name in LABELS.items()},
    )
    model = Mask2FormerForUniversalSegmentation(config)
    with torch.no_grad():
        model.class_predictor.bias.copy_(torch.tensor(_BIAS))
        model.model.transformer_module.queries_features.weight.mul_(30)
    model.save_pretrained(folder)
    Mask2FormerImageProcessor(size={"shortest_edge": 64, "longest_edge": 96}).save_pretrained(folder)
    return folder
