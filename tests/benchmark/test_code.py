"""A digest that follows what code computes, and nothing else."""

import ast
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from qsm_ai.benchmark.code import JUDGING, MAP_MAKING, bare_code, code_digest

PLAIN = '''
"""Of a module."""
LIMIT = 3  # turns
"""Of a constant."""

def twice(x):
    """Of a function."""
    return 2 * x
'''


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# turns", "# whole turns"),
        ("Of a module", "Of the module"),
        ("Of a constant", "Of the constant"),
        ('    """Of a function."""\n', ""),
        ("2 * x", "(2 *\n        x)"),
    ],
)
def test_words_and_layout_do_not_count(old: str, new: str) -> None:
    assert PLAIN.replace(old, new) != PLAIN
    assert bare_code(PLAIN.replace(old, new)) == bare_code(PLAIN)


@pytest.mark.parametrize(("old", "new"), [("3", "4"), ("2 * x", "2 + x"), ("LIMIT", "MOST")])
def test_what_is_computed_counts(old: str, new: str) -> None:
    assert bare_code(PLAIN.replace(old, new)) != bare_code(PLAIN)


def test_a_function_of_a_docstring_alone_is_still_a_function() -> None:
    assert bare_code('def nothing():\n    """Does nothing."""') == "def nothing():\n    pass"


def test_the_digest_follows_every_module_of_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "invented_for_this_test"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit  # nothing is imported\n")
    (package / "one.py").write_text(PLAIN)
    monkeypatch.syspath_prepend(str(tmp_path))

    def digest() -> str:
        code_digest.cache_clear()
        return code_digest((package.name,))

    before = digest()
    (package / "one.py").write_text("# first\n" + PLAIN)
    assert digest() == before
    (package / "two.py").write_text("")
    assert digest() != before
    assert package.name not in sys.modules


def test_maps_depend_on_physics_and_reconstruction() -> None:
    assert len(code_digest(MAP_MAKING)) == 12
    with pytest.raises(ModuleNotFoundError):
        code_digest(("qsm_ai.no_such_thing",))


def test_modules_that_only_judge_a_map_can_be_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "invented_to_be_judged"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "making.py").write_text(PLAIN)
    (package / "judging.py").write_text(PLAIN)
    monkeypatch.syspath_prepend(str(tmp_path))

    def digest(*without: str) -> str:
        code_digest.cache_clear()
        return code_digest((package.name,), without)

    judging = f"{package.name}.judging"
    alone, both = digest(judging), digest()
    (package / "judging.py").write_text(PLAIN.replace("3", "4"))
    assert (digest(judging), digest()) != (alone, both)
    assert digest(judging) == alone
    (package / "making.py").write_text(PLAIN.replace("3", "4"))
    assert digest(judging) != alone


@pytest.mark.parametrize("package", MAP_MAKING)
def test_no_module_that_makes_maps_but_the_pipeline_knows_one_that_judges(package: str) -> None:
    for folder in find_spec(package).submodule_search_locations:  # type: ignore[union-attr]
        for path in Path(folder).rglob("*.py"):
            name = f"{package}.{path.stem}"
            if name in JUDGING or path.stem == "pipeline":
                continue
            tree = ast.walk(ast.parse(path.read_text()))
            imported = {node.module for node in tree if isinstance(node, ast.ImportFrom)}
            assert not imported & set(JUDGING), name


def test_every_module_that_judges_is_there() -> None:
    assert all(find_spec(name) for name in JUDGING)
