"""Run by test_processes.py under `accelerate launch`: a whole round from a file's spec."""

import json
import sys
from pathlib import Path

import torch

import trainer.rounds.stages
from tests.trainer.rounds_helpers import Reddish
from trainer.rounds import RoundSpec, run_round

if __name__ == "__main__":
    torch.set_num_threads(1)
    trainer.rounds.stages.get_oracle = {"reddish": Reddish()}.__getitem__
    run_round(RoundSpec(**json.loads(Path(sys.argv[1]).read_text())), trackers="none")
