"""The speaker encoder of the bundled voice: filter-bank energies to one vector of unit length.

Dilated separable convolutions with a view of the whole recording (squeeze and excitation), and a weighted mean and
deviation over time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NUM_MELS = 80
EMBED_DIM = 192
VARIANCE_FLOOR = 1e-5
LENGTH_FLOOR = 1e-8

_BOTTLENECK = 4  # width of the squeezed view and of the attention, as a divisor


@dataclass(frozen=True, slots=True)
class SpeakerShape:
    width: int
    blocks: int
    pooled: int  # channels whose mean and deviation are taken


class SpeakerNet(nn.Module):
    """(B, T, 80) to (B, 192) of unit length."""

    def __init__(self, shape: SpeakerShape) -> None:
        super().__init__()
        self.shape = shape
        self.stem = NormalisedConv(NUM_MELS, shape.width, 5)
        self.blocks = nn.ModuleList(SpeakerBlock(shape.width, 1 + number) for number in range(shape.blocks))
        self.gather = nn.Conv1d(shape.width * shape.blocks, shape.pooled, 1)
        self.attend = nn.Conv1d(shape.pooled, shape.pooled // _BOTTLENECK, 1)
        self.weigh = nn.Conv1d(shape.pooled // _BOTTLENECK, shape.pooled, 1)
        self.norm: nn.Module = nn.BatchNorm1d(2 * shape.pooled)
        self.project = nn.Linear(2 * shape.pooled, EMBED_DIM)

    def forward(self, fbank: Tensor, mask: Tensor | None = None) -> Tensor:
        """fbank: (B, T, 80) minus its mean over time; mask: (B, T), 1 for frames of the recording."""
        mask = fbank.new_ones(fbank.shape[:2]) if mask is None else mask
        mask = mask[:, None]
        x = self.stem(fbank.transpose(1, 2)) * mask
        outputs = []
        for block in self.blocks:
            x = block(x, mask)
            outputs.append(x)
        x = F.relu(self.gather(torch.cat(outputs, dim=1)))
        scores = self.weigh(torch.tanh(self.attend(x))).float() - 1e4 * (1.0 - mask)
        weights = scores.softmax(dim=2)
        x = x.float()
        mean = (x * weights).sum(dim=2)
        deviation = ((x - mean[..., None]).square() * weights).sum(dim=2).clamp(min=VARIANCE_FLOOR).sqrt()
        embedding = self.project(self.norm(torch.cat([mean, deviation], dim=1))).float()
        # unit length before anybody stores it in half precision
        return F.normalize(embedding, dim=1, eps=LENGTH_FLOOR)


class NormalisedConv(nn.Module):
    """Convolution, batch norm, ReLU; `folded` for inference. Keeps the length."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.norm: nn.Module = nn.BatchNorm1d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class SpeakerBlock(nn.Module):
    """Depthwise and pointwise convolution, batch norm, ReLU, and a gate by the whole recording; added to its input."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(width, width, 5, padding=2 * dilation, dilation=dilation, groups=width)
        self.pointwise = NormalisedConv(width, width, 1)
        self.squeeze = nn.Linear(width, width // _BOTTLENECK)
        self.excite = nn.Linear(width // _BOTTLENECK, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x: (B, width, T), 0 outside mask (B, 1, T)"""
        y: Tensor = self.pointwise(self.depthwise(x)) * mask
        mean = y.sum(dim=2) / mask.sum(dim=2)
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(mean))))
        return x + y * gate[..., None]


class ScaleAndShift(nn.Module):
    """What is left of a batch norm in inference."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, channels)"""
        return x * self.weight + self.bias


def folded(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state of `SpeakerNet` with the batch norms' statistics gone: what `plain_speaker_net` holds.

    Those after a convolution become part of it. The one before the last layer stays as a scale and a shift: its
    channels differ so much that that layer's weights, multiplied by it, do not survive being stored in 8 bits.
    """
    plain = dict(weights)
    for name in [key.removesuffix(".running_var") for key in weights if key.endswith(".running_var")]:
        scale = weights[f"{name}.weight"] / (weights[f"{name}.running_var"] + nn.BatchNorm1d(1).eps).sqrt()
        shift = weights[f"{name}.bias"] - weights[f"{name}.running_mean"] * scale
        for key in [key for key in weights if key.startswith(f"{name}.")]:
            del plain[key]
        if name == "norm":
            plain |= {"norm.weight": scale, "norm.bias": shift}
        else:
            conv = name.removesuffix("norm") + "conv"
            plain[f"{conv}.weight"] = weights[f"{conv}.weight"] * scale[:, None, None]
            plain[f"{conv}.bias"] = shift
    return plain


def plain_speaker_net(shape: SpeakerShape, weights: dict[str, Tensor]) -> SpeakerNet:
    """A network for inference without batch norm, from `folded` weights."""
    net = SpeakerNet(shape)
    net.norm = ScaleAndShift(2 * shape.pooled)
    for module in net.modules():
        if isinstance(module, NormalisedConv):
            conv = module.conv
            module.conv = nn.Conv1d(
                conv.in_channels, conv.out_channels, conv.kernel_size[0], padding=conv.padding[0]
            )
            module.norm = nn.Identity()
    net.load_state_dict(weights)
    return net.requires_grad_(False).eval()
