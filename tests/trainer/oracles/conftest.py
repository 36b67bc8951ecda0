"""Tiny random Mask2Former and CLIP models, saved with their processors and tokenizer as the real ones are."""

import pytest
import torch

from tests.trainer.oracles.serving import serve

COCO = {
    **{i: f"class {i}" for i in range(80)},
    **{0: "person", 2: "car", 4: "aeroplane", 47: "apple", 64: "mouse"},
}


@pytest.fixture(scope="module")
def running():
    """A server for a module's tests; each sets its answers."""
    server = serve()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def detector_dir(tmp_path_factory):
    """It finds apples everywhere; 20 queries, so more than 16 of a class can be found."""
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig
    from transformers.models.mask2former.image_processing_pil_mask2former import Mask2FormerImageProcessorPil

    torch.manual_seed(0)
    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = SwinConfig(
        image_size=96, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=3, out_features=stages
    )
    config = Mask2FormerConfig(
        backbone_config=backbone,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=32,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        dim_feedforward=16,
        num_queries=20,
        id2label=COCO,
        label2id={v: k for k, v in COCO.items()},
    )
    model = Mask2FormerForUniversalSegmentation(config).eval()
    with torch.no_grad():
        # Sure apples with masks of every certainty, so that both of GenEval's thresholds have something to cut.
        model.class_predictor.weight.mul_(0.1)
        model.class_predictor.bias.fill_(-8)
        model.class_predictor.bias[47] = 4
        masks = model.model.transformer_module.decoder.mask_predictor.mask_embedder
        for p in masks.parameters():
            p.mul_(6)
    folder = tmp_path_factory.mktemp("mask2former")
    model.save_pretrained(folder)
    Mask2FormerImageProcessorPil(size={"shortest_edge": 96, "longest_edge": 160}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def clip_dir(tmp_path_factory):
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    torch.manual_seed(0)
    letters = [*"abcdefghijklmnopqrstuvwxyz-"]
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    model = CLIPModel(
        CLIPConfig(
            text_config={**size, **ids, "vocab_size": len(tokens), "max_position_embeddings": 77},
            vision_config={**size, "image_size": 32, "patch_size": 8},
            projection_dim=16,
        )
    )
    folder = tmp_path_factory.mktemp("clip")
    model.save_pretrained(folder)
    CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77).save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder
