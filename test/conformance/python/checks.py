"""Runs checks one after another and prints what came of them as one JSON object.

A check is a function; it passes when it returns, fails when it raises, and is skipped when it raises Skip. The text that it
returns, if any, is its detail.
"""

import json
import sys
import traceback


class Skip(Exception):
    """Raised by a check that has nothing to check here, with the reason."""


class Checks:
    def __init__(self, client):
        self._client = client
        self._results = []

    def run(self, name, function):
        try:
            detail = function()
            status = "passed"
        except Skip as reason:
            status, detail = "skipped", str(reason)
        except Exception as error:  # every failure is a result
            where = traceback.extract_tb(error.__traceback__)[-1]
            status = "failed"
            detail = f"{type(error).__name__}: {error} ({where.name}, line {where.lineno})"
        self._results.append({"name": name, "status": status, "detail": detail or ""})

    def finish(self):
        """Prints the results; the exit code is 1 when a check failed or none ran."""
        count = {
            status: sum(1 for result in self._results if result["status"] == status)
            for status in ("passed", "failed", "skipped")
        }
        print(json.dumps({"client": self._client, **count, "checks": self._results}, indent=1))
        sys.exit(1 if count["failed"] > 0 or count["passed"] == 0 else 0)


def expect(actual, wanted, what):
    if actual != wanted:
        raise AssertionError(f"{what} is {actual!r}, expected {wanted!r}")
