"""Every public function says what it is for; one that takes arrays says which, and what comes back.

A function that is one expression long may say so in one sentence.
"""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src/qsm_ai"
MODULES = sorted(PACKAGE.rglob("*.py"))
ARRAY_ROOMS = {"physics", "reconstruction", "network", "inference"}
ARRAYS = ("NDArray", "ndarray", "Array", "Tensor")
Function = ast.FunctionDef | ast.AsyncFunctionDef


def public(nodes: list[ast.stmt]) -> list[Function]:
    return [n for n in nodes if isinstance(n, Function) and not n.name.startswith("_")]


def takes_arrays(function: Function) -> bool:
    arguments = [node for node in ast.walk(function.args) if isinstance(node, ast.arg)]
    annotations = " ".join(ast.unparse(a.annotation) for a in arguments if a.annotation)
    return any(array in annotations for array in ARRAYS)


def is_one_expression(function: Function) -> bool:
    return len(function.body) <= 2 and isinstance(function.body[-1], ast.Return)


def missing_sections(function: Function) -> list[str]:
    """NumPy-style sections that a function on arrays needs and does not have."""
    returns = ast.unparse(function.returns) if function.returns else ""
    wanted = ["Parameters"] if returns in {"None", "NoReturn"} else ["Parameters", "Returns"]
    text = ast.get_docstring(function) or ""
    return [section for section in wanted if f"{section}\n---" not in text]


@pytest.mark.parametrize("module", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_and_its_public_names_are_documented(module: Path) -> None:
    tree = ast.parse(module.read_text())
    classes = [n for n in tree.body if isinstance(n, ast.ClassDef) and not n.name.startswith("_")]
    named = [*classes, *public(tree.body), *(f for c in classes for f in public(c.body))]
    assert ast.get_docstring(tree) is not None or not tree.body
    assert [node.name for node in named if not ast.get_docstring(node)] == []


@pytest.mark.parametrize(
    "module",
    [m for m in MODULES if set(m.relative_to(PACKAGE).parts) & ARRAY_ROOMS],
    ids=lambda p: str(p.relative_to(PACKAGE)),
)
def test_functions_on_arrays_state_what_they_take_and_return(module: Path) -> None:
    functions = public(ast.parse(module.read_text()).body)
    asked = [f for f in functions if takes_arrays(f) and not is_one_expression(f)]
    assert {f.name: missing for f in asked if (missing := missing_sections(f))} == {}
