"""Draw boxes and labels on the planes of a yuv420p frame, in the colours of tracks.

Only the rectangles of boxes and labels are written, and a label is rendered once for all frames that show it.
"""

from __future__ import annotations

import functools
import importlib.util
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

COLOURS = (
    (255, 210, 63),
    (59, 206, 172),
    (255, 90, 122),
    (90, 177, 255),
    (255, 140, 66),
    (199, 125, 255),
    (160, 220, 80),
    (255, 255, 255),
)
"""RGB, bright on the labels' dark ground."""
GROUND = (0, 0, 0, 150)
"""RGBA behind a label's text."""
FONT_FOLDERS = (
    "~/.fonts",
    "~/.local/share/fonts",
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "~/Library/Fonts",
    "/Library/Fonts",
    "/System/Library/Fonts",
)
FONT_SUFFIXES = (".ttf", ".otf", ".ttc")
UNASSIGNED = "\U0010ffff"
"""A character that no font has: its picture is that of all missing characters."""
# Of RGB in 0..255 to Y, U, V of ITU-R BT.601, the standard of videos without a stated one.
TO_YUV = np.array([[0.257, 0.504, 0.098], [-0.148, -0.291, 0.439], [0.439, -0.368, -0.071]])
YUV_ZERO = np.array([16.0, 128.0, 128.0])

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Person:
    """One person as drawn on a frame."""

    box: tuple[float, float, float, float]
    """xyxy, fractions of the frame's width and height."""
    colour: int
    """Index into COLOURS, modulo their number."""
    title: str
    """First line of the label."""
    actions: tuple[tuple[str, float], ...]
    """Name and score, a line each. A name that is too long for the picture is shortened."""


@dataclass(frozen=True)
class Labels:
    """The font of a video's labels and how it writes the class names."""

    font_file: str | None
    """None: Pillow's own font."""
    texts: Mapping[str, str]
    """Class name -> what is drawn for it: the name, or its id where the font lacks its characters."""
    missing: tuple[str, ...]
    """Names that the font lacks characters of."""


def choose_labels(classes: Mapping[int, str]) -> Labels:
    """Choose the first font with all characters of these class names, or else with most of the names.

    The order is Pillow's own font, so that Latin labels look alike everywhere, Matplotlib's DejaVu Sans,
    the system's fonts. classes: action id -> name.
    """
    names = list(classes.values())
    lacking = ((file, [name for name in names if not _has(file, name)]) for file in _font_files())
    best, missing = next(lacking)
    while missing:
        file, fewer = next(lacking, (None, None))
        if fewer is None:
            break
        if len(fewer) < len(missing):
            best, missing = file, fewer
    texts = {name: f"class {n}" if name in missing else _one_line(name) for n, name in classes.items()}
    return Labels(best, texts, tuple(missing))


def draw(image: NDArray[np.uint8], persons: Sequence[Person], font_file: str | None = None) -> None:
    """Draw persons on the planes of a frame, (1.5 H, W) uint8 yuv420p, contiguous, H and W even.

    No label covers that of a person before it or leaves the picture.
    """
    height, width = image.shape[0] * 2 // 3, image.shape[1]
    planes = _planes(image)
    line = 2 * max(1, min(height, width) // 480)
    size = max(12, round(min(height, width) / 36))
    boxes = [_pixels(person.box, height, width, line) for person in persons]
    colours = [COLOURS[person.colour % len(COLOURS)] for person in persons]
    for (x1, y1, x2, y2), colour in zip(boxes, colours, strict=True):
        top, bottom = (x1, y1, x2, y1 + line), (x1, y2 - line, x2, y2)
        for edge in (top, bottom, (x1, y1, x1 + line, y2), (x2 - line, y1, x2, y2)):
            _fill(planes, edge, _yuv(colour))
    taken: list[tuple[int, int, int, int]] = []
    for person, (x1, y1, x2, _), colour in zip(persons, boxes, colours, strict=True):
        text, (wide, high) = _text(person.title, person.actions, font_file, size, width)
        # Beside the box on the side with more room, inside the picture, below the labels in the way.
        x = x2 + line if width - x2 >= x1 else x1 - wide - line
        x, y = min(max(x, 0), max(width - wide, 0)), min(max(y1, 0), max(height - high, 0))
        for left, top_, right, bottom_ in sorted(taken, key=lambda label: label[1]):
            if x < right and left < x + wide and y < bottom_ and top_ < y + high:
                y = bottom_
        if y + high <= height and x + wide <= width:
            taken.append((x, y, x + wide, y + high))
            _blend(planes, x, y, _render(text, (wide, high), colour, font_file, size))


@functools.lru_cache(maxsize=1024)
def _text(
    title: str, actions: tuple[tuple[str, float], ...], font_file: str | None, size: int, width: int
) -> tuple[str, tuple[int, int]]:
    """Lay out a label for a picture of this width; -> its text and (width, height), both even."""
    font, room = load_font(font_file, size), max(width // 2, 1)
    text = "\n".join([title, *(_shorten(name, f" {score:.2f}", font, room) for name, score in actions)])
    probe = ImageDraw.Draw(Image.new("L", (1, 1)))
    _, _, right, bottom = probe.multiline_textbbox((0, 0), text, font=font, spacing=1)
    wide, high = (2 * int(np.ceil(side / 2 + _margin(size))) for side in (right, bottom))
    return text, (wide, high)


_Layer = tuple[NDArray[np.uint16], NDArray[np.uint16]]


@functools.lru_cache(maxsize=256)
def _render(
    text: str, shape: tuple[int, int], rgb: tuple[int, int, int], font_file: str | None, size: int
) -> tuple[_Layer, ...]:
    """Render a label; -> of Y, U and V its colours times its opacity, and 255 less the opacity."""
    # The text's own opacity: its antialiased edges blend into the ground, not into black.
    mask, font, margin = Image.new("L", shape), load_font(font_file, size), _margin(size)
    ImageDraw.Draw(mask).multiline_text((margin, margin), text, fill=255, font=font, spacing=1)
    ink = np.asarray(mask, np.float64)[..., None] / 255
    rgba = ink * np.array([*rgb, 255.0]) + (1 - ink) * np.array(GROUND, np.float64)
    yuv, alpha = rgba[..., :3] @ TO_YUV.T + YUV_ZERO, rgba[..., 3:]
    layers = []
    for channel, step in ((0, 1), (1, 2), (2, 2)):
        weighted = _shrink(yuv[..., channel : channel + 1] * alpha, step)
        opacity = _shrink(alpha, step)
        layers.append((np.rint(weighted).astype(np.uint16), np.rint(255 - opacity).astype(np.uint16)))
    return tuple(layers)


def _margin(size: int) -> int:
    """Pixels between a label's edge and its text."""
    return max(2, size // 6)


@functools.lru_cache(maxsize=len(COLOURS))
def _yuv(rgb: tuple[int, int, int]) -> tuple[int, int, int]:
    y, u, v = np.rint(TO_YUV @ np.array(rgb) + YUV_ZERO).astype(int).tolist()
    return y, u, v


def _shorten(name: str, score: str, font: Font, room: int) -> str:
    """The name and the score, with the name's end replaced by dots where they are wider than `room`."""
    if font.getlength(name + score) <= room:
        return name + score
    kept = len(name)
    while kept > 1 and font.getlength(name[:kept].rstrip() + "..." + score) > room:
        kept -= 1
    return name[:kept].rstrip() + "..." + score


def _shrink(image: NDArray[np.float64], step: int) -> NDArray[np.float64]:
    """Average (h, w, 1) over squares of step x step pixels: (h / step, w / step)."""
    height, width = image.shape[0] // step, image.shape[1] // step
    result: NDArray[np.float64] = image.reshape(height, step, width, step).mean((1, 3))
    return result


def _planes(image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], ...]:
    """Views of Y (H, W), U and V (H/2, W/2)."""
    height, width = image.shape[0] * 2 // 3, image.shape[1]
    flat, area = image.reshape(-1), height * width
    half = (height // 2, width // 2)
    return (
        flat[:area].reshape(height, width),
        flat[area : area * 5 // 4].reshape(half),
        flat[area * 5 // 4 :].reshape(half),
    )


def _pixels(
    box: tuple[float, float, float, float], height: int, width: int, line: int
) -> tuple[int, int, int, int]:
    """Even pixels of a box inside the picture, at least as large as its outline."""
    x1, x2 = (2 * round(min(max(x, 0.0), 1.0) * width / 2) for x in box[::2])
    y1, y2 = (2 * round(min(max(y, 0.0), 1.0) * height / 2) for y in box[1::2])
    x1, y1 = min(x1, width - line), min(y1, height - line)
    return x1, y1, max(x2, x1 + line), max(y2, y1 + line)


def _fill(
    planes: tuple[NDArray[np.uint8], ...], box: tuple[int, int, int, int], yuv: tuple[int, int, int]
) -> None:
    for plane, value, step in zip(planes, yuv, (1, 2, 2), strict=True):
        x1, y1, x2, y2 = (side // step for side in box)
        plane[y1:y2, x1:x2] = value


def _blend(planes: tuple[NDArray[np.uint8], ...], x: int, y: int, layers: tuple[_Layer, ...]) -> None:
    for plane, (weighted, rest), step in zip(planes, layers, (1, 2, 2), strict=True):
        height, width = weighted.shape
        part = plane[y // step : y // step + height, x // step : x // step + width]
        part[:] = (part * rest + weighted + 127) // 255  # at most 255 * 255 + 127: fits uint16


def _one_line(name: str) -> str:
    return " ".join(name.split())


@functools.lru_cache(maxsize=8)
def load_font(file: str | None, size: int) -> Font:
    """A font of this file, or Pillow's own, in a size in pixels."""
    return ImageFont.load_default(size=size) if file is None else ImageFont.truetype(file, size)


def _font_files() -> Iterator[str | None]:
    """Fonts in the order in which they are tried: Pillow's own (None), DejaVu Sans, the system's."""
    yield None
    matplotlib = importlib.util.find_spec("matplotlib")
    for folder in (matplotlib.submodule_search_locations or []) if matplotlib else []:
        dejavu = Path(folder) / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if dejavu.is_file():
            yield str(dejavu)
    for folder in FONT_FOLDERS:
        files = [path for path in Path(folder).expanduser().rglob("*") if path.suffix in FONT_SUFFIXES]
        yield from map(str, sorted(files, key=_oddness))


def _oddness(file: Path) -> tuple[int, str]:
    """Sort key: upright fonts of normal weight without serifs first."""
    name = file.stem.lower()
    odd = ("bold", "italic", "oblique", "light", "thin", "black", "mono", "serif", "condensed", "math")
    return sum(word in name for word in odd) - ("regular" in name), str(file)


def _has(file: str | None, text: str) -> bool:
    """Whether a font has all characters of a text."""
    try:
        characters = {c for c in text if not c.isspace() and unicodedata.category(c) not in ("Cf", "Cc")}
        return not any(_is_missing(file, c) for c in characters)
    except OSError:  # damaged, or a font of bitmaps alone
        return False


@functools.lru_cache(maxsize=10_000)
def _is_missing(file: str | None, character: str) -> bool:
    font = load_font(file, 20)
    pictures = [font.getmask(c) for c in (character, UNASSIGNED)]
    return pictures[0].size == pictures[1].size and bytes(pictures[0]) == bytes(pictures[1])
