"""Writes docs/alerts.md, all alerts with their runbooks, from the rules and the advisor's policies.

python docs/build_alerts.py            writes it
python docs/build_alerts.py --check    ends with 1 if it is stale
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import yaml
from generated_page import main, table

DOCS = Path(__file__).parent
PAGE = DOCS / "alerts.md"
RULES = DOCS.parent / "prometheus" / "rules"
COMMAND = "python docs/build_alerts.py"

INTRODUCTION = f"""# Alerts

Made by `{COMMAND}` from the rules and runbooks: do not edit. Each alert links to its page in the annotation
`runbook_url`.

Two kinds, so that each is sent by who knows: **symptoms** are rules of Prometheus
([prometheus/rules](../prometheus/rules), with unit tests), **recommendations** are sent by the advisor itself to
every Alertmanager in its settings. A recommendation's alert has stable labels (`kind`, `scope_kind`, `scope`,
`recommendation_id`), is re-sent at every evaluation, and ends when its cause is over: never because data is missing,
and not while Alertmanager is away. [Alertmanager's example](../prometheus/alertmanager.yml) groups both kinds and
holds back what follows from another alert.

To hear nothing of one recommendation for a while, snooze it with a reason and an end ([API](api.md)).

## Symptoms
"""

ADVICE = """## Recommendations

`severity` is that of the recommendation. [How causes are told apart](diagnosis.md).
"""


def rules() -> list[dict[str, Any]]:
    """The alert rules as they stand in the files."""
    files = sorted(RULES.glob("*.yml"))
    groups = [group for path in files for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def text() -> str:
    """The page."""
    symptoms = rules()
    names = {rule["alert"] for rule in symptoms}
    rest = [path for path in sorted(DOCS.glob("runbooks/*.md")) if path.stem not in names and path.stem != "README"]
    return "\n".join(
        [
            INTRODUCTION,
            *table(
                ("alert", "severity", "after", "means"),
                [
                    (_link(rule["alert"]), rule["labels"]["severity"], rule.get("for", "at once"), _plain(rule))
                    for rule in symptoms
                ],
            ),
            "",
            ADVICE,
            *table(("alert", "means"), [(_link(path.stem), _first_sentence(path)) for path in rest]),
            "",
        ]
    )


def _link(name: str) -> str:
    return f"[{name}](runbooks/{name}.md)"


def _plain(rule: dict[str, Any]) -> str:
    """The summary, with the names of labels in place of their values."""
    return re.sub(r"\{\{ *\$labels\.(\w+) *\}\}", lambda m: m[1].upper(), rule["annotations"]["summary"])


def _first_sentence(path: Path) -> str:
    paragraph = path.read_text(encoding="utf-8").split("\n\n")[1].replace("\n", " ")
    said = paragraph.removeprefix("A recommendation, sent by the advisor itself: ")
    sentence = re.split(r"(?<=[.:]) ", said)[0].rstrip(".:")
    return f"{sentence[0].upper()}{sentence[1:]}."


if __name__ == "__main__":
    sys.exit(main(PAGE, text(), COMMAND))
