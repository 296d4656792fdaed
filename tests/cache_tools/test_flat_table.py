"""ONNX Runtime's binary table, read back by ONNX Runtime's own Python reader; and the amax whose scale is given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trtcalib.cache_tools.flat_table import amax_that_gives, flat_table
from trtcalib.core.scale import scale_from_amax, scale_from_bits, ulp_distance


def read(content: bytes) -> dict[str, str]:
    from onnxruntime.quantization.CalTableFlatBuffers.TrtTable import TrtTable

    table = TrtTable.GetRootAs(content, 0)
    pairs = [table.Dict(i) for i in range(table.DictLength())]
    return {pair.Key().decode(): pair.Value().decode() for pair in pairs}


class TestFlatTable:
    @given(st.dictionaries(st.text(st.characters(codec="utf-8")), st.text("0123456789.e-", max_size=9), max_size=20))
    def test_onnxruntime_reads_what_was_written(self, values: dict[str, str]) -> None:
        assert read(flat_table(values)) == values

    def test_one_entry_by_hand(self) -> None:
        words = [
            (12, 4),  # the root stands at byte 12
            (6, 2), (8, 2), (4, 2), (0, 2),  # its list of fields at 4: 6 bytes, table of 8, field at 4
            (8, 4), (4, 4),  # the root: 12 - 8 is the list; the vector follows
            (1, 4), (12, 4),  # one table, 12 bytes further
            (8, 2), (12, 2), (4, 2), (8, 2),  # its list of fields
            (8, 4), (8, 4), (12, 4),  # the table: the list is 8 bytes back; name 8 further, text 12 further
        ]  # fmt: skip
        expected = b"".join(number.to_bytes(size, "little") for number, size in words)
        expected += (1).to_bytes(4, "little") + b"x\0\0\0" + (3).to_bytes(4, "little") + b"1.5\0"
        assert flat_table({"x": "1.5"}) == expected

    def test_what_onnxruntime_writes_reads_the_same(self, tmp_path: Path) -> None:
        from onnxruntime.quantization import write_calibration_table
        from onnxruntime.quantization.calibrate import TensorData

        amax = {"a:b": 1.5, "c": 0.25}
        ranges = {
            n: TensorData(lowest=np.array(-v, np.float32), highest=np.array(v, np.float32)) for n, v in amax.items()
        }
        write_calibration_table(ranges, dir=str(tmp_path))
        theirs = read((tmp_path / "calibration.flatbuffers").read_bytes())
        assert theirs == read(flat_table({name: repr(value) for name, value in amax.items()}))


class TestAmax:
    @given(st.floats(min_value=0, max_value=float(np.finfo(np.float32).max), width=32))
    def test_every_scale_that_was_made_from_an_amax_is_given_back(self, amax: float) -> None:
        scale = scale_from_amax(np.float32(amax))
        assert scale_from_amax(amax_that_gives(scale)) == scale

    @given(st.integers(0, 0x7C000000))
    def test_any_other_scale_is_a_neighbour(self, bits: int) -> None:
        scale = scale_from_bits(bits)
        assert ulp_distance(scale_from_amax(amax_that_gives(scale)), scale) <= 1

    def test_there_are_scales_that_no_amax_gives(self) -> None:
        """From 1.5 on, float32 numbers above 128 lie 1/127 * 2**-16 apart once divided, and scales 2**-23: about 1 in 128 is skipped."""
        scales = (np.arange(1 << 12, dtype=np.uint32) + 0x3FC00000).view(np.float32)
        amax = (np.arange(1 << 13, dtype=np.uint32) + (scales[0] * np.float32(127)).view(np.uint32) - 2).view(
            np.float32
        )
        lost = set(scales.tolist()) - set((amax / np.float32(127)).tolist())
        assert 20 < len(lost) < 50
        assert lost == {float(s) for s in scales if scale_from_amax(amax_that_gives(s)) != s}
