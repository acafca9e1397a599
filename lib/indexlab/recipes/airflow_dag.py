"""The stage notebooks as they are, in Airflow: audit, measure, build, measure again, per target.

Put this file into the DAGs folder. The workers need `indexlab` and
`apache-airflow-providers-papermill`. A target is a service of the workers' pg_service.conf, and its
password is in their .pgpass: nothing secret is in a parameter, and so in none of the notebooks that
are kept. Trigger it with `execute` to build; without, apply is a dry run and nothing is changed.
"""

from __future__ import annotations

from pathlib import Path

from airflow import DAG
from airflow.models.param import Param
from airflow.providers.papermill.operators.papermill import PapermillOperator

from indexlab import render

INDEXES = Path("/srv/indexes")
"""Where the plan and the workload are; each run makes a directory below `reports/`."""
TARGETS = ("shop_eu", "shop_us")

with DAG(
    dag_id="indexlab",
    schedule=None,
    catchup=False,
    max_active_runs=1,
    params={"execute": Param(default=False, type="boolean", description="build the indexes")},
    render_template_as_native_obj=True,  # execute stays a bool
    # A run's directory holds each stage once: to try again, trigger a new run, which converges.
    default_args={"retries": 0},
    tags=["postgresql", "indexes"],
) as dag:
    for name in TARGETS:
        reports = f"{INDEXES}/reports/airflow/{{{{ run_id }}}}/{name}"
        inputs = {
            "target": f"service={name}",
            "plan": f"{INDEXES}/plan.sql",
            "workload": f"{INDEXES}/workload.sql",
        }
        audit = PapermillOperator(
            task_id=f"audit_{name}",
            input_nb=str(render.notebook("audit")),
            output_nb=f"{reports}/audit.ipynb",
            parameters={**inputs, "out": reports},
        )
        before = PapermillOperator(
            task_id=f"before_{name}",
            input_nb=str(render.notebook("benchmark")),
            output_nb=f"{reports}/before/benchmark.ipynb",
            parameters={**inputs, "out": f"{reports}/before", "label": "before"},
        )
        build = PapermillOperator(
            task_id=f"apply_{name}",
            input_nb=str(render.notebook("apply")),
            output_nb=f"{reports}/apply.ipynb",
            parameters={**inputs, "out": reports, "execute": "{{ params.execute }}"},
        )
        after = PapermillOperator(
            task_id=f"after_{name}",
            input_nb=str(render.notebook("benchmark")),
            output_nb=f"{reports}/benchmark.ipynb",
            parameters={
                **inputs,
                "out": reports,
                "label": "after",
                "baseline": f"{reports}/before",
            },
        )
        audit >> before >> build >> after
