"""Generate the dashboards' JSON under generated/ from the code under dashboards/.

python grafana/build.py           write the files
python grafana/build.py --check   fail if a checked-in file is stale
python grafana/build.py --import FOLDER   write the checked-in files in the form that grafana.com and Grafana's
                                          import take; needs nothing but Python
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
GENERATED = ROOT / "grafana" / "generated"

#: The oldest that the dashboards are for, as in docker-compose.yml.
GRAFANA_VERSION = "12.1.0"
PANEL_NAMES = {"bargauge": "Bar gauge", "stat": "Stat", "table": "Table", "timeseries": "Time series"}

if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # run as a script, Python imports only from this folder


def render() -> dict[Path, str]:
    """Return the JSON of each dashboard by file."""
    with warnings.catch_warnings():
        # The library recommends the newer schema, which Grafana before 12 cannot provision from files.
        warnings.simplefilter("ignore", DeprecationWarning)
        from grafana_foundation_sdk.cog.encoder import JSONEncoder

        from grafana.dashboards import dashboards
        from grafana.panels import assign_panel_ids

    return {
        GENERATED / f"{name}.json": json.dumps(assign_panel_ids(make()), cls=JSONEncoder, indent=2, sort_keys=True)
        + "\n"
        for name, make in dashboards().items()
    }


def importable(text: str) -> dict[str, Any]:
    """A dashboard as Grafana exports it for others: it asks for the data source, and lists what it needs.

    Format: https://grafana.com/docs/grafana/latest/dashboards/share-dashboards-panels/#export-a-dashboard-as-json
    """
    board: dict[str, Any] = json.loads(text)
    source = {"type": "datasource", "id": "prometheus", "name": "Prometheus", "version": "1.0.0"}
    types = sorted({panel["type"] for panel in board["panels"]} - {"row"})
    for variable in board["templating"]["list"]:
        if variable["type"] == "datasource":
            variable["current"] = {"text": "${DS_PROMETHEUS}", "value": "${DS_PROMETHEUS}"}
    return {
        "__inputs": [
            {
                "name": "DS_PROMETHEUS", "label": "Prometheus", "description": "with the rules of gpu-advisor",
                "type": "datasource", "pluginId": "prometheus", "pluginName": "Prometheus",
            }
        ],
        "__elements": {},
        "__requires": [
            {"type": "grafana", "id": "grafana", "name": "Grafana", "version": GRAFANA_VERSION},
            source,
            *({"type": "panel", "id": each, "name": PANEL_NAMES[each], "version": ""} for each in types),
        ],
        **board,
        "id": None,
        "editable": True,
    }  # fmt: skip


def stale(files: dict[Path, str]) -> list[Path]:
    """Files that differ from `files`, and files without a dashboard."""
    differing = [path for path, text in files.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    return sorted([*differing, *(set(GENERATED.glob("*.json")) - files.keys())])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is stale")
    parser.add_argument("--import", dest="folder", type=Path, metavar="FOLDER", help="write files to import here")
    options = parser.parse_args()
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
        for path in GENERATED.glob("*.json"):
            board = importable(path.read_text(encoding="utf-8"))
            (options.folder / path.name).write_text(json.dumps(board, indent=2) + "\n", encoding="utf-8")
        return 0
    check, files = options.check, render()
    for path in stale(files):
        if check:
            print(f"{path.relative_to(ROOT)} is stale: run python grafana/build.py", file=sys.stderr)
        elif path in files:
            path.write_text(files[path], encoding="utf-8")
        else:
            path.unlink()
    return 1 if check and stale(files) else 0


if __name__ == "__main__":
    sys.exit(main())
