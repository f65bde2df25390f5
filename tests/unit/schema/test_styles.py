"""Style presets: words around a prompt, in its own language, and the user's own ones."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from izograf.schema import styles
from izograf.schema.errors import InvalidInput, NotFound
from izograf.schema.labels import LANGUAGES
from izograf.schema.styles import (
    PROMPT,
    Style,
    bundled_styles,
    find_style,
    language_of,
    load_styles,
    own_file,
    parse_styles,
    usable_styles,
)

OIL = Style(
    "oil",
    {"en": "Oil", "ru": "Масло"},
    {"en": "oil painting of {prompt}, canvas", "ru": "масло: {prompt}, холст"},
    {"en": "photograph", "ru": "фотография"},
)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own file, not written yet."""
    file = tmp_path / "mine.toml"
    monkeypatch.setenv("IZOGRAF_STYLES", str(file))
    return file


@pytest.fixture(autouse=True)
def nobodys_styles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No style of whoever runs the tests."""
    monkeypatch.delenv("IZOGRAF_STYLES", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("APPDATA", str(tmp_path / "config"))


def test_there_are_many_and_each_speaks_both_languages() -> None:
    known = bundled_styles()
    assert len(known) >= 24
    assert {"cinematic", "fantasy-art", "photographic", "lubok", "khokhloma"} <= set(known)
    for style in known.values():
        for words in (style.title, style.positive, style.negative):
            assert set(words) == set(LANGUAGES)
            assert language_of(words["ru"].replace(PROMPT, "")) == "ru", style.name
            assert language_of(words["en"].replace(PROMPT, "")) == "en", style.name
            assert all(text.strip() == text and text for text in words.values())
        assert style.bundled


@pytest.mark.parametrize("part", ["title", "positive", "negative"])
def test_no_two_styles_say_the_same(part: str) -> None:
    for language in LANGUAGES:
        said = [getattr(style, part)[language] for style in bundled_styles().values()]
        assert len(set(said)) == len(said)


def test_a_prompt_gets_the_words_of_its_own_language() -> None:
    assert OIL.apply("a hare") == ("oil painting of a hare, canvas", "photograph")
    assert OIL.apply("заяц") == ("масло: заяц, холст", "фотография")
    assert OIL.apply("заяц в стиле pop") == ("масло: заяц в стиле pop, холст", "фотография")
    assert OIL.apply("заяц", language="en")[0] == "oil painting of заяц, canvas"


def test_what_the_user_would_avoid_comes_first() -> None:
    assert OIL.apply("a hare", " people, cars, ")[1] == "people, cars, photograph"
    assert OIL.apply("", "люди")[1] == "люди, фотография"
    bare = Style("bare", OIL.title, OIL.positive, {"en": "", "ru": ""})
    assert bare.apply("a hare", "people")[1] == "people"
    assert bare.apply("a hare")[1] == ""


def test_without_a_prompt_only_the_words_of_the_style_are_left() -> None:
    assert OIL.apply("  ")[0] == "oil painting, canvas"
    for style in bundled_styles().values():
        words, _ = style.apply("")
        assert PROMPT not in words
        assert ",," not in words.replace(" ", "")
        assert " of," not in words


@given(prompt=st.text(), negative=st.text(), name=st.sampled_from(sorted(bundled_styles())))
def test_what_was_typed_is_never_changed_or_lost(prompt: str, negative: str, name: str) -> None:
    style = bundled_styles()[name]
    words, away = style.apply(prompt, negative)
    assert prompt.strip() in words
    assert negative.strip().rstrip(", ") in away
    language = language_of(prompt if prompt.strip() else negative)
    assert away.endswith(style.negative[language])
    if prompt.strip():
        before, after = style.positive[language].split(PROMPT)
        assert words == before + prompt.strip() + after


@pytest.mark.parametrize(
    ("typed", "name"),
    [("noir", "noir"), ("Oil Painting", "oil-painting"), ("хохлома", "khokhloma"),
     ("Кадр из фильма", "cinematic"), ("3D_model", "3d-model"), ("плёночный снимок", "analog-film"),
     ("пленочный снимок", "analog-film")],
)  # fmt: skip
def test_a_style_is_found_by_name_or_title(typed: str, name: str) -> None:
    assert find_style(typed).name == name


def test_an_unknown_style_is_refused_with_near_names() -> None:
    with pytest.raises(NotFound, match="did you mean cinematic"):
        find_style("cinematik")
    with pytest.raises(NotFound, match="khokhloma"):
        find_style("хахлома")
    with pytest.raises(NotFound, match="izograf styles"):
        find_style("qqqqqqqqqqqq")


def test_ones_own_styles_replace_and_follow_the_bundled(own: Path) -> None:
    own.write_text(
        '[noir]\npositive = "мой нуар, {prompt}"\n'
        '[glow]\ntitle = { ru = "Свет" }\n'
        'positive = { en = "{prompt}, glow", ru = "{prompt}, свет" }\nnegative = "dark"\n',
        encoding="utf-8-sig",
    )
    known = load_styles()
    assert list(known) == [*bundled_styles(), "glow"]
    assert known["noir"].apply("a hare") == ("мой нуар, a hare", "")
    assert known["noir"].title == {"en": "noir", "ru": "noir"}
    assert known["glow"].title == {"en": "Свет", "ru": "Свет"}
    assert known["glow"].apply("заяц") == ("заяц, свет", "dark")
    assert [style.name for style in known.values() if not style.bundled] == ["noir", "glow"]
    assert bundled_styles()["noir"].bundled, "the bundled ones are as they were"
    assert usable_styles() == (known, "")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[x", "not valid TOML"),
        ('[sketch]\npositive = "no place for it"', "style 'sketch'.*positive .*{prompt} exactly"),
        ('[sketch]\npositive = "{prompt} {prompt}"', "style 'sketch'.*exactly once"),
        ('[sketch]\npositive = { en = "{prompt}", ru = "набросок" }', r"positive \(ru\) must"),
        ('[sketch]\nnegative = "x"', "style 'sketch'.*positive is missing"),
        ('sketch = "{prompt}"', "style 'sketch'.*expected positive"),
        ('[sketch]\npositive = "{prompt}"\ncolour = "x"', "style 'sketch'.*got colour"),
        ('[sketch]\npositive = { de = "{prompt}" }', "style 'sketch'.*positive must be"),
        ("[sketch]\npositive = {}", "style 'sketch'.*positive must be"),
        ("[sketch]\npositive = 7", "style 'sketch'.*positive must be"),
        ("[sketch]\npositive = { en = 7 }", "style 'sketch'.*one line"),
        ('[sketch]\npositive = "{prompt}\\n"', "style 'sketch'.*one line"),
        ('[sketch]\npositive = "{prompt}' + "x" * 1000 + '"', "at most 1000 characters"),
        ('[sketch]\npositive = "{prompt}"\nnegative = "{prompt}"', "negative takes no {prompt}"),
        ('["a b/c"]\npositive = "{prompt}"', "style 'a b/c'.*letters, digits and hyphens"),
    ],
)
def test_a_broken_file_is_refused_with_its_name_and_the_entry(
    own: Path, text: str, told: str
) -> None:
    own.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInput, match=told) as refused:
        load_styles()
    assert str(own) in str(refused.value)
    known, problem = usable_styles()
    assert known == bundled_styles()
    assert own.name in problem
    assert str(own.parent) not in problem, "where it lies is the operator's"


def test_a_file_that_is_named_must_be_there_and_readable(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotFound, match="IZOGRAF_STYLES"):
        load_styles()
    own.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInput, match="cannot be read"):
        load_styles()
    own.unlink()
    own.mkdir()
    with pytest.raises(InvalidInput, match="cannot be read"):
        load_styles()
    own.rmdir()
    own.write_text("# nothing")
    monkeypatch.setattr(styles, "MAX_BYTES", 3)
    with pytest.raises(InvalidInput, match="larger than 3 bytes"):
        load_styles()


def test_ones_own_file_lies_in_the_configuration_folder(tmp_path: Path) -> None:
    file = tmp_path / "config" / "izograf" / "styles.toml"
    assert own_file() == file
    assert load_styles() == bundled_styles()
    file.parent.mkdir(parents=True)
    file.write_text('[mine]\npositive = "{prompt}!"')
    assert find_style("mine").apply("hare")[0] == "hare!"


@given(st.text(max_size=200) | st.from_regex(r"\[[a-z]+\]\npositive = \"[^\"]*\"", fullmatch=True))
def test_no_text_breaks_the_reading(text: str) -> None:
    with suppress(InvalidInput):
        for style in parse_styles(text, source="x").values():
            assert "hare" in style.apply("hare")[0]
