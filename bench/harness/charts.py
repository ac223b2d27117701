"""Charts by gnuplot, as SVG."""

import os
import shutil
import subprocess

COLOURS = ["#1b6ca8", "#7fb2d9", "#c8553d", "#588157", "#a3b18a", "#6d597a", "#b5838d", "#444444"]


def quoted(text):
    return '"' + text.replace('"', "'") + '"'


def draw(folder, name, chart):
    """Draws ratios as points with their intervals, in one colour for each subject. Returns the names of the files."""
    if not shutil.which("gnuplot"):
        return []
    rows, subjects = chart
    rows_count = len(rows)
    blocks, plots = [], []
    for place, (subject, ratios) in enumerate(subjects.items()):
        points = []
        for row, ratio in enumerate(ratios):
            if ratio:
                # The first row is at the top.
                height = rows_count - row - (place - len(subjects) / 2) * 0.8 / max(1, len(subjects))
                points.append(f"{ratio[0]} {height:.3f} {ratio[1]} {ratio[2]}")
        if not points:
            continue
        blocks.append(f"$data{place} << EOD\n" + "\n".join(points) + "\nEOD")
        plots.append(f"$data{place} using 1:2:3:4 with xerrorbars pt 7 ps 0.5 lc rgb "
                     f"{quoted(COLOURS[place % len(COLOURS)])} title {quoted(subject)}")
    if not plots:
        return []
    tics = ", ".join(f"{quoted(text)} {rows_count - row}" for row, text in enumerate(rows))
    file = f"{name}.svg"
    script = "\n".join([
        f"set terminal svg size 1000,{120 + 46 * rows_count} font 'sans,12' background 'white'",
        f"set output {quoted(os.path.join(folder, file))}",
        *blocks,
        f"set ytics ({tics})", f"set yrange [0.4:{rows_count + 0.6}]",
        "set logscale x", "set xlabel 'times the cost of the baseline (logarithmic)'", "set grid x",
        "set key below", "set arrow from 1, graph 0 to 1, graph 1 nohead dt 2",
        "plot " + ", ".join(plots),
    ])
    subprocess.run(["gnuplot"], input=script, text=True, check=True)
    return [file]
