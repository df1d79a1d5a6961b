"""Generate the dashboards' JSON under generated/ from the code under dashboards/.

python grafana/build.py           write the files
python grafana/build.py --check   fail if a checked-in file is stale
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GENERATED = ROOT / "grafana" / "generated"

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


def stale(files: dict[Path, str]) -> list[Path]:
    """Files that differ from `files`, and files without a dashboard."""
    differing = [path for path, text in files.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    return sorted([*differing, *(set(GENERATED.glob("*.json")) - files.keys())])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is stale")
    check = parser.parse_args().check
    files = render()
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
