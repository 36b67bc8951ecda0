"""Mask2Former's instances and CLIP's colours, on constructed logits and on tiny random models."""

import pytest
import torch
from PIL import Image, ImageDraw

from trainer.oracles.detector import COLORS, ColorNamer, Detector, Instance, color_crop, find_instances
from trainer.oracles.geneval import Detection
from trainer.oracles.models import ClipScorer

CPU = torch.device("cpu")
LABELS = ("apple", "person", "car")


def logits(*queries):
    """Class logits of queries given as {label: probability}; the rest of the probability is "no object"."""
    rows = torch.full((len(queries), len(LABELS) + 1), 1e-9)
    for row, probabilities in zip(rows, queries, strict=True):
        for label, p in probabilities.items():
            row[LABELS.index(label)] = p
        row[-1] = 1 - sum(probabilities.values())
    return rows.log()


def mask(left, top, right, bottom, *, inside=10.0, size=(16, 16)):
    out = torch.full(size, -10.0)
    out[top:bottom, left:right] = inside
    return out


def find(classes, masks, **sizes):
    sizes = {"padded": (16, 16), "resized": (16, 16), "size": (16, 16), **sizes}
    found = find_instances(classes, torch.stack(masks), LABELS, **sizes)
    return sorted((i.detection for i in found), key=lambda d: -d.confidence)


def test_confidence_is_the_class_times_the_mask():
    sure, unsure = find(logits({"apple": 0.9}, {"car": 0.8}), [mask(0, 0, 4, 4), mask(8, 8, 12, 16, inside=0.5)])
    assert (sure.label, sure.box) == ("apple", (0, 0, 4, 4))
    assert sure.confidence == pytest.approx(0.9, abs=1e-3)
    assert (unsure.label, unsure.box) == ("car", (8, 8, 12, 16))
    assert unsure.confidence == pytest.approx(0.8 * torch.sigmoid(torch.tensor(0.5)).item(), abs=1e-3)


def test_only_what_is_above_the_threshold_is_found():
    masks = [mask(0, 0, 4, 4)] * 2
    assert [d.label for d in find(logits({"apple": 0.29}, {"car": 0.32}), masks)] == ["car"]
    # A sure class with a poor mask: 0.55 · 0.5 is below.
    assert find(logits({"apple": 0.55}), [mask(0, 0, 4, 4, inside=1e-3)]) == []


def test_an_empty_mask_is_no_object():
    assert find(logits({"apple": 0.99}), [mask(0, 0, 0, 0)]) == []


def test_one_query_can_be_two_classes():
    # As many pairs of query and class are taken as there are queries, the most probable first.
    found = find(logits({"apple": 0.5, "car": 0.4}, {"person": 0.1}), [mask(0, 0, 4, 4), mask(8, 8, 12, 12)])
    assert [(d.label, d.box) for d in found] == [("apple", (0, 0, 4, 4)), ("car", (0, 0, 4, 4))]


def test_padding_is_cut_off_before_the_mask_is_enlarged():
    (found,) = find(logits({"car": 0.9}), [mask(0, 0, 16, 4)], padded=(64, 64), resized=(32, 64), size=(100, 200))
    left, top, right, bottom = found.box
    assert (left, right) == (0, 200)
    assert top == 0 and bottom == pytest.approx(50, abs=3)  # 4 of 16 rows are 16 of 32 unpadded ones: a half


def test_instances_equal_those_of_transformers_where_both_work_at_one_size(detector_dir):
    detector = Detector(detector_dir, device=CPU)
    processor, model = detector._processor, detector._model
    generator = torch.Generator().manual_seed(3)
    classes = torch.randn(1, 20, 81, generator=generator) * 3
    masks = torch.randn(1, 20, 24, 24, generator=generator)
    ours = find_instances(
        classes[0], masks[0], detector.labels, padded=(384, 384), resized=(384, 384), size=(384, 384), threshold=0.1
    )
    output = type("Output", (), {"class_queries_logits": classes, "masks_queries_logits": masks})
    (theirs,) = processor.post_process_instance_segmentation(
        output, threshold=0.1, target_sizes=[(384, 384)], return_binary_maps=True
    )
    assert len(ours) == len(theirs["segments_info"]) > 3
    ours.sort(key=lambda i: i.detection.confidence)
    order = sorted(range(len(ours)), key=lambda i: theirs["segments_info"][i]["score"])
    for mine, index in zip(ours, order, strict=True):
        info = theirs["segments_info"][index]
        assert mine.detection.label == detector.labels[info["label_id"]]
        assert mine.detection.confidence == pytest.approx(info["score"], abs=1e-5)
        assert torch.equal(mine.mask, theirs["segmentation"][index].bool())
    assert model.config.id2label[47] == "apple"


def test_the_detector_runs_on_any_shape_of_image(detector_dir):
    detector = Detector(detector_dir, device=CPU)
    found = detector.find(Image.effect_noise((50, 80), 60).convert("RGB"))
    assert {i.detection.label for i in found} >= {"apple"}
    for instance in found:
        assert instance.mask.shape == (80, 50)
        rows, columns = instance.mask.any(1).nonzero(), instance.mask.any(0).nonzero()
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert instance.detection.box == tuple(float(v) for v in box)
        assert instance.detection.confidence > 0.3


def test_labels_are_genevals_names(detector_dir):
    labels = Detector(detector_dir, device=CPU).labels
    assert (labels[4], labels[47], labels[64]) == ("airplane", "apple", "computer mouse")


def test_a_crop_shows_the_object_alone_on_grey():
    image = Image.new("RGB", (20, 20), "red")
    region = torch.zeros(20, 20, dtype=torch.bool)
    region[5:15, 4] = True
    region[5, 4:10] = True
    crop = color_crop(image, Instance(Detection("apple", 1.0, (4.0, 5.0, 10.0, 15.0)), region))
    assert crop.size == (6, 10)
    assert crop.getpixel((0, 9)) == (255, 0, 0)
    assert crop.getpixel((5, 9)) == (0x99, 0x99, 0x99)


def test_clip_embeddings_equal_the_whole_models(clip_dir):
    scorer = ClipScorer(clip_dir, device=CPU)
    texts = ["a photo of a red apple", "a photo of a blue-colored car"]
    pictures = [Image.new("RGB", (40, 30), c) for c in ("red", "blue")]
    tokens = scorer._tokenizer(texts, padding=True, return_tensors="pt")
    pixels = scorer._processor(pictures, return_tensors="pt")
    with torch.no_grad():
        expected = scorer.model(**tokens, **pixels).logits_per_image
    ours = scorer.images(pictures, batch=1) @ scorer.texts(texts).T * scorer.model.logit_scale.exp().detach()
    assert torch.allclose(ours, expected, atol=1e-4)


class ByMeanColor:
    """A CLIP whose embeddings are colours, so that the right answer is known; it notes what it is asked."""

    palette = torch.nn.functional.normalize(torch.eye(len(COLORS)), dim=-1)

    def __init__(self):
        self.asked = []

    def texts(self, texts):
        self.asked += texts
        return torch.stack([sum(self.palette[i] for i, c in enumerate(COLORS) if c in t.split("-")[0]) for t in texts])

    def images(self, images):
        reds = [i.getpixel((i.width // 2, i.height // 2))[0] > 128 for i in images]
        return torch.stack([self.palette[COLORS.index("red" if red else "blue")] for red in reds])


def test_colors_are_named_from_three_templates_of_the_objects_class():
    image = Image.new("RGB", (40, 20), "blue")
    ImageDraw.Draw(image).rectangle((0, 0, 19, 19), fill="red")
    halves = [torch.zeros(20, 40, dtype=torch.bool) for _ in range(2)]
    halves[0][:, :20], halves[1][:, 20:] = True, True
    boxes = [(0.0, 0.0, 20.0, 20.0), (20.0, 0.0, 40.0, 20.0)]
    clip = ByMeanColor()
    namer = ColorNamer(clip)
    found = [Instance(Detection("apple", 1.0, b), m) for b, m in zip(boxes, halves, strict=True)]
    assert namer.name(image, found) == ["red", "blue"]
    assert namer.name(image, found[1:]) == ["blue"]
    assert namer.name(image, []) == []
    assert len(clip.asked) == 30  # once a class
    assert clip.asked[:3] == ["a photo of a red apple", "a photo of a red-colored apple", "a photo of a red object"]


def test_a_random_clip_names_one_of_the_ten_colors(clip_dir):
    region = torch.ones(12, 9, dtype=torch.bool)
    instance = Instance(Detection("apple", 1.0, (0.0, 0.0, 9.0, 12.0)), region)
    (name,) = ColorNamer(ClipScorer(clip_dir, device=CPU)).name(Image.new("RGB", (9, 12), "red"), [instance])
    assert name in COLORS
