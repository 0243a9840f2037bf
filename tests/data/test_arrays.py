"""Sounds and arrays in files: what is read is what was written, and what is damaged is refused."""

import io
import pickle
import struct
import wave

import numpy as np
import pytest
import scipy.io.wavfile

from moreaugrad.data.arrays import EXTENSIBLE, find_arrays, names_arrays, read_array

RATE = 8000


def pcm(path, values, width, rate=RATE):
    """Written by the standard library: whole numbers `[T, C]` of `width` bytes."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(values.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        unsigned = width == 1
        file.writeframes(
            b"".join(int(v).to_bytes(width, "little", signed=not unsigned) for v in values.flat)
        )


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_whole_numbers_are_read_exactly(width, channels, tmp_path):
    bits = 8 * width
    drawn = np.random.default_rng(width).integers(
        -(2 ** (bits - 1)), 2 ** (bits - 1), (50, channels)
    )
    drawn[:2] = [[-(2 ** (bits - 1))] * channels, [2 ** (bits - 1) - 1] * channels]
    pcm(tmp_path / "a.wav", drawn + (128 if width == 1 else 0), width)
    found = read_array(tmp_path / "a.wav")
    assert found.rate == RATE
    assert found.values.shape == (channels, 50)
    np.testing.assert_array_equal(found.values, drawn.T / 2 ** (bits - 1))
    assert found.values.min() == -1
    assert found.values.max() < 1


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.float64])
def test_it_agrees_with_scipy(dtype, tmp_path):
    draw = np.random.default_rng(0)
    values = draw.normal(size=(40, 2)).clip(-1, 1)
    if np.issubdtype(dtype, np.integer):
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        values = draw.integers(low, high, (40, 2))
    scipy.io.wavfile.write(tmp_path / "a.wav", RATE, values.astype(dtype))
    rate, known = scipy.io.wavfile.read(tmp_path / "a.wav")
    found = read_array(tmp_path / "a.wav")
    scale = {np.uint8: 128, np.int16: 2**15, np.int32: 2**31}.get(dtype, 1)
    offset = 128 if dtype is np.uint8 else 0
    assert found.rate == rate
    np.testing.assert_array_equal(found.values, (known.T.astype(float) - offset) / scale)


def riff(*chunks):
    body = b"WAVE" + b"".join(
        name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
        for name, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


FORMAT = struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16)
SAMPLES = np.array([1, -2, 3], "<i2").tobytes()


def test_other_chunks_and_the_extensible_form_are_read(tmp_path):
    guid = struct.pack("<HI", 16, 4) + struct.pack("<H", 1) + b"\0" * 14
    form = (
        struct.pack("<HHIIHH", EXTENSIBLE, 1, RATE, 2 * RATE, 2, 16) + struct.pack("<H", 22) + guid
    )
    data = riff((b"LIST", b"odd"), (b"fmt ", form), (b"fact", b"1234"), (b"data", SAMPLES))
    (tmp_path / "a.wav").write_bytes(data)
    np.testing.assert_array_equal(read_array(tmp_path / "a.wav").values * 2**15, [[1, -2, 3]])


WHOLE = riff((b"fmt ", FORMAT), (b"data", SAMPLES))
DAMAGED = {
    "empty": (b"", "empty"),
    "truncated": (WHOLE[:-1], "truncated"),
    "no samples": (WHOLE[:36], "truncated"),
    "within the head": (WHOLE[:10], "WAV"),
    "text": (b"this is no sound", "WAV"),
    "big-endian": (b"RIFX" + WHOLE[4:], "WAV"),
    "data first": (riff((b"data", SAMPLES), (b"fmt ", FORMAT)), "format"),
    "short format": (riff((b"fmt ", FORMAT[:9]), (b"data", SAMPLES)), "WAV"),
    "mu-law": (riff((b"fmt ", b"\7\0" + FORMAT[2:]), (b"data", SAMPLES)), "PCM"),
    "wider samples": (
        riff((b"fmt ", FORMAT[:12] + b"\4\0" + FORMAT[14:]), (b"data", SAMPLES * 4)),
        "take 4 bytes",
    ),
    "no channels": (riff((b"fmt ", FORMAT[:2] + b"\0\0" + FORMAT[4:]), (b"data", SAMPLES)), "0 ch"),
    "half a sample": (riff((b"fmt ", FORMAT), (b"data", SAMPLES[:-1])), "bytes"),
    "silent": (riff((b"fmt ", FORMAT), (b"data", b"")), "0 bytes"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_damaged_sounds_are_refused(what, tmp_path):
    data, word = DAMAGED[what]
    (tmp_path / "a.wav").write_bytes(data)
    with pytest.raises(ValueError, match=word) as error:
        read_array(tmp_path / "a.wav")
    assert "a.wav" in str(error.value)
    assert "\n" not in str(error.value)


def test_arrays_are_read(tmp_path):
    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    np.save(tmp_path / "a.npy", np.asfortranarray(values))
    np.savez_compressed(tmp_path / "a.npz", values)
    for name in ("a.npy", "a.npz"):
        found = read_array(tmp_path / name)
        assert found.rate is None
        np.testing.assert_array_equal(found.values, values)


def saved(values, many=False):
    file = io.BytesIO()
    (np.savez if many else np.save)(file, *values if many else (values,))
    return file.getvalue()


ARRAYS = {
    "empty.npy": (b"", "empty"),
    "truncated.npy": (saved(np.zeros(100))[:-8], "array"),
    "text.npy": (b"0.1 0.2", "array"),
    "objects.npy": (saved(np.array([None], dtype=object)), "Python objects.*asarray"),
    "objects.npz": (saved((np.array([None], dtype=object),), many=True), "Python objects.*asarray"),
    "pickled.npy": (pickle.dumps([1.0]), "Python objects.*asarray"),
    "complex.npy": (saved(np.zeros(3, complex)), "complex"),
    "words.npy": (saved(np.array(["a"])), "real"),
    "none.npy": (saved(np.zeros((0, 3))), "empty"),
    "two.npz": (saved((np.zeros(2), np.zeros(3)), many=True), "2 arrays"),
    "damaged.npz": (saved((np.zeros(2),), many=True)[:-30], "array"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_damaged_arrays_are_refused(name, tmp_path):
    data, word = ARRAYS[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=word) as error:
        read_array(tmp_path / name)
    assert name in str(error.value)


def test_files_are_known_by_their_names_and_found_by_globs(tmp_path):
    assert names_arrays("A.WAV")
    assert not names_arrays("a.png")
    for name in ("b.npy", "a.npy"):
        np.save(tmp_path / name, np.zeros(1))
    glob = str(tmp_path / "*.npy")
    assert [file.name for file in find_arrays([glob, str(tmp_path / "a.npy")])] == [
        "a.npy",
        "b.npy",
    ]
    with pytest.raises(ValueError, match="none"):
        find_arrays([str(tmp_path / "*.wav")])
