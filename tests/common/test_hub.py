"""Versions go to a hub with the right token; workflows name what the version needs."""

import math

import pytest

from common.cards import Base
from common.comfy import workflow
from common.hub import HubError, can_push, push


def test_files_are_committed_to_a_repository_that_is_made(fake_hub, tmp_path):
    file = tmp_path / "x.safetensors"
    file.write_bytes(b"weights")
    address = push({"x.safetensors": file, "README.md": b"# card"}, "team/student", message="version 2")
    assert address == f"{fake_hub.address}/team/student"
    assert fake_hub.made == [("team/student", True)] and fake_hub.messages == ["version 2"]
    assert fake_hub.files == {"x.safetensors": b"weights", "README.md": b"# card"}
    push({"README.md": b"# card"}, "team/student", message="again", private=False)
    assert fake_hub.made[1] == ("team/student", False)


def test_what_the_hub_refuses_is_one_sentence(fake_hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(HubError, match=r"the hub refused: .*Invalid username or password"):
        push({"README.md": b""}, "team/student", message="x")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match="the hub cannot be reached"):
        push({"README.md": b""}, "team/student", message="x")


@pytest.mark.parametrize(
    "name", ["", "student", "a/b/c", "../x", "a/..", "a b/c", "http://x/y", "a/b--c", "a/" + "x" * 99]
)
def test_other_names_are_refused_before_anything_is_sent(fake_hub, name):
    with pytest.raises(ValueError, match="repository: give it as owner/name"):
        push({"README.md": b""}, name, message="x")
    assert not fake_hub.made


def test_without_a_token_nothing_is_sent(monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert not can_push()
    with pytest.raises(ValueError, match="set HF_TOKEN"):
        push({}, "a/b", message="x")


@pytest.mark.parametrize(
    "pipeline",
    [*(f"{name}Pipeline" for name in ("StableDiffusion3", "ZImage", "StableDiffusionXL", "Flux", "QwenImage"))],
)
def test_a_workflow_loads_the_lora_and_walks_its_steps(pipeline):
    guidance = 3.5 if pipeline == "FluxPipeline" else None
    base = Base("org/model", pipeline, shift=3.0, flow="XL" not in pipeline, pixels=1024, guidance=guidance)
    nodes = workflow(base, lora="mine.safetensors", steps=4)
    links = [value for node in nodes.values() for value in node["inputs"].values() if isinstance(value, list)]
    assert links and all(number in nodes for number, _ in links)
    by_class = {node["class_type"]: node["inputs"] for node in nodes.values()}
    assert by_class["LoraLoaderModelOnly"]["lora_name"] == "mine.safetensors"
    sampler = by_class["KSampler"]
    assert (sampler["steps"], sampler["cfg"], sampler["sampler_name"]) == (4, 1.0, "euler")
    shifts = [inputs for name, inputs in by_class.items() if name.startswith("ModelSampling")]
    if guidance:
        assert [shifts[0]["max_shift"], shifts[0]["base_shift"]] == [math.log(3.0)] * 2
        assert by_class["FluxGuidance"]["guidance"] == 3.5
        assert nodes[sampler["positive"][0]]["class_type"] == "FluxGuidance"
    else:
        assert [inputs["shift"] for inputs in shifts] == ([] if "XL" in pipeline else [3.0])
    # What is sampled is the model with the LoRA.
    at = sampler["model"]
    while nodes[at[0]]["class_type"] != "LoraLoaderModelOnly":
        at = nodes[at[0]]["inputs"]["model"]


def test_a_family_without_a_workflow_has_none():
    assert workflow(Base("org/model", "Flux2KleinPipeline")) is None
