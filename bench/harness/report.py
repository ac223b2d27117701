"""Tables, charts and a summary of a run's records."""

import json
import os

import charts
from figures import median, ratio_interval

HEADINGS = {
    "warm": ("Complete files", "native"),
    "cold": ("Files that are fetched", "PassHSM FUSE"),
    "split": ("Where the time of a fill goes", None),
    "growth": ("Growth with the inodes that a mount knows", None),
}


class Records:
    def __init__(self, folder, subjects):
        """`subjects`: the order of the columns."""
        with open(os.path.join(folder, "records.jsonl")) as file:
            self.all = [json.loads(line) for line in file]
        places = {name: place for place, name in enumerate(subjects)}
        self.all.sort(key=lambda record: places.get(record["subject"], len(places)))

    def parts(self):
        return [part for part in HEADINGS if any(r["part"] == part for r in self.all)]

    def names(self, key, **wanted):
        """The values of a field, in the order in which they came."""
        return list(dict.fromkeys(
            r[key] for r in self.all if all(r[field] == value for field, value in wanted.items())))

    def rounds(self, field="value", **wanted):
        """The values of one measurement by round, and the record of one of them."""
        found = [r for r in self.all if all(r[f] == v for f, v in wanted.items())]
        rounds = {r["round"]: r.get(field, 0) for r in found}
        return rounds, found[0] if found else None


def cost_ratio(records, baseline, **wanted):
    """The cost as a multiple of the baseline's. Rates are inverted, so that more than 1 is always worse."""
    values, sample = records.rounds(**wanted)
    base, _ = records.rounds(**{**wanted, "subject": baseline})
    common = sorted(set(values) & set(base))
    if not common:
        return None
    numbers, bases = [values[r] for r in common], [base[r] for r in common]
    return ratio_interval(bases, numbers) if sample["is_rate"] else ratio_interval(numbers, bases)


def significant(value):
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def rows_of(records, part):
    for variant in records.names("variant", part=part):
        for workload in records.names("workload", part=part, variant=variant):
            for figure in records.names("figure", part=part, variant=variant, workload=workload):
                yield dict(part=part, variant=variant, workload=workload, figure=figure)


def label(row):
    return ", ".join(filter(None, [row["workload"], row["figure"], row["variant"]]))


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows] + [""]


def medians(records, part):
    every = sorted(records.names("subject", part=part), key=lambda s: s != HEADINGS[part][1])
    rows = []
    for row in rows_of(records, part):
        cells, unit = [], ""
        for subject in every:
            values, sample = records.rounds(subject=subject, **row)
            if not sample:
                cells.append("–")
                continue
            unit = sample["unit"]
            numbers = list(values.values())
            cells.append(f"{significant(median(numbers))} ({significant(min(numbers))}–{significant(max(numbers))})")
        rows.append([label(row), unit, *cells])
    return table(["", "unit", *every], rows)


def ratios(records, part, baseline, wanted=lambda subject: True):
    every = [s for s in records.names("subject", part=part) if s != baseline and wanted(s)]
    rows = []
    for row in rows_of(records, part):
        cells = []
        for subject in every:
            ratio = cost_ratio(records, baseline, subject=subject, **row)
            cells.append("–" if not ratio else f"{ratio[0]:.2f} [{ratio[1]:.2f}, {ratio[2]:.2f}]")
        rows.append([label(row), *cells])
    return table([f"times the cost of {baseline}", *every], rows)


def write_builds(folder, other):
    """Two builds of this program: how many times the other one's cost."""
    with open(os.path.join(folder, "machine.json")) as file:
        records = Records(folder, json.load(file)["subjects"])
    lines = []
    for part in records.parts():
        every = [s for s in records.names("subject", part=part) if not s.endswith(other)]
        rows = []
        for row in rows_of(records, part):
            found = [cost_ratio(records, subject + other, subject=subject, **row) for subject in every]
            rows.append([label(row)] + ["–" if not r else f"{r[0]:.2f} [{r[1]:.2f}, {r[2]:.2f}]" for r in found])
        lines += [f"## {HEADINGS[part][0]}", "", *table(["times the other build's cost", *every], rows)]
    with open(os.path.join(folder, "report.md"), "w") as file:
        file.write("\n".join(lines))


def middle(values):
    known = [v for v in values if v is not None]
    return median(known) if known else None


def costs(records):
    """CPU and memory of the daemon, where there is one."""
    rows = []
    for part in ("warm", "cold"):
        for row in rows_of(records, part):
            for subject in records.names("subject", **row):
                # The figures of a workload have one measurement.
                if row["figure"] != records.names("figure", part=part, workload=row["workload"])[0]:
                    continue
                client, daemon, switches, peak = (
                    middle(records.rounds(field, subject=subject, **row)[0].values())
                    for field in ("client_cpu_s", "daemon_cpu_s", "daemon_switches", "daemon_peak_kib"))
                rows.append([
                    ", ".join(filter(None, [row["workload"], row["variant"]])), subject, f"{client:.2f}",
                    f"{daemon:.2f}", "–" if switches is None else significant(switches), significant(peak / 1024)])
    return table(["", "subject", "client CPU s", "daemon CPU s", "daemon switches", "daemon peak MiB"], rows)


def heading(about):
    noise = about["noise"]
    lines = [
        f"{about['date']}, commit {about['commit']}{' with changes' if about['is_changed'] else ''}, "
        f"{about['rounds']} rounds after a warm-up{', quick sizes' if about['quick'] else ''}.",
        "",
        f"Linux {about['kernel']}, {about['cpu']}, {about['processors']} processors, {about['memory_mib']} MiB, "
        f"governor {about['governor']}; {about['file_system']}; libfuse {about['libfuse']}. "
        f"Load {about['load_before']:.1f} before and {about['load_after']:.1f} after.",
        "",
    ]
    if noise > 0.05:
        lines += [f"**The machine was noisy: in the median measurement others used {noise:.0%} of it.** Ratios of the "
                  "same rounds stand better than single figures, and small differences do not stand at all.", ""]
    else:
        lines += [f"Others used {noise:.1%} of the machine in the median measurement.", ""]
    if about["absent"]:
        lines += ["Absent: " + "; ".join(f"{name} ({why})" for name, why in sorted(about["absent"].items())) + ".", ""]
    return lines


def again(records):
    """The same subject twice: how far ratios can be trusted."""
    found = [cost_ratio(records, "native", subject="native, again", **row) for row in rows_of(records, "warm")]
    found = [f for f in found if f]
    holding = sum(1 for f in found if f[1] <= 1 <= f[2])
    return [f"The same subject measured twice (native, again): the interval holds 1 in {holding} of {len(found)} "
            "figures.", ""] if found else []


REPOSITORY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")


def discussion(folder):
    """The text about this run in `discussion.md`, if a person has written one."""
    path = os.path.join(folder, "discussion.md")
    if not os.path.exists(path):
        return []
    with open(path) as file:
        return [file.read().strip(), ""]


def abilities(folder):
    """SEMANTICS.md's table of what one front end can do and the other cannot, with links that lead there from here."""
    with open(os.path.join(REPOSITORY, "SEMANTICS.md")) as file:
        section = file.read().partition("## What one front end can do")[2].partition("\n## ")[0]
    up = os.path.relpath(REPOSITORY, folder)
    return ["## What one front end can do" + section.rstrip().replace("](Tests/", f"]({up}/Tests/"), ""]


def write(folder):
    with open(os.path.join(folder, "machine.json")) as file:
        about = json.load(file)
    records = Records(folder, about["subjects"])
    lines = ["# Measured overhead", "", *heading(about), *again(records), *discussion(folder)]
    for part in records.parts():
        title, baseline = HEADINGS[part]
        lines += [f"## {title}", ""]
        if baseline:
            lines += ["Median ratio of the rounds' costs, and the 95 % interval of its bootstrap; more than 1 is worse.",
                      "", *ratios(records, part, baseline)]
            for chart in charts.draw(folder, part, chart_rows(records, part, baseline)):
                lines += [f"![{title}]({chart})", ""]
        lines += ["Medians, and the least and the most:", "", *medians(records, part)]
    lines += ["## What it costs", "", *costs(records), *abilities(folder)]
    for name, text in (("report.md", lines), ("summary.md", summary(records, about))):
        with open(os.path.join(folder, name), "w") as file:
            file.write("\n".join(text))


def summary(records, about):
    """One page: this program's front ends alone, and how far that can be trusted."""
    lines = ["# Measured overhead, in short", "", *heading(about), *again(records)]
    for part in records.parts():
        title, baseline = HEADINGS[part]
        if baseline:
            lines += [f"## {title}", "", *ratios(records, part, baseline, lambda s: s.startswith("PassHSM"))]
        else:
            lines += [f"## {title}", "", *medians(records, part)]
    return lines + ["All subjects, charts and costs are in [the report](report.md); every figure is in `records.jsonl`.", ""]


def chart_rows(records, part, baseline):
    """By subject, the ratios of each workload that has them."""
    rows = [row for row in rows_of(records, part)]
    every = [s for s in records.names("subject", part=part) if s not in (baseline, "native, again")]
    return [label(row) for row in rows], {
        subject: [cost_ratio(records, baseline, subject=subject, **row) for row in rows] for subject in every}
