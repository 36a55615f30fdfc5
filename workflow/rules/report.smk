# Tables, figures and the report from finished evaluations. Nothing here trains or attacks.
# A table needs only the jobs of its own cells: `snakemake results/cf-amc-ssl/tables/table1.md` runs no other jobs.


SMALL = {"mem_mb": 4000, "runtime": 60}  # requests of rules that only read and draw


rule frame:
    input:
        reads("frame"),
    output:
        f"{RESULTS}/frame.csv",
    log:
        f"{LOGS}/report/frame.log",
    resources:
        **SMALL,
    params:
        spec=spec("frame"),
    message:
        "frame"
    shell:
        "robustviews frame 2> {log:q}"


rule metrics:
    input:
        reads("metrics"),
    output:
        f"{RESULTS}/metrics.json",
        f"{RESULTS}/headline.json",
    log:
        f"{LOGS}/report/metrics.log",
    resources:
        **SMALL,
    params:
        spec=spec("metrics"),
    message:
        "metrics"
    shell:
        "robustviews metrics 2> {log:q}"


rule table:
    input:
        reads("table"),
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
        spec=spec("table"),
    message:
        "table {wildcards.table}"
    shell:
        "robustviews table --table {wildcards.table:q} 2> {log:q}"


rule figure:
    input:
        reads("figure"),
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
        spec=spec("figure"),
    message:
        "figure {wildcards.figure}"
    shell:
        "robustviews figure --figure {wildcards.figure:q} 2> {log:q}"


rule curves:
    input:
        reads("curves"),
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
        spec=spec("curves"),
    message:
        "curves"
    shell:
        "robustviews curves 2> {log:q}"


rule examples:
    input:
        reads("examples"),
    output:
        # No views without a run, and no adversarial images without attacked cells in the main table.
        *[
            (
                report(
                    path.as_posix(),
                    caption="../report/views.rst",
                    category="Figures",
                    labels={"figure": f"examples: {path.stem}"},
                )
                if path.suffix == ".svg"
                else path.as_posix()
            )
            for path in map(Path, outputs_of("examples"))
        ],
    log:
        f"{LOGS}/report/examples.log",
    resources:
        gpu=GPUS,
        mem_mb=8000,
        runtime=60,
    params:
        spec=spec("examples"),
    message:
        "examples"
    shell:
        "robustviews examples 2> {log:q}"


rule report:
    input:
        reads("report"),
    output:
        f"{RESULTS}/audit.html",
        report(f"{RESULTS}/report.html", caption="../report/report.rst", category="Report"),
    log:
        f"{LOGS}/report/report.log",
    resources:
        **SMALL,
    params:
        spec=spec("report"),
    message:
        "report"
    shell:
        "robustviews report 2> {log:q}"
