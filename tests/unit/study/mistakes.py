"""A small study without mistakes, and the mistakes that tests inject into it."""

BASE = """\
study: small
title: A small study
seeds: [0, 1]
datasets:
  digits: {kind: digits, test: 500}
  other: digits
defaults:
  all:
    datasets: [digits]
    encoder: {width: 8, hidden: 16}
  free:
    regime: {kind: free, replays: 3, eps: 4}
runs:
  emp-free:
    use: [free]
    method: emp_ssl
    views: {count: 4}
    epochs: 3
  supervised:
    use: [free]
    method: supervised
    views: {count: 1}
    epochs: 3
probes:
  central: {kind: linear, epochs: 2}
  rle: {kind: robust_linear, rle_start: central}
  crops: {kind: ncrop, n: 8}
attacks:
  pgd20: {kind: pgd, eps: [4, 8]}
  aa: {kind: autoattack, eps: [8]}
tables:
  main:
    title: Main
    columns: [digits/clean, digits/pgd20/4, digits/minutes]
    rows:
      free: {run: emp-free, probe: rle, published: [75.9, unavailable, null]}
      own: {run: supervised, probe: own}
figures:
  bars:
    title: Bars
    columns: [digits/pgd20/8]
    rows:
      free: {run: emp-free, probe: crops}
"""
RUN = "runs.emp-free"
TABLE = "tables.main"

# Text to replace, its replacement (`@` marks the reported line, otherwise the first), reported key,
# and part of the message: what was expected, what was found, and the fix.
ONE_MISTAKE = {
    "neither table nor figure": (
        BASE[BASE.index("tables:") :],
        "tables: {}@\nfigures: {}\n",
        "tables",
        "expected a table or figure, found none: nothing to compute; add one",
    ),
    "unknown key at the top": ("seeds:", "seed:", "seed", "unknown key; did you mean `seeds`?"),
    "unknown key without a likely one": (
        "    epochs: 3\n  supervised",
        "    zzz: 1\n    epochs: 3\n  supervised",
        f"{RUN}.zzz",
        "unknown key; known: batch_size, compile, datasets, encoder,",
    ),
    "unknown key of a run": (
        "    epochs: 3\n  supervised",
        "    epochs: 3\n    epoch: 4@\n  supervised",
        f"{RUN}.epoch",
        "unknown key; did you mean `epochs`?",
    ),
    "unknown key of views": (
        "{count: 4}",
        "{count: 4, scales: [1, 1]}",
        f"{RUN}.views.scales",
        "unknown key; did you mean `scale`?",
    ),
    "unknown key of a method": (
        "method: emp_ssl",
        "method: {kind: emp_ssl, tcr_epsilon: 0.1}",
        f"{RUN}.method.tcr_epsilon",
        "unknown key; did you mean `tcr_eps`?",
    ),
    "option of another kind": (
        "{kind: linear, epochs: 2}",
        "{kind: linear, momentum: 0.9}",
        "probes.central.momentum",
        "unknown key; known: batch_size, epochs, feature, lr",
    ),
    "unknown key in a block of defaults": (
        "{width: 8, hidden: 16}",
        "{wdith: 8, hidden: 16}",
        "defaults.all.encoder.wdith",
        "unknown key; did you mean `width`?",
    ),
    "unknown key of a kind in a block of defaults": (
        "{kind: free, replays: 3",
        "{kind: free, replay: 3",
        "defaults.free.regime.replay",
        "unknown key; did you mean `replays`?",
    ),
    "unknown key of an attack": (
        "{kind: pgd, eps: [4, 8]}",
        "{kind: pgd, eps: [4, 8], step: 3}",
        "attacks.pgd20.step",
        "unknown key; did you mean `steps`?",
    ),
    "an attack that cannot reach a radius": (
        "{kind: pgd, eps: [4, 8]}",
        "{kind: pgd, eps: [4, 8], steps: 2, step_size: 2.5}",
        "attacks.pgd20.steps",
        "2 steps of 2.5/255 cannot reach 8/255; set step_size to 4 or more, or write why: weak:",
    ),
    "a robust probe whose attack cannot reach its radius": (
        "{kind: robust_linear, rle_start: central}",
        "{kind: robust_linear, rle_start: central, step_size: 1}",
        "probes.rle.step_size",
        "5 steps of 1/255 cannot reach 8/255; set step_size to 1.6 or more",
    ),
    "relative steps that cannot reach a radius": (
        "{kind: pgd, eps: [4, 8]}",
        "{kind: pgd, eps: [4, 8], steps: 40, relative_step: 0.02}",
        "attacks.pgd20.steps",
        "40 steps of 0.02 eps cannot reach 4/255, 8/255; set relative_step to 0.03",
    ),
    "steps that leap across the smallest ball": (
        "{kind: pgd, eps: [4, 8]}",
        "{kind: pgd, eps: [4, 8], step_size: 8.5}",
        "attacks.pgd20.step_size",
        "a step of 8.5/255 is more than twice the radius 4/255; write relative_step: 0.1",
    ),
    "both sizes of a step": (
        "{kind: pgd, eps: [4, 8]}",
        "{kind: pgd, eps: [4, 8], step_size: 2.55, relative_step: 0.1}",
        "attacks.pgd20.relative_step",
        "replaces step_size; remove one of both",
    ),
    "an attack on features from the images": (
        "{kind: pgd, eps: [4, 8]}",
        "{kind: pgd, eps: [4, 8], loss: feature_mse}",
        "attacks.pgd20.loss",
        "loss: feature_mse needs random_start: true",
    ),
    "minutes over all radii": (
        "digits/minutes]",
        "digits/minutes/retained]",
        f"{TABLE}.columns[2]",
        "`minutes` takes no radius; write digits/minutes",
    ),
    "a published value over all radii": (
        "digits/pgd20/4, digits/minutes]\n    rows:\n      free: {run: emp-free,",
        "digits/pgd20/e50, digits/minutes]\n    rows:\n      free: {@run: emp-free,",
        f"{TABLE}.rows.free.published",
        "`digits/pgd20/e50` is compared with no published value; write null",
    ),
    "a worst case of one attack": (
        "aa: {kind: autoattack, eps: [8]}",
        "aa: {kind: autoattack, eps: [8]}\n  worst: {kind: worst_case, of: [aa], eps: [8]}@",
        "attacks.worst.of",
        "expected two attacks or more, found one; name another",
    ),
    "a worst case at a radius that an attack does not have": (
        "aa: {kind: autoattack, eps: [8]}",
        "aa: {kind: autoattack, eps: [8]}\n  worst: {kind: worst_case, of: [pgd20, aa], eps: [4]}@",
        "attacks.worst.of[1]",
        "`aa` has no results at eps 4; add to its `eps`, or leave these radii out",
    ),
    "a worst case of attacks in two norms": (
        "aa: {kind: autoattack, eps: [8]}",
        "aa: {kind: autoattack, eps: [8], norm: l2}\n"
        "  worst: {kind: worst_case, of: [pgd20, aa], eps: [8]}@",
        "attacks.worst.of[1]",
        "`aa` has norm: l2, this worst case linf; give both the same",
    ),
    "a worst case of attacks on fewer images": (
        "aa: {kind: autoattack, eps: [8]}",
        "aa: {kind: autoattack, eps: [8], images: 50}\n"
        "  worst: {kind: worst_case, of: [pgd20, aa], eps: [8]}@",
        "attacks.worst",
        "expected the smallest number of its attacks, found nothing; write images: 50",
    ),
    "a worst case of itself": (
        "aa: {kind: autoattack, eps: [8]}",
        "aa: {kind: autoattack, eps: [8]}\n"
        "  worst: {kind: worst_case, of: [pgd20, worst], eps: [8]}@",
        "attacks.worst.of[1]",
        "`worst` is a worst case itself; name its attacks",
    ),
    "checks at a radius that is not attacked": (
        "seeds: [0, 1]",
        "sanity: {eps: 7}\nseeds: [0, 1]",
        "sanity.eps",
        "expected one of radii (0, 1, 2, 4, 8, 16, 32, 64), found 7",
    ),
    "unknown key of a data set": (
        "{kind: digits, test: 500}",
        "{kind: digits, tests: 500}",
        "datasets.digits.tests",
        "unknown key; did you mean `test`?",
    ),
    "unknown key of a row": (
        "probe: rle,",
        "probe: rle, publish: [1],",
        f"{TABLE}.rows.free.publish",
        "unknown key; did you mean `published`?",
    ),
    "robust head that is called standard": (
        "probe: rle, published",
        "probe: rle, head_for_attack: standard, published",
        f"{TABLE}.rows.free.head_for_attack",
        "`rle` is a robust head; remove this key, or name a linear probe",
    ),
    "unknown key of a figure": (
        "    title: Bars",
        "    titel: Bars@\n    title: Bars",
        "figures.bars.titel",
        "unknown key; did you mean `title`?",
    ),
    "unknown kind": (
        "method: emp_ssl",
        "method: emp_sll",
        f"{RUN}.method",
        "unknown kind 'emp_sll'; did you mean `emp_ssl`?",
    ),
    "unknown kind in a mapping": (
        "{kind: linear, epochs: 2}",
        "{kind: liner, epochs: 2}",
        "probes.central.kind",
        "unknown kind 'liner'; did you mean `linear`?",
    ),
    "kind that is a number": (
        "{kind: linear, epochs: 2}",
        "{kind: 1, epochs: 2}",
        "probes.central.kind",
        "unknown kind 1; known: detection, finetune, knn, linear, logistic, ncrop, own, ",
    ),
    "missing kind": (
        "{kind: pgd, eps: [4, 8]}",
        "{eps: [4, 8]}",
        "attacks.pgd20.kind",
        "this key is missing; known: autoattack, detection_pgd, pgd",
    ),
    "missing key at the top": (
        "study: small\ntitle: A small study\n",
        "study: small\n",
        "title",
        "this key is missing; expected text",
    ),
    "missing key of a run": (
        "  emp-free:\n    use: [free]\n    method: emp_ssl\n    views: {count: 4}\n    epochs: 3\n",
        "  emp-free:\n    use: [free]\n    method: emp_ssl\n    views: {count: 4}\n",
        f"{RUN}.epochs",
        "this key is missing; expected a whole number",
    ),
    "missing key of an attack": (
        "{kind: autoattack, eps: [8]}",
        "{kind: autoattack}",
        "attacks.aa.eps",
        "this key is missing; expected a list such as [..., ...]",
    ),
    "text for a number": (
        "epochs: 3",
        "epochs: many",
        f"{RUN}.epochs",
        "expected a whole number, found 'many'",
    ),
    "quoted number": ("epochs: 3", 'epochs: "3"', f"{RUN}.epochs", "found '3'; write 3"),
    "fraction for a whole number": (
        "epochs: 3",
        "epochs: 3.0",
        f"{RUN}.epochs",
        "expected a whole number, found 3.0; write 3",
    ),
    "true for a number": ("epochs: 3", "epochs: true", f"{RUN}.epochs", "whole number, found true"),
    "number for text": (
        "title: A small study",
        "title: 12",
        "title",
        'expected text, found 12; put it in quotes: "12"',
    ),
    "true for text": ("title: Main", "title: true", f"{TABLE}.title", 'in quotes: "true"'),
    "number for true or false": (
        "eps: [4, 8]}",
        "eps: [4, 8], random_start: 1}",
        "attacks.pgd20.random_start",
        "expected true or false, found 1",
    ),
    "list for a mapping": (
        "views: {count: 4}",
        "views: [4]",
        f"{RUN}.views",
        "expected a mapping, found a list",
    ),
    "text for a list": (
        "datasets: [digits]",
        "datasets: digits",
        "defaults.all.datasets",
        "expected a list such as [..., ...], found 'digits'; write ['digits']",
    ),
    "null for a number": (
        "epochs: 3",
        "epochs:",
        f"{RUN}.epochs",
        "expected a whole number, found nothing",
    ),
    "null for a mapping": (
        "    views: {count: 4}",
        "    views: ~",
        f"{RUN}.views",
        "expected a mapping, found nothing",
    ),
    "word that is no choice": (
        "    epochs: 3",
        "    precision: fp16\n    epochs: 3",
        f"{RUN}.precision",
        "expected fp32, tf32 or bf16, found 'fp16'",
    ),
    "word that is nearly a choice": (
        "    epochs: 3",
        "    optimizer: {schedule: cosin}\n    epochs: 3",
        f"{RUN}.optimizer.schedule",
        "expected cosine, triangular or constant, found 'cosin'; did you mean `cosine`?",
    ),
    "too few entries": (
        "{count: 4}",
        "{count: 4, scale: [0.5]}",
        f"{RUN}.views.scale",
        "expected 2 entries, found 1",
    ),
    "wrong entry of a list": (
        "seeds: [0, 1]",
        "seeds:\n  - 0\n  - one@",
        "seeds[1]",
        "expected a whole number, found 'one'",
    ),
    "wrong published value": (
        "[75.9, unavailable, null]",
        "[75.9, unavailble, null]",
        f"{TABLE}.rows.free.published[1]",
        "expected a number, unavailable or null, found 'unavailble'",
    ),
    "negative published value": (
        "[75.9,",
        "[-75.9,",
        f"{TABLE}.rows.free.published[0]",
        "must be at least 0, found -75.9",
    ),
    "beyond what any number may be": (
        "{kind: linear, epochs: 2}",
        "{kind: linear, epochs: 2, lr: 1.0e+300}",
        "probes.central.lr",
        "must be at most 1e+30, found 1e+300",
    ),
    "longer than any training": (
        "    epochs: 3",
        "    epochs: 2000000000",
        f"{RUN}.epochs",
        "must be at most 1e+09, found 2000000000",
    ),
    "below its range": ("epochs: 3", "epochs: 0", f"{RUN}.epochs", "must be at least 1, found 0"),
    "above its range": (
        "replays: 3, eps: 4",
        "replays: 3, eps: 256",
        "defaults.free.regime.eps",
        "must be at most 255, found 256",
    ),
    "at an open end of its range": (
        "{kind: pgd, eps: [4, 8]}",
        "{kind: pgd, eps: [0, 4, 8]}",
        "attacks.pgd20.eps[0]",
        "must be more than 0, found 0",
    ),
    "not a number": (
        "replays: 3, eps: 4",
        "replays: 3, eps: .nan",
        "defaults.free.regime.eps",
        "must be a finite number, found nan",
    ),
    "infinite": (
        "replays: 3, eps: 4",
        "replays: 3, eps: .inf",
        "defaults.free.regime.eps",
        "must be a finite number, found inf",
    ),
    "huge": ("epochs: 3", f"epochs: {'9' * 400}", f"{RUN}.epochs", "whole numbers end at 9223372"),
    "gigantic": ("epochs: 3", f"epochs: {'9' * 9000}", f"{RUN}.epochs", "whole numbers end at"),
    "rule between options": (
        "{count: 4}",
        "{count: 4,\n      scale: [1, 0.5]}@",
        f"{RUN}.views.scale",
        "found [1, 0.5]; write scale: [0.5, 1]",
    ),
    "rule between options of a kind": (
        "eps: [4, 8]}",
        "eps: [4, 8], restarts: 2}",
        "attacks.pgd20.restarts",
        "restarts: 2 needs random_start: true",
    ),
    "key twice": (
        "    epochs: 3",
        "    epochs: 3\n    epochs: 4@",
        f"{RUN}.epochs",
        "this key occurs twice (first on line 18); remove one of them",
    ),
    "key twice in braces": (
        "{count: 4}",
        "{count: 4, count: 5}",
        f"{RUN}.views.count",
        "this key occurs twice (first on line 17)",
    ),
    "study no folder name": (
        "study: small",
        "study: Small study",
        "study",
        "'Small study' is not a usable name; expected lower-case letters, digits and single",
    ),
    "study leads out of its folder": ("study: small", "study: ../x", "study", "not a usable name"),
    "probe no folder name": (
        "  crops: {kind",
        "  crops: {kind: ncrop}\n  my_crops: {kind@",
        "probes.my_crops",
        "'my_crops' is not a usable name",
    ),
    "attack no folder name": (
        "attacks:",
        "attacks:\n  PGD: {kind: pgd, eps: [4]}@",
        "attacks.PGD",
        "'PGD' is not a usable name",
    ),
    "run no folder name": (
        "runs:",
        "runs:\n  a--b: {use: [free], method: emp_ssl, epochs: 1}@",
        "runs.a--b",
        "'a--b' is not a usable name",
    ),
    "data set no folder name": (
        "datasets:",
        "datasets:\n  a/b: digits@",
        "datasets.a/b",
        "'a/b' is not a usable name",
    ),
    "table no file name": (
        "  main:",
        "  main.1:",
        "tables.main.1",
        "'main.1' is not a usable name",
    ),
    "figure no file name": ("  bars:", "  -bars:", "figures.-bars", "'-bars' is not a usable name"),
    "row no name": (
        "      own: {run",
        "      own head: {run",
        f"{TABLE}.rows.own head",
        "'own head' is not a usable name",
    ),
    "name too long": (
        "  main:",
        f"  {'m' * 81}:",
        f"tables.{'m' * 81}",
        "not a usable name; expected lower-case letters, digits and single hyphens, 80 at most",
    ),
    "reserved name of an attack": (
        "attacks:",
        "attacks:\n  clean: {kind: pgd, eps: [4]}@",
        "attacks.clean",
        "`clean` is a reserved name; choose another name",
    ),
    "reserved name of a probe": (
        "probes:",
        "probes:\n  fresh: linear@",
        "probes.fresh",
        "`fresh` is a reserved name",
    ),
    "figure of the name of a table": (
        "  bars:",
        "  main:",
        "figures.main",
        "a table is also named `main`; choose another name",
    ),
    "unknown data set of a run": (
        "    epochs: 3",
        "    datasets: [digit]\n    epochs: 3",
        f"{RUN}.datasets[0]",
        "no `digit` in `datasets`; did you mean `digits`?",
    ),
    "no data set": (
        "    epochs: 3",
        "    datasets: []\n    epochs: 3",
        f"{RUN}.datasets",
        "expected at least one entry, found none",
    ),
    "no projector": (
        "    epochs: 3",
        "    encoder: {hidden: null}\n    epochs: 3",
        f"{RUN}.encoder.hidden",
        "this method adds no projector of its own; expected a number, found null",
    ),
    "only a warm-up": (
        "    epochs: 3",
        "    optimizer: {warmup_epochs: 3}\n    epochs: 3",
        f"{RUN}.optimizer.warmup_epochs",
        "3 of 3 passes leave none for the schedule; lower it",
    ),
    "seed twice": ("seeds: [0, 1]", "seeds: [0, 0]", "seeds[1]", "0 occurs twice; remove one"),
    "no seed": ("seeds: [0, 1]", "seeds: []", "seeds", "expected at least one entry, found none"),
    "no seed of a run": (
        "    epochs: 3",
        "    seeds: []\n    epochs: 3",
        f"{RUN}.seeds",
        "expected at least one entry, found none",
    ),
    "radius twice as it is printed": (
        "{kind: autoattack, eps: [8]}",
        "{kind: autoattack, eps: [8, 8.0000001]}",
        "attacks.aa.eps[1]",
        "8 occurs twice; remove one of them",
    ),
    "column twice": (
        "[digits/pgd20/8]",
        "[digits/pgd20/8, digits/pgd20/8]",
        "figures.bars.columns[1]",
        "digits/pgd20/8 occurs twice",
    ),
    "unknown run": (
        "{run: emp-free, probe: rle,",
        "{run: emp-fre, probe: rle,",
        f"{TABLE}.rows.free.run",
        "no `emp-fre` in `runs`; did you mean `emp-free`?",
    ),
    "unknown probe": (
        "probe: rle,",
        "probe: rles,",
        f"{TABLE}.rows.free.probe",
        "no `rles` in `probes`; did you mean `rle`?",
    ),
    "unknown data set of a column": (
        "[digits/clean,",
        "[digit/clean,",
        f"{TABLE}.columns[0]",
        "no `digit` in `datasets`; did you mean `digits`?",
    ),
    "unknown attack of a column": (
        "digits/pgd20/4",
        "digits/pgd2/4",
        f"{TABLE}.columns[1]",
        "no `pgd2` in `attacks`; did you mean `pgd20`?",
    ),
    "radius that is not run": (
        "digits/pgd20/4",
        "digits/pgd20/6",
        f"{TABLE}.columns[1]",
        "`pgd20` has no results at eps 6; write digits/pgd20/4 or digits/pgd20/8",
    ),
    "attack without radius": (
        "digits/pgd20/4",
        "digits/pgd20",
        f"{TABLE}.columns[1]",
        "`pgd20` needs a radius; write digits/pgd20/4 or digits/pgd20/8",
    ),
    "clean with a radius": (
        "digits/clean",
        "digits/clean/4",
        f"{TABLE}.columns[0]",
        "`clean` takes no radius; write digits/clean",
    ),
    "radius that is no number": (
        "digits/pgd20/4",
        "digits/pgd20/1..2",
        f"{TABLE}.columns[1]",
        "expected <dataset>/clean, <dataset>/<attack>/<eps>, <dataset>/<attack>/retained, "
        "<dataset>/<attack>/e50 or <dataset>/minutes, found 'digits/",
    ),
    "column that is none": ("digits/clean", "clean", f"{TABLE}.columns[0]", "found 'clean'"),
    "too few published values": (
        "[75.9, unavailable, null]",
        "[75.9, null]",
        f"{TABLE}.rows.free.published",
        "expected 3 values, one per column (null if the paper has none), found 2",
    ),
    "trained probe on a supervised network": (
        "probe: own",
        "probe: rle",
        f"{TABLE}.rows.own.probe",
        "`rle` reads the pre-feature, which run `supervised` has not (supervised); use feature",
    ),
    "own head of a network without one": (
        "probe: rle,",
        "probe: own,",
        f"{TABLE}.rows.free.probe",
        "run `emp-free` needs a trained probe, found `own`",
    ),
    "autoattack on several crops": (
        "digits/pgd20/8]\n    rows:\n",
        "digits/aa/8]\n    rows:\n      more: {run: emp-free, probe: central}\n@",
        "figures.bars.rows.free.probe",
        "`aa` needs whole images, which `crops` does not see; attack it with kind: pgd",
    ),
    "start at a probe that does not exist": (
        "rle_start: central",
        "rle_start: centre",
        "probes.rle.rle_start",
        "expected `fresh` or a probe of kind linear, found `centre`; did you mean `central`?",
    ),
    "start at a probe of several crops": (
        "rle_start: central",
        "rle_start: crops",
        "probes.rle.rle_start",
        "`crops` is not a linear probe on whole images; use kind: linear",
    ),
    "start at a probe of another feature": (
        "rle_start: central",
        "rle_start: central, feature: backbone",
        "probes.rle.rle_start",
        "`central` reads the feature prefeature, this probe backbone; give both the same",
    ),
    "start at itself": (
        "rle_start: central",
        "rle_start: rle",
        "probes.rle.rle_start",
        "`rle` is not a linear probe",
    ),
    "too few views": (
        "{count: 4}",
        "{count: 1}",
        f"{RUN}.views.count",
        "emp_ssl needs at least 2 views, found count: 1",
    ),
    "too many views": (
        "method: supervised\n    views: {count: 1}",
        "method: supervised\n    views: {count: 2}@",
        "runs.supervised.views.count",
        "supervised takes exactly 1 view, found count: 2",
    ),
    "views left to their default": (
        "  supervised:\n    use: [free]\n    method: supervised\n    views: {count: 1}\n",
        "  supervised:@\n    use: [free]\n    method: supervised\n",
        "runs.supervised",
        "supervised takes exactly 1 view, found count: 2",
    ),
    "unused block of defaults": (
        "  free:\n",
        "  spare: {epochs: 3}@\n  free:\n",
        "defaults.spare",
        "no run uses this block; remove it, or name it in `use:` of a run",
    ),
    "unknown block of defaults": (
        "use: [free]\n    method: emp_ssl",
        "use: [fre]\n    method: emp_ssl",
        f"{RUN}.use[0]",
        "no block 'fre' in `defaults`; did you mean `free`?",
    ),
    "block of defaults that is a list": (
        "use: [free]\n    method: emp_ssl",
        "use: [free, [free]]\n    method: emp_ssl",
        f"{RUN}.use[1]",
        "no block a list in `defaults`; known: all, free",
    ),
    "use without brackets": (
        "use: [free]\n    method: emp_ssl",
        "use: free\n    method: emp_ssl",
        f"{RUN}.use",
        "expected a list of blocks such as [free], found 'free'",
    ),
    "block of defaults that is no mapping": (
        "  free:\n    regime: {kind: free, replays: 3, eps: 4}\n",
        "  free: 3\n",
        "defaults.free",
        "expected a mapping of run options, found 3",
    ),
    "run that is no mapping": (
        "  emp-free:\n",
        "  plain: 3@\n  emp-free:\n",
        "runs.plain",
        "expected a mapping, found 3",
    ),
    "run that is nothing": (
        "  emp-free:\n",
        "  plain:@\n  emp-free:\n",
        "runs.plain",
        "expected a mapping, found nothing",
    ),
}
