"""Convert other annotation formats to the layout of YouTube-VIS; see `convert`."""
