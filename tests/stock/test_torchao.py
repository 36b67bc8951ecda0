"""Coded weights are as close to the weights as torchao 0.18's."""

import json

import torch

from trainer.backends.quantised import decode, encode

SHAPES = [[48, 64], [7, 24], [3, 5]]  # also where blocks of 64 do not fill rows


def test_codes_are_as_close_as_torchaos(run):
    theirs = run("loaders", "code_with_torchao.py", json.dumps(SHAPES))
    assert len(theirs) == 7
    for name, error in theirs.items():
        kind, shape = name.split(" ", 1)
        shape = tuple(json.loads(shape))
        torch.manual_seed(0)
        weight = torch.randn(shape) * torch.logspace(-3, 1, shape[0]).unsqueeze(1)
        ours = decode(*encode(weight, kind), kind, shape, torch.float32)
        assert (ours - weight).norm() / weight.norm() < 1.1 * error, name
