"""A sound for the lab's telephones: a tone in G.711 A-law, plainly neither silence nor noise."""

import math
import struct
from pathlib import Path

RATE = 8000


def _alaw(sample: int) -> int:
    """One 16-bit sample in A-law (ITU-T G.711)."""
    sign = 0x80 if sample >= 0 else 0
    value = min(abs(sample), 32635) >> 4
    exponent = max(value.bit_length() - 5, 0)
    mantissa = (value >> max(exponent - 1, 0) if exponent else value) & 0x0F
    if exponent:
        mantissa = (value >> exponent) & 0x0F
        code = (exponent << 4) | mantissa
    else:
        code = value >> 1 & 0x0F
    return (sign | code) ^ 0x55


def tone(hertz: int, seconds: float = 1.0, level: int = 8000, rate: int = RATE) -> list[int]:
    """Samples of a sine, 16 bits."""
    return [round(level * math.sin(2 * math.pi * hertz * n / rate)) for n in range(int(rate * seconds))]


def write_alaw(path: Path, hertz: int = 425) -> Path:
    """A second of tone as raw A-law bytes, as SIPp's rtp_stream plays it in a loop. 425 Hz is Europe's dial tone."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(map(_alaw, tone(hertz))))
    return path


def write_wav(path: Path, hertz: int = 425, seconds: int = 300, rate: int = RATE, channels: int = 1) -> Path:
    """The tone as a WAV file of 16-bit samples, for phones that play one. A phone may hang up where its file ends."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        data = b"".join(struct.pack("<h", sample) * channels for sample in tone(hertz, rate=rate)) * seconds
        size = 2 * channels
        head = struct.pack(
            "<4sI4s4sIHHIIHH4sI",
            *(b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, 1, channels, rate, rate * size, size, 16),
            *(b"data", len(data)),
        )
        path.write_bytes(head + data)
    return path


def is_tone(path: Path, hertz: int) -> bool:
    """Whether the end of a WAV file of 16-bit samples, its last fifth of a second, is that tone and little else."""
    data = path.read_bytes()
    channels, rate = struct.unpack_from("<HI", data, 22)
    count = rate // 5
    frames = data[44:][-2 * channels * (len(data[44:]) // (2 * channels)) :] if len(data) > 44 else b""
    samples: list[int] = [frame[0] for frame in struct.iter_unpack(f"<{channels}h", frames[-2 * channels * count :])]
    if len(samples) < count:
        return False
    turns = [2 * math.pi * hertz * n / rate for n in range(count)]
    real = sum(sample * math.cos(turn) for sample, turn in zip(samples, turns, strict=True))
    imaginary = sum(sample * math.sin(turn) for sample, turn in zip(samples, turns, strict=True))
    power = sum(sample * sample for sample in samples)
    return bool(power > count * 100**2 and 2 * (real**2 + imaginary**2) / count > 0.8 * power)
