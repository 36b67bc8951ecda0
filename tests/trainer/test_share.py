"""`share` sends what `export` writes."""

import json

import torch
from safetensors.torch import load

from common.cards import LORA_NAME
from trainer.cli import main


def test_the_command_sends_lora_card_and_workflow(model_dir, parent, fake_hub, capsys, monkeypatch):
    words = ["share", "team/stars", "--model", str(model_dir), "--student", str(parent), "--title", "Stars"]
    assert main([*words, "--public"]) == 0
    assert capsys.readouterr().out.strip() == f"{fake_hub.address}/team/stars"
    assert fake_hub.made == [("team/stars", False)] and fake_hub.messages == ["Stars"]
    assert set(fake_hub.files) == {LORA_NAME, "README.md", "comfyui-workflow.json"}
    assert all(isinstance(t, torch.Tensor) for t in load(fake_hub.files[LORA_NAME]).values())
    nodes = json.loads(fake_hub.files["comfyui-workflow.json"])
    assert nodes["10"]["inputs"]["lora_name"] == LORA_NAME
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert main(words) == 1
    assert capsys.readouterr().err.startswith("error: team/stars: the hub refused: ")
    monkeypatch.delenv("HF_TOKEN")
    assert main(words) == 2
    assert "set HF_TOKEN" in capsys.readouterr().err
