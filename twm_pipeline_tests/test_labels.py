"""Label categories: the file's forms, and one meaning of a pattern in Python and PostgreSQL."""

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from twm_pipeline.errors import ConfigError
from twm_pipeline.labels import load_categories, matching, to_regex

RIGHT = {
    "empty": ("{}", {}),
    "a list": ('{"Customer": ["ACME*", "Beta"]}', {"Customer": ("ACME*", "Beta")}),
    "a single label": ('{"Customer": "ACME*"}', {"Customer": ("ACME*",)}),
    "no label": ('{"Customer": []}', {"Customer": ()}),
    "a label twice": ('{"Customer": ["A", "B", "A"]}', {"Customer": ("A", "B")}),
    "several in order": ('{"B": "x", "A": "y"}', {"B": ("x",), "A": ("y",)}),
    "a byte order mark": ('\ufeff{"Größe": ["Ü?"]}', {"Größe": ("Ü?",)}),
    "quotes and backslashes": ('{"a\\"b": ["\\\\d+", "50%"]}', {'a"b': ("\\d+", "50%")}),
    "63 bytes": ('{"' + "ü" * 31 + 'x": []}', {"ü" * 31 + "x": ()}),
}

WRONG = {
    "cut off": ('{"Customer": [', r"cannot be read as label categories: Expecting value"),
    "not JSON": ("Customer: ACME", r"cannot be read as label categories: Expecting value"),
    "empty file": ("", r"cannot be read as label categories: Expecting value"),
    "a list": ('["ACME"]', r"expected a JSON object, category name → list of labels, but read a list"),
    "a string": ('"ACME"', r"expected a JSON object, .* but read a string"),
    "a number": ("5", r"expected a JSON object, .* but read a number, true, false or null"),
    "null": ("null", r"expected a JSON object, .* but read a number, true, false or null"),
    "a category of a number": ('{"C": 5}', r"category 'C': expected a list of labels, but read a number"),
    "a category of null": ('{"C": null}', r"category 'C': expected a list of labels, but read a number"),
    "a category of an object": ('{"C": {"a": 1}}', r"category 'C': expected a list .* but read an object"),
    "a list of numbers": ('{"C": ["a", 5]}', r"category 'C': .* other than non-empty strings"),
    "an empty label": ('{"C": ["a", ""]}', r"category 'C': .* other than non-empty strings"),
    "a list of lists": ('{"C": [["a"]]}', r"category 'C': .* other than non-empty strings"),
    "an empty name": ('{"": ["a"]}', r"'' cannot be a column: a name needs 1 to 63 bytes"),
    "a blank name": ('{"  ": ["a"]}', r"'  ' cannot be a column"),
    "a long name": ('{"' + "ü" * 32 + '": []}', r"cannot be a column: a name needs 1 to 63 bytes"),
    "NUL in a name": ('{"a\\u0000b": []}', r"cannot be a column"),
    "half a character in a name": ('{"a\\ud800b": []}', r"cannot be a column"),
    "NUL in a label": ('{"C": ["a\\u0000b"]}', r"category 'C': .*cannot be stored"),
    "half a character in a label": ('{"C": ["a\\ud800b"]}', r"category 'C': .*cannot be stored"),
    "a name twice": ('{"C": [], "D": [], "C": []}', r"the category 'C' stands there twice"),
}

FALLS = {
    "exact": ("ACME", "ACME", True),
    "longer": ("ACME", "ACME GmbH", False),
    "case": ("ACME", "Acme", False),
    "star at the end": ("ACME*", "ACME GmbH", True),
    "star for nothing": ("ACME*", "ACME", True),
    "star at the beginning": ("*GmbH", "ACME GmbH", True),
    "star in the middle": ("A*H", "ACME GmbH", True),
    "only a star": ("*", "", True),
    "star over lines": ("A*Z", "A\nB\nZ", True),
    "one character": ("A?C", "AbC", True),
    "one character, not none": ("A?C", "AC", False),
    "one character, not two": ("A?C", "AbbC", False),
    "one character beyond the basic plane": ("A?C", "A👋C", True),
    "a line break is one character": ("A?C", "A\nC", True),
    "a line break at the end counts": ("ACME", "ACME\n", False),
    "a dot is a dot": ("a.c", "abc", False),
    "brackets are brackets": ("[ab]", "a", False),
    "brackets match themselves": ("[ab](c|d){2}^$+", "[ab](c|d){2}^$+", True),
    "a backslash": ("\\d", "\\d", True),
    "a backslash is no class": ("\\d", "5", False),
    "per cent and underscore": ("50%_", "50%_", True),
    "quotes": ('O\'Brien "x"', 'O\'Brien "x"', True),
    "accents": ("Größe ?", "Größe Ü", True),
    "CJK": ("客戶*", "客戶甲", True),
}

LETTERS = "ab*?.\\^$|()[]{}+-'\"%_:;/&# \n\tAB5äÄßé客甲👋🏽\u0301\u200d"
LABELS = st.text(
    st.sampled_from(LETTERS) | st.characters(exclude_characters="\x00", codec="utf-8"), max_size=8
)
PATTERNS = st.lists(LABELS.filter(bool), max_size=3).map(tuple)


def falls(pattern: str, label: str) -> bool:
    """Say whether *label* fits *pattern*, by the textbook and without any regular expression."""
    if not pattern:
        return not label
    if pattern[0] == "*":
        return falls(pattern[1:], label) or (bool(label) and falls(pattern, label[1:]))
    return bool(label) and pattern[0] in ("?", label[0]) and falls(pattern[1:], label[1:])


@pytest.mark.parametrize(("content", "expected"), RIGHT.values(), ids=RIGHT)
def test_a_file_of_categories_is_read(tmp_path, content, expected):
    path = tmp_path / "categories.json"
    path.write_text(content, encoding="utf-8")

    categories = load_categories(path)

    assert categories == expected
    assert list(categories) == list(expected)


def test_without_a_file_there_are_no_categories(tmp_path):
    assert load_categories(tmp_path / "absent.json") == {}


@pytest.mark.parametrize(("content", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_file_is_refused_with_its_place(tmp_path, content, message):
    path = tmp_path / "categories.json"
    path.write_text(content, encoding="utf-8")

    with pytest.raises(ConfigError, match=message) as caught:
        load_categories(path)

    assert str(path) in str(caught.value)
    str(caught.value).encode()


@pytest.mark.parametrize("content", [b"\xff\xfe{}", b'{"a": "\xe4"}'], ids=["UTF-16", "Latin-1"])
def test_a_file_in_another_encoding_is_refused(tmp_path, content):
    path = tmp_path / "categories.json"
    path.write_bytes(content)

    with pytest.raises(ConfigError, match="cannot be read as label categories"):
        load_categories(path)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read as label categories"):
        load_categories(tmp_path)


@pytest.mark.parametrize(("pattern", "label", "expected"), FALLS.values(), ids=FALLS)
def test_a_label_falls_into_its_category(connection, pattern, label, expected):
    in_postgresql = connection.scalar(
        text("SELECT CAST(:label AS text) ~ :regex"), {"label": label, "regex": to_regex((pattern,))}
    )

    assert falls(pattern, label) is expected
    assert (matching([label], (pattern,)) == [label]) is expected
    assert in_postgresql is expected


def test_matching_keeps_the_order_of_the_labels():
    assert matching(["b2", "x", "a1", "b1"], ("b*", "a*")) == ["b2", "a1", "b1"]


def test_a_category_without_patterns_holds_nothing(connection):
    assert matching(["", "a"], ()) == []
    assert not connection.scalar(text("SELECT '' ~ :regex OR 'a' ~ :regex"), {"regex": to_regex(())})


def test_stars_in_a_row_are_one():
    assert matching(["a" * 40 + "!"], ("*a" * 3 + "***b",)) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(labels=st.lists(LABELS, min_size=1, max_size=4), patterns=PATTERNS)
@example(labels=["\n", "a\n", "\r\n"], patterns=("?", "a"))
@example(labels=["\\", "\\\\", "a\\"], patterns=("\\", "*\\"))
@example(labels=["'", "''", "%", "%s", ":x"], patterns=("'", "%?"))
@example(labels=["***:a", "(?i)a"], patterns=("***:?", "(?i)A"))
def test_python_and_postgresql_agree_with_the_textbook(connection, labels, patterns):
    expected = [label for label in labels if any(falls(pattern, label) for pattern in patterns)]

    in_postgresql = connection.scalars(
        text(
            "SELECT x FROM unnest(CAST(:labels AS text[])) WITH ORDINALITY AS u (x, place)"
            " WHERE x ~ :regex ORDER BY place"
        ),
        {"labels": labels, "regex": to_regex(patterns)},
    ).all()

    assert matching(labels, patterns) == expected
    assert in_postgresql == expected


@settings(deadline=None)
@given(labels=st.lists(LABELS, max_size=3), patterns=PATTERNS)
def test_every_label_fits_itself_and_every_star(labels, patterns):
    assert matching(labels, ("*",)) == labels
    assert set(matching(labels, tuple(labels) or ("x",))) >= {x for x in labels if x and "*" not in x}
