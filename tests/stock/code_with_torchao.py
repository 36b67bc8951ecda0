"""Prints how far torchao's coded weights are from the weights, by kind and shape.

usage: code_with_torchao.py SHAPES (JSON)
"""

import json
import sys

import torch
from torchao.quantization import Float8Tensor, Int8Tensor, NF4Tensor, PerRow

errors = {}
for shape in json.loads(sys.argv[1]):
    torch.manual_seed(0)
    weight = torch.randn(shape) * torch.logspace(-3, 1, shape[0]).unsqueeze(1)
    decoded = {
        "int8": Int8Tensor.from_hp(weight, PerRow()).dequantize(),
        "fp8": Float8Tensor.from_hp(weight, granularity=PerRow()).dequantize(),
    }
    if weight.numel() % 64 == 0:  # its nf4 takes whole blocks only
        decoded["nf4"] = NF4Tensor.from_tensor(weight, 64, 1).get_original_weight()
    for kind, theirs in decoded.items():
        errors[f"{kind} {shape}"] = ((theirs - weight).norm() / weight.norm()).item()
print(json.dumps(errors))
