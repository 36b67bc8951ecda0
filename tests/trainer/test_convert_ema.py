"""The authors' nameless EMA files: made here the way their code makes them, and every way in which one can be wrong."""

import pytest
import torch
from diffusers import DiffusionPipeline, SD3Transformer2DModel, ZImageTransformer2DModel
from peft import LoraConfig, get_peft_model

from tests.trainer.backends.tiny import sd35, z_image
from trainer.backends import backend_class, load_backend
from trainer.backends.sd3 import SD3Backend
from trainer.cli import main
from trainer.convert_ema import convert_ema, lora_shapes, read_ema
from trainer.sampler import Sampler

TARGETS = SD3Backend.attention  # what a tiny model has beside these, the authors' do not


@pytest.fixture(scope="module", params=[sd35, z_image])
def model(request, tmp_path_factory):
    torch.manual_seed(0)
    return request.param(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def tiny_sd35(tmp_path_factory):
    torch.manual_seed(0)
    return sd35(tmp_path_factory.mktemp("model"))


def authors_network(model, targets):
    """The pipeline with an adapter as the authors' code puts it there, its random values, and its parameters in order."""
    pipeline = DiffusionPipeline.from_pretrained(model)
    config = LoraConfig(r=4, lora_alpha=8, init_lora_weights="gaussian", target_modules=list(targets))
    network = get_peft_model(pipeline.transformer, config, adapter_name="tdm")
    parameters = [p for name, p in network.named_parameters() if "tdm" in name]
    torch.manual_seed(1)
    for p in parameters:
        p.data.normal_(std=0.3)
    return pipeline, parameters


def write(path, tensors, *, bare=False):
    tensors = [t.detach().clone() for t in tensors]
    torch.save(tensors if bare else {"decay": 0.9, "ema_parameters": tensors}, path)
    return path


@pytest.mark.parametrize("bare", [False, True])
def test_the_stock_pipeline_draws_what_the_authors_network_does(model, tmp_path, bare):
    targets = backend_class(model).attention
    pipeline, parameters = authors_network(model, targets)
    convert_ema(write(tmp_path / "ema.ckpt", parameters, bare=bare), model, tmp_path / "lora", alpha=8, targets=targets)

    backend = load_backend(model)
    call = {"prompt": "a star", "output_type": "latent", **backend.stock_call(2)}
    theirs = pipeline(generator=torch.Generator().manual_seed(0), **call).images
    stock = DiffusionPipeline.from_pretrained(model)
    bare_images = stock(generator=torch.Generator().manual_seed(0), **call).images
    stock.load_lora_weights(tmp_path / "lora")
    ours = stock(generator=torch.Generator().manual_seed(0), **call).images
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert (bare_images - theirs).abs().max() > 1e-2


def test_a_model_of_the_familys_own_targets_starts_from_it(tmp_path):
    model = z_image(tmp_path / "model")
    _, parameters = authors_network(model, backend_class(model).attention)
    file = write(tmp_path / "ema.ckpt", parameters)
    assert main(["convert-ema", str(file), str(tmp_path / "lora"), "--model", str(model), "--alpha", "8"]) == 0
    sampler = Sampler(model)
    bare = sampler.sample_group("a star", [1]).trajectory
    sampler.use_version(tmp_path / "lora")
    assert (sampler.sample_group("a star", [1]).trajectory - bare).abs().max() > 1e-2


def test_the_real_models_have_as_many_tensors_in_the_releases_order():
    # The authors pin diffusers 0.33.1, whose blocks have this order; should an upgrade change it, tensors change places.
    with torch.device("meta"):
        network = SD3Transformer2DModel(
            sample_size=128,
            num_layers=24,
            num_attention_heads=24,
            attention_head_dim=64,
            joint_attention_dim=4096,
            caption_projection_dim=1536,
            pooled_projection_dim=2048,
            pos_embed_max_size=384,
            dual_attention_layers=tuple(range(13)),
            qk_norm="rms_norm",
        )
        z = ZImageTransformer2DModel()
    targets = SD3Backend.targets(network)
    assert targets == TARGETS
    names = list(lora_shapes(network, targets, 32))
    assert len(names) == 2 * (24 * 8 - 1)  # the last block has no to_add_out
    order = ["to_q", "to_k", "to_v", "add_k_proj", "add_v_proj", "add_q_proj", "to_out.0", "to_add_out"]
    assert names[:16:2] == [f"transformer_blocks.0.attn.{name}.lora_A.weight" for name in order]
    assert names[1] == "transformer_blocks.0.attn.to_q.lora_B.weight"
    assert not any("attn2" in name for name in names)

    names = list(lora_shapes(z, ("to_q", "to_k", "to_v", "to_out.0"), 32))
    assert len(names) == 2 * 4 * (30 + 2 + 2)
    assert [names[0].split(".")[0], names[16].split(".")[0], names[32].split(".")[0]] == [
        "noise_refiner",
        "context_refiner",
        "layers",
    ]


def refused(tmp_path, model, content, **options):
    torch.save(content, tmp_path / "ema.ckpt")
    with pytest.raises(ValueError, match="--targets") as caught:
        convert_ema(tmp_path / "ema.ckpt", model, tmp_path / "lora", targets=TARGETS, **options)
    assert not (tmp_path / "lora").exists()
    return str(caught.value)


def test_a_wrong_count_names_both_and_the_fix(tiny_sd35, tmp_path):
    _, parameters = authors_network(tiny_sd35, TARGETS)
    message = refused(tmp_path, tiny_sd35, [p.detach() for p in parameters[:-2]])
    assert message.startswith("targets: the file has 44 tensors")
    assert "has 46" in message


def test_a_wrong_shape_names_the_tensor_and_the_fix(tiny_sd35, tmp_path):
    _, parameters = authors_network(tiny_sd35, TARGETS)
    tensors = [p.detach() for p in parameters]
    tensors[6], tensors[7] = tensors[7], tensors[6]
    message = refused(tmp_path, tiny_sd35, {"ema_parameters": tensors})
    assert "tensor 6" in message and "transformer_blocks.0.attn.add_k_proj.lora_A.weight" in message
    assert "(32, 4)" in message and "(4, 32)" in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"decay": 0.9, "weights": []}, "has no ema_parameters but decay, weights"),
        ([], "holds list, not a list of tensors"),
        ([torch.zeros(4, 8), torch.zeros(3)], "tensor 1"),
        ([torch.zeros(4, 8), "a"], "tensor 1"),
        ([torch.full((4, 8), float("nan"))], "tensor 0 .* not finite"),
    ],
)
def test_what_is_no_list_of_matrices_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "ema.ckpt")
    with pytest.raises(ValueError, match=message):
        read_ema(tmp_path / "ema.ckpt")


class Trap:
    """Unpickled carelessly, it leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_code_in_a_file_is_not_run(tmp_path):
    torch.save({"ema_parameters": [torch.zeros(4, 8)], "extra": Trap(tmp_path / "sprung")}, tmp_path / "ema.ckpt")
    with pytest.raises(ValueError, match="holds more than tensors"):
        read_ema(tmp_path / "ema.ckpt")
    assert not (tmp_path / "sprung").exists()


def test_a_cut_file_and_a_missing_one_are_named(tmp_path):
    file = write(tmp_path / "ema.ckpt", [torch.zeros(4, 8)])
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"ema\.ckpt is damaged"):
        read_ema(file)
    with pytest.raises(ValueError, match=r"other\.ckpt does not exist"):
        read_ema(tmp_path / "other.ckpt")


def test_a_students_folder_is_not_overwritten(tiny_sd35, tmp_path):
    _, parameters = authors_network(tiny_sd35, TARGETS)
    file = write(tmp_path / "ema.ckpt", parameters)
    convert_ema(file, tiny_sd35, tmp_path / "lora", targets=TARGETS)
    with pytest.raises(ValueError, match=r"output: .* give a new folder"):
        convert_ema(file, tiny_sd35, tmp_path / "lora", targets=TARGETS)
