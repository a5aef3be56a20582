"""The list of deliberate breaks still fits the product; `python -m twm_pipeline_tests.breaks` tries them."""

import ast
from pathlib import Path

import pytest

from twm_pipeline_tests.breaks import ROOT, Break, load_breaks, reason_in, run_test

PACKAGE = ROOT / "twm_pipeline"
BREAKS = load_breaks()
NAMED = (ast.ClassDef, ast.FunctionDef)


@pytest.mark.parametrize("item", BREAKS, ids=lambda item: f"{item.guarantee} {item.what}")
def test_every_break_applies_to_what_is_there(item):
    broken = item.applied(PACKAGE)

    if item.file.endswith(".py"):
        ast.parse(broken)
    assert broken != (PACKAGE / item.file).read_text()


@pytest.mark.parametrize("item", BREAKS, ids=lambda item: f"{item.guarantee} {item.what}")
def test_every_break_names_a_test(item):
    path, *names = item.words[0].partition("[")[0].removeprefix("twm_pipeline_tests/").split("::")
    place: ast.AST = ast.parse((ROOT / "twm_pipeline_tests" / path).read_text())

    for name in names:  # a test of a class is found below it only
        inside = {node.name: node for node in ast.iter_child_nodes(place) if isinstance(node, NAMED)}
        assert name in inside
        place = inside[name]


def test_every_guarantee_has_a_break():
    assert {item.guarantee for item in BREAKS} == {f"G{number}" for number in range(1, 13)}


def test_a_text_that_is_not_there_once_is_no_break(tmp_path):
    (tmp_path / "module.py").write_text("one = 1\none = 1\n")
    item = Break(guarantee="G1", what="nothing", file="module.py", old="one = 1", new="", test="")

    with pytest.raises(ValueError, match="found 2 times"):
        item.applied(tmp_path)


def test_a_test_that_fails_in_a_copy_says_why(tmp_path: Path):
    (tmp_path / "test_one.py").write_text("def test_one():\n    assert 1 == 2\n")

    code, output = run_test(tmp_path, ["test_one.py"])

    assert (code, reason_in(output)) == (1, "assert 1 == 2")
