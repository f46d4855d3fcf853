"""Chapter 08: from a sentence to vectors: a tokenizer and a transformer encoder for English and Chinese.

English is split into words and Chinese into characters, which for captions of a closed world is all the
tokenization one needs. The encoder is a small pre-norm transformer (Vaswani et al. 2017; Radford et al. 2021). It learns
by contrast: two ways to say the same scene, in either language, should land closer than any two scenes. Where a sentence
tells of two things, it learns by reading as well: a `Reader` asks each token's vector whose word it is.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from einops import rearrange

PAD, UNKNOWN = "<pad>", "<unknown>"
_TOKEN = re.compile(r"[a-z]+|\d|[^\sa-z\d]")


class Tokenizer:
    """Words of English, characters of Chinese, single digits, and punctuation, as integers.

    Args:
        vocabulary: all tokens in order; the first two are `PAD` and `UNKNOWN`.
    """

    def __init__(self, vocabulary: list[str]):
        if vocabulary[:2] != [PAD, UNKNOWN] or len(set(vocabulary)) != len(vocabulary):
            raise ValueError(f"A vocabulary holds each token once and begins with {PAD} and {UNKNOWN}.")
        self.vocabulary = vocabulary
        self.index = {token: i for i, token in enumerate(vocabulary)}

    @classmethod
    def from_texts(cls, texts: list[str]) -> Tokenizer:
        """A tokenizer that knows every token of the texts."""
        return cls([PAD, UNKNOWN, *sorted({token for text in texts for token in cls.split(text)})])

    @staticmethod
    def split(text: str) -> list[str]:
        """The text's tokens, lower case, as strings."""
        return _TOKEN.findall(text.lower())

    def __call__(self, texts: list[str], max_length: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
        """Token numbers and mask, both (b, n) with n the longest text's length; the mask is True where a token is real.

        Raises:
            ValueError: a text is empty or longer than max_length tokens.
        """
        rows = [[self.index.get(token, 1) for token in self.split(text)] for text in texts]
        for text, row in zip(texts, rows):
            if not 0 < len(row) <= max_length:
                raise ValueError(f"A text has 1 to {max_length} tokens, and {text[:60]!r} has {len(row)}.")
        tokens = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
        lengths = torch.tensor([len(row) for row in rows])
        return tokens, torch.arange(tokens.shape[1]) < lengths[:, None]


@dataclass(frozen=True)
class TextConfig:
    """Sizes of the text encoder."""

    vocab_size: int
    hidden_size: int = 128
    depth: int = 3
    num_heads: int = 4
    max_length: int = 64


class Block(nn.Module):
    """Attention over the tokens, then an MLP on each, both on a normalised copy that is added back."""

    def __init__(self, hidden_size: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.norm1, self.norm2 = nn.LayerNorm(hidden_size), nn.LayerNorm(hidden_size)
        self.qkv, self.proj = nn.Linear(hidden_size, 3 * hidden_size), nn.Linear(hidden_size, hidden_size)
        self.mlp = nn.Sequential(
            nn.Linear(hidden_size, 4 * hidden_size), nn.GELU(approximate="tanh"), nn.Linear(4 * hidden_size, hidden_size)
        )

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        q, k, v = rearrange(self.qkv(self.norm1(x)), "b n (three h d) -> three b h n d", three=3, h=self.num_heads)
        a = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])  # padding is never looked at
        x = x + self.proj(rearrange(a, "b h n d -> b n (h d)"))
        return x + self.mlp(self.norm2(x))


class TextEncoder(nn.Module):
    """Token numbers to one vector a token, and one for the whole text.

    Raises:
        ValueError: the heads do not divide the hidden size.
    """

    def __init__(self, config: TextConfig):
        super().__init__()
        if config.hidden_size % config.num_heads:
            raise ValueError(f"{config.hidden_size} channels cannot be shared out among {config.num_heads} heads.")
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.hidden_size)
        self.positions = nn.Parameter(0.02 * torch.randn(config.max_length, config.hidden_size))
        self.blocks = nn.ModuleList(Block(config.hidden_size, config.num_heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.hidden_size)
        self.log_temperature = nn.Parameter(torch.tensor(-2.0))  # of the contrastive loss
        nn.init.normal_(self.embed.weight, std=0.02)

    def config_dict(self) -> dict:
        return asdict(self.config)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens (b, n) and mask (b, n) to features (b, n, d) and their mean over the real tokens (b, d)."""
        x = self.embed(tokens) + self.positions[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x, mask)
        x = self.norm(x)
        weight = mask[..., None].to(x)
        return x, (x * weight).sum(1) / weight.sum(1)

    def contrastive_loss(self, one, other, same: torch.Tensor) -> dict[str, torch.Tensor]:
        """InfoNCE (van den Oord et al. 2018; Radford et al. 2021, figure 3), for two wordings of each of b scenes.

        Args:
            one, other: (tokens, mask) of the first and second wording.
            same: (b, b), True where two scenes are equal, so that equal scenes are not pushed apart.

        Returns:
            loss, and accuracy: how often the nearest other wording says the same scene.
        """
        a, b = (F.normalize(self(*text)[1].float(), dim=-1) for text in (one, other))
        logits = a @ b.T / self.log_temperature.exp()  # (b, b)
        target = same.float() / same.sum(1, keepdim=True)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        hit = same.gather(1, logits.argmax(1, keepdim=True)).float().mean()
        return {"loss": loss, "accuracy": hit}


class Reader(nn.Module):
    """Questions about a text, answered by one look at its features; the encoder learns to give features that answer them.

    Contrast is content with a bag of words. To answer "what colour is the second thing?" from single tokens, the vector
    of "blue" must also hold that it is the second thing's. The transformer, which looks at them in the same way, needs that.

    Args:
        answers: for each question, how many answers there are to choose from.
    """

    def __init__(self, hidden_size: int, answers: list[int], num_heads: int = 4):
        super().__init__()
        self.questions = nn.Parameter(torch.randn(len(answers), hidden_size))
        self.attn = nn.MultiheadAttention(hidden_size, num_heads, batch_first=True)
        self.heads = nn.ModuleList(nn.Linear(hidden_size, n) for n in answers)

    def forward(self, features: torch.Tensor, mask: torch.Tensor) -> list[torch.Tensor]:
        """Features (b, n, d) and mask (b, n) to one tensor of logits (b, answers) a question."""
        questions = self.questions.expand(len(features), -1, -1)
        y, _ = self.attn(questions, features, features, key_padding_mask=~mask, need_weights=False)
        return [head(y[:, i]) for i, head in enumerate(self.heads)]

    def loss(self, features: torch.Tensor, mask: torch.Tensor, answers: torch.Tensor) -> dict[str, torch.Tensor]:
        """Cross-entropy against the true answers (b, questions), -1 where a question has none; read: texts with all right."""
        logits = self(features, mask)
        parts = [
            F.cross_entropy(one.float(), a, ignore_index=-1, reduction="sum") / (a >= 0).sum().clamp(min=1)
            for one, a in zip(logits, answers.unbind(1))
        ]
        right = [(one.argmax(1) == a) | (a < 0) for one, a in zip(logits, answers.unbind(1))]
        return {"loss": torch.stack(parts).mean(), "read": torch.stack(right, 1).all(1).float().mean()}
