"""The tree itself: nothing in it names the machine it was written on, and nothing in it points nowhere."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MEGABYTE = 2**20

# Written in pieces, so that this file does not name them either.
MACHINE_PATHS = re.compile(r"(?:^|[^\w.])/(?:work|root|farm)/|/opt/(?:pypi|wheels|tf-plugins)", re.MULTILINE)
REGISTRIES = ["pypi" + ".org", "python" + "hosted.org", "download." + "pytorch.org", "deb." + "debian.org"]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def tracked_files() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


def text_of(path: Path) -> str | None:
    content = path.read_bytes()
    return None if b"\0" in content[:8192] else content.decode("utf-8", errors="replace")


TEXTS = {path.relative_to(ROOT): text for path in tracked_files() if (text := text_of(path)) is not None}
PAGES = sorted(path for path in TEXTS if path.suffix == ".md")


def test_no_file_names_a_path_of_one_machine() -> None:
    named = {
        str(path): found.group() for path, text in TEXTS.items() if (found := MACHINE_PATHS.search(text))
    }
    assert named == {}


def test_no_file_names_a_package_registry() -> None:
    named = {str(path): host for path, text in TEXTS.items() for host in REGISTRIES if host in text}
    assert named == {}


def test_no_file_is_larger_than_20_megabytes() -> None:
    sizes = {str(path.relative_to(ROOT)): path.stat().st_size for path in tracked_files()}
    assert {name: size for name, size in sizes.items() if size > 20 * MEGABYTE} == {}


def test_no_module_is_named_for_holding_everything() -> None:
    vague = {"utils", "util", "helpers", "helper", "misc", "common"}
    assert [str(p) for p in TEXTS if p.suffix == ".py" and ({p.stem, *p.parts} & vague)] == []


@pytest.mark.parametrize("module", sorted((ROOT / "src/qsm_ai/physics").glob("*.py")), ids=lambda p: p.stem)
def test_a_physics_module_is_short_enough_to_check_by_eye(module: Path) -> None:
    assert len(module.read_text().splitlines()) < 250


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    targets = [t for t in LINK.findall(TEXTS[page]) if not re.match(r"[a-z]+:", t)]
    assert [t for t in targets if not (ROOT / page.parent / t).exists()] == []


def test_the_version_is_stated_once() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    stated = re.compile(rf"""(?:__version__|version)\s*[:=]\s*["']?{re.escape(version)}(?![\d.])""")
    allowed = {"pyproject.toml", "CITATION.cff"}
    assert [str(p) for p, text in TEXTS.items() if stated.search(text) and str(p) not in allowed] == []


def test_the_citation_is_of_the_current_version_and_licence() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {project['version']}\n" in citation
    assert f"\nlicense: {project['license']}\n" in citation


def test_the_changelog_knows_the_current_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    sections = re.findall(r"^## \[(.+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    # Before its release a version has no section of its own.
    assert version in sections or sections == ["Unreleased"]


def test_the_first_screen_of_the_readme_says_what_it_is_not() -> None:
    first_screen = "\n".join((ROOT / "README.md").read_text().splitlines()[:40])
    assert "not a medical device" in first_screen
    assert "make up" in first_screen
