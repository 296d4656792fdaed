"""Images to arrays: what Pillow decodes, resized, cropped, ordered; and what is refused by name."""

from __future__ import annotations

import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trtcalib.errors import DataError
from trtcalib.samples.images import decode_image, image_files
from trtcalib.specs import InputSpec

RGB = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def save(path: Path, pixels: np.ndarray, **options) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


def decode(path: Path, **spec) -> np.ndarray:
    return decode_image(path, InputSpec(**spec), "images", path.name)


def refusal(path: Path, **spec) -> str:
    with pytest.raises(DataError) as caught:
        decode(path, **spec)
    assert caught.value.sample == path.name
    return str(caught.value)


class TestFolders:
    def test_images_below_are_sorted_by_relative_path(self, tmp_path: Path) -> None:
        names = ["b.png", "a/z.JPG", "a/y.jpeg", "B.bmp", "10.png", "9.png", "a.webp", "c/d/e.tiff"]
        others = [".hidden.png", ".cache/x.png", "a/.t/x.png", "notes.txt", "x.npy", "png", "._b.png"]
        for name in [*names, *others]:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        (tmp_path / "folder.png").mkdir()
        found = [file.relative_to(tmp_path).as_posix() for file in image_files(tmp_path)]
        assert found == ["10.png", "9.png", "B.bmp", "a.webp", "a/y.jpeg", "a/z.JPG", "b.png", "c/d/e.tiff"]

    def test_a_folder_inside_a_hidden_one_is_no_hidden_folder(self, tmp_path: Path) -> None:
        folder = tmp_path / ".data"
        folder.mkdir()
        (folder / "a.png").touch()
        assert [file.name for file in image_files(folder)] == ["a.png"]

    def test_an_empty_folder(self, tmp_path: Path) -> None:
        assert image_files(tmp_path) == []


class TestColourAndLayout:
    @pytest.fixture
    def rgb(self, tmp_path: Path) -> Path:
        return save(tmp_path / "rgb.png", RGB)

    def test_rgb_channels_first_is_the_default(self, rgb: Path) -> None:
        array = decode(rgb)
        np.testing.assert_array_equal(array, RGB.transpose(2, 0, 1))
        assert array.dtype == np.uint8
        assert array.flags.c_contiguous

    def test_channels_last(self, rgb: Path) -> None:
        np.testing.assert_array_equal(decode(rgb, layout="hwc"), RGB)

    def test_bgr(self, rgb: Path) -> None:
        array = decode(rgb, colour="bgr")
        np.testing.assert_array_equal(array, RGB[:, :, ::-1].transpose(2, 0, 1))
        assert array.flags.c_contiguous
        np.testing.assert_array_equal(decode(rgb, colour="bgr", layout="hwc"), RGB[:, :, ::-1])

    def test_grey_is_the_luma_of_itu_r_601(self, rgb: Path) -> None:
        luma = (RGB.astype(np.int64) @ [19595, 38470, 7471] + 0x8000) >> 16  # Pillow's weights in 1/65536
        np.testing.assert_array_equal(decode(rgb, colour="grey"), luma[np.newaxis])
        assert decode(rgb, colour="grey", layout="hwc").shape == (4, 6, 1)

    def test_a_grey_image_as_rgb_has_three_equal_channels(self, tmp_path: Path) -> None:
        grey = RGB[:, :, 0]
        path = save(tmp_path / "grey.png", grey)
        np.testing.assert_array_equal(decode(path), np.stack([grey] * 3))
        np.testing.assert_array_equal(decode(path, colour="grey"), grey[np.newaxis])

    def test_jpeg(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.jpg", np.full((16, 16, 3), 77, np.uint8), quality=95)
        assert np.abs(decode(path).astype(int) - 77).max() <= 1

    def test_alpha_is_dropped_and_not_blended(self, tmp_path: Path) -> None:
        alpha = np.dstack([RGB, np.zeros((4, 6), np.uint8)])
        np.testing.assert_array_equal(decode(save(tmp_path / "a.png", alpha), layout="hwc"), RGB)
        path = tmp_path / "la.png"
        Image.merge("LA", [Image.fromarray(RGB[:, :, 0]), Image.new("L", (6, 4))]).save(path)
        np.testing.assert_array_equal(decode(path, colour="grey"), RGB[np.newaxis, :, :, 0])

    @pytest.mark.parametrize("options", [{}, {"transparency": 0}, {"transparency": b"\x00\x80\xff"}])
    def test_a_palette_is_looked_up_without_a_warning(self, tmp_path: Path, options: dict) -> None:
        path = tmp_path / "p.png"
        image = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3), "P")
        image.putpalette([value for i in range(6) for value in (i * 10, i * 20, i * 30)])
        image.save(path, **options)
        expected = np.arange(6).reshape(2, 3, 1) * [10, 20, 30]
        np.testing.assert_array_equal(decode(path, layout="hwc"), expected)

    @pytest.mark.parametrize("mode", ["1", "CMYK", "LAB"])
    def test_other_modes_of_8_bits(self, tmp_path: Path, mode: str) -> None:
        Image.new(mode, (6, 4)).save(tmp_path / "a.tif")
        assert decode(tmp_path / "a.tif").shape == (3, 4, 6)

    def test_exif_orientation_is_not_applied(self, tmp_path: Path) -> None:
        image = Image.fromarray(RGB)
        exif = image.getexif()
        exif[0x0112] = 6  # turned by 90 degrees
        image.save(tmp_path / "a.png", exif=exif)
        assert decode(tmp_path / "a.png").shape == (3, 4, 6)


class TestSize:
    @pytest.fixture
    def wide(self, tmp_path: Path) -> Path:
        return save(tmp_path / "wide.png", np.random.default_rng(0).integers(0, 256, (20, 41, 3), np.uint8))

    @pytest.mark.parametrize(("resize", "height", "width"), [([8, 30], 8, 30), (10, 10, 20), (40, 40, 82)])
    @pytest.mark.parametrize("interpolation", ["bilinear", "nearest", "bicubic"])
    def test_resize_is_pillows(self, wide: Path, resize, height: int, width: int, interpolation: str) -> None:
        filters = {
            "bilinear": Image.Resampling.BILINEAR,
            "nearest": Image.Resampling.NEAREST,
            "bicubic": Image.Resampling.BICUBIC,
        }
        with Image.open(wide) as image:
            expected = np.asarray(image.resize((width, height), filters[interpolation]))
        np.testing.assert_array_equal(decode(wide, resize=resize, interpolation=interpolation, layout="hwc"), expected)

    @pytest.mark.parametrize(
        ("height", "width", "side", "expected"),
        [
            (3, 10, 7, (7, 23)),
            (10, 3, 7, (23, 7)),
            (5, 5, 224, (224, 224)),
            (480, 640, 256, (256, 341)),
            (49, 49 * 3, 224, (224, 672)),
        ],
    )
    def test_the_shorter_side_as_torchvision_rounds_the_longer(self, tmp_path, height, width, side, expected) -> None:
        path = save(tmp_path / "a.png", np.zeros((height, width), np.uint8))
        assert decode(path, resize=side).shape == (3, *expected)

    def test_letterbox_keeps_the_aspect_and_pads_evenly(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.png", np.full((20, 40, 3), 200, np.uint8))
        array = decode(path, resize=[32, 32], fit="letterbox", colour="grey")[0]
        np.testing.assert_array_equal(array[8:24], 200)
        np.testing.assert_array_equal(array[:8], 114)
        np.testing.assert_array_equal(array[24:], 114)

    def test_letterbox_of_a_tall_image_with_another_pad(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.png", np.full((40, 10, 3), 200, np.uint8))
        array = decode(path, resize=[20, 21], fit="letterbox", pad=7)
        expected = np.full((3, 20, 21), 7)
        expected[:, :, 8:13] = 200  # (21 - 5) // 2
        np.testing.assert_array_equal(array, expected)

    def test_letterbox_of_a_line_keeps_one_pixel(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.png", np.full((1, 300), 9, np.uint8))
        array = decode(path, resize=[10, 10], fit="letterbox", pad=0, colour="grey")[0]
        assert array.sum() == 90

    def test_crop_takes_the_centre(self, wide: Path) -> None:
        whole = decode(wide)
        np.testing.assert_array_equal(decode(wide, crop=[20, 41]), whole)
        np.testing.assert_array_equal(decode(wide, crop=[4, 10]), whole[:, 8:12, 15:25])

    def test_crop_comes_after_resize(self, wide: Path) -> None:
        resized = decode(wide, resize=10)
        np.testing.assert_array_equal(decode(wide, resize=10, crop=[10, 10]), resized[:, :, 5:15])

    @pytest.mark.parametrize("crop", [[21, 10], [10, 42]])
    def test_a_crop_that_is_too_large(self, wide: Path, crop: list[int]) -> None:
        expected = f"images: sample wide.png: crop {crop[0]} x {crop[1]} is larger than the image, 20 x 41"
        assert refusal(wide, crop=crop) == expected

    def test_a_line_is_not_blown_up_to_gigabytes(self, tmp_path: Path) -> None:
        path = save(tmp_path / "line.png", np.zeros((1, 50000), np.uint8))
        expected = "the image is 1 x 50000; with a shorter side of 2240 it would be 2240 x 112000000: refused"
        assert refusal(path, resize=2240) == f"images: sample line.png: {expected}"


def png16(path: Path, colour_type: int) -> Path:
    """Write a PNG with 16 bits per channel, which Pillow reads but cannot write in colour."""
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour_type]
    rows = b"".join(b"\0" + b"\x12\x34" * channels * 4 for _ in range(4))
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, colour_type, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    framed = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(framed))
    return path


class TestRefused:
    def test_16_bit_grey(self, tmp_path: Path) -> None:
        message = refusal(png16(tmp_path / "a.png", 0))
        assert message == "images: sample a.png: the image has mode I;16; expected 8 bits per channel"

    @pytest.mark.parametrize("colour_type", [2, 4, 6])
    def test_16_bit_colour_that_pillow_would_narrow(self, tmp_path: Path, colour_type: int) -> None:
        message = refusal(png16(tmp_path / "a.png", colour_type))
        assert message == "images: sample a.png: the image has 16 bits per channel; expected 8 bits per channel"

    def test_16_bit_ppm(self, tmp_path: Path) -> None:
        (tmp_path / "a.ppm").write_bytes(b"P6 2 2 65535\n" + b"\x12\x34" * 12)
        assert refusal(tmp_path / "a.ppm").endswith("the image has 16 bits per channel; expected 8 bits per channel")

    def test_8_bit_ppm_and_pgm_are_not(self, tmp_path: Path) -> None:
        (tmp_path / "a.ppm").write_bytes(b"P6 2 1 255\n" + bytes(range(6)))
        np.testing.assert_array_equal(decode(tmp_path / "a.ppm", layout="hwc").ravel(), range(6))
        (tmp_path / "a.pgm").write_bytes(b"P5 2 1 255\n" + bytes([3, 4]))
        np.testing.assert_array_equal(decode(tmp_path / "a.pgm", colour="grey").ravel(), [3, 4])

    def test_floating_point(self, tmp_path: Path) -> None:
        save(tmp_path / "a.tif", np.zeros((4, 4), np.float32))
        assert refusal(tmp_path / "a.tif").endswith("the image has mode F; expected 8 bits per channel")

    @pytest.mark.parametrize("limit", [20, 10])  # Pillow warns from the limit on, and raises from its double on
    def test_a_decompression_bomb(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
        path = save(tmp_path / "a.png", RGB)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        message = refusal(path)
        assert message.startswith(
            "images: sample a.png: the image cannot be decoded: Image size (24 pixels) exceeds limit of"
        )

    def test_a_bomb_is_refused_whatever_other_threads_do_with_warnings(self, tmp_path, monkeypatch) -> None:
        small, bomb = save(tmp_path / "small.png", RGB[:2, :2]), save(tmp_path / "bomb.png", RGB)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
        before = list(warnings.filters)

        def attempt(path: Path) -> bool:
            try:
                decode(path)
            except DataError:
                return True
            return False

        with ThreadPoolExecutor(8) as pool:
            refused = list(pool.map(attempt, [small, bomb] * 100))
        assert refused == [False, True] * 100
        assert warnings.filters == before

    @pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
    def test_no_image(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "a.png").write_bytes(content)
        assert refusal(tmp_path / "a.png").startswith("images: sample a.png: the image cannot be decoded: ")

    @pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
    def test_a_truncated_file_is_named(self, tmp_path: Path, suffix: str) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        path = save(tmp_path / f"a.{suffix}", noise)
        path.write_bytes(path.read_bytes()[:2000])
        assert refusal(path).startswith(f"images: sample a.{suffix}: the image cannot be decoded: ")

    def test_a_missing_file(self, tmp_path: Path) -> None:
        assert "the image cannot be decoded: [Errno 2] No such file" in refusal(tmp_path / "a.png")

    def test_a_decoder_that_would_start_another_program_never_runs(self, tmp_path: Path) -> None:
        # Pillow knows this content as EPS, which it hands to Ghostscript; it is refused before that.
        (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")
        assert "the image cannot be decoded: cannot identify image file" in refusal(tmp_path / "a.png")
