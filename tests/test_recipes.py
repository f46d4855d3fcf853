"""What the recipes add to the chapters: a transformer that grows."""

import pytest
import torch

from sora_course import recipes
from sora_course.video_dit import VideoDiT, VideoDiTConfig


def test_a_grown_transformer_says_the_same_until_it_learns(generator):
    torch.manual_seed(0)
    sizes = {"in_channels": 4, "hidden_size": 16, "num_heads": 2, "text_size": 8}
    small, deep = (VideoDiT(VideoDiTConfig(depth=depth, **sizes)).eval() for depth in (1, 3))
    for parameter in small.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    given = (torch.randn(2, 4, 2, 4, 4, generator=generator), torch.rand(2, generator=generator))
    text = (torch.randn(2, 5, 8, generator=generator), torch.ones(2, 5, dtype=torch.bool), torch.randn(2, 8, generator=generator))
    recipes.grow_from(deep, small.state_dict())
    assert torch.allclose(deep(*given, *text), small(*given, *text), atol=1e-5) and small(*given, *text).abs().mean() > 0.1
    with pytest.raises(ValueError, match="transformer to begin with"):
        recipes.grow_from(VideoDiT(VideoDiTConfig(depth=3, **sizes | {"hidden_size": 24})), small.state_dict())

