"""report.html: one self-contained page about a study, made from the study's folder alone."""

import base64
from collections import defaultdict
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from search.space.strict_yaml import read_yaml
from search.study.marks import warnings_of
from search.study.records import StudyFolder, read_json, read_lines, write_atomically
from search.study.rows import COMPLETE, FAILED, INFEASIBLE, RUNNING, STOPPED, TrialRecord, collect_rows
from search.trial.metrics import Scores
from search.views.figures import draw_all_curves, draw_confusion, draw_curves, draw_history
from search.views.words import memory_of, number

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 62rem; margin: 0 auto; padding: 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
.loud { background: #ffd54f; padding: .5rem 1rem; font-weight: 700; }
.scroll { overflow-x: auto; } img { max-width: 100%; height: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .2rem .7rem; border-bottom: 1px solid #e4e4e4; white-space: nowrap; }
th:first-child, td:first-child, td.words { text-align: left; } td.words { white-space: normal; min-width: 14rem; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1rem; }
pre { background: #f5f5f5; padding: .8rem; overflow-x: auto; }
@media (max-width: 40rem) { body { padding: .6rem; } th, td { padding: .2rem .35rem; font-size: .82rem; } }
@media print { h2 { break-after: avoid; } img, table { break-inside: avoid; } }
"""


def write_report(folder: StudyFolder) -> None:
    """Write the page; what the study does not have yet is left out.

    Raises:
        ConfigError: If the folder holds no study, or cannot be written.
    """
    provenance = read_json(folder.provenance)
    resolved = read_yaml(folder.resolved)[0]
    records = list(collect_rows(list(read_lines(folder.trials))).values())
    metric = resolved["objective"].get("maximize", "weighted_f1")
    complete = [record for record in records if record.status == COMPLETE]
    best = max(complete, key=lambda record: record.value, default=None)
    classes: list[str] = provenance["data"]["classes"]
    verdict = "No trial has run to its end yet."
    if best:
        verdict = f"Best {metric} on validation: <b>{best.value:.4f}</b> (trial {best.number}, one seed)."
    sections = [
        _head(folder, provenance["data"], records, verdict),
        _winner(best, classes) if best else "",
        _final(folder, classes),
        _course(records, best, metric),
        _branches(records, metric),
        _trials(records, metric),
        _origin(folder, provenance),
    ]
    title = escape(folder.name)
    page = f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>
<body>{"".join(sections)}</body></html>
"""
    write_atomically(folder.report, page)


def _head(folder: StudyFolder, data: dict[str, Any], records: Sequence[TrialRecord], verdict: str) -> str:
    loud = "".join(f'<p class="loud">{escape(warning)}</p>' for warning in warnings_of(data))
    checked = "Counted in" if data.get("leaky") else "Proved about"
    counts = ", ".join(
        f"{n} {status}"
        for status in (COMPLETE, STOPPED, INFEASIBLE, FAILED, RUNNING)
        if (n := sum(record.status == status for record in records))
    )
    wafers = ", ".join(f"{n:,} {part}" for part, n in data["wafers"].items())
    return f"""<h1>{escape(folder.name)}</h1>{loud}
<p>{len(records)} trials ({counts}) on {escape(data["source"])}: {wafers}. {verdict}</p>
<p>{checked} the split {data["split_fingerprint"]}: {escape(data["leak_check"])}.</p>"""


def _winner(best: TrialRecord, classes: Sequence[str]) -> str:
    val = best.reports[-1].val
    assert val is not None
    config = _table(
        ("parameter", "value"), [(escape(key), escape(number(value))) for key, value in best.config.items()]
    )
    figure = _image(draw_confusion(val, classes, title="validation, % of the actual label"), "confusion matrix")
    note = (
        "<p>It was picked as the best of several noisy scores, so this score flatters it; the locked test, which "
        "nothing was picked by, says what it is worth.</p>"
    )
    return f"""<h2>Winner: trial {best.number}</h2>
<div class="pair"><div>{_score_table(val.scores, classes)}</div><div class="scroll">{config}</div></div>
<p>Its {escape(memory_of(best))}: expected of the tensors, measured of them on a GPU and of the process on a CPU.</p>
{note}{figure}
{_image(draw_curves(best.reports, title=f"trial {best.number}"), "learning curves")}"""


def _final(folder: StudyFolder, classes: Sequence[str]) -> str:
    metrics, ledger = folder.final / "metrics.json", folder.final / "test.json"
    parts = []
    if metrics.exists():
        final = read_json(metrics)
        parts.append(
            f"<h2>Final model</h2><p>Trained on {escape(final['on'])} for {final['epochs']} nominal epochs, seed "
            f"{final['seed']}, in {final['seconds']:.0f} s on {escape(final['device'])}.</p>"
        )
    if ledger.exists():
        looks = read_json(ledger)["looks"]
        last = looks[-1]
        rows = [
            (
                escape(name),
                *(_percent(last[f"test_{key}"][name]) for key in ("precision", "recall", "f1", "balanced_f1")),
                f"{last['test_support'][name]:,}",
            )
            for name in classes
        ]
        times = "once" if len(looks) == 1 else f"{len(looks)} times"
        parts.append(
            f"<h2>Locked test</h2><p>Opened {times}. Macro-F1 <b>{_percent(last['test_macro_f1'])}</b>, balanced "
            f"macro-F1 <b>{_percent(last['test_balanced_macro_f1'])}</b>, accuracy {_percent(last['test_accuracy'])}, "
            f"in %.</p>{_table(('class', 'precision', 'recall', 'F1', 'balanced F1', 'wafers'), rows)}"
        )
    return "".join(parts)


def _course(records: Sequence[TrialRecord], best: TrialRecord | None, metric: str) -> str:
    if not records:
        return ""
    return f"""<h2>Course of the search</h2><div class="pair">
{_image(draw_history(records, metric=metric), "objective by trial")}
{_image(draw_all_curves(records, metric=metric, best=best), "learning curves of all trials")}</div>"""


def _branches(records: Sequence[TrialRecord], metric: str) -> str:
    groups: dict[tuple[str, str], list[TrialRecord]] = defaultdict(list)
    for record in records:
        key = (str(record.config.get("sampling", "imbalanced")), str(record.config.get("model", "wafer_cnn")))
        groups[key].append(record)
    rows = []
    for (sampling, model), group in sorted(groups.items()):
        ended = [record.value for record in group if record.status == COMPLETE]
        best = f"{max(ended):.4f}" if ended else "none ran to its end"
        rows.append((escape(sampling), escape(model), str(len(group)), str(len(ended)), best))
    header = ("strategy", "architecture", "trials", "ran to their end", f"best {metric}")
    return f"<h2>Strategies and architectures</h2>{_table(header, rows)}"


def _trials(records: Sequence[TrialRecord], metric: str) -> str:
    ranked = sorted(records, key=lambda record: (record.status != COMPLETE, -record.value if record.values else 0.0))
    rows = [
        (
            str(record.number),
            escape(record.status),
            f"{len(record.reports)} / {record.epochs}",
            f"{record.value:.4f}" if record.values else "",
            f"{record.scores.macro_f1:.4f}" if record.scores else "",
            f"{record.scores.worst_class_f1:.4f}" if record.scores else "",
            escape(memory_of(record).removeprefix("memory ")),
            escape(", ".join(f"{key} {number(value)}" for key, value in record.config.items())),
            escape(record.reason),
        )
        for record in ranked
    ]
    header = ("trial", "status", "epochs", metric, "macro-F1", "worst class", "memory", "configuration", "reason")
    return f"<h2>All trials</h2>{_table(header, rows, words=(6, 7, 8))}"


def _origin(folder: StudyFolder, provenance: dict[str, Any]) -> str:
    header = ("started", "host", "device", "command")
    attempts = [[escape(attempt[key]) for key in header] for attempt in provenance["attempts"]]
    versions = ", ".join(f"{name} {version}" for name, version in provenance["attempts"][-1]["versions"].items())
    return f"""<h2>Where this comes from</h2>{_table(header, attempts)}
<p>{escape(versions)}. Data fingerprint {provenance["data"]["fingerprint"]}.</p>
<pre>{escape(folder.resolved.read_text("utf-8"))}</pre>"""


def _score_table(scores: Scores, classes: Sequence[str]) -> str:
    rows = [
        (
            escape(name),
            *(_percent(v[k]) for v in (scores.precision, scores.recall, scores.f1)),
            f"{scores.support[k]:,}",
        )
        for k, name in enumerate(classes)
    ]
    rows.append(("<b>macro</b>", "", "", f"<b>{_percent(scores.macro_f1)}</b>", f"{sum(scores.support):,}"))
    rows.append(("balanced macro", "", "", _percent(scores.balanced_macro_f1), ""))
    rows.append(("accuracy", "", "", _percent(scores.accuracy), ""))
    return _table(("class, %", "precision", "recall", "F1", "wafers"), rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], *, words: tuple[int, ...] = ()) -> str:
    """Lay out cells that are HTML already; columns in `words` may wrap."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join(
        f"<tr>{''.join(f'<td{_wrap(i in words)}>{cell}</td>' for i, cell in enumerate(row))}</tr>" for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _wrap(is_words: bool) -> str:
    return ' class="words"' if is_words else ""


def _percent(value: float | None) -> str:
    return "" if value is None or value != value else f"{100 * value:.2f}"


def _image(png: bytes, alt: str) -> str:
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
