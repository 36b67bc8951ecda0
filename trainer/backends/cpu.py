"""Operations that a CPU computes faster another way: the same up to rounding, and never needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers.models.activations import GELU
from diffusers.models.autoencoders.vae import Decoder
from diffusers.models.normalization import RMSNorm
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from peft.tuners.lora import LoraLayer
from torch.nn import functional
from torch.overrides import TorchFunctionMode

LONGEST = 512  # tokens; beyond, the table of all pairs costs more memory than the fused kernel costs time


def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None = None) -> torch.Tensor:
    """`softmax(q·kᵀ·scale)·v` of (…, T, D) in the inputs' precision, as plain products; `scale` defaults to `D^-1/2`."""
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    weights = torch.matmul(query * scale, key.transpose(-1, -2)).softmax(-1)
    return torch.matmul(weights.to(value.dtype), value)


class PlainAttention(TorchFunctionMode):
    """Inside, short attention without mask or dropout is made of plain products, whoever asks for it.

    The fused kernel's backward pass in bf16 takes five times as long, and its forward pass is slower too. In fp32 without
    gradient both take the same time, and looking at every operation costs a small batch 3%.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            made = self._plain(*args, **kwargs)
            if made is not None:
                return made
        return func(*args, **kwargs)

    @staticmethod
    def _plain(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
        if attn_mask is not None or dropout_p or is_causal or enable_gqa or key.shape[-2] > LONGEST:
            return None
        return attention(query, key, value, scale)


@contextmanager
def plain_attention_everywhere() -> Iterator[None]:
    """Inside, every thread's short attention is made of plain products: for compiled code, which cannot be traced under
    `PlainAttention`."""
    fused = functional.scaled_dot_product_attention

    def attend(*args, **kwargs):
        made = PlainAttention._plain(*args, **kwargs)
        return fused(*args, **kwargs) if made is None else made

    functional.scaled_dot_product_attention = attend
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = fused


class FastLinear(torch.nn.Linear):
    """A linear layer by oneDNN, without gradient. PyTorch's own choice in fp32 is MKL."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """See `Linear.forward`."""
        if torch.is_grad_enabled():
            return super().forward(hidden_states)
        return self.then(hidden_states, "none", "")

    def then(self, hidden_states: torch.Tensor, activation: str, kind: str) -> torch.Tensor:
        """The layer and an activation in one."""
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else self.weight.dtype
        weight, bias = (None if t is None else t.to(dtype) for t in (self.weight, self.bias))
        return torch.ops.mkldnn._linear_pointwise(hidden_states.to(dtype), weight, bias, activation, [], kind)


class FusedGELU(GELU):
    """Linear layer and GELU in one, without gradient: the GELU alone takes as long as the product in bf16."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """See `GELU.forward`."""
        layer = self.proj
        if isinstance(layer, LoraLayer) and layer.disable_adapters:
            layer = layer.get_base_layer()
        if torch.is_grad_enabled() or not isinstance(layer, FastLinear):
            return super().forward(hidden_states)
        return layer.then(hidden_states, "gelu", self.approximate)


class BriefRMSNorm(RMSNorm):
    """The norm of bf16 in bf16 but for its sum of squares: stock, everything after it is fp32 until the next product."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """See `RMSNorm.forward`."""
        if hidden_states.dtype != torch.bfloat16 or self.weight is None or self.bias is not None:
            return super().forward(hidden_states)
        norm = torch.linalg.vector_norm(hidden_states, dim=-1, keepdim=True, dtype=torch.float32)
        scale = (norm.square() / hidden_states.shape[-1] + self.eps).rsqrt()
        return hidden_states * scale.bfloat16() * self.weight.bfloat16()


class SiLUInPlace(torch.nn.SiLU):
    """Without gradient, writes over its input: for one that nobody else reads."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """See `SiLU.forward`."""
        return functional.silu(hidden_states, inplace=not torch.is_grad_enabled())

    @staticmethod
    def of(layer: torch.nn.Module) -> torch.nn.Module | None:
        """The layer's activation of what its own norm has just made, if it has one that serves nothing else."""
        if type(layer) is ResnetBlock2D and layer.time_emb_proj is None:
            return layer.nonlinearity
        return layer.conv_act if type(layer) is Decoder else None


class FoldedUpsample(Upsample2D):
    """Doubling by nearest neighbours and a 3 × 3 convolution as one transposed convolution, with 4/9 of the products."""

    def forward(self, hidden_states: torch.Tensor, output_size: tuple[int, int] | None = None) -> torch.Tensor:
        """See `Upsample2D.forward`."""
        if output_size is not None:
            return super().forward(hidden_states, output_size)
        # Both of a pixel's copies meet the weights, one place apart: along each axis (a, b, c) → (a, a + b, b + c, c).
        weight = self.conv.weight.transpose(0, 1).flip(2, 3)
        weight = functional.pad(weight, (0, 1)) + functional.pad(weight, (1, 0))
        weight = functional.pad(weight, (0, 0, 0, 1)) + functional.pad(weight, (0, 0, 1, 0))
        return functional.conv_transpose2d(hidden_states, weight, self.conv.bias, stride=2, padding=1)

    @staticmethod
    def fits(layer: Upsample2D) -> bool:
        """Whether the layer can be one."""
        plain = layer.norm is None and layer.interpolate and layer.use_conv and not layer.use_conv_transpose
        return plain and layer.name == "conv" and layer.conv.kernel_size == (3, 3) and layer.conv.padding == (1, 1)


FAST = (FastLinear, FusedGELU, BriefRMSNorm, FoldedUpsample)


def one_dnn() -> bool:
    """Whether oneDNN has this CPU's bf16, and so the layers that are its own are faster."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def rewrite(model: torch.nn.Module) -> None:
    """Make the model's layers those above where they fit. Weights stay as they are."""
    fused = one_dnn()
    for layer in model.modules():
        for fast in FAST:
            if type(layer) is fast.__base__ and (fast.fits(layer) if fast is FoldedUpsample else fused):
                layer.__class__ = fast
        if type(activation := SiLUInPlace.of(layer)) is torch.nn.SiLU:
            activation.__class__ = SiLUInPlace


def restore(model: torch.nn.Module) -> None:
    """Undo `rewrite`."""
    for layer in model.modules():
        if isinstance(layer, (*FAST, SiLUInPlace)):
            layer.__class__ = type(layer).__base__
