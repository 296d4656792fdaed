"""Images to arrays, with Pillow."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trtcalib.errors import DataError
from trtcalib.specs import InputSpec

__all__ = ["decode_image", "image_files"]

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Decoders that may run, whatever a file is called: Pillow looks at the content, and its EPS decoder starts another program."""

_EIGHT_BIT_MODES = frozenset({"1", "CMYK", "HSV", "L", "LA", "LAB", "P", "PA", "RGB", "RGBA", "RGBX", "YCbCr"})
_PPM_16_BIT = 65535

_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
    "bicubic": Image.Resampling.BICUBIC,
}


def image_files(folder: Path) -> list[Path]:
    """Return the images below a folder, sorted by relative path; hidden files and other types are left out."""
    found = [
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in SUFFIXES
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    ]
    return sorted(found, key=lambda file: file.relative_to(folder).as_posix())


def decode_image(file: Path, spec: InputSpec, source: str, label: str) -> NDArray[np.uint8]:
    """Return an image as uint8, resized and cropped; ``[C, H, W]`` or ``[H, W, C]`` as the layout says.

    EXIF orientation is not applied, as in torchvision. A transparent image loses its alpha channel.

    Raises:
        DataError: If the file cannot be decoded, is larger than Pillow's bomb limit, or has more than 8 bits per channel.
    """
    try:
        with _open(file) as image:
            if image.mode not in _EIGHT_BIT_MODES or _is_narrowed(image):
                found = f"mode {image.mode}" if image.mode not in _EIGHT_BIT_MODES else "16 bits per channel"
                raise DataError(source, f"the image has {found}; expected 8 bits per channel", label)
            image.load()
            # Straight to RGB, Pillow would warn of a palette whose entries are partly transparent.
            opaque = image.convert("RGBA") if "transparency" in image.info else image
            pixels = opaque.convert("L" if spec.colour == "grey" else "RGB")
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise almost anything on hostile bytes
        raise DataError(source, f"the image cannot be decoded: {error}", label) from error
    return _to_array(_crop(_resize(pixels, spec, source, label), spec, source, label), spec)


_OPENING = threading.Lock()
"""Pillow tells of a bomb by a warning, and warning filters belong to the process, not to a thread."""


def _open(file: Path) -> Image.Image:
    with _OPENING, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged metadata
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(file, formats=FORMATS)


def _is_narrowed(image: Image.Image) -> bool:
    """Whether the file has more bits per channel than the mode that Pillow gives it: it decodes 48-bit RGB as RGB.

    Only the decoder's arguments tell: ``RGB;16B``, or the largest value of a PPM.
    """
    arguments = [part for tile in getattr(image, "tile", ()) for part in np.atleast_1d(np.array(tile[3], object))]
    return any(";16" in part if isinstance(part, str) else part == _PPM_16_BIT for part in arguments)


def _resize(image: Image.Image, spec: InputSpec, source: str, label: str) -> Image.Image:
    if spec.resize is None:
        return image
    resample = _FILTERS[spec.interpolation]
    width, height = image.size
    if isinstance(spec.resize, int):
        size = (spec.resize * width // min(width, height), spec.resize * height // min(width, height))
        if Image.MAX_IMAGE_PIXELS is not None and size[0] * size[1] > Image.MAX_IMAGE_PIXELS:
            reason = f"the image is {height} x {width}; with a shorter side of {spec.resize} it would be {size[1]} x {size[0]}"
            raise DataError(source, f"{reason}: refused", label)
        return image.resize(size, resample)
    wanted_height, wanted_width = spec.resize
    if spec.fit == "stretch":
        return image.resize((wanted_width, wanted_height), resample)
    factor = min(wanted_width / width, wanted_height / height)
    inner = image.resize((max(1, round(width * factor)), max(1, round(height * factor))), resample)
    canvas = Image.new(image.mode, (wanted_width, wanted_height), spec.pad if image.mode == "L" else (spec.pad,) * 3)
    canvas.paste(inner, ((wanted_width - inner.width) // 2, (wanted_height - inner.height) // 2))
    return canvas


def _crop(image: Image.Image, spec: InputSpec, source: str, label: str) -> Image.Image:
    if spec.crop is None:
        return image
    height, width = spec.crop
    if height > image.height or width > image.width:
        raise DataError(
            source, f"crop {height} x {width} is larger than the image, {image.height} x {image.width}", label
        )
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _to_array(image: Image.Image, spec: InputSpec) -> NDArray[np.uint8]:
    pixels = np.asarray(image, dtype=np.uint8)
    pixels = pixels[:, :, np.newaxis] if pixels.ndim == 2 else pixels  # noqa: PLR2004 - a grey image has no channel axis
    if spec.colour == "bgr":
        pixels = pixels[:, :, ::-1]
    return np.ascontiguousarray(pixels.transpose(2, 0, 1) if spec.layout == "chw" else pixels)
