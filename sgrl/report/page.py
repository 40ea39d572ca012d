"""The report as a folder of files or as one file: safe to open and to send."""

from __future__ import annotations

import base64
import hashlib
import shlex
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from sgrl.errors import SgrlError
from sgrl.files import atomic_path, folder_lock
from sgrl.report import analysis, tables
from sgrl.report.charts import curve_charts
from sgrl.report.gallery import Gallery, to_json
from sgrl.report.runs import Curve, Run

HERE = Path(__file__).parent
SCRIPTS = ("page.js", "drawing.js", "gallery.js")
GENERATOR = '<meta name="generator" content="sgrl report">'
KINDS = {
    "objects": "hallucinated objects",
    "relations": "hallucinated relations",
    "missed": "missed relations",
    "failed": "no graph",
    "right": "everything right",
}
RESULTS = """<section id="results">
<h2>Results</h2>
{note}
<div class="scroll" tabindex="0" role="group" aria-label="table of results">{table}</div>
<p class="note">Means over images, with 95 % intervals over images, which say nothing about another training seed. An
object counts when its label is right and its box overlaps a reference box with IoU ≥ 0.5; a relation when both boxes
overlap and the predicate is right. An answer from which no graph can be read counts as zero everywhere.</p>
</section>"""


def _options(choices: dict[str, str]) -> str:
    return "".join(f'<option value="{value}">{name}</option>' for value, name in choices.items())


def _controls(runs: Sequence[Run]) -> dict[str, str]:
    """What can be filtered and sorted by depends on what the runs have."""
    scored = all(run.scored for run in runs)
    sorts = {"worst": "worst score first", "best": "best score first"} if scored else {}
    judge = ""
    if len(runs) > 1:
        names = "".join(
            f'<option value="{number}"{" selected" * (number == len(runs) - 1)}>{tables.short(run.name)}</option>'
            for number, run in enumerate(runs)
        )
        judge = f'<label><span>of</span><select name="run">{names}</select></label>'
        if scored:
            pair = f"{tables.short(runs[0].name)} → {tables.short(runs[-1].name)}"
            sorts |= {"gain": f"largest gain, {pair}", "loss": f"largest loss, {pair}"}
    kinds = KINDS if scored else {"failed": KINDS["failed"]}
    return {"sorts": _options(sorts), "kinds": _options(kinds), "judge": judge}


@dataclass(frozen=True)
class Frame:
    """What stands around a page.

    Args:
        title, subtitle: at its top. shown: which images the gallery holds. command: that made it.
        single: puts the gallery's data into the page.
        note: HTML to warn with; all other text is escaped.
    """

    title: str
    subtitle: str
    shown: str
    command: Sequence[str] = ()
    single: bool = False
    note: str = ""


def render(runs: Sequence[Run], curves: Sequence[Curve], gallery: Gallery, frame: Frame) -> str:
    """The page as text. All text in runs and curves is escaped."""
    script = "\n".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    charts = "".join(curve_charts(curve) for curve in curves)
    scored = [run for run in runs if run.scored]
    results = frame.note
    if scored:
        results = RESULTS.format(note=tables.coverage_note(runs) + results, table=tables.results(scored))
    behind, names = analysis.sections(runs)
    sections = {"results": "Results" if scored else "", "gallery": "Images", **names}
    sections |= {"training": "Training" if charts else "", "details": "Commands"}
    inside: dict[str, Any] = {"index": gallery.index}
    if frame.single:
        inside |= {f"chunk-{number}": chunk for number, chunk in enumerate(gallery.chunks)}
    return Template((HERE / "page.html").read_text(encoding="utf-8")).substitute(
        title=escape(frame.title),
        subtitle=escape(frame.subtitle),
        style=(HERE / "page.css").read_text(encoding="utf-8"),
        script=script,
        script_hash=digest,
        sources="" if frame.single else "'self' file:",
        nav="".join(f'<a href="#{name}">{text}</a>' for name, text in sections.items() if text),
        results=results,
        shown=escape(frame.shown),
        **_controls(runs),
        analysis=behind,
        curves=f'<section id="training"><h2>Training</h2>{charts}</section>' if charts else "",
        details=tables.details(runs, shlex.join(frame.command)),
        data="\n".join(
            f'<script type="application/json" id="{name}">{to_json(value)}</script>' for name, value in inside.items()
        ),
    )


def write_page(path: Path, text: str) -> None:
    """Write the page whole or not at all."""
    with atomic_path(path) as temporary:
        # What a model wrote may hold lone surrogates, which UTF-8 has no bytes for.
        temporary.write_bytes(text.encode("utf-8", errors="replace"))


class Folder:
    """A folder that becomes `path` at the end of the block, in place of an older report, or is removed on failure.

    Raises:
        SgrlError: `path` is something else than a report, or another process writes it.
    """

    def __init__(self, path: Path):
        self.path = path = path.resolve()
        self.part = path.with_name(f".{path.name}.part")
        self._lock = ExitStack()
        index = path / "index.html"
        if path.exists() and not (index.is_file() and GENERATOR in index.read_text("utf-8", "replace")[:2000]):
            empty = path.is_dir() and not any(path.iterdir())
            if not empty:
                raise SgrlError(f"{path} exists and is not a report; choose another --output")

    def __enter__(self) -> Path:
        self._lock.enter_context(folder_lock(self.path, beside=True))
        try:
            shutil.rmtree(self.part, ignore_errors=True)
            for name in ("images", "data"):
                (self.part / name).mkdir(parents=True)
        except BaseException:
            self.__exit__(OSError)
            raise
        return self.part

    def __exit__(self, kind, *_):
        with self._lock:
            if kind is None:
                if self.path.exists():
                    shutil.rmtree(self.path)
                self.part.rename(self.path)
            else:
                shutil.rmtree(self.part, ignore_errors=True)


def write_chunks(folder: Path, gallery: Gallery) -> None:
    """The graphs of the gallery as scripts that the page loads when they are looked at."""
    for number, chunk in enumerate(gallery.chunks):
        (folder / f"{number}.js").write_text(f"sgrlChunk({number},{to_json(chunk)});\n", encoding="ascii")
