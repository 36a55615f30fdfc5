# Inputs, outputs, parameters and resources of the rules, from `robustviews.study.jobs`, in the form of Snakemake.

JOBS = jobs.jobs(STUDY)
PREPARED = {folders.data_folder(STUDY, name).name: name for name in STUDY.datasets}


def reads(rule):
    """Return an input function: the files that a job reads."""
    return lambda wildcards: [path.as_posix() for path in JOBS[rule, "/".join(wildcards)].reads]


def writes(rule, name):
    """Return the files of a rule's jobs, with wildcards in the name."""
    return [path.as_posix() for path in folders.job_files(STUDY, rule, name)]


def outputs_of(*rules):
    """Return all files that the jobs of some rules write."""
    return [path.as_posix() for job in JOBS.values() if job.rule in rules for path in job.writes]


def spec(rule):
    """Return a parameter function: the spec of a job as one line of sorted JSON."""
    return lambda wildcards: specs.to_json(JOBS[rule, "/".join(wildcards)].spec)


def request(resource, rule):
    """Return a resource function: what a job requests of a cluster, more after each failure."""

    def requested(wildcards, attempt):
        names = [PREPARED.get(name, name) for name in wildcards]
        job = "/".join(names)
        resources = allocation(STUDY, rule, job, device=DEVICE, attempt=attempt)
        return getattr(resources, resource)

    return requested
