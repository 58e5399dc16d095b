"""What a release says of itself: version, citation, hosted CI, forms for issues."""

import importlib
import re
import tomllib

import yaml

import actloc_core
import actloc_version
import evaluators
from tests.console import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SESSIONS = re.findall(r"@nox\.session\ndef (\w+)\(", (ROOT / "noxfile.py").read_text())


def read(name):
    return yaml.safe_load((ROOT / name).read_text())


def test_the_version_is_written_in_one_place_of_the_code():
    version = actloc_version.__version__
    assert actloc_core.__version__ == evaluators.__version__ == version
    assert PYPROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "actloc_version.__version__"}
    sources = [*ROOT.glob("*.py"), *(ROOT / "actloc_core").rglob("*.py"), *(ROOT / "evaluators").glob("*.py")]
    assert [path.name for path in sources if version in path.read_text()] == ["actloc_version.py"]


def test_the_citation_has_the_version_the_licence_and_the_changelogs_first_entry():
    citation = read("CITATION.cff")
    assert citation["version"] == actloc_version.__version__
    assert citation["license"] == PYPROJECT["project"]["license"]
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first is not None
    assert first[1] == citation["version"]


def test_the_citation_has_the_authors_and_the_paper_that_readme_names():
    citation = read("CITATION.cff")
    assert citation["authors"] == PYPROJECT["project"]["authors"]
    [paper] = citation["references"]
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert f'"{paper["title"]}" (Ntinou, Sanchez, Tzimiropoulos)' in readme
    assert [author["family-names"] for author in paper["authors"]] == ["Ntinou", "Sanchez", "Tzimiropoulos"]


def test_hosted_ci_runs_what_the_repository_runs_and_the_regression_session_weekly():
    workflow = read(".github/workflows/ci.yml")
    triggers = workflow[True]  # YAML 1.1 reads `on` as true
    assert {"push", "pull_request", "schedule"} <= set(triggers)
    runs = {
        name: [step["run"] for step in job["steps"] if "run" in step]
        for name, job in workflow["jobs"].items()
    }
    assert runs["check"] == ["bash .ci/run"]
    assert runs["regression"][-1] == "nox -s regression"
    assert "!= 'schedule'" in workflow["jobs"]["check"]["if"]
    [[called]] = (re.findall(r"nox\" -s ([\w ]+)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE),)
    assert {*called.split(), "regression"} <= set(SESSIONS)


def test_hosted_ci_starts_with_the_oldest_python_that_is_supported():
    job = read(".github/workflows/ci.yml")["jobs"]["check"]
    oldest = job["strategy"]["matrix"]["python"][0]
    assert PYPROJECT["project"]["requires-python"] == f">={oldest}"
    assert oldest in job["continue-on-error"], "it must pass"


def test_forms_for_issues_ask_for_the_version_by_a_command_that_exists():
    forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").iterdir())
    assert [form.name for form in forms] == ["bug.yml", "wrong_number.yml"]
    for form in forms:
        content = yaml.safe_load(form.read_text())
        fields = {field["id"]: field for field in content["body"]}
        assert "--version" in fields["version"]["attributes"]["description"]
        assert fields["version"]["validations"] == {"required": True}
        text = form.read_text()
        scripts = set(re.findall(r"`(actloc-\w+)", text))
        assert scripts <= set(PYPROJECT["project"]["scripts"])
        for module in re.findall(r"python -m ([\w.]+)", text):
            assert callable(importlib.import_module(module).main)
