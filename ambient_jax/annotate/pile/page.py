"""The report about a pile: a table for a terminal, and one HTML file that needs no network."""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape

from ambient_jax.annotate.pile import content as pile_content
from ambient_jax.annotate.pile import results as pile_results
from ambient_jax.annotate.pile.results import Finding, Results
from ambient_jax.annotate.pile.script import SCRIPT
from ambient_jax.annotate.pile.style import STYLE
from ambient_jax.annotate.pile.worth import interval
from ambient_jax.cli import report
from ambient_jax.data.look import plots
from ambient_jax.data.look import style as look_style

COLUMNS = ("data set", "episodes", "what to do", "change of the clean loss", "worth", "stand out")


def text(results: Results) -> str:
    """The table for a terminal, with a line about how to read it."""
    rows = []
    for f in results.findings:
        mean = interval(f.chosen)
        loss = "" if f.choice.clean_only else pile_results.change(mean)
        cells = [f.name, len(f.scores.episode), pile_results.verdict(f), loss, _worth(f, results)]
        rows.append([*map(_plain, map(str, cells)), str(int(f.scores.suspects().sum()))])
    return f"\n{report.markdown(COLUMNS, rows)}\n\n{_HOW}\n"


_HOW = (
    "change of the clean loss: mean over noise levels, on clean episodes that the policy has not "
    "seen, against clean data only (95% interval over these episodes). worth: how many more clean "
    "episodes would do the same. stand out: episodes to look at, see episodes.csv."
)


def _plain(value):
    return "".join(c if c.isprintable() else "?" for c in value)


def _worth(f: Finding, results: Results) -> str:
    if f.choice.clean_only:
        return "nothing"
    farthest = results.curve.farthest if results.curve is not None else 0
    return pile_results.episodes(f.worth, farthest - _most(results))


def _most(results):
    return float(results.curve.episodes[-1]) if results.curve is not None else 0.0


def html(results: Results) -> str:
    """The page. Its script may run, and nothing else; it can load nothing."""
    script = SCRIPT
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    data = json.dumps(report.plain(pile_content.content(results)), separators=(",", ":")).replace(
        "<", "\\u003c"
    )
    names = ", ".join(f.name for f in results.findings)
    title = escape(f"What is the pile worth? {names}")
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{look_style.STYLE}{STYLE}</style></head>\n<body><main>\n{_body(results)}\n</main>"
        f'<div id="tip" hidden></div>\n<script type="application/json" id="data">{data}</script>\n'
        f"<script>{script}</script></body></html>\n"
    )


def _body(results: Results) -> str:
    return "\n".join([_header(results), _sets(results), *_plots(results), _table(), _end(results)])


def _header(results: Results) -> str:
    s = results.settings
    clean = ", ".join(f"{n} ({e} episodes)" for n, (_, e, _) in results.clean.items())
    chips = "".join(
        f'<button class="chip" data-set="{escape(f.name)}" aria-pressed="false"><i class="swatch" '
        f'style="background:{plots.colour(i)}"></i>{escape(f.name)}</button>'
        for i, f in enumerate(results.findings)
    )
    quick = " It was quick: repeat it without --quick before you decide." if s["quick"] else ""
    return (
        f"<header><h1>What is the pile worth?</h1><p>Beside {escape(clean)}. Judged by "
        f"{escape(', '.join(s['observation']))} and {escape(s['action'])}; pictures were not looked"
        f" at.{quick}</p></header><div class='chips'>{chips}</div>"
    )


def _sets(results: Results) -> str:
    head = "".join(
        f'<th class="{"figure" if c == "episodes" else "word"}">{c}</th>' for c in COLUMNS
    )
    rows = []
    for f in results.findings:
        mean = interval(f.chosen)
        kind = "leave" if f.choice.clean_only else "use"
        loss = "none" if f.choice.clean_only else pile_results.change(mean)
        cells = [
            f'<td class="word">{escape(f.name)}</td><td class="figure">{len(f.scores.episode)}</td>'
            f'<td class="word verdict {kind}">{escape(pile_results.verdict(f))}</td>'
        ]
        for value in (loss, _worth(f, results), str(int(f.scores.suspects().sum()))):
            cells.append(f'<td class="word">{escape(value)}</td>')
        rows.append(f'<tr data-set="{escape(f.name)}">{"".join(cells)}</tr>')
    whole = ""
    if results.everything is not None:
        loss = pile_results.change(results.everything.mean())
        whole = f'<p class="note">The whole pile at every noise level: loss {loss}.</p>'
    return _section(
        "What to do",
        "Each row is a data set of the pile. Train on the green ones at the noise levels that the "
        "row names, which config.py does, and leave out the others.",
        f'<div class="scroll"><table id="sets"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>{whole}<p class='note'>Numbers in brackets "
        "are 95% intervals over the clean episodes. The loss is the denoising error on clean "
        "episodes that the policy has not seen, a mean over noise levels; worth is the number of "
        "further clean episodes that would lower it as much.</p>",
    )


def _section(title, lead, inside):
    return f'<section><h2>{title}</h2><p class="lead">{lead}</p>{inside}</section>'


def _plot(name, title, lead, note=""):
    note = f'<p class="note">{note}</p>' if note else ""
    return _section(title, lead, f'<div id="plot-{name}"></div>{note}')


def _plots(results: Results) -> list[str]:
    boxes = {"helps": "the whole interval of the loss is below that without it"}
    boxes |= {"harms": "it is above", "unsure": "neither", "trains": "where to train on it"}
    legend = "".join(f'<span><i class="box {k}"></i>{text}</span>' for k, text in boxes.items())
    worth = (
        "The dashed line is the loss with clean data only, by the number of episodes; a level line "
        "is what all of them reach with a data set beside. Where the two cross, read how many clean"
        " episodes the data set stands for. Beyond the last point the line is a power law, a guess."
    )
    strips = (
        "Noise low (left) shows details of a motion, noise high (right) only its rough path. Use a "
        "data set where its bar is drawn below the strip."
    )
    gain = (
        "Below zero a data set helps: with it, the error on unseen clean episodes is smaller than "
        "without. The band is the 95% interval; where it crosses zero, do not count on a gain."
    )
    clean = (
        "How clean the episodes look to a classifier: 0.5 means that it cannot tell them from the "
        "clean ones, 0 that it surely can. Point at an episode below to see its own curve."
    )
    influence = (
        "How a training step on an episode moves the loss of unseen clean ones: above zero it "
        "helps, below it harms. 1 is the median size. Use it to find the few that stand out."
    )
    curve = _plot("worth", "How many clean episodes is it worth?", worth) if results.curve else ""
    return [
        _plot("strips", "Noise levels at which each data set helps", strips, legend).replace(
            '<p class="note">', '<p class="legend">'
        ),
        f'<div class="two">{_plot("gain", "Gain by noise level", gain)}{curve}</div>',
        f'<div class="two">{_plot("clean", "Do they look clean?", clean)}'
        f"{_plot('influence', 'Do they help?', influence)}</div>",
        _length(results),
    ]


def _length(results: Results) -> str:
    rows = []
    for f in results.findings:
        for score, label in (("p_clean", "P(clean)"), ("influence", "influence")):
            plain, rest = f.correlations[score]
            cells = [f'<td class="word">{escape(f.name)}</td><td class="word">{label}</td>']
            for v in (plain, rest):
                cells.append(
                    f'<td class="figure">{v.value:+.2f} ({v.low:+.2f} to {v.high:+.2f})</td>'
                )
            rows.append(f'<tr data-set="{escape(f.name)}">{"".join(cells)}</tr>')
    head = '<th class="word">data set</th><th class="word">score</th><th class="figure">with length'
    head += '</th><th class="figure">without it</th>'
    episodes = (
        "Each point is an episode. Look first at those with a red ring, far left or far below: "
        "they are the likely broken or mislabelled ones."
    )
    length = (
        "If the points follow a slope, the score reads the length of an episode rather than its "
        "quality, as many published scores do. The robust z of the table has the length taken out."
    )
    table = f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}'
    note = "Rank correlation with the number of steps, with a 95% interval over episodes: far from "
    note += "zero, the score reads the length."
    table += f'</tbody></table></div><p class="note">{note}</p>'
    plot = _section(
        "Does the score read the length?", length, f'<div id="plot-length"></div>{table}'
    )
    return f'<div class="two">{_plot("episodes", "Episodes of the pile", episodes)}{plot}</div>'


def _table() -> str:
    lead = (
        "Click a heading to sort. An episode stands out if a score lies 3.5 robust deviations "
        "below those of its data set once the length is taken out: look at it, and leave it out if "
        "it is broken, as bounds.parquet does."
    )
    return _section(
        "Every episode",
        lead,
        '<div class="filters"><label>Data set <select id="filter-set"></select></label>'
        '<label>Episode <input type="text" id="filter-text" size="6" inputmode="numeric"></label>'
        '<label><input type="checkbox" id="filter-suspect"> only those that stand out</label>'
        '<span class="note" id="count"></span></div>'
        '<div class="scroll"><table id="episodes"><thead>'
        '<tr id="head"></tr></thead><tbody id="rows"></tbody></table></div>'
        '<p><button id="more" hidden>Show more</button></p>',
    )


def _end(results: Results) -> str:
    s = results.settings
    lead = (
        f"For each data set, {s['folds']} small policies were trained for {s['steps']} steps, each "
        f"without one part of the clean episodes, and measured on that part ({s['chunks']} chunks "
        f"of {s['test_episodes']} episodes); the same was done without the data set."
    )
    lines = (
        "The intervals are over clean episodes; training with another seed would move the numbers, "
        "too. With few clean episodes, believe only what is far from zero.",
        "A lower loss is no success rate: try the policy before you rely on it.",
        "<code>config.py</code> trains with these choices: <code>python -m ambient_jax.train "
        "--config=config.py</code>. <code>bounds.parquet</code> has them for every step, "
        "<code>datasets.csv</code>, <code>episodes.csv</code> and <code>results.json</code> all "
        "numbers, and <code>lerobot/</code> the weight of every frame for LeRobot.",
    )
    notes = "".join(f'<p class="note">{line}</p>' for line in lines)
    return _section("How this was measured", lead, notes)
