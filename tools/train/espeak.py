"""Speech from espeak-ng, in memory, by the library that the wheel `espeakng-loader` carries."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_SYNCHRONOUS = 2  # espeak_AUDIO_OUTPUT: hand the samples to the callback, return when all are made
_CHARS_UTF8 = 1
_RATE, _PITCH, _RANGE = 1, 3, 4  # espeak_PARAMETER
_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


class Espeak:
    """One espeak-ng engine; a process can hold one only.

    Args:
        seed: Of what is random in the voices themselves.

    Attributes:
        sample_rate: Samples per second of everything it says.
    """

    def __init__(self, seed: int) -> None:
        import espeakng_loader

        self._library: Any = ctypes.CDLL(espeakng_loader.get_library_path())
        folder = espeakng_loader.get_data_path().encode()
        self.sample_rate: int = self._library.espeak_Initialize(_SYNCHRONOUS, 0, folder, 0)
        if self.sample_rate <= 0:
            raise RuntimeError(f"espeak-ng did not start with the data in {folder.decode()!r}")
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
        self._chunks: list[Tensor] = []
        self._callback: Callable[..., int] = _CALLBACK(self._receive)
        self._library.espeak_SetSynthCallback(self._callback)

    def say(self, text: str, *, voice: str, rate: int, pitch: int, spread: int) -> Tensor:
        """Speak a text.

        Args:
            text: What to say.
            voice: Language, then optionally a variant, as `en-us+f2`.
            rate: Words per minute, 80 to 450.
            pitch: Base pitch, 0 to 100; 50 is the voice's own.
            spread: How far the pitch moves, 0 (monotone) to 100; 50 is the voice's own.

        Returns:
            The samples, float32 of shape (N,), in [-1, 1], at `sample_rate`.

        Raises:
            ValueError: If espeak-ng has no such voice.
        """
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {voice!r}")
        for parameter, value in ((_RATE, rate), (_PITCH, pitch), (_RANGE, spread)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._chunks.clear()
        sentence = text.encode()
        size = ctypes.c_size_t(len(sentence) + 1)
        self._library.espeak_Synth(sentence, size, 0, 0, 0, _CHARS_UTF8, None, None)
        return torch.cat(self._chunks)

    def _receive(self, samples: Any, count: int, _events: Any) -> int:
        if count > 0:
            raw = ctypes.string_at(samples, count * ctypes.sizeof(ctypes.c_short))
            chunk = torch.frombuffer(bytearray(raw), dtype=torch.int16)
            self._chunks.append(chunk.float() / 32768)
        return 0
