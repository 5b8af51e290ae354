"""What the documents name is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [path for crate in ("crds", "operator", "sidecar", "tests") for path in (ROOT / crate).rglob("*.rs")]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "tests/README.md", *(ROOT / "docs").rglob("*.md")]


def test_every_test_that_holds_an_invariant_exists():
    named = set(re.findall(r"`([a-z0-9]+(?:_[a-z0-9]+){3,})`", (ROOT / "docs/architecture.md").read_text()))
    assert len(named) > 20
    functions = {name for path in SOURCES for name in re.findall(r"\bfn (\w+)", path.read_text())}
    assert named <= functions, named - functions


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
        if not target.startswith("https://"):
            assert (document.parent / target).exists(), target
