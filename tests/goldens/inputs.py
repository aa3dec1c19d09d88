"""Deterministic video clips, numpy only (integer arithmetic, so the bytes do not depend on libm).

make_clip(seed, T, H, W, n_obj) -> dict
  frames  uint8 (T,H,W,3) RGB
  masks   bool  (T,n,H,W)   amodal-free: later objects occlude earlier ones
  boxes   float32 (T,n,4)   x1,y1,x2,y2 with x2 = last column + 1 (no "+1" convention needed: w = x2-x1)
  labels  int64 (n,)        0-based class (0..39)
  ids     int64 (n,)        instance ids (arbitrary, unique)
  visible bool (T,n)        object has >= 16 visible pixels in that frame
"""

import zlib

import numpy as np


def _block_noise(rng: np.random.Generator, h: int, w: int, block: int, lo: int, hi: int) -> np.ndarray:
    g = rng.integers(lo, hi, size=((h + block - 1) // block, (w + block - 1) // block, 3), dtype=np.int64)
    return np.repeat(np.repeat(g, block, 0), block, 1)[:h, :w]


def make_clip(seed: int = 0, T: int = 3, H: int = 360, W: int = 640, n_obj: int = 4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(zlib.crc32(b"clip|%d|%d|%d|%d|%d" % (seed, T, H, W, n_obj)))
    yy, xx = np.mgrid[0:H, 0:W].astype(np.int64)
    # background: gradient + coarse and fine blocks, shifted by a camera pan
    big_h, big_w = H + 64, W + 64
    bg = (
        60
        + _block_noise(rng, big_h, big_w, 32, -40, 40)
        + _block_noise(rng, big_h, big_w, 8, -25, 25)
        + _block_noise(rng, big_h, big_w, 3, -12, 12)
    )
    by, bx = np.mgrid[0:big_h, 0:big_w].astype(np.int64)
    bg = (
        bg
        + (by * 60 // big_h)[..., None] * np.array([1, 0, 1])
        + (bx * 60 // big_w)[..., None] * np.array([0, 1, 1])
    )
    pan = rng.integers(-6, 7, size=2)
    objs = []
    for _ in range(n_obj):
        rh = int(rng.integers(max(H // 16, 8), max(H // 4, 12)))
        rw = int(rng.integers(max(W // 16, 8), max(W // 5, 12)))
        objs.append(
            dict(
                kind=int(rng.integers(0, 3)),
                rh=rh,
                rw=rw,
                cy=int(rng.integers(H // 5, H - H // 5)),
                cx=int(rng.integers(W // 6, W - W // 6)),
                vy=int(rng.integers(-10, 11)),
                vx=int(rng.integers(-16, 17)),
                color=rng.integers(20, 236, size=3).astype(np.int64),
                tex=_block_noise(rng, 2 * rh + 1, 2 * rw + 1, int(rng.integers(4, 15)), -45, 45),
                a=int(rng.integers(3, 12)),
                b=int(rng.integers(3, 12)),
            )
        )
    labels = rng.choice(40, size=n_obj, replace=False).astype(np.int64)
    ids = (rng.permutation(n_obj) + 7 + 3 * seed).astype(np.int64)
    frames = np.zeros((T, H, W, 3), np.uint8)
    masks = np.zeros((T, n_obj, H, W), bool)
    for t in range(T):
        oy, ox = 32 + int(pan[0]) * t, 32 + int(pan[1]) * t
        oy, ox = min(max(oy, 0), 64), min(max(ox, 0), 64)
        img = bg[oy : oy + H, ox : ox + W].copy()
        for k, o in enumerate(objs):
            cy, cx = o["cy"] + o["vy"] * t, o["cx"] + o["vx"] * t
            dy, dx = yy - cy, xx - cx
            if o["kind"] == 0:  # ellipse
                m = (dy * dy * o["rw"] ** 2 + dx * dx * o["rh"] ** 2) <= (o["rh"] * o["rw"]) ** 2
            elif o["kind"] == 1:  # rectangle
                m = (np.abs(dy) <= o["rh"]) & (np.abs(dx) <= o["rw"])
            else:  # diamond
                m = np.abs(dy) * o["rw"] + np.abs(dx) * o["rh"] <= o["rh"] * o["rw"]
            ty = np.clip(dy + o["rh"], 0, 2 * o["rh"])
            tx = np.clip(dx + o["rw"], 0, 2 * o["rw"])
            col = o["color"] + o["tex"][ty, tx] + (((dy * o["a"] + dx * o["b"]) % 48) - 24)[..., None]
            img = np.where(m[..., None], col, img)
            masks[t, :k] &= ~m
            masks[t, k] = m
        frames[t] = np.clip(img, 0, 255).astype(np.uint8)
    boxes = np.zeros((T, n_obj, 4), np.float32)
    visible = masks.sum((2, 3)) >= 16
    for t in range(T):
        for k in range(n_obj):
            if visible[t, k]:
                ys, xs = np.nonzero(masks[t, k])
                boxes[t, k] = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
    return dict(frames=frames, masks=masks, boxes=boxes, labels=labels, ids=ids, visible=visible)


if __name__ == "__main__":
    for a in [(0, 3, 360, 640, 4), (0, 4, 250, 333, 4), (1, 3, 360, 640, 4), (1, 4, 250, 333, 4)]:
        c = make_clip(*a)
        print(
            a,
            "crc32",
            zlib.crc32(c["frames"].tobytes()),
            c["labels"],
            c["ids"],
            c["visible"].all(),
            c["boxes"][0].tolist(),
            "vis",
            c["masks"].sum((2, 3))[0].tolist(),
        )
