"""Converters of other annotation formats into the layout of YouTube-VIS; see `convert`."""
