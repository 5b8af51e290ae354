#!/usr/bin/env python3
"""Writes what is generated of the charts: `scripts/charts.py`, or with --check compares and names what differs.

- charts/walstorage-crds/templates: the manifests of crds/, which come from the types, with what a chart adds;
- charts/walstorage/dashboards: the Grafana dashboard, from the table of panels below;
- charts/README.md: the table of values, from values.schema.json;
- the versions in Chart.yaml: that of the workspace.
"""

import json
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CHARTS = ROOT / "charts"
BEGIN, END = "<!-- values: generated -->", "<!-- values: end -->"

# Title, unit and the series with their legends; two panels in a row.
PANELS: list[tuple[str, str, list[tuple[str, str]]]] = [
    ("Writers by phase", "none", [("sum by (phase) (walstorage_operator_writers)", "{{phase}}")]),
    (
        "Entries that nobody has applied",
        "short",
        [("sum by (namespace, storage) (walstorage_operator_unapplied_entries)", "{{namespace}}/{{storage}}")],
    ),
    ("Oldest pod that waits for its writer", "s", [("max(walstorage_operator_gated_pod_oldest_seconds)", "age")]),
    (
        "Grants",
        "ops",
        [("sum by (result) (rate(walstorage_operator_grants_total[$__rate_interval]))", "{{result}}")],
    ),
    (
        "Appends",
        "ops",
        [("sum by (result) (rate(walstorage_appends_total[$__rate_interval]))", "{{result}}")],
    ),
    (
        "Time to acknowledgement",
        "s",
        [
            (
                f"histogram_quantile({q}, sum by (le) (rate(walstorage_ack_seconds_bucket[$__rate_interval])))",
                f"p{q * 100:g}",
            )
            for q in (0.5, 0.99)
        ],
    ),
    (
        "Write and sync of a commit, 99 %",
        "s",
        [
            (
                "histogram_quantile(0.99, sum by (le, pod, directory)"
                " (rate(walstorage_sync_seconds_bucket[$__rate_interval])))",
                "{{pod}} {{directory}}",
            )
        ],
    ),
    (
        "Directories that are not healthy",
        "none",
        [
            (
                'sum by (state) (walstorage_directory_state{state!~"healthy|slow"})',
                "{{state}}",
            )
        ],
    ),
    (
        "Used of each directory",
        "percentunit",
        [
            (
                "walstorage_directory_used_bytes / (walstorage_directory_used_bytes + walstorage_directory_free_bytes)",
                "{{pod}} {{directory}}",
            )
        ],
    ),
    ("Memory for entries", "bytes", [("walstorage_memory_used_bytes", "{{pod}}")]),
    ("Journal by its bound", "percentunit", [("walstorage_journal_used_ratio", "{{pod}} {{directory}}")]),
    (
        "Entries lost in gaps",
        "short",
        [("sum by (pod) (increase(walstorage_gap_entries_total[$__range]))", "{{pod}}")],
    ),
]


def version() -> str:
    """The version of the workspace."""
    return str(tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"])


def crd_template(manifest: str) -> str:
    """A manifest as a template: kept at uninstall, with the labels and annotations of the values."""
    if "{{" in manifest:
        raise SystemExit("a manifest holds {{, which a template would read")
    head = "metadata:\n  annotations:\n"
    if manifest.count(head) != 1:
        raise SystemExit(f"a manifest has not exactly one {head!r}")
    added = (
        "metadata:\n"
        "  labels:\n"
        "    helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}\n"
        "    app.kubernetes.io/managed-by: {{ .Release.Service }}\n"
        "    app.kubernetes.io/part-of: walstorage\n"
        "    {{- with .Values.labels }}\n"
        "    {{- toYaml . | nindent 4 }}\n"
        "    {{- end }}\n"
        "  annotations:\n"
        "    helm.sh/resource-policy: keep\n"
        "    {{- with .Values.annotations }}\n"
        "    {{- toYaml . | nindent 4 }}\n"
        "    {{- end }}\n"
    )
    return manifest.replace(head, added)


def dashboard() -> str:
    """The dashboard in Grafana's JSON."""
    source = {"type": "prometheus", "uid": "${datasource}"}
    panels = [
        {
            "id": n + 1,
            "type": "timeseries",
            "title": title,
            "datasource": source,
            "gridPos": {"h": 8, "w": 12, "x": 12 * (n % 2), "y": 8 * (n // 2)},
            "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
            "targets": [
                {"refId": chr(ord("A") + m), "datasource": source, "expr": expression, "legendFormat": legend}
                for m, (expression, legend) in enumerate(series)
            ],
        }
        for n, (title, unit, series) in enumerate(PANELS)
    ]
    document = {
        "uid": "walstorage",
        "title": "WalStorage",
        "tags": ["walstorage"],
        "schemaVersion": 41,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [{"name": "datasource", "type": "datasource", "query": "prometheus"}]},
        "panels": panels,
    }
    return json.dumps(document, indent=2) + "\n"


def values(schema: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every value of a schema that has a description, by its path."""
    for name, part in schema["properties"].items():
        if "properties" in part:
            yield from values(part, f"{prefix}{name}.")
        elif "description" in part:
            yield prefix + name, part


def table(chart: str) -> str:
    """The values of a chart as a Markdown table."""
    schema = json.loads((CHARTS / chart / "values.schema.json").read_text())
    rows = ["| value | default | |", "|---|---|---|"]
    for path, part in values(schema):
        allowed = f" (allowed: {', '.join(f'`{word}`' for word in part['enum'])})" if "enum" in part else ""
        rows.append(f"| `{path}` | `{json.dumps(part['default'])}` | {part['description']}{allowed} |")
    return "\n".join(rows) + "\n"


def defaults(schema: dict[str, Any]) -> dict[str, Any]:
    """The values that a schema names as defaults, whole: what values.yaml must say."""
    parts = schema["properties"].items()
    nested = {name: defaults(part) for name, part in parts if "properties" in part}
    return nested | {name: part["default"] for name, part in parts if "default" in part}


def readme(text: str) -> str:
    """README.md with its tables."""
    for chart in ("walstorage", "walstorage-crds"):
        begin = BEGIN.replace("values", f"values of {chart}")
        start, end = text.index(begin) + len(begin), text.index(END, text.index(begin))
        text = f"{text[:start]}\n{table(chart)}{text[end:]}"
    return text


def generated() -> dict[Path, str]:
    """Every generated file and its text."""
    crds = sorted((ROOT / "crds").glob("*.yaml"))
    files = {CHARTS / "walstorage-crds" / "templates" / crd.name: crd_template(crd.read_text()) for crd in crds}
    files[CHARTS / "walstorage" / "dashboards" / "walstorage.json"] = dashboard()
    files[CHARTS / "README.md"] = readme((CHARTS / "README.md").read_text())
    for chart in ("walstorage", "walstorage-crds"):
        path = CHARTS / chart / "Chart.yaml"
        files[path] = re.sub(r"(?m)^(version|appVersion): .*$", rf"\1: {version()}", path.read_text())
    return files


def main() -> int:
    differing = [path for path, text in generated().items() if not path.exists() or path.read_text() != text]
    strays = set((CHARTS / "walstorage-crds" / "templates").glob("*.yaml")) - set(generated())
    if sys.argv[1:] == ["--check"]:
        for path in [*differing, *strays]:
            print(f"{path.relative_to(ROOT)} is not what scripts/charts.py writes: run `make generate`")
        return 1 if differing or strays else 0
    for path in differing:
        path.write_text(generated()[path])
    for path in strays:
        path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
