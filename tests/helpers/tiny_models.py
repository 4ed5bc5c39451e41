"""Tiny models with random weights, saved by the library that makes the real ones, in its own format."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch
from transformers import (
    CLIPTokenizer,
    EomtConfig,
    EomtForUniversalSegmentation,
    EomtImageProcessor,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessor,
    Owlv2Config,
    Owlv2ForObjectDetection,
    Owlv2ImageProcessor,
    Owlv2Processor,
    Sam2Config,
    Sam2ImageProcessor,
    Sam2Model,
    Sam2Processor,
    Sam3Config,
    Sam3ImageProcessor,
    Sam3Model,
    Sam3Processor,
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


def save_tiny_sam3(folder: Path) -> Path:
    """A SAM 3 of 6 queries at 64 px, with a tokenizer of single letters; what it finds depends on the word."""
    torch.manual_seed(0)
    tokenizer = _letters()
    layer = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    view: dict[str, Any] = {**layer, "num_hidden_layers": 2, "image_size": 64, "patch_size": 8, "window_size": 4}
    view |= {"model_type": "sam3_vit_model", "global_attn_indexes": [1], "pretrain_image_size": 64}
    config = Sam3Config(
        vision_config={
            "backbone_config": view,
            "fpn_hidden_size": 32,
            "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
        },
        text_config=_text(tokenizer, 32),
        geometry_encoder_config={**layer, "num_layers": 1},
        detr_encoder_config={**layer, "num_layers": 1},
        detr_decoder_config={**layer, "num_layers": 2, "num_queries": 6},
        mask_decoder_config={"hidden_size": 32, "num_upsampling_stages": 2, "num_attention_heads": 2},
    )
    model = Sam3Model(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "presence_head" in name and name.endswith("bias"):
                weight.fill_(5)  # something is there
            if "dot_product_scoring" in name and "proj" in name:
                weight.mul_(40)
            if "text_projection" in name or "text_mlp" in name:
                weight.mul_(20)  # words differ
            if "mask_embedder" in name and name.endswith("weight"):
                weight.mul_(8)
    model.save_pretrained(folder)
    Sam3Processor(Sam3ImageProcessor(size={"height": 64, "width": 64}), tokenizer).save_pretrained(folder)
    return folder


def _letters() -> CLIPTokenizer:
    letters = [*string.ascii_lowercase, "-"]
    entries = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={entry: n for n, entry in enumerate(entries)}, merges=[], model_max_length=32)


def _text(tokenizer: CLIPTokenizer, length: int) -> dict[str, Any]:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    return {**sizes, **ends, "vocab_size": len(tokenizer), "max_position_embeddings": length, "projection_dim": 32}


def save_tiny_owlv2(folder: Path) -> Path:
    """An OWLv2 at 64 px, with a tokenizer of single letters."""
    torch.manual_seed(0)
    tokenizer = _letters()
    view = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Owlv2Config(
        text_config=_text(tokenizer, 16), vision_config={**view, "image_size": 64, "patch_size": 16}, projection_dim=32
    )
    Owlv2ForObjectDetection(config).save_pretrained(folder)
    tokenizer.model_max_length = 16
    Owlv2Processor(Owlv2ImageProcessor(size={"height": 64, "width": 64}), tokenizer).save_pretrained(folder)
    return folder


def save_tiny_sam2(folder: Path) -> Path:
    """A SAM 2 at 128 px."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "blocks_per_stage": [1, 2, 3, 2],
        "embed_dim_per_stage": [32, 64, 128, 256],
    }
    sizes |= {"num_attention_heads_per_stage": [1, 1, 1, 1], "image_size": [128, 128], "global_attention_blocks": [5]}
    config = Sam2Config(
        vision_config={
            "backbone_config": {"model_type": "sam2_hiera_det_model", **sizes},
            "backbone_channel_list": [256, 128, 64, 32],
            "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
            "fpn_hidden_size": 32,
        },
        prompt_encoder_config={"hidden_size": 32, "image_size": 128},
        mask_decoder_config={"hidden_size": 32, "mlp_dim": 64, "num_attention_heads": 2, "iou_head_hidden_dim": 32},
    )
    Sam2Model(config).save_pretrained(folder)
    Sam2Processor(Sam2ImageProcessor(size={"height": 128, "width": 128})).save_pretrained(folder)
    return folder
