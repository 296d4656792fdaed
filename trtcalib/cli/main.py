"""The entry point: commands, exit codes, and the one place where errors become text.

Exit codes: 0; 1 a judging command found something; 2 usage or input; 3 the environment; 130 Ctrl-C.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated, Any

import typer

from trtcalib import __version__
from trtcalib.cli import (
    ablate,
    advise,
    build,
    cache,
    calibrate,
    check_builder,
    crosscheck,
    demo,
    doctor,
    engine,
    evaluate,
    infer,
    migrate,
    plot,
    qdq,
    report,
    sensitivity,
    solve,
    study,
    sweep,
)
from trtcalib.errors import TrtcalibError

app = typer.Typer(
    name="trtcalib",
    help="TensorRT INT8 calibration: the scales that TensorRT itself would write, with or without a GPU.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog="Example: trtcalib calibrate model.onnx --data images.npz -o model.cache",
)
app.command(epilog=calibrate.EXAMPLE)(calibrate.calibrate)
app.command(epilog=build.EXAMPLE)(build.build)
app.command(epilog=infer.EXAMPLE)(infer.infer)
app.add_typer(engine.app, name="engine")
app.command(epilog=crosscheck.EXAMPLE)(crosscheck.crosscheck)
app.command(epilog=study.EXAMPLE)(study.study)
app.command(epilog=evaluate.EXAMPLE)(evaluate.evaluate)
app.command(epilog=advise.EXAMPLE)(advise.advise)
app.command(epilog=ablate.EXAMPLE)(ablate.ablate)
app.command(epilog=sweep.EXAMPLE)(sweep.sweep)
app.command(epilog=sensitivity.EXAMPLE)(sensitivity.sensitivity)
app.command(epilog=report.EXAMPLE)(report.report)
app.command(epilog=qdq.EXAMPLE)(qdq.qdq)
app.command(epilog=migrate.EXAMPLE)(migrate.migrate)
app.command("check-builder", epilog=check_builder.EXAMPLE)(check_builder.check_builder)
app.command(epilog=solve.EXAMPLE)(solve.solve)
app.command(epilog=plot.EXAMPLE)(plot.plot)
app.add_typer(cache.app, name="cache")
app.command(epilog=doctor.EXAMPLE)(doctor.doctor)
app.command(epilog=demo.EXAMPLE)(demo.demo)

# Click's base of usage errors; newer versions of Typer bring their own copy of click.
_UsageProblem: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")

_CTRL_C = 130
_BROKEN_PIPE = 141


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"trtcalib {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what is done, on stderr.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    del version
    handler = logging.StreamHandler()
    # What a feeder logs is raised when TensorRT returns, and told then.
    handler.addFilter(lambda record: record.name != "trtcalib.trt.feeder")
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(levelname)s: %(message)s", handlers=[handler])


def run() -> None:
    """Run the command line and exit with its code."""
    sys.exit(_run())


def _run() -> int:
    try:
        code = int(app(standalone_mode=False) or 0)
        sys.stdout.flush()
    except TrtcalibError as error:
        for line in str(error).splitlines():
            typer.echo(f"trtcalib: {_safe(line)}", err=True)
        return error.exit_code
    except _UsageProblem as error:
        error.show()
        return int(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        code = _CTRL_C
    except BrokenPipeError:
        return _reader_has_gone()
    except SystemExit as error:
        # Click and Rich turn a broken pipe into exit code 1, which here means that something was found.
        if isinstance(error.__context__, BrokenPipeError):
            return _reader_has_gone()
        raise
    if code == _CTRL_C:  # newer versions of Typer return it and raise nothing
        typer.echo("trtcalib: interrupted; no result was written", err=True)
    return code


def _reader_has_gone() -> int:
    """Keep the interpreter from complaining while it flushes what nobody reads (`| head`)."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return _BROKEN_PIPE


def _safe(line: str) -> str:
    from trtcalib.views.text import printable

    return printable(line)
