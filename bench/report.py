# SPDX-License-Identifier: Apache-2.0
"""What runs make together: medians, ratios to the best peer, bars met or not, and their tables."""
import datetime
import os
import pathlib
import platform
import shlex
import statistics
import subprocess

import machine
from contenders import NOT_PEERS, OURS

ROOT = pathlib.Path(__file__).resolve().parent.parent
NOTES = ROOT / "bench" / "notes.md"


def spread(values):
    values = [v for v in values if v is not None]
    if not values:
        return None
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


class Table:
    """One case in one topology."""

    def __init__(self, topology, case, contenders, runs):
        self.topology, self.case = topology, case
        mine = [r for r in runs if r.case == case.name and r.topology == topology]
        self.figures = {(r.contender, r.round): r.figures for r in mine}
        self.columns = [c for c in case.columns if any(r.figures.get(c.key) is not None for r in mine)]
        self.rows = {}
        for name in (c.name for c in contenders):
            of_it = [r for r in mine if r.contender == name]
            if of_it:
                self.rows[name] = {
                    **{c.key: spread([r.figures.get(c.key) for r in of_it]) for c in self.columns},
                    "errors": sum(r.errors for r in of_it), "lost": sum(r.lost for r in of_it),
                    "failed": sum(r.failure is not None for r in of_it), "rounds": len(of_it),
                }

    def median(self, name, key):
        s = self.rows.get(name, {}).get(key)
        return s["median"] if s else None

    def best_peer(self, key, better):
        peers = [(self.median(n, key), n) for n in self.rows if n not in NOT_PEERS and self.median(n, key) is not None]
        return (min if better == "low" else max)(peers)[1] if peers else None

    def ratio(self, contender, key, other):
        """{"ratio": of medians, "each": of rounds}; None where it means nothing."""
        ours, theirs = self.median(contender, key), self.median(other, key)
        if ours is None or theirs is None or theirs <= 0:
            return None
        pairs = [(f.get(key), self.figures.get((other, n), {}).get(key))
                 for (name, n), f in self.figures.items() if name == contender]
        return {"to": other, "ratio": ours / theirs,
                "each": [a / b for a, b in pairs if a is not None and b is not None and b > 0]}

    def better(self, key):
        return next((c.better for c in self.case.columns if c.key == key), "")

    def judge(self, bar):
        """What a bar says, and whether it is met: True, False, or None if it cannot be told."""
        title = next(c.title for c in self.case.columns if c.key == bar.key)
        text = f"{title} {bar.relation} {bar.limit:g}"
        if bar.kind == "value":
            measured = self.median(bar.contender, bar.key)
            each = [f.get(bar.key) for (name, _), f in self.figures.items() if name == bar.contender]
            other = None
        else:
            other = bar.kind.removeprefix("ratio to ") if bar.kind != "ratio" else \
                self.best_peer(bar.key, self.better(bar.key))
            found = self.ratio(bar.contender, bar.key, other) if other else None
            measured, each = (found["ratio"], found["each"]) if found else (None, [])
            text += f" of {bar.kind.removeprefix('ratio to ')}'s" if bar.kind != "ratio" else " of the best peer's"
        holds = {"<=": lambda v: v <= bar.limit, "<": lambda v: v < bar.limit, ">=": lambda v: v >= bar.limit}[bar.relation]
        each = [v for v in each if v is not None]
        errors = self.rows.get(bar.contender, {}).get("errors", 0) + self.rows.get(bar.contender, {}).get("failed", 0)
        rounds_met = sum(map(holds, each))
        by_medians = measured is not None and holds(measured)
        met = None if measured is None else by_medians and 2 * rounds_met > len(each) and not errors
        return {"case": self.case.name, "topology": self.topology, "contender": bar.contender, "bar": text, "to": other,
                "measured": measured, "met": met, "by_medians": by_medians, "rounds_met": rounds_met,
                "rounds": len(each), "errors": errors}

    def bars(self):
        return [self.judge(b) for b in self.case.bars if self.topology in b.topologies]

    def ratios(self):
        """Ours to the best peer, for every figure where one is better than another."""
        found = {}
        for column in self.columns:
            other = self.best_peer(column.key, column.better) if column.better else None
            r = self.ratio(OURS, column.key, other) if other else None
            if r:
                found[column.key] = {"best_peer": other, "ratio": r["ratio"], "rounds": spread(r["each"])}
        return found

    def data(self):
        return {"case": self.case.name, "topology": self.topology, "title": self.case.title, "unit": self.case.unit,
                "main": self.case.main, "columns": {c.key: c.title for c in self.columns},
                "rows": [{"contender": name, **row} for name, row in self.rows.items()], "ratios": self.ratios()}

    def cells(self):
        head = ["contender", *(c.title for c in self.columns), "errors", "lost"]
        lines = [[name, *(with_spread(row[c.key]) if c.spread else share(row[c.key]) if c.key == "others"
                          else number(row[c.key]["median"] if row[c.key] else None) for c in self.columns),
                  str(row["errors"]) + (f", {row['failed']} failed" if row["failed"] else ""), str(row["lost"])]
                 for name, row in self.rows.items()]
        return head, lines

    def ratio_text(self):
        ratios = self.ratios()
        parts = []
        for column in self.columns:
            r = ratios.get(column.key)
            if r and (column.key == self.case.main or column.spread or column.key == "rate"):
                more = f" ({number(r['rounds']['min'])} … {number(r['rounds']['max'])})" if r["rounds"] else ""
                parts.append(f"{column.title} {r['ratio']:.2f}{more} of {r['best_peer']}'s")
        return f"{OURS}: " + "; ".join(parts) if parts else "no ratio: ours or every peer is missing, or too near to 0"


def number(value):
    if value is None:
        return "-"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def share(s):
    return f"{s['median']:.1%}" if s else "-"


def with_spread(s):
    return f"{number(s['median'])} ({number(s['min'])} … {number(s['max'])})" if s else "-"


def verdict(bar):
    if bar["met"] is None:
        return "cannot be told"
    text = "yes" if bar["met"] else "by medians only" if bar["by_medians"] else "no"
    if bar["errors"]:
        text += f", {bar['errors']} errors"
    return f"{text} ({bar['rounds_met']} of {bar['rounds']} rounds)"


def bar_cells(tables):
    head = ["case", "where", "of", "bar", "measured", "against", "met"]
    lines = [[b["case"], b["topology"], b["contender"], b["bar"], number(b["measured"]), b["to"] or "-", verdict(b)]
             for table in tables for b in table.bars()]
    return head, lines


def print_cells(head, lines, left=1):
    widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
    for line in [head, *lines]:
        print("  " + "  ".join(cell.ljust(w) if i < left else cell.rjust(w)
                               for i, (cell, w) in enumerate(zip(line, widths))).rstrip())


def print_tables(tables):
    for table in tables:
        print(f"\n{table.case.name}, {table.topology}: {table.case.title}")
        print_cells(*table.cells())
        print("  " + table.ratio_text())
    head, lines = bar_cells(tables)
    if lines:
        print("\nbars")
        print_cells(head, lines, left=4)


# ---- the machine ----


def output_of(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False, cwd=ROOT)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def git_commit():
    commit = output_of("git", "rev-parse", "HEAD")
    if not commit:
        return "none yet"
    return commit + (" with changes" if output_of("git", "status", "--porcelain") else "")


def package_versions():
    text = output_of("dpkg-query", "-W", "-f", "${Package} ${Version}\n", "haproxy", "nginx", "libnginx-mod-stream",
                     "nftables")
    return text.splitlines() or ["unknown (no dpkg here)"]


def environment(options, busy):
    models = [line.partition(":")[2].strip() for line in machine.read_text("/proc/cpuinfo").splitlines()
              if line.startswith(("model name", "Model"))]
    memory = int(machine.read_text("/proc/meminfo").splitlines()[0].split()[1]) * 1024
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "kernel": platform.release(),
        "cpu": models[0] if models else platform.machine(),
        "cpus": os.cpu_count(),
        "memory_bytes": memory,
        "commit": git_commit(),
        "peers": package_versions(),
        "command": "bench/run " + shlex.join(options.arguments),
        "busy_before": busy,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "warm_s": options.warm,
        "scale": options.scale,
    }


def markdown_table(head, lines, left=1):
    return ["| " + " | ".join(head) + " |", "|" + " --- |" * left + " ---: |" * (len(head) - left),
            *("| " + " | ".join(line) + " |" for line in lines)]


def write_markdown(path, env, tables, left_out, bulk_gib):
    lines = ["# Speed comparison", ""]
    if NOTES.exists():
        lines += [NOTES.read_text(encoding="utf-8").strip(), ""]
    lines += [
        f"- date: {env['date']}",
        f"- kernel: {env['kernel']}",
        f"- machine: {env['cpu']}, {env['cpus']} CPUs, {env['memory_bytes'] / (1 << 30):.0f} GiB",
        f"- commit: {env['commit']}",
        f"- peers: {', '.join(env['peers'])}",
        f"- again: `{env['command'].strip()}`",
        f"- rounds: {env['rounds']}, {env['seconds']:g} s a run after {env['warm_s']:g} s of warming up, "
        f"bulk {bulk_gib * env['scale']:g} GiB a run",
        f"- machine busy before the start: {env['busy_before']:.1%}",
        *(f"- left out: {' '.join(text.split())}" for text in left_out), "",
        "Added: busy CPU of the whole machine per unit, less that of the direct path in the same round. Medians of the",
        "rounds, some with (smallest … largest); errors and lost are sums. What the cases and columns are, and how to read",
        "them: bench/README.md.",
    ]
    head, bars = bar_cells(tables)
    if bars:
        lines += ["", "## Bars", "",
                  "What we want to reach, and whether this run did. The best peer is the one with the best median of that",
                  "figure, tuned or not. A bar is met when it is by medians and in more than half of the rounds, without errors.", "", *markdown_table(head, bars, 4)]
    for table in tables:
        lines += ["", f"## {table.case.name}, {table.topology}: {table.case.title}", "", *markdown_table(*table.cells()), "",
                  table.ratio_text() + "."]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
