"""HPS v2.1: a checkpoint with open_clip's names gives transformers the same scores. The others say what is missing."""

import importlib.util

import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from trainer.oracles import get_oracle
from trainer.oracles.convert_clip import main, renamed
from trainer.oracles.models import ClipScorer
from trainer.oracles.preference import normal_share

WIDTH, HEADS, LAYERS, OUT = 16, 2, 2, 16  # of conftest's tiny CLIP
RED = Image.new("RGB", (32, 32), "red")
NOISE = Image.effect_noise((48, 32), 120).convert("RGB")


def open_clip_state(vocabulary):
    """Random tensors under open_clip's names."""
    torch.manual_seed(5)

    def tensor(*shape):
        return torch.randn(shape) * 0.3

    state = {
        "visual.class_embedding": tensor(WIDTH),
        "visual.positional_embedding": tensor(17, WIDTH),
        "visual.conv1.weight": tensor(WIDTH, 3, 8, 8),
        "visual.proj": tensor(WIDTH, OUT),
        "token_embedding.weight": tensor(vocabulary, WIDTH),
        "positional_embedding": tensor(77, WIDTH),
        "text_projection": tensor(WIDTH, OUT),
        "logit_scale": torch.tensor(4.6),
        "attn_mask": tensor(77, 77),
    }
    for norm in ("visual.ln_pre", "visual.ln_post", "ln_final"):
        state |= {f"{norm}.weight": 1 + tensor(WIDTH), f"{norm}.bias": tensor(WIDTH)}
    for tower in ("visual.transformer", "transformer"):
        for i in range(LAYERS):
            block = f"{tower}.resblocks.{i}"
            for norm in ("ln_1", "ln_2"):
                state |= {f"{block}.{norm}.weight": 1 + tensor(WIDTH), f"{block}.{norm}.bias": tensor(WIDTH)}
            shapes = {"attn.in_proj_": (3 * WIDTH, WIDTH), "attn.out_proj.": (WIDTH, WIDTH)}
            shapes |= {"mlp.c_fc.": (16, WIDTH), "mlp.c_proj.": (WIDTH, 16)}
            for name, shape in shapes.items():
                state |= {f"{block}.{name}weight": tensor(*shape), f"{block}.{name}bias": tensor(shape[0])}
    return state


def blocks(state, tower, x, mask=None):
    """open_clip's residual blocks, written out with torch's own attention; x (N, L, D)."""
    for i in range(LAYERS):

        def at(name, i=i):
            return state[f"{tower}.resblocks.{i}.{name}"]

        attention = torch.nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        with torch.no_grad():
            attention.in_proj_weight.copy_(at("attn.in_proj_weight"))
            attention.in_proj_bias.copy_(at("attn.in_proj_bias"))
            attention.out_proj.weight.copy_(at("attn.out_proj.weight"))
            attention.out_proj.bias.copy_(at("attn.out_proj.bias"))
        h = F.layer_norm(x, (WIDTH,), at("ln_1.weight"), at("ln_1.bias"))
        x = x + attention(h, h, h, attn_mask=mask, need_weights=False)[0]
        h = F.layer_norm(x, (WIDTH,), at("ln_2.weight"), at("ln_2.bias"))
        h = F.linear(h, at("mlp.c_fc.weight"), at("mlp.c_fc.bias"))
        h = h * torch.sigmoid(1.702 * h)  # the tiny config's activation
        x = x + F.linear(h, at("mlp.c_proj.weight"), at("mlp.c_proj.bias"))
    return x


@torch.no_grad()
def cosine(state, pixels, tokens):
    """open_clip's cosine of one image and one prompt."""

    def norm(x, name):
        return F.layer_norm(x, (WIDTH,), state[f"{name}.weight"], state[f"{name}.bias"])

    x = F.conv2d(pixels, state["visual.conv1.weight"], stride=8).flatten(2).transpose(1, 2)
    x = torch.cat([state["visual.class_embedding"].expand(1, 1, -1), x], 1) + state["visual.positional_embedding"]
    x = blocks(state, "visual.transformer", norm(x, "visual.ln_pre"))
    image = norm(x[:, 0], "visual.ln_post") @ state["visual.proj"]
    y = state["token_embedding.weight"][tokens] + state["positional_embedding"][: tokens.shape[1]]
    causal = torch.full((tokens.shape[1],) * 2, float("-inf")).triu(1)
    y = norm(blocks(state, "transformer", y, causal), "ln_final")
    end = (tokens == 1).int().argmax(1)  # the end of the text
    return F.cosine_similarity(image, y[torch.arange(len(y)), end] @ state["text_projection"]).item()


@pytest.fixture(scope="module")
def converted(clip_dir, tmp_path_factory):
    """(open_clip state, converted folder)."""
    root = tmp_path_factory.mktemp("hps")
    vocabulary = ClipScorer(clip_dir, device=torch.device("cpu")).model.config.text_config.vocab_size
    state = open_clip_state(vocabulary)
    torch.save({"state_dict": state}, root / "hps.pt")
    assert main([str(root / "hps.pt"), str(root / "out"), "--like", str(clip_dir)]) == 0
    return state, root / "out"


def test_a_converted_checkpoint_scores_as_open_clip_does(converted):
    state, folder = converted
    scorer = ClipScorer(folder, device=torch.device("cpu"))
    prompts = ["a red apple", "cars"]
    verdicts = get_oracle(f"hpsv2:model={folder},device=cpu").score([RED, RED], prompts, [{}, {}])
    for prompt, verdict in zip(prompts, verdicts, strict=True):
        pixels = scorer._processor(RED, return_tensors="pt")["pixel_values"]
        wanted = cosine(state, pixels, scorer._tokenizer(prompt, return_tensors="pt")["input_ids"])
        assert verdict.score == pytest.approx(min(1, max(0, wanted / 0.4)), abs=1e-4)
        assert verdict.reason == f"HPS v2.1 {wanted:.3f}"


def test_an_image_that_is_not_square_is_padded_not_cut(converted):
    oracle = get_oracle(f"hpsv2:model={converted[1]},device=cpu")
    padded = Image.new("RGB", (48, 48))
    padded.paste(NOISE, (0, 8))
    wide, square = oracle.score([NOISE, padded], ["cars", "cars"], [{}, {}])
    assert wide.reason == square.reason


def test_a_checkpoint_that_does_not_fit_is_named(converted, clip_dir, tmp_path, capsys):
    state = dict(converted[0])

    def run(changed):
        torch.save(changed, tmp_path / "x.pt")
        assert main([str(tmp_path / "x.pt"), str(tmp_path / "out"), "--like", str(clip_dir)]) == 2
        return capsys.readouterr().err

    assert "tensor visual.adapter.weight is none of a CLIP" in run(state | {"visual.adapter.weight": torch.zeros(1)})
    assert "visual_projection.weight is missing" in run({k: v for k, v in state.items() if k != "visual.proj"})
    assert "is of another size" in run(state | {"visual.proj": torch.zeros(WIDTH, 3)})
    (tmp_path / "x.pt").write_bytes(b"no tensors")
    assert main([str(tmp_path / "x.pt"), str(tmp_path / "out"), "--like", str(clip_dir)]) == 2
    assert "cannot be read as tensors alone" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"attn\.extra"):
        renamed({"transformer.resblocks.0.attn.extra": torch.zeros(1)})


@pytest.mark.parametrize(("name", "module"), [("imagereward", "ImageReward"), ("hpsv3", "hpsv3")])
def test_a_package_that_is_not_there_is_named(name, module, tmp_path):
    if importlib.util.find_spec(module):
        pytest.skip(f"{module} is installed")
    for file in ("ImageReward.pt", "med_config.json", "HPSv3.safetensors"):
        (tmp_path / file).write_bytes(b"")
    option = f"model={tmp_path}" if name == "imagereward" else f"checkpoint={tmp_path}/HPSv3.safetensors"
    with pytest.raises(ValueError, match=f"{name}: {module}.* cannot be loaded .*; run pip install"):
        get_oracle(f"{name}:{option}")
    with pytest.raises(ValueError, match=f"{name}\\..*: there is no file"):
        get_oracle(f"{name}:{option.replace(str(tmp_path), '/nowhere')}")


def test_imagerewards_scale_becomes_a_share():
    assert normal_share(0) == 0.5
    assert normal_share(1.0) == pytest.approx(0.8413, abs=1e-4)
    assert normal_share(-8) == pytest.approx(0, abs=1e-6)
