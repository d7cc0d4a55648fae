from __future__ import annotations

import pytest

from pytest_fluxperf.bench import prompts
from pytest_fluxperf.errors import FluxPerfError


def pairs(*arguments, **keywords):
    return [(p.text, p.seed) for p in prompts.load(*arguments, **keywords)]


@pytest.mark.parametrize(("name", "count"), [("default", 8), ("extended", 50)])
def test_the_sets_hold_distinct_prompts(name, count):
    texts = [text for text, _ in pairs(name, (0,))]
    assert len(texts) == len(set(texts)) == count


def test_default_is_the_beginning_of_extended():
    assert pairs("default", (0,)) == pairs("extended", (0,), 8)


def test_every_prompt_with_every_seed_prompts_varying_fastest():
    assert pairs(["a", "b"], (3, 5)) == [("a", 3), ("b", 3), ("a", 5), ("b", 5)]


def test_more_samples_go_on_with_new_seeds_and_never_repeat():
    made = pairs(["a", "b"], (3,), 5)
    assert made == [("a", 3), ("b", 3), ("a", 4), ("b", 4), ("a", 5)]
    assert pairs(["a", "b"], (3,), 1) == [("a", 3)]


def test_text_file_with_comments_and_odd_characters(tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text("# ours\n\na <b>fox</b> \u2028 & 🦊\n", encoding="utf-8")
    assert pairs(str(file), (0,)) == [("a <b>fox</b> \u2028 & 🦊", 0)]


def test_json_lines_may_bring_their_own_seeds(tmp_path):
    file = tmp_path / "mine.jsonl"
    file.write_text('"plain"\n{"prompt": "own", "seeds": [7, 8]}\n{"prompt": "one", "seed": 9}\n')
    assert pairs(str(file), (1,)) == [("plain", 1), ("own", 7), ("one", 9), ("own", 8)]


def test_registered_sets_are_found():
    assert pairs("catalogue", (0,), registered={"catalogue": ["a mug"]}) == [("a mug", 0)]


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.txt", "", "zero prompts"),
        ("a.txt", "# only a comment\n", "zero prompts"),
        ("a.jsonl", "{", r"a\.jsonl:1: not JSON"),
        ("a.jsonl", '"x"\n3', r"a\.jsonl:2: must be a string or an object"),
        ("a.jsonl", '{"prompt": "x", "sed": 1}', "unknown key 'sed'"),
        ("a.jsonl", '{"prompt": "x", "seed": -1}', "seeds must be whole numbers"),
        ("a.jsonl", '{"prompt": "x", "seed": 18446744073709551616}', "seeds must be whole numbers"),
        ("a.jsonl", '{"prompt": "x", "seeds": []}', "seeds must be whole numbers"),
        ("a.jsonl", '{"prompt": "x", "seed": 1, "seeds": [2]}', "seed or seeds, not both"),
        ("a.jsonl", r'{"prompt": "\ud800"}', "half a character"),
        ("a.jsonl", "[" * 100_000, r"a\.jsonl:1: not JSON"),
        ("a.jsonl", '{"prompt": " "}', "an empty prompt"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path, name, content, complaint):
    file = tmp_path / name
    file.write_text(content)
    with pytest.raises(FluxPerfError, match=complaint):
        prompts.load(str(file), (0,))


def test_not_text(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FluxPerfError, match="cannot be read as UTF-8"):
        prompts.load(str(file), (0,))


@pytest.mark.parametrize("source", ["~nobody-of-that-name/prompts.txt", "a prompt, not a file " * 1000, "nul\0byte"])
def test_what_can_be_no_file_is_an_unknown_set(source):
    with pytest.raises(FluxPerfError, match="no prompt set or file") as error:
        prompts.load(source, (0,))
    assert len(str(error.value)) < 500


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path):
    (tmp_path / "bom.txt").write_text("# a comment\na cat\n", encoding="utf-8-sig")
    assert pairs(str(tmp_path / "bom.txt"), (0,)) == [("a cat", 0)]


def test_an_unknown_set_lists_the_known():
    with pytest.raises(FluxPerfError, match="no prompt set or file 'defualt'; there are default, extended"):
        prompts.load("defualt", (0,))
