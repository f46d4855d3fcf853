"""Chapter 04: ViT, a picture as a sentence of patches.

Dosovitskiy et al. 2020, An Image is Worth 16x16 Words; layers and numbers are those of its appendix B and D. A picture is
cut into patches, each patch becomes a token, and a transformer reads the tokens like words.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from einops import rearrange, reduce

from .kit import checkpoints, published
from .unet import sincos

POSITIONS, POOLS = ("learned", "sincos", "none"), ("class", "mean")


@dataclass(frozen=True)
class ViTConfig:
    """Sizes of the network. Pictures are (b, in_channels, *image_size), patches are square."""

    image_size: tuple[int, int] = (16, 16)
    patch_size: int = 4
    in_channels: int = 3
    hidden_size: int = 64
    depth: int = 4
    num_heads: int = 4
    mlp_ratio: float = 4.0
    num_classes: int = 10
    positions: str = "learned"
    pool: str = "class"  # read the answer off an extra token, or off the mean of all
    norm_eps: float = 1e-6


# Patches -------------------------------------------------------------------------------------------------------------
def divides(parts: tuple[int, ...], sides: tuple[int, ...]) -> bool:
    """Whether both are as many whole numbers above 0, and each side is a multiple of its part."""
    numbers = all(
        isinstance(numbers, (tuple, list)) and all(type(n) is int and n > 0 for n in numbers) for numbers in (parts, sides)
    )
    return numbers and len(parts) == len(sides) and all(side % part == 0 for side, part in zip(sides, parts))


def patchify(x: torch.Tensor, patch_size: int) -> torch.Tensor:
    """Cut pictures (b, c, h, w) into patches, row by row: (b, n, c p p).

    Raises:
        ValueError: a side is not a multiple of the patch size.
    """
    if x.ndim != 4 or not divides((patch_size, patch_size), tuple(x.shape[2:])):
        raise ValueError(
            f"Pictures (b, c, h, w) with sides in multiples of {patch_size}, a whole number, are needed; "
            f"these are {tuple(x.shape)}."
        )
    return rearrange(x, "b c (h p) (w q) -> b (h w) (c p q)", p=patch_size, q=patch_size)


def unpatchify(patches: torch.Tensor, patch_size: int, grid: tuple[int, int]) -> torch.Tensor:
    """Put patches (b, n, c p p) of a grid of (rows, columns) together again: (b, c, h, w).

    Raises:
        ValueError: the grid has another number of patches, or they are of another size.
    """
    if patches.ndim != 3 or patches.shape[1] != grid[0] * grid[1] or not divides((patch_size**2,), (patches.shape[2],)):
        raise ValueError(
            f"A grid of {grid} and patches of {patch_size}x{patch_size} need (b, {grid[0] * grid[1]}, c {patch_size**2}) "
            f"numbers, and these are {tuple(patches.shape)}."
        )
    return rearrange(patches, "b (h w) (c p q) -> b c (h p) (w q)", h=grid[0], w=grid[1], p=patch_size, q=patch_size)


# Positions -----------------------------------------------------------------------------------------------------------
def sincos_positions(grid: tuple[int, int], hidden_size: int) -> torch.Tensor:
    """Sines and cosines of row and column, half of the channels each, never learned: (n, hidden_size), as in DiT.

    Raises:
        ValueError: the number of channels is not a multiple of 4.
    """
    if hidden_size % 4:
        raise ValueError(f"Rows and columns have sines and cosines each, so channels go by fours, and {hidden_size} do not.")
    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    return torch.cat([sincos(rows.flatten(), hidden_size // 2), sincos(columns.flatten(), hidden_size // 2)], dim=1)


def resize_positions(positions: torch.Tensor, old: tuple[int, int], new: tuple[int, int]) -> torch.Tensor:
    """Learned positions (n, d) of a grid for a grid of another size, as a picture is enlarged (section 3.2): (m, d).

    Raises:
        ValueError: the old grid has another number of places.
    """
    if len(positions) != old[0] * old[1]:
        raise ValueError(f"A grid of {old} has {old[0] * old[1]} places, and there are positions for {len(positions)}.")
    if old == new:
        return positions
    picture = rearrange(positions, "(h w) d -> 1 d h w", h=old[0])
    picture = F.interpolate(picture, size=new, mode="bicubic", align_corners=False)
    return rearrange(picture, "1 d h w -> (h w) d")


# The transformer -----------------------------------------------------------------------------------------------------
class Attention(nn.Module):
    """Every token asks all tokens (queries), and takes the mean of their values, weighted by how their keys fit."""

    def __init__(self, hidden_size: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.proj = nn.Linear(hidden_size, hidden_size)

    def heads(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Queries, keys and values of x (..., n, d), each (..., heads, n, d / heads)."""
        qkv = rearrange(self.qkv(x), "... n (three heads d) -> three ... heads n d", three=3, heads=self.num_heads)
        return qkv.unbind(0)

    def weights(self, x: torch.Tensor) -> torch.Tensor:
        """How much each token takes from each other: (..., heads, n, n), rows sum to 1."""
        q, k, _ = self.heads(x)
        return torch.softmax(q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5, dim=-1)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """x (..., n, d) to the same shape; mask, (..., 1, n, n), is True where a token (row) may ask another (column)."""
        q, k, v = self.heads(x)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.proj(rearrange(mixed, "... heads n d -> ... n (heads d)"))


class Block(nn.Module):
    """Attention, then an MLP on each token; both see normalised tokens and add to what they got.

    The arguments are those of a config; approximate is nn.GELU's.
    """

    def __init__(
        self, hidden_size: int, num_heads: int, mlp_ratio: float, norm_eps: float = 1e-6, approximate: str = "none"
    ):
        super().__init__()
        inner = round(mlp_ratio * hidden_size)
        self.norm1 = nn.LayerNorm(hidden_size, eps=norm_eps)
        self.attention = Attention(hidden_size, num_heads)
        self.norm2 = nn.LayerNorm(hidden_size, eps=norm_eps)
        self.mlp = nn.Sequential(nn.Linear(hidden_size, inner), nn.GELU(approximate), nn.Linear(inner, hidden_size))

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        x = x + self.attention(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))


def attention_maps(tokens: torch.Tensor, blocks) -> torch.Tensor:
    """How much each token of (b, n, d) takes from each other in each of the blocks, one after the other: (depth, b, heads, n, n)."""
    maps = []
    for block in blocks:
        maps.append(block.attention.weights(block.norm1(tokens)))
        tokens = block(tokens)
    return torch.stack(maps)


class ViT(nn.Module):
    """From pictures to class scores: (b, c, h, w) to (b, num_classes). Sides other than the trained ones resize the positions.

    Raises:
        ValueError: the config contradicts itself.
    """

    def __init__(self, config: ViTConfig):
        super().__init__()
        if config.positions not in POSITIONS or config.pool not in POOLS:
            raise ValueError(
                f"Positions are one of {', '.join(POSITIONS)}, and pool is one of {', '.join(POOLS)}; not {config}."
            )
        if not divides((config.patch_size, config.patch_size), config.image_size):
            raise ValueError(
                f"Pictures of {config.image_size} cannot be cut into patches of {config.patch_size}; "
                "give (height, width) and a whole number that divides both."
            )
        if not divides((config.num_heads,), (config.hidden_size,)) or config.hidden_size % 4:
            raise ValueError(f"{config.hidden_size} channels must be a multiple of 4 and of the {config.num_heads} heads.")
        self.config = config
        self.grid = tuple(side // config.patch_size for side in config.image_size)
        self.embed = nn.Linear(config.in_channels * config.patch_size**2, config.hidden_size)
        self.class_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size)) if config.pool == "class" else None
        if config.positions == "learned":
            count = self.grid[0] * self.grid[1] + (config.pool == "class")
            self.positions = nn.Parameter(0.02 * torch.randn(count, config.hidden_size))
        block = (config.hidden_size, config.num_heads, config.mlp_ratio, config.norm_eps)
        self.blocks = nn.ModuleList(Block(*block) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.head = nn.Linear(config.hidden_size, config.num_classes)

    def tokens(self, x: torch.Tensor) -> torch.Tensor:
        """Patches with their positions, and the class token in front of them where there is one: (b, n, d)."""
        if x.ndim != 4 or x.shape[1] != self.config.in_channels or not len(x) or not x.is_floating_point():
            raise ValueError(
                f"Pictures are (b, {self.config.in_channels}, h, w), at least one, in real numbers; these are {tuple(x.shape)} "
                f"of {x.dtype}."
            )
        tokens = self.embed(patchify(x, self.config.patch_size))
        grid = (x.shape[2] // self.config.patch_size, x.shape[3] // self.config.patch_size)
        extra = self.class_token is not None
        if self.config.positions == "learned":
            tokens = tokens + resize_positions(self.positions[int(extra) :], self.grid, grid)
        elif self.config.positions == "sincos":
            tokens = tokens + sincos_positions(grid, self.config.hidden_size).to(tokens)
        if extra:
            first = self.class_token + (self.positions[0] if self.config.positions == "learned" else 0)
            tokens = torch.cat([first.expand(len(x), -1, -1), tokens], dim=1)
        return tokens

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """All tokens after the last block, normalised: (b, n, d)."""
        tokens = self.tokens(x)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)

    def attention_maps(self, x: torch.Tensor) -> torch.Tensor:
        """How much each token takes from each other in every block: (depth, b, heads, n, n)."""
        return attention_maps(self.tokens(x), self.blocks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.features(x)
        pooled = features[:, 0] if self.class_token is not None else reduce(features, "b n d -> b d", "mean")
        return self.head(pooled)

    @classmethod
    def from_pretrained(cls, name: str) -> ViT:
        """Weights in the format of transformers' ViT, such as google/vit-base-patch16-224: a folder, or a ModelScope id.

        Raises:
            ValueError: it is not there, not whole, or not of this form.
        """
        config, tensors = published.read(name)
        sizes, tensors = published.vit_sizes(config), published.vit_tensors(tensors)
        net = cls(ViTConfig(**sizes, num_classes=len(tensors["head.bias"])))
        checkpoints.fill(net, tensors, "weights")
        return net.eval()

    @classmethod
    def from_torchvision(cls, model: nn.Module) -> ViT:
        """The same network as a torchvision.models.VisionTransformer, with its weights.

        Raises:
            ValueError: the model is another one.
        """
        from torchvision.models import VisionTransformer

        if not isinstance(model, VisionTransformer) or not isinstance(model.conv_proj, nn.Conv2d) or len(model.heads) != 1:
            raise ValueError(
                "A VisionTransformer of torchvision with one layer for its patches and one for its classes is needed, "
                f"not this {type(model).__name__}."
            )
        layers, tensors = model.encoder.layers, published.vit_tensors_of_torchvision(model.state_dict())
        config = ViTConfig(
            image_size=(model.image_size, model.image_size), patch_size=model.patch_size, hidden_size=model.hidden_dim,
            depth=len(layers), num_heads=layers[0].num_heads, mlp_ratio=model.mlp_dim / model.hidden_dim,
            num_classes=len(tensors["head.bias"]), norm_eps=layers[0].ln_1.eps,
        )  # fmt: skip
        net = cls(config).to(model.class_token)
        checkpoints.fill(net, tensors, "weights")
        return net.eval()
