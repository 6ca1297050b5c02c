"""One colour scale for the terminal and the pictures, readable without colour vision.

A single blue hue whose lightness alone encodes the number, so that it survives every kind of colour
blindness and greyscale printing. One ramp for light backgrounds, one for dark; zero is close to the
background.
"""

Colour = tuple[int, int, int]

LIGHT: tuple[Colour, ...] = (
    (245, 248, 251), (200, 224, 240), (121, 182, 219), (38, 119, 172), (15, 77, 127), (8, 42, 79),
)  # fmt: skip
DARK: tuple[Colour, ...] = (
    (21, 30, 41), (20, 58, 88), (25, 98, 143), (50, 146, 193), (132, 200, 229), (229, 245, 252),
)  # fmt: skip
LIGHT_AGAINST: tuple[Colour, ...] = (
    (251, 247, 243), (250, 222, 190), (240, 170, 100), (205, 105, 20), (140, 66, 6), (84, 38, 2),
)  # fmt: skip
DARK_AGAINST: tuple[Colour, ...] = (
    (38, 29, 20), (84, 50, 18), (140, 82, 22), (205, 125, 35), (240, 180, 110), (253, 232, 208),
)  # fmt: skip
"""Orange, for what is negative where the ramps above are what is positive: the two hues are told
apart with every kind of colour blindness (Okabe and Ito 2008), and numbers have a sign beside."""
WHITE: Colour = (255, 255, 255)
BLACK: Colour = (11, 18, 26)


def shade(fraction: float, ramp: tuple[Colour, ...]) -> Colour:
    """The colour of a number from 0 to 1, interpolated between the colours of the ramp."""
    position = min(max(fraction, 0.0), 1.0) * (len(ramp) - 1)
    below = min(int(position), len(ramp) - 2)
    part = position - below
    red, green, blue = (
        round(low + (high - low) * part)
        for low, high in zip(ramp[below], ramp[below + 1], strict=True)
    )
    return red, green, blue


def ink(background: Colour) -> Colour:
    """Black or white text, whichever is easier to read on the background."""
    return max(BLACK, WHITE, key=lambda text: contrast(text, background))


def contrast(first: Colour, second: Colour) -> float:
    """The contrast ratio of two colours, from 1 to 21 (WCAG 2.2, "contrast ratio")."""
    low, high = sorted((_luminance(first), _luminance(second)))
    return (high + 0.05) / (low + 0.05)


def css(colour: Colour) -> str:
    """'#rrggbb'."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _luminance(colour: Colour) -> float:
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in (channel / 255 for channel in colour)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
