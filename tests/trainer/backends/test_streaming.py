"""Streamed blocks: the numbers of resident ones, and never more than the ring on the device."""

import dataclasses

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from common.settings import MemorySettings, TDMR1Settings
from tests.trainer.backends.tiny import training
from trainer.backends import load_backend
from trainer.backends.streaming import Streamed, stretch
from trainer.methods.tdm_r1 import TDMR1
from trainer.roles import FAKE, STUDENT, SURROGATE, TDM_R1_ROLES, Roles
from trainer.sampler import initial_noise

PROMPTS = ["a red star", "two blue hearts"]
CPU = torch.device("cpu")
WAYS = {
    "two places": {"streamed": 2},
    "one place": {"streamed": 1},
    "three places, in parts": {"streamed": 3, "micro_batch": 1, "checkpointing": True},
    "coded": {"streamed": 2, "weights": "nf4", "text_encoders": "free"},
}


def measured(folder, memory):
    """(velocity, every role's gradients) of a backend whose adapters are not zero."""
    backend = load_backend(folder, memory=memory)
    roles = Roles(backend.transformer, backend.lora_targets, rank=4, alpha=8, roles=TDM_R1_ROLES)
    backend.recompute = roles.recompute
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for role in TDM_R1_ROLES:
            for p in roles.parameters(role):
                p.copy_(torch.randn(p.shape, generator=generator) * 0.2)
    noise, t, prompts = initial_noise([1, 2], backend.latent_shape), torch.tensor([0.9, 0.4]), backend.encode(PROMPTS)
    made = {}
    for role in (STUDENT, FAKE, SURROGATE):
        roles.use(role)
        made[role] = backend.velocity(noise, t, prompts)
    # All passes are there before the first gradient, as in an update, and end in another order than they began.
    found = []
    for role in (FAKE, SURROGATE, STUDENT):
        found.append(made[role].detach())
        gradients = torch.autograd.grad(made[role].square().sum(), roles.parameters(role))
        found.append(torch.cat([g.flatten() for g in gradients]))
    with roles.merged(STUDENT), torch.no_grad():
        found.append(backend.velocity(noise, t, prompts))
    return backend, found


@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)
def test_velocities_and_gradients_are_those_of_resident_blocks(family, options):
    memory = MemorySettings(**options)
    _, resident = measured(family[1], dataclasses.replace(memory, streamed=0, checkpointing=True))
    backend, streamed = measured(family[1], memory)
    for ours, theirs in zip(streamed, resident, strict=True):
        assert theirs.abs().max() > 1e-3
        assert (ours - theirs).abs().max() <= 1e-6 * max(1, theirs.abs().max().item())
    stream = backend._stream
    assert len(stream._where) <= memory.streamed and sum(len(p) for p in stream._ring) == memory.streamed * max(
        len(home) for home in stream.homes
    )
    # The machine's memory holds every block once, and the device nothing of those that are away.
    assert [len(home) for home in stream.homes] == [stretch(tensors) for tensors in stream.tensors]
    for i, tensors in enumerate(stream.tensors):
        held = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
        assert i in stream._where or sum(held.values()) <= 8 * len(tensors)


def test_an_update_trains_the_same_adapters(family):
    states = []
    for memory in (MemorySettings(), MemorySettings(streamed=2)):
        backend = load_backend(family[1], memory=memory)
        trainer = TDMR1(backend, TDMR1Settings(rank=4, alpha=8, **training(backend)), bf16=False)
        prompts = trainer.backend.encode(PROMPTS)
        trajectory = trainer.sample(prompts, initial_noise([1, 2], trainer.backend.latent_shape))
        trainer.student_update(trajectory, prompts, torch.tensor([0, 2]), torch.Generator().manual_seed(0))
        trainer.backend._move("cpu")  # as while new prompts are embedded
        trainer.backend._move(trainer.backend.device)
        trainer.student_update(trajectory, prompts, torch.tensor([1, 3]), torch.Generator().manual_seed(1))
        states.append(trainer.roles.state_dict(STUDENT))
    assert all(torch.allclose(states[0][k], states[1][k], atol=1e-5) for k in states[0])
    assert any(v.abs().max() > 0 for k, v in states[1].items() if "lora_B" in k)


def chain(length=5):
    torch.manual_seed(0)
    return torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(length))).requires_grad_(False)


def streamed(network, places):
    stream = Streamed(network, list(network), places, CPU, lambda f, *a: checkpoint(f, *a, use_reentrant=False))
    stream.to(CPU)
    return stream


def test_the_next_block_is_on_its_way_once_the_order_is_known():
    network, x = chain(), torch.randn(2, 4, requires_grad=True)
    wanted = network(x)
    expected = torch.autograd.grad(wanted.sum(), x)[0]
    stream = streamed(network, 2)
    loads = []
    load = stream._load
    stream._load = lambda i: loads.append((stream._now, i)) or load(i)
    late = []
    for _ in range(3):
        loads.clear()
        made = network(x)
        assert torch.equal(made, wanted) and torch.equal(torch.autograd.grad(made.sum(), x)[0], expected)
        late.append(sum(now == i for now, i in loads))
    # Each block was asked for while the one before it, or after it on the way back, was at work; at first they were late.
    assert late[0] > 0 and loads and late[2] == 0


def test_what_is_away_reads_as_no_number():
    network = chain(3)
    streamed(network, 1)
    assert all(p.isnan().all() for p in network.parameters())
    assert [p.shape for p in network[0].parameters()] == [(4, 4), (4,)]


def test_it_is_refused_with_compiled_blocks(family):
    with pytest.raises(ValueError, match="streamed: compiled blocks cannot come and go"):
        load_backend(family[1], memory=MemorySettings(streamed=2, compile=True))


def test_a_family_without_blocks_is_refused(family, monkeypatch):
    inner = load_backend(family[1]).inner
    if not inner.block_lists:
        pytest.skip("its blocks are found otherwise")
    monkeypatch.setattr(type(inner), "block_lists", ())
    with pytest.raises(ValueError, match="does not name its blocks; turn streamed off"):
        load_backend(family[1], memory=MemorySettings(streamed=2))
