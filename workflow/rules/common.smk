# What a rule's jobs read, write and ask for. `robustviews.study.jobs` knows it; the rules give it to Snakemake.

JOBS = jobs.jobs(STUDY)
PREPARED = {folders.data_folder(STUDY, name).name: name for name in STUDY.datasets}


def reads(rule):
    """Return how Snakemake learns which files a job reads."""
    return lambda wildcards: [path.as_posix() for path in JOBS[rule, "/".join(wildcards)].reads]


def writes(rule, name):
    """Return the files of a rule's jobs, with wildcards in the name."""
    return [path.as_posix() for path in folders.job_files(STUDY, rule, name)]


def made_by(*rules):
    """Return all files that the jobs of some rules write."""
    return [path.as_posix() for job in JOBS.values() if job.rule in rules for path in job.writes]


def spec(rule):
    """Return how Snakemake learns what decides a job's result: one line of sorted JSON."""
    return lambda wildcards: specs.to_json(JOBS[rule, "/".join(wildcards)].spec)


def asked(what, rule):
    """Return how Snakemake learns what a job asks a cluster for; after a failure it asks for more."""

    def ask(wildcards, attempt):
        names = [PREPARED.get(name, name) for name in wildcards]
        job = "/".join(names)
        wanted = allocation(STUDY, rule, job, device=DEVICE, attempt=attempt)
        return getattr(wanted, what)

    return ask
