"""Attention made of plain products is attention."""

import pytest
import torch
from torch.nn import functional

from trainer.backends import attention
from trainer.backends.attention import PlainAttention


def inputs(tokens=9):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, tokens, 8, generator=generator, requires_grad=True) for _ in range(3)]


@pytest.mark.parametrize("scale", [None, 0.7])
def test_it_equals_the_fused_kernel_and_so_do_its_gradients(scale):
    found = []
    for mode in (False, True):
        q, k, v = inputs()
        with PlainAttention() if mode else torch.enable_grad():
            out = functional.scaled_dot_product_attention(q, k, v, scale=scale)
        out.square().sum().backward()
        found.append([out, q.grad, k.grad, v.grad])
    for fused, plain in zip(*found, strict=True):
        assert torch.allclose(fused, plain, atol=1e-5)


@pytest.mark.parametrize("case", ["mask", "causal", "long", "plain"])
def test_what_it_cannot_do_is_left_to_pytorch(case, monkeypatch):
    asked = []
    monkeypatch.setattr(attention, "attention", lambda q, k, v, scale: asked.append(case) or q)
    if case == "long":
        monkeypatch.setattr(attention, "LONGEST", 8)
    options = {"mask": {"attn_mask": torch.ones(9, 9).tril().bool()}, "causal": {"is_causal": True}}.get(case, {})
    q, k, v = inputs()
    with PlainAttention():
        out = functional.scaled_dot_product_attention(q, k, v, **options)
    assert asked == (["plain"] if case == "plain" else [])
    if options:
        masked = functional.scaled_dot_product_attention(q, k, v, attn_mask=torch.ones(9, 9).tril().bool())
        assert torch.allclose(out, masked)
