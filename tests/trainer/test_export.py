"""Exports: stock diffusers draws the app's images from them, so does a reader of tensors alone, and the card says how."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from diffusers import DiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from common.cards import LORA_NAME, METHODS, Base, Made, lineage, model_card
from common.files import write_json
from common.portable import portable_lora, read_tensors
from common.settings import TDMR1Settings
from trainer.cli import main
from trainer.roles import STUDENT, Roles
from trainer.sampler import Sampler, initial_noise

PROMPT = "a red star"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def version(model_dir, tmp_path_factory):
    """A version as a round leaves it, alpha twice its rank, with a parent that a round made, and a first student."""
    root = tmp_path_factory.mktemp("versions")
    sampler = Sampler(model_dir)
    roles = Roles(sampler.backend.transformer, sampler.backend.lora_targets, rank=4, alpha=8, roles=(STUDENT,))
    torch.manual_seed(3)
    for p in roles.parameters(STUDENT):
        torch.nn.init.normal_(p, std=0.2)
    for name in ("first", "round-1", "round-2"):
        sampler.backend.save_lora(root / name, roles.state_dict(STUDENT), rank=4, alpha=8)
    about = {"steps": 60, "settings": {"updates": 60, "beta_dpo": 3.0}, "scores_before": {"reward": 0.25}}
    write_json(root / "round-1" / "version.json", about | {"parent": str(root / "first"), "labels": {"people": 96}})
    scores = {"reward": 0.5, "geneval": 0.625}
    about |= {"parent": str(root / "round-1"), "labels": {"people": 128, "demo": 64}, "scores_after": scores}
    write_json(root / "round-2" / "version.json", about | {"sha256": "ab" * 32})
    return root / "round-2"


@pytest.fixture(scope="module")
def apps(model_dir, version):
    """The image that the app makes, as numbers in 0..1, and the noise it starts from. Decoded in fp32: the random VAE of
    the tests turns bf16's rounding into other colours."""
    sampler = Sampler(model_dir)
    sampler.use_version(version)
    made = sampler.sample_group(PROMPT, [7])
    (image,) = sampler.backend.decode(made.trajectory[:, -1])
    return np.asarray(image, float) / 255, initial_noise([7], sampler.backend.latent_shape)


def drawn(pipeline, noise):
    return pipeline(
        PROMPT,
        num_inference_steps=4,
        sigmas=[1.0, 0.75, 0.5, 0.25],
        guidance_scale=1.0,
        latents=noise.clone(),
        max_sequence_length=1,
        height=128,
        width=128,
        output_type="np",
    ).images[0]


def far(image, wanted):
    """The largest difference; the app's images have whole steps of 1/255, so half a step is nothing."""
    return float((np.abs(image - wanted) - 0.5 / 255).max())


def test_stock_diffusers_draws_the_apps_images_from_the_lora(model_dir, version, apps, tmp_path):
    wanted, noise = apps
    assert main(["export", str(tmp_path), "--model", str(model_dir), "--student", str(version)]) == 0
    pipeline = DiffusionPipeline.from_pretrained(model_dir)
    assert far(drawn(pipeline, noise), wanted) > 0.05  # the base alone draws something else
    pipeline.load_lora_weights(tmp_path)
    assert far(drawn(pipeline, noise), wanted) < 1e-3


def test_merged_weights_draw_the_same(model_dir, version, apps, tmp_path):
    wanted, noise = apps
    arguments = ["export", str(tmp_path / "out"), "--merged", "--model", str(model_dir), "--student", str(version)]
    assert main(arguments) == 0
    assert far(drawn(DiffusionPipeline.from_pretrained(tmp_path / "out"), noise), wanted) < 1e-3
    for folder in (version, tmp_path / "out"):  # the trainer and the web app may be two users
        config = next(folder.rglob("*.json")).stat().st_mode
        assert {f.stat().st_mode for f in folder.rglob("*.safetensors")} == {config}
    configs = [f.read_text() for f in (tmp_path / "out").rglob("*.json")]
    assert not any(str(model_dir) in text or "_name_or_path" in text for text in configs)
    assert "base_model_relation: merge" in (tmp_path / "out" / "README.md").read_text()
    assert main(arguments) == 2  # nothing is overwritten


def test_a_reader_without_the_header_gets_the_same_weights(model_dir, version, tmp_path):
    """ComfyUI reads tensors alone: B A, times alpha / rank only where there is a tensor `alpha`."""
    (tmp_path / LORA_NAME).write_bytes(b"".join(portable_lora(version, title="x", base=Base.of(model_dir))))
    ours, original = load_file(tmp_path / LORA_NAME), load_file(version / LORA_NAME)
    assert ours.keys() == original.keys()
    for name in original:
        if name.endswith("lora_A.weight"):
            other = name.replace("lora_A", "lora_B")
            assert torch.allclose(ours[other] @ ours[name], original[other] @ original[name] * 8 / 4)
    with safe_open(tmp_path / LORA_NAME, "pt") as file:
        header = file.metadata()
    adapter = json.loads(header["lora_adapter_metadata"])
    assert adapter["transformer.lora_alpha"] == adapter["transformer.r"] == 4
    assert header["ss_network_alpha"] == header["ss_network_dim"] == "4"
    assert header["modelspec.title"] == "x"
    required = ("sai_model_spec", "architecture", "implementation", "title", "resolution")
    assert all(header[f"modelspec.{field}"] for field in required)
    assert header["modelspec.resolution"] == "128x128" and header["modelspec.architecture"] == "stable-diffusion-3/lora"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_tensors_of_every_kind_are_read(tmp_path, dtype):
    wanted = {"a": torch.randn(3, 5).to(dtype), "b": torch.randn(7).to(dtype)}
    save_file(wanted, tmp_path / "x.safetensors", metadata={"k": "v"})
    tensors, metadata = read_tensors(tmp_path / "x.safetensors")
    assert metadata == {"k": "v"}
    assert all(torch.equal(torch.from_numpy(tensors[k].read()), wanted[k].float()) for k in wanted)


@pytest.mark.parametrize("cut", [0, 4, 100, -8])
def test_a_damaged_lora_is_named(version, tmp_path, cut):
    (tmp_path / LORA_NAME).write_bytes((version / LORA_NAME).read_bytes()[:cut])
    with pytest.raises(ValueError, match=LORA_NAME):
        portable_lora(tmp_path, title="x")


def test_a_version_is_not_exported_over_itself(model_dir, version, capsys):
    before = (version / LORA_NAME).read_bytes()
    assert main(["export", str(version), "--model", str(model_dir), "--student", str(version)]) == 2
    assert "own folder" in capsys.readouterr().err
    assert (version / LORA_NAME).read_bytes() == before


def test_half_precision_is_half_as_large(version):
    whole, half = (b"".join(portable_lora(version, title="x", dtype=d)) for d in ("fp32", "fp16"))
    assert len(half) < 0.7 * len(whole)
    with pytest.raises(ValueError, match="dtype"):
        portable_lora(version, title="x", dtype="fp8")


def test_the_card_has_lineage_labels_scores_and_settings(model_dir, version):
    versions = lineage(version)
    assert [v.name for v in versions] == ["round-2", "round-1", "first"]
    card = model_card("Stars | 2", Base.of(model_dir, "someone/base"), versions)
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["license"] == "other" and front["license_link"] == "https://huggingface.co/someone/base"
    assert front["widget"] == [{"text": "a photo of a cat"}] and "tdm-r1" in front["tags"]
    assert "trained with TDM-R1" in card
    assert front["base_model"] == "someone/base" and front["base_model_relation"] == "adapter"
    assert front["library_name"] == "diffusers" and "lora" in front["tags"]
    measured = front["model-index"][0]["results"][0]["metrics"]
    assert {m["type"]: m["value"] for m in measured} == {"reward": 0.5, "geneval": 0.625}
    assert "| people | 128 |" in card and "| demo | 64 |" in card
    assert "| reward | 0.250 | 0.500 |" in card
    assert "| `beta_dpo` | 3.0 | 10.0 |" in card and "`updates`" not in card.split("## Settings")[1]
    assert "| round-1 | 60 | 96 people |" in card and "| someone/base (base) |" in card
    assert str(version.parent) not in card


def test_a_first_student_is_not_said_to_be_trained_by_rounds(model_dir, version):
    card = model_card("x", Base.of(model_dir), lineage(version.parent / "first"))
    front = yaml.safe_load(card.split("---\n")[1])
    assert "no round has trained it" in card and "TDM-R1" not in card and "tdm-r1" not in front["tags"]
    assert "base_model" not in front  # a folder's name is none of the hub's


def test_the_card_names_the_methods_of_the_rounds_in_their_order():
    def card(*methods):
        return model_card("x", Base("base", "P"), [Made("v", updates=9, settings={"method": m}) for m in methods])

    for method in TDMR1Settings.__dataclass_fields__["method"].metadata["choices"]:
        assert METHODS[method] in card(method) and ("TDM-R1" in card(method)) == (method == "tdm_r1")
    text = card("dgpo", "dgpo", "tdm_r1")  # newest first
    assert f"trained with {METHODS['tdm_r1']}, then {METHODS['dgpo']} by Likestep." in text
    assert {"tdm-r1", "dgpo"} < set(yaml.safe_load(text.split("---\n")[1])["tags"])


def test_a_model_folder_tells_its_hub_id_and_license(model_dir, version, tmp_path):
    (tmp_path / "model_index.json").write_bytes((model_dir / "model_index.json").read_bytes())
    (tmp_path / "likestep.json").write_text('{"hub_id": "someone/base", "license": "mit"}')
    front = yaml.safe_load(model_card("x", Base.of(tmp_path), lineage(version)).split("---\n")[1])
    assert (front["base_model"], front["license"]) == ("someone/base", "mit")


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_a_merged_folder_runs_as_it_loads(model_dir, version, tmp_path, dtype):
    out = tmp_path / "out"
    arguments = ["--merged", "--dtype", dtype, "--model", str(model_dir), "--student", str(version)]
    assert main(["export", str(out), *arguments]) == 0
    run_python((out / "README.md").read_text(), out)


def test_the_readmes_snippet_runs_as_it_stands():
    run_python((ROOT / "README.md").read_text(), ROOT)


def run_python(page, folder):
    """A page's Python blocks in a fresh process."""
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert blocks
    for code in blocks:
        subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, timeout=300)


def test_the_cards_own_code_draws_the_apps_image(model_dir, version, apps, tmp_path, monkeypatch):
    """The Python block of README.md, run as it stands beside the file, with the app's noise."""
    wanted, noise = apps
    main(
        ["export", str(tmp_path), "--model", str(model_dir), "--student", str(version), "--base-model", str(model_dir)]
    )
    code = (tmp_path / "README.md").read_text().split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    code = code.replace('"a photo of a cat"', f'"{PROMPT}", latents=noise, height=128, width=128, output_type="np"')
    space = {"noise": noise.clone()}
    exec(code, space)
    assert far(space["image"], wanted) < 1e-3
