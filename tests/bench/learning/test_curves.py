"""Curves of validation scores, from the log of a round's work folder."""

import json

from bench.learning.curves import curve_of
from common.round_folder import RoundFolder


def test_a_point_a_look_and_none_of_a_round_without_them(tmp_path):
    folder = RoundFolder(tmp_path)
    looked = {"validation_strict": 0.7, "validation_geneval": 0.8, "validation_reward": 0.9}
    again = {**looked, "validation_strict": 0.75}
    lines = [{"step": 1}, {"step": 2, **looked}, {"step": 2, **again}]
    folder.log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    before = {"strict": 0.5, "geneval": 0.6, "reward": 0.7}
    assert curve_of(folder, before, 128) == [
        {"images": 0, "strict": 0.5, "geneval": 0.6, "reward": 0.7},
        {"images": 256, "strict": 0.75, "geneval": 0.8, "reward": 0.9},  # made again after a restart: the last counts
    ]
    folder.log.write_text('{"step": 1}\n')
    assert curve_of(folder, {}, 128) == []
