# From finished evaluations to tables, figures and the report. Nothing here trains or attacks.
# A table needs the jobs of its own cells only: `snakemake results/cf-amc-ssl/tables/table1.md` runs no more than that.


ALL_CELLS = cell_inputs()
TABLES = [
    f"{RESULTS}/tables/{name}.{kind}" for name in STUDY.tables for kind in ("md", "csv", "tex")
]
FIGURES = [f"{RESULTS}/figures/{name}.{kind}" for name in STUDY.figures for kind in ("svg", "png")]
CURVES = [f"{RESULTS}/training/curves.svg", f"{RESULTS}/training/curves.png"]
EXAMPLES = [f"{RESULTS}/examples/views.svg", f"{RESULTS}/examples/views.png"]
METRICS = f"{RESULTS}/metrics.json"
SMALL = {"mem_mb": 4000, "runtime": 60}  # what a rule that only reads and draws asks a cluster for
REPORT = [
    f"{RESULTS}/report.html",
    f"{RESULTS}/audit.html",
    f"{RESULTS}/frame.csv",
    METRICS,
    *TABLES,
    *FIGURES,
    *CURVES,
    *EXAMPLES,
]


rule frame:
    input:
        ALL_CELLS,
    output:
        f"{RESULTS}/frame.csv",
    log:
        f"{LOGS}/report/frame.log",
    resources:
        **SMALL,
    params:
        spec=lambda w: report_spec("frame"),
    message:
        "frame"
    shell:
        "robustviews frame 2> {log:q}"


rule metrics:
    input:
        cell_inputs(*STUDY.tables.values()),
    output:
        METRICS,
    log:
        f"{LOGS}/report/metrics.log",
    resources:
        **SMALL,
    params:
        spec=lambda w: report_spec("metrics"),
    message:
        "metrics"
    shell:
        "robustviews metrics 2> {log:q}"


rule table:
    input:
        lambda w: cell_inputs(STUDY.tables[w.table]),
    output:
        csv=f"{RESULTS}/tables/{{table}}.csv",
        tex=f"{RESULTS}/tables/{{table}}.tex",
        md=report(
            f"{RESULTS}/tables/{{table}}.md",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{table}"},
        ),
    log:
        f"{LOGS}/report/table-{{table}}.log",
    resources:
        **SMALL,
    params:
        spec=lambda w: report_spec("table", w.table),
    message:
        "table {wildcards.table}"
    shell:
        "robustviews table --table {wildcards.table:q} 2> {log:q}"


rule figure:
    input:
        lambda w: cell_inputs(STUDY.figures[w.figure]),
    output:
        f"{RESULTS}/figures/{{figure}}.png",
        report(
            f"{RESULTS}/figures/{{figure}}.svg",
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
    log:
        f"{LOGS}/report/figure-{{figure}}.log",
    resources:
        **SMALL,
    params:
        spec=lambda w: report_spec("figure", w.figure),
    message:
        "figure {wildcards.figure}"
    shell:
        "robustviews figure --figure {wildcards.figure:q} 2> {log:q}"


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
    log:
        f"{LOGS}/report/curves.log",
    resources:
        **SMALL,
    params:
        spec=lambda w: report_spec("curves"),
    message:
        "curves"
    shell:
        "robustviews curves 2> {log:q}"


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
    log:
        f"{LOGS}/report/examples.log",
    resources:
        gpu=GPUS,
        mem_mb=8000,
        runtime=60,
    params:
        spec=lambda w: report_spec("examples"),
    message:
        "examples"
    shell:
        "robustviews examples 2> {log:q}"


rule report:
    input:
        ALL_CELLS,
        TABLES,
        FIGURES,
        CURVES,
        EXAMPLES,
    output:
        f"{RESULTS}/audit.html",
        report(f"{RESULTS}/report.html", caption="../report/report.rst", category="Report"),
    log:
        f"{LOGS}/report/report.log",
    resources:
        **SMALL,
    params:
        spec=lambda w: report_spec("report"),
    message:
        "report"
    shell:
        "robustviews report 2> {log:q}"
