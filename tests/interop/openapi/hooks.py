"""What no description can say: where a backup may go here, which firmware there is, and that an
answer should end."""

import itertools
import os

import schemathesis

BACKUPS = os.environ["OPENAPI_BACKUPS"]
FIRMWARE = os.environ["OPENAPI_FIRMWARE"]
numbers = itertools.count()


@schemathesis.hook
def before_call(context, case, kwargs):
    path, method = case.operation.path, case.operation.method.upper()
    if path == "/api/v1/backup" and isinstance(case.body, dict):
        # Into the site's own directory, and always a new one.
        wanted = case.body.get("path")
        if isinstance(wanted, str) and wanted.startswith("/"):
            case.body["path"] = f"{BACKUPS}/{next(numbers)}"
    if path == "/api/v1/deployments" and isinstance(case.body, dict):
        # Of ids that are made up none is there.
        if isinstance(case.body.get("firmware"), str) and next(numbers) % 2:
            case.body["firmware"] = FIRMWARE
    if path == "/api/v1/events" and method == "GET":
        # The stream has no end otherwise. What is no boolean is left to be refused.
        query = case.query if case.query is not None else {}
        if query.get("follow", True) in (True, "true"):
            query["follow"] = "false"
        case.query = query
