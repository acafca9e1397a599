"""Headless execution: notebooks through papermill, and the pages that people send to each other."""

from __future__ import annotations

import html
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from indexlab import progress
from indexlab.errors import IncompleteError, IndexlabError, InputError
from indexlab.progress import Step, Tell
from indexlab.render import stages
from indexlab.runs import Run

Parameter = str | int | float | bool
TYPES: Mapping[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (float, int),
    "bool": (bool,),
}
STAGES = ("audit", "apply", "benchmark")
ENGINE = "indexlab"
CHECKER = "rfc3987_syntax"
KERNEL_LOG = "kernel.log"


class StageFailed(IndexlabError):
    """A notebook's cell failed; the page says how far it came."""

    def __init__(self, message: str, exit_code: int, kind: str = ""):
        super().__init__(message)
        self.exit_code = exit_code
        self.kind = kind
        """The name of the error's class, as the notebook has it."""


def notebook(stage: str) -> Path:
    """Return the path of a stage's notebook.

    Raises:
        InputError: there is no such stage.
    """
    package = Path(__file__).parents[1]
    for folder in (package / "notebooks", package.parents[1] / "notebooks"):
        path = folder / f"{stage}.ipynb"
        if path.exists():
            return path
    raise InputError(f"there is no notebook {stage!r}: the stages are {', '.join(STAGES)}")


def check_parameters(path: Path, parameters: Mapping[str, Parameter]) -> None:
    """Compare parameters with the notebook's own declaration; runs nothing.

    Raises:
        InputError: a parameter is unknown or of another type than declared.
    """
    with _without_iris():
        import papermill

    declared = papermill.inspect_notebook(str(path))
    for name, value in parameters.items():
        if name not in declared:
            raise InputError(
                f"unknown parameter {name!r}: there are {', '.join(declared)}", source=path.name
            )
        wanted = declared[name]["inferred_type_name"]
        if type(value) not in TYPES[wanted]:
            raise InputError(
                f"parameter {name!r} must be {wanted}, not {value!r}", source=path.name
            )


def execute(
    stage: str,
    parameters: Mapping[str, Parameter],
    run: Run,
    *,
    environment: Mapping[str, str],
    secrets: tuple[str, ...],
    tell: Tell,
) -> Path:
    """Run a stage's notebook into the run directory, as notebook and as page.

    A first Ctrl-C or SIGTERM interrupts the cell, so that the stage can put things in order and
    the page shows the state that was reached; a second one ends the kernel.

    Args:
        stage: `audit`, `apply` or `benchmark`.
        parameters: values for the notebook's parameters cell.
        run: where the executed notebook and its HTML go.
        environment: variables for the kernel, beside those of this process.
        secrets: texts that must not be in any output.
        tell: is told what the kernel does.

    Returns:
        The path of the page.

    Raises:
        InputError: a parameter is unknown or of the wrong type; nothing was run.
        StageFailed: a cell failed.
        KeyboardInterrupt: the stage was interrupted.
    """
    with _without_iris():
        import nbformat
        import papermill
        from papermill.exceptions import PapermillExecutionError

    path = notebook(stage)
    check_parameters(path, parameters)
    failure: PapermillExecutionError | None = None
    with tempfile.TemporaryDirectory(prefix="indexlab-") as private:
        place = Path(private)
        executed = place / f"{stage}.ipynb"
        told = place / "progress"
        told.touch()
        variables = {
            **environment,
            progress.VARIABLE: str(told),
            "JUPYTER_RUNTIME_DIR": private,
            "IPYTHONDIR": private,
        }
        tell(f"starting the {stage} notebook", None)
        with ExitStack() as stack:
            stack.enter_context(_environment(variables))
            stack.enter_context(_following(told, tell))
            interrupted = stack.enter_context(_forwarded_signals())
            _register_engine()
            try:
                papermill.execute_notebook(
                    str(path),
                    str(executed),
                    parameters=dict(parameters),
                    engine_name=ENGINE,
                    progress_bar=False,
                    # Nobody reads it before the end, when what was reached is written in any case.
                    request_save_on_cell_execute=False,
                )
            except PapermillExecutionError as error:
                failure = error
        if not executed.exists():
            log = place / KERNEL_LOG
            said = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
            raise IncompleteError(
                _without(
                    f"the {stage} notebook could not be started {said[-2000:]}", secrets
                ).strip()
            )
        text = executed.read_text(encoding="utf-8")
    tell(f"writing the {stage} page", None)
    document = _without(nbformat.reads(text, as_version=4), secrets)
    _forget_places(document)
    run.write(f"{stage}.ipynb", nbformat.writes(document) + "\n")
    page = run.write(f"{stage}.html", stages.stage_page(document, stage))
    if interrupted and not (stage == "apply" and failure is not None):
        raise KeyboardInterrupt
    if failure is not None:
        raise _stage_failed(stage, failure, page)
    return page


@contextmanager
def _without_iris() -> Iterator[None]:
    """Import jsonschema without its checker of IRIs, where nobody has imported it yet.

    The checker builds a grammar each time, which takes longer than all else that papermill imports;
    no schema of a notebook has an IRI. jsonschema goes without it as if it were not installed.
    """
    if {"jsonschema", CHECKER} & sys.modules.keys():
        yield
        return
    sys.modules[CHECKER] = None  # type: ignore[assignment]  # an import of it fails
    try:
        yield
    finally:
        del sys.modules[CHECKER]


def _stage_failed(stage: str, failure: Any, page: Path) -> StageFailed:
    codes = {
        "InputError": 2,
        "TargetError": 3,
        "Unreachable": 3,
        "EmbeddedError": 3,
        "IncompleteError": 4,
    }
    own = failure.ename in codes
    reason = failure.evalue if own else f"{failure.ename}: {failure.evalue}"
    fallback = 4 if stage == "apply" else 3
    return StageFailed(
        f"{reason} (the page {page.as_posix()} shows how far it came)",
        codes.get(failure.ename, fallback),
        failure.ename,
    )


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables for the kernel, which inherits them, and put the old ones back."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _following(path: Path, tell: Tell) -> Iterator[None]:
    """Pass on what the kernel writes to its progress file, line by line."""
    ended = threading.Event()

    def follow() -> None:
        with path.open(encoding="utf-8") as file:
            rest = ""
            while True:
                last = ended.wait(0.1)
                *lines, rest = (rest + file.read()).split("\n")
                for line in lines:
                    step = Step.of_line(line)
                    tell(step.text, step.fraction)
                if last:
                    return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


_KERNELS: list[Any] = []
"""Kernel managers whose kernels run now; a signal is passed on to them."""


def _register_engine() -> None:
    """Make papermill talk to its kernel over sockets in a private directory, not over TCP."""
    from jupyter_client import AsyncKernelManager
    from papermill.engines import NBClientEngine, papermill_engines

    if ENGINE in papermill_engines._engines:
        return

    class PrivateKernelManager(AsyncKernelManager):  # type: ignore[misc]
        async def _async_pre_start_kernel(self, **options: Any) -> Any:
            self.transport = "ipc"
            private = Path(os.environ["JUPYTER_RUNTIME_DIR"])
            self.ip = str(private / "kernel")
            # What a kernel says of itself when it is interrupted is nothing for the terminal.
            self.log_file = (private / KERNEL_LOG).open("ab")
            _KERNELS.append(self)
            command, options = await super()._async_pre_start_kernel(**options)
            return command, {**options, "stderr": self.log_file}

        pre_start_kernel = _async_pre_start_kernel

        async def _async_post_start_kernel(self, **options: Any) -> None:
            # This process has nothing to do until the kernel answers.
            threading.Thread(target=stages.warm, daemon=True).start()
            await super()._async_post_start_kernel(**options)

        post_start_kernel = _async_post_start_kernel

        async def _async_cleanup_resources(self, restart: bool = False) -> None:
            if self in _KERNELS:
                _KERNELS.remove(self)
                self.log_file.close()
            await super()._async_cleanup_resources(restart)

        cleanup_resources = _async_cleanup_resources

    class PrivateEngine(NBClientEngine):  # type: ignore[misc]
        @classmethod
        def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **options: Any) -> Any:
            return super().execute_managed_notebook(
                nb_man,
                kernel_name,
                kernel_manager_class=PrivateKernelManager,
                extra_arguments=["--HistoryManager.enabled=False"],
                **options,
            )

    papermill_engines.register(ENGINE, PrivateEngine)


@contextmanager
def _forwarded_signals() -> Iterator[list[int]]:
    """Pass Ctrl-C and SIGTERM on to the kernel once; the yielded list says that it happened."""
    received: list[int] = []

    def forward(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        pids = [manager.provisioner.pid for manager in _KERNELS if manager.provisioner is not None]
        if len(received) > 1 or not pids:
            raise KeyboardInterrupt
        for pid in pids:
            os.kill(pid, signal.SIGINT)

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _without(value: Any, secrets: tuple[str, ...]) -> Any:
    """Take out secrets that came in by a way that nobody thought of: of texts in lists and dicts."""
    if isinstance(value, str):
        for secret in secrets:
            if len(secret) >= 4:  # a shorter one would also hit innocent words
                for written in (secret, html.escape(secret), repr(secret)[1:-1]):
                    value = value.replace(written, "***")
        return value
    if isinstance(value, dict):
        return type(value)({name: _without(part, secrets) for name, part in value.items()})
    if isinstance(value, list):
        return [_without(part, secrets) for part in value]
    return value


def _forget_places(document: Any) -> None:
    """Leave out the paths of this machine, which papermill notes in the metadata."""
    kept = document.metadata.get("papermill", {})
    for name in ("input_path", "output_path"):
        if name in kept:
            kept[name] = Path(kept[name]).name
