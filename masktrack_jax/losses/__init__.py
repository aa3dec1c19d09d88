"""Every loss as (sum, count), so that a mean over all devices is psum(sum) / psum(count).

Rows that are not `valid` (or not `positive`, where a loss is about objects) count for nothing, whatever they
hold.
"""
