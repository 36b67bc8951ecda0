"""The demo project under the GenEval oracle's own class. Detector and colours are stand-ins here and nowhere else: they see
drawn shapes, and pass through everything that the product does with a real detector's findings."""

import dataclasses
import random

import pytest
import torch
from PIL import Image

from trainer.demo.scenes.draw import draw, sample_scene
from trainer.demo.scenes.world import SHAPES
from trainer.oracles import get_oracle, photos
from trainer.oracles.detector import Instance
from trainer.oracles.scenes import detect
from webapp.campaigns.models import LabelSource
from webapp.labelling import generation
from webapp.labelling.models import Label
from webapp.lib import paths
from workers import tasks


class Shapes:
    """Finds drawn shapes where a detector would find objects."""

    labels = tuple(SHAPES)

    def __init__(self, folder, **options):
        pass

    def find(self, image, *, threshold):
        mask = torch.ones(image.height, image.width, dtype=torch.bool)
        found = [dataclasses.replace(d, confidence=0.95) for d in detect(image)]
        return [Instance(d, mask) for d in found if d.confidence > threshold]


class Colors:
    """Names the colour that the stand-in detector saw."""

    def __init__(self, clip):
        pass

    def name(self, image, instances):
        return [i.detection.color for i in instances]


@pytest.fixture
def geneval(settings, monkeypatch):
    """The name under which projects can choose GenEval."""
    monkeypatch.setattr(photos, "Detector", Shapes)
    monkeypatch.setattr(photos, "ColorNamer", Colors)
    monkeypatch.setattr(photos, "ClipScorer", lambda folder, **options: None)
    settings.LIKESTEP_ORACLES = {**settings.LIKESTEP_ORACLES, "geneval": "geneval:detector=/detector,clip=/clip"}
    return "geneval"


def test_the_demo_project_is_labelled_by_the_geneval_class(project, geneval):
    project.oracle, project.label_source = geneval, LabelSource.ORACLE
    project.save()
    for group in generation.top_up(project.pk):
        tasks.generate_group(group.pk)
        generations = list(group.generations.order_by("position"))
        # The tests' random model draws no shapes, so one image becomes what the prompt asks for.
        right = draw(sample_scene(group.prompt.metadata, random.Random(group.pk)))
        right.save(paths.data(generations[1].image), lossless=True)
        tasks.score_group(group.pk)
        group.refresh_from_db()
        assert (group.state, group.error) == ("done", "")
        images = [Image.open(paths.data(g.image)) for g in generations]
        lines = [group.prompt.metadata] * len(images)
        expected = get_oracle("scenes").score(images, [group.prompt.text] * len(images), lines)
        labels = [Label.objects.get(oracle=geneval, generation=g) for g in generations]
        assert [label.liked for label in labels] == [v.liked for v in expected] == [False, True, False]
        assert all(label.reason for label in labels)
