"""The model card: what a model is, what it learned from, what it reaches, where it fails; every number from a file.

Numbers come from `fcos eval --json` (or metrics.json of `fcos eval --out`), the recipe from the run folder, and
what no file can know (data and its licence, targets, published results to stand beside) from a YAML file of facts.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from ..errors import ConfigError, FcosError, worded
from ..network import weights
from ..network.header import Name, StoredPart
from ..system.core_yaml import read_yaml
from ..system.environment import RUN_FILE
from ..system.files import ASSETS
from ..system.readers import TEXT_LIMIT, read_json

HEADLINE = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR@100", "VOC_AP50", "VOC_AP50_11point")
_CALIBRATED = (
    "With `decode.calibrated=true` a score is the probability that the detection is right (its class, at IoU 0.5), by "
    "lines fitted on {}; without it scores are as the network gives them (docs/evaluation.md)."
)
WORST = 5  # classes named among the weaknesses


@dataclass(frozen=True)
class Facts:
    """What a person has to say; all optional.

    targets: wanted numbers by name ("AP50": 0.62). beside: published results, each {"name": ..., "source": ...} and
    numbers by name. notes: sentences for the weaknesses.
    """

    summary: str = ""
    data: str = ""
    data_licence: str = ""
    licence: str = ""
    machine: str = ""
    targets: Mapping[str, float] | None = None
    beside: Sequence[Mapping[str, Any]] = ()
    notes: Sequence[str] = ()


def read_facts(path: str | Path) -> Facts:
    """Facts of a YAML file; ConfigError for a key that is none of them."""
    data = read_yaml(path, kind=ConfigError) or {}
    known = [f.name for f in fields(Facts)]
    unknown = [k for k in data if k not in known] if isinstance(data, dict) else [data]
    if unknown:
        raise ConfigError(f"{path}: {unknown[0]!r} is no fact; facts are {', '.join(known)}")
    try:
        return TypeAdapter(Facts).validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{path}: {'.'.join(map(str, first['loc']))}: {worded(first['msg']).lower()}") from None


class _OfClass(StoredPart):
    """What is read of a class's row."""

    model_config = ConfigDict(strict=True, extra="allow")

    name: Name
    objects: int
    AP: float | None = None
    AP50: float | None = None
    VOC_AP50_11point: float | None = None
    best_F1: float | None = None
    best_F1_score: float | None = None


class _Measured(StoredPart):
    """What is read of an evaluation."""

    model_config = ConfigDict(strict=True, extra="allow")

    data: Name
    split: Name
    images: int
    AP: float | None
    AP50: float | None = None
    AP75: float | None = None
    VOC_AP50_11point: float | None = None
    AP_small: float | None = None
    AP_medium: float | None = None
    AP_large: float | None = None
    per_class: list[_OfClass]


def read_metrics(path: str | Path, told: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The object that `fcos eval --json` printed. `told`: the data and split of a file that does not say them,
    metrics.json of a run."""
    metrics: dict[str, Any] = read_json(path, TEXT_LIMIT)
    if told is not None and isinstance(metrics, dict):
        metrics = {**told, **metrics}
    try:
        _Measured.model_validate(metrics)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "it"
        raise FcosError(
            f"{path} is not the result of fcos eval --json ({where}: {worded(first['msg']).lower()}); make it with that"
        ) from None
    return metrics


def judged(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What the weights file keeps of an evaluation: the headline numbers and what they were measured on."""
    where = f"{Path(str(metrics['data'])).name} {metrics['split']}, {metrics['images']} images"
    return {
        **{k: metrics[k] for k in ("AP", "AP50", "AP75", "VOC_AP50_11point") if k in metrics},
        "judged_on": where,
    }


def recipe(run: Path) -> dict[str, Any]:
    """Command (without the folders in front of its paths), date, versions and machine of a run folder; empty where it
    says nothing."""
    try:
        stored = read_json(run / RUN_FILE, TEXT_LIMIT)
    except FcosError:
        return {}
    if not isinstance(stored, dict):
        return {}
    keys = ("command", "date", "commit", "fcos", "torch", "machine", "gpu")
    told = {k: stored[k] for k in keys if isinstance(stored.get(k), str) and stored[k]}
    if "command" in told:  # /home/me/data/voc2007 is nobody's business
        told["command"] = _without_folders(told["command"])
    return told


def _without_folders(command: str) -> str:
    """A command whose paths and addresses are the last names of them."""
    lexer = shlex.shlex(command, posix=True)
    lexer.whitespace_split, lexer.escape, lexer.commenters = True, "", ""  # a backslash is of a path of Windows
    try:
        words = list(lexer)
    except ValueError:  # an open quotation mark
        words = command.split()
    return shlex.join(map(_last_name, words))


def _last_name(word: str) -> str:
    option, path = re.fullmatch(r"((?:--?)?[\w.-]+=)?(.*)", word, re.DOTALL).groups()  # type: ignore[union-attr]
    path = path.partition("?")[0] if "://" in path else path  # behind it there may be a key
    return (option or "") + re.sub(r".*[/\\](?=[^/\\])", "", path.rstrip("/\\"), flags=re.DOTALL)


@dataclass(frozen=True)
class Evidence:
    """Where a card's statements come from: the result of `fcos eval --json` (None: the numbers that the weights file
    itself keeps), the run folder, a person's facts, and images as (address, caption). `title`: the heading, where the
    name of the model is a path."""

    metrics: Mapping[str, Any] | None = None
    run: Path | None = None
    facts: Facts | None = None
    images: Sequence[tuple[str, str]] = ()
    title: str = ""


def card(name: str, path: str | Path, evidence: Evidence | None = None, *, front: bool = False) -> str:
    """The card of the weights file `path`, which --model takes by `name`, as Markdown; `front` puts the Hub's metadata
    in front."""
    evidence = evidence or Evidence()
    metrics, run, facts = evidence.metrics, evidence.run, evidence.facts or Facts()
    path = Path(path)
    config, classes, about = weights.header(path)
    made = {**about, **(recipe(run) if run is not None else {})}
    numbers: Mapping[str, Any] = metrics if metrics is not None else about
    licence = facts.licence or about.get("licence", "")
    lines: list[str] = []
    if front:
        lines += ["---", "library_name: fcos", "pipeline_tag: object-detection"]
        lines += [f"license: {licence.lower()}"] if licence else []
        lines += ["tags: [fcos, object-detection, anchor-free]", "---", ""]
    lines += [f"# {evidence.title or name}", ""]
    lines += [facts.summary.strip() or f"FCOS (arXiv 1904.01355) with the backbone {config.model.backbone}.", ""]
    rows = [
        ("backbone", config.model.backbone),
        ("parameters", f"{about['parameters'] / 1e6:.2f} M" if "parameters" in about else ""),
        ("file", f"{path.stat().st_size / 1e6:.1f} MB"),
        ("input", f"shorter side {config.data.size} px, longer side up to {config.data.max_size}"),
        ("classes", f"{len(classes)}: {', '.join(classes.names)}"),
        ("dialect", "" if config.dialect == "fcos" else config.dialect),
        ("licence of the weights", licence),
    ]
    lines += ["| | |", "|---|---|", *(f"| {k} | {v} |" for k, v in rows if v), ""]
    lines += ["```", f"fcos predict photo.jpg --model {shlex.quote(name)}", "```", ""]
    lines += _section("Data", [facts.data.strip(), facts.data_licence and f"Licence: {facts.data_licence.strip()}"])
    lines += _recipe(made, facts)
    lines += _numbers(numbers, facts, metrics)
    if config.decode.calibration:
        lines += _section("Scores as probabilities", [_CALIBRATED.format(about.get("calibrated_on", "other images"))])
    lines += _weaknesses(metrics, facts)
    if evidence.images:
        lines += ["## Detections", ""]
        for address, caption in evidence.images:
            lines += [f"![{caption}]({address})", "", caption, ""]
    return "\n".join(lines).rstrip() + "\n"


def _section(title: str, paragraphs: Sequence[str]) -> list[str]:
    shown = [p for p in paragraphs if p]
    return [f"## {title}", "", "\n\n".join(shown), ""] if shown else []


def _recipe(made: Mapping[str, Any], facts: Facts) -> list[str]:
    told = [
        ("date", str(made.get("date", ""))[:10]),
        ("commit", made.get("commit", "")),
        ("machine", facts.machine or ", ".join(str(made[k]) for k in ("machine", "gpu") if made.get(k))),
        ("steps", made.get("step", "")),
        ("versions", ", ".join(f"{k} {made[k]}" for k in ("fcos", "torch") if made.get(k))),
    ]
    lines = ["| | |", "|---|---|", *(f"| {k} | {v} |" for k, v in told if v)]
    if len(lines) == 2 and not made.get("command"):
        return []
    command = ["```", str(made["command"]), "```", ""] if made.get("command") else []
    return ["## Recipe", "", *command, *(lines if len(lines) > 2 else []), ""]


def _numbers(numbers: Mapping[str, Any], facts: Facts, metrics: Mapping[str, Any] | None) -> list[str]:
    shown = [k for k in HEADLINE if isinstance(numbers.get(k), int | float)]
    if not shown:
        return []
    where = judged(metrics)["judged_on"] if metrics is not None else numbers.get("judged_on", "")
    targets = facts.targets or {}
    columns = ["", "this model", *(["target"] if targets else []), *(str(b.get("name", "")) for b in facts.beside)]
    lines = ["## Numbers", "", f"Measured with `fcos eval` on {where}." if where else "", ""]
    lines += ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for key in shown:
        wanted = [f">= {targets[key]:g}" if key in targets else ""] if targets else []
        others = [f"{b[key]:.3f}" if isinstance(b.get(key), int | float) else "" for b in facts.beside]
        lines.append("| " + " | ".join([key.replace("_", " "), f"{numbers[key]:.3f}", *wanted, *others]) + " |")
    lines += ["", *(f"{b.get('name')}: {b['source']}" for b in facts.beside if b.get("source"))]
    if metrics is not None and metrics["per_class"]:
        lines += ["", "| class | objects | AP | AP50 | VOC AP50 11-point | best F1 | at score |"]
        lines.append("|---" * 7 + "|")
        keys = ("AP", "AP50", "VOC_AP50_11point", "best_F1", "best_F1_score")
        for row in metrics["per_class"]:
            values = [f"{row[k]:.3f}" if row.get(k) is not None else "-" for k in keys]
            lines.append("| " + " | ".join([row["name"], str(row["objects"]), *values]) + " |")
    return [*lines, ""]


def _weaknesses(metrics: Mapping[str, Any] | None, facts: Facts) -> list[str]:
    lines = []
    if metrics is not None:
        known = [r for r in metrics["per_class"] if r.get("AP50") is not None]
        if len(known) > 2:
            worst = sorted(known, key=lambda r: r["AP50"])[: min(WORST, len(known) // 2)]
            named = ", ".join(f"{r['name']} ({r['AP50']:.3f})" for r in worst)
            lines.append(f"- The weakest classes by AP50: {named}.")
        sizes = [(k, metrics.get(f"AP_{k}")) for k in ("small", "medium", "large")]
        if all(v is not None for _, v in sizes):
            told = ", ".join(f"{k} {v:.3f}" for k, v in sizes)
            lines.append(f"- AP by size of the object: {told} (small: below 32 x 32 pixels of the image).")
    lines += [f"- {note}" for note in facts.notes]
    return ["## Known weaknesses", "", *lines, ""] if lines else []


# --------------------------------------------------------------------------- images


def photographs() -> Path:
    """The bundled photographs as a data set, with the objects on them."""
    return ASSETS / "photos" / "instances.json"
