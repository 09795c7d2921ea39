"""What the documents name is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_test_that_a_promise_names_exists():
    text = (ROOT / "docs/reliability.md").read_text()
    files = set(re.findall(r"\b(?:tests|benchmarks)/[\w/]+\.(?:py|sh)\b", text))
    assert len(files) > 10
    sources = {name: (ROOT / name).read_text() for name in files}
    for name, test in re.findall(r"(tests/[\w/]+\.py)::(test_\w+)", text):
        assert f"def {test}(" in sources[name], f"{name} has no {test}"
    every = "".join(sources.values())
    for test in re.findall(r"`(test_\w+)`", text):
        assert f"def {test}(" in every, f"no {test}"


def test_every_link_of_the_documents_leads_somewhere():
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
