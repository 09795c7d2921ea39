"""The slow, obvious versions of what the kernels compute beside resampling."""

from fractions import Fraction


def strip(intensity):
    """Return the places of one spectrum that stay: all but zeros between zeros.

    What lies before the first and after the last point counts as zero.
    """
    zero = [value == 0 for value in intensity]
    kept = []
    for i, is_zero in enumerate(zero):
        before = zero[i - 1] if i > 0 else True
        after = zero[i + 1] if i + 1 < len(zero) else True
        if not (is_zero and before and after):
            kept.append(i)
    return kept


def null_mask(stripped):
    """Return which points of a stripped spectrum are zeros beside a zero."""
    zero = [value == 0 for value in stripped]
    return [
        is_zero and ((i > 0 and zero[i - 1]) or (i + 1 < len(zero) and zero[i + 1]))
        for i, is_zero in enumerate(zero)
    ]


def half(image):
    """Return one channel, a list of rows, at half its resolution.

    A pixel is the mean of the two by two that it covers, of those that exist; whole
    numbers are rounded to the nearest, ties to the even one.
    """
    halved = []
    for y in range(0, len(image), 2):
        row = []
        for x in range(0, len(image[0]), 2):
            pixels = [value for line in image[y : y + 2] for value in line[x : x + 2]]
            if isinstance(pixels[0], int):
                row.append(round(Fraction(sum(pixels), len(pixels))))
            else:
                row.append(float(sum(map(Fraction, pixels)) / len(pixels)))
        halved.append(row)
    return halved
