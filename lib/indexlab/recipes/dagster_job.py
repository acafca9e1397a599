"""A batch over all targets as a Dagster asset, every night: `dagster dev -f dagster_job.py`.

The command does the work, on Dask, with a process for each target; Dagster starts it, keeps the
counts as metadata, and fails where a target failed. Findings are no failure: they are counted.
Addresses and passwords are in the pg_service.conf and .pgpass of the machine that runs it.
"""

import json
import subprocess
from pathlib import Path

from dagster import (
    AssetExecutionContext,
    Definitions,
    Failure,
    MaterializeResult,
    MetadataValue,
    ScheduleDefinition,
    asset,
    define_asset_job,
)

INDEXES = Path("/srv/indexes")
"""Where targets.yaml and the plans are; each run makes a directory below `reports/`."""
FINE = (0, 1)
"""Exit codes of a batch that came to its end: no findings, or some."""


@asset(group_name="indexlab", description="What became of each index on each database.")
def index_matrix(context: AssetExecutionContext) -> MaterializeResult:
    """Audit every target and keep the matrix; fails where a target could not be audited."""
    out = INDEXES / "reports" / f"dagster-{context.run_id}"
    command = ["indexlab", "batch", "targets.yaml", "--stage", "audit", "--jobs", "4"]
    command += ["--timeout", "900", "--out", str(out)]
    done = subprocess.run(command, cwd=INDEXES, check=False)
    kept = out / "batch.json"
    if not kept.exists():
        raise Failure(f"indexlab batch left with {done.returncode} before it began")
    statuses = [target["status"] for target in json.loads(kept.read_text())["targets"]]
    metadata = {
        **{status: statuses.count(status) for status in ("ok", "findings", "failed", "not_run")},
        "matrix": MetadataValue.path(str(out / "index.html")),
        "table": MetadataValue.path(str(out / "matrix.parquet")),
    }
    if done.returncode not in FINE:
        raise Failure(f"indexlab batch left with {done.returncode}", metadata=metadata)
    return MaterializeResult(metadata=metadata)


nightly = define_asset_job("indexlab_nightly", selection=[index_matrix])
defs = Definitions(
    assets=[index_matrix],
    jobs=[nightly],
    schedules=[ScheduleDefinition(job=nightly, cron_schedule="30 2 * * *")],
)
