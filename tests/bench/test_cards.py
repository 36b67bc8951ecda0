"""The table of models and GPUs: real shapes are planned from configurations, in seconds."""

import time

from bench.cards import cell, short
from bench.shapes import write
from common.settings import MemorySettings


def test_a_real_models_plan_takes_seconds_and_fits(tmp_path):
    folder = write("SD3.5 Medium", tmp_path / "model", 512)
    start = time.process_time()
    text, found = cell(folder, "SD3.5 Medium", "16GB", {})
    assert time.process_time() - start < 30  # of one core
    assert found["fits"] and 8 < found["gb"] <= 16 and found["minutes"] > 0 and text.startswith("bf16, checkpointing")


def test_options_are_told_in_few_words():
    memory = MemorySettings(half=True, weights="int8", streamed=2, checkpointing=True, micro_batch=4)
    assert short(memory) == "int8, streamed, micro-batch 4, encoders kept"
