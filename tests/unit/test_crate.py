"""A crate says who did what, when, from what and with what, and a validator agrees."""

import contextlib
import copy
import json
import os
import shutil
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rocrate import vocabs

from robustviews import artifacts
from robustviews.provenance import crate
from robustviews.provenance.crate import descriptions
from robustviews.provenance.crate.graph import METADATA, Graph
from robustviews.provenance.disk import Disk, files
from robustviews.provenance.manifest import RefusedError
from robustviews.study import folders, plan, specs
from robustviews.study import jobs as pending
from robustviews.study.schema import Figure, Row, Table
from tests.unit.results_tree import COLUMNS, small_study, write_shown, write_tree

REPOSITORY = Path(__file__).parents[2]
IMAGE = "ghcr.io/lab/robustviews:1.0@sha256:" + "5" * 64
RUN = "emp-free3-digits-s1"
ENCODER = f"results/tiny/pretrain/{RUN}/encoder.safetensors"
STARTED = datetime(2026, 1, 1, tzinfo=UTC)


class Asked:
    """A crate that answers from its JSON-LD alone."""

    def __init__(self, folder):
        self.text = (folder / METADATA).read_text(encoding="utf-8")
        self.things = {thing["@id"]: thing for thing in json.loads(self.text)["@graph"]}

    def __getitem__(self, identifier):
        return self.things[identifier]

    def of_type(self, kind):
        return [thing for thing in self.things.values() if kind in listed(thing["@type"])]

    def refs(self, thing, name):
        return [self.things[each["@id"]] for each in listed(thing.get(name, []))]

    def values(self, thing, name):
        """Return name and value of what a property lists."""
        found = (each for each in self.refs(thing, name) if each["@type"] == "PropertyValue")
        return {each["name"]: each["value"] for each in found}

    def makers(self, path):
        """Return the jobs that wrote a file; the run of the whole workflow is none."""
        return [
            action
            for action in self.of_type("CreateAction")
            if action["@id"] != "#run" and path in ids(action["result"])
        ]


def listed(value):
    return value if isinstance(value, list) else [value]


def ids(refs):
    return [ref["@id"] for ref in listed(refs)]


def edit_record(folder, **changes):
    """Change sections of a record."""
    record = artifacts.read_json(folder / "record.json")
    for name, value in changes.items():
        record[name] = record[name] | value if isinstance(value, dict) else value
    artifacts.write_json(folder / "record.json", record)


def make_project(root, study, run):
    write_tree(root, study)
    write_shown(root, study)
    edit_record(
        root / folders.pretrain_folder(study, run),
        environment={"image": IMAGE},
        result={"peak_bytes": 123456789},
    )
    shutil.copytree(REPOSITORY / "workflow", root / "workflow")
    shutil.copy(REPOSITORY / "CITATION.cff", root)
    (root / "params.yaml").write_text("the study\n")


def export(root, to, study=None, **options):
    with contextlib.chdir(root):
        graph = crate.build(study or small_study(), study_file=Path("params.yaml"), **options)
        crate.write(graph, to)
    return Asked(to)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A finished study that no test changes."""
    root = tmp_path_factory.mktemp("project")
    make_project(root, small_study(), RUN)
    return root


@pytest.fixture(scope="module")
def exported(project, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "crate"
    export(project, folder)
    return folder


@pytest.fixture(scope="module")
def asked(exported):
    return Asked(exported)


@pytest.fixture
def own(project, tmp_path):
    """A copy of the study that a test may change."""
    shutil.copytree(project, tmp_path / "own")
    return tmp_path / "own"


# The profile's competency questions, in its order; CQ10 and CQ3 share their answer's kind.


def test_which_container_image_did_a_job_use(asked):
    (image,) = asked.refs(asked[f"#job/pretrain/{RUN}"], "containerImage")
    assert image["@type"] == "ContainerImage"
    assert (image["registry"], image["name"], image["tag"]) == (
        "ghcr.io",
        "lab/robustviews",
        "1.0",
    )
    assert image["sha256"] == "5" * 64
    assert asked.of_type("ContainerImage") == [image], "other jobs recorded none"


def test_how_much_memory_processor_and_time_did_a_job_use(asked):
    used = {
        each["propertyID"].rpartition("/")[2]: (each["value"], each["unitCode"].rpartition("/")[2])
        for each in asked.refs(asked[f"#job/pretrain/{RUN}"], "resourceUsage")
    }
    assert used == {
        "totalTime": (186.0, "SEC"),
        "processorRequirements": (1, "NUM"),
        "memoryRequirements": (123456789, "BYTE"),
    }


def test_which_configuration_file_decided_a_job(asked):
    for job in asked.of_type("ControlAction"):
        (action,) = asked.refs(job, "object")
        assert "params.yaml" in ids(action["object"])


def test_which_environment_file_says_what_was_installed(asked, project):
    (lock,) = asked.refs(asked["workflow/Snakefile"], "buildInstructions")
    recorded = artifacts.read_json(project / Path(ENCODER).with_name("record.json"))["environment"]
    assert f"sha256:{lock['sha256']}" == recorded["lock"]
    (tool,) = asked.refs(asked[f"#job/pretrain/{RUN}"], "instrument")
    needs = {
        each["name"]: each["softwareVersion"] for each in asked.refs(tool, "softwareRequirements")
    }
    assert needs == recorded["packages"] | {"python": recorded["python"]}


def test_how_long_did_a_job_and_the_whole_run_take(asked):
    def took(action):
        return datetime.fromisoformat(action["endTime"]) - datetime.fromisoformat(
            action["startTime"]
        )

    assert took(asked[f"#job/pretrain/{RUN}"]) == timedelta(seconds=186)
    jobs = [job for job in asked.of_type("CreateAction") if "startTime" in job]
    assert asked["#run"]["startTime"] == min(job["startTime"] for job in jobs)


def test_was_the_run_successful(asked):
    for kind in ("CreateAction", "ControlAction"):
        for action in asked.of_type(kind):
            assert action["actionStatus"] == "http://schema.org/CompletedActionStatus"
            assert "error" not in action


def test_what_went_into_the_whole_run_and_what_came_out(asked):
    assert ids(asked["#run"]["object"]) == ["params.yaml"]
    shown = {path.as_posix() for job in reporting() for path in job.outputs}
    assert set(ids(asked["#run"]["result"])) == shown


def test_which_version_of_which_tool_made_a_file(asked):
    (action,) = asked.makers(ENCODER)
    (tool,) = asked.refs(action, "instrument")
    spec = specs.pretrain_spec(small_study(), RUN)
    assert (tool["name"], tool["softwareVersion"]) == ("robustviews pretrain", spec["code"])
    assert "commit abc1234" in tool["description"]


def test_which_scripts_wrap_the_tools(asked):
    (workflow,) = asked.refs(asked["./"], "mainEntity")
    assert workflow["@id"] == "workflow/Snakefile"
    assert asked.refs(workflow, "programmingLanguage")[0]["name"] == "Snakemake"
    assert "workflow/rules/pretrain.smk" in ids(asked["./"]["hasPart"])


def test_how_was_a_parameter_of_the_study_used_in_a_tool(asked):
    name = "run.regime.eps"
    (step,) = asked.refs(asked[f"#control/pretrain/{RUN}"], "instrument")
    received = {
        each["targetParameter"]["@id"]: each["sourceParameter"]["@id"]
        for each in asked.refs(step, "connection")
    }
    assert received[f"#parameter/pretrain/{name}"] == "#input/workflow/study"
    parameter = asked[f"#parameter/pretrain/{name}"]
    assert (parameter["name"], parameter["additionalType"]) == (name, "Float")
    values = asked.refs(asked[f"#job/pretrain/{RUN}"], "object")
    (value,) = [each for each in values if each["name"] == name]
    assert value["value"] == 8.0
    assert parameter["@id"] in ids(value["exampleOfWork"])


def reporting():
    return [job for job in pending.jobs(small_study()).values() if job.folder is None]


# What else is asked of a crate.


@pytest.mark.parametrize("run", list(plan.pretrainings(small_study())))
def test_every_resolved_parameter_and_seed_of_a_training_is_a_value(asked, run):
    def flat(tree, prefix=""):
        for name, value in tree.items():
            if isinstance(value, dict):
                yield from flat(value, f"{prefix}{name}.")
            else:
                yield prefix + name, value

    spec = specs.pretrain_spec(small_study(), run)
    values = asked.values(asked[f"#job/pretrain/{run}"], "object")
    expected = {
        name: value if isinstance(value, bool | int | float | str) else json.dumps(value)
        for name, value in flat(spec)
    }
    assert values == expected
    assert values["seed"] == spec["seed"]


def test_from_a_table_one_walks_back_to_the_data(asked):
    way, open_files = set(), ["results/tiny/tables/table1.md"]
    while open_files:
        for action in asked.makers(open_files.pop()):
            if action["@id"] not in way:
                way.add(action["@id"])
                open_files += ids(action["object"])
    study = small_study()
    behind = pending.jobs(study)
    wanted, keys = set(), [("table", "table1")]
    while keys:
        key = keys.pop()
        if key not in wanted:
            wanted.add(key)
            keys += behind[key].needs
    assert way == {f"#job/{rule}/{name}" for rule, name in wanted}
    assert any(name.startswith("#job/data/") for name in way)


def test_device_determinism_commit_and_resumes_of_a_job_are_said(asked):
    said = asked.values(asked[f"#job/pretrain/{RUN}"], "additionalProperty")
    assert said["environment.device"] == "cpu: Abacus 3000"
    assert said["environment.deterministic"] is True
    assert (said["code.commit"], said["code.dirty"], said["resumed"]) == ("abc1234", False, 0)


def test_every_file_is_in_the_crate_with_its_hash_and_size(asked, exported, project):
    inside = {
        path.relative_to(exported).as_posix() for path in exported.rglob("*") if path.is_file()
    }
    described = asked.of_type("File")
    assert {each["@id"] for each in described} == inside - {METADATA}
    made = {path.as_posix() for job in pending.jobs(small_study()).values() for path in files(job)}
    assert made | {"params.yaml", "requirements.lock", "workflow/Snakefile"} <= inside
    for each in described:
        assert f"sha256:{each['sha256']}" == artifacts.sha256(exported / each["@id"])
        assert each["contentSize"] == str((project / each["@id"]).stat().st_size)
        assert each["encodingFormat"]
    assert set(ids(asked["./"]["hasPart"])) == {each["@id"] for each in described}


def test_every_reference_leads_to_something_described_or_to_the_web(asked):
    def references(value):
        if isinstance(value, dict) and set(value) == {"@id"}:
            yield value["@id"]
        elif isinstance(value, dict | list):
            for each in value.values() if isinstance(value, dict) else value:
                yield from references(each)

    named = {each for thing in asked.things.values() for each in references(thing)}
    assert {each for each in named - set(asked.things) if not each.startswith("https://")} == set()


def test_the_same_study_gives_the_same_bytes_whenever_it_is_exported(exported, own, tmp_path):
    for path in own.rglob("*"):
        os.utime(path, (0, 0))
    export(own, tmp_path / "again")
    for path in exported.rglob("*"):
        if path.is_file():
            again = tmp_path / "again" / path.relative_to(exported)
            assert again.read_bytes() == path.read_bytes(), path


def test_what_happens_to_a_crate_does_not_reach_the_study(own, tmp_path):
    export(own, tmp_path / "crate")
    with (tmp_path / "crate" / ENCODER).open("ab") as file:
        file.write(b"changed")
    assert not (own / ENCODER).read_bytes().endswith(b"changed")


def test_nobody_is_named_who_was_not_given(asked):
    assert asked.of_type("Person") == []
    assert "agent" not in asked[f"#job/pretrain/{RUN}"], "no note of Snakemake says that it ran"
    authors = asked.refs(asked["workflow/Snakefile"], "author")
    assert [(each["@type"], each["name"]) for each in authors] == [
        ("Organization", "robustviews contributors")
    ]


@pytest.mark.parametrize(
    ("agent", "identifier"),
    [
        ("Somebody Careful", "#agent/Somebody%20Careful"),
        ("https://orcid.org/0000-0000-0000-0000", "https://orcid.org/0000-0000-0000-0000"),
    ],
)
def test_who_is_given_is_the_agent_of_every_job(own, tmp_path, agent, identifier):
    asked = export(own, tmp_path / "crate", agent=agent)
    assert asked[identifier]["@type"] == "Person"
    for action in asked.of_type("CreateAction"):
        assert ids(action["agent"]) == [identifier]


def test_the_end_of_a_job_that_was_resumed_is_not_made_up(own, tmp_path):
    edit_record(own / Path(ENCODER).parent, resumed=2)
    asked = export(own, tmp_path / "crate")
    action = asked[f"#job/pretrain/{RUN}"]
    assert "endTime" not in action
    assert "resumed 2 times" in action["description"]
    assert "endTime" not in asked["#run"]


def test_a_lock_that_no_job_recorded_is_not_given_as_their_environment(own):
    for record in own.rglob("record.json"):
        edit_record(record.parent, environment={"lock": "sha256:" + "0" * 64})
    with contextlib.chdir(own):
        graph = Graph(Disk(small_study(), Path()))
        assert descriptions.add_lock(graph) is None
        assert "softwareVersion" not in graph.entities[descriptions.add_engine(graph)["@id"]]


def test_the_engine_has_the_version_of_the_lock_that_all_jobs_recorded(own):
    text = (own / "requirements.lock").read_text() + "snakemake==9.8.7 \\\n    --hash=sha256:0\n"
    (own / "requirements.lock").write_text(text)
    for record in own.rglob("record.json"):
        edit_record(
            record.parent, environment={"lock": artifacts.sha256(own / "requirements.lock")}
        )
    graph = Graph(Disk(small_study(), own))
    assert graph.entities[descriptions.add_engine(graph)["@id"]]["softwareVersion"] == "9.8.7"


@pytest.mark.parametrize(
    ("image", "registry", "name", "tag"),
    [
        ("docker://robustviews:latest", "docker.io", "robustviews", "latest"),
        ("ghcr.io/lab/image:2@sha256:" + "a" * 64, "ghcr.io", "lab/image", "2"),
        ("localhost:5000/image", "localhost:5000", "image", None),
        ("lab/image", "docker.io", "lab/image", None),
        ("docker://me:s3cret@ghcr.io/lab/image:2", "ghcr.io", "lab/image", "2"),
        ("/somewhere/of/mine/image.sif", None, "image.sif", None),
        ("sha256:" + "a" * 64, None, "sha256:" + "a" * 64, None),
    ],
)
def test_an_image_is_named_without_what_lets_one_in_or_where_it_lay(
    project, image, registry, name, tag
):
    graph = Graph(Disk(small_study(), project))
    said = graph.entities[descriptions.add_image(graph, image)["@id"]]
    assert (said.get("registry"), said["name"], said.get("tag")) == (registry, name, tag)
    assert not any(secret in json.dumps(graph.entities) for secret in ("s3cret", "of/mine"))


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ("Integer", "Float", "Float"),
        ("Boolean", "Integer", "Integer"),
        ("Float", "Text", "Text"),
        ("Text", "Integer", "Text"),
        ("File", "File", "File"),
    ],
)
def test_a_parameter_has_the_type_that_holds_all_its_values(one, other, both):
    assert descriptions.wider(one, other) == both


def test_an_unfinished_study_is_refused_with_what_to_run(own, tmp_path):
    (own / ENCODER).unlink()
    with pytest.raises(artifacts.ArtifactError) as caught:
        export(own, tmp_path / "crate")
    assert ENCODER in str(caught.value)
    assert f"the first: pretrain {RUN}; run: snakemake --config study=params.yaml" in str(
        caught.value
    )
    assert not (tmp_path / "crate").exists()


def test_a_study_that_the_audit_fails_is_refused(own, tmp_path):
    (own / ENCODER).write_bytes(b"another encoder")
    with pytest.raises(RefusedError, match="no crate, the audit failed"):
        export(own, tmp_path / "crate")
    assert not (tmp_path / "crate").exists()


def test_a_folder_that_holds_something_is_left_alone(project, tmp_path):
    (tmp_path / "diary").write_text("mine")
    with pytest.raises(artifacts.ArtifactError, match="expected a new folder"):
        export(project, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["diary"]


# The validator asks the web for the context of RO-Crate 1.1; here it is given one.

CONTEXT = "https://w3id.org/ro/crate/1.1/context"
PROFILE = "provenance-run-crate"
EXTENDED = ("ro-crate", "workflow-ro-crate", "process-run-crate", "workflow-run-crate", PROFILE)


def context_of_1_1():
    """Return the context of 1.3, which `rocrate` ships, as far as 1.1 has it."""
    terms = copy.deepcopy(vocabs.RO_CRATE["@context"])
    for name in ("ComputationalWorkflow", "FormalParameter"):
        terms[name] = f"https://bioschemas.org/{name}"
    for name in ("input", "output"):
        terms[name] = f"https://bioschemas.org/ComputationalWorkflow#{name}"
    for name in ("sha256", "buildInstructions"):
        del terms[name]
    return {"@context": terms}


class Answer:
    """What the web would answer."""

    def __init__(self, url):
        assert url == CONTEXT, f"the crate needs {url}, which nobody fetched for the test"
        self.url, self.status_code, self.ok, self.from_cache = url, 200, True, True
        self.headers = {"Content-Type": "application/ld+json"}
        self.text = json.dumps(context_of_1_1())
        self.content = self.text.encode()

    def json(self):
        return json.loads(self.text)

    def raise_for_status(self):
        pass


@pytest.fixture
def validate(monkeypatch, tmp_path):
    """Return a function that says what is wrong with a crate, without a network."""
    pytest.importorskip("rocrate_validator", reason="roc-validator is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries that the validator stands on
        from rocrate_validator import models, services
        from rocrate_validator.utils.http import HttpRequester

    def answer(_self, url, **_options):
        return Answer(url)

    for method in ("get", "head"):
        monkeypatch.setattr(HttpRequester, method, answer, raising=False)

    def issues(folder):
        settings = services.ValidationSettings(
            rocrate_uri=str(folder),
            profile_identifier=PROFILE,
            requirement_severity=models.Severity.REQUIRED,
            abort_on_first=False,
            offline=True,
            cache_path=tmp_path / "cache",
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = services.validate(settings)
        checked = {check.identifier for check in result.executed_checks}
        for profile in EXTENDED:
            assert any(name.startswith(profile) for name in checked), f"{profile} was not checked"
        return {issue.message for issue in result.get_issues()}

    return issues


def test_the_licence_of_the_code_is_put_on_the_workflow_and_on_no_data(asked):
    (licence,) = asked.refs(asked["workflow/Snakefile"], "license")
    assert licence["@id"] == "https://spdx.org/licenses/MIT"
    licensed = {name for name, thing in asked.things.items() if "license" in thing}
    assert "workflow/rules/common.smk" in licensed
    assert {name.partition("/")[0] for name in licensed} == {"workflow", "."}
    (terms,) = asked.refs(asked["./"], "license")
    assert terms["@id"].startswith("#")
    assert "code is MIT. The data sets have terms of their own" in terms["description"]


@pytest.mark.parametrize(("name", "expected"), [("LICENSE", ["LICENSE"]), (None, [])])
def test_no_licence_is_made_up_where_none_is_named(own, tmp_path, name, expected):
    (own / "CITATION.cff").unlink()
    if name:
        (own / name).write_text("Do what you like.")
    asked = export(own, tmp_path / "to")
    found = asked.refs(asked["workflow/Snakefile"], "license")
    assert [each["@id"] for each in found] == expected
    assert ("license" in asked["./"]) == bool(expected)
    assert "MIT" not in asked.text


@pytest.fixture(scope="module")
def smaller(tmp_path_factory):
    """A crate with one job of most rules: the validator is slow on large ones."""
    root, folder = tmp_path_factory.mktemp("smaller"), tmp_path_factory.mktemp("to") / "crate"
    rows = {"pgd": Row("simclr-pgd5", "rle")}
    study = small_study(
        tables={"table1": Table("One row", COLUMNS[:2], rows)},
        figures={"bars": Figure("A figure", COLUMNS[:2], rows, kind="bars")},
    )
    make_project(root, study, plan.pretrainings(study)[0])
    export(root, folder, study)
    return folder


def test_the_crate_meets_every_requirement_of_the_profile_and_those_it_extends(validate, smaller):
    assert validate(smaller) == set()


def test_the_validator_notices_what_is_missing(validate, smaller, tmp_path):
    shutil.copytree(smaller, tmp_path / "broken")
    metadata = artifacts.read_json(tmp_path / "broken" / METADATA)
    things = {each["@id"]: each for each in metadata["@graph"]}
    del things["#job/pretrain/simclr-pgd5-digits-s0"]["instrument"]
    del things["#step/probe"]["workExample"]
    del things["./"]["license"]
    artifacts.write_json(tmp_path / "broken" / METADATA, metadata)
    told = " ".join(validate(tmp_path / "broken"))
    for missing in ("instrument", "workExample", "license"):
        assert missing in told
