"""Losses, each as (sum, count), so that a mean over all devices is psum(sum) / psum(count).

Rows that are not `valid` (or not `positive`, for losses on objects) have no effect, whatever their values.
"""
