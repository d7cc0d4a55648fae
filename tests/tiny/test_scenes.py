from __future__ import annotations

import random

import numpy as np
import pytest

from pytest_fluxperf.pipelines.tiny import PROMPTS_DIR
from tools.tiny_training import checker, render, scenes

HELD_OUT = scenes.held_out_scenes(40)


def drawn(scene: scenes.Scene, seed: int = 0) -> np.ndarray:
    layout = scenes.lay_out(scene, random.Random(seed))
    return render.render(render.encode([layout]))[0].permute(1, 2, 0).numpy()


def test_a_caption_says_all_of_its_scene():
    for scene in HELD_OUT:
        assert scenes.parse(scenes.caption(scene)) == scene


def test_other_text_is_refused():
    with pytest.raises(ValueError, match="not a caption"):
        scenes.parse("a small red fox on a plain gray background")


def test_evaluation_prompts_are_held_out_from_training():
    stream = scenes.samples(3, held_out=False)
    trained = {scenes.caption(next(stream)) for _ in range(2000)}
    assert not any(scenes.is_held_out(caption) for caption in trained)
    for name, count in (("default", 8), ("extended", 50)):
        prompts = (PROMPTS_DIR / f"{name}.txt").read_text().splitlines()
        assert len(set(prompts)) == count
        assert all(scenes.is_held_out(prompt) for prompt in prompts)


def test_there_are_thousands_of_captions():
    stream = scenes.samples(0, held_out=False)
    assert len({scenes.caption(next(stream)) for _ in range(5000)}) > 4500


def test_the_checker_accepts_what_was_drawn_and_rejects_what_was_not():
    checks = [c for scene in HELD_OUT for c in checker.check(drawn(scene), scene)]
    assert all(check.accepted and check.size for check in checks)
    wrong = [c for a, b in zip(HELD_OUT, HELD_OUT[7:], strict=False) for c in checker.check(drawn(a), b)]
    assert sum(check.accepted for check in wrong) / len(wrong) < 0.1


def test_the_checker_sees_an_object_drawn_twice():
    scene = scenes.parse("a large blue star on the left on a plain gray background")
    once = drawn(scene)
    both = np.where(checker._hues(once)[:, ::-1, None] >= 0, once[:, ::-1], once)
    (check,) = checker.check(both, scene)
    assert check.shape
    assert not check.once
    assert not check.accepted


def test_the_checker_sees_a_swap_of_places():
    scene = scenes.parse("a small red ring left of a large blue star on a striped green background")
    other = scenes.parse("a small red ring right of a large blue star on a striped green background")
    assert not any(check.accepted for check in checker.check(drawn(other), scene))
