"""A version's LoRA file of two small matrices."""

import json

import numpy as np
from safetensors.numpy import save_file

LORA = "pytorch_lora_weights.safetensors"
A, B = (f"transformer.attn.to_q.lora_{m}.weight" for m in "AB")


def write_lora(folder):
    folder.mkdir(parents=True, exist_ok=True)
    header = {"lora_adapter_metadata": json.dumps({"transformer.r": 2, "transformer.lora_alpha": 6})}
    save_file({A: np.ones((2, 3), np.float32), B: np.ones((4, 2), np.float32)}, folder / LORA, metadata=header)
