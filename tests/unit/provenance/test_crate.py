"""A crate states which job made each file, when, from what and with what; a validator agrees."""

import contextlib
import json
import os
import shutil
from pathlib import Path

import pytest

from robustviews import artifacts
from robustviews.artifacts import Record
from robustviews.provenance import crate
from robustviews.provenance.manifest import RefusedError
from robustviews.study import cells, jobs, plan, specs
from robustviews.workflow.metadata import Window
from tests.unit.results_tree import edit, small_study

REPOSITORY = Path(__file__).parents[3]
IMAGE = "ghcr.io/lab/robustviews:1.0@sha256:" + "5" * 64
RUN = "emp-free3-digits-s1"
ENCODER = f"results/tiny/pretrain/{RUN}/encoder.safetensors"
RECORD = f"results/tiny/pretrain/{RUN}/record.json"
LAST = f"results/tiny/attack/{RUN}/rle/pgd20/record.json"


class Reader:
    """Answers questions from the JSON-LD of a crate alone."""

    def __init__(self, folder):
        graph = json.loads((folder / crate.METADATA).read_text(encoding="utf-8"))["@graph"]
        self.things = {thing["@id"]: thing for thing in graph}

    def __getitem__(self, identifier):
        return self.things[identifier]

    def of_type(self, kind):
        return [thing for thing in self.things.values() if kind in listed(thing["@type"])]

    def values(self, thing, name):
        """Return name and value of each PropertyValue that a property lists."""
        described = (self.things[thing] for thing in ids(thing[name]))
        return {
            thing["name"]: thing["value"]
            for thing in described
            if thing["@type"] == "PropertyValue"
        }

    def makers(self, path):
        """Return the jobs that wrote a file; the run of the whole workflow is no job."""
        return [
            action
            for action in self.of_type("CreateAction")
            if action["@id"] != "#run" and path in ids(action["result"])
        ]


def listed(value):
    return value if isinstance(value, list) else [value]


def ids(refs):
    return [ref["@id"] for ref in listed(refs)]


def export(root, to, agent=None):
    with contextlib.chdir(root):
        crate.write(crate.build(small_study(), agent=agent), to)
    return Reader(to)


@pytest.fixture(scope="module")
def project(tree, tmp_path_factory):
    """A finished study that no test changes."""
    root = shutil.copytree(tree, tmp_path_factory.mktemp("project"), dirs_exist_ok=True)
    edit(root, Path(RECORD).parent, lambda record: record["environment"].update(image=IMAGE))
    edit(root, Path(LAST).parent, lambda record: record.update(started="2026-01-02T00:00:00Z"))
    shutil.copytree(REPOSITORY / "workflow", root / "workflow")
    shutil.copy(REPOSITORY / "LICENSE", root)
    (root / "params.yaml").write_text("the study\n")
    return root


@pytest.fixture(scope="module")
def exported(project, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "crate"
    export(project, folder)
    return folder


@pytest.fixture(scope="module")
def reader(exported):
    return Reader(exported)


@pytest.fixture
def own(project, tmp_path):
    """A copy of the study that a test may change."""
    shutil.copytree(project, tmp_path / "own")
    return tmp_path / "own"


def test_every_file_is_in_the_crate_with_its_hash_and_size(reader, exported):
    inside = {path.relative_to(exported) for path in exported.rglob("*") if path.is_file()}
    described = reader.of_type("File")
    assert {Path(thing["@id"]) for thing in described} == inside - {Path(crate.METADATA)}
    made = {path for job in jobs.jobs(small_study()).values() for path in job.writes}
    others = ("params.yaml", "requirements.lock", "LICENSE", "workflow/rules/pretrain.smk")
    assert made | {Path(name) for name in others} <= inside
    for thing in described:
        assert f"sha256:{thing['sha256']}" == artifacts.sha256(exported / thing["@id"])
        assert thing["contentSize"] == str((exported / thing["@id"]).stat().st_size)
    assert set(ids(reader["./"]["hasPart"])) == {thing["@id"] for thing in described}


def test_every_reference_leads_to_something_described_or_to_the_web(reader):
    def references(value):
        if isinstance(value, dict) and set(value) == {"@id"}:
            yield value["@id"]
        elif isinstance(value, dict | list):
            for thing in value.values() if isinstance(value, dict) else value:
                yield from references(thing)

    named = {thing for thing in reader.things.values() for thing in references(thing)}
    assert not [thing for thing in named - set(reader.things) if not thing.startswith("https://")]


def test_a_reader_walks_back_from_a_table_to_the_data(reader):
    reached, unread = set(), ["results/tiny/tables/table1.md"]
    while unread:
        for action in reader.makers(unread.pop()):
            assert "params.yaml" in ids(action["object"])
            if action["@id"] not in reached:
                reached.add(action["@id"])
                unread += ids(action["object"])
    study = small_study()
    behind = {
        job.key
        for address, cell in cells.every(study)
        for job in cells.chain(study, cell)
        if address.table == "table1"
    }
    assert reached == {f"#job/{rule}/{name}" for rule, name in behind | {("table", "table1")}}


@pytest.mark.parametrize("run", list(plan.pretrainings(small_study())))
def test_every_resolved_parameter_and_seed_of_a_training_is_a_value(reader, run):
    def flat(tree, prefix=""):
        for name, value in tree.items():
            if isinstance(value, dict):
                yield from flat(value, f"{prefix}{name}.")
            else:
                yield prefix + name, value

    spec = specs.spec(small_study(), "pretrain", run)
    values = reader.values(reader[f"#job/pretrain/{run}"], "object")
    assert values["seed"] == spec["seed"]
    assert values == {
        name: value if isinstance(value, bool | int | float | str) else json.dumps(value)
        for name, value in flat(spec)
    }


def test_a_job_states_code_packages_device_determinism_and_image(reader, project):
    (action,) = reader.makers(ENCODER)
    assert (
        reader[action["instrument"]["@id"]]["softwareVersion"]
        == (specs.spec(small_study(), "pretrain", RUN)["code"])
    )
    assert reader[action["containerImage"]["@id"]]["name"] == IMAGE
    assert "containerImage" not in reader["#job/pretrain/simclr-pgd5-digits-s0"]
    values = reader.values(action, "additionalProperty")
    record = artifacts.read_json(project / RECORD)
    assert values["environment.packages.torch"] == record["environment"]["packages"]["torch"]
    assert values["environment.lock"] == f"sha256:{reader['requirements.lock']['sha256']}"
    assert values["environment.device"] == "cpu: Abacus 3000"
    assert values["environment.deterministic"] is True
    assert (values["code.commit"], values["code.dirty"]) == ("abc1234", False)
    assert (values["seconds"], values["resumed"]) == (186.0, 0)


def test_the_run_of_the_workflow_spans_the_jobs_and_gives_what_the_study_shows(reader):
    run, (workflow,) = reader["#run"], reader.of_type("ComputationalWorkflow")
    assert run["instrument"] == reader["./"]["mainEntity"] == {"@id": workflow["@id"]}
    assert ids(run["object"]) == ["params.yaml"]
    shown = [job for job in jobs.jobs(small_study()).values() if job.folder is None]
    assert set(ids(run["result"])) == {path.as_posix() for job in shown for path in job.writes}
    starts = [job["startTime"] for job in reader.of_type("CreateAction") if "startTime" in job]
    assert run["startTime"] == min(starts)
    assert reader["./"]["datePublished"] == "2026-01-02"
    assert "endTime" not in run, "no metadata of Snakemake says when the report was written"


@pytest.mark.parametrize(
    ("resumed", "window", "end"),
    [(0, None, "00:01:00"), (0, Window(0, 70), "00:01:10"), (1, None, None)],
    ids=["by hand", "by Snakemake", "resumed by hand"],
)
def test_the_end_of_a_job_is_not_made_up(resumed, window, end):
    record = Record(started="1970-01-01T00:00:00Z", seconds=60.0, resumed=resumed)
    times = crate._times(record, window)
    assert times["startTime"] == "1970-01-01T00:00:00+00:00"
    assert times.get("endTime") == (end and f"1970-01-01T{end}+00:00")
    assert crate._times(Record(), window).get("endTime") == (window and times["endTime"])


def test_only_the_agent_that_was_given_is_named(reader, own, tmp_path):
    assert reader.of_type("Person") == []
    for agent, identifier in {
        "Somebody Careful": "#agent/Somebody%20Careful",
        "https://orcid.org/0000-0000-0000-0000": "https://orcid.org/0000-0000-0000-0000",
    }.items():
        named = export(own, tmp_path / agent.rpartition("/")[2], agent=agent)
        assert ids(named.of_type("Person")) == [identifier]
        for action in named.of_type("CreateAction"):
            assert ids(action["agent"]) == [identifier]


def test_the_licence_covers_the_code_and_no_data_and_is_not_made_up(reader, own, tmp_path):
    assert (
        "LICENSE covers the code. The data sets have terms of their own"
        in (reader["./"]["license"])
    )
    assert [name for name, thing in reader.things.items() if "license" in thing] == ["./"]
    (own / "LICENSE").unlink()
    assert "license" not in export(own, tmp_path / "crate")["./"]


def test_the_same_study_gives_the_same_bytes_whenever_it_is_exported(exported, own, tmp_path):
    for path in own.rglob("*"):
        os.utime(path, (0, 0))
    export(own, tmp_path / "again")
    for path in exported.rglob("*"):
        if path.is_file():
            again = tmp_path / "again" / path.relative_to(exported)
            assert again.read_bytes() == path.read_bytes(), path


def test_a_change_in_a_crate_does_not_reach_the_study(own, tmp_path):
    export(own, tmp_path / "crate")
    with (tmp_path / "crate" / ENCODER).open("ab") as file:
        file.write(b"changed")
    assert not (own / ENCODER).read_bytes().endswith(b"changed")


def test_an_unfinished_study_is_refused_with_what_to_run(own, tmp_path):
    (own / "results/tiny/report.html").unlink()
    with pytest.raises(artifacts.ArtifactError, match=r"report\.html: missing; .* snakemake"):
        export(own, tmp_path / "crate")
    assert not (tmp_path / "crate").exists()


def test_a_study_that_the_audit_fails_is_refused(own, tmp_path):
    (own / ENCODER).write_bytes(b"another encoder")
    with pytest.raises(RefusedError, match=r"no crate, \d+ checks of the audit failed"):
        export(own, tmp_path / "crate")
    assert not (tmp_path / "crate").exists()


def test_a_folder_that_is_not_empty_is_left_alone(project, tmp_path):
    (tmp_path / "diary").write_text("mine")
    with pytest.raises(artifacts.ArtifactError, match="expected a new or empty folder"):
        export(project, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["diary"]


# The validator asks the web for the context of RO-Crate 1.1; the tests answer with the terms that
# the crate uses.
CONTEXT = "https://w3id.org/ro/crate/1.1/context"
PROFILES = "ro-crate workflow-ro-crate process-run-crate workflow-run-crate provenance-run-crate"
SCHEMA = """
    CreateAction CreativeWork ComputerLanguage Dataset Person PropertyValue SoftwareApplication
    SoftwareSourceCode about actionStatus additionalProperty agent contentSize datePublished
    description endTime hasPart instrument license mainEntity mentions name object
    programmingLanguage result softwareVersion startTime value version
"""
TERMS = {term: f"http://schema.org/{term}" for term in SCHEMA.split()} | {
    "File": "http://schema.org/MediaObject",
    "ComputationalWorkflow": "https://bioschemas.org/ComputationalWorkflow",
    "conformsTo": "http://purl.org/dc/terms/conformsTo",
}


@pytest.fixture
def validate(monkeypatch, tmp_path):
    """Return a function that returns what is wrong with a crate, without a network."""
    pytest.importorskip("rocrate_validator", reason="roc-validator is not installed")
    import requests
    from rocrate_validator import models, services
    from rocrate_validator.utils.http import HttpRequester

    def answer(_self, url, **_options):
        assert url == CONTEXT, f"the crate needs {url}, which the tests do not have"
        response = requests.Response()
        response.url, response.status_code, response.from_cache = url, 200, True
        response.headers["Content-Type"] = "application/ld+json"
        response._content = json.dumps({"@context": TERMS}).encode()
        return response

    for method in ("get", "head"):
        monkeypatch.setattr(HttpRequester, method, answer, raising=False)

    def issues(folder):
        settings = services.ValidationSettings(
            rocrate_uri=str(folder),
            profile_identifier="provenance-run-crate",
            requirement_severity=models.Severity.REQUIRED,
            abort_on_first=False,
            offline=True,
            cache_path=tmp_path / "cache",
        )
        result = services.validate(settings)
        checked = {check.identifier for check in result.executed_checks}
        for profile in PROFILES.split():
            assert any(name.startswith(profile) for name in checked), f"{profile} was not checked"
        return {issue.message for issue in result.get_issues()}

    return issues


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the libraries that the validator imports
def test_the_crate_meets_every_requirement_of_the_profile_and_those_it_extends(validate, exported):
    assert validate(exported) == set()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_validator_notices_what_is_missing(validate, exported, tmp_path):
    shutil.copytree(exported, tmp_path / "broken")
    metadata = artifacts.read_json(tmp_path / "broken" / crate.METADATA)
    things = {thing["@id"]: thing for thing in metadata["@graph"]}
    del things["#job/pretrain/simclr-pgd5-digits-s0"]["instrument"]
    del things["workflow/Snakefile"]["hasPart"]
    del things["./"]["license"]
    artifacts.write_json(tmp_path / "broken" / crate.METADATA, metadata)
    messages = " ".join(validate(tmp_path / "broken"))
    for missing in ("instrument", "hasPart", "license"):
        assert missing in messages
