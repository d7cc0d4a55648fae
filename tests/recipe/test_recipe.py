"""The grammar: every recipe has one spelling, and what is impossible is refused with the reason."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_fluxperf import recipe as grammar
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.recipe import Field, Token, TokenSpec, parse, specs


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("bf16", "bf16"),
        (" fbcache:0.30 + bf16 ", "bf16+fbcache:0.3"),
        ("bf16 + fora : start = 1 , interval = 3", "bf16+fora:start=1,interval=3"),
        ("compile+int8wo+fbcache:1.0+fp32", "fp32+fbcache:1+int8wo+compile"),
        ("bf16+sdpa", "bf16"),
        ("bf16+fora:interval=3", "bf16+fora:interval=3"),
        ("bf16+fora:interval=3,start=2", "bf16+fora:interval=3"),
        ("bf16+compile:blocks", "bf16+compile"),
        ("bf16+fbcache:0.1,engine=diffusers,computed=8", "bf16+fbcache:0.1,computed=8"),
        ("bf16+teacache:1e-5", "bf16+teacache:1e-05"),
        ("bf16+teacache:1e%2B20", "bf16+teacache:1e20"),
    ],
)
def test_canonical_spelling(text, canonical):
    assert str(parse(text)) == canonical
    assert parse(canonical) == parse(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "an empty token"),
        ("bf16+", "an empty token"),
        ("bf16+fbcahe:0.3", "unknown token 'fbcahe'; did you mean 'fbcache'?"),
        ("fbcache:0.3", "names no dtype; write for instance 'bf16+fbcache:0.3'"),
        ("bf16+fp32", "'fp32' stands beside 'bf16'; a recipe has one dtype token"),
        ("bf16+bf16", "'bf16' stands twice"),
        ("bf16+fbcache:0.3+teacache:0.4", "'teacache' stands beside 'fbcache'; a recipe has one cache token"),
        ("bf16+fbcache", "'fbcache' needs its T"),
        ("bf16+fbcache:", "T must be a number above 0, not ''"),
        ("bf16+fbcache:nan", "T must be a number above 0, not 'nan'"),
        ("bf16+fbcache:0", "T must be a number above 0, not '0'"),
        ("bf16+fbcache:0_3", "T must be a number above 0, not '0_3'"),
        ("bf16+fbcache:0.3,0.4", "'fbcache' cannot take '0.4'"),
        ("bf16+fbcache:0.3,engin=para-attn", "no option 'engin'; did you mean 'engine'?"),
        ("bf16+fbcache:0.3,engine=pruna", "engine must be diffusers or para-attn or cache-dit, not 'pruna'"),
        ("bf16+fora:interval=0", "interval must be a whole number of at least 1, not '0'"),
        ("bf16+fora:interval=2,interval=3", "option 'interval' is given twice"),
        ("bf16+int8wo:4", "'int8wo' cannot take '4'; it is written int8wo"),
        ("bf16+compile:whole+fbcache:0.3", "compile:whole makes one graph; use compile"),
    ],
)
def test_refused_with_the_reason(text, reason):
    with pytest.raises(FluxPerfError) as error:
        parse(text)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "usage"),
    [
        ("bf16", "bf16"),
        ("teacache", "teacache:T[,computed=...]"),
        ("compile", "compile[:blocks]"),
        ("fora", "fora[:start=2,interval=2]"),
        ("lora", "lora:PATH[,scale=1]"),
    ],
)
def test_usage(name, usage):
    assert next(spec.usage for spec in specs() if spec.name == name) == usage


def test_a_dtype_for_recipes_that_name_none():
    assert str(parse("fbcache:0.3", dtype="fp32")) == "fp32+fbcache:0.3"
    assert str(parse("fbcache:0.3+bf16", dtype="fp32")) == "bf16+fbcache:0.3"
    assert str(parse("fastest", dtype="fp32")) == "fastest"
    assert str(parse("cudnn", dtype="fp32")) == "bf16+cudnn"  # for it, fp32 is no choice
    with pytest.raises(FluxPerfError, match="'cudnn' computes in fp16 and bf16 only; write bf16 in place of fp32"):
        parse("fp32+cudnn", dtype="fp32")
    with pytest.raises(FluxPerfError, match="'fbcache' stands beside 'fora'"):
        parse("fora+fbcache:0.3", dtype="fp32")


def test_what_a_recipe_says_of_itself():
    recipe = parse("fp16+fbcache:0.3,computed=8+compile")
    assert recipe.dtype == "fp16"
    assert recipe.token("cache") == Token("fbcache", 0.3, (("engine", "diffusers"), ("computed", 8)))
    assert recipe.token("cache").option("computed") == 8
    assert recipe.token("quantization") is None
    assert not recipe.lossless
    assert parse("bf16+compile").lossless


@pytest.mark.parametrize(
    ("text", "family"),
    [
        ("bf16", "dtype"),
        ("bf16+teacache:0.4", "cache"),
        ("bf16+compile", "compile"),
        ("fp32+int8wo", "quantization"),
        ("bf16+int8wo+compile", "combination"),
    ],
)
def test_family(text, family):
    assert parse(text).family == family


def _values(field: Field) -> st.SearchStrategy[str]:
    """Texts that the field accepts."""
    candidates = st.one_of(
        st.floats(0.001, 1e6).map(repr),
        st.integers(0, 50).map(str),
        st.sampled_from([*_words(field), "a/b+c,d=e f%.safetensors"]).map(
            lambda text: text.replace("%", "%25").replace("+", "%2B").replace(",", "%2C").replace("=", "%3D")
        ),
    )
    return candidates.filter(lambda text: _accepts(field, text))


def _words(field: Field) -> list[str]:
    """The names that a choice lists in its complaint."""
    try:
        field.read("\0")
    except ValueError as error:
        return str(error).removeprefix("must be ").split(" or ")
    return []


def _accepts(field: Field, text: str) -> bool:
    from urllib.parse import unquote

    try:
        field.read(unquote(text))
    except (ValueError, OverflowError):
        return False
    return True


@st.composite
def written_recipes(draw) -> str:
    """Random sums of tokens, in any order, with any acceptable fields."""

    def written(spec: TokenSpec) -> str:
        parts = []
        if spec.value is not None and (spec.value.required or draw(st.booleans())):
            parts.append(draw(_values(spec.value)))
        for field in draw(st.permutations(spec.options)):
            if field.required or draw(st.booleans()):
                parts.append(f"{field.name}={draw(_values(field))}")
        return spec.name + (":" + ",".join(parts) if parts else "")

    by_family: dict[str, list[TokenSpec]] = {}
    for spec in specs():
        by_family.setdefault(spec.family, []).append(spec)
    if draw(st.integers(0, 9)) == 0 and "whole" in by_family:
        return written(draw(st.sampled_from(by_family["whole"])))
    tokens = [written(draw(st.sampled_from(by_family["dtype"])))]
    for family, members in by_family.items():
        if family == "switch":
            tokens += [written(spec) for spec in members if draw(st.booleans())]
        elif family not in ("dtype", "whole") and draw(st.booleans()):
            tokens.append(written(draw(st.sampled_from(members))))
    return "+".join(draw(st.permutations(tokens)))


@given(written_recipes())
def test_parse_of_the_spelling_is_the_identity(text):
    try:
        recipe = parse(text)
    except FluxPerfError:
        return  # An impossible combination; the refusals have their own tests.
    spelling = str(recipe)
    assert parse(spelling) == recipe
    assert str(parse(spelling)) == spelling
    assert hash(parse(spelling)) == hash(recipe)
    assert pickle.loads(pickle.dumps(recipe)) == recipe


@given(st.text(max_size=40))
def test_any_text_parses_or_is_refused_in_one_line(text):
    try:
        message = str(parse(text))
    except FluxPerfError as error:
        message = str(error)
    assert len(message.splitlines()) == 1


def test_parsing_imports_nothing_heavy():
    program = (
        "import sys; from pytest_fluxperf.recipe import parse; parse('bf16+teacache:0.3+int8wo+compile');"
        "print([m for m in ('torch', 'numpy', 'diffusers', 'msgspec') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def half():
    spec = TokenSpec("half", "switch", "a token of a project", value=Field("x", grammar.number(), "x", 0.5))
    grammar.register(spec)
    yield spec
    grammar.unregister("half")


def test_a_project_adds_a_token(half):
    assert str(parse("half+bf16")) == "bf16+half"
    assert str(parse("half:0.25+bf16")) == "bf16+half:0.25"
    grammar.register(half)
    with pytest.raises(FluxPerfError, match="registered already"):
        grammar.register(TokenSpec("half", "switch", "another"))
    grammar.unregister("half")
    with pytest.raises(FluxPerfError, match="unknown token 'half'"):
        parse("bf16+half")


@pytest.mark.parametrize(("name", "family"), [("a+b", "switch"), ("", "switch"), ("good", "nothing")])
def test_a_bad_specification_is_refused(name, family):
    with pytest.raises(FluxPerfError):
        grammar.register(TokenSpec(name, family, "bad"))
