"""Report and audit: pages that need nothing but themselves, and trace every number to its bytes."""

from __future__ import annotations

import dataclasses
import re
import shutil
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest

from robustviews import artifacts
from robustviews.pages import audit as audit_page
from robustviews.pages import pictures, report
from robustviews.pages.graph import graph
from robustviews.pages.overview import overview
from robustviews.probe import FinetuneProbe
from robustviews.provenance.audit import Audit, audit
from robustviews.provenance.findings import Finding, State
from robustviews.reporting import claims, results
from robustviews.reporting.statistics import Interval
from robustviews.reporting.tables import TABLES
from robustviews.study import cells, folders, plan
from robustviews.study.jobs import jobs
from tests.unit.results_tree import DEVICE, small_study, write_shown, write_tree

SVG = b'<svg xmlns="http://www.w3.org/2000/svg"/>'
VOID = {"meta", "img", "br", "hr", "link", "input"}
SUPERVISED = 'id="job-pretrain/supervised'
LOADS = {"src", "srcset", "data", "action", "poster", "background"}


class Page(HTMLParser):
    """Elements of a page, its text, and whether every tag is closed in order."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.text, self._open = [], "", []
        self.feed(html)
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] != "style":
            self.text += " ".join(data.split()) + " "

    def all(self, tag, attribute):
        return [
            attributes[attribute]
            for name, attributes in self.elements
            if name == tag and attribute in attributes
        ]


def render(root, study, *, partial=False):
    frame = results.frame(study, root, partial=partial)
    tables = {name: TABLES[t.kind](study, t, frame) for name, t in study.tables.items()}
    return report.render(
        study,
        frame,
        tables=tables,
        figures=dict.fromkeys(study.figures, SVG),
        records=results.records(study, root),
        audited=audit(study, root, settled=False),
        claims=claims.evaluate(study, frame),
        curves=SVG,
        adversarial={"classification": SVG},
        examples=pictures.PNG + b"...",
    )


@pytest.fixture(scope="module")
def study():
    return small_study()


@pytest.fixture(scope="module")
def root(study, tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    write_tree(root, study)
    write_shown(root, study)
    return root


@pytest.fixture(scope="module")
def html(study, root):
    return render(root, study)


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def render_audit(root, study, **options):
    return audit_page.render(study, audit(study, root, settled=False), root=root, **options)


@pytest.fixture(scope="module")
def audit_html(study, root):
    return render_audit(root, study)


@pytest.fixture(scope="module")
def audited(audit_html):
    return Page(audit_html)


@pytest.fixture
def other(root, tmp_path):
    """A copy of the project, to be damaged."""
    return shutil.copytree(root, tmp_path / "other")


@pytest.mark.parametrize("which", ["report", "audit"])
def test_no_page_loads_anything_from_anywhere(page, html, audited, audit_html, which):
    page, html = {"report": (page, html), "audit": (audited, audit_html)}[which]
    for tag, attributes in page.elements:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base"}
        for name in LOADS & attributes.keys():
            assert attributes[name].startswith("data:"), (tag, name)
    assert not [href for href in page.all("a", "href") if "//" in href]
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def ids(page):
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(names) == len(set(names))
    return set(names)


def test_every_link_of_both_pages_leads_somewhere(page, audited, root):
    pages = {"report.html": page, "audit.html": audited}
    for name, content in pages.items():
        links = content.all("a", "href")
        assert len(links) > 40
        for link in links:
            file, _, fragment = link.partition("#")
            target = pages.get(file or name)
            if target is None:
                assert (root / "results" / "tiny" / file).is_file(), link
            elif fragment:
                assert unquote(fragment) in ids(target), link
    assert "#run-emp-free3" in page.all("a", "href")


def test_every_cell_links_to_the_records_behind_it(page, root, html):
    folder = root / "results" / "tiny"
    links = [href for href in page.all("a", "href") if href.endswith("record.json")]
    assert all((folder / href).is_file() for href in links)
    for seed in (0, 1, 2):
        run = f"emp-free3-digits-s{seed}"
        assert f"attack/{run}/rle/pgd20/record.json" in links
        assert f"attack/{run}/rle/autoattack/record.json" in links
        assert f"pretrain/{run}/record.json" in links
    cells = [part for part in html.split("<td ") if "<details>" in part and "run" in part]
    assert len(cells) == 3 * 4 + 1


def test_a_cell_shows_run_seed_images_interval_and_device(page, root, study):
    frame = results.frame(study, root)
    row = next(row for row in frame if row["entry"] == "supervised-free3" and row["eps"] == 8)
    accuracy, low, high = (f"{100 * row[key]:.1f}" for key in ("accuracy", "low", "high"))
    line = f"{accuracy} % ({low} to {high}), n = 200, {DEVICE}"
    assert line in page.text
    assert f"supervised-free3-digits-s0: {line}" in page.all("td", "title")


def test_published_values_stand_beside_ours_with_a_verdict(page):
    assert "paper 75.88 +14 not comparable" in plain(page.text)
    assert "published value not available" in page.text
    assert any("probe_epochs is 3" in title for title in page.all("span", "title"))


def plain(text):
    return " ".join(text.split())


def test_every_claim_stands_with_its_result_and_its_inequalities(page):
    assert "F2 crops beat SimCLR undecided unavailable" in plain(page.text)
    assert "free > pgd on digits/pgd20/4: difference" in page.text
    assert "3 inequalities" in page.text
    assert "#claims" in page.all("a", "href")


def test_a_number_whose_attack_is_not_established_is_struck_through(root, study):
    frame = [{**row, "sanity": "AS9"} for row in results.frame(study, root)]
    tables = {name: TABLES[t.kind](study, t, frame) for name, t in study.tables.items()}
    html = report.render(
        study,
        frame,
        tables=tables,
        figures={},
        records=results.records(study, root),
        audited=audit(study, root, settled=False),
    )
    page = Page(html)
    assert [tag for tag, _ in page.elements].count("s") == 3 * 2 + 1
    assert "attack not established: AS9" in page.text


def test_tables_are_marked_up_for_screen_readers(page):
    scopes = page.all("th", "scope")
    assert {"row", "col", "colgroup"} <= set(scopes)
    assert "caption" in {tag for tag, _ in page.elements}
    alts = page.all("img", "alt")
    assert len(alts) == 6
    assert all(len(alt) > 20 for alt in alts)
    assert page.all("html", "lang") == ["en"]


def test_each_table_carries_protocol_and_what_it_compares_with(page, study):
    for text in ("How made", "How to read", "Compares with", "Attacks: pgd20 (PGD, 20 steps"):
        assert text in page.text
    for table in study.tables.values():
        assert table.title in page.text


def test_every_option_of_a_run_is_shown_with_defaults(page):
    assert "method.tcr_eps 0.2" in page.text
    assert "regime.delta_lifetime run" in page.text
    assert "optimizer.schedule_horizon minibatches" in page.text
    assert "Abacus" in page.text
    assert "torch 2.11.0" in page.text


def test_a_demonstration_stands_at_the_top_and_on_every_table(root):
    study = small_study(demonstration="Digits only.")
    page = Page(render(root, study))
    assert "Not a reproduction." in page.text
    assert page.text.count("Digits only.") == 1 + len(study.tables)
    assert page.text.index("Digits only.") < page.text.index("Tables")


def test_no_demonstration_no_banner(page):
    assert "Not a reproduction" not in page.text
    assert "Not finished" not in page.text


def test_an_unfinished_study_says_how_much_is_missing(study, root, tmp_path):
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "results/tiny/attack/simclr-pgd5-digits-s0")
    shutil.rmtree(tmp_path / "results/tiny/pretrain/simclr-pgd5-digits-s0")
    page = Page(render(tmp_path, study, partial=True))
    assert "4 of 13 cells lack some or all of their runs" in page.text
    assert "not run" in page.text
    assert "4 of 5" in page.text


def test_text_of_a_study_cannot_become_markup(root):
    tables = small_study().tables
    tables["table1"] = dataclasses.replace(
        tables["table1"], note="<script>alert(1)</script>", title='"><b>'
    )
    html = render(root, small_study(tables=tables))
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert Page(html)


def test_pictures_are_embedded_as_what_they_are(page):
    sources = page.all("img", "src")
    assert [source.split(";")[0] for source in sources] == ["data:image/svg+xml"] * 5 + [
        "data:image/png"
    ]


def test_the_same_study_gives_the_same_page(study, root, html):
    assert render(root, study) == html


def test_a_page_without_figures_and_pictures_has_no_empty_sections(study):
    nothing = Audit(study="tiny", jobs={}, cells={}, findings=())
    html = report.render(study, [], tables={}, figures={}, records={}, audited=nothing)
    page = Page(html)
    assert "Example views" not in page.text
    assert "Figures" not in page.text
    assert "not run" in page.text


# The first screen


def test_the_first_screen_asks_answers_shows_and_says_what_is_open(page):
    text = plain(page.text)
    asked, found, missing = (
        text.index(head) for head in ("What was asked", "What came out", "What is not established")
    )
    assert asked < found < missing < text.index("Tables")
    assert "Whether crops beat SimCLR?" in text[asked:found]
    assert "The claim that crops beat SimCLR is undecided." in text[found:missing]
    assert "published values are not available" in text[missing : text.index("Tables")]
    assert page.all("img", "alt")[0].startswith(("bars of", "tradeoff of", "cost of"))


def outcome(name, state, part):
    return claims.Outcome(name, f"what {name} says", state, "holds", (part,))


def test_the_sentences_count_claims_by_state_and_name_the_decisive_rows(study):
    claim = next(iter(study.claims.values()))
    study = small_study(claims=dict.fromkeys(("A", "B", "C"), claim))
    part = claims.Part("free > pgd on digits/clean", ours=1.25, interval=Interval(0.5, 2.0))
    states = {"A": "undecided", "B": "holds", "C": "holds"}
    found = overview(study, {}, [outcome(*one, part) for one in states.items()]).found
    assert found[0] == "Of 3 claims 1 is undecided (A) and 2 hold (B, C)."
    assert found[1].startswith("B: “")
    assert found[1].endswith("on digits/clean: +1.2 points (+0.5 to +2.0).")


def test_the_graph_has_a_line_per_run_with_the_time_of_each_stage(study, root):
    records = results.records(study, root)
    made = graph(study, jobs(study), records)
    boxes = dict(made.lines)
    (free,) = (line for label, line in boxes.items() if study.runs["emp-free3"].label == label)
    assert [box.planned for box in free] == [3, 6, 6, 3]  # r-LE starts from the standard head
    assert all(box.done == box.planned for box in free)
    assert max(box.share for line in boxes.values() for box in line) == 1.0
    unfinished = graph(study, jobs(study), {})
    tuned = dataclasses.replace(study, probes=study.probes | {"rle": FinetuneProbe()})
    (free, *_) = (line for _, line in graph(tuned, jobs(tuned), {}).lines)
    assert free[3].planned == 3  # checks of tuned encoders stand in the line of their run
    assert {box.took for _, line in unfinished.lines for box in line} == {""}


def test_every_checked_head_shows_what_each_attack_leaves_and_which_checks_it_fails(study, other):
    job = jobs(study)["sanity", "emp-free3-digits-s0"]
    record = artifacts.read_json(other / job.record)
    record["result"]["rle"]["failed"] = {"AS9": "no gradient"}
    del record["result"]["rle"]["measures"]["transfer"]
    artifacts.write_json(other / job.record, record)
    lines = dict(report._examined(study, jobs(study), results.records(study, other)))
    counts = ["12 of 20", "12 of 20", "11 of 20", "-", "12 of 20"]
    assert list(lines["emp-free3-digits-s0 / rle"].values()) == [*counts, "AS9"]
    assert lines["simclr-pgd5-digits-s0 / rle"]["failed checks"] == "none"
    assert len(lines) == sum(map(len, plan.attacked(study).values()))


def test_heads_of_another_task_have_columns_of_their_own(study, other, monkeypatch):
    images, metric = {"PGD-20": "12 of 20"}, {"clean": "mIoU 0.590", "PGD-20": "mIoU 0.140"}
    lines = [("a", images), ("b", images), ("c", metric), ("d", metric), ("e", images)]
    monkeypatch.setattr(report, "_examined", lambda *_: lines)
    html = render(other, study)
    part = html[html.index("Checks of attacks") :].partition("</table>")[0]
    assert re.findall('<th scope="(?:col|row)">(.*?)</th>', part) == [
        *("run / probe", "PGD-20", "a", "b"),
        *("run / probe", "clean", "PGD-20", "c", "d"),
        *("run / probe", "PGD-20", "e"),
    ]


# The audit


def test_every_cell_links_to_its_entry_in_the_audit_with_its_state_in_words(page, audited, study):
    addresses = [str(address) for address, _ in cells.every(study)]
    assert len(addresses) == 13
    assert set(addresses) <= ids(audited)
    links = [href for href in page.all("a", "href") if href.startswith("audit.html#")]
    assert list(dict.fromkeys(links)) == [f"audit.html#{address}" for address in addresses]
    assert "? unknown" in page.text


def test_states_stand_at_the_top_and_at_each_cell(study, other):
    (
        other
        / folders.job_folder(study, "pretrain", "simclr-pgd5-digits-s0")
        / "encoder.safetensors"
    ).write_bytes(b"x")
    result = audit(study, other, settled=False)
    failed = [address for address in result.cells if result.state_of(address) is State.FAILED]
    assert [address.row for address in failed] == ["pgd"] * 4
    page, audited = Page(render(other, study)), Page(render_audit(other, study))
    for text in (page.text, audited.text):
        assert "13 cells verified" in text
        assert "4 failed" in text
    assert page.text.index("✗ Failed:") < page.text.index("Tables")
    assert page.text.count("✗ failed") == 4
    assert "verified" not in page.text[page.text.index("Tables") :]
    assert audited.text.index("Not verified") < audited.text.index("Robust encoders")
    assert "changed bytes" in audited.text


def test_what_fails_of_the_study_as_a_whole_is_counted_beside_the_cells(study, root):
    fault = Finding("table", "tables/one.md", State.FAILED, "differs")
    result = dataclasses.replace(audit(study, root, settled=False), findings=(fault,))
    assert audit_page.summary(result).endswith("; of the study as a whole: 1 failed")


def test_an_entry_shows_each_job_with_hash_seed_device_commit_time_and_record(audited, study, root):
    record = artifacts.read_json(
        root / folders.job_folder(study, "attack", "emp-free3-digits-s2/rle/pgd20") / "record.json"
    )
    digest = record["outputs"]["flags.safetensors"].removeprefix("sha256:")
    links = audited.all("a", "href")
    assert "attack/emp-free3-digits-s2/rle/pgd20/record.json" in links
    assert any(link.startswith("../../data/digits-") for link in links)
    for text in (digest, DEVICE, record["started"], record["code"]["commit"]):
        assert text in audited.text
    assert "robustviews explain table1:free:digits/pgd20/4 " in audited.text


def test_what_no_record_says_is_unknown_on_the_page(study, other):
    path = (
        other / folders.job_folder(study, "pretrain", "supervised-free3-digits-s0") / "record.json"
    )
    record = artifacts.read_json(path)
    record["environment"]["device"] = record["resumed"] = record["code"]["commit"] = None
    artifacts.write_json(path, record)
    entry = render_audit(other, study).split(SUPERVISED)[1].split("</details>")[0]
    assert f"on {audit_page.UNKNOWN}." in entry
    assert f"resumes {audit_page.UNKNOWN}" in entry
    assert f"commit {audit_page.UNKNOWN}" in entry
    path.unlink()
    entry = render_audit(other, study).split(SUPERVISED)[1].split("</details>")[0]
    assert "missing" in entry


def test_a_study_of_another_file_is_named_in_commands_but_no_path_of_this_machine(study, root):
    assert "audit --study studies/x.yaml" in render_audit(
        root, dataclasses.replace(study, file="studies/x.yaml")
    )
    assert "--study" not in render_audit(
        root, dataclasses.replace(study, file=str(root / "x.yaml"))
    )


def test_text_of_findings_and_records_cannot_become_markup(study, other):
    path = (
        other / folders.job_folder(study, "pretrain", "supervised-free3-digits-s0") / "record.json"
    )
    record = artifacts.read_json(path)
    record["environment"]["device"] = "<script>alert(1)</script>"
    artifacts.write_json(path, record)
    html = render_audit(other, study)
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert Page(html)


def test_the_same_audit_gives_the_same_page(study, root, audit_html):
    assert render_audit(root, study) == audit_html
