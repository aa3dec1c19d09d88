"""RoIAlign as loops over samples, from its definition."""

import math

import numpy as np


def bilinear(feature: np.ndarray, y: float, x: float) -> np.ndarray | float:
    """Value (C,) at a point of a map (H, W, C): 0 more than a cell outside, the border's value near it."""
    height, width, _ = feature.shape
    if y < -1 or y > height or x < -1 or x > width:
        return 0.0
    y, x = max(y, 0.0), max(x, 0.0)
    y0, x0 = min(int(y), height - 1), min(int(x), width - 1)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    fy = y - y0 if y1 > y0 else 0.0
    fx = x - x0 if x1 > x0 else 0.0
    top = (1 - fx) * feature[y0, x0] + fx * feature[y0, x1]
    return (1 - fy) * top + fy * ((1 - fx) * feature[y1, x0] + fx * feature[y1, x1])


def slow_roi_align(feature: np.ndarray, stride: int, box: np.ndarray, bins: int, sampling: int) -> np.ndarray:
    """RoIAlign (P, P, C) of one box on one level: He et al. 2017 with the half-pixel shift of "aligned"."""
    x1, y1, x2, y2 = (float(v) / stride - 0.5 for v in box)
    bin_h, bin_w = (y2 - y1) / bins, (x2 - x1) / bins
    rows = sampling or math.ceil(bin_h)
    columns = sampling or math.ceil(bin_w)
    out = np.zeros((bins, bins, feature.shape[-1]))
    for i in range(bins):
        for j in range(bins):
            for s in range(rows):
                for t in range(columns):
                    y = y1 + (i + (s + 0.5) / rows) * bin_h
                    x = x1 + (j + (t + 0.5) / columns) * bin_w
                    out[i, j] += bilinear(feature, y, x) / (rows * columns)
    return out
