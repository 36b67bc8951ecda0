"""Frozen linear layers that hold a weight in a byte (int8, fp8) or half a byte (nf4) and compute in the model's precision.

Codes and scales are plain buffers, so they move, stream and are planned for as any tensor. docs/decisions.md says why these
are not torchao's tensors; tests/stock holds their errors against torchao's.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch.nn import functional

from trainer.backends.cpu import FastLinear

NF4_BLOCK = 64  # weights that share a scale
CHUNK = 2**18  # nf4 blocks that are coded at once: a layer's copies in fp32 would be larger than the layer
MOST = {"int8": 127.0, "fp8": 448.0}
# The 16 quantiles of a normal distribution that QLoRA (arXiv 2305.14314) takes; bitsandbytes' and torchao's numbers.
NF4 = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)


def encode(weight: torch.Tensor, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(codes, scale) of a weight (out, in): a scale a row in fp32, or with nf4 one a block of 64 in bf16."""
    if kind == "nf4":
        return _encode_nf4(weight)
    scale = weight.abs().amax(1, keepdim=True).float().clamp_min(torch.finfo(torch.float32).tiny) / MOST[kind]
    codes = weight / scale
    return (codes.round().to(torch.int8) if kind == "int8" else codes.to(torch.float8_e4m3fn)), scale


def _encode_nf4(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    flat = weight.flatten()
    blocks = functional.pad(flat, (0, -len(flat) % NF4_BLOCK)).view(-1, NF4_BLOCK)
    scale = blocks.abs().amax(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny).bfloat16()
    levels = torch.tensor(NF4, device=weight.device)
    between = (levels[1:] + levels[:-1]) / 2
    parts = [
        torch.bucketize(block.float() / unit.float(), between, out_int32=True).to(torch.uint8)
        for block, unit in zip(blocks.split(CHUNK), scale.split(CHUNK), strict=True)
    ]
    codes = torch.cat(parts)
    return codes[:, 0::2] * 16 + codes[:, 1::2], scale


def decode(
    codes: torch.Tensor, scale: torch.Tensor, kind: str, shape: tuple[int, int], dtype: torch.dtype
) -> torch.Tensor:
    """The weight (out, in) in `dtype` that codes and scales stand for; rounded once, since the product is made in fp32."""
    if kind != "nf4":
        return codes.to(dtype).mul_(scale)
    levels = torch.tensor(NF4, device=codes.device, dtype=dtype)
    pairs = torch.stack([levels.repeat_interleave(16), levels.repeat(16)], 1)  # of a byte
    # int32 and a lookup of pairs: indexing wants int64, eight bytes a weight.
    values = functional.embedding(codes.int(), pairs).flatten(1).mul_(scale)
    return values.flatten()[: shape[0] * shape[1]].view(shape)


class _Product(torch.autograd.Function):
    """`x·Wᵀ` whose gradient decodes W again; autograd's own would keep every decoded weight until the backward pass."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, codes: torch.Tensor, scale: torch.Tensor, kind: str, shape: tuple[int, int]):
        ctx.save_for_backward(codes, scale)
        ctx.kind, ctx.shape = kind, shape
        return functional.linear(x, decode(codes, scale, kind, shape, x.dtype))

    @staticmethod
    def backward(ctx, gradient: torch.Tensor):
        codes, scale = ctx.saved_tensors
        return gradient @ decode(codes, scale, ctx.kind, ctx.shape, gradient.dtype), None, None, None, None


class QuantisedLinear(torch.nn.Linear):
    """A frozen linear layer from codes. `weight` is decoded whenever somebody asks for it, and cannot be written to."""

    whole = False  # adapters cannot be added into it; see `Roles.merged`

    def __init__(self, layer: torch.nn.Linear, kind: str, device: torch.device):
        """Codes the layer's weight on the device; the codes are then where the weight was. The bias stays as it is."""
        torch.nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.kind, self.dtype = kind, layer.weight.dtype
        codes, scale = encode(layer.weight.detach().to(device), kind)
        self.register_buffer("codes", codes.to(layer.weight.device))
        self.register_buffer("scale", scale.to(layer.weight.device))
        self.bias = layer.bias

    @property
    def weight(self) -> torch.Tensor:
        """(out, in), in the precision that the layer had."""
        return decode(self.codes, self.scale, self.kind, (self.out_features, self.in_features), self.dtype)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """See `Linear.forward`; in autocast's precision where it is on."""
        kind, shape = hidden_states.device.type, (self.out_features, self.in_features)
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden_states.dtype
        made = _Product.apply(hidden_states.to(dtype), self.codes, self.scale, self.kind, shape)
        return made if self.bias is None else made + self.bias.to(dtype)


def _coded_layers(model: torch.nn.Module, kept: Collection[str], above: str = "") -> list[tuple[str, torch.nn.Linear]]:
    """Those without a name in `kept` in their path; one that begins with a dot counts at the network's top alone. `above`
    is where in the network the model is, if it is a part of it."""
    return [
        (name, layer)
        for name, layer in model.named_modules()
        if type(layer) in (torch.nn.Linear, FastLinear) and not any(f".{part}." in f".{above}.{name}." for part in kept)
    ]


def saved(model: torch.nn.Module, kind: str, kept: Collection[str], above: str = "") -> int:
    """Bytes that `quantise` would save; nothing is changed. `above` as in the network of which the model is a part."""
    total = 0
    for _, layer in _coded_layers(model, kept, above) if kind != "none" else ():
        blocks = -(-layer.weight.numel() // NF4_BLOCK)
        coded = blocks * (NF4_BLOCK // 2 + 2) if kind == "nf4" else layer.weight.numel() + 4 * layer.out_features
        total += layer.weight.nbytes - coded
    return total


def quantise(model: torch.nn.Module, kind: str, kept: Collection[str], device: torch.device) -> int:
    """Code the model's linear layers, but for those under a name in `kept` (with a dot before it: at the top alone), one
    by one on the device, and leave each where it was; returns how many."""
    found = _coded_layers(model, kept)
    for name, layer in found:
        model.set_submodule(name, QuantisedLinear(layer, kind, device))
    return len(found)
