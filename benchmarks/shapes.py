"""EoMT-L and LaMa with random weights: nets of the real sizes where the real weights are not at hand.

What they cost is that of the real ones; what they see and paint is noise. EoMT comes from transformers' own classes. LaMa
is the generator of Suvorov et al., "Resolution-robust Large Mask Inpainting with Fourier Convolutions" (WACV 2022) as its
`big-lama` config has it: 64 channels, three times halved, 18 blocks, three quarters of the channels in the spectral branch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from occpipe.models.segmenters.starter import load_weights

EOMT_L: dict[str, Any] = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 640,
    "patch_size": 16,
    "num_blocks": 4,
    "num_queries": 200,
    "num_register_tokens": 4,
    "layerscale_value": 1e-5,
}
"""The config of tue-mps/coco_panoptic_eomt_large_640."""

SMALL = EOMT_L | {
    "hidden_size": 32,
    "num_hidden_layers": 5,
    "num_attention_heads": 2,
    "image_size": 64,
    "num_queries": 5,
}


def save_eomt(folder: Path, shape: dict[str, Any], names: Sequence[str] | None = None) -> None:
    """A model folder of transformers, with random weights and these classes, by default those of the starter."""
    from transformers import EomtConfig, EomtForUniversalSegmentation, EomtImageProcessor

    names = names or load_weights()[1].classes
    torch.manual_seed(0)
    config = EomtConfig(**shape, id2label=dict(enumerate(names)), label2id={name: n for n, name in enumerate(names)})
    model = EomtForUniversalSegmentation(config).eval()
    model.attn_mask_probs.zero_()  # as in released weights: masked attention is for training, and takes 7 GB for 32 photos
    model.save_pretrained(folder)
    side = shape["image_size"]
    EomtImageProcessor(size={"shortest_edge": side, "longest_edge": side}, do_pad=True).save_pretrained(folder)


def save_lama(path: Path, channels: int = 64, blocks: int = 18) -> None:
    """A TorchScript archive as `big-lama.pt` is one."""
    torch.manual_seed(0)
    example = (torch.zeros(1, 3, 64, 64), torch.zeros(1, 1, 64, 64))
    traced = torch.jit.trace(Lama(channels, blocks).eval(), example)  # type: ignore[no-untyped-call]  # torch's
    torch.jit.save(traced, path)


class Lama(nn.Module):
    """Image, B x 3 x H x W in [0, 1], and mask, B x 1 x H x W, to a filled image; sides are multiples of 8."""

    def __init__(self, channels: int = 64, blocks: int = 18) -> None:
        super().__init__()
        self.stem = _conv(4, channels, 7, 1)
        self.down = nn.Sequential(*(_conv(channels * 2**n, channels * 2 ** (n + 1), 3, 2) for n in range(3)))
        width = 8 * channels
        self.blocks = nn.ModuleList(_Block(width // 4, width - width // 4) for _ in range(blocks))
        self.local = width // 4
        self.up = nn.Sequential(*(_up(channels * 2 ** (n + 1), channels * 2**n) for n in reversed(range(3))))
        self.out = nn.Conv2d(channels, 3, 7, padding=3, padding_mode="reflect")

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        x = self.down(self.stem(torch.cat([image * (1 - mask), mask], 1)))
        near, far = x[:, : self.local], x[:, self.local :]
        for block in self.blocks:
            near, far = block(near, far)
        painted = torch.sigmoid(self.out(self.up(torch.cat([near, far], 1))))
        return mask * painted + (1 - mask) * image


class _Block(nn.Module):
    def __init__(self, near: int, far: int) -> None:
        super().__init__()
        self.first, self.second = _Fourier(near, far), _Fourier(near, far)

    def forward(self, near: Tensor, far: Tensor) -> tuple[Tensor, Tensor]:
        n, f = self.second(*self.first(near, far))
        return near + n, far + f


class _Fourier(nn.Module):
    """Fast Fourier convolution: a local branch and a spectral one, each fed by both (section 2.1)."""

    def __init__(self, near: int, far: int) -> None:
        super().__init__()
        reflect: dict[str, Any] = {"padding": 1, "padding_mode": "reflect", "bias": False}
        self.near_near, self.far_near = nn.Conv2d(near, near, 3, **reflect), nn.Conv2d(far, near, 3, **reflect)
        self.near_far, half = nn.Conv2d(near, far, 3, **reflect), far // 2
        self.enter = nn.Sequential(nn.Conv2d(far, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU())
        self.spectrum = nn.Sequential(nn.Conv2d(far, far, 1, bias=False), nn.BatchNorm2d(far), nn.ReLU())
        self.leave = nn.Conv2d(half, far, 1, bias=False)
        self.norm_near, self.norm_far = (nn.Sequential(nn.BatchNorm2d(n), nn.ReLU()) for n in (near, far))

    def forward(self, near: Tensor, far: Tensor) -> tuple[Tensor, Tensor]:
        x = self.enter(far)
        waves = torch.fft.rfftn(x, dim=(-2, -1), norm="ortho")
        real, imaginary = self.spectrum(torch.cat([waves.real, waves.imag], 1)).chunk(2, 1)
        back = torch.fft.irfftn(torch.complex(real, imaginary), s=x.shape[-2:], dim=(-2, -1), norm="ortho")
        to_far = self.near_far(near) + self.leave(x + back)
        return self.norm_near(self.near_near(near) + self.far_near(far)), self.norm_far(to_far)


def _conv(c_in: int, c_out: int, kernel: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, padding_mode="reflect", bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out), nn.ReLU())


def _up(c_in: int, c_out: int) -> nn.Sequential:
    conv = nn.ConvTranspose2d(c_in, c_out, 3, 2, 1, output_padding=1)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out), nn.ReLU())
