"""A whole study, from data to report: everything is there, and every number leads to its bytes."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from safetensors.numpy import load_file

from tests.workflow.project import NOTHING, Finished

RESULTS = "results/tiny"
EMP, SIMCLR, SUPERVISED = "emp-free-digits-s0", "simclr-std-digits-s0", "supervised-std-digits-s0"
ENCODERS = [EMP, SIMCLR, SUPERVISED]
HEADS = [f"{EMP}/central", f"{EMP}/rle", f"{SIMCLR}/crops2"]
FLAGS = [
    f"{EMP}/rle/pgd2",
    f"{EMP}/rle/autoattack",
    f"{SIMCLR}/crops2/pgd2",
    f"{SUPERVISED}/own/pgd2",
]
EXAMPLES = ["examples/views", "examples/adversarial"]
FIGURES = ["figures/strong", "figures/tradeoff", "figures/cost", "training/curves"]
FILES = {
    *(f"pretrain/{name}/encoder.safetensors" for name in ENCODERS),
    *(f"pretrain/{name}/training.jsonl" for name in ENCODERS),
    *(f"pretrain/{name}/record.json" for name in ENCODERS),
    *(f"probe/{name}/head.safetensors" for name in HEADS),
    *(f"probe/{name}/training.jsonl" for name in HEADS),
    *(f"probe/{name}/record.json" for name in HEADS),
    *(f"attack/{name}/flags.safetensors" for name in FLAGS),
    *(f"attack/{name}/record.json" for name in FLAGS),
    *(f"sanity/{name}/flags.safetensors" for name in ENCODERS),
    *(f"sanity/{name}/record.json" for name in ENCODERS),
    *(f"tables/accuracies.{kind}" for kind in ("md", "csv", "tex")),
    *(f"{name}.{kind}" for name in [*FIGURES, *EXAMPLES] for kind in ("svg", "png")),
    "frame.csv",
    "metrics.json",
    "headline.json",
    "report.html",
    "audit.html",
}


@pytest.fixture(scope="module")
def records(finished):
    paths = [path for part in ("data", "results") for path in finished.folder.glob(f"{part}/**/*")]
    return {
        path: json.loads(path.read_text(encoding="utf-8"))
        for path in paths
        if path.name == "record.json"
    }


@pytest.fixture(scope="module")
def page(finished):
    return (finished.folder / RESULTS / "report.html").read_text(encoding="utf-8")


def sha256(path):
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def files_below(folder):
    return {path.relative_to(folder).as_posix() for path in folder.glob("**/*") if path.is_file()}


def test_a_run_leaves_every_artifact_and_nothing_else(finished):
    assert files_below(finished.folder / "results") == {f"tiny/{name}" for name in FILES}


def test_a_second_run_has_nothing_to_do_and_says_so_soon(tiny):
    second = json.loads((tiny / "second.json").read_text(encoding="utf-8"))
    assert NOTHING in second["text"]
    assert Finished(0, second["text"]).jobs() == set()
    assert second["seconds"] < 20  # about 2 where nothing else runs


def test_every_job_writes_a_log(finished):
    logs = files_below(finished.folder / "logs")
    computed = [
        *(f"tiny/pretrain/{name}" for name in ENCODERS),
        *(f"tiny/probe/{name}" for name in HEADS),
        *(f"tiny/attack/{name}" for name in FLAGS),
        *(f"tiny/sanity/{name}" for name in ENCODERS),
        *(f"data/{path.name}" for path in (finished.folder / "data").iterdir()),
    ]
    reported = ["frame", "metrics", "table-accuracies", "curves", "examples", "report"]
    reported += [f"figure-{name}" for name in ("strong", "tradeoff", "cost")]
    assert logs == {
        *(f"{name}.log" for name in computed),
        *(f"tiny/report/{name}.log" for name in reported),
    }


def test_a_training_logs_every_pass(finished):
    log = (finished.folder / f"logs/tiny/pretrain/{EMP}.log").read_text(encoding="utf-8")
    assert re.search(rf"^run={EMP} epoch=1 loss=\S+ ", log, re.M)


def test_snakemake_notes_every_output_by_a_path_within_the_project(finished):
    notes = finished.folder / ".snakemake"
    names = {
        base64.urlsafe_b64decode(
            re.sub("[@/]", "", name)
        ).decode()  # long ones are cut into folders
        for name in files_below(notes / "metadata")
    }
    data = {f"data/{name}" for name in files_below(finished.folder / "data")}
    assert names == {f"{RESULTS}/{name}" for name in FILES} | data
    assert not files_below(notes / "incomplete")
    assert not files_below(notes / "locks")


def test_every_record_states_the_hashes_of_the_bytes_on_disk(finished, records):
    assert len(records) == 1 + 2 * len(ENCODERS) + len(HEADS) + len(FLAGS)
    for path, record in records.items():
        inputs = {name: sha256(finished.folder / name) for name in record["inputs"]}
        assert record["inputs"] == inputs, path
        outputs = {file.name: sha256(file) for file in path.parent.iterdir() if file != path}
        assert record["outputs"] == outputs, path


def test_every_record_names_all_that_its_job_read(finished, records):
    (data,) = (finished.folder / "data").iterdir()
    train, test = (
        {
            f"data/{data.name}/{name}"
            for name in (f"{part}_images.npy", f"{part}_labels.npy", "summary.json")
        }
        for part in ("train", "test")
    )
    encoder = f"{RESULTS}/pretrain/{EMP}/encoder.safetensors"

    def inputs(folder):
        return set(records[finished.folder / RESULTS / folder / "record.json"]["inputs"])

    assert inputs(f"pretrain/{EMP}") == train
    assert inputs(f"probe/{EMP}/central") == {*train, encoder}
    central = f"{RESULTS}/probe/{EMP}/central/head.safetensors"
    assert inputs(f"probe/{EMP}/rle") == {*train, encoder, central}
    head = f"{RESULTS}/probe/{EMP}/rle/head.safetensors"
    assert inputs(f"attack/{EMP}/rle/pgd2") == {*test, encoder, head}
    own = f"{RESULTS}/pretrain/{SUPERVISED}/encoder.safetensors"
    assert inputs(f"attack/{SUPERVISED}/own/pgd2") == {*test, own}


def test_the_frame_is_what_the_flags_say(finished):
    found = {}
    for name in FLAGS:
        folder = finished.folder / RESULTS / "attack" / name
        flags = load_file(folder / "flags.safetensors")
        for key in flags.keys() - {"index", "labels"}:
            eps = 0.0 if key == "clean" else float(key.removeprefix("eps_"))
            right, n = int(flags[key].sum()), len(flags["index"])
            assert set(flags[key].tolist()) <= {0, 1}
            found[name, eps] = (right, n, right / n, f"{RESULTS}/attack/{name}/record.json")
    with (finished.folder / RESULTS / "frame.csv").open(encoding="utf-8", newline="") as file:
        frame = {
            (f"{row['run']}/{row['probe']}/{row['attack']}", float(row["eps"])): (
                int(row["correct"]),
                int(row["n"]),
                float(row["accuracy"]),
                row["record"],
            )
            for row in csv.DictReader(file)
        }
    assert frame == found
    assert {name: n for (name, _), (_, n, _, _) in frame.items()} == {
        name: 10 if name.endswith("autoattack") else 40 for name in FLAGS
    }


def test_a_table_shows_the_frame(finished):
    folder = finished.folder / RESULTS
    with (folder / "frame.csv").open(encoding="utf-8", newline="") as file:
        accuracy = {
            (row["entry"], row["attack"], float(row["eps"])): float(row["accuracy"])
            for row in csv.DictReader(file)
        }
    texts = {
        kind: (folder / f"tables/accuracies.{kind}").read_text(encoding="utf-8")
        for kind in ("md", "tex")
    }
    for entry, label in (
        ("emp-free", "EMP-SSL, free"),
        ("simclr-std", "SimCLR, standard"),
        ("supervised-std", "Supervised, standard"),
    ):
        numbers = [f"{100 * accuracy[entry, 'pgd2', eps]:.0f}" for eps in (0.0, 8.0, 16.0)]
        for kind, text in texts.items():
            (line,) = (line for line in text.splitlines() if label in line)
            shown = re.findall(r"(\d+) (?:±|\\pm)", line.split(label)[1])
            assert [number for number in numbers if number not in shown] == [], (kind, line)
    assert "Trained for no more than a moment." in texts["md"]


def test_figures_are_pictures(finished):
    for name in [*FIGURES, *EXAMPLES]:
        path = finished.folder / RESULTS / name
        assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        svg = ElementTree.fromstring(path.with_suffix(".svg").read_bytes())
        assert svg.tag == "{http://www.w3.org/2000/svg}svg"
        assert len(list(svg.iter())) > 50  # it shows something


class Links(HTMLParser):
    """What a page links to and what it loads."""

    def __init__(self, html):
        super().__init__()
        self.links, self.loads, self.tags = [], [], set()
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        for name, value in attributes:
            if name == "href" and tag == "a":
                self.links.append(value)
            elif name in ("href", "src", "srcset", "data", "poster", "action", "background"):
                self.loads.append(value)


def test_the_report_needs_nothing_but_itself(page):
    found = Links(page)
    assert found.loads, "no picture"
    assert [value[:40] for value in found.loads if not value.startswith("data:image/")] == []
    assert not found.tags & {"script", "iframe", "object", "embed"}
    styles = [*re.findall(r"<style>(.*?)</style>", page, re.S), *re.findall(r'style="(.*?)"', page)]
    assert not any(re.search(r"@import|url\(|://", style) for style in styles)
    for picture in found.loads:
        kind, _, text = picture.partition(";base64,")
        if kind == "data:image/svg+xml":
            svg = base64.b64decode(text).decode()
            assert not re.search(r"""(href|src)=["'](?!#|data:)|url\((?!["']?#)|@import""", svg)
    assert len(page.encode()) < 10e6


def test_every_link_of_report_and_audit_leads_somewhere(finished):
    folder = finished.folder / RESULTS
    pages = {name: (folder / name).read_text("utf-8") for name in ("report.html", "audit.html")}
    names = {name: set(re.findall(r' id="([^"]+)"', html)) for name, html in pages.items()}
    lost = []
    for name, html in pages.items():
        for link in Links(html).links:
            file, _, fragment = link.partition("#")
            there = (folder / file).is_file() if file else True
            if not there or (fragment and fragment not in names[file or name]):
                lost.append((name, link))
    assert lost == []


def test_every_cell_of_a_study_run_from_a_clone_is_told_to_be_verified(page):
    assert "12 of 12 cells verified when" in " ".join(page.split())
    assert 'class="state ' not in page, "only exceptions are marked at their cells"
    assert page.count('class="ours" href="audit.html#') == 12


def test_every_cell_of_the_report_leads_to_its_record(finished, page):
    cells = re.findall(r'<li><a href="([^"]+)">seed 0</a>', page)
    folder = finished.folder / RESULTS
    shown = {(folder / cell).resolve().relative_to(folder.resolve()).as_posix() for cell in cells}
    # Three rows of three accuracies and minutes.
    assert len(cells) == 12
    assert shown == {
        *(f"attack/{name}/record.json" for name in FLAGS if name.endswith("pgd2")),
        *(f"pretrain/{name}/record.json" for name in ENCODERS),
    }


def test_snakemake_writes_its_own_report_without_network(finished, tmp_path, monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
        monkeypatch.setenv(name.upper(), "http://127.0.0.1:9")
    project = finished.copy(tmp_path / "project")
    done = project.snakemake("--report", str(tmp_path / "workflow.html"))
    assert done.status == 0, done.text
    html = (tmp_path / "workflow.html").read_text(encoding="utf-8")
    assert not re.search(r"""<(script|link|img)[^>]+(src|href)=["']https?:""", html)
    pictures = [f"{name.split('/')[1]}.svg" for name in [*FIGURES, *EXAMPLES]]
    shown = re.findall(r"^Adding (\S+) ", done.text, re.M)
    assert set(shown) == {"report.html", "accuracies.md", *pictures}
