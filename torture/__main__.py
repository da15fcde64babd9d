"""Try to break `curate` and `srood`, and count what happened (docs/reliability.md).

python -m torture                          # everything; hours
python -m torture --quick                  # the part that `make test` runs too
python -m torture "bad images" --seed 7    # one area
python -m torture --json results/torture.json --page docs/reliability.md
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from torture import table
from torture.areas import AREAS
from torture.trial import Effort


def main() -> int:
    """Run the areas that were asked for; 1 if any trial failed."""
    parser = argparse.ArgumentParser(
        prog="python -m torture", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("areas", nargs="*", metavar="AREA", help=f"of {', '.join(AREAS)}; by default all")
    parser.add_argument("--quick", action="store_true", help="few repetitions of each")
    parser.add_argument("--seed", type=int, default=0, help="decides every random choice")
    parser.add_argument("--minutes", type=float, default=60.0, help="of trials that only time can fail")
    parser.add_argument("--share", type=float, default=1.0, help="of the repetitions of a full run, 0 to 1")
    parser.add_argument("--folder", type=Path, help="where trials may write; by default the system's")
    parser.add_argument("--json", type=Path, help="write the counts here; areas that did not run keep theirs")
    parser.add_argument("--page", type=Path, help="a Markdown page whose tables to replace by those of --json")
    options = parser.parse_args()
    if options.page and not options.json:
        parser.error("--page shows what --json holds: give that too")
    if unknown := [name for name in options.areas if name not in AREAS]:
        parser.error(f"no area {unknown[0]!r}; there are {', '.join(AREAS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends what it started, and tidies up
    data = os.environ.get("SROOD_DATA")
    failed = 0
    for name in options.areas or AREAS:
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="torture-", dir=options.folder) as folder:
            effort = Effort(
                Path(folder), Path(data) if data else None, options.seed, options.quick, options.minutes, options.share
            )
            entries = table.count(table.watched(name, AREAS[name](effort)))
        seconds = round(time.monotonic() - started, 1)
        found = {"share": options.share, "seed": options.seed, "seconds": seconds, "faults": entries}
        results = _kept(options.json)  # read at last: areas may be run side by side
        results["areas"][name] = found
        print(table.lines({"areas": {name: found}}), flush=True)
        failed += sum(entry["failed"] for entry in entries)
        if options.json:
            results["areas"] = {area: results["areas"][area] for area in AREAS if area in results["areas"]}
            results["machine"] = {"system": platform.platform(), "python": platform.python_version()}
            options.json.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if options.page:
        table.put_into(options.page, _kept(options.json))
    return 1 if failed else 0


def _kept(path: Path | None) -> dict[str, Any]:
    """What areas that were run before found."""
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path and path.exists() else {"areas": {}}
    return kept


if __name__ == "__main__":
    raise SystemExit(main())
