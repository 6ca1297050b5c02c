"""Frames of a picture, drawn by skia; only what has changed since the last one is drawn again."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.film import fonts
from pellucid.film.shapes import Mark, Picture, Pose, ease, same

Frame = NDArray[np.uint8]
"""(height, width, 4): red, green, blue and nothing."""
_EDGE = 3
"""Pixels around a mark that its soft edge may touch."""


class Painter:
    """Draws one picture, frame by frame, forward in time."""

    def __init__(self, picture: Picture) -> None:
        """A blank frame of paper."""
        self._skia = fonts.needed("skia")
        self.picture = picture
        self.pixels: Frame = np.zeros((picture.height, picture.width, 4), np.uint8)
        self._surface = self._skia.Surface(self.pixels, self._skia.kRGBA_8888_ColorType)
        self._canvas = self._surface.getCanvas()
        self._paper = self._skia.Color(*picture.paper)
        self._canvas.clear(self._paper)
        self._shown: dict[int, Pose] = {}
        self.drawn = 0
        """Frames that differed from the one before."""

    def draw(self, t: float) -> bool:
        """Draw what is to be seen at a time; False where nothing has changed since last time."""
        shown = {}
        for place, mark in enumerate(self.picture.marks):
            pose = mark.at(t)
            if pose is not None:
                shown[place] = pose
        changed = [
            place
            for place in shown.keys() | self._shown.keys()
            if not _alike(shown.get(place), self._shown.get(place))
        ]
        if not changed:
            return False
        marks = self.picture.marks
        touched = [
            marks[place].box(pose)
            for place in changed
            for pose in (shown.get(place), self._shown.get(place))
            if pose is not None
        ]
        left, top = (int(min(box[side] for box in touched)) - _EDGE for side in (0, 1))
        right, bottom = (int(max(box[side] for box in touched)) + 1 + _EDGE for side in (2, 3))
        self._canvas.save()
        self._canvas.clipRect(self._skia.Rect.MakeLTRB(left, top, right, bottom))
        self._canvas.clear(self._paper)
        for place, pose in shown.items():
            box = marks[place].box(pose)
            across = box[0] - _EDGE < right and box[2] + _EDGE > left
            if across and box[1] - _EDGE < bottom and box[3] + _EDGE > top:
                self._mark(marks[place], pose)
        self._canvas.restore()
        self._shown = shown
        self.drawn += 1
        return True

    def _mark(self, mark: Mark, pose: Pose) -> None:
        skia, canvas = self._skia, self._canvas
        alpha = round(255 * pose.alpha)
        paint = skia.Paint(AntiAlias=True, Color=skia.Color(*pose.colour, alpha))
        if mark.shape == "text":
            left = pose.x - mark.align * mark.width * pose.h
            fonts.draw(canvas, mark.text, mark.weight, pose.h, (left, pose.y), paint)
            return
        if mark.line:
            paint.setStyle(skia.Paint.kStroke_Style)
            paint.setStrokeWidth(mark.line)
            paint.setStrokeCap(skia.Paint.kRound_Cap)
        if mark.shape in ("arc", "curve"):
            self._bent(pose, paint, is_arc=mark.shape == "arc")
            return
        rect = skia.Rect.MakeXYWH(min(pose.x, pose.x + pose.w), pose.y, abs(pose.w), pose.h)
        radius = min(mark.radius, rect.width() / 2, rect.height() / 2)
        if mark.shape == "box":
            canvas.drawRoundRect(rect, radius, radius, paint)
        elif mark.shape == "hatch":
            self._hatch(rect, radius, paint, mark, alpha)
        else:
            self._cells(mark, pose, rect, paint, alpha)

    def _bent(self, pose: Pose, paint: Any, is_arc: bool) -> None:
        """A line from (x, y), as far as it has grown."""
        path = self._skia.Path()
        path.moveTo(pose.x, pose.y)
        for step in range(1, round(32 * pose.grown) + 1):
            part = step / 32
            down = -4 * pose.h * part * (1 - part) if is_arc else pose.h * ease(part)
            path.lineTo(pose.x + pose.w * part, pose.y + down)
        self._canvas.drawPath(path, paint)

    def _hatch(self, rect: Any, radius: float, paint: Any, mark: Mark, alpha: int) -> None:
        skia, canvas = self._skia, self._canvas
        canvas.save()
        canvas.clipRRect(skia.RRect.MakeRectXY(rect, radius, radius), True)
        canvas.drawRect(rect, skia.Paint(Color=skia.Color(*mark.under, alpha)))
        paint.setStyle(skia.Paint.kStroke_Style)
        step = max(6.0, mark.radius)
        paint.setStrokeWidth(step / 5)
        place = rect.left() - rect.height()
        while place < rect.right():
            canvas.drawLine(place, rect.bottom(), place + rect.height(), rect.top(), paint)
            place += step
        canvas.restore()

    def _cells(self, mark: Mark, pose: Pose, rect: Any, paint: Any, alpha: int) -> None:
        """A vector: a tile for each number, with a bar up or down for how large it is."""
        skia, canvas = self._skia, self._canvas
        count = len(mark.values)
        wide = rect.width() / count
        gap = min(4.0, wide / 6)
        under = skia.Paint(AntiAlias=True, Color=skia.Color(*mark.under, alpha))
        middle = rect.centerY()
        for place, value in enumerate(mark.values):
            tile = skia.Rect.MakeXYWH(
                rect.left() + place * wide + gap / 2, rect.top(), wide - gap, rect.height()
            )
            radius = min(mark.radius, tile.width() / 3)
            canvas.drawRoundRect(tile, radius, radius, under)
            size = value * pose.grown * (rect.height() / 2 - 2)
            if abs(size) < 0.5:
                continue
            bar = skia.Rect.MakeLTRB(
                tile.left(), min(middle, middle - size), tile.right(), max(middle, middle - size)
            )
            canvas.save()
            canvas.clipRRect(skia.RRect.MakeRectXY(tile, radius, radius), True)
            canvas.drawRect(bar, paint)
            canvas.restore()


def _alike(first: Pose | None, second: Pose | None) -> bool:
    return first is second or (first is not None and second is not None and same(first, second))


def frames(picture: Picture, rate: int) -> Iterator[tuple[int, Painter, bool]]:
    """Each frame by number, the painter that has drawn it, and whether it differs from the last."""
    painter = Painter(picture)
    for number in range(round(picture.seconds * rate)):
        yield number, painter, painter.draw(number / rate)


def png(pixels: Frame) -> bytes:
    """A frame as PNG."""
    skia = fonts.needed("skia")
    image = skia.Image.fromarray(pixels, skia.kRGBA_8888_ColorType)
    return bytes(image.encodeToData(skia.kPNG, 100))
