"""Twenty numbers per image that flips, quarter turns, rescaling and brightness leave alone and small crops barely move.

They only choose which pairs are worth comparing, so they may be cheap and blunt: colours, contrast, and the coarsest
cosine coefficients, combined such that the eight symmetries of the square cancel out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn

THUMB = 64
TERMS = 20

# What a random crop by 5 % changes each kind of number by (root mean square, dermoscopic images, rounded): dividing by
# it makes Euclidean distances comparable across kinds, so that a cropped copy lies about sqrt(TERMS) from its original.
_RED_NOISE, _BLUE_NOISE = 0.008, 0.004
_CONTRAST_NOISE = 0.07
_COARSEST_NOISE, _PATTERN_NOISE = 0.06, 0.035

_GRAY = np.array([0.299, 0.587, 0.114], np.float32)


def luminance(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Gray values 0..255 of ``rgb`` (..., 3).

    >>> luminance(np.full((1, 1, 3), 200, np.uint8)).round().tolist()
    [[200.0]]
    """
    return np.asarray(rgb.astype(np.float32) @ _GRAY)


def describe(thumbs: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Descriptors (N, TERMS) of square RGB thumbnails (N, THUMB, THUMB, 3), images of any aspect squashed into them.

    >>> flat = np.full((1, THUMB, THUMB, 3), 120, np.uint8)
    >>> describe(flat).shape
    (1, 20)
    """
    gray = luminance(thumbs)
    mean, spread = gray.mean((1, 2)), gray.std((1, 2))
    normalised = (gray - mean[:, None, None]) / np.maximum(spread, 2.0)[:, None, None]
    contrast = np.log((spread + 1) / (mean + 4))
    coarsest, *patterns = _pattern_terms(_spectrum(normalised, 7))
    columns = [
        *(term / _RED_NOISE for term in _colour_terms(thumbs, 0)),
        *(term / _BLUE_NOISE for term in _colour_terms(thumbs, 2)),
        contrast / _CONTRAST_NOISE,
        coarsest / _COARSEST_NOISE,
        *(pattern / _PATTERN_NOISE for pattern in patterns),
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def _spectrum(fields: NDArray[np.floating], size: int) -> NDArray[np.floating]:
    """The ``size`` x ``size`` coarsest cosine coefficients of fields (N, THUMB, THUMB), in the fields' own unit."""
    centred = fields - fields.mean((1, 2), keepdims=True)
    return np.asarray(dctn(centred, axes=(1, 2), norm="ortho")[:, :size, :size] / THUMB)


def _colour_terms(thumbs: NDArray[np.uint8], channel: int) -> list[NDArray[np.floating]]:
    """How a channel compares with green (log ratio, so brightness cancels): level, spread, two symmetric patterns."""
    values, green = thumbs[..., channel].astype(np.float32), thumbs[..., 1].astype(np.float32)
    level = np.log((values.mean((1, 2)) + 4) / (green.mean((1, 2)) + 4))
    ratio = np.log((values + 8) / (green + 8))
    spectrum = _spectrum(ratio, 3)
    return [level, ratio.std((1, 2)), spectrum[:, 2, 0] + spectrum[:, 0, 2], spectrum[:, 2, 2]]


def _pattern_terms(c: NDArray[np.floating]) -> list[NDArray[np.floating]]:
    """Combinations of cosine coefficients that the symmetries of the square leave alone.

    A flip changes the sign of coefficients of odd frequency along its axis, a transposition swaps the two frequencies.
    So (even, even) sums stay, differences and (odd, odd) coefficients keep their size, (odd, even) pairs their norm.
    """
    half = np.sqrt(0.5)
    sums = [(c[:, u, v] + c[:, v, u]) * half for u, v in ((2, 0), (4, 0), (4, 2), (6, 2))]
    differences = [np.abs(c[:, u, v] - c[:, v, u]) * half for u, v in ((2, 0), (4, 0))]
    diagonal = [c[:, 2, 2], c[:, 4, 4], np.abs(c[:, 1, 1]), np.abs(c[:, 3, 1] + c[:, 1, 3]) * half]
    return [*sums, *differences, *diagonal, np.hypot(c[:, 1, 0], c[:, 0, 1])]
