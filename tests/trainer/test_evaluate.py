"""Scores come from prompts and noise that no other split has."""

from trainer import evaluate as module
from trainer.backends import load_backend
from trainer.demo.scenes.prompts import prompts
from trainer.oracles import Verdict


class Anything:
    """Likes every image."""

    def score(self, images, prompts, metadata):
        return [Verdict(1.0, True, "", True) for _ in images]


def test_validation_and_test_images_start_from_different_noise(model_dir, monkeypatch):
    seeds = {}
    real = module.initial_noise

    def noted(range_, shape):
        seeds.setdefault(split, set()).update(range_)
        return real(range_, shape)

    monkeypatch.setattr(module, "initial_noise", noted)
    backend = load_backend(model_dir)
    for split in ("train", "validation", "test"):
        result = module.evaluate(backend, prompts(split)[:3], Anything(), steps=1)
        assert result.scores["reward"] == 1.0
    assert [len(s) for s in seeds.values()] == [3, 3, 3] and len(set.union(*seeds.values())) == 9
