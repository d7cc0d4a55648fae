"""Pretraining of the text encoders on captions alone, as FLUX.1's own encoders come pretrained.

The flow's loss teaches a text encoder slowly which words belong together. So the encoders first learn to read: every
word of "a small red ring" shall tell size, colour and shape of its object and where the caption puts it, every word of
the background its pattern and colour, and CLIP's pooled vector the whole scene. The linear heads that ask are thrown
away afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .architecture import MAX_TOKENS, SIDE, Networks, tokenize
from .scenes import (
    BACKGROUNDS,
    CANVAS,
    COLORS,
    PATTERNS,
    PLACES,
    RELATIONS,
    ROWS,
    SHAPES,
    SIZES,
    THING,
    Scene,
    caption,
    nominal_centres,
)
from .schedule import Clock, cosine

NONE = -100
"""Label of what is not asked (``ignore_index`` of torch's cross entropy)."""

CELLS = SIDE // 2
"""Tokens along a side of the picture: places are told in these cells."""

WORD_CLASSES = (len(SIZES), len(COLORS), len(SHAPES), CELLS, CELLS, len(PATTERNS), len(BACKGROUNDS))
"""What a word's embedding is asked: size, colour, shape, column and row of its object; pattern and colour behind it."""

_ARRANGEMENTS = (*PLACES, *RELATIONS, *ROWS)
SCENE_CLASSES = (len(_ARRANGEMENTS), len(PATTERNS), len(BACKGROUNDS), *3 * (len(SIZES), len(COLORS), len(SHAPES)))
"""What the pooled embedding is asked: arrangement, background, and the three objects in their order."""


def word_labels(scene: Scene) -> list[list[int]]:
    """For each word of the scene's caption (a comma is one), the classes of :data:`WORD_CLASSES`."""
    text = caption(scene)
    labels = [[NONE] * len(WORD_CLASSES) for _ in _words(text)]
    for phrase, thing, (x, y) in zip(THING.finditer(text), scene.things, nominal_centres(scene), strict=True):
        start = len(_words(text[: phrase.start()]))
        known = [tuple(SIZES).index(thing.size), COLORS.index(thing.color), SHAPES.index(thing.shape)]
        known += [int(x * CELLS / CANVAS), int(y * CELLS / CANVAS)]
        for position in range(start, start + len(_words(phrase[0]))):
            labels[position][:5] = known
    for label in labels[-4:]:  # "a striped green background"
        label[5:] = [PATTERNS.index(scene.pattern), BACKGROUNDS.index(scene.background)]
    return labels


def scene_labels(scene: Scene) -> list[int]:
    """The classes of :data:`SCENE_CLASSES`."""
    labels = [_ARRANGEMENTS.index(scene.arrangement), PATTERNS.index(scene.pattern)]
    labels.append(BACKGROUNDS.index(scene.background))
    for thing in scene.things:
        labels += [tuple(SIZES).index(thing.size), COLORS.index(thing.color), SHAPES.index(thing.shape)]
    return labels + [NONE] * (len(SCENE_CLASSES) - len(labels))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+|,", text)


class Reader(nn.Module):
    """Both text encoders with a linear head for every question."""

    def __init__(self, networks: Networks) -> None:
        super().__init__()
        self.clip, self.t5 = networks.clip, networks.t5
        self.word_head = nn.Linear(self.t5.config.d_model, sum(WORD_CLASSES))
        self.scene_head = nn.Linear(self.clip.config.hidden_size, sum(SCENE_CLASSES))

    def forward(self, clip_ids: Tensor, t5_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, MAX_TOKENS, sum of WORD_CLASSES) and (N, sum of SCENE_CLASSES)."""
        return self.word_head(self.t5(t5_ids)[0]), self.scene_head(self.clip(clip_ids).pooler_output)


@dataclass
class Questions:
    """Token ids of captions (N, MAX_TOKENS) and what is asked of them, on the device."""

    clip_ids: Tensor
    t5_ids: Tensor
    words: Tensor
    """(N, MAX_TOKENS, len(WORD_CLASSES))"""
    scenes: Tensor
    """(N, len(SCENE_CLASSES))"""


def questions(networks: Networks, scenes: Sequence[Scene], device: str) -> Questions:
    """Captions of scenes as token ids, with their labels."""
    captions = [caption(scene) for scene in scenes]
    clip_ids, t5_ids = (tokenize(t, captions).to(device) for t in (networks.clip_tokenizer, networks.t5_tokenizer))
    nothing = [NONE] * len(WORD_CLASSES)
    words = torch.tensor([(labels + [nothing] * MAX_TOKENS)[:MAX_TOKENS] for labels in map(word_labels, scenes)])
    return Questions(clip_ids, t5_ids, words.to(device), torch.tensor([*map(scene_labels, scenes)]).to(device))


def _answers(logits: Tensor, classes: tuple[int, ...]) -> tuple[Tensor, ...]:
    parts: tuple[Tensor, ...] = logits.float().split(classes, dim=-1)
    return parts


def loss_of(reader: Reader, asked: Questions, chosen: Tensor) -> Tensor:
    """Sum of the mean cross entropies of all questions, for the chosen captions."""
    word_logits, scene_logits = reader(asked.clip_ids[chosen], asked.t5_ids[chosen])
    loss: Tensor = word_logits.new_zeros(())
    for logits, labels, classes in (
        (word_logits, asked.words[chosen], WORD_CLASSES),
        (scene_logits, asked.scenes[chosen], SCENE_CLASSES),
    ):
        for answer, label in zip(_answers(logits, classes), labels.unbind(-1), strict=True):
            loss = loss + nn.functional.cross_entropy(answer.flatten(0, -2), label.flatten(), ignore_index=NONE)
    return loss


def train(networks: Networks, asked: Questions, *, clock: Clock, batch: int, rate: float) -> Reader:
    """Train both encoders in place until the clock says stop; returns them with their heads."""
    device = asked.clip_ids.device
    reader = Reader(networks).to(device).train()
    optimizer = torch.optim.AdamW(reader.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    generator = torch.Generator(device=device).manual_seed(0)
    while clock.running():
        optimizer.param_groups[0]["lr"] = rate * cosine(clock.progress, warmup=0.05)
        chosen = torch.randint(len(asked.clip_ids), (batch,), generator=generator, device=device)
        loss = loss_of(reader, asked, chosen)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimizer.step()
        clock.tick(loss)
    return reader.eval()


@torch.no_grad()
def share_right(reader: Reader, asked: Questions) -> tuple[float, float]:
    """Shares of the words, and of the scenes, of which every question is answered rightly."""
    word_logits, scene_logits = reader(asked.clip_ids, asked.t5_ids)
    shares = []
    for logits, labels, classes in (
        (word_logits, asked.words, WORD_CLASSES),
        (scene_logits, asked.scenes, SCENE_CLASSES),
    ):
        told = torch.stack([answer.argmax(-1) for answer in _answers(logits, classes)], dim=-1)
        open_ = labels == NONE
        right = ((told == labels) | open_).all(-1)[~open_.all(-1)]
        shares.append(float(right.float().mean()))
    return shares[0], shares[1]
