"""PickScore, aesthetic and JPEG oracles, on tiny random models."""

import itertools
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from trainer.oracles import get_oracle
from trainer.oracles.models import ClipScorer

RED, BLUE = (Image.new("RGB", (40, 30), c) for c in ("red", "blue"))
NOISE = Image.effect_noise((40, 30), 120)
CPU = torch.device("cpu")


def test_pickscore_is_the_models_own_logit_over_26(clip_dir):
    prompts = ["a red apple", "a blue car", "a red apple"]
    images = [RED, BLUE, BLUE]
    verdicts = get_oracle(f"pickscore:model={clip_dir},device=cpu").score(images, prompts, [{}] * 3)
    scorer = ClipScorer(clip_dir, device=CPU)
    for image, prompt, verdict in zip(images, prompts, verdicts, strict=True):
        inputs = scorer._tokenizer(prompt, return_tensors="pt"), scorer._processor(image, return_tensors="pt")
        with torch.no_grad():
            logit = scorer.model(**inputs[0], **inputs[1]).logits_per_image.item()
        assert verdict.score == pytest.approx(min(1, max(0, logit / 26)), abs=1e-4)
        assert verdict.reason == f"PickScore {logit:.2f}"


def test_like_from_draws_the_line(clip_dir):
    def likes(like_from):
        oracle = get_oracle(f"pickscore:model={clip_dir},device=cpu,like_from={like_from}")
        return [v.liked for v in oracle.score([RED], ["a red apple"], [{}])]

    assert likes(0) == [True]
    assert likes(1) == [False]


def layers(*widths):
    torch.manual_seed(1)
    out = {}
    for i, (a, b) in enumerate(itertools.pairwise(widths)):
        out[f"layers.{2 * i}.weight"], out[f"layers.{2 * i}.bias"] = torch.randn(b, a), torch.randn(b)
    return out


def test_the_aesthetic_score_is_the_head_on_clips_embedding(clip_dir, tmp_path):
    weights = layers(16, 8, 1)
    weights["layers.2.bias"] += 5
    save_file(weights, tmp_path / "head.safetensors")
    oracle = get_oracle(f"aesthetic:clip={clip_dir},head={tmp_path}/head.safetensors,device=cpu")
    verdicts = oracle.score([RED, NOISE], ["", ""], [{}, {}])
    embedded = ClipScorer(clip_dir, device=CPU).images([RED, NOISE])
    hidden = embedded @ weights["layers.0.weight"].T + weights["layers.0.bias"]
    expected = (hidden @ weights["layers.2.weight"].T + weights["layers.2.bias"])[:, 0]
    assert [v.reason for v in verdicts] == [f"aesthetic score {v:.2f}" for v in expected.tolist()]
    assert [v.score for v in verdicts] == pytest.approx((expected / 10).clamp(0, 1).tolist(), abs=1e-5)


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ((12, 1), r"aesthetic\.head: layers\.0 .* does not take 16 numbers"),
        ((16, 8), r"aesthetic\.head: .* do not end in one number"),
        ((), r"aesthetic\.head: .* do not end in one number"),
    ],
)
def test_a_head_that_does_not_fit_is_refused(clip_dir, tmp_path, widths, message):
    save_file(layers(*widths) or {"other": torch.zeros(1)}, tmp_path / "head.safetensors")
    with pytest.raises(ValueError, match=message):
        get_oracle(f"aesthetic:clip={clip_dir},head={tmp_path}/head.safetensors,device=cpu")


def test_weights_that_are_no_numbers_are_refused(clip_dir, tmp_path):
    weights = layers(16, 1)
    weights["layers.0.bias"] /= 0
    save_file(weights, tmp_path / "head.safetensors")
    with pytest.raises(ValueError, match=r"aesthetic\.head: layers\.0\.bias in .*head\.safetensors is not finite"):
        get_oracle(f"aesthetic:clip={clip_dir},head={tmp_path}/head.safetensors,device=cpu")
    shutil.copytree(clip_dir, tmp_path / "clip")
    tensors = load_file(tmp_path / "clip" / "model.safetensors")
    tensors["visual_projection.weight"][0, 0] = torch.nan
    save_file(tensors, tmp_path / "clip" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"visual_projection\.weight in .*clip is not finite"):
        get_oracle(f"pickscore:model={tmp_path}/clip,device=cpu")


def test_a_pickled_head_is_refused(clip_dir, tmp_path):
    torch.save(layers(16, 1), tmp_path / "head.pth")
    with pytest.raises(ValueError, match=r"aesthetic\.head: .* cannot be read as safetensors"):
        get_oracle(f"aesthetic:clip={clip_dir},head={tmp_path}/head.pth,device=cpu")


def test_jpeg_likes_flat_images_or_large_ones():
    flat, noisy = get_oracle("jpeg").score([RED, NOISE], ["", ""], [{}, {}])
    assert flat.score > noisy.score
    large = get_oracle("jpeg:large=true").score([RED, NOISE], ["", ""], [{}, {}])
    assert [v.score for v in large] == pytest.approx([1 - flat.score, 1 - noisy.score])
    assert flat.reason.endswith("bits a pixel")


def test_jpeg_does_not_depend_on_the_size_of_the_image():
    one = Image.effect_noise((256, 256), 60)
    four = Image.new("L", (512, 512))
    for box in ((0, 0), (256, 0), (0, 256), (256, 256)):
        four.paste(one, box)
    a, b = get_oracle("jpeg:most_bits=20").score([one, four], ["", ""], [{}, {}])
    assert a.score == pytest.approx(b.score, abs=0.02)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("jpeg:most_bits=0", r"jpeg\.most_bits: is 0"),
        ("jpeg:quality=0", r"jpeg\.quality: is 0; it must be in 1\.\.95"),
        ("jpeg:like_from=2", r"jpeg\.like_from: is 2; it must be in 0\.\.1"),
        ("pickscore:model=/nowhere", r"pickscore\.model: /nowhere has no config\.json"),
        ("aesthetic:clip=/nowhere,head=/nowhere", r"aesthetic\.clip: /nowhere has no config\.json"),
    ],
)
def test_wrong_options_name_the_field(spec, message):
    with pytest.raises(ValueError, match=message):
        get_oracle(spec)
