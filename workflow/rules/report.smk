# From finished evaluations to tables, figures and the report. Nothing here trains or attacks.
# A table needs the jobs of its own cells only: `snakemake results/cf-amc-ssl/tables/table1.md` runs no more than that.


def block_inputs(block):
    """Return what the cells of a table or figure are read from."""
    files = [file for run in plan.pretrainings(STUDY, block) for file in encoder_files(run)]
    for run, probe, attack in plan.evaluations(STUDY, block):
        files += flag_files(run, probe, attack)
        if (run, probe) in HEADS:
            files += head_files(run, probe)
    return files


def report_spec(name=""):
    """Return what decides a table or figure besides the results."""
    return plan.to_json(plan.report_spec(STUDY, name))


ALL_FLAGS = [file for names in plan.evaluations(STUDY) for file in flag_files(*names)]
TABLES = [f"{RESULTS}/tables/{name}.{kind}" for name in STUDY.tables for kind in ("md", "csv", "tex")]
FIGURES = [f"{RESULTS}/figures/{name}.{kind}" for name in STUDY.figures for kind in ("svg", "png")]
CURVES = [f"{RESULTS}/training/curves.svg", f"{RESULTS}/training/curves.png"]
EXAMPLES = [f"{RESULTS}/examples/views.svg", f"{RESULTS}/examples/views.png"]
REPORT = [f"{RESULTS}/report.html", f"{RESULTS}/frame.csv", *TABLES, *FIGURES, *CURVES, *EXAMPLES]


rule frame:
    input:
        ALL_FLAGS,
    output:
        f"{RESULTS}/frame.csv",
    params:
        spec=lambda w: report_spec(),
    log:
        f"{LOGS}/report/frame.log",
    shell:
        "{ROBUSTVIEWS} frame {ARGUMENTS} 2> {log:q}"


rule table:
    input:
        lambda w: block_inputs(STUDY.tables[w.table]),
    output:
        expand(RESULTS + "/tables/{{table}}.{kind}", kind=["csv", "tex"]),
        report(
            RESULTS + "/tables/{table}.md",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{table}"},
        ),
    params:
        spec=lambda w: report_spec(w.table),
    log:
        LOGS + "/report/table-{table}.log",
    shell:
        "{ROBUSTVIEWS} table {ARGUMENTS} --table {wildcards.table:q} 2> {log:q}"


rule figure:
    input:
        lambda w: block_inputs(STUDY.figures[w.figure]),
    output:
        RESULTS + "/figures/{figure}.png",
        report(
            RESULTS + "/figures/{figure}.svg",
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
    params:
        spec=lambda w: report_spec(w.figure),
    log:
        LOGS + "/report/figure-{figure}.log",
    shell:
        "{ROBUSTVIEWS} figure {ARGUMENTS} --figure {wildcards.figure:q} 2> {log:q}"


rule curves:
    input:
        [encoder_files(run)[1] for run in plan.jobs(STUDY)],
    output:
        f"{RESULTS}/training/curves.png",
        report(
            f"{RESULTS}/training/curves.svg",
            caption="../report/curves.rst",
            category="Figures",
            labels={"figure": "training curves"},
        ),
    params:
        spec=lambda w: report_spec(),
    log:
        f"{LOGS}/report/curves.log",
    shell:
        "{ROBUSTVIEWS} curves {ARGUMENTS} 2> {log:q}"


rule examples:
    input:
        encoder_files(plan.example_run(STUDY))[0],
        data_files(plan.jobs(STUDY)[plan.example_run(STUDY)].dataset, "train"),
    output:
        f"{RESULTS}/examples/views.png",
        report(
            f"{RESULTS}/examples/views.svg",
            caption="../report/views.rst",
            category="Figures",
            labels={"figure": "example views"},
        ),
    params:
        spec=lambda w: report_spec(),
    log:
        f"{LOGS}/report/examples.log",
    resources:
        gpu=GPUS,
    shell:
        "{ROBUSTVIEWS} examples {COMPUTE} 2> {log:q}"


rule report:
    input:
        ALL_FLAGS,
        TABLES,
        FIGURES,
        CURVES,
        EXAMPLES,
    output:
        report(f"{RESULTS}/report.html", caption="../report/report.rst", category="Report"),
    params:
        spec=lambda w: report_spec(),
    log:
        f"{LOGS}/report/report.log",
    shell:
        "{ROBUSTVIEWS} report {ARGUMENTS} 2> {log:q}"
