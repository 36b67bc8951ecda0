"""LoRA files of every program: the change that is applied is stock diffusers' own, or the file is refused by name."""

import functools
import json
import math

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file

from common.cards import LORA_NAME
from tests.trainer.backends.tiny import CASES, sd35, sdxl
from trainer.backends import load_backend
from trainer.backends.lora import ADAPTER, as_adapter, read_pairs
from trainer.export import export_lora, export_merged
from trainer.roles import STUDENT, Roles
from trainer.sampler import initial_noise, sample_latents


def some_modules(backend, count=None):
    """Modules that get LoRA, with (out, in)."""
    layers = {
        name: tuple(module.weight.shape)
        for name, module in backend.transformer.named_modules()
        if isinstance(module, torch.nn.Linear)
        and any(name == t or name.endswith(f".{t}") for t in backend.lora_targets)
    }
    return dict(list(layers.items())[:count])


def random_pair(shape, rank, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(rank, shape[1], generator=g) * 0.2, torch.randn(shape[0], rank, generator=g) * 0.2


def weights(network):
    """Module → weight as it acts, adapters included."""
    found = {}
    for name, module in network.named_modules():
        if hasattr(module, "get_delta_weight"):
            deltas = [module.get_delta_weight(a) for a in module.active_adapters if a in module.lora_A]
            found[name] = module.get_base_layer().weight.data + sum(deltas)
        elif (
            isinstance(module, torch.nn.Linear | torch.nn.Conv2d) and ".lora_" not in name and "base_layer" not in name
        ):
            found[name] = module.weight.data
    return found


def change(after, before):
    assert after.keys() == before.keys()
    return torch.cat([(after[k] - before[k]).flatten() for k in sorted(before)])


def ours(backend, folder):
    before = {k: v.clone() for k, v in weights(backend.transformer).items()}
    lora = backend.load_lora(folder)
    roles = Roles(backend.transformer, lora.targets, rank=lora.rank, alpha=lora.alpha, roles=(STUDENT,))
    roles.load_state_dict(STUDENT, lora.state)
    found = change(weights(backend.transformer), before)
    roles.remove()
    assert not change(weights(backend.transformer), before).any()
    return found


@functools.lru_cache(maxsize=1)
def stock_pipeline(model):
    return DiffusionPipeline.from_pretrained(model)


def stocks(model, backend, file):
    pipeline = stock_pipeline(model)
    network = getattr(pipeline, backend.component)
    before = {k: v.clone() for k, v in weights(network).items()}
    pipeline.load_lora_weights(file.parent, weight_name=file.name)
    try:
        return change(weights(network), before)
    finally:
        pipeline.unload_lora_weights()


def peft_file(backend, folder, *, header=None, ranks=(4,), count=None, name="{component}.{module}"):
    """A file in PEFT's tensors; `ranks` are dealt out in turn, `header` are the adapter's settings."""
    tensors = {}
    for i, (module, shape) in enumerate(some_modules(backend, count).items()):
        full = name.format(component=backend.component, module=module)
        a, b = random_pair(shape, ranks[i % len(ranks)], i)
        tensors |= {f"{full}.lora_A.weight": a, f"{full}.lora_B.weight": b}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / LORA_NAME, metadata=in_header(backend, header))
    return folder / LORA_NAME


def in_header(backend, header):
    """As diffusers writes an adapter's settings."""
    if header is None:
        return None
    full = {"target_modules": list(backend.lora_targets), **header}
    return {ADAPTER: json.dumps({f"{backend.component}.{k}": v for k, v in full.items()})}


SETTINGS = {
    "alpha twice the rank": {"r": 4, "lora_alpha": 8},
    "rsLoRA": {"r": 4, "lora_alpha": 8, "use_rslora": True},
    "a fractional alpha": {"r": 4, "lora_alpha": 1.5},
    "alpha below one": {"r": 4, "lora_alpha": 0.5},
    "alpha_pattern": {"r": 4, "lora_alpha": 4, "alpha_pattern": {"to_q": 16, "to_k": 0.25}},
    "nothing said": None,
}


@pytest.mark.parametrize("header", SETTINGS.values(), ids=SETTINGS)
def test_strength_is_stocks(family, backend, tmp_path, header):
    file = peft_file(backend, tmp_path / "v", header=header)
    wanted = stocks(family[1], backend, file)
    assert wanted.norm() > 0.1
    assert (ours(backend, tmp_path / "v") - wanted).norm() < 1e-3 * wanted.norm()
    exported = export_lora(family[1], tmp_path / "v", tmp_path / "out")
    assert (stocks(family[1], backend, exported) - wanted).norm() < 1e-3 * wanted.norm()


def test_ranks_and_modules_may_differ(family, backend, tmp_path):
    """A part of the modules, of mixed ranks and strengths: stock's change, on all of the trainer's modules."""
    names = list(some_modules(backend, 6))
    header = {
        "r": 2,
        "lora_alpha": 3,
        "rank_pattern": {f"^{n}": 5 for n in names[1::2]},
        "alpha_pattern": {names[1]: 2.5},
    }
    file = peft_file(backend, tmp_path / "v", header=header, ranks=(2, 5), count=6)
    wanted = stocks(family[1], backend, file)
    assert (ours(backend, tmp_path / "v") - wanted).norm() < 1e-3 * wanted.norm()
    lora = backend.load_lora(tmp_path / "v")
    assert lora.rank == 5
    assert {k.rpartition(".lora_")[0] for k in lora.state} == set(some_modules(backend))
    assert all(v.any() for k, v in lora.state.items() if "lora_A" in k)  # with B at 0 too, nothing could be learned
    again = backend.load_lora(tmp_path / "v")
    assert all(torch.equal(v, again.state[k]) for k, v in lora.state.items())
    exported = export_lora(family[1], tmp_path / "v", tmp_path / "out")
    assert (stocks(family[1], backend, exported) - wanted).norm() < 1e-3 * wanted.norm()


def kohya_file(backend, folder, *, alpha=3.0, dot="_", prefix="lora_unet_", extra=()):
    tensors = {}
    for i, (module, shape) in enumerate({**some_modules(backend), **dict(extra)}.items()):
        a, b = random_pair(shape, 4, i)
        name = prefix + module.replace(".", dot)
        tensors |= {f"{name}.lora_down.weight": a, f"{name}.lora_up.weight": b, f"{name}.alpha": torch.tensor(alpha)}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / LORA_NAME, metadata={"ss_network_dim": "4"})
    return folder / LORA_NAME


def truth(backend, scale, extra=()):
    """B·A times `scale` of what the files above have."""
    before = weights(backend.transformer)
    after = dict(before)
    for i, (module, shape) in enumerate({**some_modules(backend), **dict(extra)}.items()):
        a, b = random_pair(shape, 4, i)
        after[module] = before[module] + scale * (b @ a)
    return change(after, before)


@pytest.mark.parametrize("alpha", [3.0, 0.5, 4.0])
def test_kohyas_names_and_alphas(family, backend, tmp_path, alpha):
    file = kohya_file(backend, tmp_path / "v", alpha=alpha)
    wanted = truth(backend, alpha / 4)
    assert (ours(backend, tmp_path / "v") - wanted).norm() < 1e-3 * wanted.norm()
    if backend.component == "unet":  # the other families' stock loaders know kohya's original names only
        assert (stocks(family[1], backend, file) - wanted).norm() < 1e-3 * wanted.norm()
    exported = export_lora(family[1], tmp_path / "v", tmp_path / "out")
    assert (stocks(family[1], backend, exported) - wanted).norm() < 1e-3 * wanted.norm()


def test_modules_beside_the_familys_own_are_taken_along(family, backend, tmp_path):
    others = [
        (name, tuple(module.weight.shape))
        for name, module in backend.transformer.named_modules()
        if isinstance(module, torch.nn.Linear) and name not in some_modules(backend) and "block" in name
    ][:3]
    if not others:
        pytest.skip("the family's own are all there are")
    kohya_file(backend, tmp_path / "v", alpha=2.0, extra=others)
    wanted = truth(backend, 0.5, others)
    assert (ours(backend, tmp_path / "v") - wanted).norm() < 1e-3 * wanted.norm()
    # A version that goes on from it is read again with the same modules.
    lora = backend.load_lora(tmp_path / "v")
    backend.save_lora(tmp_path / "next", lora.state, rank=lora.rank, alpha=lora.alpha)
    again = backend.load_lora(tmp_path / "next")
    assert again[1:] == lora[1:]
    assert all(torch.equal(v, again.state[k]) for k, v in lora.state.items())


@pytest.mark.parametrize("alphas", [(0.7,) * 4, (0.7, 1.7, 2.7, 3.7)], ids=["one alpha", "an alpha each"])
def test_sdxls_original_blocks(tmp_path, alphas):
    """Kohya's SDXL names count blocks as the original checkpoint does; diffusers renames them. Stock overlooks, with a
    warning, the alphas of attention layers that have another than most; here they count."""
    torch.manual_seed(0)
    model = sdxl(tmp_path / "model")
    backend = load_backend(model)
    tensors = {}
    names = {
        "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q": "input_blocks_3_1_transformer_blocks_0_attn1_to_q",
        "mid_block.attentions.0.transformer_blocks.0.attn2.to_k": "middle_block_1_transformer_blocks_0_attn2_to_k",
        "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj": "middle_block_1_transformer_blocks_0_ff_net_0_proj",
        "up_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0": (
            "output_blocks_0_1_transformer_blocks_0_attn1_to_out_0"
        ),
    }
    network = dict(backend.transformer.named_modules())
    for i, (module, name) in enumerate(names.items()):
        a, b = random_pair(tuple(network[module].weight.shape), 2 + i, i)
        name = f"lora_unet_{name}"
        tensors |= {
            f"{name}.lora_down.weight": a,
            f"{name}.lora_up.weight": b,
            f"{name}.alpha": torch.tensor(alphas[i]),
        }
    (tmp_path / "v").mkdir()
    save_file(tensors, tmp_path / "v" / LORA_NAME)
    if len(set(alphas)) == 1:
        wanted = stocks(model, backend, tmp_path / "v" / LORA_NAME)
        assert wanted.norm() > 0.1
        assert (ours(backend, tmp_path / "v") - wanted).norm() < 1e-3 * wanted.norm()
    pairs = read_pairs(tmp_path / "v" / LORA_NAME, backend.transformer, backend.pipeline_class, "unet")
    scaled = {name: pair.scale * pair.b @ pair.a for name, pair in pairs.items()}
    for i, (module, name) in enumerate(names.items()):
        a, b = random_pair(tuple(network[module].weight.shape), 2 + i, i)
        assert torch.allclose(scaled.pop(module), alphas[i] / (2 + i) * b @ a, atol=1e-6), name
    assert not scaled


def test_lightnings_file_draws_stocks_images_and_can_be_trained_on(built, tmp_path):
    """Qwen-Image's Lightning: names without a prefix, alphas, and layers that nothing is heard of."""
    model, case = built("qwen_image"), CASES["qwen_image"]
    backend = load_backend(model)
    layers = {n: m for n, m in backend.transformer.named_modules() if isinstance(m, torch.nn.Linear) and "block" in n}
    others = {n: tuple(m.weight.shape) for n, m in layers.items() if n not in some_modules(backend)}
    assert set(backend.inner.idle(backend.transformer)) <= set(others)
    file = kohya_file(backend, tmp_path / "v", dot=".", prefix="", extra=others)
    lora = backend.load_lora(tmp_path / "v")
    roles = Roles(backend.transformer, lora.targets, rank=lora.rank, alpha=lora.alpha, roles=(STUDENT,))
    roles.load_state_dict(STUDENT, lora.state)
    prompt, noise = backend.encode(["a star"]), initial_noise([3], backend.latent_shape)
    points = sample_latents(backend, prompt, noise, backend.grid(4))
    pipeline = DiffusionPipeline.from_pretrained(model)
    pipeline.load_lora_weights(file.parent, weight_name=file.name)
    images = pipeline(prompt="a star", output_type="latent", **case.call(backend, noise)).images
    assert (points[:, -1] - backend.unpack(images)).abs().max() < 1e-4 * points.std()
    velocity = backend.velocity(noise, torch.tensor([0.7]), prompt)
    torch.autograd.grad(velocity.square().sum(), roles.parameters(STUDENT))  # raises where one has none


@pytest.mark.parametrize("prefix", ["base_model.model.", "diffusion_model.", "base_model.model.{component}."])
def test_pefts_and_ai_toolkits_names(family, backend, tmp_path, prefix):
    peft_file(backend, tmp_path / "v", name=prefix + "{module}")
    wanted = truth(backend, 1)
    assert (ours(backend, tmp_path / "v") - wanted).norm() < 1e-3 * wanted.norm()


def test_a_merge_is_the_same_change(family, backend, tmp_path):
    peft_file(backend, tmp_path / "v", header={"r": 4, "lora_alpha": 1.5}, count=5)
    before = {k: v.clone() for k, v in weights(backend.transformer).items()}
    merged = DiffusionPipeline.from_pretrained(export_merged(family[1], tmp_path / "v", tmp_path / "out"))
    wanted = ours(backend, tmp_path / "v")
    found = change(weights(getattr(merged, backend.component)), before)
    assert (found - wanted).norm() < 1e-3 * wanted.norm()


class Refusals:
    """Each writes what must be refused, given good tensors, a header and a module's name."""

    def dora(tensors, header, name):
        return tensors | {f"{name}.lora_magnitude_vector": torch.ones(8)}, header, "is DoRA"

    def kohyas_dora(tensors, header, name):
        return tensors | {f"{name}.dora_scale": torch.ones(8)}, header, "is DoRA"

    def dora_by_its_header(tensors, header, name):
        return tensors, {"use_dora": True, "r": 4, "lora_alpha": 4}, "is DoRA"

    def lokr(tensors, header, name):
        return tensors | {f"{name}.lokr_w1": torch.ones(2, 2)}, header, "is LoKr"

    def loha(tensors, header, name):
        return tensors | {f"{name}.hada_w1_a": torch.ones(2, 2)}, header, "is LoHa"

    def a_bias(tensors, header, name):
        return tensors | {f"{name}.lora_B.bias": torch.ones(2)}, header, "LoRA with a bias"

    def an_unknown_tensor(tensors, header, name):
        return tensors | {"transformer.stars.7.lora_A.weight": torch.ones(2, 2)}, header, r"stars\.7\.lora_A\.weight"

    def a_text_encoder(tensors, header, name):
        return tensors | {"text_encoder.q.lora_A.weight": torch.ones(2, 2)}, header, "also changes a text encoder"

    def one_of_a_pair(tensors, header, name):
        return {k: v for k, v in tensors.items() if k != f"{name}.lora_B.weight"}, header, "only one of the two"

    def not_finite(tensors, header, name):
        return tensors | {f"{name}.lora_B.weight": tensors[f"{name}.lora_B.weight"] * math.nan}, header, "not finite"

    def a_wrong_shape(tensors, header, name):
        return tensors | {f"{name}.lora_A.weight": torch.ones(4, 3)}, header, r"has shape \(4, 3\), expected"

    def no_strength(tensors, header, name):
        return tensors, {"r": 4, "lora_alpha": 0}, "lora_alpha: 0 of"

    def another_rank(tensors, header, name):
        return tensors, {"r": 8, "lora_alpha": 8}, "r: the header says 8 for .* have rank 4"


@pytest.mark.parametrize(
    "case", [v for k, v in vars(Refusals).items() if not k.startswith("__")], ids=lambda c: c.__name__
)
def test_what_is_no_lora_of_the_model_is_refused_by_every_entrance(one_model, tmp_path, case):
    model, backend = one_model
    name = f"{backend.component}.{next(iter(some_modules(backend)))}"
    file = peft_file(backend, tmp_path / "v")
    tensors, header, sentence = case(load_file(file), None, name)
    save_file(tensors, file, metadata=in_header(backend, header))
    for entrance in (
        lambda: backend.load_lora(tmp_path / "v"),
        lambda: export_lora(model, tmp_path / "v", tmp_path / "out"),
    ):
        with pytest.raises(ValueError, match=f"version: .*{sentence}"):
            entrance()
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def one_model(tmp_path_factory):
    torch.manual_seed(0)
    folder = sd35(tmp_path_factory.mktemp("one"))
    return folder, load_backend(folder)


def test_a_merge_that_changes_nothing_is_refused(one_model, tmp_path):
    model, backend = one_model
    file = peft_file(backend, tmp_path / "v")
    save_file({k: torch.zeros_like(v) for k, v in load_file(file).items()}, file)
    with pytest.raises(ValueError, match="changes no weight of"):
        export_merged(model, tmp_path / "v", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_plain_lora_comes_back_as_it_was(backend, tmp_path):
    state = {}
    for i, (module, shape) in enumerate(some_modules(backend).items()):
        state[f"{module}.lora_A.weight"], state[f"{module}.lora_B.weight"] = random_pair(shape, 4, i)
    backend.save_lora(tmp_path, state, rank=4, alpha=8)
    lora = backend.load_lora(tmp_path)
    assert (lora.rank, lora.alpha, type(lora.alpha), lora.targets) == (4, 8, int, backend.lora_targets)
    assert lora.state.keys() == state.keys()
    assert all(torch.equal(v, state[k]) for k, v in lora.state.items())
    pairs = read_pairs(tmp_path / LORA_NAME, backend.transformer, backend.pipeline_class, backend.component)
    assert as_adapter(pairs, backend.transformer, backend.lora_targets).alpha == 8
