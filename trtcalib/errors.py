"""Every error a user can meet, on one page.

A message says what was found, what was expected and what to do next. The command line prints it as one line and
exits with ``exit_code``: 2 for usage and input, 3 for the environment.
"""

from __future__ import annotations

from pathlib import Path

__all__ = [
    "ActivationError",
    "CacheFormatError",
    "CacheMismatchError",
    "CalibrationError",
    "DataError",
    "DeviceError",
    "EngineError",
    "HistogramError",
    "InstalledTensorRTError",
    "MetricError",
    "MissingPackageError",
    "ModelError",
    "OutputError",
    "SpecError",
    "TensorRTVersionError",
    "TrtcalibError",
]


class TrtcalibError(Exception):
    """Base of all errors that trtcalib raises on purpose."""

    exit_code = 2


class ModelError(TrtcalibError, ValueError):
    """An ONNX model cannot be used.

    Attributes:
        path: The model file.
        reason: What is wrong with it and what to do.
    """

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class DataError(TrtcalibError, ValueError):
    """Calibration data cannot be used, or does not fit the model.

    Attributes:
        source: The file, folder or ``module:function`` that gave the data.
        reason: What is wrong and what was expected.
        sample: Which sample, by position or file name; ``None`` when the whole source is meant.
    """

    def __init__(self, source: Path | str, reason: str, sample: str | int | None = None) -> None:
        super().__init__(source, reason, sample)
        self.source = source
        self.reason = reason
        self.sample = sample

    def __str__(self) -> str:
        where = "" if self.sample is None else f": sample {self.sample}"
        return f"{self.source}{where}: {self.reason}"


class ActivationError(TrtcalibError, ValueError):
    """A value inside the network cannot be calibrated on.

    Attributes:
        tensor: The ONNX tensor name.
        sample: The sample that caused it; ``None`` for a constant.
        reason: What was found.
    """

    def __init__(self, tensor: str, sample: str | int | None, reason: str) -> None:
        super().__init__(tensor, sample, reason)
        self.tensor = tensor
        self.sample = sample
        self.reason = reason

    def __str__(self) -> str:
        where = "" if self.sample is None else f" at sample {self.sample}"
        return f"tensor {self.tensor!r}{where}: {self.reason}"


class SpecError(TrtcalibError, ValueError):
    """A YAML file (recipe, dataset, engine spec) has faults; all of them are listed at once.

    Attributes:
        path: The YAML file, or the name of the argument that held the value.
        faults: One text per fault, each starting with the path of the key.
    """

    def __init__(self, path: Path | str, faults: tuple[str, ...]) -> None:
        super().__init__(path, faults)
        self.path = path
        self.faults = faults

    def __str__(self) -> str:
        return "\n".join(f"{self.path}: {fault}" for fault in self.faults)


class MetricError(TrtcalibError, ValueError):
    """A metric cannot judge what a model gives.

    Attributes:
        metric: Its name: ``top1``, or ``module:function``.
        reason: What it needs, raised or returned, as the rest of a sentence that its name begins.
        sample: The sample that it was judging; ``None`` where it does not come to that.
        traceback: Where a user's function raised, from its own frames; empty for what is not one's.
    """

    def __init__(self, metric: str, reason: str, sample: str | int | None = None, traceback: str = "") -> None:
        super().__init__(metric, reason, sample, traceback)
        self.metric = metric
        self.reason = reason
        self.sample = sample
        self.traceback = traceback

    def __str__(self) -> str:
        where = "" if self.sample is None else f" at sample {self.sample}"
        return f"metric {self.metric}{where} {self.reason}" + (f"\n{self.traceback}" if self.traceback else "")


class CacheFormatError(TrtcalibError, ValueError):
    """A calibration cache breaks the format; says where and what was expected.

    Attributes:
        path: The cache file, or ``None`` when the bytes did not come from a file.
        line: One-based line number; 0 when the file as a whole is meant.
        reason: What is wrong and what a correct line looks like.
    """

    def __init__(self, path: Path | None, line: int, reason: str) -> None:
        super().__init__(path, line, reason)
        self.path = path
        self.line = line
        self.reason = reason

    def __str__(self) -> str:
        line = f":{self.line}" if self.line else ""
        return f"{self.path or '<calibration cache>'}{line}: {self.reason}"


class HistogramError(TrtcalibError, ValueError):
    """A histogram cannot be built, merged, read or searched."""


class TensorRTVersionError(TrtcalibError, ValueError):
    """A TensorRT version is malformed, or has no calibration caches.

    Attributes:
        version: The version as given.
        reason: Why it is refused and what to do.
    """

    def __init__(self, version: str, reason: str) -> None:
        super().__init__(version, reason)
        self.version = version
        self.reason = reason

    def __str__(self) -> str:
        return f"TensorRT version {self.version!r}: {self.reason}"


class OutputError(TrtcalibError, OSError):
    """A result cannot be written.

    Attributes:
        path: The file that was to be written.
        reason: The operating system's reason and what to do.
    """

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class MissingPackageError(TrtcalibError, ImportError):
    """A package that this job needs is not installed.

    Attributes:
        package: The import name.
        reason: What it is needed for and how to install it.
    """

    exit_code = 3

    def __init__(self, package: str, reason: str) -> None:
        super().__init__(package, reason)
        self.package = package
        self.reason = reason

    def __str__(self) -> str:
        return f"the package {self.package!r} is missing: {self.reason}"


class InstalledTensorRTError(TensorRTVersionError):
    """The TensorRT that is installed here cannot do the job; another one can."""

    exit_code = 3

    def __str__(self) -> str:
        return f"TensorRT {self.version} {self.reason}"


class DeviceError(TrtcalibError, RuntimeError):
    """The GPU, its driver or its memory cannot do the job.

    Attributes:
        reason: What was found and what to do.
        asked: Bytes of device memory that were asked for, where memory is the reason.
    """

    exit_code = 3

    def __init__(self, reason: str, asked: int | None = None) -> None:
        super().__init__(reason, asked)
        self.reason = reason
        self.asked = asked

    def __str__(self) -> str:
        return self.reason


class CalibrationError(TrtcalibError, RuntimeError):
    """A calibration through TensorRT did not run to its end, so that its scales must not be used.

    Attributes:
        reason: What stopped it.
        batches_fed: How many batches TensorRT had taken.
    """

    def __init__(self, reason: str, batches_fed: int = 0) -> None:
        super().__init__(reason, batches_fed)
        self.reason = reason
        self.batches_fed = batches_fed

    def __str__(self) -> str:
        return self.reason


class CacheMismatchError(TrtcalibError, ValueError):
    """A calibration cache is well formed and not for this TensorRT, calibrator, model or data.

    Attributes:
        path: The cache; ``None`` when it did not come from a file.
        reason: What differs and what would help.
    """

    def __init__(self, path: Path | None, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path or '<calibration cache>'}: {self.reason}"


class EngineError(TrtcalibError, RuntimeError):
    """An engine cannot be built, loaded or run.

    Attributes:
        path: The model that was to be built, or the engine.
        reason: What TensorRT said, and what to do.
    """

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"
