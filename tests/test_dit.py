"""Chapter 07's DiT: parity with diffusers, the paper's key names and counts, the ways to condition, refusals."""

import json

import pytest
import torch
from diffusers import DiTTransformer2DModel
from safetensors.torch import save_file

from sora_course import dit
from sora_course.dit import CONDITIONINGS, DiT, DiTConfig

SIZES = {
    "as published, small": {"num_attention_heads": 6, "attention_head_dim": 64, "num_layers": 2, "sample_size": 8, "out_channels": 8},
    "other patches and channels": {
        "num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 3, "sample_size": 16, "patch_size": 4, "in_channels": 3,
        "out_channels": 3,
    },
}  # fmt: skip


def theirs(name):
    """diffusers' network as the published one is: no frequency shift, eps of 1e-6, one embedder for all blocks."""
    torch.manual_seed(0)
    model = DiTTransformer2DModel(**SIZES[name], num_embeds_ada_norm=10, norm_eps=1e-6).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.1)
    first = model.transformer_blocks[0].norm1.emb
    for block in model.transformer_blocks:
        block.norm1.emb.load_state_dict(first.state_dict())
        block.norm1.emb.time_proj.downscale_freq_shift = 0
    return model


def inputs(model, generator):
    c, side = model.config.in_channels, model.config.sample_size
    return torch.randn(3, c, side, side, generator=generator), torch.tensor([0, 500, 999]), torch.tensor([0, 7, 10])


@pytest.mark.parametrize("where", ["", "transformer"])
@pytest.mark.parametrize("name", SIZES)
def test_parity_with_diffusers(name, where, tmp_path, generator):
    reference = theirs(name)
    reference.save_pretrained(tmp_path / where)
    ours = DiT.from_pretrained(tmp_path)
    x, t, labels = inputs(reference, generator)
    with torch.no_grad():
        wanted = reference(x, timestep=t, class_labels=labels).sample
        assert (ours(x, t, labels) - wanted).abs().max() <= 1e-5 * wanted.abs().max()


PAPER = {
    "x_embedder.": "x_embedder.proj.", "y_embedder.": "y_embedder.embedding_table.", ".attention.": ".attn.",
    "blocks.0.mlp.0.": "blocks.0.mlp.fc1.", "blocks.0.mlp.2.": "blocks.0.mlp.fc2.", "blocks.1.mlp.0.": "blocks.1.mlp.fc1.",
    "blocks.1.mlp.2.": "blocks.1.mlp.fc2.", "ada_ln.": "adaLN_modulation.", "final.": "final_layer.",
}  # fmt: skip


def paper_tensors(ours):
    tensors = {}
    for name, tensor in ours.state_dict().items():
        for mine, papers in PAPER.items():
            name = name.replace(mine, papers)
        tensors[name] = tensor.clone()
    tensors["x_embedder.proj.weight"] = tensors["x_embedder.proj.weight"].view(384, 4, 2, 2)
    tensors["pos_embed"] = dit.positions((4, 4), 384)[None]
    return tensors


@pytest.mark.parametrize("file", ["DiT.safetensors", "DiT-XL-2-256x256.pt"])
def test_the_papers_own_names(file, tmp_path, generator):
    reference = theirs("as published, small")
    reference.save_pretrained(tmp_path / "a")
    ours = DiT.from_pretrained(tmp_path / "a")
    tensors, path = paper_tensors(ours), tmp_path / file
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)
    again = DiT.from_pretrained(path)
    x, t, labels = inputs(reference, generator)
    assert torch.equal(again(x, t, labels), ours(x, t, labels)) and again.config == ours.config
    (tmp_path / "b").mkdir()
    path.rename(tmp_path / "b" / file)
    assert DiT.from_pretrained(tmp_path / "b").config == ours.config


def test_other_positions_than_the_papers_are_refused(tmp_path):
    reference = theirs("as published, small")
    reference.save_pretrained(tmp_path / "a")
    tensors = paper_tensors(DiT.from_pretrained(tmp_path / "a"))
    for wrong in (tensors["pos_embed"].flip(1), tensors["pos_embed"][:, :15]):
        save_file(tensors | {"pos_embed": wrong.contiguous()}, tmp_path / "wrong.safetensors")
        with pytest.raises(ValueError, match="positions in these weights are not DiT's"):
            DiT.from_pretrained(tmp_path / "wrong.safetensors")


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (exec, ("raise SystemExit('ran')",))

    torch.save({"x": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="cannot be read as weights"):
        DiT.from_pretrained(tmp_path / "evil.pt")


def test_the_published_positions_are_ours():
    from diffusers.models.embeddings import get_2d_sincos_pos_embed

    table = torch.as_tensor(get_2d_sincos_pos_embed(48, 6, base_size=6, output_type="pt")).float()
    assert torch.allclose(dit.positions((6, 6), 48), table, atol=1e-5)


# Table 4 of the paper. (The published code counts its fixed table of positions, too: 675.1 million for XL/2.)
MILLIONS = {"S": (33, 33, 33), "B": (130, 130, 131), "L": (458, 458, 459), "XL": (675, 675, 676)}


@pytest.mark.parametrize("size", MILLIONS)
def test_parameter_counts_are_the_papers(size):
    for patch, millions in zip((2, 4, 8), MILLIONS[size]):
        with torch.device("meta"):
            net = getattr(dit, f"DiT_{size}_{patch}")()
        assert round(sum(p.numel() for p in net.parameters()) / 1e6) == millions, patch


def test_parameter_counts_of_the_ways_to_condition_are_the_papers():
    for conditioning, millions in (("in_context", 449), ("cross_attention", 598), ("adaln", 600), ("adaln_zero", 675)):
        with torch.device("meta"):
            net = dit.DiT_XL_2(conditioning=conditioning)
        assert abs(sum(p.numel() for p in net.parameters()) / 1e6 - millions) < 0.6, conditioning


SMALL = DiTConfig(hidden_size=32, depth=2, num_heads=2, num_classes=5)


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_every_way_to_condition_takes_any_size_and_trains_all_of_its_weights(conditioning, generator):
    torch.manual_seed(0)
    net = DiT(DiTConfig(**vars(SMALL) | {"conditioning": conditioning}))
    x, t, labels = torch.randn(2, 4, 8, 12, generator=generator), torch.tensor([3.0, 700.0]), torch.tensor([1, 5])
    assert net(x, t, labels).shape == (2, 8, 8, 12) and not net(x, t, labels).any()  # a fresh one says zero
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.2)
    out = net(x, t, labels)
    for other in (net(x, t + 100, labels), net(x, t, labels - 1)):
        assert ((other - out).abs().amax((1, 2, 3)) > 1e-3).all()  # time and label matter
    out.pow(2).sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_a_fresh_block_is_the_identity_with_adaln_zero_alone(generator):
    x, c = torch.randn(2, 6, 32, generator=generator), torch.randn(2, 32, generator=generator)
    for conditioning in ("adaln_zero", "adaln"):
        block = dit.DiTBlock(DiTConfig(**vars(SMALL) | {"conditioning": conditioning}))
        assert torch.equal(block(x, c, None, None), x) == (conditioning == "adaln_zero")


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda net: DiT(DiTConfig(conditioning="film")), "choose one of adaln_zero"),
        (lambda net: DiT(DiTConfig(hidden_size=30, num_heads=4)), "multiple of 4"),
        (lambda net: net(torch.zeros(1, 4, 9, 8), torch.zeros(1), torch.zeros(1).long()), "multiples of 2"),
        (lambda net: net(torch.zeros(1, 3, 8, 8), torch.zeros(1), torch.zeros(1).long()), r"\(b, 4, h, w\)"),
        (lambda net: net(torch.zeros(1, 4, 8, 8), torch.zeros(2), torch.zeros(1).long()), "1 latents and times"),
        (lambda net: net(torch.zeros(1, 4, 8, 8), torch.zeros(1), torch.tensor([6])), "Labels go from 0 to 5"),
        (lambda net: net(torch.zeros(1, 4, 8, 8), torch.zeros(1), torch.tensor([1.0])), "whole numbers"),
        (lambda net: DiT(DiTConfig(depth=0)), "depth is 0"),
        (lambda net: DiT(DiTConfig(patch_size=2.0)), "patch_size is 2.0"),
        (lambda net: DiT(DiTConfig(mlp_ratio=float("nan"))), "mlp_ratio is nan"),
    ],
)
def test_refusals(call, said):
    with pytest.raises(ValueError, match=said):
        call(DiT(SMALL))


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"norm_type": "layer_norm"}, "norm_type = 'layer_norm'"),
        ({"num_layers": None}, "num_layers is None"),
        ({"num_layers": 3}, "KeyError: 'blocks.2"),
        ({"num_layers": 1}, "do not belong together"),
        ({"in_channels": 8}, r"is \(384, 4, 2, 2\), and \(384, 8, 2, 2\)"),
        ({"out_channels": 8.0}, "out_channels is 8.0"),
    ],
)
def test_foreign_configs(changes, said, tmp_path):
    theirs("as published, small").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError, match=said):
        DiT.from_pretrained(tmp_path)


def test_foreign_weights(tmp_path):
    with pytest.raises(ValueError, match="holds 0 files of weights"):
        DiT.from_pretrained(tmp_path)
    save_file({"a": torch.zeros(2)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="hold no x_embedder.weight"):
        DiT.from_pretrained(tmp_path)
    reference = theirs("as published, small")
    torch.nn.init.zeros_(reference.transformer_blocks[1].norm1.emb.class_embedder.embedding_table.weight)
    reference.save_pretrained(tmp_path / "b")
    with pytest.raises(ValueError, match="embeds time and label once"):
        DiT.from_pretrained(tmp_path / "b")


@pytest.fixture
def papers(tmp_path):
    theirs("as published, small").save_pretrained(tmp_path / "reference")
    return paper_tensors(DiT.from_pretrained(tmp_path / "reference"))


def test_weights_in_half_precision_are_read(papers, tmp_path):
    for dtype in (torch.float16, torch.bfloat16):
        torch.save({name: tensor.to(dtype) for name, tensor in papers.items()}, tmp_path / "half.pt")
        assert DiT.from_pretrained(tmp_path / "half.pt").x_embedder.weight.dtype == torch.float32


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda tensors: {"ema": tensors, "opt": {}}, "tables ema, opt"),
        (lambda tensors: {name: tensor.to(torch.int8) for name, tensor in tensors.items()}, "quantised"),
        (lambda tensors: {1: tensors["pos_embed"]}, "no table of tensors"),
        (lambda tensors: tensors | {"x_embedder.weight": torch.zeros(384, 4, 2, 2)}, "x_embedder.weight twice"),
        (lambda tensors: tensors | {"pos_embed": tensors["pos_embed"].repeat(2, 1, 1)}, "positions in these weights"),
        (lambda tensors: tensors | {"final_layer.linear.bias": torch.tensor(0.0)}, "damaged, or not those of a DiT"),
    ],
)
def test_odd_files_of_the_papers_form(change, said, papers, tmp_path):
    torch.save(change(papers), tmp_path / "odd.pt")
    with pytest.raises(ValueError, match=said):
        DiT.from_pretrained(tmp_path / "odd.pt")


def test_diffusers_weights_must_be_whole(tmp_path):
    from safetensors.torch import load_file

    theirs("as published, small").save_pretrained(tmp_path)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    whole = {key: tensor.clone() for key, tensor in load_file(path).items()}  # no views of the file, which is overwritten below
    first, embedder = (f"transformer_blocks.{name}.weight" for name in ("0.attn1.to_q", "1.norm1.emb.class_embedder.embedding_table"))
    for name, changed in ((first, whole[first][:300]), (embedder, None), ("pos_embed.pos_embed", whole[first][None])):
        kept = {key: tensor for key, tensor in whole.items() if key != name}
        save_file(kept if changed is None else kept | {name: changed.clone()}, path)
        with pytest.raises(ValueError, match="is expected of this config|KeyError|positions in these weights"):
            DiT.from_pretrained(tmp_path)
