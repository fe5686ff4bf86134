"""A digest that follows what code computes, and nothing else."""

import sys
from pathlib import Path

import pytest

from qsm_ai.benchmark.code import MAP_MAKING, bare_code, code_digest

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
