"""Known vulnerabilities of the installed packages, by pip-audit; without a network it says so and ends well.

python tools/audit_packages.py     # exit code 1 where there are any
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


def main() -> int:
    """Ask, and print what there is to say."""
    words = [sys.executable, "-m", "pip_audit", "--skip-editable", "--progress-spinner", "off", "--format", "json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        why = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        return skipped(why)
    asked = [package for package in packages if "skip_reason" not in package]
    if not asked:
        return skipped(f"of {len(packages)} packages nothing was found where advisories are asked for")
    lines = list(described(asked))
    print(*lines, f"pip-audit: {len(asked)} packages, {len(lines)} known vulnerabilities", sep="\n")
    return 1 if lines else 0


def skipped(why: str) -> int:
    """Say that nothing was learnt."""
    print(f"pip-audit: skipped, advisories cannot be reached from here ({why})")
    return 0


def described(packages: list[dict[str, Any]]) -> list[str]:
    """A line for each vulnerability."""
    return [
        f"{package['name']} {package['version']}: {found['id']}, "
        f"mended in {', '.join(found['fix_versions']) or 'no version yet'}"
        for package in packages
        for found in package["vulns"]
    ]


if __name__ == "__main__":
    raise SystemExit(main())
