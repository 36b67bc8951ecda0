"""Weights as codes: their errors, what stays whole, gradients and memory. The conformance suite runs under each too."""

import dataclasses

import pytest
import torch
from torch.nn import functional

from common.settings import MemorySettings
from trainer.backends import load_backend
from trainer.backends.quantised import NF4, QuantisedLinear, decode, encode, quantise, saved
from trainer.roles import FAKE, STUDENT, Roles
from trainer.sampler import initial_noise, sample_latents

KINDS = ("int8", "fp8", "nf4")
PROMPTS = ["a red star", "two blue hearts"]
MOST = {"int8": 0.03, "fp8": 0.08, "nf4": 0.25}  # of a velocity's and a 4-step image's own spread
CPU = torch.device("cpu")


def coded(model):
    return {name for name, layer in model.named_modules() if isinstance(layer, QuantisedLinear)}


def apart(one, two):
    return ((one - two).norm() / two.norm()).item()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(48, 64), (7, 24), (3, 5)])  # also where blocks of 64 do not fill rows
def test_codes_are_close_and_small(kind, shape):
    torch.manual_seed(0)
    weight = torch.randn(shape) * torch.logspace(-3, 1, shape[0]).unsqueeze(1)
    codes, scale = encode(weight, kind)
    assert 0 < apart(decode(codes, scale, kind, shape, torch.float32), weight) < MOST[kind]
    assert codes.nbytes <= (0.51 if kind == "nf4" and weight.numel() % 64 == 0 else 14) * weight.numel()


def test_codes_stand_for_themselves():
    torch.manual_seed(0)
    for kind in KINDS:
        once = decode(*encode(torch.randn(16, 96), kind), kind, (16, 96), torch.float32)
        again = decode(*encode(once, kind), kind, (16, 96), torch.float32)
        assert torch.allclose(once, again, rtol=1e-5, atol=0), kind
    levels = torch.tensor(NF4).repeat(4)[None]
    assert torch.equal(decode(*encode(levels, "nf4"), "nf4", (1, 64), torch.float32), levels)
    assert not decode(*encode(torch.zeros(4, 64), "int8"), "int8", (4, 64), torch.float32).any()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_the_decoded_weight(kind):
    torch.manual_seed(0)
    plain = torch.nn.Linear(24, 8)
    layer = QuantisedLinear(plain, kind, CPU)
    x = torch.randn(5, 24, requires_grad=True)
    made = functional.linear(x, layer.weight, plain.bias)
    assert torch.equal(layer(x), made) and layer(x).grad_fn is not None
    ours, theirs = (torch.autograd.grad(y.square().sum(), x)[0] for y in (layer(x), made))
    assert torch.allclose(ours, theirs, atol=1e-5) and ours.abs().max() > 0.1
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
        assert layer(x).float().sub(made).abs().max() < 0.05


def test_a_backward_pass_holds_codes_and_no_decoded_weight():
    held = []
    layer = QuantisedLinear(torch.nn.Linear(256, 256), "int8", CPU)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: held.append(t.nbytes) or t, lambda t: t):
        layer(torch.randn(2, 256, requires_grad=True))
    assert sum(held) <= 256 * 256 + 256 * 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_family_draws_nearly_the_same_and_keeps_its_sensitive_layers(family, backend, kind):
    rough = load_backend(family[1], memory=MemorySettings(weights=kind))
    names, sensitive = coded(rough.transformer), rough.sensitive
    whole = {name for name, layer in rough.transformer.named_modules() if type(layer).__name__ == "FastLinear"}
    whole |= {name for name, layer in rough.transformer.named_modules() if type(layer) is torch.nn.Linear}
    assert names and whole
    # What stays whole is all that stands outside of the blocks, and what modulates in them.
    assert all("block" in name or "layers." in name or "refiner" in name for name in names)
    assert all(any(f".{part}." in f"..{name}." for part in sensitive) for name in whole)
    for part in sensitive:
        inside = any(f".{part}." in f"..{name}." for name, _ in backend.transformer.named_modules())
        assert inside, f"{part} is no name in the network"
    encoders = [e for name in rough._encoders if (e := getattr(rough.pipeline, name)) is not None]
    assert encoders and all(coded(e) for e in encoders)

    noise, t = initial_noise([1, 2], backend.latent_shape), torch.tensor([0.9, 0.4])
    exact = backend.velocity(noise, t, backend.encode(PROMPTS))
    error = apart(rough.velocity(noise, t, rough.encode(PROMPTS)), exact)
    assert 0 < error < MOST[kind]
    ours, theirs = (sample_latents(b, b.encode(PROMPTS), noise, b.grid(4))[:, -1] for b in (rough, backend))
    assert 0 < apart(ours, theirs) < MOST[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_merged_passes_keep_the_adapter_beside_the_codes(family, kind):
    backend = load_backend(family[1], memory=MemorySettings(weights=kind))
    roles = Roles(backend.transformer, backend.lora_targets, rank=4, alpha=8, roles=(STUDENT, FAKE))
    torch.manual_seed(3)
    for p in roles.parameters(STUDENT):
        torch.nn.init.normal_(p, std=0.2)
    noise, t, prompt = initial_noise([1], backend.latent_shape), torch.tensor([0.7]), backend.encode(PROMPTS[:1])
    roles.use(STUDENT)
    beside = backend.velocity(noise, t, prompt)
    gradients = torch.autograd.grad(beside.square().sum(), roles.parameters(STUDENT))
    assert all(g.isfinite().all() for g in gradients) and sum(g.norm() for g in gradients) > 0
    assert not roles.mergeable
    with roles.merged(STUDENT), torch.no_grad():
        assert torch.allclose(backend.velocity(noise, t, prompt), beside, atol=1e-5)
    roles.use(FAKE)
    assert not torch.allclose(backend.velocity(noise, t, prompt), beside, atol=1e-2)


def test_reloaded_encoders_are_coded_too_and_have_embeddings_of_their_own(family, tmp_path):
    memory = MemorySettings(weights="int8", text_encoders="free", embeddings=str(tmp_path / "kept"))
    free = load_backend(family[1], memory=memory)
    kept = load_backend(family[1], memory=dataclasses.replace(memory, text_encoders="keep", embeddings=""))
    assert torch.equal(free.encode(PROMPTS).embeds, kept.encode(PROMPTS).embeds)
    plain = load_backend(family[1], memory=MemorySettings(embeddings=str(tmp_path / "kept")))
    assert not torch.equal(plain.encode(PROMPTS).embeds, kept.encode(PROMPTS).embeds)
    assert len(list((tmp_path / "kept").iterdir())) == 2


def test_a_family_without_a_list_is_refused(family, monkeypatch):
    monkeypatch.setattr(type(load_backend(family[1]).inner), "sensitive", ())
    with pytest.raises(ValueError, match="does not name its sensitive layers; turn nf4 off"):
        load_backend(family[1], memory=MemorySettings(weights="nf4"))


def test_only_named_layers_stay_whole():
    model = torch.nn.ModuleDict({"norm": torch.nn.Linear(4, 4), "norm1": torch.nn.Linear(4, 4)})
    assert quantise(model, "int8", ("norm1",), CPU) == 1 and coded(model) == {"norm"}
    model = torch.nn.ModuleDict(
        {"block": torch.nn.ModuleDict({"out": torch.nn.Linear(4, 4)}), "out": torch.nn.Linear(4, 4)}
    )
    block = saved(model["block"], "int8", (".out",), above="block")
    assert block == saved(model, "int8", (".out",)) != 0
    assert quantise(model, "int8", (".out",), CPU) == 1 and coded(model) == {"block.out"}
