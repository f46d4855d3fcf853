"""Tokens and the text encoder."""

import pytest
import torch
import torch.nn.functional as F

from sora_course import binding, stages
from sora_course.kit.captions import LANGUAGES, caption
from sora_course.kit.scenes import Scene, Thing, may_train, sample_scenes
from sora_course.text import Reader, TextConfig, TextEncoder, Tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(stages.vocabulary())


@pytest.fixture(scope="module")
def encoder(tokenizer):
    torch.manual_seed(0)
    return TextEncoder(TextConfig(len(tokenizer.vocabulary), hidden_size=16, depth=2, num_heads=2)).eval()


def test_words_characters_and_digits_are_tokens():
    assert Tokenizer.split("A red 7, 红色的数字7") == ["a", "red", "7", ",", "红", "色", "的", "数", "字", "7"]


def test_every_caption_is_made_of_known_tokens(tokenizer, generator):
    scenes = sample_scenes(1500, generator=generator)
    for language in LANGUAGES:
        tokens, mask = tokenizer([caption(s, language, generator=generator) for s in scenes])
        assert not (tokens == 1).any() and torch.equal(tokens != 0, mask)
    assert tokenizer(["a red dragon"])[0].tolist()[0][-1] == 1


def test_padding_changes_nothing(tokenizer, encoder):
    short, long = "a red circle", "a small red circle moves to the left quickly at night"
    alone, pooled_alone = encoder(*tokenizer([short]))
    padded, pooled_padded = encoder(*tokenizer([short, long]))
    assert torch.allclose(padded[0, :3], alone[0], atol=1e-5) and torch.allclose(pooled_padded[0], pooled_alone[0], atol=1e-5)


def test_the_order_of_words_matters(tokenizer, encoder):
    _, pooled = encoder(*tokenizer(["a red star and a blue ring", "a blue star and a red ring"]))
    assert not torch.allclose(pooled[0], pooled[1], atol=1e-3)


def test_contrastive_loss_by_hand(tokenizer, encoder):
    """With all scenes equal any answer is right, and the loss is the entropy of the uniform target at best."""
    texts = tokenizer(["a red star", "a red star", "a red star"])
    loss = encoder.contrastive_loss(texts, texts, torch.ones(3, 3, dtype=torch.bool))
    assert loss["loss"].item() == pytest.approx(torch.tensor(3.0).log().item(), abs=1e-4) and loss["accuracy"] == 1


@pytest.mark.parametrize("texts", [[""], ["red " * 65]])
def test_texts_it_cannot_take(tokenizer, texts):
    with pytest.raises(ValueError, match="1 to 64 tokens"):
        tokenizer(texts)


def test_vocabularies_it_cannot_take():
    with pytest.raises(ValueError, match="begins with"):
        Tokenizer(["a", "b"])


def test_a_twin_has_the_same_words_in_other_places(generator):
    scenes = sample_scenes(300, generator=generator, objects=2)
    twins = [binding.twin(scene, generator) for scene in scenes]

    def words(scene):
        return sorted(str(word) for thing in scene.things for word in vars(thing).values())

    assert all(words(a) == words(b) and may_train(b) for a, b in zip(scenes, twins))
    assert sum(a != b for a, b in zip(scenes, twins)) > 280
    alone = sample_scenes(5, generator=generator, objects=1)
    assert [binding.twin(scene, generator) for scene in alone] == alone


def test_answers_name_the_words_of_each_thing():
    blue_ring = Thing("blue", "ring", "left", "small", "slow")
    red_star = Thing("red", "star", "right", "small", "slow")
    one, two = binding.answers_of(Scene((blue_ring,), "night")), binding.answers_of(Scene((red_star, blue_ring), "night"))
    assert len(one) == len(binding.QUESTIONS) and one[5:10] == [-1] * 5 and two[5:10] == one[:5]
    assert [list(known)[i] for known, i in zip(binding.QUESTIONS, two)][:3] == ["red", "star", "right"]


def test_a_reader_asks_only_what_has_an_answer():
    torch.manual_seed(0)
    reader, features, mask = Reader(8, [3, 2], num_heads=2), torch.randn(4, 5, 8), torch.ones(4, 5, dtype=torch.bool)
    logits = reader(features, mask)
    answers = torch.tensor([[0, -1], [1, 1], [2, 0], [0, -1]])
    by_hand = (F.cross_entropy(logits[0], answers[:, 0]) + F.cross_entropy(logits[1][1:3], answers[1:3, 1])) / 2
    assert torch.allclose(reader.loss(features, mask, answers)["loss"], by_hand)
    padded = reader(torch.cat([features, 9 * torch.ones(4, 2, 8)], 1), torch.arange(7).expand(4, 7) < 5)
    assert torch.allclose(padded[0], logits[0], atol=1e-6)
