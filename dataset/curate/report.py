"""report.html: one self-contained page about a run. Every number on it is the manifest's."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from dataset.curate.journal import Journal, Record
from dataset.curate.pipeline import Progress, statistics_of
from dataset.curate.plots import draw_all
from dataset.curate.settings import Settings
from dataset.curate.writer import Decided
from dataset.images import ImageError, decode_image
from utils.files import replacing

NUM_EXAMPLES = 6  # of the kept and of the dropped
NUM_SHOWN_ATTEMPTS = 3
MAX_CHARS = 700
THUMBNAIL = (260, 200)

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#22252b;max-width:1120px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin-bottom:.2rem} h2{font-size:1.1rem;margin:2.2rem 0 .6rem;border-bottom:1px solid #e3e5e9}
code,pre{font:12.5px/1.45 ui-monospace,monospace} pre{white-space:pre-wrap;word-break:break-word;margin:0}
.command{background:#f4f5f7;padding:.6rem .8rem;border-radius:6px}
.tiles{display:flex;flex-wrap:wrap;gap:.8rem;margin:1rem 0}
.tile{background:#f4f5f7;border-radius:8px;padding:.6rem 1rem}
.tile b{display:block;font-size:1.35rem} .tile span{color:#646a75;font-size:.85rem}
table{border-collapse:collapse;margin:.4rem 0} td,th{padding:.25rem .8rem .25rem 0;text-align:left;vertical-align:top;
border-bottom:1px solid #eceef1} td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
figure{display:inline-block;margin:.4rem .6rem .8rem 0;vertical-align:top} figcaption{color:#646a75;font-size:.85rem}
figure img{max-width:100%} .half img{width:530px} .full img{width:1080px}
.example{display:flex;gap:1rem;border:1px solid #e3e5e9;border-radius:8px;padding:.8rem;margin:.7rem 0}
.example .images{flex:0 0 270px}
.example img{max-width:260px;display:block;margin-bottom:.4rem;border:1px solid #eceef1}
.example .text{flex:1;min-width:0} .kept{border-left:4px solid #1b7f5c} .dropped{border-left:4px solid #c0c4cc}
.muted{color:#646a75;font-size:.85rem}
"""


def write_report(
    settings: Settings,
    manifest: Mapping[str, Any],
    decided: Sequence[Decided],
    journal: Journal,
    progress: Progress,
) -> Path:
    """Draw the figures and write report.html beside the manifest; returns its path."""
    figures = draw_all(settings.work_dir, manifest, decided) if manifest["counts"]["measured"] else []
    examples = [
        (title, outcome, [journal.read(progress.offsets[d.position]) for d in chosen])
        for title, outcome, chosen in (
            ("Kept", "kept", _spread([d for d in decided if d.outcome == "kept"])),
            ("Dropped", "dropped", _spread([d for d in decided if d.outcome == "dropped"])),
        )
    ]
    reasons = {d.position: d.reason for d in decided}
    body = [
        _head(settings, manifest),
        _tiles(manifest),
        _comparison(manifest),
        "<h2>Figures</h2>" if figures else "<p>No sample was measured, so there is nothing to draw.</p>",
        *(_figure(caption, path, wide=i >= 4) for i, (caption, path) in enumerate(figures)),
        _reasons(manifest),
        _sweep_table(manifest),
        *(_examples(title, outcome, records, reasons) for title, outcome, records in examples),
        _rejected(manifest),
        _throughput(manifest),
    ]
    title = html.escape(f"Curation of {settings.source.name}")
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )
    path = settings.work_dir / "report.html"
    with replacing(path) as file:
        file.write(page.encode("utf-8", "replace"))
    return path


def _head(settings: Settings, manifest: Mapping[str, Any]) -> str:
    measured = manifest["measurement"]
    command = html.escape(" ".join(manifest["command"]))
    complete = "" if manifest["complete"] else " The run is not complete: continue it with --incremental."
    return (
        f"<h1>Curation of {html.escape(settings.source.name)}</h1>"
        f"<p class=muted>{html.escape(str(measured['model']))}, {measured['rollout_n']} attempts at temperature "
        f"{measured['temperature']:g}, split {html.escape(measured['dataset_split'])}, seed {measured['seed']}."
        f"{complete}</p><pre class=command>{command}</pre>"
    )


def _tiles(manifest: Mapping[str, Any]) -> str:
    counts = manifest["counts"]
    names = ("examined", "measured", "kept", "dropped", "rejected")
    tiles = "".join(f"<div class=tile><b>{counts[name]}</b><span>{name}</span></div>" for name in names)
    return f"<div class=tiles>{tiles}</div>"


def _comparison(manifest: Mapping[str, Any]) -> str:
    rows = [
        ("samples", "num_samples"),
        ("mean reward", "mean_reward"),
        ("mean reward variance", "mean_variance"),
    ]
    rows += [("mean gap Pass@N - Pass@1", "mean_gap"), ("mean tokens per answer", "mean_tokens")]
    lines = [(label, manifest["raw"][key], manifest["kept"][key]) for label, key in rows]
    for k in manifest["raw"]["pass_at"]:
        lines.append((f"Pass@{k}", manifest["raw"]["pass_at"][k], manifest["kept"]["pass_at"].get(k)))
    return "<h2>Before and after selection</h2>" + _table(("", "all measured", "kept"), lines)


def _reasons(manifest: Mapping[str, Any]) -> str:
    counts = manifest["counts"]
    lines = [("kept", "", counts["kept"])]
    lines += [("dropped", reason, n) for reason, n in counts["dropped_by_reason"].items()]
    lines += [("rejected", reason, n) for reason, n in counts["rejected_by_reason"].items()]
    return "<h2>What became of the rows</h2>" + _table(("outcome", "reason", "rows"), lines)


def _sweep_table(manifest: Mapping[str, Any]) -> str:
    parts = [
        "<h2>Threshold sweep</h2><p class=muted>Samples kept at other thresholds, the other rules unchanged.</p>"
    ]
    for name, points in manifest["sweep"].items():
        head = (name.replace("_", " "), *(f"{t:g}" if isinstance(t, float) else str(t) for t, _ in points))
        parts.append(_table(head, [("kept", *(n for _, n in points))]))
    return "".join(parts)


def _rejected(manifest: Mapping[str, Any]) -> str:
    rows = manifest["rejected_rows"]
    if not rows:
        return ""
    lines = [(row["id"], row["reason"], row["message"]) for row in rows[:50]]
    note = f"<p class=muted>The first {len(lines)} of {manifest['counts']['rejected']}.</p>"
    return "<h2>Rejected rows</h2>" + note + _table(("id", "reason", "message"), lines)


def _throughput(manifest: Mapping[str, Any]) -> str:
    numbers = manifest["throughput"]
    return "<h2>Throughput of the last run</h2>" + _table(
        ("", ""), [(name.replace("_", " "), value) for name, value in numbers.items()]
    )


def _examples(title: str, outcome: str, records: Sequence[Record], reasons: Mapping[int, str | None]) -> str:
    if not records:
        return ""
    return f"<h2>{title}: examples</h2>" + "".join(_example(record, outcome, reasons) for record in records)


def _example(record: Record, outcome: str, reasons: Mapping[int, str | None]) -> str:
    header = record.header
    sample, statistics = header["sample"], statistics_of(header)
    images = "".join(f'<img src="{_thumbnail(blob)}" alt="">' for blob in record.blobs[:4])
    attempts = header["attempts"]
    best = max(range(len(attempts)), key=lambda i: attempts[i]["reward"])
    worst = min(range(len(attempts)), key=lambda i: attempts[i]["reward"])
    shown = list(dict.fromkeys([best, worst, *range(len(attempts))]))[:NUM_SHOWN_ATTEMPTS]
    lines = [(i + 1, attempts[i]["reward"], attempts[i]["status"], _clip(attempts[i]["text"])) for i in shown]
    reason = reasons.get(header["position"])
    n = statistics.num_attempts
    return (
        f'<div class="example {outcome}"><div class=images>{images}</div><div class=text>'
        f"<p class=muted>{html.escape(sample['id'])} · {html.escape(sample['answer_type'])} · "
        f"Pass@1 {statistics.pass_at_1:.2f}, Pass@{n} {statistics.pass_at[n]:.2f}, mean reward "
        f"{statistics.mean_reward:.3f}{' · ' + html.escape(reason) if reason else ''}</p>"
        f"<pre>{html.escape(_clip(sample['problem']))}</pre>"
        f"<p><b>Reference:</b> <code>{html.escape(_clip(' | '.join(sample['answer']), 300))}</code></p>"
        f"{_table(('attempt', 'reward', 'status', 'answer'), lines, pre=3)}</div></div>"
    )


def _figure(caption: str, path: Path, *, wide: bool) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    size = "full" if wide else "half"
    return (
        f'<figure class={size}><img src="data:image/png;base64,{data}" alt="{html.escape(caption)}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def _table(head: Sequence[str], lines: Sequence[Sequence[Any]], pre: int | None = None) -> str:
    def cell(i: int, value: Any) -> str:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return (
                f"<td class=n>{value:.4g}</td>" if isinstance(value, float) else f"<td class=n>{value}</td>"
            )
        text = html.escape("-" if value is None else str(value))
        return f"<td><pre>{text}</pre></td>" if i == pre else f"<td>{text}</td>"

    numeric = [any(isinstance(line[i], int | float) for line in lines) for i in range(len(head))]
    top = "".join(f"<th class={'n' if numeric[i] else 't'}>{html.escape(h)}</th>" for i, h in enumerate(head))
    rows = "".join(f"<tr>{''.join(cell(i, v) for i, v in enumerate(line))}</tr>" for line in lines)
    return f"<table><tr>{top}</tr>{rows}</table>"


def _thumbnail(blob: bytes) -> str:
    try:
        image: Image.Image = decode_image(blob).copy()
    except ImageError:
        return ""
    image.thumbnail(THUMBNAIL)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _clip(text: str, limit: int = MAX_CHARS) -> str:
    return text if len(text) <= limit else text[:limit] + f" ... ({len(text)} characters)"


def _spread(decided: Sequence[Decided]) -> list[Decided]:
    """A few, evenly over the run, one reason after the other."""
    step = max(1, len(decided) // NUM_EXAMPLES)
    return list(decided[::step][:NUM_EXAMPLES])
