"""The same work on many targets, on Dask: what to do, on whom, in which order, and what came of it.

A batch is planned from `targets.yaml` (`targets`), runs on a cluster (`cluster`, `workers`) one
process for each target (`nursery`, `work`), in waves and groups (`agenda`, `engine`), and keeps
`batch.json` and a run for each target where `--out` says (`stores`, `book`). Nothing is imported
here: a worker holds as little as it needs.
"""
