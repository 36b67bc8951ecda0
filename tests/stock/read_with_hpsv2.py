"""Reads unpacked archives with HPSv2's own loaders, as its training and its evaluation read them.

usage: read_with_hpsv2.py TRAIN TEST IMAGEREWARD: three folders
"""

import json
import sys
from unittest.mock import MagicMock

import torch
from torch.utils.data import DataLoader

# Its models, and torchvision, whose wheels are for CUDA: the loaders take transforms and tokenizer as arguments.
for name in ("hpsv2.utils", "hpsv2.src.open_clip", "torchvision", "torchvision.datasets", "torchvision.transforms"):
    sys.modules[name] = MagicMock()
sys.modules["torchvision.transforms.functional"] = MagicMock()

from hpsv2.src.training import data  # noqa: E402


def pixels(image) -> torch.Tensor:
    """(3, 2, 2)"""
    return torch.tensor(list(image.convert("RGB").resize((2, 2)).tobytes())).reshape(2, 2, 3).permute(2, 0, 1)


def tokens(prompt: str) -> torch.Tensor:
    """(1, 1): the length"""
    return torch.tensor([[len(prompt)]])


train, test, imagereward = sys.argv[1:]
pairs = data.HPDDataset(f"{train}/train.json", train, pixels, tokens)
rankings = data.RankingDataset(f"{test}/test.json", test, pixels, tokens)
rewards = data.ImageRewardDataset(f"{imagereward}/train.json", imagereward, pixels, tokens)
images, labels, captions = next(iter(DataLoader(pairs, batch_size=len(pairs), collate_fn=data.collate_HPD)))
found = {"pairs": {"images": list(images.shape), "labels": labels.tolist(), "captions": len(captions)}}
for name, dataset in (("rankings", rankings), ("imagereward", rewards)):
    images, sizes, labels, captions = next(iter(DataLoader(dataset, batch_size=9, collate_fn=data.collate_rank)))
    found[name] = {"images": len(images), "sizes": sizes.tolist(), "labels": labels.tolist()}
print(json.dumps(found))
