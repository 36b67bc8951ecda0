"""What a CPU computes another way is the same."""

import pytest
import torch
from diffusers.models.activations import GELU
from diffusers.models.normalization import RMSNorm
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch.nn import functional

from tests.trainer.conftest import build_tiny_model
from trainer.backends import cpu, load_backend
from trainer.backends.cpu import (
    BriefRMSNorm,
    FastLinear,
    FoldedUpsample,
    FusedGELU,
    PlainAttention,
    SiLUInPlace,
    restore,
    rewrite,
)
from trainer.roles import STUDENT, TDM_ROLES, TEACHER, Roles


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
    monkeypatch.setattr(cpu, "attention", lambda q, k, v, scale: asked.append(case) or q)
    if case == "long":
        monkeypatch.setattr(cpu, "LONGEST", 8)
    options = {"mask": {"attn_mask": torch.ones(9, 9).tril().bool()}, "causal": {"is_causal": True}}.get(case, {})
    q, k, v = inputs()
    with PlainAttention():
        out = functional.scaled_dot_product_attention(q, k, v, **options)
    assert asked == (["plain"] if case == "plain" else [])
    if options:
        masked = functional.scaled_dot_product_attention(q, k, v, attn_mask=torch.ones(9, 9).tril().bool())
        assert torch.allclose(out, masked)


@pytest.fixture
def one_dnn(monkeypatch):
    """As on a CPU with oneDNN's bf16, which another may compute too, slowly."""
    monkeypatch.setattr(cpu, "one_dnn", lambda: True)


LAYERS = {
    "linear": (lambda: torch.nn.Linear(6, 5), FastLinear, (2, 3, 6)),
    "linear without bias": (lambda: torch.nn.Linear(6, 5, bias=False), FastLinear, (2, 3, 6)),
    "gelu": (lambda: GELU(6, 8), FusedGELU, (2, 3, 6)),
    "gelu of tanh": (lambda: GELU(6, 8, approximate="tanh"), FusedGELU, (2, 3, 6)),
    "upsample": (lambda: Upsample2D(4, use_conv=True, out_channels=6), FoldedUpsample, (2, 4, 5, 3)),
}


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize(("make", "fast", "shape"), LAYERS.values(), ids=LAYERS)
def test_a_rewritten_layer_gives_the_same(make, fast, shape, bf16, one_dnn):
    if bf16 and fast is not FoldedUpsample and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("oneDNN has no bf16 on this CPU")
    torch.manual_seed(0)
    model, x = torch.nn.Sequential(make()), torch.randn(shape)

    def out():
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return model(x)

    stock, names = out(), list(model.state_dict())
    rewrite(model)
    assert type(model[0]) is fast and list(model.state_dict()) == names
    made = out()
    assert made.dtype == stock.dtype
    assert torch.allclose(made.float(), stock.float(), atol=0.03 if bf16 else 1e-5)
    restore(model)
    assert type(model[0]) is fast.__base__ and torch.equal(out(), stock)


def test_a_rewritten_layer_has_the_same_gradient(one_dnn):
    torch.manual_seed(0)
    model, x = torch.nn.Sequential(torch.nn.Linear(6, 6), GELU(6, 8)), torch.randn(4, 6, requires_grad=True)
    found = []
    for change in (restore, rewrite):
        change(model)
        found.append(torch.autograd.grad(model(x).square().sum(), [x, *model.parameters()]))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_norm_of_bf16_stays_in_bf16_and_one_of_fp32_is_the_stock_one(one_dnn):
    torch.manual_seed(0)
    model, x = torch.nn.Sequential(RMSNorm(8, eps=1e-6)), torch.randn(2, 3, 5, 8)
    torch.nn.init.uniform_(model[0].weight, 0.5, 1.5)
    found = []
    for change in (restore, rewrite):
        change(model)
        brief = x.bfloat16().requires_grad_()
        out = model(brief)
        found.append((out.float(), torch.autograd.grad(out.float().square().sum(), brief)[0].float(), model(x)))
    assert type(model[0]) is BriefRMSNorm and out.dtype == torch.bfloat16
    (stock, stock_gradient, whole), (made, gradient, same) = found
    for a, b in ((made, stock), (gradient, stock_gradient)):
        assert (a - b).norm() < 0.02 * b.norm()
    assert torch.equal(whole, same)


def test_only_an_activation_of_the_layer_s_own_norm_writes_over_its_input():
    torch.manual_seed(0)
    own, shared = (ResnetBlock2D(in_channels=8, groups=2, temb_channels=n) for n in (None, 4))
    x, temb = torch.randn(1, 8, 4, 4), torch.randn(1, 4)
    with torch.no_grad():
        stock = own(x.clone(), None)
        rewrite(torch.nn.Sequential(own, shared))
        assert [type(layer.nonlinearity) for layer in (own, shared)] == [SiLUInPlace, torch.nn.SiLU]
        given = x.clone()
        assert torch.equal(own(given, None), stock) and torch.equal(given, x)
        before = temb.clone()
        shared(x, temb)
        assert torch.equal(temb, before)
    own(x.clone().requires_grad_(), None).sum().backward()
    restore(own)
    assert type(own.nonlinearity) is torch.nn.SiLU


def test_only_what_is_a_3x3_convolution_after_doubling_is_folded():
    others = (
        Upsample2D(4),
        Upsample2D(4, use_conv_transpose=True),
        Upsample2D(4, use_conv=True, kernel_size=1, padding=0),
    )
    model = torch.nn.Sequential(*others, Upsample2D(4, use_conv=True))
    rewrite(model)
    assert [type(layer) for layer in model] == [Upsample2D, Upsample2D, Upsample2D, FoldedUpsample]
    x = torch.randn(1, 4, 3, 3)
    assert model[3](x, (7, 5)).shape == (1, 4, 7, 5)


def test_a_gelu_under_an_adapter_has_the_adapter(tmp_path, one_dnn):
    backend = load_backend(build_tiny_model(tmp_path))
    roles = Roles(backend.transformer, backend.lora_targets, rank=4, alpha=8, roles=TDM_ROLES)
    for p in roles.parameters(STUDENT):
        torch.nn.init.normal_(p, std=0.2)
    layer = next(m for m in backend.transformer.modules() if type(m) is FusedGELU)
    x = torch.randn(2, 3, layer.proj.in_features)
    out = {}
    for role in (STUDENT, TEACHER):
        roles.use(role)
        with_gradient = layer(x)  # PyTorch's own
        with torch.no_grad():
            out[role] = layer(x)
        assert torch.allclose(out[role], with_gradient, atol=1e-5)
    assert not torch.allclose(out[STUDENT], out[TEACHER], atol=1e-2)
